//! The control plane of one cluster.

pub mod api;
pub mod config;
mod files;
pub mod issued;
pub mod lease;
pub mod peers;
pub mod proxies;
mod random;
pub mod state;
pub mod tokens;

pub use config::ControlConfig;
