//! What the fields of a head say about where the message ends and what becomes of the connection (RFC 9112 §6, §9).

use super::{Body, Fault, target};
use crate::{Method, Name, Names, ResponseHead, Version};

/// Collected while the fields are read, once over all of them.
#[derive(Debug, Default)]
pub(super) struct Framing {
    length: Option<u64>,
    strange_length: bool,
    coding: Coding,
    hosts: u32,
    strange_host: bool,
    close: bool,
    keep_alive: bool,
    upgrade_named: bool,
    upgrade: bool,
    /// `Expect: 100-continue` is there.
    pub(super) expect: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    /// Others, and `chunked` last.
    Unknown,
    /// Does not end with `chunked`.
    Open,
}

impl Framing {
    /// Looks at a field; whether it is to be kept.
    #[inline(always)]
    pub(super) fn note(&mut self, name: Name, value: &[u8]) -> bool {
        match name {
            Name::Host => {
                self.hosts += 1;
                self.strange_host |= !target::is_authority(value);
            }
            Name::ContentLength => return self.content_length(value),
            Name::TransferEncoding => self.coding = coding(value, &self.coding),
            Name::Connection => self.connection(value),
            Name::Upgrade => self.upgrade |= !value.is_empty(),
            Name::Expect => self.expect |= value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        true
    }

    /// What follows a request.
    pub(super) fn of_request(&self, version: Version, method: Method) -> Result<Body, Fault> {
        // RFC 9112 §3.2.
        if self.strange_host || self.hosts > 1 || self.hosts == 0 && version == Version::Http11 {
            return Err(Fault::Host);
        }
        let body = match (self.chunked(version)?, self.length()?) {
            (true, Some(_)) => return Err(Fault::LengthAndCoding),
            (true, None) => Body::Chunked,
            (false, Some(length)) => Body::Length(length),
            (false, None) => Body::None,
        };
        if method == Method::Connect && !body.is_empty() {
            return Err(Fault::ConnectContent);
        }
        Ok(body)
    }

    /// What follows a response, and whether it is told in one way only.
    pub(super) fn of_response(&self, head: &mut ResponseHead, to: Method) -> Result<(Body, bool), Fault> {
        if to == Method::Connect && (200..300).contains(&head.status) {
            head.fields.remove_all(Names::of(&[Name::ContentLength, Name::TransferEncoding]));
            return Ok((Body::None, true));
        }
        let (chunked, length) = (self.chunked(head.version)?, self.length()?);
        let clean = !(chunked && length.is_some());
        if !clean {
            head.fields.remove(Name::ContentLength);
        }
        let body = match length {
            _ if to == Method::Head || matches!(head.status, ..200 | 204 | 304) => Body::None,
            _ if chunked => Body::Chunked,
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        };
        Ok((body, clean))
    }

    /// Whether the sender keeps the connection (RFC 9112 §9.3).
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.close && (self.keep_alive || version != Version::Http10)
    }

    /// Whether an upgrade is offered or done.
    pub(super) fn upgrade(&self) -> bool {
        self.upgrade && self.upgrade_named
    }

    fn length(&self) -> Result<Option<u64>, Fault> {
        if self.strange_length { Err(Fault::ContentLength) } else { Ok(self.length) }
    }

    /// Whether the content is chunked. HTTP/1.0 knows no transfer codings (RFC 9112 §6.1).
    fn chunked(&self, version: Version) -> Result<bool, Fault> {
        match self.coding {
            Coding::None => Ok(false),
            Coding::Chunked if version == Version::Http11 => Ok(true),
            Coding::Unknown => Err(Fault::UnknownCoding),
            Coding::Chunked | Coding::Open => Err(Fault::TransferEncoding),
        }
    }

    /// A length that is told again is not kept.
    fn content_length(&mut self, value: &[u8]) -> bool {
        let before = self.length;
        self.length = decimal(value);
        self.strange_length |= self.length.is_none() || before.is_some_and(|before| self.length != Some(before));
        before.is_none()
    }

    fn connection(&mut self, value: &[u8]) {
        for member in value.split(|byte| *byte == b',') {
            let member = member.trim_ascii();
            // Lengths differ: at most one comparison of bytes.
            self.close |= member.eq_ignore_ascii_case(b"close");
            self.keep_alive |= member.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade_named |= member.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

/// The codings of another line, behind those of the lines before. Anything but the one word is refused, the question is only how.
fn coding(value: &[u8], before: &Coding) -> Coding {
    if *before == Coding::None && value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let mut members = value.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let ends = members.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let again = members.any(|member| member.is_empty() || member.eq_ignore_ascii_case(b"chunked"));
    if ends && !again && *before != Coding::Chunked { Coding::Unknown } else { Coding::Open }
}

/// 1*DIGIT that 64 bits hold; neither sign nor list (RFC 9110 §8.6).
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { number.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}
