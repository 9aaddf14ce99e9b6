//! Route tokens: what a gateway reads in a server name, and nobody else can.
//!
//! A token is the id of a key in clear (4 bytes, authenticated), and a destination sealed with AES-256-GCM-SIV (RFC 8452),
//! in lower-case base32 without padding (RFC 4648 §6), so that it is one DNS label: 63 characters for IPv6, 44 for IPv4.
//! The nonce is fixed: the same destination gives the same token, which keeps offers stable, and a misused nonce costs
//! GCM-SIV no more than that equality. A key belongs to one peer, so a token tells whose it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use veer_core::gateway::TokenKey;

use crate::error::Error;

/// Longest DNS label, and longest token.
pub const MAX_TOKEN: usize = 63;
const KEY_ID: usize = 4;
const TAG: usize = 16;

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteToken {
    /// One endpoint.
    Endpoint {
        /// Mesh address of the workload.
        addr: IpAddr,
        /// The workload's port that was offered; gateways dial its mesh port, whatever it is.
        port: u16,
    },
    /// Any endpoint of a service: the gateway picks.
    Service {
        /// Number of the [`GatewayService`](veer_core::gateway::GatewayService).
        id: u32,
        /// The workload's port that is meant.
        port: u16,
    },
}

/// Why a token was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not lower-case base32 of a token's length.
    #[error("not a token")]
    Malformed,
    /// Sealed with a key that is not held: too old, of another gateway, or invented.
    #[error("sealed with an unknown key")]
    UnknownKey,
    /// Not sealed with the key that it names.
    #[error("not authentic")]
    Forged,
}

/// Seals and opens with one key. Make it once, use it often.
pub struct TokenCrypter {
    key: TokenKey,
    cipher: LessSafeKey,
}

impl TokenCrypter {
    /// Prepares a key.
    ///
    /// # Errors
    /// When its secret is not base64 of 32 bytes.
    pub fn new(key: &TokenKey) -> Result<Self, Error> {
        let refuse = |reason: &str| Error::Text { what: "token key", reason: reason.to_owned() };
        let secret = STANDARD.decode(&key.secret).map_err(|_| refuse("its secret is not base64"))?;
        let unbound =
            UnboundKey::new(&AES_256_GCM_SIV, &secret).map_err(|_| refuse("its secret is not of 32 bytes"))?;
        Ok(Self { key: key.clone(), cipher: LessSafeKey::new(unbound) })
    }

    /// The key.
    pub fn key(&self) -> &TokenKey {
        &self.key
    }

    /// Seals a destination: at most [`MAX_TOKEN`] characters, always the same for the same destination.
    pub fn seal(&self, token: &RouteToken) -> String {
        let id = self.key.id.to_be_bytes();
        let mut sealed = token.to_bytes();
        self.cipher
            .seal_in_place_append_tag(nonce(), Aad::from(id), &mut sealed)
            .expect("sealing a few bytes cannot fail");
        let mut bytes = Vec::with_capacity(KEY_ID + sealed.len());
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&sealed);
        base32_encode(&bytes)
    }

    fn open(&self, sealed: &[u8]) -> Option<RouteToken> {
        let mut buffer = sealed.to_vec();
        let plain = self.cipher.open_in_place(nonce(), Aad::from(self.key.id.to_be_bytes()), &mut buffer).ok()?;
        RouteToken::from_bytes(plain)
    }
}

impl fmt::Debug for TokenCrypter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.key, f)
    }
}

/// Opens a token with whichever of the keys it names, and says which: its peer is whose connection this is.
///
/// # Errors
/// Why it is not believed. Any text may be given.
pub fn open<'k>(text: &str, keys: &'k [TokenCrypter]) -> Result<(RouteToken, &'k TokenKey), TokenError> {
    if text.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    let bytes = base32_decode(text).ok_or(TokenError::Malformed)?;
    let Some((id, sealed)) = bytes.split_first_chunk::<KEY_ID>() else {
        return Err(TokenError::Malformed);
    };
    if sealed.len() < TAG {
        return Err(TokenError::Malformed);
    }
    let id = u32::from_be_bytes(*id);
    let mut error = TokenError::UnknownKey;
    // Ids are short and may coincide: every key of that id is tried.
    for crypter in keys.iter().filter(|crypter| crypter.key.id == id) {
        match crypter.open(sealed) {
            Some(token) => return Ok((token, &crypter.key)),
            None => error = TokenError::Forged,
        }
    }
    Err(error)
}

const KIND_V4: u8 = 1;
const KIND_V6: u8 = 2;
const KIND_SERVICE: u8 = 3;

