//! Integers with a prefix (RFC 7541 §5.1).

use super::HpackFault;

/// Writes `value` after the `flags` that share its first byte; `prefix` is how many low bits of that byte are the integer's.
#[inline]
pub(super) fn encode(value: usize, prefix: u32, flags: u8, out: &mut Vec<u8>) {
    let full = (1usize << prefix) - 1;
    if value < full {
        out.push(flags | value as u8);
    } else {
        out.push(flags | full as u8);
        encode_rest(value - full, out);
    }
}

#[cold]
fn encode_rest(mut rest: usize, out: &mut Vec<u8>) {
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Takes an integer off the front of `bytes`, which begin with the byte that holds its prefix.
#[inline]
pub(super) fn decode(bytes: &mut &[u8], prefix: u32) -> Result<usize, HpackFault> {
    let (first, rest) = bytes.split_first().ok_or(HpackFault::Truncated)?;
    *bytes = rest;
    let full = (1usize << prefix) - 1;
    let value = *first as usize & full;
    if value < full { Ok(value) } else { decode_rest(bytes, full) }
}

/// 32 bits need at most five further bytes. A sixth is refused even if it adds nothing: such integers only serve to keep us busy.
fn decode_rest(bytes: &mut &[u8], full: usize) -> Result<usize, HpackFault> {
    let mut value = full as u64;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value += u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return u32::try_from(value).map(|value| value as usize).map_err(|_| HpackFault::Integer);
        }
    }
    Err(if bytes.len() < 5 { HpackFault::Truncated } else { HpackFault::Integer })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appendix C.1.
    #[test]
    fn the_examples_of_the_standard() {
        for (value, prefix, bytes) in
            [(10usize, 5, &[0b01010u8][..]), (1337, 5, &[0b11111, 0b1001_1010, 0b1010]), (42, 8, &[0b10_1010])]
        {
            let mut out = Vec::new();
            encode(value, prefix, 0, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(decode(&mut &bytes[..], prefix), Ok(value));
        }
    }

    #[test]
    fn every_value_returns_and_takes_no_more_than_its_bytes() {
        for prefix in 4..=7 {
            for value in (0..70_000).chain([u32::MAX as usize - 1, u32::MAX as usize]) {
                let mut bytes = Vec::new();
                encode(value, prefix, 0, &mut bytes);
                bytes.push(7);
                let mut rest = &bytes[..];
                assert_eq!(decode(&mut rest, prefix), Ok(value));
                assert_eq!(rest, [7]);
            }
        }
    }

    #[test]
    fn what_is_too_large_too_long_or_not_whole_is_refused() {
        let zeros = [0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
        for (bytes, fault) in [
            (&[][..], HpackFault::Truncated),
            (&[0x1f], HpackFault::Truncated),
            (&[0x1f, 0x80, 0x80], HpackFault::Truncated),
            (&zeros, HpackFault::Integer),
            (&[0x1f, 0xff, 0xff, 0xff, 0xff, 0x0f], HpackFault::Integer),
            (&[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], HpackFault::Integer),
        ] {
            assert_eq!(decode(&mut &bytes[..], 5), Err(fault), "{bytes:x?}");
        }
    }
}
