//! The cases of the table of HTTP/2: requests as their fields are written, and why Veer differs.

use super::cases::{AMBIGUOUS, TRAILERS};
use super::frames::written;
use crate::harness::frames::block;
use crate::harness::raw::Seen;

// Reasons of several cases.
const MALFORMED: &str = "each pseudo-field that is due once, before the fields, and no other (RFC 9113 §8.3): malformed, so the stream is reset and the connection goes on";
const TARGET: &str = "not a path (RFC 9113 §8.3.1): malformed, so the stream is reset";
const AUTHORITY: &str =
    "one host without user information is asked for (RFC 9113 §8.3.1), and without it nothing can be routed";
const FIELD: &str = "not allowed in HTTP/2 (RFC 9113 §8.2.1): malformed, so the stream is reset";
const CONNECTION: &str =
    "fields of one connection do not exist in HTTP/2 (RFC 9113 §8.2.2): malformed, so the stream is reset";
const LENGTH: &str =
    "frames and `content-length` are to say the same (RFC 9113 §8.1.1): malformed, so the stream is reset";
const METHOD: &str = "a method is a token (RFC 9110 §9.1): malformed, so the stream is reset";

type Fields = &'static [(&'static str, &'static str)];

/// One case.
pub struct Case {
    pub name: &'static str,
    /// Pseudo-fields and fields in the order in which they are written.
    head: Vec<(&'static str, &'static str)>,
    data: Option<&'static str>,
    trailers: Option<Fields>,
    /// Why Veer differs from another proxy; empty when none does.
    pub why: &'static str,
}

/// An ordinary request's pseudo-fields.
const GET: Fields = &[(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "cart")];
const POST: Fields = &[(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "cart")];

impl Case {
    fn new(name: &'static str, head: Vec<(&'static str, &'static str)>, why: &'static str) -> Self {
        Self { name, head, data: None, trailers: None, why }
    }

    fn data(self, data: &'static str) -> Self {
        Self { data: Some(data), ..self }
    }

    fn trailers(self, trailers: Fields) -> Self {
        Self { trailers: Some(trailers), ..self }
    }

    pub fn frames(&self) -> Vec<u8> {
        written(&block(&self.head), self.data.map(str::as_bytes), self.trailers.map(block).as_deref())
    }

