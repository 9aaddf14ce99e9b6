//! The cases of the table: requests as they are written, answers as the backend writes them, and why Veer differs.

use super::origin::take;
use crate::harness::raw::Seen;

/// One case.
pub struct Case {
    pub name: &'static str,
    pub raw: Vec<u8>,
    /// What the backend answers; `""` is an ordinary answer.
    pub answer: &'static str,
    /// Why Veer differs from another proxy; empty when none does.
    pub why: &'static str,
    /// The connection is to end with the answer.
    pub ends: bool,
}

impl Case {
    pub fn new(name: &'static str, raw: impl Into<Vec<u8>>, why: &'static str) -> Self {
        Self { name, raw: raw.into(), answer: "", why, ends: false }
    }

    /// The connection is to end with the answer.
    fn ends(self) -> Self {
        Self { ends: true, ..self }
    }

    /// What would reach the backend without a proxy.
    pub fn expected(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut rest = self.raw.as_slice();
        while let Some((next, used)) = take(rest) {
            seen.push(next);
            rest = rest.get(used..).unwrap_or_default();
        }
        seen
    }
}

// Reasons of several cases.
const ORIGIN_FORM: &str = "the backend gets the origin form, as RFC 9112 §3.2.1 has it";
const OWN_VERSION: &str =
    "clients of HTTP/1.0 are served; what is sent on is of Veer's own version, HTTP/1.1 (RFC 9110 §2.5)";
const CODING: &str = "the same refusal; a coding that cannot be understood may be 400 or 501 (RFC 9112 §6.1)";
pub const LINE_END: &str =
    "a bare line feed may be refused (RFC 9112 §2.2); readers who disagree on line ends can be smuggled through";
pub const AMBIGUOUS: &str = "readers who decode at different times see different paths, and rules for one are not those for another: ambiguous ones are refused";
pub const HOP: &str = "fields of one connection end with it (RFC 9110 §7.6.1)";
pub const VALUE: &str = "not allowed in a value (RFC 9110 §5.5)";
const NAME: &str = "not a name (RFC 9110 §5.1), so the message is refused rather than cut";
const FOLDED: &str = "folded lines are obsolete, refused with 400 as RFC 9112 §5.2 allows";
const HOST: &str = "without one valid host the request cannot be routed; RFC 9112 §3.2 wants 400";
const CHUNK: &str = "not what a chunk looks like (RFC 9112 §7.1)";
const BOTH: &str = "whoever sends both is broken or attacks (RFC 9112 §6.1)";
pub const TRAILERS: &str = "trailers travel (RFC 9110 §6.5)";

/// All of them.
pub fn cases() -> Vec<Case> {
    [targets(), methods_and_versions(), fields(), framing(), chunks(), super::answers::cases()]
        .into_iter()
        .flatten()
        .collect()
}

fn targets() -> Vec<Case> {
    let of = |name, target: &str, why| Case::new(name, format!("GET {target} HTTP/1.1\r\nHost: cart\r\n\r\n"), why);
    vec![
        of("absolute form", "http://cart/a?b", ORIGIN_FORM),
        of("absolute form without a path", "http://cart", ORIGIN_FORM),
        Case::new(
            "absolute form, another `Host`",
            "GET http://cart/a HTTP/1.1\r\nHost: other\r\n\r\n",
            "the target's authority replaces `Host` (RFC 9112 §3.2.2)",
        ),
        of(
            "absolute form with user information",
            "http://user@cart/a",
            "user information in a target is to be taken for an error (RFC 9110 §4.2.4)",
        ),
        of(
            "dot segments",
            "/a/../b/./c",
            "resolved once, before routes and policies look (RFC 3986 §6.2.2.3), and passed on as it was judged",
        ),
        of("dot segments, encoded", "/a/%2e%2e/b", AMBIGUOUS),
        of("dot segments above the root", "/../b", "there is nothing above the root"),
        of("slash, encoded", "/a%2fb", AMBIGUOUS),
        of("two slashes", "//a//b", ""),
        of("broken escape", "/%zz", "not a URI (RFC 3986 §2.1)"),
        of("zero byte, encoded", "/a%00b", AMBIGUOUS),
        of("quotes and braces", "/\"a\"{b}|c", ""),
        of("backslash", "/a\\..\\b", AMBIGUOUS),
        of("fragment", "/a#b", "a target has none (RFC 9112 §3.2)"),
        of("bytes beyond ASCII", "/\u{fc}", "not a URI (RFC 3986 §2); the client is to escape them"),
        of("no slash", "a", ""),
        of("long target", &format!("/{}", "a".repeat(9000)), "up to 64 KiB; RFC 9112 §3 asks for 8,000 bytes at least"),
    ]
}

