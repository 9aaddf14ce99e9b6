//! What a connection has to write.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Above so many bytes that wait to be written, `data` takes nothing: the peer or the network is slower than we are, and what we
/// hold for it is bounded. Heads and control frames go beyond.
pub const HIGH_WATER: usize = 256 << 10;
/// Data from this length on are not copied: one more piece in a vectored write costs about as much as copying so much.
const WHOLE: usize = 4 << 10;
/// What is kept of a buffer that has run empty.
const KEPT: usize = 32 << 10;
/// Bytes already written are moved out of the way when there are so many of them.
const STALE: usize = 64 << 10;

/// The bytes that a connection has to write, as a [`Buf`] whose pieces suit a vectored write.
///
/// Frames and small data lie one after another in one buffer that is used again and again; large data stay where they came from, and
/// know their place in the buffer.
#[derive(Debug, Default)]
pub struct Output {
    small: Vec<u8>,
    /// How much of `small` is written.
    written: usize,
    /// Each goes before the byte of `small` at its place.
    large: VecDeque<(usize, Bytes)>,
    large_bytes: usize,
    /// All that was ever written.
    passed: u64,
}

impl Output {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Whether `data` takes nothing until some of this is written.
    pub fn is_full(&self) -> bool {
        self.remaining() >= HIGH_WATER
    }

    /// All that was ever written.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// What will have been written when all that is here now is.
    pub(super) fn end(&self) -> u64 {
        self.passed + self.remaining() as u64
    }

    /// Where frames are appended.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.small
    }

    pub(super) fn put_data(&mut self, data: Bytes) {
        if data.len() < WHOLE {
            self.small.extend_from_slice(&data);
        } else {
            self.large_bytes += data.len();
            self.large.push_back((self.small.len(), data));
        }
    }

    /// Gives all room back when there is nothing to write.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self { passed: self.passed, ..Self::default() };
        }
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.small.capacity() + self.large.capacity()
    }

    fn settle(&mut self) {
        if self.is_empty() {
            self.small.clear();
            self.written = 0;
            if self.small.capacity() > KEPT {
                self.small.shrink_to(KEPT);
            }
        } else if self.written >= STALE && self.written * 2 >= self.small.len() {
            self.small.drain(..self.written);
            for (place, _) in &mut self.large {
                *place -= self.written;
            }
            self.written = 0;
        }
    }

    /// Where the run of small bytes that is next ends.
    fn run_end(&self) -> usize {
        self.large.front().map_or(self.small.len(), |(place, _)| *place)
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.small.len() - self.written + self.large_bytes
    }

    fn chunk(&self) -> &[u8] {
        let end = self.run_end();
        match self.large.front() {
            Some((_, data)) if self.written == end => data,
            _ => &self.small[self.written..end],
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let mut put = |piece: &'a [u8]| {
            if !piece.is_empty() && used < slices.len() {
                slices[used] = IoSlice::new(piece);
                used += 1;
            }
            used < slices.len()
        };
        let mut at = self.written;
        for (place, data) in &self.large {
            if !put(&self.small[at..*place]) || !put(data) {
                return used;
            }
            at = *place;
        }
        put(&self.small[at..]);
        used
    }

    /// # Panics
    /// When more is written than there was.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining(), "more was written than there was");
        self.passed += count as u64;
        while count > 0 {
            let step = count.min(self.run_end() - self.written);
            self.written += step;
            count -= step;
            if count == 0 {
                break;
            }
            let Some((_, data)) = self.large.front_mut() else { break };
            let step = count.min(data.len());
            data.advance(step);
            self.large_bytes -= step;
            count -= step;
            if data.is_empty() {
                self.large.pop_front();
            }
        }
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> (Output, Vec<u8>) {
        let mut output = Output::default();
        let mut all = Vec::new();
        for (index, length) in [10, 5000, 20, 4096, 4095, 8000, 9000].into_iter().enumerate() {
            let data = vec![index as u8; length];
            all.extend_from_slice(&data);
            output.put_data(data.into());
        }
        (output, all)
    }

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came_whatever_is_written_at_once() {
        for step in [9, 10, 11, 4096, 5010, 20_000] {
            let (mut output, all) = filled();
            let mut seen = Vec::new();
            while output.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let used = output.chunks_vectored(&mut slices);
                let gathered = slices[..used].iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
                assert!(gathered.starts_with(output.chunk()) && !output.chunk().is_empty());
                let count = step.min(gathered.len());
                seen.extend_from_slice(&gathered[..count]);
                output.advance(count);
            }
            assert!(seen == all, "step {step}");
        }
    }

    #[test]
    fn large_data_are_not_copied_and_small_ones_are() {
        let (output, _) = filled();
        assert_eq!(output.large.len(), 4);
        assert_eq!(output.small.len(), 10 + 20 + 4095);
    }

    #[test]
    fn a_backlog_that_never_ends_does_not_grow_the_buffer() {
        let mut output = Output::default();
        for _ in 0..10_000 {
            output.put_data(Bytes::from_static(&[7; 1000]));
            if output.remaining() > 50_000 {
                output.advance(1000);
            }
        }
        assert!(output.small.capacity() < 512 << 10, "{}", output.small.capacity());
    }
}
