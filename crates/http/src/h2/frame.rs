//! Frames: their head (RFC 9113 §4.1), what is inside the small ones, and how they are written.

use std::ops::Range;

use super::code::{Code, Fault};

/// Bytes of a frame's head.
pub(super) const HEAD: usize = 9;
/// The first bytes of a client (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest payload that every peer takes, and the window that every stream and connection begins with (RFC 9113 §6.5.2).
pub(super) const FRAME: u32 = 16_384;
pub(super) const WINDOW: u32 = 65_535;
/// The largest window and the largest stream id.
pub(super) const MAX_31: u32 = (1 << 31) - 1;

/// Kinds of frames (RFC 9113 §6, RFC 9218 §7.1).
pub(super) mod kind {
    pub(in crate::h2) const DATA: u8 = 0;
    pub(in crate::h2) const HEADERS: u8 = 1;
    pub(in crate::h2) const PRIORITY: u8 = 2;
    pub(in crate::h2) const RST_STREAM: u8 = 3;
    pub(in crate::h2) const SETTINGS: u8 = 4;
    pub(in crate::h2) const PUSH_PROMISE: u8 = 5;
    pub(in crate::h2) const PING: u8 = 6;
    pub(in crate::h2) const GOAWAY: u8 = 7;
    pub(in crate::h2) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::h2) const CONTINUATION: u8 = 9;
    pub(in crate::h2) const PRIORITY_UPDATE: u8 = 16;
}

/// Flags of frames.
pub(super) mod flag {
    pub(in crate::h2) const ACK: u8 = 0x1;
    pub(in crate::h2) const END_STREAM: u8 = 0x1;
    pub(in crate::h2) const END_HEADERS: u8 = 0x4;
    pub(in crate::h2) const PADDED: u8 = 0x8;
    pub(in crate::h2) const PRIORITY: u8 = 0x20;
}

/// What every frame begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// Of the payload.
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub id: u32,
}

impl FrameHead {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, i, d, j, k] = *bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // The first bit is reserved and ignored.
            id: u32::from_be_bytes([i, d, j, k]) & MAX_31,
        })
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Where in the payload of `DATA` the data are.
    pub(super) fn data(&self, payload: &[u8]) -> Result<Range<usize>, Fault> {
        if !self.has(flag::PADDED) {
            return Ok(0..payload.len());
        }
        let &padding = payload.first().ok_or(Fault::size("a padded DATA frame without the length of its padding"))?;
        let end = payload.len().checked_sub(padding as usize).filter(|end| *end >= 1);
        Ok(1..end.ok_or(Fault::protocol("more padding than payload in DATA"))?)
    }

    /// The fragment of a header block in the payload of `HEADERS`: without padding and without priority, which is ignored
    /// (RFC 9113 §5.3.2).
    pub(super) fn fragment<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], Fault> {
        const SHORT: Fault = Fault::size("a HEADERS frame too short for its flags");
        let mut rest = payload;
        let mut padding = 0;
        if self.has(flag::PADDED) {
            let (&first, after) = rest.split_first().ok_or(SHORT)?;
            (padding, rest) = (first as usize, after);
        }
        if self.has(flag::PRIORITY) {
            rest = rest.get(5..).ok_or(SHORT)?;
        }
        let end = rest.len().checked_sub(padding).ok_or(Fault::protocol("more padding than payload in HEADERS"))?;
        Ok(&rest[..end])
    }
}

/// The number at the beginning of a payload whose length was checked.
pub(super) fn number(payload: &[u8]) -> u32 {
    payload.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

pub(super) fn put_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, id: u32) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [i, d, j, k] = id.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags, i, d, j, k]);
}

pub(super) fn put_reset(out: &mut Vec<u8>, id: u32, code: Code) {
    put_head(out, 4, kind::RST_STREAM, 0, id);
    out.extend_from_slice(&code.0.to_be_bytes());
}

pub(super) fn put_window_update(out: &mut Vec<u8>, id: u32, increment: u32) {
    put_head(out, 4, kind::WINDOW_UPDATE, 0, id);
    out.extend_from_slice(&increment.to_be_bytes());
}

pub(super) fn put_ping(out: &mut Vec<u8>, flags: u8, payload: u64) {
    put_head(out, 8, kind::PING, flags, 0);
    out.extend_from_slice(&payload.to_be_bytes());
}

pub(super) fn put_go_away(out: &mut Vec<u8>, last: u32, code: Code, reason: &str) {
    put_head(out, 8 + reason.len(), kind::GOAWAY, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Finishes the frame of a header block that begins at `start` of the buffer with room for its head: its length becomes known only
/// when it is written. A block longer than the peer's frames becomes `HEADERS` and as many `CONTINUATION` as it takes.
pub(super) fn finish_block(out: &mut Vec<u8>, start: usize, id: u32, end: bool, longest: usize) {
    let length = out.len() - start - HEAD;
    let ends = if end { flag::END_STREAM } else { 0 };
    if length <= longest {
        set_head(out, start, length, kind::HEADERS, ends | flag::END_HEADERS, id);
        return;
    }
    let block = out.split_off(start + HEAD);
    set_head(out, start, longest, kind::HEADERS, ends, id);
    let (first, mut rest) = block.split_at(longest);
    out.extend_from_slice(first);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.len().min(longest));
        let flags = if after.is_empty() { flag::END_HEADERS } else { 0 };
        put_head(out, part.len(), kind::CONTINUATION, flags, id);
        out.extend_from_slice(part);
        rest = after;
    }
}

fn set_head(out: &mut [u8], start: usize, length: usize, kind: u8, flags: u8, id: u32) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [i, d, j, k] = id.to_be_bytes();
    out[start..start + HEAD].copy_from_slice(&[a, b, c, kind, flags, i, d, j, k]);
}
