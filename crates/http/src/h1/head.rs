//! From bytes to heads.

use super::framing::Framing;
use super::{Body, Fault, Limits, Parsed, target, tokens};
use crate::{Fields, Method, RequestHead, ResponseHead, Version};

/// Reads a request's head, which may have empty lines before it (RFC 9112 §2.2). `None`: it is not whole yet.
///
/// What `head` held before is gone; it is of use only when a head was read. The `Host` field stays in the list, there is at most one.
///
/// # Errors
/// The bytes cannot become a head that may be passed on.
pub fn request(bytes: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Option<Parsed>, Fault> {
    let within = &bytes[..bytes.len().min(limits.head)];
    let Some(start) = skip_empty_lines(within)? else { return unfinished(within, limits, Fault::HeadTooLarge) };
    let text = &within[start..];
    let Some(line) = tokens::request_line(text)? else { return unfinished(within, limits, Fault::TargetTooLong) };
    head.clear();
    let Some(length) = tokens::fields(text, line.end, limits.fields, &mut head.fields)? else {
        return unfinished(within, limits, Fault::HeadTooLarge);
    };
    let framing = adopt(&mut head.fields, &text[..length])?;
    head.version = line.version;
    head.adopt_method(line.method);
    target::set(head, line.target, line.query)?;
    let body = framing.of_request(head.version, head.method())?;
    let current = head.version == Version::Http11;
    Ok(Some(Parsed {
        consumed: start + length,
        body,
        keep_alive: framing.keep_alive(head.version),
        expect_continue: framing.expect && current && !body.is_empty(),
        upgrade: framing.upgrade() && current,
    }))
}

/// Reads a response's head. `to` is the method of the request that it answers: a response to `HEAD` has no content, and what follows a
/// successful response to `CONNECT` is no HTTP. `None`: it is not whole yet.
///
/// What `head` held before is gone; it is of use only when a head was read. Fields that must be ignored are removed: `Content-Length`
/// next to `Transfer-Encoding` (and the connection is then not to be used again, RFC 9112 §6.3), and both in a successful response to
/// `CONNECT`.
///
/// # Errors
/// The bytes cannot become a head that may be passed on.
pub fn response(bytes: &[u8], to: Method, limits: &Limits, head: &mut ResponseHead) -> Result<Option<Parsed>, Fault> {
    let within = &bytes[..bytes.len().min(limits.head)];
    let Some((version, status, start)) = tokens::status_line(within)? else {
        return unfinished(within, limits, Fault::HeadTooLarge);
    };
    head.clear();
    let Some(length) = tokens::fields(within, start, limits.fields, &mut head.fields)? else {
        return unfinished(within, limits, Fault::HeadTooLarge);
    };
    let framing = adopt(&mut head.fields, &within[..length])?;
    head.version = version;
    head.status = status;
    let (body, clean) = framing.of_response(head, to)?;
    Ok(Some(Parsed {
        consumed: length,
        body,
        keep_alive: clean && framing.keep_alive(version) && body != Body::UntilClose,
        expect_continue: false,
        upgrade: framing.upgrade() && version == Version::Http11,
    }))
}

/// Reads a section of fields with the empty line at its end, as trailers are, and keeps those that `keep` wants: the section's length.
/// `None`: it is not whole yet.
pub(super) fn section(
    bytes: &[u8],
    limits: &Limits,
    keep: impl Fn(crate::Name, &[u8]) -> bool,
) -> Result<Option<(Fields, usize)>, Fault> {
    let within = &bytes[..bytes.len().min(limits.head)];
    let mut fields = Fields::new();
    let Some(length) = tokens::fields(within, 0, limits.fields, &mut fields)? else {
        return if within.len() < limits.head { Ok(None) } else { Err(Fault::HeadTooLarge) };
    };
    fields.adopt(&within[..length], tokens::split, |known, name, _| keep(known, name)).ok_or(Fault::FieldName)?;
    Ok(Some((fields, length)))
}

/// Fills the list from the text of a head whose lines are in it, and looks at all fields on the way.
#[inline(always)]
#[allow(clippy::redundant_closure, reason = "the closure is inlined, a path to the function is not")]
fn adopt(fields: &mut Fields, text: &[u8]) -> Result<Framing, Fault> {
    let mut framing = Framing::default();
    fields
        .adopt(text, |text, line| tokens::split(text, line), |known, _, value| framing.note(known, value))
        .ok_or(Fault::FieldName)?;
    Ok(framing)
}

/// Where the head starts; `None` when only empty lines are there.
fn skip_empty_lines(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let mut start = 0;
    loop {
        match bytes[start..] {
            [b'\r', b'\n', ..] => start += 2,
            [] | [b'\r'] => return Ok(None),
            [b'\r' | b'\n', ..] => return Err(Fault::StartLine),
            _ => return Ok(Some(start)),
        }
    }
}

fn unfinished(within: &[u8], limits: &Limits, too_long: Fault) -> Result<Option<Parsed>, Fault> {
    if within.len() < limits.head { Ok(None) } else { Err(too_long) }
}
