//! Whole fleets for tests and benchmarks: real processes of the real binary, on loopback or in network namespaces.

pub mod fleet;
pub mod inspect;
pub mod netns;
pub mod wait;
pub mod wire;

pub use fleet::{Cluster, Fleet, FleetSpec};
pub use inspect::signal;
pub use netns::{Namespace, Wan};
pub use wait::{eventually, eventually_async};
pub use wire::{Line, Wire};
