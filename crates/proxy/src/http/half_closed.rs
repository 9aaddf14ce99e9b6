//! A client of HTTP/1 that has ended its side behind a whole request. It may wait for the answer (RFC 9112 §9.6), or have closed its
//! connection altogether: both begin with the same FIN, and only what is sent to it tells them apart.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// An answer that comes sooner needs no question.
const QUIET: Duration = Duration::from_millis(500);
/// From a question to the reset that answers it, when nobody is there.
const ANSWER: Duration = Duration::from_millis(500);
/// Nothing is waited for any longer on the client's behalf: also one that cannot be asked.
const MOST: Duration = Duration::from_secs(60);

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Send something that a client ignores.
    Ask,
    /// See whether that was refused.
    Listen,
    /// The client is taken to be gone.
    Over,
}

/// Since the client ended its side.
pub struct HalfClosed {
    next: Look,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl HalfClosed {
    /// From now on. A client of HTTP/1.0 cannot be asked: it knows no informational answers.
    pub fn new(can_ask: bool) -> Self {
        let (next, wait) = if can_ask { (Look::Ask, QUIET) } else { (Look::Over, MOST) };
        Self { next, since: Instant::now(), timer: Box::pin(tokio::time::sleep(wait)) }
    }

    /// Ready when there is something to do; to be polled again then, unless it is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Look> {
        ready!(self.timer.as_mut().poll(cx));
        let look = self.next;
        let (next, at) = match look {
            Look::Ask => (Look::Listen, Instant::now() + ANSWER),
            Look::Listen | Look::Over => (Look::Over, self.since + MOST),
        };
        self.next = next;
        self.timer.as_mut().reset(at);
        Poll::Ready(look)
    }
}
