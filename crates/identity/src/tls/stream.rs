//! The stream that callers see.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::HandshakeKind;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Wire;

/// A TLS 1.3 connection over `S`, of either role, made by [`connect`](crate::connect) and [`accept`](crate::accept).
///
/// Writing collects: bytes leave when the stream is flushed or shut down, when 64 KiB are together, or when a read finds
/// nothing to read. A reader that can use bytes where they lie takes them by [`AsyncBufRead`]; a reader with its own buffer has
/// whole records opened straight into it. Buffers are borrowed from the thread while bytes are under way, 64 KiB for each
/// direction; an idle stream has none.
///
/// `poll_shutdown` sends `close_notify` and shuts down the writing side of `S`; reading goes on (RFC 8446 §6.1). An end without
/// `close_notify` is an error of kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). What the peer did wrong, or said by an
/// alert, is an error that [`HandshakeError::from_io`](crate::HandshakeError::from_io) reads.
///
/// # Cancel safety
/// Polling functions lose nothing when their future is dropped.
pub struct TlsStream<S> {
    io: S,
    wire: Wire,
    session: Session,
}

/// What the handshake agreed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    pub(crate) alpn: Option<Box<[u8]>>,
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) kind: Option<HandshakeKind>,
}

impl Session {
    /// The application protocol (RFC 7301), if any.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// On a server, the name that the client asked for (RFC 6066 §3).
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Full, or resumed with a ticket of an earlier connection.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.kind
    }
}

impl<S> TlsStream<S> {
    pub(super) fn new(io: S, wire: Wire, session: Session) -> Self {
        Self { io, wire, session }
    }

    #[cfg(test)]
    pub(super) fn into_parts(self) -> (S, Wire) {
        (self.io, self.wire)
    }

    #[cfg(test)]
    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// The stream below, and what the handshake agreed on.
    pub fn get_ref(&self) -> (&S, &Session) {
        (&self.io, &self.session)
    }

    /// Whether all that was written has been given to the stream below.
    pub fn is_flushed(&self) -> bool {
        self.wire.outbox.is_empty()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Refuses the peer: sends the error's alert as far as the socket takes it at once. Gives the error back.
    pub(crate) async fn refuse(mut self, error: rustls::Error) -> rustls::Error {
        std::future::poll_fn(|cx| {
            let _ = self.wire.fail(&mut self.io, cx, error.clone());
            let _ = Pin::new(&mut self.io).poll_flush(cx);
            Poll::Ready(())
        })
        .await;
        error
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = into.remaining();
        if this.wire.inbox.plain().is_empty() && !ready!(this.wire.poll_fill(&mut this.io, cx, Some(into)))? {
            return Poll::Ready(Ok(()));
        }
        if into.remaining() == before {
            let plain = this.wire.inbox.plain();
            let count = plain.len().min(before);
            into.put_slice(&plain[..count]);
            this.wire.inbox.consume(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncBufRead for TlsStream<S> {
    /// The next plaintext, where it lies: what is left of one record.
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.wire.inbox.plain().is_empty() && !ready!(this.wire.poll_fill(&mut this.io, cx, None))? {
            return Poll::Ready(Ok(&[]));
        }
        Poll::Ready(Ok(this.wire.inbox.plain()))
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        self.get_mut().wire.inbox.consume(count);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.wire.poll_push(&mut this.io, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut taken = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match this.wire.poll_push(&mut this.io, cx, slice) {
                Poll::Ready(Ok(count)) => {
                    taken += count;
                    if count < slice.len() {
                        break;
                    }
                }
                // What was taken counts; the next write meets the same again.
                _ if taken > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.wire.poll_write_out(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.wire.poll_close(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("session", &self.session).finish_non_exhaustive()
    }
}
