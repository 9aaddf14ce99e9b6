//! Buffers that a connection has only while bytes are under way.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{ContentType, Error};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::record::{HEADER, MAX_PLAIN, MAX_SEALED, OVERHEAD, Sealer};

/// Room that application data leaves free, so that an alert and a key update always find place.
const RESERVE: usize = 128;
/// Four full records: one receive or send moves 64 KiB.
const SIZE: usize = 4 * (MAX_PLAIN + OVERHEAD) + RESERVE;
/// Buffers that a thread keeps for the next connection.
const KEPT: usize = 4;
/// A part of a record of at most this length waits for its rest in memory of its own size.
const SMALL: usize = 2048;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// One buffer of [`SIZE`], one of just the size of what waits in it, or none.
#[derive(Default)]
struct Buffer(Box<[u8]>);

impl Buffer {
    fn take() -> Self {
        let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        Self(free.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()))
    }

    fn is_whole(&self) -> bool {
        self.0.len() == SIZE
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.is_whole() {
            let buffer = std::mem::take(&mut self.0);
            // A thread that ends keeps nothing.
            let _ = FREE.try_with(|free| {
                let mut free = free.borrow_mut();
                if free.len() < KEPT {
                    free.push(buffer);
                }
            });
        }
    }
}

/// What was received: `[read plaintext] plaintext … sealed records … free`.
#[derive(Default)]
pub(crate) struct Inbox {
    buffer: Buffer,
    /// Opened, not yet read.
    plain: Range<usize>,
    /// First byte that is not opened, and the end of what was received.
    start: usize,
    end: usize,
}

impl Inbox {
    /// With bytes that somebody has received already; `None` when they are more than a buffer holds.
    pub(crate) fn holding(received: &[u8]) -> Option<Self> {
        if received.is_empty() {
            return Some(Self::default());
        }
        let mut buffer = Buffer::take();
        buffer.0.get_mut(..received.len())?.copy_from_slice(received);
        Some(Self { buffer, plain: 0..0, start: 0, end: received.len() })
    }

    /// Plaintext that was opened in place.
    pub(crate) fn plain(&self) -> &[u8] {
        &self.buffer.0[self.plain.clone()]
    }

    /// Takes plaintext as read.
    pub(crate) fn consume(&mut self, count: usize) {
        self.plain.start = self.plain.end.min(self.plain.start + count);
        self.release_if_empty();
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.buffer.0.len()
    }

    /// What is not opened yet.
    pub(crate) fn sealed(&mut self) -> &mut [u8] {
        &mut self.buffer.0[self.start..self.end]
    }

    /// The first `record` bytes were opened in place; `plain` of them, after the header, are to be read.
    pub(crate) fn opened(&mut self, record: usize, plain: usize) {
        self.plain = self.start + HEADER..self.start + HEADER + plain;
        self.start += record;
    }

    /// The first `count` sealed bytes are done with.
    pub(crate) fn discard(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
        self.release_if_empty();
    }

    /// Receives as much as is there and fits. To be called when all plaintext was read. 0 is the end.
    pub(crate) fn poll_receive<S: AsyncRead + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let mut room = ReadBuf::new(&mut self.buffer.0[self.end..]);
        let received = match Pin::new(io).poll_read(cx, &mut room) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(room.filled().len())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        match &received {
            Poll::Ready(Ok(count)) => self.end += count,
            _ => self.rest(),
        }
        received
    }

    fn make_room(&mut self) {
        if !self.buffer.is_whole() {
            let mut whole = Buffer::take();
            let waiting = self.start..self.end;
            whole.0[..waiting.len()].copy_from_slice(&self.buffer.0[waiting.clone()]);
            (self.buffer, self.start, self.end) = (whole, 0, waiting.len());
        } else if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if SIZE - self.end < HEADER + MAX_SEALED {
            // Less than one record, once per 48 KiB or more.
            self.buffer.0.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.plain = 0..0;
    }

    /// Nothing more is there for now.
    fn rest(&mut self) {
        let waiting = self.start..self.end;
        if (1..=SMALL).contains(&waiting.len()) {
            let part = Buffer(self.buffer.0[waiting.clone()].into());
            (self.buffer, self.start, self.end) = (part, 0, waiting.len());
        }
        self.release_if_empty();
    }

    fn release_if_empty(&mut self) {
        if self.plain.is_empty() && self.start == self.end {
            *self = Self::default();
        }
    }
}