    /// What a backend of HTTP/1.1 is to get (RFC 9113 §8.3, §8.2.3).
    pub fn expected(&self) -> Seen {
        let last = |sought| self.head.iter().rev().find(|(name, _)| *name == sought).map(|(_, value)| *value);
        let line =
            format!("{} {} HTTP/1.1", last(":method").unwrap_or_default(), shown(last(":path").unwrap_or_default()));
        let mut fields: Vec<(String, String)> = Vec::new();
        fields.extend(last(":authority").map(|host| ("host".to_owned(), host.to_owned())));
        for (name, value) in self.head.iter().filter(|(name, _)| !name.starts_with(':')) {
            match fields.iter_mut().find(|(known, _)| known == name && *name == "cookie") {
                Some((_, all)) => all.push_str(&format!("; {value}")),
                None if *name == "host" && last(":authority") == Some(value) => {}
                None => fields.push(((*name).to_owned(), shown(value))),
            }
        }
        let trailers = self.trailers.unwrap_or_default().iter();
        Seen {
            line,
            fields,
            body: self.data.unwrap_or_default().as_bytes().to_vec(),
            trailers: trailers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }
}

/// As the backend tells it: bytes that are no text as escapes.
fn shown(value: &str) -> String {
    value.as_bytes().escape_ascii().to_string()
}

/// A request with more fields.
fn with(name: &'static str, fields: Fields, why: &'static str) -> Case {
    Case::new(name, [GET, fields].concat(), why)
}

/// An ordinary request but for one pseudo-field; `None`: without it.
fn other(name: &'static str, pseudo: &'static str, value: Option<&'static str>, why: &'static str) -> Case {
    let put = |&(known, was): &(&'static str, &'static str)| match (known == pseudo, value) {
        (false, _) => Some((known, was)),
        (true, value) => value.map(|value| (known, value)),
    };
    Case::new(name, GET.iter().filter_map(put).collect(), why)
}

/// All of them.
pub fn cases() -> Vec<Case> {
    [ordinary(), pseudo_fields(), targets(), fields(), framing()].into_iter().flatten().collect()
}

fn ordinary() -> Vec<Case> {
    let order = vec![(":path", "/a"), (":authority", "cart"), (":method", "GET"), (":scheme", "http")];
    vec![
        with("ordinary", &[("x-a", "1"), ("x-a", "2"), ("accept", "*/*")], ""),
        Case::new("pseudo-fields in another order", order, ""),
        other("`HEAD`", ":method", Some("HEAD"), ""),
        other("unknown method", ":method", Some("BREW"), ""),
        other(
            "method in small letters",
            ":method",
            Some("get"),
            "methods are case-sensitive and open (RFC 9110 §9.1): it is an unknown one",
        ),
        Case::new("body with its length", [POST, &[("content-length", "4")]].concat(), "").data("body"),
        Case::new("body without a length", POST.to_vec(), "").data("body"),
        Case::new("empty body in a frame", POST.to_vec(), "").data(""),
        with("`GET` with a body", &[], "").data("body"),
        Case::new("trailers", POST.to_vec(), TRAILERS).data("body").trailers(&[("x-sum", "1")]),
        with("cookie in crumbs", &[("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2")], ""),
        with("`te: trailers`", &[("te", "trailers")], "it may travel (RFC 9110 §10.1.4), for trailers do"),
        with("empty value", &[("x-a", "")], ""),
        with(
            "`expect: 100-continue`",
            &[("expect", "100-continue")],
            "the expectation goes to whom it concerns, and the backend's `100` to the client (RFC 9110 §10.1.1)",
        )
        .data("body"),
        other("scheme `https`", ":scheme", Some("https"), ""),
        other("scheme in capitals", ":scheme", Some("HTTP"), ""),
        other("another scheme", ":scheme", Some("ftp"), "nothing but `http` and `https` is led by routes"),
    ]
}

fn pseudo_fields() -> Vec<Case> {
    let late = vec![(":method", "GET"), (":scheme", "http"), ("x-a", "1"), (":path", "/a"), (":authority", "cart")];
    vec![
        Case::new("pseudo-field behind a field", late, MALFORMED),
        with("two paths", &[(":path", "/b")], MALFORMED),
        with("two methods", &[(":method", "POST")], MALFORMED),
        with("two authorities", &[(":authority", "cart")], MALFORMED),
        with("two schemes", &[(":scheme", "http")], MALFORMED),
        with("unknown pseudo-field", &[(":x", "1")], MALFORMED),
        with("`:status` in a request", &[(":status", "200")], MALFORMED),
        with("`:protocol` without `CONNECT`", &[(":protocol", "websocket")], MALFORMED),
        other("no method", ":method", None, MALFORMED),
        other("no scheme", ":scheme", None, MALFORMED),
        other("no path", ":path", None, MALFORMED),
        other("empty method", ":method", Some(""), MALFORMED),
        other("empty scheme", ":scheme", Some(""), MALFORMED),
        other("empty path", ":path", Some(""), MALFORMED),
        other("empty authority", ":authority", Some(""), AUTHORITY),
        other("method with a space", ":method", Some("GET /b HTTP/1.1"), METHOD),
        other("method with a line end", ":method", Some("GET\r\nx-b:"), METHOD),
        Case::new(
            "`:path` in capitals",
            vec![(":method", "GET"), (":scheme", "http"), (":PATH", "/a"), (":authority", "cart")],
            MALFORMED,
        ),
    ]
}

fn targets() -> Vec<Case> {
    let of = |name, path, why| other(name, ":path", Some(path), why);
    let without = |fields: Fields| [&GET[..3], fields].concat();
    vec![
        of("no slash", "a", TARGET),
        of("absolute form", "http://cart/a", TARGET),
        of("asterisk", "*", TARGET),
        Case::new(
            "`OPTIONS *`",
            vec![(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "cart")],
            "a target of its own (RFC 9113 §8.3.1)",
        ),
        of("path with a space", "/a b", TARGET),
        of("path with a line end", "/a HTTP/1.1\r\nx-b: 1\r\n", TARGET),
        of("path with a zero byte", "/a\0", TARGET),
        of("path with a fragment", "/a#b", "a target has none (RFC 9110 §4.2.5)"),
        of(
            "dot segments",
            "/a/../b",
            "resolved once, before routes and policies look (RFC 3986 §6.2.2.3), and passed on as it was judged",
        ),
        of("slash, encoded", "/a%2fb", AMBIGUOUS),
        of("bytes beyond ASCII", "/\u{e9}", TARGET),
        Case::new("`host` in place of `:authority`", without(&[("host", "cart")]), ""),
        Case::new("neither `host` nor `:authority`", without(&[]), AUTHORITY),
        with(
            "`host` that is the same",
            &[("host", "cart")],
            "the same is said twice, and nobody can take it for something else (RFC 9113 §8.3.1)",
        ),
        with(
            "`host` that is another",
            &[("host", "other")],
            "two hosts: routes, policies and the backend could each look at another one (RFC 9113 §8.3.1)",
        ),
        with("two `host`", &[("host", "cart"), ("host", "cart")], AUTHORITY),
        other("authority with user information", ":authority", Some("user@cart"), AUTHORITY),
        other("authority with a line end", ":authority", Some("cart\r\nx-b: 1"), AUTHORITY),
        other("authority with a path", ":authority", Some("cart/x"), AUTHORITY),
    ]
}

fn fields() -> Vec<Case> {
    vec![
        with("name in capitals", &[("X-A", "1")], FIELD),
        with("name with a space", &[("x a", "1")], FIELD),
        with("name with a colon", &[("x:a", "1")], FIELD),
        with("empty name", &[("", "1")], FIELD),
        with("name with a line end", &[("x-a\r\nx-b", "1")], FIELD),
        with("value with a line end", &[("x-a", "1\r\nx-b: 2")], FIELD),
        with("value with a bare line feed", &[("x-a", "1\nx-b: 2")], FIELD),
        with("value with a bare carriage return", &[("x-a", "1\rx-b: 2")], FIELD),
        with("value with a zero byte", &[("x-a", "a\0b")], FIELD),
        with("value with a control character", &[("x-a", "a\u{1}b")], FIELD),
        with("value with spaces around", &[("x-a", " 1 ")], FIELD),
        with("value beyond ASCII", &[("x-a", "\u{e9}")], ""),
        with("`connection: close`", &[("connection", "close")], CONNECTION),
        with("`connection` with a name", &[("connection", "x-a"), ("x-a", "1")], CONNECTION),
        with("`keep-alive`", &[("keep-alive", "timeout=5")], CONNECTION),
        with("`proxy-connection`", &[("proxy-connection", "close")], CONNECTION),
        with("`upgrade`", &[("upgrade", "websocket")], CONNECTION),
        with("`transfer-encoding: chunked`", &[("transfer-encoding", "chunked")], CONNECTION)
            .data("0\r\n\r\nGET /b HTTP/1.1\r\n\r\n"),
        with("`te: gzip`", &[("te", "gzip")], CONNECTION),
    ]
}

fn framing() -> Vec<Case> {
    let post = |name, fields: Fields, why| Case::new(name, [POST, fields].concat(), why);
    vec![
        post("body longer than its length", &[("content-length", "2")], LENGTH).data("body"),
        post("body shorter than its length", &[("content-length", "9")], LENGTH).data("body"),
        post("length without a body", &[("content-length", "4")], LENGTH),
        post("two lengths", &[("content-length", "4"), ("content-length", "5")], LENGTH).data("body"),
        post(
            "the same length twice",
            &[("content-length", "4"), ("content-length", "4")],
            "equal lengths may be taken for one (RFC 9110 §8.6)",
        )
        .data("body"),
        post("length that is no number", &[("content-length", "+4")], LENGTH).data("body"),
        post("pseudo-field in trailers", &[], MALFORMED).data("body").trailers(&[(":path", "/b")]),
        post("length in trailers", &[], TRAILERS).data("body").trailers(&[("content-length", "4")]),
        post("trailer name in capitals", &[], FIELD).data("body").trailers(&[("X-Sum", "1")]),
        Case::new(
            "`CONNECT`",
            vec![(":method", "CONNECT"), (":authority", "cart:80")],
            "a proxy within the mesh opens tunnels to its services (RFC 9110 §9.3.6); Gateways do not",
        ),
        Case::new("`CONNECT` with scheme and path", [&[(":method", "CONNECT")], &GET[1..]].concat(), MALFORMED),
    ]
}
