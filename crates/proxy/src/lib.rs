//! The data plane: listeners, detection, HTTP and TCP relaying, and the gateway between clusters.

pub mod client_hello;