fn methods_and_versions() -> Vec<Case> {
    vec![
        Case::new("`HEAD`", "HEAD / HTTP/1.1\r\nHost: cart\r\n\r\n", ""),
        Case::new("`OPTIONS *`", "OPTIONS * HTTP/1.1\r\nHost: cart\r\n\r\n", "a target of its own (RFC 9112 §3.2.4)"),
        Case::new(
            "`GET *`",
            "GET * HTTP/1.1\r\nHost: cart\r\n\r\n",
            "the asterisk is for `OPTIONS` alone (RFC 9112 §3.2.4)",
        ),
        Case::new(
            "`TRACE`",
            "TRACE / HTTP/1.1\r\nHost: cart\r\n\r\n",
            "methods are the application's; an AuthorizationPolicy forbids them",
        ),
        Case::new(
            "unknown method",
            "BREW / HTTP/1.1\r\nHost: cart\r\n\r\n",
            "methods are open (RFC 9110 §9.1): the application knows them",
        ),
        Case::new(
            "method in small letters",
            "get / HTTP/1.1\r\nHost: cart\r\n\r\n",
            "methods are case-sensitive and open (RFC 9110 §9.1): it is an unknown one",
        ),
        Case::new("method with a separator", "G(T / HTTP/1.1\r\nHost: cart\r\n\r\n", ""),
        Case::new("`GET` with a body", "GET / HTTP/1.1\r\nHost: cart\r\nContent-Length: 2\r\n\r\nhi", ""),
        Case::new("`DELETE` with a body in chunks", chunked("DELETE", "2\r\nhi\r\n0\r\n\r\n"), ""),
        Case::new("`POST` without a length", "POST / HTTP/1.1\r\nHost: cart\r\n\r\n", ""),
        Case::new(
            "two requests at once",
            "GET /1 HTTP/1.1\r\nHost: cart\r\n\r\nGET /2 HTTP/1.1\r\nHost: cart\r\n\r\n",
            "",
        ),
        Case::new("empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nHost: cart\r\n\r\n", ""),
        Case::new(
            "two spaces in the request line",
            "GET  / HTTP/1.1\r\nHost: cart\r\n\r\n",
            "one space (RFC 9112 §3); lenient readers disagree on what the target is",
        ),
        Case::new("HTTP/1.0", "GET / HTTP/1.0\r\nHost: cart\r\n\r\n", OWN_VERSION).ends(),
        Case::new("HTTP/1.0 without `Host`", "GET / HTTP/1.0\r\n\r\n", "services are told apart by their host alone")
            .ends(),
        Case::new(
            "HTTP/1.0, kept alive",
            "GET / HTTP/1.0\r\nHost: cart\r\nConnection: keep-alive\r\n\r\n",
            OWN_VERSION,
        ),
        Case::new("HTTP/0.9", "GET /\r\n", "not spoken").ends(),
        Case::new(
            "HTTP/1.2",
            "GET / HTTP/1.2\r\nHost: cart\r\n\r\n",
            "taken for the highest minor version that is known (RFC 9110 §2.5)",
        ),
        Case::new(
            "HTTP/2.0 in words",
            "GET / HTTP/2.0\r\nHost: cart\r\n\r\n",
            "HTTP/2 begins with its preface: another major version is a 505 (RFC 9110 §15.6.6)",
        ),
        Case::new("version in small letters", "GET / http/1.1\r\nHost: cart\r\n\r\n", ""),
    ]
}

