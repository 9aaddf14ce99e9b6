//! The control plane in one process, over real sockets.

mod api;
mod captured;
mod harness;
mod joining;
mod peering;
