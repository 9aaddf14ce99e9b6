//! What all do: the rows of the report.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;
use veer_load::Exchange;

use super::origin::BODY;

/// Where the origin answers HTTP.
pub const ORIGIN: SocketAddr = address(1, 9000);
/// Where the origin echoes.
pub const ECHO: SocketAddr = address(1, 9001);
/// Where the proxy under test listens; the caller's side of a pair.
pub const FRONT: SocketAddr = address(2, 8000);
/// Where the callee's side of a pair listens.
pub const BACK: SocketAddr = address(3, 8443);
/// The origin as the application of Veer's workloads.
pub const APPLICATION: SocketAddr = address(20, 9000);
/// The echo as the application of a workload of Veer.
pub const ECHO_APPLICATION: SocketAddr = address(21, 9001);

/// The second part of all these addresses: 127.78.0.0/24.
pub const NETWORK: u8 = 78;

const fn address(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, NETWORK, 0, last)), port)
}

/// A work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// HTTP/1.1, 64 connections
    Http1,
    /// HTTP/2, 4 connections with 16 streams each
    Http2,
    /// TCP echo, 64 connections
    Tcp,
    /// HTTP/1.1 through two proxies with mutual TLS between them, 64 connections
    PairHttp1,
    /// HTTP/2 through two proxies with mutual TLS between them, 4 connections with 16 streams each
    PairHttp2,
}

impl Work {
    /// All.
    pub const ALL: [Self; 5] = [Self::Http1, Self::Http2, Self::Tcp, Self::PairHttp1, Self::PairHttp2];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1, 64 connections",
            Self::Http2 => "HTTP/2, 4 connections × 16 streams",
            Self::Tcp => "TCP echo, 64 connections",
            Self::PairHttp1 => "pair with mutual TLS between, HTTP/1.1, 64 connections",
            Self::PairHttp2 => "pair with mutual TLS between, HTTP/2, 4 connections × 16 streams",
        }
    }

    /// What is exchanged on a connection.
    pub fn exchange(self, host: &str) -> Exchange {
        let (host, path) = (host.to_owned(), "/items".to_owned());
        match self {
            Self::Http1 | Self::PairHttp1 => Exchange::Http1 { host, path },
            Self::Http2 | Self::PairHttp2 => Exchange::Http2 { host, path, streams: 16 },
            Self::Tcp => Exchange::Echo { bytes: BODY },
        }
    }

    /// Connections of the load.
    pub fn connections(self) -> usize {
        if self.speaks_http2() { 4 } else { 64 }
    }

    /// Whether the load speaks HTTP/2.
    pub fn speaks_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::PairHttp2)
    }

    /// Whether two proxies do it together.
    pub fn is_pair(self) -> bool {
        matches!(self, Self::PairHttp1 | Self::PairHttp2)
    }

    /// Where the work is done without a proxy.
    pub fn origin(self) -> SocketAddr {
        if self == Self::Tcp { ECHO } else { ORIGIN }
    }
}
