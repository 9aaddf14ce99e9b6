//! HPACK (RFC 7541): fields of HTTP/2 as short references to tables that both ends keep.
//!
//! A connection has one [`Decoder`] for what comes and one [`Encoder`] for what goes. Both take no memory for their tables before the
//! first field enters them.

mod decoder;
mod encoder;
mod huffman;
mod index;
mod integer;
mod statics;
mod table;
#[cfg(test)]
mod tests;

pub use decoder::{Decoder, Line};
pub use encoder::Encoder;
pub(crate) use table::TableState;

use crate::name::Name;

/// Size of a table before anybody says otherwise, in bytes as [RFC 7541 §4.1] counts them (RFC 9113 §6.5.2).
///
/// [RFC 7541 §4.1]: https://www.rfc-editor.org/rfc/rfc7541#section-4.1
pub const DEFAULT_TABLE: usize = 4096;

/// A pseudo-field: what HTTP/2 says in place of a request line or a status line (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the standard's own names")]
pub enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Status,
    Protocol,
}

/// Which field a line is, as far as anybody on the path asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Known {
    /// A pseudo-field that is defined.
    Pseudo(Pseudo),
    /// A field; also [`Name::Other`] for a pseudo-field that is not defined, whose [`Line::fit`] is false.
    Field(Name),
}

/// Why a block cannot be decoded. The tables of both ends differ from then on, so that the connection cannot go on: it ends with
/// `COMPRESSION_ERROR` (RFC 9113 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HpackFault {
    /// The block ends within a field.
    #[error("a header block ends within a field")]
    Truncated,
    /// An integer of more than 32 bits, or written with more bytes than 32 bits need (RFC 7541 §5.1).
    #[error("an integer in a header block is too large")]
    Integer,
    /// An index of zero, or beyond both tables (RFC 7541 §2.3.3).
    #[error("a header block refers to a field that is in no table")]
    Index,
    /// A padding that is no prefix of EOS or longer than 7 bits, or EOS itself (RFC 7541 §5.2).
    #[error("a string in a header block is not Huffman code")]
    Huffman,
    /// A table larger than we permit (RFC 7541 §6.3).
    #[error("a header block asks for a larger table than permitted")]
    TableSize,
    /// A change of the table's size that follows a field (RFC 7541 §4.2).
    #[error("a header block changes the table's size after a field")]
    UpdateLate,
    /// We permit less than the table's size, and the peer did not reduce it (RFC 7541 §4.2).
    #[error("a header block does not reduce the table as the settings ask")]
    UpdateMissing,
}

impl Pseudo {
    pub(crate) const ALL: [Pseudo; 6] =
        [Pseudo::Method, Pseudo::Scheme, Pseudo::Authority, Pseudo::Path, Pseudo::Status, Pseudo::Protocol];

    /// The name with its colon.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Pseudo::Method => b":method",
            Pseudo::Scheme => b":scheme",
            Pseudo::Authority => b":authority",
            Pseudo::Path => b":path",
            Pseudo::Status => b":status",
            Pseudo::Protocol => b":protocol",
        }
    }

    /// Which pseudo-field this is.
    pub fn of(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|pseudo| pseudo.as_bytes() == name)
    }
}

impl Known {
    fn of(name: &[u8]) -> Self {
        match name.first() {
            Some(b':') => Pseudo::of(name).map_or(Known::Field(Name::Other), Known::Pseudo),
            _ => Known::Field(Name::of(name)),
        }
    }
}
