//! The PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>): a load balancer says in front of a
//! connection's bytes whose connection it is.
//!
//! The parser reads a growing buffer of at most [`MAX_BYTES`] and copies nothing. It believes whatever is well formed: whether the sender
//! may say so is for the caller to know, before anything is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most bytes of a header. Addresses take at most 232; what balancers add of themselves in version 2 (names, TLS details) some
/// hundreds. The format would allow 64 KiB.
pub const MAX_BYTES: usize = 4096;

/// Longest line of version 1, its end included (section 2.1).
const LONGEST_LINE: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;
/// `PP2_TYPE_CRC32C`.
const TYPE_CRC32C: u8 = 3;

/// What the bytes so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A header may be under way; read more.
    NeedMore,
    /// A whole header.
    Found(Header),
    /// No header that could be used: the connection is to be closed (section 2).
    Refused(Fault),
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes that it takes; what follows is the client's.
    pub length: usize,
    /// Where the client's connection comes from. `None`: the sender speaks for itself (`LOCAL`, health checks), or of what has no IP
    /// address (`UNKNOWN`, `UNSPEC`, UNIX sockets); the real addresses count.
    pub client: Option<SocketAddr>,
}

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Neither version begins so.
    #[error("no PROXY header")]
    NoHeader,
    /// Something that the format does not know or allow.
    #[error("a malformed PROXY header")]
    Malformed,
    /// Longer than [`MAX_BYTES`], or a line longer than 107 bytes.
    #[error("a PROXY header that is too long")]
    TooLong,
    /// The checksum is another one.
    #[error("a PROXY header with a wrong checksum")]
    Checksum,
}

/// Reads a header from the beginning of the bytes. More bytes never change what was said other than [`Progress::NeedMore`].
pub fn parse(bytes: &[u8]) -> Progress {
    let begins = |pattern: &[u8]| {
        let common = bytes.len().min(pattern.len());
        bytes[..common] == pattern[..common]
    };
    let found = if begins(SIGNATURE) {
        binary(bytes)
    } else if begins(b"PROXY ") {
        text(bytes)
    } else {
        Err(Fault::NoHeader)
    };
    match found {
        Ok(Some(header)) => Progress::Found(header),
        Ok(None) => Progress::NeedMore,
        Err(fault) => Progress::Refused(fault),
    }
}

/// Version 1, section 2.1: one line.
fn text(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = within.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(Fault::TooLong) };
    };
    match within.get(end..end + 2) {
        Some(b"\r\n") => {}
        None if within[end] == b'\r' && bytes.len() < LONGEST_LINE => return Ok(None),
        _ => return Err(Fault::Malformed),
    }
    let line = std::str::from_utf8(&within[..end]).map_err(|_| Fault::Malformed)?;
    let mut words = line.split(' ').skip(1);
    let mut next = || words.next().ok_or(Fault::Malformed);
    let client = match next()? {
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Ok(Some(Header { length: end + 2, client: None })),
        "TCP4" => addresses::<Ipv4Addr>(&mut next)?,
        "TCP6" => addresses::<Ipv6Addr>(&mut next)?,
        _ => return Err(Fault::Malformed),
    };
    if words.next().is_some() {
        return Err(Fault::Malformed);
    }
    Ok(Some(Header { length: end + 2, client: Some(client) }))
}

/// Source, destination and their ports; the source is what is asked for.
fn addresses<'a, A: std::str::FromStr + Into<IpAddr>>(
    next: &mut impl FnMut() -> Result<&'a str, Fault>,
) -> Result<SocketAddr, Fault> {
    let mut address = || next()?.parse::<A>().map_err(|_| Fault::Malformed);
    let (source, _) = (address()?, address()?);
    let mut port = || {
        let text = next()?;
        let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| canonical).ok_or(Fault::Malformed)
    };
    let (source_port, _) = (port()?, port()?);
    Ok(client(source.into(), source_port))
}

/// Version 2, section 2.2.
fn binary(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let command = match bytes.get(12) {
        None => return Ok(None),
        Some(byte @ (0x20 | 0x21)) => byte & 0xf,
        Some(_) => return Err(Fault::Malformed),
    };
    let Some(fixed) = bytes.get(..FIXED) else { return Ok(None) };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > MAX_BYTES {
        return Err(Fault::TooLong);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let local = Ok(Some(Header { length, client: None }));
    if command == 0 {
        // LOCAL: the rest, the family too, is to be discarded.
        return local;
    }
    let block = &header[FIXED..];
    // Family above, transport below: streams (1) or datagrams (2).
    let (source, taken) = match fixed[13] {
        0x00 => return local,
        0x11 | 0x12 => (block.first_chunk().map(ipv4), 12),
        0x21 | 0x22 => (block.first_chunk().map(ipv6), 36),
        // UNIX: two paths.
        0x31 | 0x32 => (block.first_chunk().map(|_: &[u8; 216]| None), 216),
        _ => return Err(Fault::Malformed),
    };
    let client = source.ok_or(Fault::Malformed)?;
    check(header, FIXED + taken)?;
    Ok(Some(Header { length, client }))
}

/// Source, destination, their ports: each number in network order.
fn ipv4(block: &[u8; 12]) -> Option<SocketAddr> {
    let [a, b, c, d, _, _, _, _, port @ .., _, _] = *block;
    Some(client(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes(port)))
}

fn ipv6(block: &[u8; 36]) -> Option<SocketAddr> {
    let source: &[u8; 16] = block.first_chunk()?;
    Some(client(Ipv6Addr::from(*source).into(), u16::from_be_bytes([block[32], block[33]])))
}

/// IPv4 addresses that are written as IPv6 ones are IPv4 addresses.
fn client(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

/// What follows the addresses, section 2.2.1: type, length, value. All are skipped, but for the checksum of the whole header, which is kept to
/// where there is one.
fn check(header: &[u8], from: usize) -> Result<(), Fault> {
    let mut at = from;
    let mut stated = None;
    while at < header.len() {
        let head = header.get(at..at + 3).ok_or(Fault::Malformed)?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let value = at + 3;
        let bytes = header.get(value..value + length).ok_or(Fault::Malformed)?;
        if head[0] == TYPE_CRC32C {
            let sum: [u8; 4] = bytes.try_into().map_err(|_| Fault::Malformed)?;
            if stated.replace((value, u32::from_be_bytes(sum))).is_some() {
                return Err(Fault::Malformed);
            }
        }
        at = value + length;
    }
    match stated {
        Some((place, sum)) if crc32c(header, place) != sum => Err(Fault::Checksum),
        _ => Ok(()),
    }
}

/// CRC-32C (RFC 4960 appendix B) with the four bytes at `place` taken as zero. Bit by bit: a header is short, and few have it.
fn crc32c(bytes: &[u8], place: usize) -> u32 {
    let field = place..place + 4;
    let zeroed = bytes.iter().zip(0..).map(|(byte, at)| if field.contains(&at) { 0 } else { *byte });
    !zeroed.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(sum & 1)))
    })
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
