//! The code itself, and the tables for both directions, made when compiling.
//!
//! The code is canonical: codes of one length are consecutive in the order of their symbols, and shorter ones come first. The lengths
//! alone therefore say everything.

use crate::hpack::HpackFault;

/// A symbol whose code is longer than a step.
#[cold]
pub(super) fn long(bits: u64) -> Result<(u8, u32), HpackFault> {
    let front = (bits >> 32) as u32;
    let length = (STEP + 1..=LONGEST).find(|length| front < LIMITS[*length as usize]).ok_or(HpackFault::Huffman)?;
    let place = (front >> (32 - length)).wrapping_sub(FIRST[length as usize].0) + FIRST[length as usize].1;
    // EOS is the last of all.
    let symbol = ORDER.get(place as usize).ok_or(HpackFault::Huffman)?;
    Ok((*symbol, length))
}

/// Bits decoded at once: two symbols of the most frequent ones.
pub(super) const STEP: u32 = 12;

/// What the next [`STEP`] bits begin with, in one word, so that the way from one step to the next is short.
#[derive(Clone, Copy)]
pub(super) struct Step(u32);

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
    pub(super) fn bits(self) -> u32 {
        self.0 & 63
    }

    /// How many codes are whole: 0 if even the first is longer.
    #[inline]
    pub(super) fn symbols(self) -> usize {
        (self.0 >> 6 & 3) as usize
    }

    /// Bits of the first symbol.
    #[inline]
    pub(super) fn first(self) -> u32 {
        self.0 >> 8 & 15
    }

    #[inline]
    pub(super) fn text(self) -> [u8; 2] {
        ((self.0 >> 16) as u16).to_le_bytes()
    }
}

pub(super) static STEPS: [Step; 1 << STEP] = {
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
pub(super) struct Code {
    pub code: u32,
    pub length: u32,
}

pub(super) static CODES: [Code; 256] = {
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

pub(super) const LONGEST: u32 = 30;

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
pub(super) const LENGTHS: [u8; 257] = [
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
