//! One direction of a relay.
//!
//! A message costs one read and one write.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{Interest, ReadBuf};

use super::Relayed;
use super::buffer::Buffer;
use crate::socket::poll_socket;
use crate::splice::{Filled, Splicer};

/// What was read at once is bulk from here on: the kernel moves it better itself. Measured with messages that are sent
/// back: at 16 KiB copying costs a fifth less, at 32 KiB as much, at 64 KiB a third more, at 256 KiB twice as much.
const BULK: usize = 40 * 1024;

/// The largest plaintext of a TLS record (RFC 8446 §5.1): what a stream of another kind may give at once.
const RECORD: usize = 16 * 1024;

/// What one direction may move before others get their turn on the thread.
const TURN: u64 = 512 * 1024;

pub(super) struct Pump {
    stage: Stage,
    may_splice: bool,
    unflushed: bool,
    /// The task's waker is with the source.
    reading: bool,
    /// The task's waker is with the target.
    writing: bool,
    buffer: Buffer,
    splicer: Splicer,
    /// Written to the target.
    pub(super) total: u64,
    error: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Copying,
    Splicing,
    /// The source has ended; tell the target.
    Ending,
    /// The source broke after the bytes in the buffer.
    Breaking,
    Ended,
}

/// What is to be done after a step.
enum Next {
    Step,
    Wait,
}

