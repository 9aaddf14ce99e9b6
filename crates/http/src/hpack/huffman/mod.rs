//! The Huffman code of strings (RFC 7541 §5.2, Appendix B).

mod code;

use self::code::{CODES, Code, LENGTHS, LONGEST, STEP, STEPS, long};
use super::HpackFault;

/// How many bytes the code of `text` has.
pub(super) fn length(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| LENGTHS[*byte as usize] as usize).sum();
    bits.div_ceil(8)
}

/// Appends the code of `text`, of which the caller knows the [`length`].
pub(super) fn encode(text: &[u8], length: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + length, 0);
    let mut room = &mut out[start..];
    // The lowest `have` bits wait to be written.
    let (mut bits, mut have) = (0u64, 0u32);
    for byte in text {
        let Code { code, length } = CODES[*byte as usize];
        bits = bits << length | u64::from(code);
        have += length;
        if have >= 32 {
            have -= 32;
            let Some((front, rest)) = room.split_first_chunk_mut::<4>() else { return };
            *front = ((bits >> have) as u32).to_be_bytes();
            room = rest;
        }
    }
    // Padded with the first bits of EOS, which are ones.
    let last = (bits << 32 | 0xffff_ffff) >> have;
    let last = (last as u32).to_be_bytes();
    room.copy_from_slice(&last[..room.len().min(4)]);
}

/// The most bytes that a code of so many can stand for: the shortest codes have 5 bits. [`decode`] wants that much room.
pub(super) const fn most(coded: usize) -> usize {
    coded * 8 / 5 + 2
}

/// What [`decode`] made.
pub(super) struct Decoded {
    pub length: usize,
    /// All bytes are visible, space or above 127: those that are not have long codes, so that this costs nothing to find out.
    /// False says nothing.
    pub plain: bool,
}

/// Writes what `coded` stands for to the front of `out`, which has room for [`most`].
///
/// # Errors
/// [`HpackFault::Huffman`].
pub(super) fn decode(coded: &[u8], out: &mut [u8]) -> Result<Decoded, HpackFault> {
    let mut rest = coded;
    // The highest `have` bits of `bits` are not decoded yet. Those below are either zero or equal to what follows.
    let (mut bits, mut have, mut at, mut plain) = (0u64, 0u32, 0, true);
    while refill(&mut rest, coded, &mut bits, &mut have) {
        while have >= STEP {
            let step = STEPS[(bits >> (64 - STEP)) as usize];
            if step.symbols() == 0 {
                if have < LONGEST {
                    break;
                }
                let (symbol, length) = long(bits)?;
                out[at] = symbol;
                at += 1;
                bits <<= length;
                have -= length;
                plain = false;
                continue;
            }
            // Both at once; the second may be overwritten.
            out[at..at + 2].copy_from_slice(&step.text());
            at += step.symbols();
            bits <<= step.bits();
            have -= step.bits();
        }
    }
    // What is left is less than a step, or a long code, and padding.
    while have > 0 {
        let padded = bits | u64::MAX >> have;
        let step = STEPS[(padded >> (64 - STEP)) as usize];
        let (symbol, length) = match step.symbols() {
            // As a symbol, ones to the end would be EOS.
            0 if padded == u64::MAX && have < 8 => break,
            0 => {
                plain = false;
                long(padded)?
            }
            _ => (step.text()[0], step.first()),
        };
        if length > have {
            return Err(HpackFault::Huffman);
        }
        out[at] = symbol;
        at += 1;
        bits <<= length;
        have -= length;
    }
    Ok(Decoded { length: at, plain })
}

