//! Resources as they travel: encoded once, when somebody first asks, and shared by all who ask.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use veer_core::Resource;

/// Resources of one type, by name.
pub(crate) type Table<R> = BTreeMap<String, Arc<Encoded<R>>>;

/// A resource and, once it was asked for, its encoding.
#[derive(Debug)]
pub(crate) struct Encoded<R> {
    value: Arc<R>,
    wire: OnceLock<Option<(String, Bytes)>>,
}

impl<R: Resource> Encoded<R> {
    pub(crate) fn new(value: Arc<R>) -> Arc<Self> {
        Arc::new(Self { value, wire: OnceLock::new() })
    }

    pub(crate) fn value(&self) -> &Arc<R> {
        &self.value
    }

    /// Version and JSON. The version is a hash of the bytes, so that it is the same after a restart and a reconnecting
    /// subscriber is sent nothing it has.
    pub(crate) fn wire(&self) -> Option<(String, Bytes)> {
        let encode = || {
            let bytes = serde_json::to_vec(&*self.value)
                .inspect_err(|error| tracing::error!(type_url = R::TYPE_URL, %error, "a resource cannot be encoded"))
                .ok()?;
            Some((veer_xds::version_of(&bytes), bytes.into()))
        };
        self.wire.get_or_init(encode).clone()
    }
}

/// Makes the table of the next generation; what is the same keeps its encoding.
pub(crate) fn table<R: Resource>(last: &Table<R>, now: impl IntoIterator<Item = (String, Arc<R>)>) -> Table<R> {
    now.into_iter()
        .map(|(name, value)| {
            let entry = match last.get(&name) {
                Some(entry) if Arc::ptr_eq(&entry.value, &value) || entry.value == value => Arc::clone(entry),
                _ => Encoded::new(value),
            };
            (name, entry)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use veer_core::TrustDomain;
    use veer_core::inbound::TrustBundle;

    use super::*;

    fn bundle(pem: &str) -> Arc<TrustBundle> {
        Arc::new(TrustBundle { trust_domain: TrustDomain::new("west").unwrap(), roots_pem: pem.to_owned() })
    }

    #[test]
    fn equal_resources_keep_their_encoding_and_versions_are_stable() {
        let first = table(&Table::new(), [("a".to_owned(), bundle("x")), ("b".to_owned(), bundle("y"))]);
        let (version, bytes) = first["a"].wire().unwrap();
        let second = table(&first, [("a".to_owned(), bundle("x")), ("b".to_owned(), bundle("z"))]);
        assert!(Arc::ptr_eq(&first["a"], &second["a"]));
        assert_ne!(first["b"].wire().unwrap().0, second["b"].wire().unwrap().0);
        let restarted = table(&Table::new(), [("a".to_owned(), bundle("x"))]);
        assert_eq!(restarted["a"].wire().unwrap(), (version, bytes));
    }
}