/// What is to be sent: `[sent] sealed … | header, plaintext of the open record … free`.
#[derive(Default)]
pub(crate) struct Outbox {
    buffer: Buffer,
    sent: usize,
    /// End of what is sealed.
    end: usize,
    /// Bytes in the open record, which follows.
    open: usize,
}

impl Outbox {
    /// Bytes of memory held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.buffer.0.len()
    }

    /// Whether nothing is left to be sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.end && self.open == 0
    }

    /// Takes application data: as much as fits. What makes no full record stays open for what comes next.
    pub(crate) fn push(&mut self, sealer: &mut Sealer, mut data: &[u8]) -> Result<usize, Error> {
        let whole = data.len();
        while !data.is_empty() && !sealer.is_used_up() {
            self.take_buffer();
            let room = (SIZE - RESERVE).saturating_sub(self.end + OVERHEAD + self.open).min(MAX_PLAIN - self.open);
            if room == 0 {
                break;
            }
            let (now, later) = data.split_at(room.min(data.len()));
            if now.len() == MAX_PLAIN {
                let record = &mut self.buffer.0[self.end..self.end + now.len() + OVERHEAD];
                sealer.seal_from(now, record)?;
                self.end += now.len() + OVERHEAD;
            } else {
                let at = self.end + HEADER + self.open;
                self.buffer.0[at..at + now.len()].copy_from_slice(now);
                self.open += now.len();
                if self.open == MAX_PLAIN {
                    self.seal(sealer)?;
                }
            }
            data = later;
        }
        Ok(whole - data.len())
    }

    /// Seals the open record.
    pub(crate) fn seal(&mut self, sealer: &mut Sealer) -> Result<(), Error> {
        if self.open > 0 {
            let record = self.end..self.end + self.open + OVERHEAD;
            sealer.seal_in_place(ContentType::ApplicationData, &mut self.buffer.0[record.clone()])?;
            (self.end, self.open) = (record.end, 0);
        }
        Ok(())
    }

    /// Adds a short record of another type, after all data taken so far. False: there is no room before something was sent.
    pub(crate) fn push_control(
        &mut self,
        sealer: &mut Sealer,
        kind: ContentType,
        message: &[u8],
    ) -> Result<bool, Error> {
        self.seal(sealer)?;
        self.take_buffer();
        let record = self.end..self.end + message.len() + OVERHEAD;
        if record.end > SIZE {
            return Ok(false);
        }
        self.buffer.0[record.start + HEADER..][..message.len()].copy_from_slice(message);
        sealer.seal_in_place(kind, &mut self.buffer.0[record.clone()])?;
        self.end = record.end;
        Ok(true)
    }

    /// Lets `write` add ready-made records; it is given the free room and says how much it used.
    pub(crate) fn append<E>(&mut self, write: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        self.take_buffer();
        self.end += write(&mut self.buffer.0[self.end..])?;
        Ok(())
    }

    /// Sends what is sealed, and lets go the buffer when nothing is left in it.
    pub(crate) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.end {
            match ready!(Pin::new(&mut *io).poll_write(cx, &self.buffer.0[self.sent..self.end]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        if self.open == 0 {
            *self = Self::default();
        }
        Poll::Ready(Ok(()))
    }

    fn take_buffer(&mut self) {
        if !self.buffer.is_whole() {
            self.buffer = Buffer::take();
        }
    }
}
