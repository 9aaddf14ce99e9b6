//! From header blocks to heads: the rules of RFC 9113 §8.2 and §8.3.
//!
//! A block is always decoded to its end, whatever is wrong with it, since the compression state must stay that of the peer.

use super::settings::Config;
use super::stream::UNKNOWN;
use crate::h1::target::{has_port, is_authority};
use crate::hpack::{Decoder, HpackFault, Known, Line, Pseudo};
use crate::scan::{target_end, token_end};
use crate::{Fields, Method, Name, RequestHead, ResponseHead, Scheme, Version};

/// What a header block turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be; the content-length, or [`UNKNOWN`].
    Good { promised: u64 },
    /// Against the rules: a stream error (RFC 9113 §8.1.1).
    Malformed,
    /// Larger than the limits.
    TooLarge,
}

/// Decodes the head of a request into an empty head.
pub(super) fn request(
    decoder: &mut Decoder,
    block: &[u8],
    config: &Config,
    head: &mut RequestHead,
) -> Result<Verdict, HpackFault> {
    let mut section = Section::new(config);
    let (mut method, mut scheme, mut authority, mut path) = (false, false, false, false);
    decoder.decode_lines::<HpackFault>(block, |line| {
        let Some(pseudo) = section.take(&mut head.fields, &line) else { return Ok(()) };
        let value = line.value;
        let good = match pseudo {
            Pseudo::Method if !method => {
                method = true;
                head.set_method(value);
                head.method() != Method::Other || is_token(value)
            }
            Pseudo::Scheme if !scheme => {
                scheme = true;
                head.scheme = if value.eq_ignore_ascii_case(b"https") { Scheme::Https } else { Scheme::Http };
                head.scheme == Scheme::Https || value.eq_ignore_ascii_case(b"http")
            }
            Pseudo::Authority if !authority => {
                authority = true;
                head.set_authority(value);
                is_authority(value) && !matches!(value, [] | [b':', ..])
            }
            Pseudo::Path if !path => {
                path = true;
                set_target(head, value)
            }
            Pseudo::Protocol if head.protocol().is_none() => {
                head.set_protocol(value);
                is_token(value)
            }
            _ => false,
        };
        section.malformed |= !good;
        Ok(())
    })?;
    section.finish(&mut head.fields);
    head.version = Version::Http2;
    let tunnel = head.method() == Method::Connect;
    let whole = if tunnel && head.protocol().is_none() {
        method && !scheme && !path && head.authority().is_some_and(has_port)
    } else {
        let extended = if tunnel { config.connect_protocol && authority } else { head.protocol().is_none() };
        let target = head.target();
        let fits = target.first() == Some(&b'/') || (target == b"*" && head.method() == Method::Options);
        method && scheme && path && extended && fits
    };
    section.malformed |= !whole || !host_agrees(head);
    Ok(section.verdict())
}

/// Decodes the head of a response into an empty head.
pub(super) fn response(
    decoder: &mut Decoder,
    block: &[u8],
    config: &Config,
    head: &mut ResponseHead,
) -> Result<Verdict, HpackFault> {
    let mut section = Section::new(config);
    decoder.decode_lines::<HpackFault>(block, |line| {
        let Some(pseudo) = section.take(&mut head.fields, &line) else { return Ok(()) };
        match (pseudo, line.value) {
            (Pseudo::Status, &[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) if head.status == 0 => {
                head.status = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
            }
            _ => section.malformed = true,
        }
        Ok(())
    })?;
    section.finish(&mut head.fields);
    head.version = Version::Http2;
    // HTTP/2 has no 101 (RFC 9113 §8.6).
    section.malformed |= head.status == 0 || head.status == 101;
    Ok(section.verdict())
}

/// Decodes a trailer section into empty fields.
pub(super) fn trailers(
    decoder: &mut Decoder,
    block: &[u8],
    config: &Config,
    fields: &mut Fields,
) -> Result<Verdict, HpackFault> {
    let mut section = Section::new(config);
    decoder.decode_lines::<HpackFault>(block, |line| {
        // RFC 9113 §8.1: no pseudo-fields here.
        section.malformed |= section.take(fields, &line).is_some();
        Ok(())
    })?;
    section.finish(fields);
    Ok(section.verdict())
}

/// Decodes a block that nobody wants.
pub(super) fn discard(decoder: &mut Decoder, block: &[u8]) -> Result<(), HpackFault> {
    decoder.decode_lines::<HpackFault>(block, |_| Ok(()))
}

/// What is known of a section while it is decoded.
struct Section<'a> {
    config: &'a Config,
    size: usize,
    count: usize,
    promised: u64,
    malformed: bool,
    past_pseudo: bool,
    cookies: u32,
    /// All of the cookie field, when it came in several pieces.
    crumbs: Vec<u8>,
    secret_crumbs: bool,
}

