//! Heads that come again.
//!
//! What a service is asked on a connection repeats: the same method, path and fields, which HPACK turns into the same few references.
//! As long as the tables that these refer to have not changed, the same block means the same head, and the same head becomes the same
//! block. A few of them are kept, so that a repeated head costs a comparison and a copy instead of its decoding or encoding.
//!
//! Where heads do not repeat, since each has its own trace, the comparison mostly ends at the first difference of lengths, and keeping
//! is tried more and more seldom.

use crate::hpack::TableState;
use crate::{Fields, RequestHead, ResponseHead};

/// How many heads are kept; a power of two.
const KEPT: usize = 4;
/// The longest block, and the longest text of fields, that is kept.
const BLOCK: usize = 512;
const TEXT: usize = 2048;
/// After so many heads that were not found, at most, another one is kept.
const PAUSE: u8 = 63;

/// A few heads of one kind and one direction, with their blocks.
pub(super) struct Memo<H> {
    kept: Vec<Option<Kept<H>>>,
    /// How many heads more are not kept.
    wait: u8,
    pause: u8,
}

/// All that a connection keeps. A server reads requests and writes responses, a client the other way round.
#[derive(Default)]
pub(super) struct Memos {
    pub requests: Memo<RequestHead>,
    pub responses: Memo<ResponseHead>,
    pub trailers_read: Memo<Fields>,
    pub trailers_written: Memo<Fields>,
}

struct Kept<H> {
    block: Vec<u8>,
    state: TableState,
    head: H,
    promised: u64,
}

/// What can be kept.
pub(super) trait Head: Sized {
    fn fields(&self) -> &Fields;
    /// A copy whose fields use the room of these.
    fn copy(&self, room: Fields) -> Self;
    /// Whether both are written the same.
    fn is_like(&self, other: &Self) -> bool;
}

impl<H> Default for Memo<H> {
    fn default() -> Self {
        Self { kept: Vec::new(), wait: 0, pause: 0 }
    }
}

impl<H: Head> Memo<H> {
    /// The head and content-length that a block means; its fields use `room`.
    #[inline]
    pub(super) fn read(&mut self, block: &[u8], state: Option<TableState>, room: Fields) -> Result<(H, u64), Fields> {
        match self.kept.get(place_of(block)) {
            Some(Some(kept)) if Some(kept.state) == state && kept.block == block => {
                let found = (kept.head.copy(room), kept.promised);
                self.pause = 0;
                Ok(found)
            }
            _ => Err(room),
        }
    }

    /// Keeps what a block was found to mean, when that has not changed the table.
    pub(super) fn keep_read(&mut self, block: &[u8], states: [Option<TableState>; 2], head: &H, promised: u64) {
        if let Some(state) = self.is_time(block, states, head) {
            self.keep(place_of(block), block, state, head, promised);
        }
    }

    /// The block of a head.
    #[inline]
    pub(super) fn write(&mut self, head: &H, state: Option<TableState>) -> Option<&[u8]> {
        match self.kept.get(head.fields().text_len() % KEPT) {
            Some(Some(kept)) if Some(kept.state) == state && kept.head.is_like(head) => {
                self.pause = 0;
                Some(&kept.block)
            }
            _ => None,
        }
    }

    /// Keeps how a head was written, when that has not changed the table.
    pub(super) fn keep_written(&mut self, head: &H, states: [Option<TableState>; 2], block: &[u8]) {
        if let Some(state) = self.is_time(block, states, head) {
            self.keep(head.fields().text_len() % KEPT, block, state, head, 0);
        }
    }

    /// The table's state, if before and after the block it was the same, and if it is time to keep another head.
    #[inline]
    fn is_time(&mut self, block: &[u8], states: [Option<TableState>; 2], head: &H) -> Option<TableState> {
        if states[0] != states[1] || block.len() > BLOCK || head.fields().text_len() > TEXT {
            return None;
        }
        if self.wait > 0 {
            self.wait -= 1;
            return None;
        }
        (self.wait, self.pause) = (self.pause, (self.pause * 2 + 1).min(PAUSE));
        states[0]
    }

    #[cold]
    fn keep(&mut self, place: usize, block: &[u8], state: TableState, head: &H, promised: u64) {
        self.kept.resize_with(KEPT, || None);
        let fields = Fields::with_capacity(head.fields().text_len(), head.fields().len());
        self.kept[place] = Some(Kept { block: block.to_vec(), state, head: head.copy(fields), promised });
    }
}

/// Blocks of different heads mostly differ in their length or at their end.
#[inline]
fn place_of(block: &[u8]) -> usize {
    (block.len() + block.last().map_or(0, |last| *last as usize)) % KEPT
}

impl Head for RequestHead {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn copy(&self, room: Fields) -> Self {
        self.copy_into(room)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.is_identical(other)
    }
}

impl Head for ResponseHead {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn copy(&self, room: Fields) -> Self {
        Self { fields: self.fields.copy_into(room), ..*self }
    }

    fn is_like(&self, other: &Self) -> bool {
        self.status == other.status && self.fields.is_identical(&other.fields)
    }
}

impl Head for Fields {
    fn fields(&self) -> &Fields {
        self
    }

    fn copy(&self, room: Fields) -> Self {
        self.copy_into(room)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.is_identical(other)
    }
}
