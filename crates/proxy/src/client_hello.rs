//! Reads a TLS ClientHello without terminating TLS: the server name and the protocols that a caller asks for.
//!
//! A gateway learns nothing else of a connection, so this is the one parser that strangers reach before anybody is
//! authenticated. It reads a growing buffer of at most [`MAX_BYTES`], copies only when a hello spans records, and says
//! of any bytes whatsoever one of four things: more is needed, not TLS, malformed, found.

use std::borrow::Cow;
use std::fmt;

/// Most bytes that are read for a hello, record headers included. Hybrid key shares make hellos of about 2 KiB; a
/// caller that needs more than 16 KiB is not one of ours.
pub const MAX_BYTES: usize = 16 * 1024;

const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const CONTENT_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

/// What the bytes so far say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A hello may be under way; read more.
    NeedMore,
    /// The bytes are no TLS handshake at all.
    NotTls,
    /// TLS, but no hello that a server could answer.
    Malformed(Fault),
    /// A whole hello.
    Found(ClientHello),
}

/// What a gateway reads of a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name asked for, lower case (RFC 6066 §3); `None` when the caller named none.
    pub server_name: Option<Box<str>>,
    /// The protocols offered.
    pub alpn: Alpn,
}

/// The protocols of an ALPN extension (RFC 7301), in the caller's order; empty when it was absent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Alpn(Box<[u8]>);

impl Alpn {
    /// The protocol names, most wanted first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Input(&self.0);
        std::iter::from_fn(move || rest.short_vector().ok())
    }

    /// Whether the protocol is offered.
    pub fn contains(&self, protocol: &[u8]) -> bool {
        self.iter().any(|offered| offered == protocol)
    }
}

impl fmt::Debug for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

/// Why a hello was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More than [`MAX_BYTES`].
    #[error("the hello is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// A record of another type, a zero-length fragment, or a length beyond RFC 8446 §5.1.
    #[error("a record breaks RFC 8446 section 5.1")]
    Record,
    /// The first handshake message is not a ClientHello.
    #[error("the first message is not a ClientHello")]
    NotHello,
    /// A length inside the hello does not fit, or bytes are left over.
    #[error("a length in the hello does not fit")]
    Length,
    /// The server name is no host name of RFC 6066, or there are two.
    #[error("the server name breaks RFC 6066 section 3")]
    ServerName,
    /// The ALPN list is empty, holds an empty name, or comes twice.
    #[error("the ALPN list breaks RFC 7301 section 3.1")]
    Alpn,
}

impl Fault {
    /// The alert with which RFC 8446 §6 answers the fault.
    pub fn alert(self) -> Alert {
        match self {
            Fault::TooLong | Fault::Length | Fault::Record => Alert::DecodeError,
            Fault::NotHello => Alert::UnexpectedMessage,
            Fault::ServerName | Fault::Alpn => Alert::IllegalParameter,
        }
    }
}

/// Reads what has come so far. Call it again with the same bytes and more when it says [`Progress::NeedMore`]; with
/// [`MAX_BYTES`] at hand it never says so.
pub fn parse(bytes: &[u8]) -> Progress {
    match message(bytes) {
        Ok(None) => Progress::NeedMore,
        Ok(Some(message)) => match hello(&message) {
            Ok(hello) => Progress::Found(hello),
            Err(fault) => Progress::Malformed(fault),
        },
        Err(Refused::NotTls) => Progress::NotTls,
        Err(Refused::Fault(fault)) => Progress::Malformed(fault),
    }
}

/// A fatal alert that a server may send before any ServerHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Alert {
    /// An inappropriate message.
    UnexpectedMessage = 10,
    /// A field out of range or in conflict with another.
    IllegalParameter = 47,
    /// Refused by policy; between Veers: over a limit.
    AccessDenied = 49,
    /// Cannot be read.
    DecodeError = 50,
    /// Between Veers: the endpoint cannot be reached.
    InternalError = 80,
    /// Between Veers: the gateway is draining.
    UserCanceled = 90,
    /// No such server; between Veers: the token is stale or nothing was offered under it.
    UnrecognizedName = 112,
}

impl Alert {
    /// The alert as one plaintext record at level *fatal*: before a ServerHello nothing is encrypted, so a relay can
    /// speak.
    pub fn record(self) -> [u8; 7] {
        const CONTENT_ALERT: u8 = 21;
        const FATAL: u8 = 2;
        [CONTENT_ALERT, 3, 3, 0, 2, FATAL, self as u8]
    }
}

enum Refused {
    NotTls,
    Fault(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused::Fault(fault)
    }
}

