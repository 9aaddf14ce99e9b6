//! Finds the parts of start lines and field lines. Strict: what is no part and no CR LF ends it.
//!
//! All functions take the bytes and a place in them; `None` says that the bytes end too early to tell.

use super::Fault;
use crate::Version;
use crate::fields::Span;
use crate::scan::{control, target_end, token_end};

/// A request line: `method SP target SP version CR LF` (RFC 9112 §3).
pub(super) struct RequestLine {
    pub(super) method: Span,
    /// Visible ASCII without `#`.
    pub(super) target: Span,
    /// Where in the target the first `?` is, or its length.
    pub(super) query: usize,
    pub(super) version: Version,
    /// Where the fields begin.
    pub(super) end: usize,
}

/// Reads a request line.
pub(super) fn request_line(bytes: &[u8]) -> Result<Option<RequestLine>, Fault> {
    let method = token_end(bytes, 0);
    match bytes.get(method) {
        None => return Ok(None),
        Some(b' ') if method > 0 => {}
        Some(_) => return Err(Fault::StartLine),
    }
    let start = method + 1;
    let query = target_end(bytes, start, b'?');
    let end = if bytes.get(query) == Some(&b'?') { target_end(bytes, query + 1, b'#') } else { query };
    match bytes.get(end) {
        None => return Ok(None),
        Some(b' ') if end > start => {}
        Some(b'#' | 0x80..) => return Err(Fault::Target),
        Some(_) => return Err(Fault::StartLine),
    }
    let Some((version, length)) = version(&bytes[end + 1..], b"\r\n")? else { return Ok(None) };
    Ok(Some(RequestLine {
        method: Span::new(0, method),
        target: Span::new(start, end - start),
        query: query - start,
        version,
        end: end + 1 + length,
    }))
}

/// Reads a status line, `version SP status [SP reason] CR LF` (RFC 9112 §4): version, status and where the fields begin.
pub(super) fn status_line(bytes: &[u8]) -> Result<Option<(Version, u16, usize)>, Fault> {
    let Some((version, start)) = version(bytes, b" ")? else { return Ok(None) };
    let mut status = 0;
    for at in start..start + 3 {
        match bytes.get(at) {
            None => return Ok(None),
            Some(digit @ b'0'..=b'9') if at > start || *digit > b'0' => status = status * 10 + u16::from(digit - b'0'),
            Some(_) => return Err(Fault::StartLine),
        }
    }
    let reason = match bytes.get(start + 3) {
        None => return Ok(None),
        Some(b' ') => start + 4,
        Some(b'\r') => start + 3,
        Some(b'\n') => return Err(Fault::LineEnd),
        Some(_) => return Err(Fault::StartLine),
    };
    match line_end(bytes, reason) {
        Ok(end) => Ok(end.map(|end| (version, status, end + 2))),
        Err(Fault::FieldValue) => Err(Fault::StartLine),
        Err(fault) => Err(fault),
    }
}

/// Reads field lines up to the empty one (RFC 9112 §5), and says where the section ends. `field` is told where names and values are, and
/// whether there is just `: ` between them and nothing behind them.
pub(super) fn fields(
    bytes: &[u8],
    start: usize,
    most: usize,
    mut field: impl FnMut(Span, Span, bool),
) -> Result<Option<usize>, Fault> {
    let mut at = start;
    let mut count = 0;
    loop {
        let name = at;
        at = token_end(bytes, at);
        if at == name || bytes.get(at) != Some(&b':') {
            return no_field(&bytes[name..], at - name).map(|end| end.map(|end| name + end));
        }
        let value = match bytes[at + 1..] {
            [b' ', next, ..] if next > b' ' => at + 2,
            _ => spaces_end(bytes, at + 1),
        };
        let Some(line) = line_end(bytes, value)? else { return Ok(None) };
        let end = if bytes[line - 1] > b' ' { line } else { trimmed(bytes, value, line) };
        if count == most {
            return Err(Fault::TooManyFields);
        }
        count += 1;
        let tight = value == at + 2 && end == line;
        field(Span::new(name, at - name), Span::new(value, end - value), tight);
        at = line + 2;
    }
}

/// What stands at the start of a line instead of a name and a colon: the end of the section, or a fault. `token` bytes are a token.
fn no_field(line: &[u8], token: usize) -> Result<Option<usize>, Fault> {
    match line {
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [] | [b'\r'] => Ok(None),
        [b'\r' | b'\n', ..] => Err(Fault::LineEnd),
        _ if token == line.len() => Ok(None),
        _ => Err(Fault::FieldName),
    }
}

#[cold]
fn spaces_end(bytes: &[u8], start: usize) -> usize {
    start + bytes[start..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

#[cold]
fn trimmed(bytes: &[u8], start: usize, end: usize) -> usize {
    end - bytes[start..end].iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// The place of the CR LF that ends a line of text.
#[inline(always)]
fn line_end(bytes: &[u8], start: usize) -> Result<Option<usize>, Fault> {
    let at = control(bytes, start);
    match bytes[at..] {
        [b'\r', b'\n', ..] => Ok(Some(at)),
        _ => line_end_behind(bytes, at),
    }
}

/// The same from a control character on that is no such end.
#[cold]
fn line_end_behind(bytes: &[u8], start: usize) -> Result<Option<usize>, Fault> {
    let mut at = start;
    loop {
        match bytes[at..] {
            [b'\t', ..] => at = control(bytes, at + 1),
            [b'\r', b'\n', ..] => return Ok(Some(at)),
            [] | [b'\r'] => return Ok(None),
            [b'\n', ..] => return Err(Fault::LineEnd),
            _ => return Err(Fault::FieldValue),
        }
    }
}

/// `HTTP/1.0` or `HTTP/1.1` and what must follow it, and the length of both.
#[inline]
fn version(bytes: &[u8], then: &[u8]) -> Result<Option<(Version, usize)>, Fault> {
    let known = match bytes.first_chunk() {
        Some(b"HTTP/1.1") => Version::Http11,
        Some(b"HTTP/1.0") => Version::Http10,
        Some(_) => return Err(no_version(bytes)),
        None if b"HTTP/1.".starts_with(&bytes[..bytes.len().min(7)]) => return Ok(None),
        None => return Err(no_version(bytes)),
    };
    let rest = &bytes[8..];
    if rest.starts_with(then) {
        Ok(Some((known, 8 + then.len())))
    } else if then.starts_with(rest) {
        Ok(None)
    } else {
        Err(if then == b" " { Fault::StartLine } else { Fault::LineEnd })
    }
}

/// Another version of HTTP is to be answered as such; other text is not.
#[cold]
fn no_version(bytes: &[u8]) -> Fault {
    match bytes {
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', ..] => Fault::Version,
        _ => Fault::StartLine,
    }
}
