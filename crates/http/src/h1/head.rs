//! From bytes to heads.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::framing::Framing;
use super::{Body, Fault, Limits, MAX_FIELDS, Parsed, target};
use crate::fields::{Fields, Span};
use crate::{Method, RequestHead, ResponseHead, Version};

type Slots<'b> = [MaybeUninit<Header<'b>>; MAX_FIELDS];

/// Reads a request's head, which may have empty lines before it (RFC 9112 §2.2). `None`: it is not whole yet.
///
/// What `head` held before is gone when a head was read, and untouched when it is not whole. The `Host` fields stay in the list; there is
/// at most one.
///
/// # Errors
/// The bytes cannot become a head that may be passed on.
pub fn request(bytes: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Option<Parsed>, Fault> {
    let within = &bytes[..bytes.len().min(limits.head)];
    let Some(start) = skip_empty_lines(within)? else { return unfinished(within, limits, Fault::HeadTooLarge) };
    let text = &within[start..];
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut line = httparse::Request::new(&mut []);
    let length = match line.parse_with_uninit_headers(text, &mut slots[..limits.fields.min(MAX_FIELDS)]) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => {
            let in_line = !text.contains(&b'\n');
            return unfinished(within, limits, if in_line { Fault::TargetTooLong } else { Fault::HeadTooLarge });
        }
        Err(error) => return Err(request_fault(error, text)),
    };
    let text = &text[..length];
    let (Some(method), Some(target), Some(minor)) = (line.method, line.path, line.version) else {
        return Err(Fault::StartLine);
    };
    lines_end_well(text, line.headers)?;

    head.clear();
    head.version = version(minor);
    head.fields.adopt(text, line.headers.len());
    head.adopt_method(span(text, method.as_bytes()));
    let target = span(text, target.as_bytes());
    target::set(head, target)?;
    let framing = read_fields(&mut head.fields, text, line.headers)?;
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
/// What `head` held before is gone when a head was read, and untouched when it is not whole. Fields that must be ignored are removed:
/// `Content-Length` next to `Transfer-Encoding` (and the connection is then not to be used again, RFC 9112 §6.3), and both in a successful
/// response to `CONNECT`.
///
/// # Errors
/// The bytes cannot become a head that may be passed on.
pub fn response(bytes: &[u8], to: Method, limits: &Limits, head: &mut ResponseHead) -> Result<Option<Parsed>, Fault> {
    let within = &bytes[..bytes.len().min(limits.head)];
    if let Some(b'\r' | b'\n') = within.first() {
        return Err(Fault::StartLine);
    }
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut line = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let fields = &mut slots[..limits.fields.min(MAX_FIELDS)];
    let length = match config.parse_response_with_uninit_headers(&mut line, within, fields) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return unfinished(within, limits, Fault::HeadTooLarge),
        Err(error) => return Err(fault(error)),
    };
    let text = &within[..length];
    let (Some(status), Some(minor)) = (line.code, line.version) else { return Err(Fault::StartLine) };
    if status < 100 {
        return Err(Fault::StartLine);
    }
    lines_end_well(text, line.headers)?;

    head.clear();
    head.version = version(minor);
    head.status = status;
    head.fields.adopt(text, line.headers.len());
    let framing = read_fields(&mut head.fields, text, line.headers)?;
    let (body, clean) = framing.of_response(head, to)?;
    Ok(Some(Parsed {
        consumed: length,
        body,
        keep_alive: clean && framing.keep_alive(head.version) && body != Body::UntilClose,
        expect_continue: false,
        upgrade: framing.upgrade() && head.version == Version::Http11,
    }))
}

/// Reads a section of fields with the empty line at its end, as trailers are: its length. `None`: it is not whole yet.
pub(super) fn section(bytes: &[u8], limits: &Limits, fields: &mut Fields) -> Result<Option<usize>, Fault> {
    let within = &bytes[..bytes.len().min(limits.head)];
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let (length, headers) = match httparse::parse_headers(within, &mut slots[..limits.fields.min(MAX_FIELDS)]) {
        Ok(Status::Complete(found)) => found,
        Ok(Status::Partial) if within.len() < limits.head => return Ok(None),
        Ok(Status::Partial) => return Err(Fault::HeadTooLarge),
        Err(error) => return Err(fault(error)),
    };
    let text = &within[..length];
    lines_end_well(text, headers)?;
    fields.clear();
    fields.adopt(text, headers.len());
    for header in headers {
        let name = span(text, header.name.as_bytes());
        let known = fields.recognise(name);
        fields.push_line(known, name, span(text, header.value));
    }
    Ok(Some(length))
}

fn read_fields(fields: &mut Fields, text: &[u8], headers: &[Header<'_>]) -> Result<Framing, Fault> {
    let mut framing = Framing::default();
    for header in headers {
        let name = span(text, header.name.as_bytes());
        let known = fields.recognise(name);
        if framing.note(known, header.value)? {
            fields.push_line(known, name, span(text, header.value));
        }
    }
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

/// The tokenizer takes a bare LF for a line's end. Every line but the last two ends where a field's name begins.
fn lines_end_well(text: &[u8], headers: &[Header<'_>]) -> Result<(), Fault> {
    let base = text.as_ptr() as usize;
    let mut well = text.ends_with(b"\r\n\r\n");
    for header in headers {
        let at = header.name.as_ptr() as usize - base;
        well &= at == 0 || text[..at].ends_with(b"\r\n");
    }
    if well { Ok(()) } else { Err(Fault::LineEnd) }
}

/// Where in the text a part of it is.
fn span(text: &[u8], part: &[u8]) -> Span {
    Span::new(part.as_ptr() as usize - text.as_ptr() as usize, part.len())
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::Http10 } else { Version::Http11 }
}

fn fault(error: httparse::Error) -> Fault {
    match error {
        httparse::Error::HeaderName => Fault::FieldName,
        httparse::Error::HeaderValue => Fault::FieldValue,
        httparse::Error::NewLine => Fault::LineEnd,
        httparse::Error::Status => Fault::StartLine,
        httparse::Error::Token => Fault::StartLine,
        httparse::Error::TooManyHeaders => Fault::TooManyFields,
        httparse::Error::Version => Fault::Version,
    }
}

/// The tokenizer calls all that is not HTTP/1.0 or HTTP/1.1 a version; only what is one of HTTP is to be answered as such.
fn request_fault(error: httparse::Error, text: &[u8]) -> Fault {
    if error != httparse::Error::Version {
        return fault(error);
    }
    match text.splitn(3, |byte| *byte == b' ').nth(2) {
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', ..]) => Fault::Version,
        _ => Fault::StartLine,
    }
}
