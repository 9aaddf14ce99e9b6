//! The data plane: the proxy beside a workload, and the gateway between clusters.
//!
//! A request is followed in two files: [`outbound`] at the caller, [`inbound`] at the callee. Everything else here serves
//! those two: [`knowledge`] (what the control plane said, ready for the request path), [`pool`] (connections), [`http`]
//! (bodies, fields, local answers), [`worker`] (one thread, one accept queue).

pub mod capture;
pub mod client_hello;
pub mod error;
pub mod exec;
pub mod http;
pub mod detect;
mod splice;
pub mod tcp;
