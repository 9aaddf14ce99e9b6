//! The server name that a caller's proxy sends, and all that a gateway reads of a connection.
//!
//! | name | meaning |
//! |---|---|
//! | `p<port>.<cluster>` | dialled directly: the workload's port |
//! | `<token>.p<port>.<cluster>` | through the cluster's gateway: the token says where to, the port what for |
//! | `control.<cluster>` | the cluster's control plane (peering) |
//!
//! The port is a hint for the callee's proxy, which authorizes the verified caller for that port; the token admits through
//! the gateway. Neither authenticates anybody: a server name travels in clear (RFC 6066 §3).

use std::fmt;
use std::str::FromStr;

use crate::names::{ClusterName, NameError};

/// A server name of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sni {
    /// An endpoint that is dialled directly.
    Direct {
        /// Port of the workload.
        port: u16,
        /// Its cluster.
        cluster: ClusterName,
    },
    /// Something behind a gateway.
    Gateway {
        /// Opaque to all but the gateway; base32 text of one label.
        token: String,
        /// Port of the workload.
        port: u16,
        /// The gateway's cluster.
        cluster: ClusterName,
    },
    /// A cluster's control plane.
    Control {
        /// The cluster.
        cluster: ClusterName,
    },
}

impl Sni {
    /// The cluster that the name leads to.
    pub fn cluster(&self) -> &ClusterName {
        match self {
            Sni::Direct { cluster, .. } | Sni::Gateway { cluster, .. } | Sni::Control { cluster } => cluster,
        }
    }

    /// The workload's port, when a workload is meant.
    pub fn port(&self) -> Option<u16> {
        match self {
            Sni::Direct { port, .. } | Sni::Gateway { port, .. } => Some(*port),
            Sni::Control { .. } => None,
        }
    }
}

impl fmt::Display for Sni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sni::Direct { port, cluster } => write!(f, "p{port}.{cluster}"),
            Sni::Gateway { token, port, cluster } => write!(f, "{token}.p{port}.{cluster}"),
            Sni::Control { cluster } => write!(f, "control.{cluster}"),
        }
    }
}

impl FromStr for Sni {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| NameError { what: "server name", value: text.chars().take(256).collect(), reason };
        let port = |label: &str| label.strip_prefix('p').and_then(|p| p.parse::<u16>().ok()).filter(|p| *p != 0);
        let labels: Vec<&str> = text.splitn(4, '.').collect();
        match labels[..] {
            ["control", cluster] => Ok(Sni::Control { cluster: ClusterName::new(cluster)? }),
            [p, cluster] => Ok(Sni::Direct {
                port: port(p).ok_or_else(|| refuse("must begin with p<port> or control"))?,
                cluster: ClusterName::new(cluster)?,
            }),
            [token, p, cluster] => Ok(Sni::Gateway {
                token: token.to_owned(),
                port: port(p).ok_or_else(|| refuse("must have p<port> before the cluster"))?,
                cluster: ClusterName::new(cluster)?,
            }),
            _ => Err(refuse("must have two or three labels")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written() {
        for text in ["p8080.west", "control.west", "abc234.p443.east-1"] {
            assert_eq!(text.parse::<Sni>().unwrap().to_string(), text);
        }
        for bad in ["", "west", "p0.west", "p99999.west", "a.b.west", "a.p1.b.west", "p80.WEST", "x80.west"] {
            assert!(bad.parse::<Sni>().is_err(), "{bad}");
        }
    }
}
