//! Bytes on their way that did not fit into the other side, or are about to be written. Memory is borrowed from the
//! thread only while there are any.

use std::cell::{Cell, RefCell};

/// One read. A message of 64 KiB in one read and one write costs a fifth less than in four.
pub(super) const SIZE: usize = 64 * 1024;

/// Buffers kept per thread beside the one that is used again and again.
const KEPT: usize = 16;

thread_local! {
    /// The last one used, still in the processor's cache.
    static LAST: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static MORE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A piece of memory while it holds bytes.
#[derive(Default)]
pub(super) struct Buffer {
    memory: Option<Box<[u8]>>,
    start: u32,
    end: u32,
}

impl Buffer {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// What is to be written.
    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.as_deref().map_or(&[], |memory| &memory[self.start as usize..self.end as usize])
    }

    /// Where more can be read to, behind what is there.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let memory = self.memory.get_or_insert_with(|| LAST.take().unwrap_or_else(another));
        &mut memory[self.end as usize..]
    }

    /// So many bytes were read to the room.
    pub(super) fn filled(&mut self, count: usize) {
        self.end += count as u32;
    }

    /// So many bytes were written. The last give the memory back.
    pub(super) fn written(&mut self, count: usize) {
        self.start += count as u32;
        if self.is_empty() {
            self.discard();
        }
    }

    /// Gives the memory back, and forgets what was not written.
    pub(super) fn discard(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(memory) = self.memory.take() {
            // Fails only while the thread ends.
            let _ = LAST.try_with(|last| last.replace(Some(memory)).map(keep));
        }
    }
}

#[cold]
fn another() -> Box<[u8]> {
    MORE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SIZE].into_boxed_slice())
}

#[cold]
fn keep(memory: Box<[u8]>) {
    let _ = MORE.try_with(|more| {
        let mut more = more.borrow_mut();
        if more.len() < KEPT {
            more.push(memory);
        }
    });
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.discard();
    }
}
