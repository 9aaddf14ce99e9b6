//! One connection.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, tcp};

/// A connection, real or simulated.
pub enum Stream {
    /// The kernel's.
    Tcp(TcpStream),
    /// turmoil's.
    #[cfg(feature = "sim")]
    Sim(turmoil::net::TcpStream),
}

/// The reading side of a [`Stream`].
pub enum ReadHalf {
    /// The kernel's.
    Tcp(tcp::OwnedReadHalf),
    /// turmoil's.
    #[cfg(feature = "sim")]
    Sim(turmoil::net::tcp::OwnedReadHalf),
}

/// The writing side of a [`Stream`]. Dropping it sends the end of the stream.
pub enum WriteHalf {
    /// The kernel's.
    Tcp(tcp::OwnedWriteHalf),
    /// turmoil's.
    #[cfg(feature = "sim")]
    Sim(turmoil::net::tcp::OwnedWriteHalf),
}

/// Runs the same expression on whichever variant it is.
macro_rules! either {
    ($kind:ident, $value:expr, $inner:ident => $result:expr) => {
        match $value {
            $kind::Tcp($inner) => $result,
            #[cfg(feature = "sim")]
            $kind::Sim($inner) => $result,
        }
    };
}

impl Stream {
    /// The other end.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        either!(Stream, self, stream => stream.peer_addr())
    }

    /// This end. On a connection captured by TPROXY: the original destination.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        either!(Stream, self, stream => stream.local_addr())
    }

    /// The kernel's socket, for what only it can do: `try_read`, `try_write`, `splice`. `None` in a simulation, where callers copy.
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(stream) => Some(stream),
            #[cfg(feature = "sim")]
            Stream::Sim(_) => None,
        }
    }

    /// Waits for bytes and copies them without taking them; 0 at the end of the stream. It returns at once when any byte is
    /// there, so it cannot wait for *more* than was seen: use [`Prefixed`](crate::Prefixed) for that.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(Stream, self, stream => stream.peek(buffer).await)
    }

    /// Both sides apart, without a lock between them.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Stream::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            #[cfg(feature = "sim")]
            Stream::Sim(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Sim(read), WriteHalf::Sim(write))
            }
        }
    }

    /// Ends the connection with a reset, so that the other end cannot take a cut stream for a whole one. A simulated
    /// connection is only closed.
    pub fn reset(self) {
        match &self {
            // A failure means that the connection is gone already.
            Stream::Tcp(stream) => drop(SockRef::from(stream).set_linger(Some(Duration::ZERO))),
            #[cfg(feature = "sim")]
            Stream::Sim(_) => {}
        }
    }
}

/// Where a connection redirected by the packet filter (`REDIRECT`) was going, from connection tracking. `None` when it was not
/// redirected.
pub fn original_dst(stream: &Stream) -> Option<SocketAddr> {
    let tcp = stream.as_tcp()?;
    let local = tcp.local_addr().ok()?;
    let socket = SockRef::from(tcp);
    let found = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // Connection tracking also answers for connections that nobody redirected: with the address they came to.
    found.ok()?.as_socket().filter(|original| *original != local)
}

/// Limits how long sent bytes may stay unacknowledged before the kernel gives the connection up (`TCP_USER_TIMEOUT`, RFC 5482).
/// Does nothing in a simulation.
pub fn set_user_timeout(stream: &Stream, limit: Duration) {
    if let Some(tcp) = stream.as_tcp() {
        // Only ever fails on a connection that is gone.
        let _ = SockRef::from(tcp).set_tcp_user_timeout(Some(limit));
    }
}

/// Has the kernel probe an idle connection: first after `idle`, then every `interval`, given up after `probes` unanswered ones.
/// Both times are whole seconds to the kernel, at least one. Does nothing in a simulation.
pub fn set_keepalive(stream: &Stream, idle: Duration, interval: Duration, probes: u32) {
    if let Some(tcp) = stream.as_tcp() {
        let second = Duration::from_secs(1);
        let params = TcpKeepalive::new()
            .with_time(idle.max(second))
            .with_interval(interval.max(second))
            .with_retries(probes.max(1));
        let _ = SockRef::from(tcp).set_tcp_keepalive(&params);
    }
}

macro_rules! reads {
    ($kind:ident) => {
        impl AsyncRead for $kind {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                either!($kind, self.get_mut(), inner => Pin::new(inner).poll_read(cx, buffer))
            }
        }
    };
}

macro_rules! writes {
    ($kind:ident) => {
        impl AsyncWrite for $kind {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                either!($kind, self.get_mut(), inner => Pin::new(inner).poll_write(cx, bytes))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                either!($kind, self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, slices))
            }

            fn is_write_vectored(&self) -> bool {
                either!($kind, self, inner => inner.is_write_vectored())
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!($kind, self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                either!($kind, self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
            }
        }
    };
}

reads!(Stream);
reads!(ReadHalf);
writes!(Stream);
writes!(WriteHalf);

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?} to {:?})", self.local_addr().ok(), self.peer_addr().ok())
    }
}
