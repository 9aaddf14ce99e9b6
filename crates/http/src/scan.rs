//! Finds the first byte of a kind, sixteen bytes at a time where every machine of an architecture can do that, else eight.

use crate::fields::{is_token, is_value};

/// The first control character from `start` on, or the length. A tab is one.
#[inline(always)]
pub(crate) fn control(bytes: &[u8], start: usize) -> usize {
    first(bytes, start, wide::controls, |byte| byte == b'\t' || !is_value(byte))
}

/// The first byte from `start` on that is in no token (RFC 9110 §5.6.2), or the length.
#[inline(always)]
pub(crate) fn token_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        at = first(bytes, at, wide::uncommon, |byte| !is_token(byte));
        match bytes.get(at) {
            Some(byte) if is_token(*byte) => at += 1,
            _ => return at,
        }
    }
}

/// The first byte from `start` on that is not of a host's name (RFC 3986 §3.2.2), or the length.
#[inline(always)]
pub(crate) fn host_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        at = first(bytes, at, wide::uncommon, |byte| !is_host(byte));
        match bytes.get(at) {
            Some(byte) if is_host(*byte) => at += 1,
            _ => return at,
        }
    }
}

/// The first byte from `start` on that may not be in a target (anything but visible ASCII, and `#`) or is `stop`, or the length.
#[inline(always)]
pub(crate) fn target_end(bytes: &[u8], start: usize, stop: u8) -> usize {
    let ends = |byte: u8| !byte.is_ascii_graphic() || byte == b'#' || byte == stop;
    first(bytes, start, |block| wide::target_ends(block, stop), ends)
}

/// RFC 3986 §3.2.2, `reg-name`: unreserved, sub-delims, and `%`.
pub(crate) const fn is_host(byte: u8) -> bool {
    matches!(
        byte,
        b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
    ) || byte.is_ascii_alphanumeric()
}

/// The first place that `flags` tells of a block, or where `one` holds in a rest too short for a block; else the length.
#[inline(always)]
fn first(
    bytes: &[u8],
    start: usize,
    flags: impl Fn(&[u8; wide::WIDTH]) -> wide::Flags,
    one: impl Fn(u8) -> bool,
) -> usize {
    let mut at = start;
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let flags = flags(block);
        if flags != 0 {
            return at + wide::place(flags);
        }
        at += wide::WIDTH;
    }
    if let (true, Some(block)) = (wide::EXACT, bytes.last_chunk()) {
        // Once more over bytes that are known.
        let from = bytes.len() - wide::WIDTH;
        let flags = flags(block) >> (at - from).min(wide::WIDTH) << (at - from).min(wide::WIDTH);
        return if flags != 0 { from + wide::place(flags) } else { bytes.len() };
    }
    while at < bytes.len() && !one(bytes[at]) {
        at += 1;
    }
    at
}

