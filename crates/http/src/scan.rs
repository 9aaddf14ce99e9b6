//! Finds the first byte of a kind, sixteen bytes at a time where every machine of an architecture can do that, else eight.

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod wide;
#[cfg(any(not(target_arch = "x86_64"), test))]
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
mod words;

#[cfg(not(target_arch = "x86_64"))]
use words as wide;

use crate::fields::{is_token, is_value};

/// The first control character from `start` on, or the length. A tab is one.
#[inline(always)]
pub(crate) fn control(bytes: &[u8], start: usize) -> usize {
    first(bytes, start, wide::controls, |byte| byte == b'\t' || !is_value(byte))
}

/// Tells where the lines of a section begin and end (before CR LF), up to the empty one, and says where what follows the section begins.
///
/// `None` when that is not so easy to say: when the section is not whole, has more lines than `most`, or holds a control character other
/// than tabs and the CR LF of lines. What was told until then is to be forgotten.
#[inline(always)]
pub(crate) fn lines(bytes: &[u8], start: usize, most: usize, mut line: impl FnMut(usize, usize)) -> Option<usize> {
    let (mut at, mut begin, mut count) = (start, start, 0);
    // A line feed must come first: the block before ends with a carriage return.
    let mut open = 0;
    loop {
        let (block, skip) = match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(block) => (block, 0),
            None => last_block(bytes, at)?,
        };
        let controls = wide::controls(block) >> skip;
        // No branch but this one for the blocks without a line's end.
        if controls | open != 0 {
            let feeds = wide::equal(block, b'\n') >> skip;
            let returns = wide::equal(block, b'\r') >> skip;
            let mut strange = controls & !feeds & !returns;
            if strange != 0 {
                strange &= !(wide::equal(block, b'\t') >> skip);
            }
            strange |= feeds ^ (wide::behind(returns) | open);
            let mut left = feeds;
            while left != 0 {
                let feed = at + wide::place(left);
                let lowest = left & left.wrapping_neg();
                left ^= lowest;
                match feed - begin {
                    0 => return None,
                    1 => return (strange & (lowest | (lowest - 1)) == 0).then_some(feed + 1),
                    _ if count == most => return None,
                    _ => line(begin, feed - 1),
                }
                count += 1;
                begin = feed + 1;
            }
            if strange != 0 {
                return None;
            }
            open = wide::first_if_last(returns);
        }
        at += wide::WIDTH;
    }
}

/// The last block, when a place is in it but not at its begin, and how far its flags are to be shifted to be those from that place on.
#[inline(always)]
fn last_block(bytes: &[u8], at: usize) -> Option<(&[u8; wide::WIDTH], u32)> {
    let past = (at + wide::WIDTH).checked_sub(bytes.len())?;
    if past < wide::WIDTH { Some((bytes.last_chunk()?, past as u32 * wide::BITS)) } else { None }
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
    if let Some((block, skip)) = last_block(bytes, at) {
        let flags = flags(block) >> skip;
        return if flags != 0 { at + wide::place(flags) } else { bytes.len() };
    }
    // Only in texts that are shorter than a block.
    while at < bytes.len() && !one(bytes[at]) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

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
    fn bytes_of_a_kind_are_flagged_and_no_others() {
        macro_rules! check {
            ($module:ident) => {
                for byte in 0..=255u8 {
                    for other in NEIGHBOURS {
                        for at in 0..$module::WIDTH {
                            let mut block = [other; $module::WIDTH];
                            block[at] = byte;
                            let flags = |is: fn(u8) -> bool| {
                                let bit = |at: usize| (1 << (at as u32 * $module::BITS)) << ($module::BITS - 1);
                                (0..block.len()).filter(|at| is(block[*at])).fold(0, |flags, at| flags | bit(at))
                            };
                            let text = block.escape_ascii();
                            assert_eq!($module::controls(&block), flags(|b| b.is_ascii_control()), "{text}");
                            assert_eq!($module::uncommon(&block), flags(is_uncommon), "{text}");
                            assert_eq!($module::target_ends(&block, b'?'), flags(ends_target), "{text}");
                            assert_eq!($module::equal(&block, b'-'), flags(|b| b == b'-'), "{text}");
                            let dashes = $module::equal(&block, b'-');
                            assert_eq!($module::behind(dashes) != 0, block[..$module::WIDTH - 1].contains(&b'-'));
                            assert_eq!($module::first_if_last(dashes) != 0, block.ends_with(b"-"));
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

    /// The same byte by byte.
    fn lines_one_by_one(bytes: &[u8], start: usize, most: usize) -> Option<(Vec<(usize, usize)>, usize)> {
        let (mut found, mut begin) = (Vec::new(), start);
        loop {
            let end = begin + bytes[begin..].iter().position(|byte| byte.is_ascii_control() && *byte != b'\t')?;
            if !bytes[end..].starts_with(b"\r\n") || found.len() == most && end > begin {
                return None;
            }
            if end == begin {
                return Some((found, end + 2));
            }
            found.push((begin, end));
            begin = end + 2;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(debug_assertions) { 2000 } else { 50_000 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn lines_are_found_as_one_by_one(
            parts in vec(prop_oneof![
                8 => "[ -~\t]{1,40}\r\n",
                3 => Just("\r\n".to_owned()),
                2 => "[a-z]{1,20}",
                1 => "[\r\n\t\u{0}\u{7f}\u{80}]{1,2}",
            ], 0..12),
            start in 0..20usize,
            most in 0..8usize,
        ) {
            let text = parts.concat().into_bytes();
            let start = start.min(text.len());
            let mut found = Vec::new();
            let end = lines(&text, start, most, |begin, end| found.push((begin, end)));
            let expected = lines_one_by_one(&text, start, most);
            if text.len() >= wide::WIDTH || end.is_some() {
                prop_assert_eq!(end.map(|end| (found, end)), expected);
            }
        }
    }
}
