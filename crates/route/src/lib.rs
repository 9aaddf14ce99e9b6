//! Which rule of which route acts on a request, which of its backends serves, how the request is changed on its way, and
//! whether the callee lets it in.
//!
//! Everything here is a pure function of what it is given: no clock, no sockets, randomness as an argument. Values are
//! compiled once when a configuration arrives ([`Matcher::new`], [`Authorizer::new`]); deciding allocates nothing.
//!
//! Routing and authorization see the same [`NormalPath`]: a request whose path could mean two things to two readers is
//! refused before either is asked.

mod authorize;
mod backend;
mod cors;
mod faults;
mod filter;
mod filters;
mod matcher;
mod order;
mod path;
mod request;
mod rule;

pub use authorize::{Asked, Authorizer, Verdict, authorize};
pub use backend::{Deal, Share};
pub use cors::{CorsPolicy, Shared};
pub use faults::Faults;
pub use filter::{HeaderEdit, Origin, replace_prefix};
pub use filters::Direct;
pub use matcher::{Matched, Matcher};
pub use path::{NormalPath, PathError};
pub use request::{Headers, RequestView};
pub use rule::Rule;
