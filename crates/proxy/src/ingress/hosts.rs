//! Things by host name: exact names first, then the longest wildcard, then what is for every host (Gateway API).

use std::borrow::Cow;
use std::collections::HashMap;

type Map<T> = HashMap<Box<str>, T, foldhash::fast::RandomState>;

/// Values by host name.
pub struct Hosts<T> {
    exact: Map<T>,
    /// By what follows the asterisk, its dot included.
    below: Map<T>,
    any: Option<T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: Map::default(), below: Map::default(), any: None }
    }
}

impl<T> Hosts<T> {
    /// Puts a value under a name, `*.example.com` or `None` for every host; the first one stays.
    pub fn add(&mut self, name: Option<&str>, value: T) {
        match name {
            None => drop(self.any.get_or_insert(value)),
            Some(name) => match name.strip_prefix('*') {
                Some(suffix) => drop(self.below.entry(suffix.into()).or_insert(value)),
                None => drop(self.exact.entry(name.into()).or_insert(value)),
            },
        }
    }

    /// What is for this host (lower case, without port): the most specific.
    pub fn find(&self, host: &str) -> Option<&T> {
        if let Some(value) = self.exact.get(host) {
            return Some(value);
        }
        if !self.below.is_empty() {
            // From the left: longer suffixes come first.
            for (at, _) in host.match_indices('.').filter(|(at, _)| *at > 0) {
                if let Some(value) = self.below.get(&host[at..]) {
                    return Some(value);
                }
            }
        }
        self.any.as_ref()
    }
}

/// A host in the form that names are compared in: lower case, without the dot of the root.
pub fn normal(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_name_wins() {
        let mut hosts = Hosts::default();
        for (name, value) in
            [(Some("a.example.com"), 1), (Some("*.example.com"), 2), (Some("*.b.example.com"), 3), (None, 4), (None, 5)]
        {
            hosts.add(name, value);
        }
        for (host, value) in [
            ("a.example.com", 1),
            ("c.example.com", 2),
            ("x.a.example.com", 2),
            ("c.b.example.com", 3),
            ("b.example.com", 2),
            ("example.com", 4),
            ("", 4),
            (".example.com", 4),
        ] {
            assert_eq!(hosts.find(host), Some(&value), "{host}");
        }
        assert_eq!(Hosts::<u8>::default().find("a"), None);
        assert_eq!((normal("A.b."), normal("a.b")), ("a.b".into(), "a.b".into()));
    }
}
