//! Sixteen bytes at a time.

use std::arch::x86_64::*;

pub(super) const WIDTH: usize = 16;
/// One bit for each byte.
pub(super) type Flags = u32;
pub(super) const BITS: u32 = 1;

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
        mask(_mm_or_si128(up_to(block, 0x1f), same(block, 0x7f)))
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
        let ends = _mm_or_si128(same(block, b'#'), same(block, stop));
        !mask(_mm_andnot_si128(ends, visible)) & 0xffff
    }
}

/// Bytes that are `byte`.
#[inline(always)]
pub(super) fn equal(block: &[u8; WIDTH], byte: u8) -> Flags {
    // SAFETY: x86_64 has SSE2.
    unsafe { mask(same(load(block), byte)) }
}

/// The places behind the flagged ones, as far as they are in the block.
#[inline(always)]
pub(super) fn behind(flags: Flags) -> Flags {
    (flags << 1) & 0xffff
}

/// The flag of the first place if the last one is flagged.
#[inline(always)]
pub(super) fn first_if_last(flags: Flags) -> Flags {
    flags >> 15
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
fn same(block: __m128i, byte: u8) -> __m128i {
    _mm_cmpeq_epi8(block, all(byte))
}

#[inline]
#[target_feature(enable = "sse2")]
fn mask(flags: __m128i) -> Flags {
    _mm_movemask_epi8(flags) as u32
}
