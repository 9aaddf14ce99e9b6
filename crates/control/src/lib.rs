//! The control plane of one cluster.
//!
//! ```text
//!  folders of manifests ─► source ─┐
//!  peers' offers, leases ──────────┼─► catalog ─► compile ─► one immutable generation ─► sessions (xDS)
//!  operator's orders ──────────────┘                                   └─► API
//! ```
//!
//! | module | what it answers |
//! |---|---|
//! | [`control`](run) | start, run, end |
//! | `catalog` | what is served, and since when |
//! | `connection`, `published` | who is at the other end, and what it may read |
//! | `issuer`, [`tokens`], [`issued`] | who gets a certificate |
//! | `peering`, [`peers`], [`lease`], [`links`] | what peers said, and how far they are believed |
//! | [`api`], [`http`] | what operators and the command line see and order |
//! | [`state`] | what survives a restart |
//!
//! Silence is never read as deletion: a control plane that has not read its manifests answers nothing, a peer's silence only ages what
//! it said, and an unreadable file stops the start or is set aside, but is never taken for an empty one.
//!
//! Runs on one thread, inside a local task set; several run in one simulation.

mod answers;
pub mod api;
mod catalog;
pub mod config;
mod connection;
mod control;
mod encoded;
mod files;
pub mod http;
pub mod issued;
mod issuer;
pub mod lease;
pub mod links;
mod metrics;
mod objects;
mod peering;
pub mod peers;
mod plane;
pub mod proxies;
mod published;
mod random;
mod sealer;
mod server;
pub mod state;
pub mod tokens;

pub use config::ControlConfig;
pub use control::{Control, ControlError, Handle, run};
pub use http::{ApiRequest, ApiResponse};
pub use state::socket_path;
