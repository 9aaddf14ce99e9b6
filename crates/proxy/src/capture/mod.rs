//! Transparent capture: packet-filter rules that lead a workload's connections through its proxy.
//!
//! [`Capture`] says what is captured; [`Capture::nft`] and [`Capture::iptables`] render it, [`apply`] and [`remove`]
//! hand it to the tool inside a network namespace. Everything lives in one table (nftables) or two chains (iptables) of
//! our own, so applying twice is applying once, and removing leaves nothing.
//!
//! Connections are redirected to the proxy's port (`REDIRECT`); the proxy asks connection tracking where they were
//! going ([`veer_net::original_dst`]). TPROXY was rejected for outbound traffic: it works on the incoming path only,
//! and would need policy routing besides. The proxy's own connections pass by their routing mark, or by its user id
//! where it may not set one.

mod apply;
mod iptables;
mod model;
mod nft;

pub use apply::{CaptureError, Namespace, Tool, apply, is_applied, remove};
pub use model::{Capture, CaptureFault, DEFAULT_INBOUND_PORT, DEFAULT_MARK, DEFAULT_OUTBOUND_PORT, Range};

#[cfg(test)]
mod tests;