/// Takes as many bytes off `rest` as there is room for behind the highest `have` bits; whether there was one.
#[inline]
fn refill(rest: &mut &[u8], whole: &[u8], bits: &mut u64, have: &mut u32) -> bool {
    let next = match rest.first_chunk::<8>() {
        Some(next) => u64::from_be_bytes(*next),
        None if rest.is_empty() => return false,
        None => match whole.last_chunk::<8>() {
            Some(last) => u64::from_be_bytes(*last) << (64 - 8 * rest.len()),
            None => rest.iter().rev().fold(0, |bits, byte| bits >> 8 | u64::from(*byte) << 56),
        },
    };
    *bits |= next >> *have;
    let taken = rest.len().min(((63 - *have) / 8) as usize);
    *rest = &rest[taken..];
    *have += taken as u32 * 8;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn coded(text: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        encode(text, length(text), &mut out);
        out.split_off(6)
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, HpackFault> {
        let mut out = vec![0; most(coded.len())];
        let Decoded { length, plain } = decode(coded, &mut out)?;
        out.truncate(length);
        assert!(!plain || out.iter().all(|byte| matches!(byte, b' '..=b'~' | 0x80..)));
        Ok(out)
    }

    /// One of each length, from the text of Appendix B.
    #[test]
    fn codes_are_those_of_the_standard() {
        for (symbol, code, length) in [
            (b'0', 0x0, 5),
            (b't', 0x9, 5),
            (b' ', 0x14, 6),
            (b'u', 0x2d, 6),
            (b':', 0x5c, 7),
            (b'z', 0x7b, 7),
            (b'&', 0xf8, 8),
            (b'Z', 0xfd, 8),
            (b'!', 0x3f8, 10),
            (b'?', 0x3fc, 10),
            (b'|', 0x7fc, 11),
            (b'#', 0xffa, 12),
            (b'>', 0xffb, 12),
            (0, 0x1ff8, 13),
            (b'~', 0x1ffd, 13),
            (b'^', 0x3ffc, 14),
            (b'{', 0x7ffe, 15),
            (b'\\', 0x7fff0, 19),
            (208, 0x7fff2, 19),
            (128, 0xfffe6, 20),
            (226, 0xfffed, 20),
            (153, 0x1fffdc, 21),
            (129, 0x3fffd2, 22),
            (1, 0x7fffd8, 23),
            (9, 0xffffea, 24),
            (199, 0x1ffffec, 25),
            (192, 0x3ffffe0, 26),
            (203, 0x7ffffde, 27),
            (2, 0xfffffe2, 28),
            (249, 0xffffffe, 28),
            (10, 0x3ffffffc, 30),
            (22, 0x3ffffffe, 30),
        ] {
            let Code { code: own, length: own_length } = CODES[symbol as usize];
            assert_eq!((own, own_length), (code, length), "{symbol}");
        }
    }

    /// The strings of Appendix C.4 and C.6.
    #[test]
    fn the_examples_of_the_standard() {
        for (text, hex) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-key", "25a849e95ba97d7f"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            ("private", "aec3771a4b"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
            ("https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"),
        ] {
            let bytes = crate::hpack::tests::unhex(hex);
            assert_eq!(coded(text.as_bytes()), bytes);
            assert_eq!(decoded(&bytes).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn padding_is_less_than_a_byte_of_ones_and_eos_is_no_symbol() {
        // `0` is 00000; then ones, a zero, a byte more of ones.
        assert_eq!(decoded(&[0b0000_0111]).unwrap(), b"0");
        for bad in [&[0b0000_0110][..], &[0b0000_0111, 0xff], &[0xff], &[0xff; 4], &[0xff; 40], &[0b0000_0000]] {
            assert_eq!(decoded(bad), Err(HpackFault::Huffman), "{bad:x?}");
        }
        // EOS whole, then padding.
        assert_eq!(decoded(&[0x07, 0xff, 0xff, 0xff, 0xff]), Err(HpackFault::Huffman));
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    /// Bit by bit, as the standard tells it.
    fn plainly(coded: &[u8]) -> Result<Vec<u8>, HpackFault> {
        let (mut out, mut code, mut length) = (Vec::new(), 0u32, 0u32);
        for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
            code = code << 1 | u32::from(bit);
            length += 1;
            if let Some(symbol) = CODES.iter().position(|c| c.length == length && c.code == code) {
                out.push(symbol as u8);
                (code, length) = (0, 0);
            } else if length == LONGEST {
                return Err(HpackFault::Huffman);
            }
        }
        if length < 8 && code == (1 << length) - 1 { Ok(out) } else { Err(HpackFault::Huffman) }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in prop::collection::vec(any::<u8>(), 0..200), ascii in "[ -~]{0,200}") {
            for text in [&text[..], ascii.as_bytes()] {
                prop_assert_eq!(&decoded(&coded(text)).unwrap(), text);
            }
        }

        #[test]
        fn any_bytes_are_decoded_as_plainly(noise in prop::collection::vec(any::<u8>(), 0..40), ascii in "[ -~]{0,40}", cut in 0usize..40) {
            prop_assert_eq!(decoded(&noise), plainly(&noise));
            let mut bytes = coded(ascii.as_bytes());
            bytes.truncate(cut);
            prop_assert_eq!(decoded(&bytes), plainly(&bytes));
            bytes.extend_from_slice(&noise);
            prop_assert_eq!(decoded(&bytes), plainly(&bytes));
        }
    }
}
