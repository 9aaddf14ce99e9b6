//! Heads of requests and responses.

use crate::fields::{Fields, Span};
use crate::name::Name;

/// The version of HTTP that a head came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0 (RFC 1945).
    Http10,
    /// HTTP/1.1 (RFC 9112).
    #[default]
    Http11,
    /// HTTP/2 (RFC 9113).
    Http2,
}

/// A target's scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// `http`; also when the target does not say.
    #[default]
    Http,
    /// `https`.
    Https,
}

/// A request's method. Methods are case-sensitive (RFC 9110 §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the standard's own names")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other; see [`RequestHead::method_str`].
    Other,
}

/// A request's head. The buffer of its fields holds its target as well.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    /// The header section.
    pub fields: Fields,
    /// The version that it came in.
    pub version: Version,
    /// The target's scheme.
    pub scheme: Scheme,
    method: Method,
    other_method: Span,
    authority: Option<Span>,
    target: Span,
    /// Where in the target `?` is; its length when there is none.
    query_at: u32,
    protocol: Option<Span>,
}

/// A response's head.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    /// The header section.
    pub fields: Fields,
    /// The version that it came in.
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
}

impl Method {
    /// Which method this is.
    pub fn of(text: &[u8]) -> Self {
        match text {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }

    /// As it is written; empty for [`Method::Other`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Connect => "CONNECT",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
            Method::Other => "",
        }
    }

    /// Whether doing it twice is like doing it once (RFC 9110 §9.2.2). An unknown method is not taken to be.
    pub const fn is_idempotent(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Put | Method::Delete | Method::Options | Method::Trace)
    }
}

impl RequestHead {
    /// Empty, with the room of a head that is gone.
    pub fn roomy() -> Self {
        Self { fields: Fields::roomy(), ..Self::default() }
    }

    /// Forgets everything and keeps the room.
    pub fn clear(&mut self) {
        let Self { fields, version, scheme, method, other_method, authority, target, query_at, protocol } = self;
        fields.clear();
        (*version, *scheme, *method) = Default::default();
        (*other_method, *authority, *target, *query_at, *protocol) = Default::default();
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as it was written.
    pub fn method_str(&self) -> &str {
        match self.method {
            // Tokens are ASCII.
            Method::Other => std::str::from_utf8(self.fields.bytes(self.other_method)).unwrap_or_default(),
            known => known.as_str(),
        }
    }

    /// Sets the method, which is a token.
    pub fn set_method(&mut self, text: &[u8]) {
        self.method = Method::of(text);
        if self.method == Method::Other {
            self.other_method = self.fields.keep(text);
        }
    }

    /// Host and port as the target or, after [`Self::take_host`], the `Host` field names them.
    pub fn authority(&self) -> Option<&[u8]> {
        self.authority.map(|span| self.fields.bytes(span))
    }

    /// Names another authority.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = Some(self.fields.keep(authority));
    }

    /// Makes the target's authority, or when it has none the first `Host` field, the one authority, and removes all `Host` fields
    /// (RFC 9112 §3.2.2: the target wins). How many `Host` fields there were.
    pub fn take_host(&mut self) -> usize {
        let hosts = self.fields.all(Name::Host).count();
        if hosts > 0 {
            if self.authority.is_none() {
                self.authority = self.fields.span(Name::Host);
            }
            self.fields.remove(Name::Host);
        }
        hosts
    }

    /// Makes a `Host` field that was set since [`Self::take_host`] the authority.
    pub fn adopt_host(&mut self) {
        if let Some(host) = self.fields.span(Name::Host) {
            self.authority = Some(host);
            self.fields.remove(Name::Host);
        }
    }

    /// Path and query: what stands in an HTTP/1.1 request line in origin form, or in `:path`. `*` for a request on the server as a
    /// whole, empty for `CONNECT`.
    pub fn target(&self) -> &[u8] {
        self.fields.bytes(self.target)
    }

    /// The target up to `?`.
    pub fn path(&self) -> &str {
        self.text(self.target.part(0, self.query_at as usize))
    }