/// The handshake message at the front, header cut off, once it is whole. Borrowed when it lies in one record.
fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Refused> {
    let mut joined: Vec<u8> = Vec::new();
    let mut wanted = None;
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let first = at == 0;
        // Another protocol shows in the first three bytes; do not wait for a header that will never come.
        if rest.first().is_some_and(|kind| *kind != CONTENT_HANDSHAKE) || rest.get(1).is_some_and(|major| *major != 3) {
            return Err(if first { Refused::NotTls } else { Fault::Record.into() });
        }
        if rest.get(2).is_some_and(|minor| *minor > 4) {
            return Err(if first { Refused::NotTls } else { Fault::Record.into() });
        }
        let Some(header) = rest.get(..RECORD_HEADER) else { return more(bytes) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > 1 << 14 {
            return Err(Fault::Record.into());
        }
        let payload = &rest[RECORD_HEADER..rest.len().min(RECORD_HEADER + length)];
        let whole = payload.len() == length;

        if wanted.is_none() {
            wanted = announced(&joined, payload)?;
        }
        if let (true, true, Some(wanted)) = (first, whole, wanted)
            && payload.len() == wanted
        {
            return Ok(Some(Cow::Borrowed(&payload[HANDSHAKE_HEADER..])));
        }
        if let Some(wanted) = wanted
            && joined.len() + length > wanted
        {
            // Nothing may follow a ClientHello in its record: the server's answer changes the keys (RFC 8446 §5.1).
            return Err(Fault::Length.into());
        }
        if !whole {
            return more(bytes);
        }
        joined.extend_from_slice(payload);
        if wanted == Some(joined.len()) {
            joined.drain(..HANDSHAKE_HEADER);
            return Ok(Some(Cow::Owned(joined)));
        }
        at += RECORD_HEADER + length;
    }
}

fn more(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Refused> {
    if bytes.len() >= MAX_BYTES { Err(Fault::TooLong.into()) } else { Ok(None) }
}

/// The length of the message with its header, as soon as the header is there.
fn announced(joined: &[u8], payload: &[u8]) -> Result<Option<usize>, Fault> {
    let mut front = joined.iter().chain(payload).copied();
    if front.next().is_some_and(|kind| kind != MESSAGE_CLIENT_HELLO) {
        return Err(Fault::NotHello);
    }
    let (Some(a), Some(b), Some(c)) = (front.next(), front.next(), front.next()) else { return Ok(None) };
    let wanted = HANDSHAKE_HEADER + u32::from_be_bytes([0, a, b, c]) as usize;
    if wanted + RECORD_HEADER > MAX_BYTES { Err(Fault::TooLong) } else { Ok(Some(wanted)) }
}

/// RFC 8446 §4.1.2.
fn hello(body: &[u8]) -> Result<ClientHello, Fault> {
    let mut input = Input(body);
    input.take(2 + 32)?; // legacy_version, random
    if input.short_vector()?.len() > 32 {
        return Err(Fault::Length); // legacy_session_id
    }
    let suites = input.vector()?;
    if suites.is_empty() || suites.len() % 2 != 0 || input.short_vector()?.is_empty() {
        return Err(Fault::Length); // cipher_suites, legacy_compression_methods
    }
    let mut found = ClientHello { server_name: None, alpn: Alpn::default() };
    if input.is_empty() {
        return Ok(found); // TLS 1.2 and older without extensions
    }
    let mut extensions = Input(input.vector()?);
    if !input.is_empty() {
        return Err(Fault::Length);
    }
    while !extensions.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.vector()?;
        match kind {
            EXTENSION_SERVER_NAME if found.server_name.is_some() => return Err(Fault::ServerName),
            EXTENSION_SERVER_NAME => found.server_name = Some(server_name(data)?),
            EXTENSION_ALPN if !found.alpn.0.is_empty() => return Err(Fault::Alpn),
            EXTENSION_ALPN => found.alpn = alpn(data)?,
            _ => {}
        }
    }
    Ok(found)
}

/// RFC 6066 §3: exactly one name of type `host_name`; it is the only type there is.
fn server_name(data: &[u8]) -> Result<Box<str>, Fault> {
    const HOST_NAME: u8 = 0;
    let read = || -> Result<&[u8], Fault> {
        let mut data = Input(data);
        let mut list = Input(data.vector()?);
        let kind = list.take(1)?[0];
        let name = list.vector()?;
        if kind == HOST_NAME && list.is_empty() && data.is_empty() { Ok(name) } else { Err(Fault::ServerName) }
    };
    let name = read().map_err(|_| Fault::ServerName)?;
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 255 || name.ends_with(b".") || !name.iter().all(allowed) {
        return Err(Fault::ServerName);
    }
    Ok(name.iter().map(|b| char::from(b.to_ascii_lowercase())).collect::<String>().into_boxed_str())
}

fn alpn(data: &[u8]) -> Result<Alpn, Fault> {
    let mut data = Input(data);
    let list = data.vector().map_err(|_| Fault::Alpn)?;
    if list.is_empty() || !data.is_empty() {
        return Err(Fault::Alpn);
    }
    let mut names = Input(list);
    while !names.is_empty() {
        if names.short_vector().map_err(|_| Fault::Alpn)?.is_empty() {
            return Err(Fault::Alpn);
        }
    }
    Ok(Alpn(list.into()))
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (front, rest) = self.0.split_at_checked(length).ok_or(Fault::Length)?;
        self.0 = rest;
        Ok(front)
    }

    fn number(&mut self) -> Result<u16, Fault> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    /// A vector with one byte of length.
    fn short_vector(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// A vector with two bytes of length.
    fn vector(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.number()?;
        self.take(length.into())
    }
}

#[cfg(test)]
#[path = "client_hello_tests.rs"]
mod tests;