impl Pump {
    pub(super) fn new(may_splice: bool) -> Self {
        Self {
            stage: Stage::Copying,
            may_splice,
            unflushed: false,
            reading: false,
            writing: false,
            buffer: Buffer::default(),
            splicer: Splicer::default(),
            total: 0,
            error: None,
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Why not everything was written, once ended.
    pub(super) fn unwritten(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// The task has another waker now.
    pub(super) fn forget_waker(&mut self) {
        (self.reading, self.writing) = (false, false);
    }

    /// Moves what can be moved now. Returns why the source cannot be read any more, if it broke; an error of writing ends
    /// the direction and is kept.
    #[inline]
    pub(super) fn poll<R: Relayed, W: Relayed>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        target: &mut W,
    ) -> Option<io::Error> {
        let turn_ends = self.total + TURN;
        loop {
            let next = match self.stage {
                Stage::Ended => return None,
                // What was read goes first, whatever comes after it.
                _ if !self.buffer.is_empty() => Ok(self.write(cx, target)),
                Stage::Copying => self.copy(cx, source, target),
                Stage::Splicing => self.splice(cx, source, target),
                Stage::Ending => Ok(self.end(cx, target)),
                Stage::Breaking => Err(self.error.take().unwrap_or_else(|| io::ErrorKind::Other.into())),
            };
            match next {
                Ok(Next::Step) if self.total < turn_ends => {}
                Ok(Next::Step) => {
                    cx.waker().wake_by_ref();
                    return None;
                }
                Ok(Next::Wait) => return None,
                Err(error) => {
                    self.stage = Stage::Ended;
                    return Some(error);
                }
            }
        }
    }

    fn write<W: Relayed>(&mut self, cx: &mut Context<'_>, target: &mut W) -> Next {
        let written = match target.writes_to() {
            Some(socket) => {
                let bytes = self.buffer.bytes();
                poll_socket(cx, socket, Interest::WRITABLE, &mut self.writing, || {
                    let count = send(socket, bytes, SendFlags::NOSIGNAL)?;
                    Ok((count, count < bytes.len()))
                })
            }
            None => {
                self.unflushed = true;
                Pin::new(target).poll_write(cx, self.buffer.bytes())
            }
        };
        match written {
            Poll::Ready(Ok(0)) => self.fail(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(count)) => {
                self.buffer.written(count);
                self.total += count as u64;
                Next::Step
            }
            Poll::Ready(Err(error)) => self.fail(error),
            Poll::Pending => Next::Wait,
        }
    }

    /// Reads, and writes at once what was read.
    fn copy<R: Relayed, W: Relayed>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        target: &mut W,
    ) -> io::Result<Next> {
        let read = match source.reads_from() {
            Some(socket) => {
                let buffer = &mut self.buffer;
                let read = poll_socket(cx, socket, Interest::READABLE, &mut self.reading, || {
                    let room = buffer.room();
                    let size = room.len();
                    let (count, _) = recv(socket, room, RecvFlags::empty())?;
                    // A read of less than there is room for shows that the socket is empty now (epoll(7)).
                    Ok((count, 0 < count && count < size))
                })?;
                if let Poll::Ready(count) = read {
                    self.buffer.filled(count);
                    if count >= BULK && self.may_splice && target.writes_to().is_some() {
                        self.stage = Stage::Splicing;
                    }
                }
                read
            }
            None => self.read_stream(cx, source)?,
        };
        match read {
            Poll::Ready(0) => {
                self.buffer.discard();
                self.stage = Stage::Ending;
                Ok(Next::Step)
            }
            Poll::Ready(_) => Ok(self.write(cx, target)),
            Poll::Pending => {
                self.buffer.discard();
                Ok(self.flush(cx, target))
            }
        }
    }

    /// Reads what the stream has, for one large write costs less than some small ones.
    fn read_stream<R: Relayed>(&mut self, cx: &mut Context<'_>, source: &mut R) -> io::Result<Poll<usize>> {
        loop {
            let room = self.buffer.room();
            if room.len() < RECORD {
                return Ok(Poll::Ready(self.buffer.len()));
            }
            let mut filling = ReadBuf::new(room);
            let polled = Pin::new(&mut *source).poll_read(cx, &mut filling);
            let count = filling.filled().len();
            self.buffer.filled(count);
            let so_far = self.buffer.len();
            match polled {
                Poll::Ready(Ok(())) if count > 0 => {}
                Poll::Ready(Ok(())) if so_far > 0 => {
                    self.stage = Stage::Ending;
                    return Ok(Poll::Ready(so_far));
                }
                Poll::Ready(Err(error)) if so_far > 0 => {
                    (self.stage, self.error) = (Stage::Breaking, Some(error));
                    return Ok(Poll::Ready(so_far));
                }
                Poll::Pending if so_far > 0 => return Ok(Poll::Ready(so_far)),
                Poll::Ready(Ok(())) => return Ok(Poll::Ready(0)),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }

    fn flush<W: Relayed>(&mut self, cx: &mut Context<'_>, target: &mut W) -> Next {
        if self.unflushed {
            match Pin::new(target).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return self.fail(error),
                Poll::Pending => {}
            }
        }
        Next::Wait
    }

    /// One step through the pipe: fills it, or empties it.
    fn splice<R: Relayed, W: Relayed>(&mut self, cx: &mut Context<'_>, source: &R, target: &W) -> io::Result<Next> {
        let (Some(from), Some(to)) = (source.reads_from(), target.writes_to()) else {
            self.stage = Stage::Copying;
            return Ok(Next::Step);
        };
        let splicer = &mut self.splicer;
        if splicer.held() > 0 {
            let drained = poll_socket(cx, to, Interest::WRITABLE, &mut self.writing, || {
                let count = splicer.drain(to)?;
                // The kernel may stop early although there is room: only refusal shows that there is none.
                Ok((count, false))
            });
            return Ok(match drained {
                Poll::Ready(Ok(0)) => self.fail(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.total += count as u64;
                    Next::Step
                }
                Poll::Ready(Err(error)) => self.fail(error),
                Poll::Pending => Next::Wait,
            });
        }
        let filled = poll_socket(cx, from, Interest::READABLE, &mut self.reading, || {
            Ok((splicer.fill(from, usize::MAX)?, false))
        });
        match filled {
            Poll::Ready(Ok(Filled::Bytes(_))) => {}
            Poll::Ready(Ok(Filled::End)) => {
                splicer.give_back();
                self.stage = Stage::Ending;
            }
            Poll::Ready(Ok(Filled::Unable)) => {
                self.may_splice = false;
                self.stage = Stage::Copying;
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {
                // A burst that would have fitted into one read was no bulk: small messages are cheaper to copy.
                if splicer.burst_ends().is_some_and(|burst| burst < BULK) {
                    self.stage = Stage::Copying;
                }
                return Ok(Next::Wait);
            }
        }
        Ok(Next::Step)
    }

    fn end<W: Relayed>(&mut self, cx: &mut Context<'_>, target: &mut W) -> Next {
        match Pin::new(target).poll_shutdown(cx) {
            Poll::Pending => Next::Wait,
            Poll::Ready(Err(error)) if error.kind() != io::ErrorKind::NotConnected => self.fail(error),
            // Shutting down what the other side has closed entirely is no failure.
            Poll::Ready(_) => {
                self.stage = Stage::Ended;
                Next::Step
            }
        }
    }

    fn fail(&mut self, error: io::Error) -> Next {
        self.error = Some(error);
        self.stage = Stage::Ended;
        self.buffer.discard();
        self.splicer = Splicer::default();
        Next::Step
    }
}
