//! The key of a request, where a policy leads requests by keys.

use std::net::IpAddr;

use veer_core::ObjectName;
use veer_core::hashing::{ConsistentHash, HashKey, key_hash};
use veer_http::Fields;

use super::session::cookies;

/// Who sends a request, as far as its key may be made of it.
pub enum Source<'a> {
    /// The client of a Gateway.
    Client(IpAddr),
    /// The workload beside this proxy.
    Workload(&'a ObjectName),
}

/// The hash of the request's key; `None` when it has none. Allocates nothing.
pub fn hash_of(policy: &ConsistentHash, request: &Fields, source: &Source<'_>) -> Option<u64> {
    match &policy.key {
        HashKey::Header(name) => request.named(name.as_bytes()).next().map(|value| key_hash(&[value])),
        HashKey::Cookie(name) => cookies(request, name.as_bytes()).next().map(|value| key_hash(&[value])),
        HashKey::Source => Some(match source {
            Source::Client(IpAddr::V4(address)) => key_hash(&[&address.octets()]),
            Source::Client(IpAddr::V6(address)) => key_hash(&[&address.octets()]),
            Source::Workload(name) => key_hash(&[name.namespace.as_bytes(), b"/", name.name.as_bytes()]),
        }),
        HashKey::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use veer_core::hashing::HashTable;

    use super::*;

    #[test]
    fn keys_are_what_the_policy_says() {
        let mut fields = Fields::new();
        fields.push_other(b"x-user", b"ada");
        fields.push(veer_http::Name::Cookie, b"a=1; cart=7");
        let name = ObjectName::new("shop", "web");
        let here = Source::Workload(&name);
        let of = |key: HashKey, source: &Source<'_>| {
            hash_of(&ConsistentHash { table: HashTable::Maglev, key }, &fields, source)
        };
        assert_eq!(of(HashKey::Header("x-user".into()), &here), Some(key_hash(&[b"ada"])));
        assert_eq!(of(HashKey::Header("x-none".into()), &here), None);
        assert_eq!(of(HashKey::Cookie("cart".into()), &here), Some(key_hash(&[b"7"])));
        assert_eq!(of(HashKey::Cookie("car".into()), &here), None);
        assert_eq!(of(HashKey::Source, &here), Some(key_hash(&[b"shop/web"])));
        let client = |text: &str| of(HashKey::Source, &Source::Client(text.parse().unwrap()));
        assert!(client("10.0.0.1").is_some() && client("10.0.0.1") != client("10.0.0.2"));
        assert_eq!(of(HashKey::Unknown(veer_core::route::Foreign), &here), None);
    }
}
