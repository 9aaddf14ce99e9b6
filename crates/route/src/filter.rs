//! The parts of the Gateway API's filters.

use std::borrow::Cow;
use std::fmt::Write;

use http::{HeaderName, HeaderValue};
use veer_core::route::{HeaderChange, PathChange};
use veer_http::Fields;

/// A change of header fields with names and values parsed.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdit {
    set: Box<[(HeaderName, HeaderValue)]>,
    add: Box<[(HeaderName, HeaderValue)]>,
    remove: Box<[HeaderName]>,
}

impl HeaderEdit {
    /// Takes what is a field name and a field value; anything else was refused when the manifest was read.
    pub fn new(change: &HeaderChange) -> Self {
        let pairs = |list: &[veer_core::route::HeaderField]| {
            list.iter()
                .filter_map(|field| Some((field.name.parse().ok()?, HeaderValue::from_str(&field.value).ok()?)))
                .collect()
        };
        Self {
            set: pairs(&change.set),
            add: pairs(&change.add),
            remove: change.remove.iter().filter_map(|name| name.parse().ok()).collect(),
        }
    }

    /// Sets, adds and removes.
    pub fn apply(&self, fields: &mut Fields) {
        for (name, value) in &self.set {
            fields.set_other(name.as_str().as_bytes(), value.as_bytes());
        }
        for (name, value) in &self.add {
            fields.push_other(name.as_str().as_bytes(), value.as_bytes());
        }
        for name in &self.remove {
            fields.remove_other(name.as_str().as_bytes());
        }
    }
}

/// Where a request came to: what a redirect begins from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host that the caller wrote, without port.
    pub host: &'a str,
    /// The port that the caller used.
    pub port: u16,
}

/// Puts `replacement` in the place of the path elements `prefix`, by the Gateway API's table for `ReplacePrefixMatch`: a slash
/// at the end of either does not count, a slash at the end of the path stays, and the result is never empty.
pub fn replace_prefix(path: &str, prefix: &str, replacement: &str) -> String {
    let rest = path.strip_prefix(prefix.trim_end_matches('/')).unwrap_or(path);
    let replacement = replacement.trim_end_matches('/');
    let mut out = String::with_capacity(replacement.len() + rest.len() + 1);
    out.push_str(replacement);
    out.push_str(rest);
    if !out.starts_with('/') {
        out.insert(0, '/');
    }
    out
}

pub(crate) fn rewritten_path(change: &PathChange, path: &str, prefix: &str) -> String {
    match change {
        PathChange::Full(full) if full.starts_with('/') => full.to_string(),
        PathChange::Full(full) => format!("/{full}"),
        PathChange::Prefix(replacement) => replace_prefix(path, prefix, replacement),
    }
}

/// `None` when the parts make no header value. The port is left out where it is the scheme's own.
pub(crate) fn redirect_location(to: &Origin<'_>, path: &str, query: Option<&str>) -> Option<HeaderValue> {
    let host: Cow<'_, str> = if to.host.contains(':') && !to.host.starts_with('[') {
        format!("[{}]", to.host).into()
    } else {
        to.host.into()
    };
    let mut location = format!("{}://{host}", to.scheme);
    if !matches!((to.scheme, to.port), ("http", 80) | ("https", 443)) {
        write!(location, ":{}", to.port).ok()?;
    }
    location.push_str(path);
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    HeaderValue::try_from(location).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_replaced_as_the_table_of_the_gateway_api_says() {
        for (path, prefix, replacement, result) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo", "/", "/xyz", "/xyz/foo"),
            ("/foo", "", "/xyz", "/xyz/foo"),
        ] {
            assert_eq!(replace_prefix(path, prefix, replacement), result, "{path} {prefix} {replacement}");
        }
    }

    #[test]
    fn locations_leave_out_the_schemes_own_port() {
        let location = |scheme, host, port, path, query| {
            redirect_location(&Origin { scheme, host, port }, path, query).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(location("http", "a.example", 80, "/x", None), "http://a.example/x");
        assert_eq!(location("https", "a.example", 443, "/x", Some("q=1")), "https://a.example/x?q=1");
        assert_eq!(location("https", "a.example", 80, "/", None), "https://a.example:80/");
        assert_eq!(location("http", "::1", 8080, "/", None), "http://[::1]:8080/");
        assert!(redirect_location(&Origin { scheme: "http", host: "a\nb", port: 80 }, "/", None).is_none());
    }

    #[test]
    fn fields_are_set_added_and_removed() {
        let field = |name: &str, value: &str| veer_core::route::HeaderField { name: name.into(), value: value.into() };
        let edit = HeaderEdit::new(&HeaderChange {
            set: vec![field("x-set", "new"), field("bad name", "x")],
            add: vec![field("x-add", "2")],
            remove: vec!["x-gone".into()],
        });
        let mut fields = Fields::new();
        for (name, value) in [("x-set", "old"), ("x-add", "1"), ("x-gone", "1"), ("x-gone", "2")] {
            fields.push_other(name.as_bytes(), value.as_bytes());
        }
        edit.apply(&mut fields);
        let all: Vec<_> = fields.iter().collect();
        assert_eq!(all, [(&b"x-add"[..], &b"1"[..]), (b"x-set", b"new"), (b"x-add", b"2")]);
    }
}
