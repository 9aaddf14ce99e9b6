//! A request as routing sees it: borrowed, so that looking costs nothing.

use http::{HeaderMap, HeaderName};

use veer_core::Pattern;

use crate::path::{NormalPath, hex};

/// A request's header section, whatever holds it.
pub trait Headers {
    /// Shows every value of the field, in order of arrival.
    fn each(&self, name: &HeaderName, visit: &mut dyn FnMut(&[u8]));
}

impl Headers for veer_http::Fields {
    fn each(&self, name: &HeaderName, visit: &mut dyn FnMut(&[u8])) {
        self.named(name.as_str().as_bytes()).for_each(visit);
    }
}

impl Headers for HeaderMap {
    fn each(&self, name: &HeaderName, visit: &mut dyn FnMut(&[u8])) {
        self.get_all(name).iter().for_each(|value| visit(value.as_bytes()));
    }
}

/// What routes look at.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a, H: ?Sized = HeaderMap> {
    /// The method, as sent (methods are case-sensitive).
    pub method: &'a str,
    /// The path in normal form.
    pub path: &'a NormalPath<'a>,
    /// What follows `?`, without it.
    pub query: Option<&'a str>,
    /// `:authority` of HTTP/2, or the authority of an absolute target: what a match on `host` is held against when there is no
    /// `Host` field.
    pub authority: Option<&'a str>,
    /// The header section.
    pub headers: &'a H,
}

impl<H: Headers + ?Sized> RequestView<'_, H> {
    /// Whether the field has exactly this value. Repeated fields count as one list (RFC 9110 §5.3), joined by `,` or `, `.
    pub(crate) fn header_is(&self, name: &HeaderName, value: &[u8]) -> bool {
        let mut seen = false;
        let mut rest = Some(value);
        self.headers.each(name, &mut |part| {
            let at = match rest {
                Some(text) if seen => text.strip_prefix(b", ").or_else(|| text.strip_prefix(b",")),
                unchanged => unchanged,
            };
            rest = at.and_then(|text| text.strip_prefix(part));
            seen = true;
        });
        if !seen && *name == http::header::HOST {
            return self.authority.is_some_and(|authority| authority.as_bytes() == value);
        }
        seen && rest.is_some_and(<[u8]>::is_empty)
    }

    /// Whether the pattern holds for the whole value of the field. Repeated fields count as one list, joined by `,`.
    pub(crate) fn header_holds(&self, name: &HeaderName, pattern: &Pattern) -> bool {
        let mut holds = None;
        let mut list: Vec<u8> = Vec::new();
        self.headers.each(name, &mut |part| match holds {
            // Fields of several lines are rare: only then they are put together.
            None => {
                holds = Some(pattern.holds(part));
                list.extend_from_slice(part);
            }
            Some(_) => {
                list.push(b',');
                list.extend_from_slice(part);
                holds = Some(pattern.holds(&list));
            }
        });
        if holds.is_none() && *name == http::header::HOST {
            return self.authority.is_some_and(|authority| pattern.holds(authority.as_bytes()));
        }
        holds == Some(true)
    }

    /// Whether the pattern holds for the whole value of the first parameter of this name.
    pub(crate) fn query_holds(&self, name: &str, pattern: &Pattern) -> bool {
        self.query.unwrap_or_default().split('&').find_map(|pair| {
            let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
            decoded(key).eq(name.bytes()).then(|| pattern.holds(&decoded(text).collect::<Vec<u8>>()))
        }) == Some(true)
    }

    /// Whether the first parameter of this name has exactly this value. Both are read as forms write them (`+` and escapes).
    pub(crate) fn query_is(&self, name: &str, value: &str) -> bool {
        self.query.unwrap_or_default().split('&').find_map(|pair| {
            let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
            decoded(key).eq(name.bytes()).then(|| decoded(text).eq(value.bytes()))
        }) == Some(true)
    }
}

/// The bytes that form-encoded text means; a broken escape stands for itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (byte, used) = match *rest {
            [] => return None,
            [b'%', high, low, ..] => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => (b'%', 1),
            },
            [b'+', ..] => (b' ', 1),
            [byte, ..] => (byte, 1),
        };
        rest = &rest[used..];
        Some(byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'a>(headers: &'a HeaderMap, path: &'a NormalPath<'a>, query: Option<&'a str>) -> RequestView<'a> {
        RequestView { method: "GET", path, query, authority: Some("cart.shop"), headers }
    }

    #[test]
    fn repeated_fields_are_one_list() {
        let path = NormalPath::parse("/").unwrap();
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-user");
        let is = |headers: &HeaderMap, value: &str| view(headers, &path, None).header_is(&name, value.as_bytes());
        assert!(!is(&headers, ""));
        headers.append("x-user", "a".parse().unwrap());
        assert!(is(&headers, "a"));
        assert!(!is(&headers, "ab"));
        headers.append("x-user", "b".parse().unwrap());
        assert!(is(&headers, "a,b") && is(&headers, "a, b"));
        assert!(!is(&headers, "a") && !is(&headers, "b") && !is(&headers, "ab"));
    }

    #[test]
    fn host_is_the_authority_when_there_is_no_such_field() {
        let path = NormalPath::parse("/").unwrap();
        let mut headers = HeaderMap::new();
        assert!(view(&headers, &path, None).header_is(&http::header::HOST, b"cart.shop"));
        headers.insert("host", "other".parse().unwrap());
        assert!(!view(&headers, &path, None).header_is(&http::header::HOST, b"cart.shop"));
    }

    #[test]
    fn patterns_hold_for_whole_values() {
        let path = NormalPath::parse("/").unwrap();
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-user");
        let holds = |headers: &HeaderMap, pattern: &str| {
            view(headers, &path, Some("a=x%20y&a=z")).header_holds(&name, &Pattern::new(pattern).unwrap())
        };
        assert!(!holds(&headers, ".*"), "a field that is not there meets no condition");
        headers.append("x-user", "ada".parse().unwrap());
        assert!(holds(&headers, "a.a") && !holds(&headers, "a"));
        headers.append("x-user", "bob".parse().unwrap());
        assert!(holds(&headers, "ada,bob") && !holds(&headers, "ada") && !holds(&headers, "bob"));
        let query = |name, pattern| {
            view(&headers, &path, Some("a=x%20y&a=z")).query_holds(name, &Pattern::new(pattern).unwrap())
        };
        assert!(query("a", "x y") && !query("a", "z") && !query("b", ".*"));
    }

    #[test]
    fn the_first_parameter_of_a_name_counts() {
        let path = NormalPath::parse("/").unwrap();
        let headers = HeaderMap::new();
        let is = |query, name, value| view(&headers, &path, query).query_is(name, value);
        assert!(is(Some("a=1&b=x+y%21"), "b", "x y!"));
        assert!(is(Some("a=1&a=2"), "a", "1"));
        assert!(!is(Some("a=1&a=2"), "a", "2"));
        assert!(is(Some("a"), "a", ""));
        assert!(is(Some("a=%zz"), "a", "%zz"));
        assert!(!is(None, "a", ""));
        assert!(!is(Some("A=1"), "a", "1"));
    }
}
