//! Who takes part in which work.

use serde::Serialize;

use super::works::{Kind, Rate, Row, Spoken, Work};

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// Nobody: load and origin alone, the limit of the measurement
    Direct,
    /// A relay that only reads and writes (two of them, without TLS, for a pair)
    Floor,
    /// This project
    Veer,
    /// HAProxy
    Haproxy,
    /// nginx
    Nginx,
    /// Envoy
    Envoy,
}

/// In which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The plain one.
    Plain,
    /// HTTP/1.1 in front, HTTP/2 between the two of a pair.
    Http2Hop,
    /// Relays bytes without looking into them.
    Bytes,
    /// With a relay by server name between the two of a pair.
    Hop,
    /// The floor, through a pipe in the kernel.
    Splice,
    /// Handshakes without the key exchange that withstands quantum computers, which not all peers have.
    Classic,
}

/// A peer in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Contender {
    /// Who.
    pub peer: Peer,
    /// How.
    pub variant: Variant,
}

impl Peer {
    /// In the order of the report.
    pub const ALL: [Self; 6] = [Self::Direct, Self::Floor, Self::Veer, Self::Haproxy, Self::Nginx, Self::Envoy];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::Veer => "Veer",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
        }
    }

    /// Another proxy, to compare with.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Haproxy | Self::Nginx | Self::Envoy)
    }
}

impl Contender {
    /// For people.
    pub fn title(self) -> String {
        let peer = self.peer.title();
        match self.variant {
            Variant::Plain => peer.to_owned(),
            Variant::Http2Hop => format!("{peer}, HTTP/2 hop"),
            Variant::Bytes => format!("{peer}, bytes only"),
            Variant::Hop => format!("{peer} + relay"),
            Variant::Splice => format!("{peer}, splice"),
            Variant::Classic => format!("{peer}, X25519 only"),
        }
    }

    /// For files.
    pub fn name(self) -> String {
        format!("{:?}-{:?}", self.peer, self.variant).to_lowercase()
    }

    /// Another proxy that does all that is asked, and not only part of it.
    pub fn is_rival(self) -> bool {
        self.peer.is_foreign() && self.variant != Variant::Bytes
    }
}

impl Work {
    /// Who has an entry, in the order of the report.
    pub fn contenders(self, peers: &[Peer]) -> Vec<Contender> {
        let shape = self.shape();
        let variants = |peer| -> &'static [Variant] {
            use Variant::{Bytes, Classic, Hop, Http2Hop, Plain, Splice};
            let single = shape.row == Row::Single;
            let large = matches!(self, Self::Tcp64k | Self::Download | Self::Upload);
            match (peer, shape.kind) {
                (Peer::Veer, Kind::Growth | Kind::Pick) => &[Plain],
                (_, Kind::Growth | Kind::Pick) => &[],
                (Peer::Veer, Kind::Handshakes { .. }) => &[Plain, Classic],
                (Peer::Veer, _) if self == Self::PairHttp1 => &[Plain, Bytes],
                (Peer::Direct, Kind::Paced(Rate::Fixed(_))) => &[Plain],
                (Peer::Direct, Kind::Closed) if single => &[Plain],
                (Peer::Direct, _) => &[],
                (Peer::Floor, Kind::Handshakes { .. } | Kind::Rest | Kind::Idle { .. }) => &[],
                (_, _) if self.has_hop() => &[Plain, Hop],
                (Peer::Floor, _) if large => &[Plain, Splice],
                // HTTP/2 through a pair is HTTP/2 between the two in any case.
                (Peer::Haproxy | Peer::Envoy, Kind::Closed) if self == Self::PairHttp1 => &[Plain, Http2Hop, Bytes],
                (Peer::Haproxy | Peer::Envoy, _) if shape.row == Row::Pair && shape.spoken == Spoken::Http1 => {
                    &[Plain, Http2Hop]
                }
                (Peer::Haproxy | Peer::Nginx, _) if matches!(self, Self::PairHttp1 | Self::PairHttp2) => {
                    &[Plain, Bytes]
                }
                (_, _) => &[Plain],
            }
        };
        let entries = |peer: &Peer| {
            let peer = *peer;
            variants(peer).iter().map(move |variant| Contender { peer, variant: *variant })
        };
        peers.iter().flat_map(entries).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_work_has_veer_in_it_and_every_comparison_a_rival() {
        for work in Work::ALL {
            let all = work.contenders(&Peer::ALL);
            assert!(all.iter().any(|contender| contender.peer == Peer::Veer), "{work:?}");
            let alone = matches!(work.shape().kind, Kind::Growth | Kind::Pick);
            assert_eq!(all.iter().any(|contender| contender.is_rival()), !alone, "{work:?}");
        }
    }
}
