//! Relaying bytes between two connections, both ways, until both have ended.
//!
//! Each direction ends by itself (half-close): an end of stream is passed on, and the other direction goes on. A
//! direction starts copying through a small borrowed buffer; once a read fills it, and both sides are sockets of the
//! kernel, the bytes go through a pipe instead (`splice.rs`). Nothing is held while a connection is idle, neither
//! buffer nor pipe.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use veer_net::{Prefixed, Stream};

use crate::splice::{Filled, Splicer};

/// How long a connection may be silent in both directions, unless told otherwise. Envoy's default, and short of the two
/// hours after which TCP keep-alive would begin to ask.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(3600);

/// A read that fills this much is bulk. Also the largest plaintext of a TLS record.
const BUFFER: usize = 16 * 1024;

/// Buffers kept per thread for the next read.
const KEPT_BUFFERS: usize = 64;

/// What one direction may move before others get their turn on the thread.
const TURN: usize = 512 * 1024;

/// How a relay behaves.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// Ends the relay after this long without a byte in either direction.
    pub idle: Duration,
    /// Whether the kernel may move the bytes itself.
    pub splice: bool,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self { idle: DEFAULT_IDLE, splice: true }
    }
}

/// One of the two ways of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the first connection to the second; by custom the caller is the first.
    Up,
    /// From the second to the first.
    Down,
}

/// One of the two connections of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first: by custom the caller.
    First,
    /// The second: by custom the callee.
    Second,
}

/// What a relay did.
#[derive(Debug)]
pub struct Report {
    /// Bytes written to the second connection.
    pub up: u64,
    /// Bytes written to the first connection.
    pub down: u64,
    /// Why it ended.
    pub end: End,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both directions ended in order.
    Closed,
    /// Nobody said anything for the idle time.
    Idle,
    /// A connection broke. Bytes may be missing, and neither side was told that its stream is whole.
    Failed {
        /// Whose connection.
        side: Side,
        /// How.
        error: io::Error,
    },
}

/// Hears of bytes as they are written, also when the relay is dropped before its end.
pub trait Meter {
    /// So many more bytes went in this direction.
    fn moved(&mut self, direction: Direction, bytes: u64);
}

impl Meter for () {
    fn moved(&mut self, _: Direction, _: u64) {}
}

impl<F: FnMut(Direction, u64)> Meter for F {
    fn moved(&mut self, direction: Direction, bytes: u64) {
        self(direction, bytes);
    }
}

/// A connection that can be relayed. The kernel's socket, where there is one, lets bytes pass without being copied.
pub trait Relayed: AsyncRead + AsyncWrite + Unpin {
    /// The socket whose next byte is the stream's next byte, when that is so now.
    fn reads_from(&self) -> Option<&TcpStream> {
        None
    }

    /// The socket to which a written byte goes as it is.
    fn writes_to(&self) -> Option<&TcpStream> {
        None
    }
}

impl Relayed for Stream {
    fn reads_from(&self) -> Option<&TcpStream> {
        self.as_tcp()
    }
    fn writes_to(&self) -> Option<&TcpStream> {
        self.as_tcp()
    }
}

impl<S: Relayed> Relayed for Prefixed<S> {
    fn reads_from(&self) -> Option<&TcpStream> {
        if self.seen().is_empty() { self.get_ref().reads_from() } else { None }
    }
    fn writes_to(&self) -> Option<&TcpStream> {
        self.get_ref().writes_to()
    }
}

/// A connection whose bytes are always copied: TLS, upgraded HTTP, in-memory pipes.
#[derive(Debug)]
pub struct Copied<S>(pub S);

impl<S: AsyncRead + Unpin> AsyncRead for Copied<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Copied<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Relayed for Copied<S> {}

