//! Moving bytes between two sockets inside the kernel: `splice(2)` through a pipe.
//!
//! A pipe is borrowed only while bytes move. An idle connection holds none, so ten thousand of them cost neither
//! descriptors nor pages of the user's pipe quota.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Wanted capacity of a pipe: a burst of a fast link between two wake-ups. The kernel's default is 64 KiB, which
/// stays when the user's quota (`fs.pipe-user-pages-soft`) is used up.
const PIPE_SIZE: usize = 256 * 1024;

/// Pipes kept per thread for the next burst.
const KEPT_PIPES: usize = 32;

thread_local! {
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// One direction's bytes on their way through the kernel.
#[derive(Debug, Default)]
pub(crate) struct Splicer {
    pipe: Option<Pipe>,
}

/// What a read did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// So many bytes are in the pipe now.
    Bytes(usize),
    /// The source has ended.
    End,
    /// The kernel does not splice these sockets, or no pipe is to be had: copy instead. No byte was taken.
    Unable,
}

impl Splicer {
    /// Moves what the source has into the empty pipe. While it is pending no pipe is held.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, source: &TcpStream) -> Poll<io::Result<Filled>> {
        debug_assert!(self.held() == 0, "filled only when empty, so that EAGAIN always means: the socket is empty");
        loop {
            match source.poll_read_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.give_back();
                    return Poll::Pending;
                }
            }
            let Some(pipe) = self.pipe.take().or_else(Pipe::borrow) else { return Poll::Ready(Ok(Filled::Unable)) };
            let pipe = self.pipe.insert(pipe);
            let moved = source.try_io(Interest::READABLE, || {
                Ok(splice(source.as_fd(), None, &pipe.write, None, pipe.size, SpliceFlags::NONBLOCK)?)
            });
            match moved {
                Ok(0) => return Poll::Ready(Ok(Filled::End)),
                Ok(count) => {
                    pipe.held = count;
                    return Poll::Ready(Ok(Filled::Bytes(count)));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => return Poll::Ready(Ok(Filled::Unable)),
                    _ => return Poll::Ready(Err(error)),
                },
            }
        }
    }

    /// Moves bytes from the pipe to the target and says how many; call it until [`held`](Self::held) is 0.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>, target: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held > 0) else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(target.poll_write_ready(cx))?;
            let moved = target.try_io(Interest::WRITABLE, || {
                Ok(splice(&pipe.read, None, target.as_fd(), None, pipe.held, SpliceFlags::NONBLOCK)?)
            });
            match moved {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    pipe.held -= count.min(pipe.held);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Bytes in the pipe.
    pub(crate) fn held(&self) -> usize {
        self.pipe.as_ref().map_or(0, |pipe| pipe.held)
    }

    /// Leaves an empty pipe to others.
    pub(crate) fn give_back(&mut self) {
        if let Some(pipe) = self.pipe.take_if(|pipe| pipe.held == 0) {
            PIPES.with_borrow_mut(|pipes| {
                if pipes.len() < KEPT_PIPES {
                    pipes.push(pipe);
                }
            });
        }
    }
}

impl Drop for Splicer {
    fn drop(&mut self) {
        // A pipe that still holds bytes of a broken connection is closed, never lent again.
        self.give_back();
    }
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    held: usize,
}

impl Pipe {
    fn borrow() -> Option<Self> {
        PIPES.with_borrow_mut(Vec::pop).or_else(Self::open)
    }

    fn open() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let size = fcntl_setpipe_size(&write, PIPE_SIZE).unwrap_or(64 * 1024);
        Some(Self { read, write, size, held: 0 })
    }
}

#[cfg(test)]
pub(crate) fn kept_pipes() -> usize {
    PIPES.with_borrow(Vec::len)
}
