//! Relaying bytes between two connections, both ways, until both have ended.
//!
//! Each direction ends by itself (half-close): an end of stream is passed on, and the other direction goes on. A
//! direction copies through a borrowed buffer until a read shows bulk; then, where both sides are sockets of the kernel,
//! the bytes go through a pipe (`splice.rs`). A connection that is idle holds neither buffer nor pipe nor timer:
//! `pump` moves one direction's bytes, `pulse` is the clock of all.

mod buffer;
mod cut;
mod pulse;
mod pump;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use veer_net::{Prefixed, Stream};

pub use cut::{Cut, Unless};
use pulse::{Call, Place};
use pump::Pump;

/// How long a connection may be silent in both directions, unless told otherwise. Envoy's default, and short of the two
/// hours after which TCP keep-alive would begin to ask.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(3600);

/// How a relay behaves.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// Ends the relay after this long without a byte in either direction: whole seconds, rounded up, and noticed up to
    /// two seconds later.
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

/// Hears of bytes that were written, also when the relay is dropped before its end.
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
/// The meter hears of bytes about once a second while any move, and at the end.
///
/// # Panics
/// Outside of a tokio runtime. The runtime must be one that stays on its thread.
///
/// # Cancel safety
/// Dropping it loses bytes in flight; drop the connections with it. The meter has counted all that was written.
pub fn relay<'a, A: Relayed, B: Relayed, M: Meter>(
    first: &'a mut A,
    second: &'a mut B,
    options: RelayOptions,
    meter: &'a mut M,
) -> Relaying<'a, A, B, M> {
    Relaying {
        first,
        second,
        meter,
        up: Pump::new(options.splice),
        down: Pump::new(options.splice),
        place: Place::take(options.idle),
        told: (0, 0),
        upward_first: true,
        noted: false,
    }
}

/// A relay that is running: the future of [`relay`]. Not an `async fn`, because that would hold its arguments twice.
#[must_use = "futures do nothing unless polled"]
pub struct Relaying<'a, A, B, M: Meter> {
    first: &'a mut A,
    second: &'a mut B,
    meter: &'a mut M,
    up: Pump,
    down: Pump,
    place: Place,
    /// What the meter knows, up and down.
    told: (u64, u64),
    upward_first: bool,
    /// The pulse knows that there is something to tell.
    noted: bool,
}

impl<A: Relayed, B: Relayed, M: Meter> Future for Relaying<'_, A, B, M> {
    type Output = Report;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Report> {
        let this = &mut *self;
        let Poll::Ready(end) = this.turn(cx) else { return Poll::Pending };
        if !matches!(end, End::Closed) {
            for socket in [this.first.writes_to(), this.second.writes_to()].into_iter().flatten() {
                // A failure means that the connection is gone already.
                let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
        }
        this.tell();
        Poll::Ready(Report { up: this.up.total, down: this.down.total, end })
    }
}

impl<A: Relayed, B: Relayed, M: Meter> Relaying<'_, A, B, M> {
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let heard = self.place.hear(cx.waker());
        if heard.new_waker {
            self.up.forget_waker();
            self.down.forget_waker();
        }
        if heard.call == Call::Tell {
            self.tell();
            self.noted = false;
        }
        // Taking turns at being first keeps a saturated direction from starving the other: both share the task's budget.
        self.upward_first = !self.upward_first;
        let broken = if self.upward_first {
            self.pump_up(cx).or_else(|| self.pump_down(cx))
        } else {
            self.pump_down(cx).or_else(|| self.pump_up(cx))
        };
        // What could not be read ends everything at once: there is nobody left to take the other direction either.
        if let Some(end) = broken {
            return Poll::Ready(end);
        }
        if self.up.ended() && self.down.ended() {
            // What could not be written ended its direction only: the other side's last words were still delivered.
            let failed = |pump: &mut Pump, side| pump.unwritten().map(|error| End::Failed { side, error });
            let failed = failed(&mut self.up, Side::Second).or_else(|| failed(&mut self.down, Side::First));
            return Poll::Ready(failed.unwrap_or(End::Closed));
        }
        let moved = (self.up.total, self.down.total) != self.told;
        if moved && !self.noted {
            self.noted = true;
            self.place.moved();
        }
        if heard.call == Call::Idle && !moved {
            return Poll::Ready(End::Idle);
        }
        Poll::Pending
    }

    #[inline(never)]
    fn pump_up(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let error = self.up.poll(cx, self.first, self.second)?;
        Some(End::Failed { side: Side::First, error })
    }

    #[inline(never)]
    fn pump_down(&mut self, cx: &mut Context<'_>) -> Option<End> {
        let error = self.down.poll(cx, self.second, self.first)?;
        Some(End::Failed { side: Side::Second, error })
    }
}

impl<A, B, M: Meter> Relaying<'_, A, B, M> {
    fn tell(&mut self) {
        let told = std::mem::replace(&mut self.told, (self.up.total, self.down.total));
        for (direction, bytes) in [(Direction::Up, self.told.0 - told.0), (Direction::Down, self.told.1 - told.1)] {
            if bytes > 0 {
                self.meter.moved(direction, bytes);
            }
        }
    }
}

impl<A, B, M: Meter> Drop for Relaying<'_, A, B, M> {
    fn drop(&mut self) {
        self.tell();
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
