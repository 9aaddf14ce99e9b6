//! Host names of listeners and routes: `*.example.com` stands for every name below `example.com`, however deep (Gateway API).

use std::sync::Arc;

/// Whether the pattern stands for everything that the other stands for.
pub(crate) fn covers(pattern: &str, other: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => other.trim_start_matches('*').len() >= suffix.len() && other.ends_with(suffix),
        None => pattern == other,
    }
}

/// What both stand for: the more specific of the two, if they intersect.
pub(crate) fn intersection<'a>(one: &'a Arc<str>, other: &'a Arc<str>) -> Option<&'a Arc<str>> {
    if covers(one, other) {
        Some(other)
    } else if covers(other, one) {
        Some(one)
    } else {
        None
    }
}

/// Hosts for which a route acts at a listener. `None`: for none. Empty: for every host.
pub(crate) fn effective(listener: Option<&Arc<str>>, route: &[Arc<str>]) -> Option<Vec<Arc<str>>> {
    let mut hosts: Vec<Arc<str>> = match (listener, route) {
        (None, _) => return Some(route.to_vec()),
        (Some(host), []) => return Some(vec![Arc::clone(host)]),
        (Some(host), _) => route.iter().filter_map(|other| intersection(host, other)).cloned().collect(),
    };
    hosts.sort();
    hosts.dedup();
    (!hosts.is_empty()).then_some(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_intersect_as_the_gateway_api_says() {
        for (one, other, both) in [
            ("a.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "*.example.com", Some("*.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "badexample.com", None),
            ("a.example.com", "b.example.com", None),
            ("*.a.example.com", "*.b.example.com", None),
            ("*.com", "*.example.com", Some("*.example.com")),
        ] {
            let (one, other): (Arc<str>, Arc<str>) = (one.into(), other.into());
            assert_eq!(intersection(&one, &other).map(|host| &**host), both, "{one} {other}");
            assert_eq!(intersection(&other, &one).map(|host| &**host), both, "{other} {one}");
        }
    }

    #[test]
    fn no_host_is_every_host() {
        let hosts = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
        let listener: Arc<str> = "*.example.com".into();
        assert_eq!(effective(None, &[]), Some(vec![]));
        assert_eq!(effective(None, &hosts(&["a.com"])), Some(hosts(&["a.com"])));
        assert_eq!(effective(Some(&listener), &[]), Some(hosts(&["*.example.com"])));
        assert_eq!(
            effective(Some(&listener), &hosts(&["b.example.com", "c.com", "a.example.com"])),
            Some(hosts(&["a.example.com", "b.example.com"]))
        );
        assert_eq!(effective(Some(&listener), &hosts(&["c.com"])), None);
    }
}
