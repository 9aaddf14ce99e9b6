//! What has come for one stream.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use veer_http::h2::Code;
use veer_http::{Fields, ResponseHead};

use super::super::interim;

/// Pieces smaller than this are joined, if more than one has come before anybody took the first: each would cost as much as a
/// large one on the rest of its way.
const SMALL: usize = 4 * 1024;
/// What joined pieces become: the payload of one frame.
const JOINED: usize = 16 * 1024;

/// What a stream has received and nobody has taken yet.
#[derive(Default)]
pub struct Slot {
    waker: Option<Waker>,
    pub(super) head: Option<ResponseHead>,
    /// Informational answers that nobody has taken yet.
    interim: Option<Box<Told>>,
    data: VecDeque<(Bytes, u32)>,
    /// Behind `data`: small pieces, and what they count for in the windows.
    joined: (BytesMut, u32),
    pub(super) trailers: Option<Fields>,
    pub(super) ended: bool,
    pub(super) reset: Option<Reset>,
}

/// Informational answers that wait, at most [`interim::MOST`] and the one that is too many.
#[derive(Default)]
struct Told(VecDeque<ResponseHead>);

/// A stream that ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Why.
    pub code: Code,
    /// Nothing of it was acted upon: it was refused, or came after the last that the peer took up.
    pub untouched: bool,
    /// It ended with its connection, unannounced.
    pub lost: bool,
}

impl Slot {
    pub(super) fn told(&mut self, head: ResponseHead) {
        let Told(heads) = &mut **self.interim.get_or_insert_default();
        if heads.len() <= interim::MOST {
            heads.push_back(head);
        }
    }

    /// The next head: an informational one first.
    pub(super) fn next_head(&mut self) -> Option<ResponseHead> {
        if let Some(Told(heads)) = self.interim.as_deref_mut() {
            match heads.pop_front() {
                Some(head) => return Some(head),
                None => self.interim = None,
            }
        }
        self.head.take()
    }

    pub(super) fn add(&mut self, data: Bytes, flow: u32) {
        let (joined, counted) = &mut self.joined;
        let small = data.len() < SMALL && joined.len() + data.len() <= JOINED;
        if !joined.is_empty() && !small {
            self.data.push_back((joined.split().freeze(), std::mem::take(counted)));
        }
        if data.len() >= SMALL {
            return self.data.push_back((data, flow));
        }
        if joined.is_empty() {
            match self.data.back().filter(|(last, _)| last.len() < SMALL) {
                None => return self.data.push_back((data, flow)),
                Some((last, before)) => {
                    joined.reserve(JOINED);
                    joined.extend_from_slice(last);
                    *counted = *before;
                    self.data.pop_back();
                }
            }
        }
        joined.extend_from_slice(&data);
        *counted += flow;
    }

    /// The next piece, and what it counts for in the windows.
    pub(super) fn next(&mut self) -> Option<(Bytes, u32)> {
        let (joined, counted) = &mut self.joined;
        self.data
            .pop_front()
            .or_else(|| (!joined.is_empty()).then(|| (joined.split().freeze(), std::mem::take(counted))))
    }

    pub(super) fn has_data(&self) -> bool {
        !self.data.is_empty() || !self.joined.0.is_empty()
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_joined_and_none_changes_its_place() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut slot, mut sent, mut taken) = (Slot::default(), Vec::new(), Vec::new());
            let (mut counted, mut released, mut pieces) = (0, 0, 0);
            for _ in 0..100 {
                if rng.u8(..) < 40 {
                    while let Some((data, flow)) = slot.next() {
                        assert!(!data.is_empty() && data.len() <= JOINED.max(20_000));
                        taken.extend_from_slice(&data);
                        released += flow;
                        pieces += 1;
                    }
                    assert!(!slot.has_data());
                }
                let length = if rng.u8(..) < 30 { rng.usize(SMALL..20_000) } else { rng.usize(1..SMALL) };
                let data: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
                sent.extend_from_slice(&data);
                counted += length as u32 + 3;
                slot.add(data.into(), length as u32 + 3);
            }
            while let Some((data, flow)) = slot.next() {
                taken.extend_from_slice(&data);
                released += flow;
                pieces += 1;
            }
            assert!(taken == sent && released == counted && pieces < 100, "seed {seed}");
        }
    }

    #[test]
    fn a_single_small_piece_is_not_copied() {
        let mut slot = Slot::default();
        let data = Bytes::from(vec![7; 1000]);
        slot.add(data.clone(), 1000);
        assert_eq!(slot.next().unwrap().0.as_ptr(), data.as_ptr());
    }
}