fn fields() -> Vec<Case> {
    let of = |name, fields: &str, why| Case::new(name, get(fields), why);
    let bytes = |name, fields: &[u8], why| {
        Case::new(name, [b"GET / HTTP/1.1\r\nHost: cart\r\n", fields, b"\r\n\r\n"].concat(), why)
    };
    let many: String = (0..90).map(|number| format!("x-{number}: 1\r\n")).collect();
    let most: String = (0..150).map(|number| format!("x-{number}: 1\r\n")).collect();
    vec![
        Case::new("no `Host`", "GET / HTTP/1.1\r\n\r\n", HOST),
        Case::new("empty `Host`", "GET / HTTP/1.1\r\nHost:\r\n\r\n", HOST),
        Case::new("two hosts", "GET / HTTP/1.1\r\nHost: cart\r\nHost: other\r\n\r\n", HOST),
        Case::new("the same host twice", "GET / HTTP/1.1\r\nHost: cart\r\nHost: cart\r\n\r\n", HOST),
        Case::new("`Host` with a slash", "GET / HTTP/1.1\r\nHost: cart/a\r\n\r\n", HOST),
        Case::new(
            "`Host` in capitals",
            "GET / HTTP/1.1\r\nHost: CART\r\n\r\n",
            "passed on as it was written; routes do not look at the case",
        ),
        of("field that `Connection` names", "Connection: x-secret\r\nX-Secret: 1\r\n", HOP),
        of(
            "`Connection` names `Host`",
            "Connection: host\r\n",
            "`Host` is for the whole way, whatever `Connection` says",
        ),
        of("`Keep-Alive`, `Proxy-Connection`", "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n", HOP),
        of("`TE: trailers`", "TE: trailers\r\nConnection: te\r\n", "trailers are carried, so the backend may know"),
        of("`TE: gzip`", "TE: gzip\r\nConnection: te\r\n", ""),
        of(
            "`Upgrade` to what nobody knows",
            "Connection: upgrade\r\nUpgrade: teapot\r\n",
            "what is asked for is between client and application (RFC 9110 §7.8)",
        ),
        of(
            "`Upgrade: h2c`",
            "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
            "`h2c` is not offered, and fields of one connection end with it (RFC 9110 §7.6.1)",
        ),
        of("`Via` and `X-Forwarded-For` given", "Via: 1.1 edge\r\nX-Forwarded-For: 192.0.2.1\r\n", ""),
        of("`Forwarded`, `X-Real-IP` given", "Forwarded: for=192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n", ""),
        of("`Proxy-Authorization`", "Proxy-Authorization: Basic YTpi\r\n", ""),
        of(
            "`Expect: 100-continue`, body sent anyway",
            "Expect: 100-continue\r\nContent-Length: 0\r\n",
            "the application gives leave (RFC 9110 §10.1.1)",
        ),
        of("`Expect` of something else", "Expect: 200-ok\r\n", "the application's to answer (RFC 9110 §10.1.1)"),
        of("`Max-Forwards`", "Max-Forwards: 0\r\n", ""),
        of("`Range` and conditions", "Range: bytes=0-1\r\nIf-None-Match: \"a\"\r\n", ""),
        of(
            "cookies on two lines",
            "Cookie: a=1\r\nCookie: b=2\r\n",
            "joined, as RFC 9113 §8.2.3 asks behind a hop of HTTP/2",
        ),
        of("the same name twice", "X-A: 1\r\nx-a: 2\r\n", ""),
        of("empty value", "X-A:\r\n", ""),
        of("underscore in a name", "x_a: 1\r\n", "a name like others (RFC 9110 §5.6.2)"),
        of("tilde in a name", "x~a: 1\r\n", "a name like others (RFC 9110 §5.6.2)"),
        of("separator in a name", "x(a: 1\r\n", NAME),
        of("empty name", ": 1\r\n", ""),
        of("no colon", "x-a\r\n", NAME),
        of("space before the colon", "X-A : 1\r\n", ""),
        of("space before the first name", " X-A: 1\r\n", "refused, as RFC 9112 §2.2 has it"),
        of("folded line", "X-A: 1\r\n 2\r\n", FOLDED),
        of("bare line feed", "X-A: 1\nX-B: 2\r\n", LINE_END),
        of(
            "bare carriage return",
            "X-A: 1\rX-B: 2\r\n",
            "a bare carriage return is invalid, and what holds one may be refused (RFC 9112 §2.2)",
        ),
        bytes("bytes beyond ASCII in a value", b"X-A: \xfc\xff", ""),
        bytes("bytes beyond ASCII in a name", b"X-\xfc: 1", NAME),
        bytes("zero byte in a value", b"X-A: a\0b", VALUE),
        bytes("zero byte in a name", b"X-\0: 1", ""),
        bytes("bell in a value", b"X-A: a\x07b", VALUE),
        of("90 fields", &many, ""),
        of("150 fields", &most, "100 fields at most, and 431 says so (RFC 6585 §5)"),
        of("field of 6,000 bytes", &format!("X-A: {}\r\n", "a".repeat(6000)), ""),
        of("field of 20,000 bytes", &format!("X-A: {}\r\n", "a".repeat(20_000)), "heads of up to 64 KiB are taken"),
    ]
}