    /// What follows `?`, without it.
    pub fn query(&self) -> Option<&str> {
        let at = self.query_at as usize;
        (at < self.target.len()).then(|| self.text(self.target.part(at + 1, self.target.len() - at - 1)))
    }

    /// Sets path and query. The caller has checked that it is visible ASCII without `#`.
    pub fn set_target(&mut self, target: &[u8]) {
        self.target = self.fields.keep(target);
        self.query_at = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len()) as u32;
    }

    /// Sets path and query to a part of the text that the fields adopted, checked like [`Self::set_target`] wants it; where in it the
    /// first `?` is, or its length.
    pub(crate) fn adopt_target(&mut self, target: Span, query_at: usize) {
        self.target = target;
        self.query_at = query_at as u32;
    }

    /// Sets the authority to a part of the text that the fields adopted.
    pub(crate) fn adopt_authority(&mut self, authority: Span) {
        self.authority = Some(authority);
    }

    /// Sets the method to a part of the text that the fields adopted.
    pub(crate) fn adopt_method(&mut self, method: Span) {
        self.method = Method::of(self.fields.bytes(method));
        self.other_method = method;
    }

    /// Changes the path and keeps the query.
    pub fn set_path(&mut self, path: &str) {
        let mut target = path.as_bytes().to_vec();
        target.extend_from_slice(&self.target()[self.query_at as usize..]);
        self.set_target(&target);
    }

    /// `:protocol` of an extended `CONNECT` (RFC 8441).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.protocol.map(|span| self.fields.bytes(span))
    }

    /// Sets `:protocol`.
    pub fn set_protocol(&mut self, protocol: &[u8]) {
        self.protocol = Some(self.fields.keep(protocol));
    }

    /// A copy whose fields use the room of `room`.
    pub(crate) fn copy_into(&self, room: Fields) -> Self {
        Self { fields: self.fields.copy_into(room), ..*self }
    }

    /// Whether all is the same and lies at the same places.
    pub(crate) fn is_identical(&self, other: &Self) -> bool {
        let places = |head: &Self| (head.other_method, head.authority, head.target, head.protocol);
        (self.method, self.scheme) == (other.method, other.scheme)
            && places(self) == places(other)
            && self.fields.is_identical(&other.fields)
    }

    /// Targets are held as checked ASCII.
    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.fields.bytes(span)).unwrap_or_default()
    }
}

impl ResponseHead {
    /// A head with this status and no fields.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Empty, with the room of a head that is gone.
    pub fn roomy() -> Self {
        Self { fields: Fields::roomy(), ..Self::default() }
    }

    /// Forgets everything and keeps the room.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.version = Version::default();
        self.status = 0;
    }

    /// Whether another head follows (RFC 9110 §15.2); `101` is the last head of its kind and is not.
    pub fn is_informational(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_path_and_query() {
        let mut head = RequestHead::default();
        head.set_target(b"/a/b?x=1?2");
        assert_eq!((head.path(), head.query()), ("/a/b", Some("x=1?2")));
        head.set_path("/c");
        assert_eq!(head.target(), b"/c?x=1?2");
        head.set_target(b"/d");
        assert_eq!((head.path(), head.query()), ("/d", None));
        head.set_target(b"/e?");
        assert_eq!(head.query(), Some(""));
    }

    #[test]
    fn the_targets_authority_wins_over_host() {
        let mut head = RequestHead::default();
        head.fields.push(Name::Host, b"a");
        head.fields.push(Name::Host, b"b");
        assert_eq!((head.take_host(), head.authority()), (2, Some(&b"a"[..])));
        let mut head = RequestHead::default();
        head.fields.push(Name::Host, b"a");
        head.set_authority(b"c");
        assert_eq!((head.take_host(), head.authority(), head.fields.has(Name::Host)), (1, Some(&b"c"[..]), false));
    }

    #[test]
    fn methods_are_case_sensitive() {
        let mut head = RequestHead::default();
        head.set_method(b"get");
        assert_eq!((head.method(), head.method_str()), (Method::Other, "get"));
        head.set_method(b"PUT");
        assert!(head.method().is_idempotent());
        assert_eq!(head.method_str(), "PUT");
    }
}
