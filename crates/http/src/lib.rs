//! HTTP on the wire: what a proxy must understand of HTTP/1.1 (RFC 9112) and HTTP/2 (RFC 9113), and no more.
//!
//! No sockets, no clock, no tasks: bytes in, events out, bytes out. Heads lie in one buffer, and fields are ranges of it, so that a
//! head that passes through costs two copies of its bytes and no allocation per field.

mod fields;
pub mod h1;
pub mod h2;
mod head;
pub mod hpack;
mod name;
mod scan;

pub use fields::{Fields, FieldsFault};
pub use head::{Method, RequestHead, ResponseHead, Scheme, Version};
pub use name::{Name, Names};
