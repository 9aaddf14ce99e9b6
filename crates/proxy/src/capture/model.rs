//! What is captured, apart from how a tool is told.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use veer_core::inbound::MESH_PORT;

/// Where outbound connections are led: the proxy's outbound listener, which takes captured and explicit connections
/// alike.
pub const DEFAULT_OUTBOUND_PORT: u16 = 15001;

/// Where inbound connections are led.
pub const DEFAULT_INBOUND_PORT: u16 = 15006;

/// Routing mark of the proxy's own connections. Kubernetes takes single bits (`0x4000`, `0x8000`) for itself and
/// compares under a mask, so a value of several low bits meets nothing of it.
pub const DEFAULT_MARK: u32 = 0x539;

/// Port of the proxy's metrics and probes.
const ADMIN_PORT: u16 = 15020;

/// What is led through the proxy, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The proxy's port for outbound connections; `None`: they are left alone.
    pub outbound_port: Option<u16>,
    /// The proxy's port for inbound connections; `None`: they are left alone.
    pub inbound_port: Option<u16>,
    /// Routing mark (`SO_MARK`) by which the proxy's own connections pass.
    pub proxy_mark: Option<u32>,
    /// User id by which the proxy's own connections pass, where it may not set a mark. The application must not share
    /// it.
    pub proxy_uid: Option<u32>,
    /// Destinations of outbound connections that are captured; empty: all.
    pub outbound_ranges: Vec<Range>,
    /// Destinations of outbound connections that are not captured.
    pub exclude_outbound_ranges: Vec<Range>,
    /// Destination ports of outbound connections that are not captured.
    pub exclude_outbound_ports: Vec<u16>,
    /// Ports of inbound connections that are not captured, besides the proxy's own.
    pub exclude_inbound_ports: Vec<u16>,
    /// Whether IPv6 is captured too. The proxy must then listen on IPv6.
    pub ipv6: bool,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            outbound_port: Some(DEFAULT_OUTBOUND_PORT),
            inbound_port: Some(DEFAULT_INBOUND_PORT),
            proxy_mark: Some(DEFAULT_MARK),
            proxy_uid: None,
            outbound_ranges: Vec::new(),
            exclude_outbound_ranges: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_inbound_ports: Vec::new(),
            ipv6: true,
        }
    }
}

/// Why a capture would not do what is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureFault {
    /// The proxy's own connections would be led back into the proxy.
    #[error("neither a mark nor a user id tells the proxy's own connections apart: they would run in a circle")]
    Circle,
    /// Every process of root passes by.
    #[error(
        "the proxy's user id is 0: connections of every root process would pass by the proxy; give it a mark or a user of its own"
    )]
    Root,
    /// A mark of 0 is what every unmarked connection has.
    #[error("mark 0 is what unmarked connections have: nothing would be captured")]
    NoMark,
    /// Nothing is captured at all.
    #[error("neither outbound nor inbound connections are to be captured")]
    Nothing,
    /// A port of 0.
    #[error("port 0 cannot be redirected to")]
    Port,
}

impl Capture {
    /// Finds every fault.
    pub fn faults(&self) -> Vec<CaptureFault> {
        let mut faults = Vec::new();
        if self.proxy_mark.is_none() && self.proxy_uid.is_none() {
            faults.push(CaptureFault::Circle);
        }
        if self.proxy_uid == Some(0) {
            faults.push(CaptureFault::Root);
        }
        if self.proxy_mark == Some(0) {
            faults.push(CaptureFault::NoMark);
        }
        if self.outbound_port.is_none() && self.inbound_port.is_none() {
            faults.push(CaptureFault::Nothing);
        }
        if self.outbound_port == Some(0) || self.inbound_port == Some(0) {
            faults.push(CaptureFault::Port);
        }
        faults
    }

    /// Inbound ports that reach their listener directly: the proxy's own, and those excluded. Ascending, each once.
    pub(super) fn open_inbound_ports(&self) -> Vec<u16> {
        let own = [MESH_PORT, ADMIN_PORT].into_iter().chain(self.outbound_port).chain(self.inbound_port);
        sorted(own.chain(self.exclude_inbound_ports.iter().copied()))
    }

    /// Outbound ports that are left alone. Ascending, each once.
    pub(super) fn open_outbound_ports(&self) -> Vec<u16> {
        sorted(self.exclude_outbound_ports.iter().copied())
    }
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// A range of addresses in CIDR notation, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    address: IpAddr,
    prefix: u8,
}

impl Range {
    /// Whether it is of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse =
            || format!("{text:?} is not an address range: write an address or address/prefix, like \"10.0.0.0/8\"");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().map_err(|_| refuse())?,
            Some(_) => return Err(refuse()),
            None => width,
        };
        if prefix > width {
            return Err(refuse());
        }
        // The tools would mask silently; a range that says something else than it covers is a mistake.
        let host_bits = match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4).checked_shl(prefix.into()).unwrap_or(0)),
            IpAddr::V6(v6) => u128::from(v6).checked_shl(prefix.into()).unwrap_or(0),
        };
        if host_bits != 0 {
            return Err(format!("{text:?} has bits set beyond its prefix"));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