/// Relays until both directions have ended, one side breaks, or nothing moved for the idle time.
///
/// Where the end is not [`End::Closed`], sockets of the kernel are set to reset when dropped, so that a cut stream is
/// not taken for a whole one.
///
/// # Cancel safety
/// Dropping it loses bytes in flight; drop the connections with it. The meter has counted all that was written.
pub async fn relay<A: Relayed, B: Relayed>(
    first: &mut A,
    second: &mut B,
    options: RelayOptions,
    meter: &mut impl Meter,
) -> Report {
    let mut up = Pump::new(options.splice);
    let mut down = Pump::new(options.splice);
    let mut upward_first = true;
    let mut active = Instant::now();
    let mut alarm = std::pin::pin!(sleep_until(active + options.idle));

    let end = poll_fn(|cx| {
        let before = up.total + down.total;
        let mut turn = |direction: Direction, cx: &mut Context<'_>| match direction {
            Direction::Up => up.poll(cx, first, second, &mut |n| meter.moved(Direction::Up, n)),
            Direction::Down => down.poll(cx, second, first, &mut |n| meter.moved(Direction::Down, n)),
        };
        // Both share the task's budget; taking turns at being first keeps a saturated direction from starving the
        // other.
        let order = if upward_first { [Direction::Up, Direction::Down] } else { [Direction::Down, Direction::Up] };
        upward_first = !upward_first;
        for direction in order {
            // What could not be read ends everything at once: there is nobody left to take the other direction either.
            if let Poll::Ready(Err(error)) = turn(direction, cx) {
                let side = if direction == Direction::Up { Side::First } else { Side::Second };
                return Poll::Ready(End::Failed { side, error });
            }
        }
        if up.ended() && down.ended() {
            // What could not be written ended its direction only: the other side's last words were still delivered.
            let unwritten = |pump: &mut Pump, side| pump.unwritten.take().map(|error| End::Failed { side, error });
            let failed = unwritten(&mut up, Side::Second).or_else(|| unwritten(&mut down, Side::First));
            return Poll::Ready(failed.unwrap_or(End::Closed));
        }
        if up.total + down.total != before {
            active = Instant::now();
        }
        while alarm.as_mut().poll(cx).is_ready() {
            // Re-armed only when it fires: a busy connection does not touch the timer wheel.
            let due = active + options.idle;
            if due <= Instant::now() {
                return Poll::Ready(End::Idle);
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await;

    let report = Report { up: up.total, down: down.total, end };
    if !matches!(report.end, End::Closed) {
        for socket in [first.writes_to(), second.writes_to()].into_iter().flatten() {
            // A failure means that the connection is gone already.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }
    report
}

/// One direction.
struct Pump {
    stage: Stage,
    buffer: Buffer,
    splicer: Splicer,
    may_splice: bool,
    /// Bytes of the present burst that went through the pipe.
    burst: usize,
    unflushed: bool,
    total: u64,
    unwritten: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Copying,
    Splicing,
    /// The source has ended; tell the target.
    Ending,
    Ended,
}

impl Pump {
    fn new(may_splice: bool) -> Self {
        Self {
            stage: Stage::Copying,
            buffer: Buffer::default(),
            splicer: Splicer::default(),
            may_splice,
            burst: 0,
            unflushed: false,
            total: 0,
            unwritten: None,
        }
    }

    fn ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Moves what can be moved now. An error is one of reading; one of writing ends the direction and is kept.
    fn poll<R: Relayed, W: Relayed>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        target: &mut W,
        moved: &mut impl FnMut(u64),
    ) -> Poll<io::Result<()>> {
        let turn_ends = self.total + TURN as u64;
        loop {
            if self.total >= turn_ends {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let written = match self.stage {
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Ending => ready!(Pin::new(&mut *target).poll_shutdown(cx)).map(|()| {
                    self.stage = Stage::Ended;
                    0
                }),
                Stage::Copying if !self.buffer.is_empty() => ready!(self.buffer.poll_write(cx, target)).inspect(|_| {
                    self.unflushed = true;
                }),
                Stage::Copying => match self.buffer.poll_read(cx, source)? {
                    Poll::Ready(0) => {
                        self.stage = Stage::Ending;
                        continue;
                    }
                    Poll::Ready(_) => {
                        self.stage = self.stage_after_read(source, target);
                        continue;
                    }
                    Poll::Pending if self.unflushed => ready!(Pin::new(&mut *target).poll_flush(cx)).map(|()| {
                        self.unflushed = false;
                        0
                    }),
                    Poll::Pending => return Poll::Pending,
                },
                // The read that showed bulk is still in the buffer.
                Stage::Splicing if !self.buffer.is_empty() => ready!(self.buffer.poll_write(cx, target)),
                Stage::Splicing => match self.poll_splice(cx, source, target)? {
                    Poll::Ready(written) => written,
                    Poll::Pending => return Poll::Pending,
                },
            };
            match written {
                Ok(0) => {}
                Ok(count) => {
                    self.total += count as u64;
                    moved(count as u64);
                }
                // Shutting down what the other side has closed entirely is no failure.
                Err(error) if self.stage == Stage::Ending && error.kind() == io::ErrorKind::NotConnected => {
                    self.stage = Stage::Ended;
                }
                Err(error) => {
                    self.unwritten = Some(error);
                    self.stage = Stage::Ended;
                    self.buffer.discard();
                    self.splicer = Splicer::default();
                }
            }
        }
    }

    fn stage_after_read<R: Relayed, W: Relayed>(&mut self, source: &R, target: &W) -> Stage {
        let bulk = self.may_splice && self.buffer.is_full();
        if bulk && source.reads_from().is_some() && target.writes_to().is_some() {
            self.burst = 0;
            Stage::Splicing
        } else {
            Stage::Copying
        }
    }

    /// One step through the pipe. The outer error is one of reading.
    fn poll_splice<R: Relayed, W: Relayed>(
        &mut self,
        cx: &mut Context<'_>,
        source: &R,
        target: &W,
    ) -> io::Result<Poll<io::Result<usize>>> {
        let (Some(from), Some(to)) = (source.reads_from(), target.writes_to()) else {
            self.stage = Stage::Copying;
            return Ok(Poll::Ready(Ok(0)));
        };
        if self.splicer.held() > 0 {
            return Ok(self.splicer.poll_drain(cx, to));
        }
        match self.splicer.poll_fill(cx, from)? {
            Poll::Ready(Filled::Bytes(count)) => self.burst += count,
            Poll::Ready(Filled::End) => {
                self.splicer.give_back();
                self.stage = Stage::Ending;
            }
            Poll::Ready(Filled::Unable) => {
                self.may_splice = false;
                self.stage = Stage::Copying;
            }
            Poll::Pending => {
                // A burst that would have fitted the buffer was no bulk: small messages are cheaper to copy.
                if self.burst < BUFFER {
                    self.stage = Stage::Copying;
                }
                self.burst = 0;
                return Ok(Poll::Pending);
            }
        }
        Ok(Poll::Ready(Ok(0)))
    }
}

thread_local! {
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes read and not yet written. Holds memory only while there are any.
#[derive(Default)]
struct Buffer {
    memory: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn is_full(&self) -> bool {
        self.end - self.start == BUFFER
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, source: &mut (impl AsyncRead + Unpin)) -> io::Result<Poll<usize>> {
        let mut memory = self.memory.take().or_else(|| BUFFERS.with_borrow_mut(Vec::pop));
        let memory = memory.get_or_insert_with(|| vec![0; BUFFER].into_boxed_slice());
        let mut filling = ReadBuf::new(memory);
        let polled = Pin::new(source).poll_read(cx, &mut filling);
        let count = filling.filled().len();
        self.memory = Some(std::mem::take(memory));
        (self.start, self.end) = (0, count);
        if count == 0 {
            self.discard();
        }
        Ok(polled?.map(|()| count))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, target: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<usize>> {
        let bytes = self.memory.as_deref().unwrap_or_default();
        let count = ready!(Pin::new(target).poll_write(cx, &bytes[self.start..self.end]))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.start += count;
        if self.is_empty() {
            self.discard();
        }
        Poll::Ready(Ok(count))
    }

    fn discard(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(memory) = self.memory.take() {
            BUFFERS.with_borrow_mut(|buffers| {
                if buffers.len() < KEPT_BUFFERS {
                    buffers.push(memory);
                }
            });
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.discard();
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
