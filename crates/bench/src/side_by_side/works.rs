//! What all do: the rows of the report.

use serde::Serialize;
use veer_load::Exchange;

/// Length of every small body, and of every small message that comes back.
pub const SMALL: usize = 100;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Requests per second of works at a fixed rate.
const QUIET: f64 = 2000.0;
/// Share of the time that a proxy is busy, for works at a rate that keeps it busy.
const BUSY: f64 = 0.7;

/// A work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
    /// gRPC, unary
    Grpc,
    /// TCP, small messages that come back
    Tcp,
    /// TCP, messages of 64 KiB that come back
    #[value(name = "tcp-64k")]
    #[serde(rename = "tcp-64k")]
    Tcp64k,
    /// HTTP/1.1 through two proxies with mutual TLS between them
    PairHttp1,
    /// HTTP/2 through a pair
    PairHttp2,
    /// TCP through a pair
    PairTcp,
    /// HTTP/1.1, bodies of 10 KiB
    #[value(name = "http1-10k")]
    #[serde(rename = "http1-10k")]
    Http1Body10k,
    /// HTTP/1.1 through a pair, bodies of 10 KiB
    #[value(name = "pair-http1-10k")]
    #[serde(rename = "pair-http1-10k")]
    PairHttp1Body10k,
    /// Answers of 1 MiB
    Download,
    /// Requests of 1 MiB
    Upload,
    /// gRPC calls whose answers are 256 messages of 1 KiB
    Stream,
    /// A new connection per request
    Connect,
    /// A new connection per request, through a pair
    PairConnect,
    /// A new connection per message, TCP through a pair
    PairTcpConnect,
    /// A pair, and the same with a relay by server name between
    Gateway,
    /// The same with bodies of 64 KiB
    #[value(name = "gateway-64k")]
    #[serde(rename = "gateway-64k")]
    Gateway64k,
    /// Handshakes of mutual TLS
    Handshake,
    /// Handshakes that resume a session
    HandshakeResumed,
    /// What is added at 2,000 requests/s
    Latency,
    /// What is added while the proxy is busy for 70 % of the time
    LatencyBusy,
    /// What a pair adds at 2,000 requests/s
    PairLatency,
    /// What a pair adds while it is busy for 70 % of the time
    PairLatencyBusy,
    /// Memory of a proxy that has nothing to do
    Rest,
    /// Memory per idle connection
    Idle,
    /// Memory per idle connection with mutual TLS
    IdleTls,
    /// Memory and CPU of a proxy in a fleet of 10,000 services
    Growth,
    /// One choice among 1,000 endpoints
    Pick,
}

/// A chapter of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// One proxy, small messages.
    Single,
    /// Two proxies, small messages.
    Pair,
    /// Large bodies and messages.
    Bodies,
    /// New connections.
    Connections,
    /// A relay between a pair.
    Gateway,
    /// Latency at a fixed rate.
    Latency,
    /// Memory, and what it grows with.
    Memory,
}

/// How a work is loaded and what of it is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// As fast as it goes: CPU time per request.
    Closed,
    /// At a rate: latency.
    Paced(Rate),
    /// Handshakes as fast as they go: CPU time per handshake.
    Handshakes {
        /// Whether sessions are resumed.
        resumed: bool,
    },
    /// Nothing: memory.
    Rest,
    /// Many connections that are idle: memory.
    Idle {
        /// With mutual TLS.
        tls: bool,
    },
    /// Veer alone, in a large fleet.
    Growth,
    /// A part of Veer alone.
    Pick,
}

/// Requests per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// So many.
    Fixed(f64),
    /// Which keeps each proxy busy for a share of the time.
    Share(f64),
}

/// What is spoken on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1
    Http1,
    /// HTTP/2 with prior knowledge
    Http2,
    /// gRPC, over the same
    Grpc,
    /// Bytes that come back
    Tcp,
}

/// How many proxies there are in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// One
    Single,
    /// Two with mutual TLS between
    Pair,
    /// The called one of a pair, alone
    Callee,
}

