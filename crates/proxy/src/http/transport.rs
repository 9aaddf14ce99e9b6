//! What bytes of HTTP travel over: a socket, or TLS over one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use veer_identity::TlsStream;
use veer_net::Stream;

use crate::socket::{Armed, poll_recv, poll_send};

/// One type for all, so that the engine is compiled once.
pub enum Transport {
    /// As it is.
    Plain(Stream, Armed),
    /// TLS.
    Sealed(Box<TlsStream<Stream>>),
    /// It was taken away: an upgraded connection belongs to somebody else.
    Gone,
}

impl Transport {
    /// The kernel's socket, when bytes go through it as they are.
    pub fn socket(&self) -> Option<&TcpStream> {
        match self {
            Transport::Plain(stream, _) => stream.as_tcp(),
            Transport::Sealed(_) | Transport::Gone => None,
        }
    }

    /// The same, with the places where wakers wait.
    pub fn raw(&mut self) -> Option<(&TcpStream, &mut Armed)> {
        match self {
            Transport::Plain(stream, armed) => Some((stream.as_tcp()?, armed)),
            Transport::Sealed(_) | Transport::Gone => None,
        }
    }

    /// Another task has it from here on, whose waker is nowhere yet.
    pub fn change_hands(&mut self) {
        if let Transport::Plain(_, armed) = self {
            *armed = Armed::default();
        }
    }

    /// Whether the peer has refused what was sent to it (a reset).
    pub fn is_refused(&self) -> bool {
        let stream = match self {
            Transport::Plain(stream, _) => stream,
            Transport::Sealed(stream) => stream.get_ref().0,
            Transport::Gone => return true,
        };
        stream.as_tcp().is_some_and(|socket| !matches!(socket.take_error(), Ok(None)))
    }

    /// Whether what was written may still wait in a buffer of its own.
    pub fn is_buffered(&self) -> bool {
        matches!(self, Transport::Sealed(_))
    }
}

impl From<Stream> for Transport {
    fn from(stream: Stream) -> Self {
        Transport::Plain(stream, Armed::default())
    }
}

impl From<TlsStream<Stream>> for Transport {
    fn from(stream: TlsStream<Stream>) -> Self {
        Transport::Sealed(Box::new(stream))
    }
}

/// Runs the same expression on whichever it is.
macro_rules! each {
    ($value:expr, $inner:ident => $result:expr, $gone:expr) => {
        match $value {
            Transport::Plain($inner, _) => $result,
            Transport::Sealed($inner) => $result,
            Transport::Gone => $gone,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        if let Transport::Plain(Stream::Tcp(socket), armed) = io {
            return poll_recv(cx, socket, &mut armed.read, buffer);
        }
        each!(io, io => Pin::new(io).poll_read(cx, buffer), Poll::Ready(Ok(())))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        if let Transport::Plain(Stream::Tcp(socket), armed) = io {
            return poll_send(cx, socket, &mut armed.write, &[IoSlice::new(bytes)]);
        }
        each!(io, io => Pin::new(io).poll_write(cx, bytes), Poll::Ready(gone()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        if let Transport::Plain(Stream::Tcp(socket), armed) = io {
            return poll_send(cx, socket, &mut armed.write, slices);
        }
        each!(io, io => Pin::new(io).poll_write_vectored(cx, slices), Poll::Ready(gone()))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored(), false)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx), Poll::Ready(Ok(())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx), Poll::Ready(Ok(())))
    }
}

fn gone() -> io::Result<usize> {
    Err(io::ErrorKind::NotConnected.into())
}
