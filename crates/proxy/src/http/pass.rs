//! Large bodies that nobody looks at: from one socket of the kernel to another through a pipe, without a copy.

use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::body::Outgoing;
use super::send::SendFault;
use super::wire::SharedWire;
use crate::socket::poll_socket;
use crate::splice::{Filled, Splicer};

/// Where more of a body than this is left, it goes through a pipe: for less, two more system calls cost what copying does.
pub const WORTHWHILE: u64 = 64 * 1024;
/// What one body may move before others get their turn on the thread.
const TURN: usize = 1024 * 1024;

/// A body under way through the kernel.
pub struct Passing {
    splicer: Splicer,
    source: SharedWire,
    /// Bytes that are not in the pipe yet. Counted here: once they all are, the source may serve somebody else.
    left: u64,
}

/// How far it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// All of the body is with the target's kernel.
    All,
    /// What is left must be read: the source has ended early or broke, or the kernel will not do it.
    Unable,
}

impl Passing {
    /// So many bytes that come from the source next.
    pub fn new(source: SharedWire, left: u64) -> Self {
        Self { splicer: Splicer::default(), source, left }
    }

    /// Moves what can be moved now. What comes before was written by the target.
    ///
    /// # Errors
    /// The target's connection is lost.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        target: &SharedWire,
        body: &mut impl Outgoing,
    ) -> Poll<Result<Passed, SendFault>> {
        let Self { splicer, source, left } = self;
        let mut moved = 0;
        loop {
            if splicer.held() > 0 {
                let mut target = target.borrow_mut();
                let Some((socket, armed)) = target.raw() else { return Poll::Ready(Ok(Passed::Unable)) };
                // The kernel may stop early although there is room: only refusal shows that there is none.
                let drained = poll_socket(cx, socket, Interest::WRITABLE, &mut armed.write, || {
                    Ok((splicer.drain(socket)?, false))
                });
                if ready!(drained)? == 0 {
                    return Poll::Ready(Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()));
                }
                continue;
            }
            if *left == 0 {
                splicer.give_back();
                return Poll::Ready(Ok(Passed::All));
            }
            if moved >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let filled = {
                let mut source = source.borrow_mut();
                let Some((socket, armed)) = source.raw() else { return Poll::Ready(Ok(Passed::Unable)) };
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                poll_socket(cx, socket, Interest::READABLE, &mut armed.read, || {
                    Ok((splicer.fill(socket, most)?, false))
                })
            };
            match filled {
                Poll::Ready(Ok(Filled::Bytes(count))) => {
                    moved += count;
                    *left -= count as u64;
                    body.passed(count as u64);
                }
                Poll::Ready(Ok(Filled::End | Filled::Unable) | Err(_)) => {
                    splicer.give_back();
                    return Poll::Ready(Ok(Passed::Unable));
                }
                Poll::Pending => {
                    splicer.give_back();
                    return Poll::Pending;
                }
            }
        }
    }
}
