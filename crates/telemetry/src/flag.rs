//! Response flags: one short word for what went wrong, and whose fault it was. Envoy's words where it has one.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Whose fault an error was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// Nobody's: there was no error.
    None,
    /// The caller's.
    Downstream,
    /// The callee's, or the way there.
    Upstream,
    /// This proxy's own limits.
    Local,
    /// The configuration, or its absence.
    ControlPlane,
}

impl Blame {
    /// The word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Blame::None => "none",
            Blame::Downstream => "downstream",
            Blame::Upstream => "upstream",
            Blame::Local => "local",
            Blame::ControlPlane => "control-plane",
        }
    }
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $blame:ident;)*) => {
        /// What went wrong with a request or a connection.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Flag {
            /// Nothing. Written as `-`, as Envoy does.
            #[default]
            None = 0,
            $($(#[$doc])* $name,)*
        }

        impl Flag {
            /// Every flag.
            pub const ALL: &[Flag] = &[Flag::None, $(Flag::$name,)*];

            /// The flag in metrics, logs and on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    Flag::None => "-",
                    $(Flag::$name => $text,)*
                }
            }

            /// Whose fault it is.
            pub fn blame(self) -> Blame {
                match self {
                    Flag::None => Blame::None,
                    $(Flag::$name => Blame::$blame,)*
                }
            }
        }
    };
}

flags! {
    /// No healthy upstream.
    NoHealthyUpstream = "UH", Upstream;
    /// Connecting to the upstream failed.
    UpstreamConnectFailure = "UF", Upstream;
    /// The upstream's connection was lost.
    UpstreamConnectionLost = "UC", Upstream;
    /// The upstream did not answer in time.
    UpstreamTimeout = "UT", Upstream;
    /// The upstream's answer broke its protocol.
    UpstreamProtocol = "UPE", Upstream;
    /// A circuit is open.
    Overflow = "UO", Local;
    /// A fault was injected on purpose.
    FaultInjected = "FI", Local;
    /// No route matched.
    NoRoute = "NR", ControlPlane;
    /// No such service.
    NoService = "NC", ControlPlane;
    /// A route, backend or policy is wrong.
    BadConfig = "CF", ControlPlane;
    /// The caller closed first.
    DownstreamClosed = "DC", Downstream;
    /// The caller broke its protocol.
    DownstreamProtocol = "DPE", Downstream;
    /// The caller sent too slowly.
    DownstreamTimeout = "SI", Downstream;
    /// Rate limited.
    RateLimited = "RL", Downstream;
    /// Denied by authorization.
    Denied = "RBAC", Downstream;
    /// The time allowed for the whole request is over.
    DeadlineExceeded = "DT", Upstream;
    /// An answer made by this proxy because a rule says so (redirect, fixed response).
    Direct = "DI", None;
    /// The proxy itself failed.
    Internal = "IE", Local;
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Flag {
    type Err = UnknownFlag;

    fn from_str(text: &str) -> Result<Self, UnknownFlag> {
        Flag::ALL.iter().copied().find(|flag| flag.as_str() == text).ok_or(UnknownFlag)
    }
}

impl Serialize for Flag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A flag that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown flag")]
pub struct UnknownFlag;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_written() {
        for (number, flag) in Flag::ALL.iter().enumerate() {
            assert_eq!(flag.as_str().parse(), Ok(*flag));
            assert_eq!(*flag as usize, number);
        }
        assert_eq!("??".parse::<Flag>(), Err(UnknownFlag));
    }
}
