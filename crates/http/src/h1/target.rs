//! A request's target (RFC 9112 §3.2).

use super::Fault;
use crate::fields::Span;
use crate::{Method, RequestHead, Scheme};

/// Sets target, authority and scheme from the target in the request line, whose method is set.
pub(super) fn set(head: &mut RequestHead, at: Span) -> Result<(), Fault> {
    let text = head.fields.bytes(at);
    let method = head.method();
    // The tokenizer has seen to it that nothing below `!` and no DEL is in it.
    match text {
        _ if method == Method::Connect => {
            if !is_authority(text) || !has_port(text) {
                return Err(Fault::Target);
            }
            head.adopt_authority(at);
        }
        [b'/', ..] => {
            let query = query_at(text).ok_or(Fault::Target)?;
            head.adopt_target(at, query);
        }
        b"*" if method == Method::Options => head.adopt_target(at, 1),
        _ => return absolute(head, at),
    }
    Ok(())
}

/// `http://host:port/path?query` (RFC 9112 §3.2.2).
fn absolute(head: &mut RequestHead, at: Span) -> Result<(), Fault> {
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
    let query = query_at(target).ok_or(Fault::Target)?;
    let target_at = at.part(end, target.len());
    match target.first() {
        Some(b'/') => head.adopt_target(target_at, query),
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

/// Where the query begins, or the length; `None` for what no target may hold.
fn query_at(target: &[u8]) -> Option<usize> {
    if !target.is_ascii() || target.contains(&b'#') {
        return None;
    }
    Some(target.iter().position(|byte| *byte == b'?').unwrap_or(target.len()))
}

/// Host and perhaps a port, without user information (RFC 3986 §3.2, RFC 9110 §4.2.4). The host may be empty.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', ..] => {
            let Some(end) = text.iter().position(|byte| *byte == b']') else { return false };
            if !text[1..end].iter().all(|byte| IN_HOST[usize::from(*byte)] || *byte == b':') || end == 1 {
                return false;
            }
            (&b""[..], &text[end + 1..])
        }
        _ => text.split_at(text.iter().position(|byte| *byte == b':').unwrap_or(text.len())),
    };
    host.iter().all(|byte| IN_HOST[usize::from(*byte)])
        && match port {
            [] => true,
            [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

/// Whether a well-formed authority names both host and port.
fn has_port(authority: &[u8]) -> bool {
    let digits = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && authority.len() > digits + 1 && authority[authority.len() - digits - 1] == b':'
}

/// RFC 3986 §3.2.2, `reg-name`: unreserved, sub-delims, and `%`.
static IN_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(
            byte as u8,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        ) || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};
