//! Sockets of the kernel, read and written past `poll_read` and `poll_write`: whether a socket is ready is a look at a flag, so
//! that the direction that nothing came for costs nothing, and a waker is left only where the last one was used up.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;

/// At which sides of a socket the waker of the task waits that owns it. To be forgotten when another task takes the socket over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Armed {
    /// Until something comes.
    pub read: bool,
    /// Until there is room.
    pub write: bool,
}

/// Reads what is there, as `AsyncRead::poll_read`.
///
/// # Errors
/// When the connection is lost.
#[allow(unsafe_code)]
pub fn poll_recv(
    cx: &mut Context<'_>,
    socket: &TcpStream,
    armed: &mut bool,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let turn = ready!(coop::poll_proceed(cx));
    let room = buffer.remaining();
    let polled = poll_socket(cx, socket, Interest::READABLE, armed, || {
        // SAFETY: what lies there is only ever written to, and `recv` does not take bytes away that were written before.
        let unfilled = unsafe { buffer.unfilled_mut() };
        let (_, count) = recv(socket, unfilled, RecvFlags::empty())?;
        // Less than was asked for: nothing more is there.
        Ok((count, count < room && count > 0))
    });
    let count = ready!(polled)?;
    turn.made_progress();
    // SAFETY: the kernel has written so many bytes there.
    unsafe { buffer.assume_init(count) };
    buffer.advance(count);
    Poll::Ready(Ok(()))
}

/// Writes what there is room for, as `AsyncWrite::poll_write_vectored`.
///
/// # Errors
/// When the connection is lost.
pub fn poll_send(
    cx: &mut Context<'_>,
    socket: &TcpStream,
    armed: &mut bool,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let turn = ready!(coop::poll_proceed(cx));
    let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
    let polled = poll_socket(cx, socket, Interest::WRITABLE, armed, || {
        let count = match slices {
            [slice] => send(socket, slice, SendFlags::NOSIGNAL)?,
            slices => sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?,
        };
        Ok((count, count < wanted))
    });
    let count = ready!(polled)?;
    turn.made_progress();
    Poll::Ready(Ok(count))
}

/// Runs an operation on a socket that is or becomes ready. The operation also says whether it has shown that another
/// would block. `armed` is kept by the caller: whether the task's waker waits at the socket already.
pub fn poll_socket<T>(
    cx: &mut Context<'_>,
    socket: &TcpStream,
    interest: Interest,
    armed: &mut bool,
    mut operation: impl FnMut() -> Result<(T, bool), Errno>,
) -> Poll<io::Result<T>> {
    loop {
        let mut outcome = None;
        let _ = socket.try_io(interest, || {
            let done = outcome.insert(operation());
            // This is how tokio learns that the socket has to become ready anew.
            let exhausted = matches!(done, Ok((_, true)) | Err(Errno::AGAIN));
            if exhausted { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match outcome {
            Some(Ok((value, _))) => {
                // That the socket was ready has used the waker up.
                *armed = false;
                return Poll::Ready(Ok(value));
            }
            Some(Err(Errno::AGAIN)) => *armed = false,
            Some(Err(Errno::INTR)) => continue,
            Some(Err(error)) => return Poll::Ready(Err(error.into())),
            None if *armed => return Poll::Pending,
            None => {}
        }
        let readiness = if interest.is_readable() { socket.poll_read_ready(cx) } else { socket.poll_write_ready(cx) };
        if readiness.is_pending() {
            // Without budget it is the task that was woken, and no waker left at the socket.
            *armed = coop::has_budget_remaining();
            return Poll::Pending;
        }
        ready!(readiness)?;
    }
}
