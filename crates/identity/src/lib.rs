//! Who is who in the mesh.
//!
//! Every cluster is a trust domain with an issuer of its own ([`Ca`]); workloads, gateways and control planes carry
//! short-lived X.509-SVIDs ([`Svid`]) that are rotated in place ([`Identity`]). A chain is judged against the roots of the
//! trust domain that its leaf names and no other: no cluster can vouch for another's identities. TLS 1.3 only. A resumed
//! connection is judged like a new one, by the roots and the clock of its own handshake.
//!
//! | question | answer |
//! |---|---|
//! | how does a workload get a certificate? | [`KeyRequest`] → [`Ca::sign`] → [`Svid::from_chain`] |
//! | how does a proxy dial another? | [`Identity::client_config`] + [`connect`] with the exact identities expected |
//! | how does it answer? | [`Identity::server_config`] + [`accept`] |
//! | what does a gateway read of a name? | [`token`] |
//! | how does a machine outside Kubernetes begin? | [`join`] |

mod backend;
pub mod ca;
pub mod clock;
mod config;
pub mod epoch;
pub mod error;
pub mod files;
pub mod handshake;
mod identity;
pub mod join;
mod leaf;
mod public;
mod resume;
mod signatures;
pub mod svid;
mod tickets;
mod tls;
pub mod token;
pub mod trust;
mod verifier;

pub use backend::{BackendClient, Spoken};
pub use ca::Ca;
pub use config::{ClientAuth, ClientTls, ServerTls};
pub use epoch::EpochKeys;
pub use error::{Error, VerifyError};
pub use handshake::{Blame, HandshakeError, RelayAlert, VerifiedPeer, accept, accept_read, connect};
pub use identity::Identity;
pub use join::JoinToken;
pub use public::{PublicCertificate, PublicClients};
pub use svid::{KeyRequest, PrivateKey, Svid};
pub use tls::{Session, TlsStream};
pub use token::{RouteToken, TokenCrypter};
pub use veer_core::inbound::TrustBundle;

/// HTTP requests between two proxies, multiplexed over HTTP/2.
pub const ALPN_H2: &[u8] = b"veer-h2/1";
/// One HTTP/1.1 exchange between two proxies: upgrades.
pub const ALPN_HTTP1: &[u8] = b"veer-http/1";
/// Bytes between two proxies, one TLS connection each.
pub const ALPN_TCP: &[u8] = b"veer-tcp/1";
/// The control protocol between proxy and control plane, and between control planes.
pub const ALPN_XDS: &[u8] = b"veer-xds/1";
/// Plain HTTP/2, which foreign gRPC clients of the control plane offer.
pub const ALPN_H2_STANDARD: &[u8] = b"h2";
/// HTTP/1.1, which clients outside of the mesh offer.
pub const ALPN_HTTP1_STANDARD: &[u8] = b"http/1.1";
