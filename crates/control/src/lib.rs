//! The control plane of one cluster.

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
