//! The callee's side: what comes to the application.
//!
//! Two doors: the mesh port, where mutual TLS is mandatory in every mode, and the application's own ports, where plaintext is
//! taken while the workload is permissive.

mod app;
mod mesh;
mod plaintext;
pub mod rate;
pub mod request;
mod serve;
mod state;
mod tcp;

pub use self::mesh::listen as listen_mesh;
pub use self::plaintext::{listen_captured, listen_ports};
pub use self::state::{Caller, InFlight, InboundState, InboundView, admit, authorize, exposed};