/// A work in figures.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// For people.
    pub title: &'static str,
    /// Chapter.
    pub family: Family,
    /// What is measured.
    pub kind: Kind,
    /// Protocol.
    pub spoken: Spoken,
    /// Proxies.
    pub row: Row,
    /// Connections of the load.
    pub connections: usize,
    /// Requests in flight per connection, for HTTP/2.
    pub streams: usize,
    /// Length of an answer's body, or of a message.
    pub body: usize,
    /// Messages that a gRPC answer consists of.
    pub messages: usize,
    /// Length of a request's body.
    pub upload: usize,
    /// A new connection per request.
    pub reconnect: bool,
}

impl Work {
    /// In the order of the report.
    pub const ALL: [Self; 29] = [
        Self::Http1,
        Self::Http2,
        Self::Grpc,
        Self::Tcp,
        Self::PairHttp1,
        Self::PairHttp2,
        Self::PairTcp,
        Self::Http1Body10k,
        Self::PairHttp1Body10k,
        Self::Tcp64k,
        Self::Download,
        Self::Upload,
        Self::Stream,
        Self::Connect,
        Self::PairConnect,
        Self::PairTcpConnect,
        Self::Handshake,
        Self::HandshakeResumed,
        Self::Gateway,
        Self::Gateway64k,
        Self::Latency,
        Self::LatencyBusy,
        Self::PairLatency,
        Self::PairLatencyBusy,
        Self::Rest,
        Self::Idle,
        Self::IdleTls,
        Self::Growth,
        Self::Pick,
    ];

