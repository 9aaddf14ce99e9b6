//! HTTP/1.1 (RFC 9112): heads and chunks out of bytes and back into bytes.
//!
//! Strict where two readers could understand one message differently: line ends are CR LF everywhere, folded lines, white space before a
//! colon, several lengths and a length next to a transfer coding are refused.

mod chunked;
mod framing;
mod head;
pub(crate) mod target;
mod tokens;
mod write;

pub use chunked::{Chunked, Piece, may_trail};
pub use head::{request, response};
pub use write::{Persist, write_chunk_start, write_end, write_request, write_response};

/// How large a head may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head with the empty line at its end, and with empty lines before it. 65536 by default.
    pub head: usize,
    /// Fields. 100 by default.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: 65536, fields: 100 }
    }
}

/// What follows a head (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Nothing, and nothing was announced.
    None,
    /// So many bytes; also none at all, when the head says `content-length: 0`.
    Length(u64),
    /// Chunks up to one of length 0, and trailers.
    Chunked,
    /// All bytes up to the connection's end. Responses only.
    UntilClose,
}

impl Body {
    /// Whether no byte of content follows the head.
    pub fn is_empty(self) -> bool {
        matches!(self, Body::None | Body::Length(0))
    }
}

/// What a head says about itself and the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// Bytes that belong to the head.
    pub consumed: usize,
    /// What follows it.
    pub body: Body,
    /// Whether the sender goes on with the connection after this message (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100` before it sends content (RFC 9110 §10.1.1). Never for a request without content.
    pub expect_continue: bool,
    /// Whether `Connection` names `upgrade` and there is an `Upgrade` field (RFC 9110 §7.8). Never in HTTP/1.0.
    pub upgrade: bool,
}

/// Why bytes are no HTTP/1.1 message that a proxy may pass on. The connection they came from cannot be used any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No request line or status line.
    #[error("the start line is malformed")]
    StartLine,
    /// A version of HTTP other than 1.0 and 1.1.
    #[error("this version of HTTP is not understood")]
    Version,
    /// A request's target in none of the four forms, or in one that does not go with the method.
    #[error("the request's target is malformed")]
    Target,
    /// The request line alone exceeds the limit of a head.
    #[error("the request's target is too long")]
    TargetTooLong,
    /// More bytes than the limit of a head.
    #[error("the head is too large")]
    HeadTooLarge,
    /// More fields than the limit.
    #[error("the head has too many fields")]
    TooManyFields,
    /// Not a token followed by a colon, which folded lines are not either.
    #[error("a field's name is malformed")]
    FieldName,
    /// A control character.
    #[error("a field's value holds a control character")]
    FieldValue,
    /// A line of a head that does not end with CR LF.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// None in HTTP/1.1, several, or one that is no host and port.
    #[error("the Host field is missing, repeated or malformed")]
    Host,
    /// Not one decimal number, or several that differ.
    #[error("Content-Length is malformed or contradicts itself")]
    ContentLength,
    /// Both ways to tell where the request ends.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// `chunked` is missing or not last, or the message is of HTTP/1.0.
    #[error("Transfer-Encoding does not tell where the message ends")]
    TransferEncoding,
    /// `chunked` comes last and others before it.
    #[error("a transfer coding other than chunked")]
    UnknownCoding,
    /// Content announced by a `CONNECT` request, which has none (RFC 9110 §9.3.6).
    #[error("a CONNECT request with content")]
    ConnectContent,
    /// Not 1 to 16 hexadecimal digits, an extension or CR LF.
    #[error("a chunk's size is malformed")]
    ChunkSize,
    /// Other bytes than CR LF behind a chunk's data.
    #[error("a chunk does not end with CR LF")]
    ChunkEnd,
    /// A chunk extension with control characters, or more of them than content.
    #[error("a chunk's extension is malformed or too long")]
    ChunkExtension,
}

impl Fault {
    /// The status that answers a request with this fault: 400, 414, 431, 501 or 505. A response with a fault is for the caller a 502.
    pub const fn status(&self) -> u16 {
        match self {
            Fault::TargetTooLong => 414,
            Fault::HeadTooLarge | Fault::TooManyFields => 431,
            Fault::UnknownCoding => 501,
            Fault::Version => 505,
            _ => 400,
        }
    }
}
