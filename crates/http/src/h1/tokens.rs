//! Finds the parts of start lines and field lines. Strict: what is no part and no CR LF ends it.
//!
//! All functions take the bytes and a place in them; `None` says that the bytes end too early to tell.

use super::Fault;
use crate::fields::Span;
use crate::scan::{control, lines, target_end, token_end};
use crate::{Fields, Version};

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

/// Reads field lines up to the empty one (RFC 9112 §5), and says where the section ends. The lines are those that [`split`] parts.
#[inline]
pub(super) fn fields(bytes: &[u8], start: usize, most: usize, list: &mut Fields) -> Result<Option<usize>, Fault> {
    let mut expect = |from, to| list.expect(Span::new(from, to - from));
    if let Some(end) = lines(bytes, start, most, &mut expect) {
        return Ok(Some(end));
    }
    list.clear();
    fields_one_by_one(bytes, start, most, list)
}

/// Name and value of a field line; `None` when it is none.
#[inline(always)]
pub(super) fn split(bytes: &[u8], line: Span) -> Option<(Span, Span)> {
    let (name, end) = (line.start(), line.start() + line.len());
    let colon = token_end(bytes, name);
    if colon == name || bytes.get(colon) != Some(&b':') {
        return None;
    }
    let value = match bytes.get(colon + 1..) {
        Some([b' ', next, ..]) if *next > b' ' => colon + 2,
        _ => spaces_end(bytes, colon + 1),
    };
    let value_end = if bytes.get(end - 1).is_some_and(|last| *last > b' ') { end } else { trimmed(bytes, value, end) };
    Some((Span::new(name, colon - name), Span::new(value, value_end - value)))
}

/// The same as [`fields`] for sections that are not whole, or that have something about them: says what.
#[cold]
fn fields_one_by_one(bytes: &[u8], start: usize, most: usize, list: &mut Fields) -> Result<Option<usize>, Fault> {
    let mut at = start;
    loop {
        let colon = token_end(bytes, at);
        match bytes[at..] {
            [b'\r', b'\n', ..] => return Ok(Some(at + 2)),
            [] | [b'\r'] => return Ok(None),
            [b'\r' | b'\n', ..] => return Err(Fault::LineEnd),
            _ if colon == bytes.len() => return Ok(None),
            _ if colon == at || bytes[colon] != b':' => return Err(Fault::FieldName),
            _ => {}
        }
        let Some(end) = line_end(bytes, colon)? else { return Ok(None) };
        if list.len() == most {
            return Err(Fault::TooManyFields);
        }
        list.expect(Span::new(at, end - at));
        at = end + 2;
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
fn line_end(bytes: &[u8], start: usize) -> Result<Option<usize>, Fault> {
    let mut at = control(bytes, start);
    loop {
        match bytes[at..] {
            [b'\r', b'\n', ..] => return Ok(Some(at)),
            [b'\t', ..] => at = control(bytes, at + 1),
            [] | [b'\r'] => return Ok(None),
            [b'\n', ..] => return Err(Fault::LineEnd),
            _ => return Err(Fault::FieldValue),
        }
    }
}

/// `HTTP/1.0` or `HTTP/1.1`, or a later minor version, and what must follow it, and the length of both.
#[inline(always)]
fn version(bytes: &[u8], then: &[u8]) -> Result<Option<(Version, usize)>, Fault> {
    let known = match bytes.first_chunk() {
        Some(b"HTTP/1.1") => Version::Http11,
        Some(b"HTTP/1.0") => Version::Http10,
        // RFC 9110 §2.5: what a later minor version says is understood as the highest that is known.
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']) => Version::Http11,
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