impl<'a> Section<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            config,
            size: 0,
            count: 0,
            promised: UNKNOWN,
            malformed: false,
            past_pseudo: false,
            cookies: 0,
            crumbs: Vec::new(),
            secret_crumbs: false,
        }
    }

    /// Counts a field and keeps it; a pseudo-field that stands where it may is handed back.
    #[inline]
    fn take(&mut self, fields: &mut Fields, line: &Line<'_>) -> Option<Pseudo> {
        self.size = self.size.saturating_add(line.name.len() + line.value.len() + 32);
        self.count += 1;
        if self.malformed || self.is_too_large() {
            return None;
        }
        match line.known {
            _ if !line.fit => self.malformed = true,
            Known::Pseudo(_) if self.past_pseudo => self.malformed = true,
            Known::Pseudo(pseudo) => return Some(pseudo),
            Known::Field(name) => self.field(fields, name, line),
        }
        None
    }

    fn is_too_large(&self) -> bool {
        self.size > self.config.max_head || self.count > self.config.max_fields
    }

    fn field(&mut self, fields: &mut Fields, known: Name, line: &Line<'_>) {
        self.past_pseudo = true;
        if !self.special(known, line.value) {
            self.malformed = true;
        } else if known != Name::Cookie || !self.crumb(fields, line) {
            fields.push_as(known, line.name, line.value, line.sensitive);
        }
    }

    /// Rules for certain fields; false: malformed.
    fn special(&mut self, known: Name, value: &[u8]) -> bool {
        match known {
            Name::Connection | Name::KeepAlive | Name::ProxyConnection | Name::TransferEncoding | Name::Upgrade => {
                false
            }
            Name::Te => value.eq_ignore_ascii_case(b"trailers"),
            Name::ContentLength => match length(value) {
                Some(length) if self.promised == UNKNOWN || self.promised == length => {
                    self.promised = length;
                    true
                }
                _ => false,
            },
            _ => true,
        }
    }

    /// Joins the pieces of a cookie (RFC 9113 §8.2.3); false for the first, which is a field like others.
    fn crumb(&mut self, fields: &Fields, line: &Line<'_>) -> bool {
        self.cookies += 1;
        self.secret_crumbs |= line.sensitive;
        if self.cookies == 1 {
            return false;
        }
        if self.cookies == 2 {
            self.crumbs.extend_from_slice(fields.get(Name::Cookie).unwrap_or_default());
        }
        self.crumbs.extend_from_slice(b"; ");
        self.crumbs.extend_from_slice(line.value);
        true
    }

    fn finish(&mut self, fields: &mut Fields) {
        if self.cookies > 1 {
            fields.remove(Name::Cookie);
            fields.push_as(Name::Cookie, Name::Cookie.as_bytes(), &self.crumbs, self.secret_crumbs);
        }
    }

    fn verdict(&self) -> Verdict {
        if self.is_too_large() {
            Verdict::TooLarge
        } else if self.malformed {
            Verdict::Malformed
        } else {
            Verdict::Good { promised: self.promised }
        }
    }
}

/// Methods and protocols are tokens.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && token_end(bytes, 0) == bytes.len()
}

/// Sets path and query; false: not visible ASCII without `#`.
fn set_target(head: &mut RequestHead, target: &[u8]) -> bool {
    let query = target_end(target, 0, b'?');
    let end = if query < target.len() && target[query] == b'?' { target_end(target, query + 1, b'#') } else { query };
    let span = head.fields.keep(target);
    head.adopt_target(span, query);
    end == target.len() && end > 0
}

/// RFC 9110 §8.6.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// RFC 9113 §8.3.1: `Host` names what `:authority` names.
fn host_agrees(head: &RequestHead) -> bool {
    let mut hosts = head.fields.all(Name::Host);
    match (hosts.next(), hosts.next()) {
        (None, _) => true,
        (Some(host), None) => head.authority().is_none_or(|authority| authority.eq_ignore_ascii_case(host)),
        (Some(_), Some(_)) => false,
    }
}
