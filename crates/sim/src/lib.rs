//! Whole fleets on a simulated network with a virtual clock: control planes, gateways, proxies, applications and callers, all
//! the real code, from manifests on disk, on one thread.
//!
//! ```text
//!  west 10.1.0.0/16                        east 10.2.0.0/16
//!  control .0.1   gateway-1 .0.2  <------> gateway-1 .0.2   control .0.1
//!  visitor .0.11                           echo-1 .0.11  echo-2 .0.12
//! ```
//!
//! A [`FleetSpec`] says what there is; [`Fleet`] runs it, breaks it and tells what happened. Every workload, gateway and
//! control plane is a host of its own. Hosts of different clusters reach each other only through gateways: everything
//! else between them is cut from the start. Time passes only in [`Fleet::run`] and [`Fleet::until`]; a day of it takes
//! seconds. What the network and the code decide by chance follows from the seed, so that a run can be repeated.

mod app;
pub mod entropy;
mod fleet;
mod hosts;
mod journal;
mod manifests;
mod spec;

pub use fleet::Fleet;
pub use journal::{Event, Journal, What};
pub use spec::{ClusterSpec, FleetSpec, WorkloadSpec};