impl RouteToken {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + 16 + 2 + TAG);
        let port = match self {
            RouteToken::Endpoint { addr: IpAddr::V4(addr), port } => {
                bytes.push(KIND_V4);
                bytes.extend_from_slice(&addr.octets());
                port
            }
            RouteToken::Endpoint { addr: IpAddr::V6(addr), port } => {
                bytes.push(KIND_V6);
                bytes.extend_from_slice(&addr.octets());
                port
            }
            RouteToken::Service { id, port } => {
                bytes.push(KIND_SERVICE);
                bytes.extend_from_slice(&id.to_be_bytes());
                port
            }
        };
        bytes.extend_from_slice(&port.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (body, port) = bytes.split_last_chunk::<2>()?;
        let port = u16::from_be_bytes(*port);
        let (kind, body) = body.split_first()?;
        Some(match *kind {
            KIND_V4 => {
                let octets: [u8; 4] = body.try_into().ok()?;
                RouteToken::Endpoint { addr: Ipv4Addr::from(octets).into(), port }
            }
            KIND_V6 => {
                let octets: [u8; 16] = body.try_into().ok()?;
                RouteToken::Endpoint { addr: Ipv6Addr::from(octets).into(), port }
            }
            KIND_SERVICE => RouteToken::Service { id: u32::from_be_bytes(body.try_into().ok()?), port },
            _ => return None,
        })
    }
}

/// Every message of a key is under the same nonce; see the module's words on GCM-SIV.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

fn base32_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let (mut buffer, mut bits) = (0u32, 0u32);
    for &byte in bytes {
        buffer = (buffer << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits) as usize & 31]));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits)) as usize & 31]));
    }
    text
}

/// Only what [`base32_encode`] writes: a text stands for one token or none.
fn base32_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut buffer, mut bits) = (0u32, 0u32);
    for byte in text.bytes() {
        let value = match byte {
            b'a'..=b'z' => byte - b'a',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        buffer = (buffer << 5) | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    (bits < 5 && buffer == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use veer_core::ClusterName;

    use super::*;

    fn crypter(id: u32, peer: &str, byte: u8) -> TokenCrypter {
        let secret = STANDARD.encode([byte; 32]);
        let peer = ClusterName::new(peer).unwrap();
        TokenCrypter::new(&TokenKey { id, peer, secret, max_connections: 1 }).unwrap()
    }

    fn tokens() -> impl Strategy<Value = RouteToken> {
        prop_oneof![
            (any::<IpAddr>(), any::<u16>()).prop_map(|(addr, port)| RouteToken::Endpoint { addr, port }),
            (any::<u32>(), any::<u16>()).prop_map(|(id, port)| RouteToken::Service { id, port }),
        ]
    }

    #[test]
    fn base32_as_in_rfc_4648() {
        for (plain, text) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(base32_encode(plain.as_bytes()), text);
            assert_eq!(base32_decode(text).as_deref(), Some(plain.as_bytes()));
        }
        for bad in ["m", "mz=", "MY", "mz", "m1", "mzxw6yr", "mzxw6y"] {
            assert_eq!(base32_decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn other_keys_do_not_open() {
        let token = RouteToken::Endpoint { addr: "2001:db8::1".parse().unwrap(), port: 15008 };
        let (a, b, c) = (crypter(1, "east", 1), crypter(2, "east", 1), crypter(1, "west", 2));
        let text = a.seal(&token);
        assert_eq!(text.len(), MAX_TOKEN);
        assert_eq!(open(&text, &[b]).unwrap_err(), TokenError::UnknownKey);
        assert_eq!(open(&text, std::slice::from_ref(&c)).unwrap_err(), TokenError::Forged);
        // Same id by chance: the right one is found, and with it the peer.
        let keys = [c, a];
        let (opened, key) = open(&text, &keys).unwrap();
        assert_eq!((opened, key.peer.as_str()), (token, "east"));
    }

    #[test]
    fn a_bad_secret_is_refused() {
        let peer = ClusterName::new("east").unwrap();
        for secret in ["", "%%%", "AAAA"] {
            let key = TokenKey { id: 1, peer: peer.clone(), secret: secret.into(), max_connections: 1 };
            assert!(TokenCrypter::new(&key).is_err(), "{secret}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(token in tokens(), id: u32, byte: u8) {
            let key = crypter(id, "east", byte);
            let text = key.seal(&token);
            prop_assert!(text.len() <= MAX_TOKEN);
            prop_assert_eq!(&text, &key.seal(&token));
            let label = veer_core::ClusterName::new(&text);
            prop_assert!(label.is_ok(), "a token is a DNS label");
            prop_assert_eq!(open(&text, &[key]).map(|(t, _)| t), Ok(token));
        }

        #[test]
        fn what_is_changed_is_refused(token in tokens(), at: prop::sample::Index, with in 0usize..32) {
            let key = crypter(7, "east", 3);
            let mut text = key.seal(&token).into_bytes();
            let at = at.index(text.len());
            prop_assume!(text[at] != ALPHABET[with]);
            text[at] = ALPHABET[with];
            let text = String::from_utf8(text).unwrap();
            prop_assert!(open(&text, &[key]).is_err());
        }

        #[test]
        fn any_text_may_be_given(text in "\\PC{0,80}", base32 in "[a-z2-7]{0,63}") {
            let keys = [crypter(0, "east", 0)];
            prop_assert!(open(&text, &keys).is_err());
            prop_assert!(open(&base32, &keys).is_err());
        }
    }
}
