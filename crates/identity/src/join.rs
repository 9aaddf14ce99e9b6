//! Joining: how a machine that has no certificate yet finds its control plane, and both believe each other once.
//!
//! A join token names the control plane's addresses, the one workload it is for, a secret that is good once and for
//! minutes, and the SHA-256 of the cluster's root. With it the machine connects ([`connect`]): the chain must lead to that
//! root and end at the control plane's reserved identity. It then shows the secret and its [`KeyRequest`](crate::KeyRequest)
//! and is given an SVID; from there on it renews with the certificate it has.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use veer_core::sni::Sni;
use veer_core::{ClusterName, ObjectName, SpiffeId};

use crate::ca;
use crate::clock;
use crate::config::{self, ClientTls};
use crate::error::{Error, VerifyError};
use crate::handshake::{self, HandshakeError, VerifiedPeer};
use crate::leaf::{Authority, Leaf};
use crate::resume::Generation;
use crate::tls::TlsStream;
use crate::trust::{Judged, MAX_CHAIN, Usage, verify_with};
use crate::verifier::Anchor;

/// How long a join token is good when nobody says otherwise.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);
const PREFIX: &str = "veer1.";
/// Some addresses and names; nothing that a human pastes is longer.
const MAX_TEXT: usize = 8 * 1024;

/// Everything that a machine needs to join, as one text: `veer1.<base64url JSON>`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Where the control plane is dialled.
    pub control: Vec<SocketAddr>,
    /// Its cluster.
    pub cluster: ClusterName,
    /// The one Workload that this is for.
    pub workload: ObjectName,
    /// Shown to the control plane, once. See [`new_secret`].
    pub secret: String,
    /// When it ends.
    #[serde(with = "seconds")]
    pub expires: SystemTime,
    /// SHA-256 of the cluster's root certificate ([`Ca::root_hash`](crate::Ca::root_hash)).
    #[serde(with = "base64url")]
    pub ca_hash: [u8; 32],
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Text { what: "join token", reason };
        let text = text.trim();
        if text.len() > MAX_TEXT {
            return Err(refuse(format!("is longer than {MAX_TEXT} characters")));
        }
        let body = text.strip_prefix(PREFIX).ok_or_else(|| {
            refuse(format!("must begin with {PREFIX:?}: copy the whole text that the control plane printed"))
        })?;
        let json =
            URL_SAFE_NO_PAD.decode(body).map_err(|_| refuse("is cut off or was changed (not base64url)".into()))?;
        let token: Self =
            serde_json::from_slice(&json).map_err(|error| refuse(format!("is cut off or was changed ({error})")))?;
        if token.control.is_empty() {
            return Err(refuse("names no address of a control plane".into()));
        }
        Ok(token)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("control", &self.control)
            .field("cluster", &self.cluster)
            .field("workload", &self.workload)
            .finish_non_exhaustive()
    }
}

impl JoinToken {
    /// Whether it is over at `now`.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        now >= self.expires
    }

    /// The server name under which the control plane is asked for.
    pub fn sni(&self) -> Sni {
        Sni::Control { cluster: self.cluster.clone() }
    }
}

/// Draws a secret: 32 random bytes, base64url.
///
/// # Errors
/// When the system has no randomness to give.
pub fn new_secret() -> Result<String, Error> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// What the control plane keeps of a secret, so that its store gives none away.
pub fn secret_hash(secret: &str) -> [u8; 32] {
    ca::hash(secret.as_bytes())
}

/// Whether the secret shown is the one whose hash was kept; takes the same time either way.
pub fn secret_matches(shown: &str, kept: &[u8; 32]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(&secret_hash(shown), kept).is_ok()
}

/// What [`connect`](crate::connect) needs to reach a control plane that is known by its root's hash only. Shows no
/// certificate; whatever is expected, only the control plane's reserved identity under that root may answer.
pub fn client_config(ca_hash: [u8; 32], alpn: &[&[u8]]) -> ClientTls {
    config::client(Anchor::Pin(Pin(ca_hash)), None, alpn, Generation::default())
}

