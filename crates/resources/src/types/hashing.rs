//! Consistent hashing in a TrafficPolicy.

use std::sync::Arc;

use veer_core::hashing::{ConsistentHash, HashKey, HashTable};

use crate::decode::{manifest, open_enum};

manifest! {
    /// See [`ConsistentHash`]. Exactly one of the keys is written.
    #[derive(Default)]
    pub struct ConsistentHashSpec {
        /// How keys are mapped to endpoints.
        pub algorithm: HashAlgorithm = "algorithm",
        /// The key is the value of this header field.
        pub header: Option<Arc<str>> = "header",
        /// The key is the value of this cookie.
        pub cookie: Option<Arc<str>> = "cookie",
        /// The key is who sends.
        pub source_address: Option<bool> = "sourceAddress",
    }
    ignored []
}

open_enum! {
    /// How keys are mapped to endpoints.
    pub enum HashAlgorithm {
        /// A table, by Maglev's rule.
        Maglev = "Maglev",
        /// A ring of points.
        RingHash = "RingHash",
    }
    default Maglev
}

impl ConsistentHashSpec {
    /// The policy; `None` when no key is written, which was reported.
    pub fn policy(&self) -> Option<ConsistentHash> {
        let table = match self.algorithm {
            HashAlgorithm::Maglev => HashTable::Maglev,
            HashAlgorithm::RingHash => HashTable::Ring,
            HashAlgorithm::Unknown(_) => return None,
        };
        let key = match (&self.header, &self.cookie, self.source_address) {
            (Some(name), _, _) => HashKey::Header(name.to_ascii_lowercase().into()),
            (None, Some(name), _) => HashKey::Cookie(Arc::clone(name)),
            (None, None, Some(true)) => HashKey::Source,
            (None, None, _) => return None,
        };
        Some(ConsistentHash { table, key })
    }

    /// How many keys are written.
    pub fn keys(&self) -> usize {
        usize::from(self.header.is_some())
            + usize::from(self.cookie.is_some())
            + usize::from(self.source_address == Some(true))
    }
}
