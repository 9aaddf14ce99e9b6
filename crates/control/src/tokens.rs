//! Join tokens: how a machine outside Kubernetes gets its first certificate.
//!
//! Single use, minutes, bound to one Workload or gateway. The store keeps only hashes of secrets, so its file gives nobody a
//! certificate. *Single use* means one key: a joiner whose answer was lost may ask again with the same key pair, nobody
//! else can, because the key of its request is proven by the request's own signature.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use veer_core::ObjectName;

use crate::{files, random};

/// How long a join token lives.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Tokens alive at once; an operator's script gone wild must not fill the disk.
const MAX_TOKENS: usize = 100_000;

/// Whom a token or a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A Workload, `namespace/name`.
    Workload(ObjectName),
    /// A gateway of this cluster, by name.
    Gateway(String),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Workload(name) => write!(f, "workload {name}"),
            Subject::Gateway(name) => write!(f, "gateway {name}"),
        }
    }
}

/// Why a token does not admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// Never issued here, or expired long ago.
    #[error("this join token is not known here: it was issued by another cluster, expired, or never existed")]
    Unknown,
    /// Its minutes are over.
    #[error("this join token has expired: ask for a new one with `veer token`")]
    Expired,
    /// Another key has used it.
    #[error("this join token was used already: it admits one joiner, ask for a new one with `veer token`")]
    Used,
}

/// The tokens that this control plane has issued.
#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    tokens: BTreeMap<String, Issued>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Issued {
    subject: Subject,
    expires: SystemTime,
    #[serde(default)]
    used_by: Option<String>,
}

impl TokenStore {
    /// Opens the store; what has expired is forgotten. A file that cannot be read admits nobody, which costs minutes, and is
    /// reported.
    pub fn open(path: PathBuf, now: SystemTime) -> (Self, Option<io::Error>) {
        let (tokens, fault) = match files::read_json::<BTreeMap<String, Issued>>(&path) {
            Ok(tokens) => (tokens.unwrap_or_default(), None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        let mut store = Self { path, tokens };
        store.forget_expired(now);
        (store, fault)
    }

    /// Issues a token's secret, and says when it ends.
    ///
    /// # Errors
    /// When it cannot be written down (an unrecorded token would admit nobody after a restart), or too many are alive.
    pub fn issue(&mut self, subject: Subject, lifetime: Duration, now: SystemTime) -> io::Result<(String, SystemTime)> {
        self.forget_expired(now);
        if self.tokens.len() >= MAX_TOKENS {
            return Err(io::Error::other("too many join tokens are alive; they expire within minutes"));
        }
        let secret = URL_SAFE_NO_PAD.encode(random::secret::<32>());
        let expires = now + lifetime;
        self.tokens.insert(hash(&secret), Issued { subject, expires, used_by: None });
        files::write_json(&self.path, &self.tokens)?;
        Ok((secret, expires))
    }

    /// Spends a token on a key, and says whom it is for. The use is on disk before this returns.
    ///
    /// # Errors
    /// [`RedeemError`].
    pub fn redeem(&mut self, secret: &str, key: &str, now: SystemTime) -> Result<Subject, RedeemError> {
        let id = hash(secret);
        let token = self.tokens.get_mut(&id).ok_or(TokenRefused::Unknown)?;
        if now >= token.expires {
            return Err(TokenRefused::Expired.into());
        }
        match &token.used_by {
            Some(user) if user != key => Err(TokenRefused::Used.into()),
            Some(_) => Ok(token.subject.clone()),
            None => {
                token.used_by = Some(key.to_owned());
                let subject = token.subject.clone();
                if let Err(error) = files::write_json(&self.path, &self.tokens) {
                    if let Some(token) = self.tokens.get_mut(&id) {
                        token.used_by = None;
                    }
                    return Err(error.into());
                }
                Ok(subject)
            }
        }
    }

    fn forget_expired(&mut self, now: SystemTime) {
        // Kept a while beyond the end, so that the answer is "expired" and not "unknown".
        self.tokens.retain(|_, token| token.expires + TOKEN_LIFETIME > now);
    }
}

/// Why a token was not spent.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// It does not admit.
    #[error(transparent)]
    Refused(#[from] TokenRefused),
    /// Its use could not be written down.
    #[error("the use of the join token could not be recorded: {0}")]
    Store(#[from] io::Error),
}

fn hash(secret: &str) -> String {
    random::sha256_hex(secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Subject {
        Subject::Workload(ObjectName::new("shop", "web-1"))
    }

    #[test]
    fn a_token_admits_one_key_until_it_expires_also_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let t = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let (mut store, fault) = TokenStore::open(path.clone(), t);
        assert!(fault.is_none());
        let (secret, expires) = store.issue(workload(), TOKEN_LIFETIME, t).unwrap();
        assert_eq!(store.redeem(&secret, "key-a", t).unwrap(), workload());

        let (mut store, _) = TokenStore::open(path.clone(), t);
        assert_eq!(store.redeem(&secret, "key-a", t).unwrap(), workload(), "the same joiner may ask again");
        let refused = |result: Result<Subject, RedeemError>| match result {
            Err(RedeemError::Refused(why)) => Some(why),
            _ => None,
        };
        assert_eq!(refused(store.redeem(&secret, "key-b", t)), Some(TokenRefused::Used));
        assert_eq!(refused(store.redeem(&secret, "key-a", expires)), Some(TokenRefused::Expired));
        assert_eq!(refused(store.redeem("guess", "key-a", t)), Some(TokenRefused::Unknown));
        assert!(!std::fs::read_to_string(path).unwrap().contains(&secret), "the file holds no secret");
    }

    #[test]
    fn a_broken_store_admits_nobody_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        std::fs::write(&path, b"{\"half").unwrap();
        let (mut store, fault) = TokenStore::open(path, SystemTime::UNIX_EPOCH);
        assert!(fault.is_some());
        assert!(store.redeem("x", "k", SystemTime::UNIX_EPOCH).is_err());
    }

    #[test]
    fn a_use_that_cannot_be_recorded_is_not_granted() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("gone");
        std::fs::create_dir(&nested).unwrap();
        let t = SystemTime::UNIX_EPOCH;
        let (mut store, _) = TokenStore::open(nested.join("tokens.json"), t);
        let (secret, _) = store.issue(workload(), TOKEN_LIFETIME, t).unwrap();
        std::fs::remove_dir_all(&nested).unwrap();
        assert!(matches!(store.redeem(&secret, "key", t), Err(RedeemError::Store(_))));
        std::fs::create_dir(&nested).unwrap();
        assert_eq!(store.redeem(&secret, "other", t).unwrap(), workload());
    }
}
