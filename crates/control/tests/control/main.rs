//! The control plane in one process, over real sockets.

mod api;
mod harness;
mod joining;
mod peering;