/// Sixteen bytes at a time.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod wide {
    use std::arch::x86_64::*;

    pub(super) const WIDTH: usize = 16;
    /// Each byte is flagged rightly, whatever is around it.
    pub(super) const EXACT: bool = true;
    /// One bit for each byte.
    pub(super) type Flags = u32;

    #[inline(always)]
    pub(super) fn place(flags: Flags) -> usize {
        flags.trailing_zeros() as usize
    }

    /// Control characters.
    #[inline(always)]
    pub(super) fn controls(block: &[u8; WIDTH]) -> Flags {
        // SAFETY: x86_64 has SSE2.
        unsafe {
            let block = load(block);
            mask(_mm_or_si128(up_to(block, 0x1f), equal(block, 0x7f)))
        }
    }

    /// Anything but letters, digits, `-` and `.`.
    #[inline(always)]
    pub(super) fn uncommon(block: &[u8; WIDTH]) -> Flags {
        // SAFETY: x86_64 has SSE2.
        unsafe {
            let block = load(block);
            let letter = up_to(_mm_sub_epi8(_mm_or_si128(block, all(0x20)), all(b'a')), 25);
            let digit = up_to(_mm_sub_epi8(block, all(b'0')), 9);
            let other = up_to(_mm_sub_epi8(block, all(b'-')), 1);
            !mask(_mm_or_si128(_mm_or_si128(letter, digit), other)) & 0xffff
        }
    }

    /// Anything but visible ASCII, `#`, and `stop`.
    #[inline(always)]
    pub(super) fn target_ends(block: &[u8; WIDTH], stop: u8) -> Flags {
        // SAFETY: x86_64 has SSE2.
        unsafe {
            let block = load(block);
            let visible = up_to(_mm_sub_epi8(block, all(0x21)), 0x7e - 0x21);
            let ends = _mm_or_si128(equal(block, b'#'), equal(block, stop));
            !mask(_mm_andnot_si128(ends, visible)) & 0xffff
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(block: &[u8; WIDTH]) -> __m128i {
        // SAFETY: sixteen bytes may be read, from any place.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn all(byte: u8) -> __m128i {
        _mm_set1_epi8(byte as i8)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn up_to(block: __m128i, most: u8) -> __m128i {
        _mm_cmpeq_epi8(_mm_min_epu8(block, all(most)), block)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn equal(block: __m128i, byte: u8) -> __m128i {
        _mm_cmpeq_epi8(block, all(byte))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn mask(flags: __m128i) -> Flags {
        _mm_movemask_epi8(flags) as u32
    }
}

/// Eight bytes at a time, in the words that every machine has.
#[cfg(any(not(target_arch = "x86_64"), test))]
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
mod words {
    pub(super) const WIDTH: usize = 8;
    /// Bytes behind the first that is flagged may be flagged wrongly.
    pub(super) const EXACT: bool = false;
    /// The high bit of each byte.
    pub(super) type Flags = u64;

    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;

    #[inline(always)]
    pub(super) fn place(flags: Flags) -> usize {
        (flags.trailing_zeros() / 8) as usize
    }

    #[inline(always)]
    pub(super) fn controls(block: &[u8; WIDTH]) -> Flags {
        let word = u64::from_le_bytes(*block);
        below(word, 0x20) | equal(word, 0x7f)
    }

    #[inline(always)]
    pub(super) fn uncommon(block: &[u8; WIDTH]) -> Flags {
        let word = u64::from_le_bytes(*block);
        let low = word & !HIGH;
        let letters = ((low | (ONES * 0x20)) + ONES * 0x1f) & !((low | (ONES * 0x20)) + ONES * 0x05);
        let from_dash_to_nine = (low + ONES * 0x53) & !(low + ONES * 0x46);
        let slash = !((low ^ (ONES * 0x2f)) + ONES * 0x7f);
        !((letters | (from_dash_to_nine & !slash)) & !word) & HIGH
    }

    #[inline(always)]
    pub(super) fn target_ends(block: &[u8; WIDTH], stop: u8) -> Flags {
        let word = u64::from_le_bytes(*block);
        below(word, 0x21) | equal(word, 0x7f) | equal(word, b'#') | equal(word, stop) | (word & HIGH)
    }

    /// Bytes below `limit`, which is at most 128.
    #[inline(always)]
    fn below(word: u64, limit: u8) -> u64 {
        word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH
    }

    #[inline(always)]
    fn equal(word: u64, byte: u8) -> u64 {
        let differs = word ^ (ONES * u64::from(byte));
        differs.wrapping_sub(ONES) & !differs & HIGH
    }
}
#[cfg(not(target_arch = "x86_64"))]
use words as wide;

#[cfg(test)]
mod tests {
    use super::*;

    const NEIGHBOURS: [u8; 12] = [0, 1, b'\t', 0x1f, b'#', b'-', b'a', b'z', 0x7f, 0x80, 0xfe, 0xff];

    fn is_uncommon(byte: u8) -> bool {
        !(byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
    }

    fn ends_target(byte: u8) -> bool {
        !(b'!'..=b'~').contains(&byte) || byte == b'#' || byte == b'?'
    }

    /// Every byte at every place among neighbours that could carry into it.
    #[test]
    fn the_first_byte_of_a_kind_is_flagged() {
        macro_rules! check {
            ($module:ident) => {
                for byte in 0..=255u8 {
                    for other in NEIGHBOURS {
                        for at in 0..$module::WIDTH {
                            let mut block = [other; $module::WIDTH];
                            block[at] = byte;
                            let found = |flags| (flags != 0).then(|| $module::place(flags));
                            let wanted = |is: fn(u8) -> bool| block.iter().position(|byte| is(*byte));
                            let text = block.escape_ascii();
                            assert_eq!(found($module::controls(&block)), wanted(|b| b.is_ascii_control()), "{text}");
                            assert_eq!(found($module::uncommon(&block)), wanted(is_uncommon), "{text}");
                            assert_eq!(found($module::target_ends(&block, b'?')), wanted(ends_target), "{text}");
                        }
                    }
                }
            };
        }
        check!(wide);
        check!(words);
    }

    #[test]
    fn the_first_byte_is_found_at_every_place_of_every_length() {
        for length in 0..50 {
            for stop in 0..=length {
                for (one, filler) in [(b'\n', b'a'), (b':', b'a'), (b' ', b'_')] {
                    let mut text = vec![filler; length];
                    if let Some(byte) = text.get_mut(stop) {
                        *byte = one;
                    }
                    for before in 0..=stop {
                        // What lies before the start does not count.
                        text[..before].fill(one);
                        let control = if one == b'\n' { stop } else { length };
                        assert_eq!(super::control(&text, before), control);
                        assert_eq!(token_end(&text, before), stop);
                        assert_eq!(host_end(&text, before), stop);
                        let target = if one == b':' { length } else { stop };
                        assert_eq!(target_end(&text, before, b'?'), target);
                    }
                }
            }
        }
    }
}
