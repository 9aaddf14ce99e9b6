//! Looking at the first bytes of a connection before deciding what it is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// A connection whose first bytes were read ahead and will be read again.
///
/// Detection calls [`fill`](Self::fill) until it has seen enough, looks at [`seen`](Self::seen), and hands the whole on: a reader
/// gets the same bytes as if nobody had looked. Unlike peeking at the socket it can wait for more bytes, works over anything, and
/// costs nothing once the bytes were replayed.
#[derive(Debug)]
pub struct Prefixed<S> {
    inner: S,
    prefix: Vec<u8>,
    replayed: usize,
}

impl<S> Prefixed<S> {
    /// Nothing read ahead yet.
    pub fn new(inner: S) -> Self {
        Self { inner, prefix: Vec::new(), replayed: 0 }
    }

    /// With bytes that someone else has read from the connection already.
    pub fn with_prefix(inner: S, prefix: Vec<u8>) -> Self {
        Self { inner, prefix, replayed: 0 }
    }

    /// What was read ahead and not yet replayed.
    pub fn seen(&self) -> &[u8] {
        &self.prefix[self.replayed..]
    }

    /// The connection below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The connection below. Whoever reads from it gets what comes after [`seen`](Self::seen).
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The connection and what was read ahead of it.
    pub fn into_parts(mut self) -> (S, Vec<u8>) {
        self.prefix.drain(..self.replayed);
        (self.inner, self.prefix)
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    /// Waits for more bytes, up to `limit` in all; 0 when the stream has ended or the limit is reached. May be dropped at any
    /// time without losing a byte.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn fill(&mut self, limit: usize) -> io::Result<usize> {
        /// One read of a TLS ClientHello or a request head; more costs another turn.
        const STEP: usize = 2048;
        let room = limit.saturating_sub(self.seen().len()).min(STEP);
        if room == 0 {
            return Ok(0);
        }
        self.prefix.reserve(room);
        // `take` bounds the read, `read_buf` appends without clearing first, and is cancel safe.
        (&mut self.inner).take(room as u64).read_buf(&mut self.prefix).await
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.replayed < this.prefix.len() {
            let rest = &this.prefix[this.replayed..];
            let count = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..count]);
            this.replayed += count;
            if this.replayed == this.prefix.len() {
                // An idle connection should not hold its first bytes for its life.
                this.prefix = Vec::new();
                this.replayed = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
