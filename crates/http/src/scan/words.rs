//! Eight bytes at a time, in the words that every machine has.

pub(super) const WIDTH: usize = 8;
/// The high bit of each byte.
pub(super) type Flags = u64;
pub(super) const BITS: u32 = 8;

const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

#[inline(always)]
pub(super) fn place(flags: Flags) -> usize {
    (flags.trailing_zeros() / 8) as usize
}

#[inline(always)]
pub(super) fn controls(block: &[u8; WIDTH]) -> Flags {
    below(block, 0x20) | equal(block, 0x7f)
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
    let high = u64::from_le_bytes(*block) & HIGH;
    below(block, 0x21) | equal(block, 0x7f) | equal(block, b'#') | equal(block, stop) | high
}

#[inline(always)]
pub(super) fn equal(block: &[u8; WIDTH], byte: u8) -> Flags {
    let differs = u64::from_le_bytes(*block) ^ (ONES * u64::from(byte));
    !(((differs & !HIGH) + !HIGH) | differs) & HIGH
}

#[inline(always)]
pub(super) fn behind(flags: Flags) -> Flags {
    flags << 8
}

#[inline(always)]
pub(super) fn first_if_last(flags: Flags) -> Flags {
    flags >> 56
}

/// Bytes below `limit`, which is at most 128.
#[inline(always)]
fn below(block: &[u8; WIDTH], limit: u8) -> Flags {
    let word = u64::from_le_bytes(*block);
    !((word & !HIGH) + ONES * u64::from(128 - limit)) & !word & HIGH
}
