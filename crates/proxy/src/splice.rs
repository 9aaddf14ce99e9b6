//! Moving bytes between two sockets inside the kernel: `splice(2)` through a pipe.
//!
//! A pipe is borrowed only while bytes move. An idle connection holds none, so ten thousand of them cost neither
//! descriptors nor pages of the user's pipe quota.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
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
    /// Bytes since the last pause.
    burst: u32,
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
    /// Moves what the source has into the empty pipe, and not more than so many bytes.
    ///
    /// # Errors
    /// [`Errno::AGAIN`] when it has nothing, and what else reading may bring.
    pub(crate) fn fill(&mut self, source: &TcpStream, most: usize) -> Result<Filled, Errno> {
        debug_assert!(self.held() == 0, "filled only when empty, so that EAGAIN always means: the socket is empty");
        let Some(pipe) = self.pipe.take().or_else(Pipe::borrow) else { return Ok(Filled::Unable) };
        let pipe = self.pipe.insert(pipe);
        let most = most.min(pipe.size as usize);
        match splice(source.as_fd(), None, &pipe.write, None, most, SpliceFlags::NONBLOCK) {
            Ok(0) => Ok(Filled::End),
            Ok(count) => {
                pipe.held = count as u32;
                self.burst = self.burst.saturating_add(count as u32);
                Ok(Filled::Bytes(count))
            }
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Filled::Unable),
            Err(error) => Err(error),
        }
    }

    /// Moves bytes from the pipe to the target and says how many; to be called until [`held`](Self::held) is 0.
    ///
    /// # Errors
    /// [`Errno::AGAIN`] when it takes nothing now, and what else writing may bring.
    pub(crate) fn drain(&mut self, target: &TcpStream) -> Result<usize, Errno> {
        let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held > 0) else { return Ok(0) };
        let count = splice(&pipe.read, None, target.as_fd(), None, pipe.held as usize, SpliceFlags::NONBLOCK)?;
        pipe.held = pipe.held.saturating_sub(count as u32);
        Ok(count)
    }

    /// The source has nothing now: leaves the pipe to others, and says how many bytes came since the last pause, if
    /// any.
    pub(crate) fn burst_ends(&mut self) -> Option<usize> {
        self.give_back();
        let burst = std::mem::take(&mut self.burst);
        (burst > 0).then_some(burst as usize)
    }

    /// Bytes in the pipe.
    pub(crate) fn held(&self) -> usize {
        self.pipe.as_ref().map_or(0, |pipe| pipe.held as usize)
    }

    /// Leaves an empty pipe to others.
    pub(crate) fn give_back(&mut self) {
        if let Some(pipe) = self.pipe.take_if(|pipe| pipe.held == 0) {
            // Fails only while the thread ends.
            let _ = PIPES.try_with(|pipes| {
                let mut pipes = pipes.borrow_mut();
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
    size: u32,
    held: u32,
}

impl Pipe {
    fn borrow() -> Option<Self> {
        PIPES.with_borrow_mut(Vec::pop).or_else(Self::open)
    }

    fn open() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let size = fcntl_setpipe_size(&write, PIPE_SIZE).unwrap_or(64 * 1024);
        Some(Self { read, write, size: size as u32, held: 0 })
    }
}

#[cfg(test)]
pub(crate) fn kept_pipes() -> usize {
    PIPES.with_borrow(Vec::len)
}
