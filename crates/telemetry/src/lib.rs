//! What can be seen of the mesh: metrics, access log, logs.
//!
//! The path of a request touches atomics only. Whoever carries traffic asks [`Metrics::edge`] once per pair of caller and
//! endpoint, keeps the [`Edge`], and counts on it; label look-ups, locks and formatting happen at that moment or when
//! somebody scrapes. The access log takes entries without ever waiting and says how many it had to drop.

pub mod access_log;
pub mod edge;
pub mod family;
pub mod flag;
pub mod histogram;
pub mod logging;
mod metrics;
pub mod panics;
pub mod text;

pub use access_log::{AccessEntry, AccessLog, AccessLogConfig, AccessLogGuard};
pub use edge::{Direction, Edge, EdgeLabels, Protocol, RetryReason};
pub use family::{Counter, Gauge};
pub use flag::{Blame, Flag};
pub use histogram::Histogram;
pub use metrics::{CONTENT_TYPE, Metrics};
