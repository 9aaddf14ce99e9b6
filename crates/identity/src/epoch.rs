//! Token keys by peer and epoch, derived from one secret of the cluster's gateways.
//!
//! Nothing is shared or stored but the secret: every control replica derives the same keys, after a restart too. Epochs
//! last [`EPOCH`]; the key of the current one seals, the keys of the former and the next are accepted as well, so a token
//! opens for at least one whole epoch after it was sealed and clocks may differ.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use veer_core::ClusterName;
use veer_core::gateway::TokenKey;

use crate::clock;
use crate::error::Error;
use crate::files;

/// Length of an epoch.
pub const EPOCH: Duration = Duration::from_secs(6 * 3600);
/// Connections that a peer may hold through one gateway, when nobody says otherwise.
const MAX_CONNECTIONS: u32 = 10_000;

/// Derives token keys.
#[derive(Clone)]
pub struct EpochKeys {
    master: [u8; 32],
}

impl EpochKeys {
    /// Uses this secret.
    pub fn new(master: [u8; 32]) -> Self {
        Self { master }
    }

    /// Draws a new secret.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, Error> {
        let mut master = [0; 32];
        aws_lc_rs::rand::fill(&mut master)?;
        Ok(Self { master })
    }

    /// Reads the secret from a file, or draws one and writes it there.
    ///
    /// # Errors
    /// When what is there cannot be read (it is never replaced), or cannot be written.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        if let Some(text) = files::read_if_there(path)? {
            let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            return bytes.map(Self::new).ok_or_else(|| files::malformed(path, "is not base64 of 32 bytes"));
        }
        let keys = Self::generate()?;
        files::write_private(path, format!("{}\n", STANDARD.encode(keys.master)).as_bytes())?;
        Ok(keys)
    }

    /// The epoch of a time.
    pub fn epoch(now: SystemTime) -> u64 {
        clock::unix_seconds(now) / EPOCH.as_secs()
    }

    /// When the epoch of `now` ends: tokens should be sealed anew then.
    pub fn next_epoch_at(now: SystemTime) -> SystemTime {
        std::time::UNIX_EPOCH + EPOCH * u32::try_from(Self::epoch(now) + 1).unwrap_or(u32::MAX)
    }

    /// The key of a peer in an epoch. Id and secret follow from the master secret, the peer and the epoch.
    pub fn key(&self, peer: &ClusterName, epoch: u64) -> TokenKey {
        let mut out = [0; 36];
        let epoch = epoch.to_be_bytes();
        let info: [&[u8]; 3] = [b"veer route token v1\0", &epoch, peer.as_str().as_bytes()];
        Salt::new(HKDF_SHA256, b"veer.dev")
            .extract(&self.master)
            .expand(&info, Length(out.len()))
            .and_then(|okm| okm.fill(&mut out))
            .expect("36 bytes are within HKDF's bound");
        let (id, secret) = out.split_at(4);
        TokenKey {
            id: u32::from_be_bytes([id[0], id[1], id[2], id[3]]),
            peer: peer.clone(),
            secret: STANDARD.encode(secret),
            max_connections: MAX_CONNECTIONS,
        }
    }

    /// The key that seals now.
    pub fn current(&self, peer: &ClusterName, now: SystemTime) -> TokenKey {
        self.key(peer, Self::epoch(now))
    }

    /// The keys that a gateway accepts now: current, former, next.
    pub fn accepted(&self, peer: &ClusterName, now: SystemTime) -> [TokenKey; 3] {
        let epoch = Self::epoch(now);
        [epoch, epoch.saturating_sub(1), epoch + 1].map(|epoch| self.key(peer, epoch))
    }
}

impl fmt::Debug for EpochKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochKeys(..)")
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::token::{self, RouteToken, TokenCrypter};

    fn east() -> ClusterName {
        ClusterName::new("east").unwrap()
    }

    #[test]
    fn a_token_opens_for_an_epoch_and_its_neighbours() {
        let keys = EpochKeys::generate().unwrap();
        let sealed_at = UNIX_EPOCH + EPOCH * 1_000 + Duration::from_secs(5);
        let route = RouteToken::Service { id: 7, port: 80 };
        let text = TokenCrypter::new(&keys.current(&east(), sealed_at)).unwrap().seal(&route);
        let opens_at = |now| {
            let accepted = keys.accepted(&east(), now).map(|key| TokenCrypter::new(&key).unwrap());
            token::open(&text, &accepted).is_ok()
        };
        assert!(opens_at(sealed_at) && opens_at(sealed_at + EPOCH) && opens_at(sealed_at - EPOCH));
        assert!(!opens_at(sealed_at + EPOCH * 2) && !opens_at(sealed_at - EPOCH * 2));
    }

    #[test]
    fn every_peer_and_epoch_has_a_key_of_its_own() {
        let keys = EpochKeys::new([9; 32]);
        let west = ClusterName::new("west").unwrap();
        let all =
            [keys.key(&east(), 1), keys.key(&east(), 2), keys.key(&west, 1), EpochKeys::new([8; 32]).key(&east(), 1)];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a.id != b.id && a.secret != b.secret));
        }
        assert_eq!(keys.key(&east(), 1), EpochKeys::new([9; 32]).key(&east(), 1));
    }

    #[test]
    fn the_secret_survives_a_restart_and_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.key");
        let first = EpochKeys::load_or_create(&path).unwrap();
        assert_eq!(EpochKeys::load_or_create(&path).unwrap().master, first.master);
        std::fs::write(&path, "broken").unwrap();
        let message = EpochKeys::load_or_create(&path).unwrap_err().to_string();
        assert!(message.contains("gateway.key"), "{message}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "broken");
    }

    #[test]
    fn the_next_epoch_begins_where_this_one_ends() {
        let now = UNIX_EPOCH + EPOCH * 3 + Duration::from_secs(1);
        assert_eq!(EpochKeys::next_epoch_at(now), UNIX_EPOCH + EPOCH * 4);
    }
}
