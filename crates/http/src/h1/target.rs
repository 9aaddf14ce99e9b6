//! A request's target (RFC 9112 §3.2).

use super::Fault;
use crate::fields::Span;
use crate::scan::{host_end, is_host};
use crate::{Method, RequestHead, Scheme};

/// Sets target, authority and scheme from the target in the request line, which is visible ASCII without `#`; `query_at` is where in it
/// the first `?` is, or its length. The method is set.
pub(super) fn set(head: &mut RequestHead, at: Span, query_at: usize) -> Result<(), Fault> {
    let text = head.fields.bytes(at);
    let method = head.method();
    match text {
        _ if method == Method::Connect => {
            if !is_authority(text) || !has_port(text) {
                return Err(Fault::Target);
            }
            head.adopt_authority(at);
        }
        [b'/', ..] => head.adopt_target(at, query_at),
        b"*" if method == Method::Options => head.adopt_target(at, 1),
        _ => return absolute(head, at, query_at),
    }
    Ok(())
}

/// `http://host:port/path?query` (RFC 9112 §3.2.2).
fn absolute(head: &mut RequestHead, at: Span, query_at: usize) -> Result<(), Fault> {
    let text = head.fields.bytes(at);
    let (scheme, start) = match text {
        _ if has_scheme(text, b"http://") => (Scheme::Http, 7),
        _ if has_scheme(text, b"https://") => (Scheme::Https, 8),
        _ => return Err(Fault::Target),
    };
    let end = text[start..].iter().position(|byte| matches!(byte, b'/' | b'?')).map_or(text.len(), |end| start + end);
    let (authority, target) = (&text[start..end], &text[end..]);
    if authority.is_empty() || authority.starts_with(b":") || !is_authority(authority) {
        return Err(Fault::Target);
    }
    let target_at = at.part(end, target.len());
    match target.first() {
        Some(b'/') => head.adopt_target(target_at, query_at - end),
        // RFC 9112 §3.2.4: a proxy sends `*` on.
        None if head.method() == Method::Options => head.set_target(b"*"),
        _ => {
            let target = [b"/", target].concat();
            head.set_target(&target);
        }
    }
    head.scheme = scheme;
    head.adopt_authority(at.part(start, end - start));
    Ok(())
}

fn has_scheme(text: &[u8], scheme: &[u8]) -> bool {
    text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// Host and perhaps a port, without user information (RFC 3986 §3.2, RFC 9110 §4.2.4). The host may be empty.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let end = match text {
        [b'[', ..] => match text.iter().position(|byte| *byte == b']') {
            Some(end) if end > 1 && text[1..end].iter().all(|byte| is_host(*byte) || *byte == b':') => end + 1,
            _ => return false,
        },
        _ => host_end(text, 0),
    };
    match &text[end..] {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Whether a well-formed authority names both host and port.
pub(crate) fn has_port(authority: &[u8]) -> bool {
    let digits = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && authority.len() > digits + 1 && authority[authority.len() - digits - 1] == b':'
}
