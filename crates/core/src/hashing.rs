//! Consistent hashing: requests with one key go to one endpoint, as far as it can serve.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::route::Foreign;

/// How requests are led by a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsistentHash {
    /// How keys are mapped to endpoints.
    #[serde(default)]
    pub table: HashTable,
    /// What the key is. A request without it is balanced as without hashing.
    pub key: HashKey,
}

/// How keys are mapped to endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashTable {
    /// Even shares, a look into a table for each request; a change of endpoints moves few keys more than it must.
    #[default]
    Maglev,
    /// A ring of points: a change of endpoints moves no key that it need not move; shares differ by some percent.
    Ring,
    /// A mapping that only a newer version knows: requests are balanced as without hashing.
    #[serde(other)]
    Unknown,
}

/// What of a request is its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashKey {
    /// The value of a header field, by its name in lower case.
    Header(Arc<str>),
    /// The value of a cookie, by its name.
    Cookie(Arc<str>),
    /// Who sends: at a Gateway the client's address, at a workload's proxy the workload.
    Source,
    /// Something that only a newer version knows: no request has it.
    #[serde(untagged)]
    Unknown(Foreign),
}

impl fmt::Display for ConsistentHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.table {
            HashTable::Maglev => "Maglev hashing",
            HashTable::Ring => "ring hashing",
            HashTable::Unknown => return out.write_str("hashing as only a newer version knows: not used"),
        })?;
        match &self.key {
            HashKey::Header(name) => write!(out, " by header {name}"),
            HashKey::Cookie(name) => write!(out, " by cookie {name}"),
            HashKey::Source => out.write_str(" by source"),
            HashKey::Unknown(_) => out.write_str(" by what only a newer version knows: not used"),
        }
    }
}

/// A hash of a key's bytes that all versions and processes agree on: FNV-1a, then mixed, so that keys that are alike lie far apart.
/// Whoever chooses keys can choose endpoints: it protects nothing.
pub fn key_hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)))
}

/// Spreads a number over all 64 bits; no two numbers become one (the finalizer of SplitMix64).
pub fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_version_says_is_read_as_unknown() {
        let read = |text: &str| serde_json::from_str::<ConsistentHash>(text).unwrap();
        let known = ConsistentHash { table: HashTable::Ring, key: HashKey::Cookie("a".into()) };
        assert_eq!(read(&serde_json::to_string(&known).unwrap()), known);
        assert_eq!(read(r#"{"key":"source"}"#), ConsistentHash { table: HashTable::Maglev, key: HashKey::Source });
        let newer = read(r#"{"table":"jump","key":{"query":"q"}}"#);
        assert_eq!((newer.table, &newer.key), (HashTable::Unknown, &HashKey::Unknown(Foreign)));
    }

    #[test]
    fn the_hash_stays_what_it_is() {
        // Proxies of different versions must lead the same key to the same endpoint.
        assert_eq!(key_hash(&[b"ada"]), key_hash(&[b"a", b"da"]));
        assert_eq!(key_hash(&[b"ada"]), mix(crate::names::stable_hash("ada")));
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf, "SplitMix64's first output of seed 0");
    }
}