fn framing() -> Vec<Case> {
    let of = |name, fields: &str, body: &str, why| {
        Case::new(name, format!("POST / HTTP/1.1\r\nHost: cart\r\n{fields}\r\n\r\n{body}"), why)
    };
    vec![
        of("a length and a coding", "Content-Length: 4\r\nTransfer-Encoding: chunked", "0\r\n\r\n", BOTH),
        of("a coding and a length", "Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n", BOTH),
        of(
            "the same length twice",
            "Content-Length: 2\r\nContent-Length: 2",
            "hi",
            "equal lengths may be taken for one (RFC 9110 §8.6)",
        ),
        of("two lengths", "Content-Length: 2\r\nContent-Length: 3", "hi", ""),
        of(
            "a list of one length",
            "Content-Length: 2, 2",
            "hi",
            "a list is no length, even when RFC 9110 §8.6 would allow to mend it",
        ),
        of("a list of lengths", "Content-Length: 2, 3", "hi", ""),
        of("length with a plus", "Content-Length: +2", "hi", ""),
        of("negative length", "Content-Length: -2", "", ""),
        of("hexadecimal length", "Content-Length: 0x2", "hi", ""),
        of("length with zeros before", "Content-Length: 002", "hi", ""),
        of("length with spaces around", "Content-Length:   2  ", "hi", ""),
        of("length with a space within", "Content-Length: 1 2", "hi", ""),
        of("length with a decimal point", "Content-Length: 2.0", "hi", ""),
        of("empty length", "Content-Length:", "", ""),
        of(
            "length beyond 64 bits",
            "Content-Length: 18446744073709551618",
            "hi",
            "cannot be counted, so it is not waited for",
        ),
        of("space before the colon of the length", "Content-Length : 2", "hi", ""),
        of("`chunked, chunked`", "Transfer-Encoding: chunked, chunked", "0\r\n\r\n", CODING),
        of("`chunked` on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n", CODING),
        of("`gzip, chunked`", "Transfer-Encoding: gzip, chunked", "0\r\n\r\n", CODING),
        of("`chunked, gzip`", "Transfer-Encoding: chunked, gzip", "0\r\n\r\n", CODING),
        of("`identity`", "Transfer-Encoding: identity", "", CODING),
        of("`xchunked`", "Transfer-Encoding: xchunked", "0\r\n\r\n", CODING),
        of("`Chunked`", "Transfer-Encoding: Chunked", "2\r\nhi\r\n0\r\n\r\n", ""),
        of("`chunked` behind a vertical tab", "Transfer-Encoding: \u{b}chunked", "0\r\n\r\n", CODING),
        of("`chunked` behind a comma", "Transfer-Encoding: , chunked", "0\r\n\r\n", CODING),
        of("empty coding", "Transfer-Encoding:", "", CODING),
        of("folded coding", "Transfer-Encoding:\r\n chunked", "0\r\n\r\n", FOLDED),
        Case::new(
            "coding in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.0 knows no codings: its framing is faulty (RFC 9112 §6.1)",
        )
        .ends(),
    ]
}

fn chunks() -> Vec<Case> {
    let of = |name, body: &str, why| Case::new(name, chunked("POST", body), why);
    vec![
        of("chunk extensions", "2;a=b;c=\"d\"\r\nhi\r\n0;e\r\n\r\n", ""),
        of("trailers", "2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n", TRAILERS),
        of(
            "trailer that frames",
            "2\r\nhi\r\n0\r\nContent-Length: 9\r\n\r\n",
            "trailers travel (RFC 9110 §6.5), except those that steer",
        ),
        of("size with zeros before", "0002\r\nhi\r\n0\r\n\r\n", ""),
        of(
            "size with forty zeros before",
            &format!("{}2\r\nhi\r\n0\r\n\r\n", "0".repeat(40)),
            "sixteen digits at most: enough for 64 bits",
        ),
        of("size in capitals", "A\r\n0123456789\r\n0\r\n\r\n", ""),
        of("size with a prefix", "0x2\r\nhi\r\n0\r\n\r\n", ""),
        of("size with a sign", "+2\r\nhi\r\n0\r\n\r\n", ""),
        of("size with a space behind", "2 \r\nhi\r\n0\r\n\r\n", CHUNK),
        of("size with a space before", " 2\r\nhi\r\n0\r\n\r\n", ""),
        of("size beyond 64 bits", "10000000000000002\r\nhi\r\n0\r\n\r\n", ""),
        of("no size", "\r\nhi\r\n0\r\n\r\n", ""),
        of("chunk longer than its size", "2\r\nhigh\r\n0\r\n\r\n", CHUNK),
        of("bare line feed behind a size", "2\nhi\r\n0\r\n\r\n", LINE_END),
        of("bare line feed behind a chunk", "2\r\nhi\n0\r\n\r\n", LINE_END),
        of("bare line feed in an extension", "2;a\nb\r\nhi\r\n0\r\n\r\n", ""),
    ]
}

pub fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: cart\r\n{fields}\r\n")
}

fn chunked(method: &str, body: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}
