//! Content in chunks (RFC 9112 §7.1).

use bytes::{Buf, Bytes, BytesMut};

use super::{Fault, Limits, head};
use crate::{Fields, Name};

/// Bytes of one chunk's extension.
const MAX_EXTENSION: usize = 4096;
/// Bytes of extensions that a body may have beyond one for each byte of content.
const FREE_EXTENSIONS: u64 = 16384;
/// Digits of a chunk's size: what 64 bits hold.
const MAX_DIGITS: usize = 16;

/// Takes chunks apart. One for each body.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Bytes of extensions beyond those that content has paid for.
    extensions: u64,
}

/// What was found next.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// Content, never empty.
    Data(Bytes),
    /// The content's end, with the trailers that may be there, if any ([`may_trail`]). Nothing that follows belongs to the body.
    End(Option<Fields>),
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Size,
    /// So many bytes of the chunk are to come.
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

impl Chunked {
    /// Takes the next piece off the input. Data is split off without a copy, as much as is there of one chunk. `None`: more bytes are
    /// needed, or the end has been told.
    ///
    /// The input must be able to hold 64 KiB, the most that trailers may take.
    ///
    /// # Errors
    /// The framing is broken. It must not be called again.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Fault> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = size_line(input)? else { return Ok(None) };
                    self.extensions += line.extension as u64;
                    if self.extensions > FREE_EXTENSIONS {
                        return Err(Fault::ChunkExtension);
                    }
                    self.extensions = self.extensions.saturating_sub(line.size);
                    input.advance(line.length);
                    self.state = if line.size == 0 { State::Trailers } else { State::Data(line.size) };
                }
                State::Data(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    if take == 0 {
                        return Ok(None);
                    }
                    let data = input.split_to(take).freeze();
                    let left = left - take as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Some(Piece::Data(data)));
                }
                State::DataEnd => match input[..] {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(Fault::ChunkEnd),
                },
                State::Trailers => {
                    let Some((trailers, length)) = trailers(input)? else { return Ok(None) };
                    input.advance(length);
                    self.state = State::Done;
                    return Ok(Some(Piece::End(trailers)));
                }
                State::Done => return Ok(None),
            }
        }
    }

    /// Whether the end has been told.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

/// Whether a field may stand in a trailer section: not those that say where the message ends, where it goes, how its content is to be
/// read, or who sent it (RFC 9110 §6.5.1). Others are dropped, as RFC 9110 §6.5.1 lets an intermediary do.
pub fn may_trail(known: Name, name: &[u8]) -> bool {
    match known {
        Name::ContentLength
        | Name::TransferEncoding
        | Name::Host
        | Name::Connection
        | Name::KeepAlive
        | Name::ProxyConnection
        | Name::Upgrade
        | Name::Te
        | Name::Trailer
        | Name::Expect
        | Name::Http2Settings
        | Name::ContentType
        | Name::ContentEncoding
        | Name::CacheControl
        | Name::Authorization
        | Name::ProxyAuthorization
        | Name::ProxyAuthenticate
        | Name::Cookie
        | Name::SetCookie
        | Name::Location
        | Name::RetryAfter
        | Name::Vary
        | Name::Date => false,
        Name::Other => {
            !matches!(name, b"content-range" | b"max-forwards" | b"range" | b"age" | b"expires" | b"www-authenticate")
        }
        _ => true,
    }
}

struct SizeLine {
    size: u64,
    /// Bytes of the line with its end.
    length: usize,
    /// Bytes of it that are extension.
    extension: usize,
}

/// `size [; extension] CR LF`, which is never taken before all of it is there.
fn size_line(input: &[u8]) -> Result<Option<SizeLine>, Fault> {
    let mut size = 0u64;
    let mut digits = 0;
    while let Some(digit) = input.get(digits).and_then(|byte| (*byte as char).to_digit(16)) {
        if digits == MAX_DIGITS {
            return Err(Fault::ChunkSize);
        }
        size = size << 4 | u64::from(digit);
        digits += 1;
    }
    let rest = &input[digits..];
    if digits == 0 && !rest.is_empty() {
        return Err(Fault::ChunkSize);
    }
    let extension = match rest {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => 0,
        [b';' | b' ' | b'\t', ..] => match extension(rest)? {
            Some(length) => length,
            None => return Ok(None),
        },
        _ => return Err(Fault::ChunkSize),
    };
    Ok(Some(SizeLine { size, length: digits + extension + 2, extension }))
}

/// Bytes up to CR LF. What extensions say is for nobody (RFC 9112 §7.1.1).
fn extension(text: &[u8]) -> Result<Option<usize>, Fault> {
    let name = text.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    if name.is_some_and(|at| text[at] != b';') {
        return Err(Fault::ChunkSize);
    }
    let end = text.iter().position(|byte| byte.is_ascii_control() && *byte != b'\t');
    if end.unwrap_or(text.len()) > MAX_EXTENSION {
        return Err(Fault::ChunkExtension);
    }
    match end {
        None => Ok(None),
        Some(end) => match text[end..] {
            [b'\r', b'\n', ..] => Ok(Some(end)),
            [b'\r'] => Ok(None),
            _ => Err(Fault::ChunkExtension),
        },
    }
}

/// The trailer section and its length.
fn trailers(input: &[u8]) -> Result<Option<(Option<Fields>, usize)>, Fault> {
    match input {
        [b'\r', b'\n', ..] => return Ok(Some((None, 2))),
        [] | [b'\r'] => return Ok(None),
        [b'\r' | b'\n', ..] => return Err(Fault::LineEnd),
        _ => {}
    }
    let found = head::section(input, &Limits::default(), may_trail)?;
    Ok(found.map(|(fields, length)| ((!fields.is_empty()).then_some(fields), length)))
}
