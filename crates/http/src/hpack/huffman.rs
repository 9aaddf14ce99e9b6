//! The Huffman code of strings (RFC 7541 §5.2, Appendix B).
//!
//! The code is canonical: codes of one length are consecutive in the order of their symbols, and shorter ones come first. The lengths
//! alone therefore say everything, and all tables are made of them when compiling.

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

/// A symbol whose code is longer than a step.
#[cold]
fn long(bits: u64) -> Result<(u8, u32), HpackFault> {
    let front = (bits >> 32) as u32;
    let length = (STEP + 1..=LONGEST).find(|length| front < LIMITS[*length as usize]).ok_or(HpackFault::Huffman)?;
    let place = (front >> (32 - length)).wrapping_sub(FIRST[length as usize].0) + FIRST[length as usize].1;
    // EOS is the last of all.
    let symbol = ORDER.get(place as usize).ok_or(HpackFault::Huffman)?;
    Ok((*symbol, length))
}

/// Bits decoded at once: two symbols of the most frequent ones.
const STEP: u32 = 12;

/// What the next [`STEP`] bits begin with, in one word, so that the way from one step to the next is short.
#[derive(Clone, Copy)]
struct Step(u32);

impl Step {
    const fn of(next: u32) -> Self {
        let Some((symbol, first)) = short(next, STEP) else { return Step(0) };
        let rest = STEP - first;
        let (symbols, second, bits) = match short(next & ((1 << rest) - 1), rest) {
            Some((second, bits)) => (2, second, first + bits),
            None => (1, 0, first),
        };
        Step(bits | symbols << 6 | first << 8 | (symbol as u32) << 16 | (second as u32) << 24)
    }

    /// Of all whole symbols.
    #[inline]
    fn bits(self) -> u32 {
        self.0 & 63
    }

    /// How many codes are whole: 0 if even the first is longer.
    #[inline]
    fn symbols(self) -> usize {
        (self.0 >> 6 & 3) as usize
    }

    /// Bits of the first symbol.
    #[inline]
    fn first(self) -> u32 {
        self.0 >> 8 & 15
    }

    #[inline]
    fn text(self) -> [u8; 2] {
        ((self.0 >> 16) as u16).to_le_bytes()
    }
}

static STEPS: [Step; 1 << STEP] = {
    let mut steps = [Step(0); 1 << STEP];
    let mut next = 0;
    while next < steps.len() {
        steps[next] = Step::of(next as u32);
        next += 1;
    }
    steps
};

/// The symbol that the lowest `have` bits of `bits` begin with, and its length, if they hold it whole.
const fn short(bits: u32, have: u32) -> Option<(u8, u32)> {
    let mut length = 5;
    while length <= have {
        let code = bits >> (have - length);
        let (first, place) = FIRST[length as usize];
        if code >= first && code - first < place_after(length) - place {
            return Some((ORDER[(place + code - first) as usize], length));
        }
        length += 1;
    }
    None
}

const fn place_after(length: u32) -> u32 {
    if length == LONGEST { LENGTHS.len() as u32 } else { FIRST[length as usize + 1].1 }
}

/// A symbol's code in the lowest `length` bits.
#[derive(Clone, Copy)]
struct Code {
    code: u32,
    length: u32,
}

static CODES: [Code; 256] = {
    let mut codes = [Code { code: 0, length: 0 }; 256];
    let mut place = 0;
    while place < 256 {
        let symbol = ORDER[place] as usize;
        let length = LENGTHS[symbol] as u32;
        let (first, start) = FIRST[length as usize];
        codes[symbol] = Code { code: first + place as u32 - start, length };
        place += 1;
    }
    codes
};

const LONGEST: u32 = 30;

/// All symbols but EOS in the order of their codes.
const ORDER: [u8; 256] = {
    let mut order = [0; 256];
    let (mut length, mut filled) = (0, 0);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as u32 == length {
                order[filled] = symbol as u8;
                filled += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    order
};

/// By length: the first code, and the place of its symbol in [`ORDER`].
const FIRST: [(u32, u32); LONGEST as usize + 1] = {
    let mut first = [(0, 0); LONGEST as usize + 1];
    let (mut length, mut code, mut place) = (0, 0, 0);
    while length <= LONGEST {
        code <<= 1;
        first[length as usize] = (code, place);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as u32 == length {
                code += 1;
                place += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    first
};

/// By length: 32 bits that are below begin with a code of that length or a shorter one.
const LIMITS: [u32; LONGEST as usize + 1] = {
    let mut limits = [0; LONGEST as usize + 1];
    let mut length = 1;
    while length <= LONGEST {
        let (first, place) = FIRST[length as usize];
        let after = ((first + place_after(length) - place) as u64) << (32 - length);
        // All ones are a code of the greatest length: EOS.
        limits[length as usize] = if after > u32::MAX as u64 { u32::MAX } else { after as u32 };
        length += 1;
    }
    limits
};

/// Appendix B: the lengths of the codes of all bytes and, last, of EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

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
            let bytes = super::super::tests::unhex(hex);
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
