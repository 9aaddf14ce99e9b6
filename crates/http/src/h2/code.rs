//! Error codes (RFC 9113 §7), and what ends a connection.

use std::fmt;

/// Why a stream or a connection ended. Codes that no standard names are kept as they came.
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

/// The peer broke the protocol: `GOAWAY` with this code is queued, and nothing more can be received.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code})")]
pub struct Fault {
    /// What `GOAWAY` tells the peer.
    pub code: Code,
    /// What was wrong, in words.
    pub reason: &'static str,
}

/// Declares the codes once: constant, number, name.
macro_rules! codes {
    ($($name:ident $number:literal)*) => {
        #[allow(missing_docs, reason = "the standard's own names")]
        impl Code {
            $(pub const $name: Code = Code($number);)*

            /// As the standard calls it.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    NO_ERROR 0
    PROTOCOL_ERROR 1
    INTERNAL_ERROR 2
    FLOW_CONTROL_ERROR 3
    SETTINGS_TIMEOUT 4
    STREAM_CLOSED 5
    FRAME_SIZE_ERROR 6
    REFUSED_STREAM 7
    CANCEL 8
    COMPRESSION_ERROR 9
    CONNECT_ERROR 10
    ENHANCE_YOUR_CALM 11
    INADEQUATE_SECURITY 12
    HTTP_1_1_REQUIRED 13
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Fault {
    pub(super) const fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason }
    }

    pub(super) const fn protocol(reason: &'static str) -> Self {
        Self::new(Code::PROTOCOL_ERROR, reason)
    }

    pub(super) const fn size(reason: &'static str) -> Self {
        Self::new(Code::FRAME_SIZE_ERROR, reason)
    }
}
