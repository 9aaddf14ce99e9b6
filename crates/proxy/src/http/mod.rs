//! HTTP as a proxy sees it: connections of both versions and sides, bodies, fields, local answers. Nothing here knows of services
//! or endpoints.
//!
//! ```text
//! serve ─► wire (HTTP/1) ─► body ─► send (HTTP/1)          codecs: veer_http
//!       └► h2 (link, streams) ┘  └► h2 (StreamPump)        memory: buffers
//! ```

pub mod body;
pub mod buffers;
pub mod extended;
pub mod fields;
pub mod h2;
pub mod half_closed;
pub mod interim;
pub mod pass;
pub mod replay;
pub mod reply;
pub mod send;
pub mod serve;
pub mod transport;
pub mod upgrade;
pub mod watch;
pub mod wire;

/// In the hop field: a stream that carries bytes, not a request.
pub const BYTES: &[u8] = b"tcp";

/// What the caller of a hop spoke; travels in the hop field [`fields::VEER_PROTO`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC, which is HTTP/2.
    Grpc,
}

impl Protocol {
    /// As it is written in the hop field and as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "h2",
            Protocol::Grpc => "grpc",
        }
    }

    /// As a label of metrics.
    pub fn label(self) -> veer_telemetry::Protocol {
        match self {
            Protocol::Http1 => veer_telemetry::Protocol::Http1,
            Protocol::Http2 => veer_telemetry::Protocol::Http2,
            Protocol::Grpc => veer_telemetry::Protocol::Grpc,
        }
    }

    /// Reads [`Self::as_str`].
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        match text {
            b"http/1.1" => Some(Protocol::Http1),
            b"h2" => Some(Protocol::Http2),
            b"grpc" => Some(Protocol::Grpc),
            _ => None,
        }
    }

    /// What a request speaks.
    pub fn of(head: &veer_http::RequestHead) -> Self {
        if fields::is_grpc(&head.fields) {
            Protocol::Grpc
        } else if head.version == veer_http::Version::Http2 {
            Protocol::Http2
        } else {
            Protocol::Http1
        }
    }
}
