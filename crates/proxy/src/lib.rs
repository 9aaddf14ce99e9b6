//! The data plane: the proxy beside a workload, and the gateway between clusters.
//!
//! A request is followed in two files: [`outbound::request`] at the caller, [`inbound::request`] at the callee. Everything else
//! here serves those two: [`knowledge`] (what the control plane said, ready for the request path), [`pool`] (connections),
//! [`http`] (bodies, fields, local answers), [`worker`] (one thread, one accept queue).

pub mod admin;
pub mod capture;
pub mod client_hello;
pub mod config;
pub mod detect;
pub mod enrolment;
pub mod error;
pub mod exchange;
pub mod exec;
pub mod explain;
pub mod gateway;
pub mod http;
pub mod inbound;
pub mod ingress;
pub mod knowledge;
mod limits;
pub mod outbound;
pub mod pages;
pub mod pool;
pub mod process;
pub mod proxy_protocol;
pub mod recent;
mod run;
mod socket;
mod splice;
pub mod tcp;
pub mod telemetry;
mod upkeep;
pub mod worker;

pub use config::{Capture, ProxyConfig, Workers};
pub use error::ProxyError;
pub use run::run;