    /// Its name on the command line and in files.
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it is, in figures.
    pub fn shape(self) -> Shape {
        let http1 = Shape {
            title: "HTTP/1.1, 64 connections",
            family: Family::Single,
            kind: Kind::Closed,
            spoken: Spoken::Http1,
            row: Row::Single,
            connections: 64,
            streams: 1,
            body: SMALL,
            messages: 1,
            upload: 0,
            reconnect: false,
        };
        let pair = |shape: Shape| Shape { row: Row::Pair, family: Family::Pair, ..shape };
        let bodies = |shape: Shape| Shape { family: Family::Bodies, ..shape };
        let connect = |shape: Shape| Shape { family: Family::Connections, reconnect: true, ..shape };
        let latency = |shape: Shape, rate| Shape { family: Family::Latency, kind: Kind::Paced(rate), ..shape };
        let memory = |shape: Shape, kind| Shape { family: Family::Memory, kind, ..shape };
        let titled = |title, shape: Shape| Shape { title, ..shape };
        let http2 = Shape { spoken: Spoken::Http2, connections: 4, streams: 16, ..http1 };
        let grpc = Shape { spoken: Spoken::Grpc, ..http2 };
        let tcp = Shape { spoken: Spoken::Tcp, ..http1 };
        let handshake = |resumed| Shape {
            family: Family::Connections,
            kind: Kind::Handshakes { resumed },
            row: Row::Callee,
            connections: 16,
            ..http1
        };
        match self {
            Self::Http1 => http1,
            Self::Http2 => titled("HTTP/2, 4 connections × 16 streams", http2),
            Self::Grpc => titled("gRPC unary, 4 connections × 16 streams", grpc),
            Self::Tcp => titled("TCP echo, 64 connections", tcp),
            Self::PairHttp1 => titled("pair with mutual TLS between, HTTP/1.1, 64 connections", pair(http1)),
            Self::PairHttp2 => titled("pair with mutual TLS between, HTTP/2, 4 connections × 16 streams", pair(http2)),
            Self::PairTcp => titled("pair with mutual TLS between, TCP echo, 64 connections", pair(tcp)),
            Self::Http1Body10k => {
                titled("HTTP/1.1, bodies of 10 KiB, 64 connections", bodies(Shape { body: 10 * KIB, ..http1 }))
            }
            Self::PairHttp1Body10k => titled(
                "pair with mutual TLS between, HTTP/1.1, bodies of 10 KiB, 64 connections",
                bodies(Shape { body: 10 * KIB, ..pair(http1) }),
            ),
            Self::Tcp64k => titled(
                "TCP echo, messages of 64 KiB, 16 connections",
                bodies(Shape { body: 64 * KIB, connections: 16, ..tcp }),
            ),
            Self::Download => titled(
                "HTTP/1.1, answers of 1 MiB, 16 connections",
                bodies(Shape { body: MIB, connections: 16, ..http1 }),
            ),
            Self::Upload => titled(
                "HTTP/1.1, requests of 1 MiB, 16 connections",
                bodies(Shape { upload: MIB, connections: 16, ..http1 }),
            ),
            Self::Stream => titled(
                "gRPC server streaming, 256 messages of 1 KiB per call, 4 connections × 4 streams",
                bodies(Shape { body: KIB, messages: 256, streams: 4, ..grpc }),
            ),
            Self::Connect => titled("HTTP/1.1, a new connection per request, 64 at once", connect(http1)),
            Self::PairConnect => titled(
                "pair with mutual TLS between, HTTP/1.1, a new connection per request, 64 at once",
                connect(pair(http1)),
            ),
            Self::PairTcpConnect => titled(
                "pair with mutual TLS between, a new TCP connection per message, one at a time",
                connect(Shape { connections: 1, ..pair(tcp) }),
            ),
            Self::Handshake => titled("handshakes of mutual TLS, full, 16 at once", handshake(false)),
            Self::HandshakeResumed => titled("handshakes of mutual TLS, resumed, 16 at once", handshake(true)),
            Self::Gateway => titled(
                "a relay by server name between a pair, HTTP/1.1, 64 connections",
                Shape { family: Family::Gateway, ..pair(http1) },
            ),
            Self::Gateway64k => titled(
                "a relay by server name between a pair, HTTP/1.1, bodies of 64 KiB, 64 connections",
                Shape { family: Family::Gateway, body: 64 * KIB, ..pair(http1) },
            ),
            Self::Latency => titled("HTTP/1.1 at 2,000 requests/s", latency(http1, Rate::Fixed(QUIET))),
            Self::LatencyBusy => {
                titled("HTTP/1.1 while the proxy is busy 70 % of the time", latency(http1, Rate::Share(BUSY)))
            }
            Self::PairLatency => titled("pair, HTTP/1.1 at 2,000 requests/s", latency(pair(http1), Rate::Fixed(QUIET))),
            Self::PairLatencyBusy => titled(
                "pair, HTTP/1.1 while the pair is busy 70 % of the time",
                latency(pair(http1), Rate::Share(BUSY)),
            ),
            Self::Rest => titled("at rest", memory(http1, Kind::Rest)),
            Self::Idle => titled("idle connections", memory(http1, Kind::Idle { tls: false })),
            Self::IdleTls => titled(
                "idle connections with mutual TLS",
                memory(Shape { row: Row::Callee, ..http1 }, Kind::Idle { tls: true }),
            ),
            Self::Growth => titled(
                "a fleet of 10,000 services and 100,000 endpoints, 10 services used",
                memory(http1, Kind::Growth),
            ),
            Self::Pick => titled("choice of an endpoint among 1,000 in three clusters", memory(http1, Kind::Pick)),
        }
    }

    /// Whether a relay stands between the two of a pair.
    pub fn has_hop(self) -> bool {
        self.shape().family == Family::Gateway
    }

    /// What is carried per exchange, where that and not the number of exchanges counts.
    pub fn carried(self) -> Option<usize> {
        match self {
            Self::Download | Self::Stream => Some(self.shape().body * self.shape().messages),
            Self::Upload => Some(self.shape().upload),
            _ => None,
        }
    }
}

impl Shape {
    /// What is exchanged on a connection.
    pub fn exchange(&self, host: &str) -> Exchange {
        let (host, path) = (host.to_owned(), "/items".to_owned());
        match self.spoken {
            Spoken::Http1 => Exchange::Http1 { host, path, upload: self.upload },
            Spoken::Http2 => Exchange::Http2 { host, path, streams: self.streams, grpc: None },
            Spoken::Grpc => {
                let path = "/shop.Items/List".to_owned();
                Exchange::Http2 { host, path, streams: self.streams, grpc: Some(SMALL) }
            }
            Spoken::Tcp => Exchange::Echo { bytes: self.body },
        }
    }
}

impl Spoken {
    /// Over HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}
