//! From heads to bytes.

use super::framing::decimal;
use super::{Body, may_trail};
use crate::{Fields, Method, Name, RequestHead, ResponseHead, Version};

/// What becomes of the client's connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persist<'a> {
    /// It goes on.
    Keep,
    /// It is closed.
    Close,
    /// It speaks this protocol from here on.
    Upgrade(&'a [u8]),
}

/// Appends a request's head.
///
/// `Host` is written from [`RequestHead::authority`]; without one, from the first `Host` field. Fields that concern one connection only
/// (RFC 9110 §7.6.1: `Connection`, `Keep-Alive`, `Proxy-Connection`, `Transfer-Encoding`, `Upgrade`) are never written from the list, and
/// `Content-Length` only as `body` says. `upgrade` writes `connection: upgrade` and `upgrade:` with the protocol.
pub fn write_request(head: &RequestHead, body: Body, upgrade: Option<&[u8]>, out: &mut Vec<u8>) {
    out.reserve(head.fields.text_len() + 4 * head.fields.len() + 128);
    let host = head.authority().or_else(|| head.fields.get(Name::Host)).unwrap_or_default();
    out.extend_from_slice(head.method_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(if head.method() == Method::Connect { host } else { head.target() });
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(host);
    out.extend_from_slice(b"\r\n");
    // Without content, a length would announce some: the next request on the connection.
    write_fields(&head.fields, body, false, Name::Host, out);
    if let Some(protocol) = upgrade {
        write_upgrade(protocol, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a response's head.
///
/// `to_version` is what the client spoke: one of HTTP/1.0 is told that its connection is kept. It knows no chunks: the caller gives it
/// [`Body::UntilClose`] and [`Persist::Close`]. Which fields are written from the list: see [`write_request`]; `Content-Length` also stays
/// when [`Body::None`] answers `HEAD` or says `304`, but not with a status that never has content.
pub fn write_response(head: &ResponseHead, body: Body, persist: Persist<'_>, to_version: Version, out: &mut Vec<u8>) {
    out.reserve(head.fields.text_len() + 4 * head.fields.len() + 128);
    out.extend_from_slice(b"HTTP/1.1 ");
    match status_line(head.status) {
        Some(line) => out.extend_from_slice(line),
        None => {
            write_decimal(u64::from(head.status), out);
            out.extend_from_slice(b" \r\n");
        }
    }
    let announced = !matches!(head.status, ..200 | 204);
    write_fields(&head.fields, body, announced, Name::Connection, out);
    match persist {
        Persist::Keep if to_version == Version::Http10 => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Persist::Keep => {}
        Persist::Close => out.extend_from_slice(b"connection: close\r\n"),
        Persist::Upgrade(protocol) => write_upgrade(protocol, out),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the line before a chunk's data. The caller appends the data and CR LF. The length is not 0: that is [`write_end`].
pub fn write_chunk_start(length: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"0000000000000000\r\n";
    let mut start = 16;
    let mut left = length;
    loop {
        start -= 1;
        text[start] = DIGITS[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[start..]);
}

/// Appends the last chunk and the trailers that may be there ([`may_trail`]).
pub fn write_end(trailers: Option<&Fields>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write_lines(out, may_trail_field);
    }
    out.extend_from_slice(b"\r\n");
}

/// Fields and framing. `announced`: a length in the list stays though no content follows.
fn write_fields(fields: &Fields, body: Body, announced: bool, without: Name, out: &mut Vec<u8>) {
    let mut length = match body {
        Body::Length(length) => Some(length),
        _ => None,
    };
    fields.write_lines(out, |known, _, value| match known {
        Name::Connection | Name::KeepAlive | Name::ProxyConnection | Name::TransferEncoding | Name::Upgrade => false,
        Name::ContentLength => match body {
            Body::Length(_) => length.take_if(|length| decimal(value) == Some(*length)).is_some(),
            Body::None => announced,
            Body::Chunked | Body::UntilClose => false,
        },
        known => known != without,
    });
    if let Some(length) = length {
        out.extend_from_slice(b"content-length: ");
        write_decimal(length, out);
        out.extend_from_slice(b"\r\n");
    }
    if body == Body::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
}

fn may_trail_field(known: Name, name: &[u8], _value: &[u8]) -> bool {
    may_trail(known, name)
}

fn write_upgrade(protocol: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
    out.extend_from_slice(protocol);
    out.extend_from_slice(b"\r\n");
}

fn write_decimal(number: u64, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let mut start = text.len();
    let mut left = number;
    loop {
        start -= 1;
        text[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[start..]);
}

/// Number and reason of the statuses that are registered (RFC 9110 §15, IANA), with the line's end.
fn status_line(status: u16) -> Option<&'static [u8]> {
    macro_rules! lines {
        ($($status:literal $reason:literal)*) => {
            match status {
                $($status => Some(concat!($status, " ", $reason, "\r\n").as_bytes()),)*
                _ => None,
            }
        };
    }
    lines! {
        100 "Continue"
        101 "Switching Protocols"
        103 "Early Hints"
        200 "OK"
        201 "Created"
        202 "Accepted"
        203 "Non-Authoritative Information"
        204 "No Content"
        205 "Reset Content"
        206 "Partial Content"
        207 "Multi-Status"
        300 "Multiple Choices"
        301 "Moved Permanently"
        302 "Found"
        303 "See Other"
        304 "Not Modified"
        307 "Temporary Redirect"
        308 "Permanent Redirect"
        400 "Bad Request"
        401 "Unauthorized"
        402 "Payment Required"
        403 "Forbidden"
        404 "Not Found"
        405 "Method Not Allowed"
        406 "Not Acceptable"
        407 "Proxy Authentication Required"
        408 "Request Timeout"
        409 "Conflict"
        410 "Gone"
        411 "Length Required"
        412 "Precondition Failed"
        413 "Content Too Large"
        414 "URI Too Long"
        415 "Unsupported Media Type"
        416 "Range Not Satisfiable"
        417 "Expectation Failed"
        421 "Misdirected Request"
        422 "Unprocessable Content"
        425 "Too Early"
        426 "Upgrade Required"
        428 "Precondition Required"
        429 "Too Many Requests"
        431 "Request Header Fields Too Large"
        451 "Unavailable For Legal Reasons"
        500 "Internal Server Error"
        501 "Not Implemented"
        502 "Bad Gateway"
        503 "Service Unavailable"
        504 "Gateway Timeout"
        505 "HTTP Version Not Supported"
        511 "Network Authentication Required"
    }
}
