//! Kubernetes-shaped manifests.
//!
//! [`parse`] reads one file of any number of documents into typed [`Object`]s and says everything that is wrong with it at
//! once, each [`Diagnostic`] with file, line, column, code, reason and mend. A document with an error yields no object (but
//! see [`Object::failed_closed`]) and never hides the others. Whatever a newer version of Kubernetes or of the Gateway API
//! may have added is tolerated and reported: unknown fields and kinds are warnings, unknown values of open enumerations are
//! kept by name, so that what acts on them can fail closed.
//!
//! [`parse_fleet`] does the same for `fleet.yaml`; [`check_set`] looks at the objects of a whole cluster together.

mod decode;
mod diagnostic;
mod node;
mod object;
mod parse;
mod positions;
mod suggest;
pub mod types;
mod validate;
mod written;

pub use diagnostic::{Diagnostic, Location, Severity};
pub use object::{Kind, KindName, Object};
pub use parse::{MAX_FILE_BYTES, parse, parse_bytes, parse_fleet};
pub use types::*;
pub use validate::set::{check_set, remove_duplicates};
