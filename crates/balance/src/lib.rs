//! Which copy of a service takes the next request.
//!
//! ```text
//! Clusters ──────── how much each cluster is believed (lease, proof of the data path)
//! ServiceBalance ── endpoints of one service with what this process has seen of them; ejection, limits, retry budget
//!   └─ plan ─────── every 100 ms, and at once when health is lost: share of each cluster, weight of each endpoint
//! Picker ────────── one per worker: next cluster by largest remainder, next endpoint by earliest virtual deadline
//!   └─ Pick ─────── one request's hold on an endpoint; its outcome flows back
//! PathBalance ───── gateway replicas of a peer, ejected and restored apart from the endpoints behind them
//! ```
//!
//! No clock and no sockets: `now` and randomness are arguments, so that whole fleets run on a virtual clock and a seed. What a
//! request touches is atomics and its worker's own state; locks are only taken to re-plan and to eject.

mod adaptive;
mod budget;
mod clock;
mod cluster;
mod hashed;
mod path;
mod pick;
mod picker;
mod plan;
mod service;
mod share;
mod silence;
mod snapshot;
mod stats;
mod target;

pub use budget::RetryBudget;
pub use cluster::{ClusterHealth, Clusters, Standing, standing};
pub use path::{PathBalance, PathReplica, ReplicaSnapshot};
pub use pick::{NoEndpoint, NoEndpointReason, Outcome, Pick};
pub use picker::Picker;
pub use service::ServiceBalance;
pub use snapshot::{ClusterSnapshot, EndpointSnapshot, EventCounts, LossCounts, ServiceSnapshot};
pub use stats::EndpointState;
pub use target::{Dial, EndpointKey, Target};