/// Shakes hands with the control plane that a join token names. No time-out.
///
/// # Errors
/// Why the handshake failed; [`VerifyError::NotPinned`] when somebody else answered.
///
/// # Cancel safety
/// Dropping the future drops the stream.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    token: &JoinToken,
    alpn: &[&[u8]],
) -> Result<(TlsStream<S>, VerifiedPeer), HandshakeError> {
    handshake::connect(stream, client_config(token.ca_hash, alpn), &token.sni(), &[]).await
}

/// SHA-256 of a root that is to be in the chain.
#[derive(Debug, Clone)]
pub(crate) struct Pin([u8; 32]);

impl Pin {
    pub(crate) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Judged, VerifyError> {
        if intermediates.len() + 1 > MAX_CHAIN {
            return Err(VerifyError::ChainTooLong(intermediates.len() + 1));
        }
        let root = intermediates.iter().find(|der| ca::hash(der) == self.0).ok_or(VerifyError::NotPinned)?;
        let authority = Authority::read(root)?;
        // Our roots always say whose they are; without that, a pinned root would be good for any trust domain.
        let trust_domain = authority.trust_domain.ok_or(VerifyError::NotPinned)?;
        let anchor =
            webpki::anchor_from_trusted_cert(root).map_err(|error| VerifyError::Malformed(format!("{error:?}")))?;
        let control = SpiffeId::control(trust_domain);
        let claim = Leaf::read(leaf)?;
        if now.as_secs() > clock::unix_seconds(authority.not_after) {
            return Err(VerifyError::Expired { id: control, not_after: authority.not_after });
        }
        let not_after = claim.not_after;
        let id = verify_with(&[anchor], claim, leaf, intermediates, Usage::Server, now)?;
        if id != control {
            return Err(VerifyError::WrongIdentity { found: id, expected: vec![control] });
        }
        Ok(Judged { id, not_after, fingerprint: ca::hash(leaf) })
    }
}

mod seconds {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(clock::unix_seconds(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .ok_or_else(|| serde::de::Error::custom("the time is out of range"))
    }
}

mod base64url {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(&text).map_err(|_| serde::de::Error::custom("ca_hash is not base64url"))?;
        bytes.try_into().map_err(|_| serde::de::Error::custom("ca_hash is not of 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            control: vec!["127.1.0.1:15010".parse().unwrap()],
            cluster: ClusterName::new("west").unwrap(),
            workload: ObjectName::new("shop", "cart-vm"),
            secret: new_secret().unwrap(),
            expires: UNIX_EPOCH + Duration::from_secs(1_000_000),
            ca_hash: [7; 32],
        }
    }

    #[test]
    fn tokens_are_read_as_written() {
        let token = token();
        let text = token.to_string();
        assert!(text.starts_with("veer1.") && !text.contains(['=', '+', '/']), "{text}");
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert_eq!(format!("\n{text} ").parse::<JoinToken>().unwrap(), token);
        assert!(token.has_expired(token.expires) && !token.has_expired(token.expires - Duration::from_secs(1)));
        assert!(!format!("{token:?}").contains(&token.secret), "a secret is never shown");
    }

    #[test]
    fn a_cut_token_says_so() {
        let text = token().to_string();
        for bad in [&text[..text.len() - 7], "veer2.abc", "", "veer1."] {
            assert!(bad.parse::<JoinToken>().unwrap_err().to_string().starts_with("join token: "), "{bad}");
        }
    }

    #[test]
    fn secrets_match_their_hash_only() {
        let (one, two) = (new_secret().unwrap(), new_secret().unwrap());
        assert_ne!(one, two);
        assert!(secret_matches(&one, &secret_hash(&one)));
        assert!(!secret_matches(&two, &secret_hash(&one)));
    }

    proptest! {
        #[test]
        fn any_text_may_be_given(text in "\\PC{0,200}") {
            let _ = text.parse::<JoinToken>();
            let dressed = PREFIX.to_owned() + &text;
            prop_assert!(dressed.parse::<JoinToken>().is_err());
        }
    }
}
