//! A stream as a pipe of bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::body::Frame;
use super::Half;

/// A stream as a pipe of bytes: the inside of `CONNECT`.
pub struct Tunnel {
    half: Half,
    unread: Bytes,
}

impl Tunnel {
    /// Over a stream whose heads were exchanged.
    pub fn new(half: Half) -> Self {
        Self { half, unread: Bytes::new() }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.half.poll_frame(cx)) {
                Some(Ok(Frame::Data(data))) => self.unread = data,
                Some(Ok(Frame::Trailers(_))) => {}
                Some(Err(_)) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut data = Bytes::copy_from_slice(bytes);
        self.half.data(&mut data, false);
        let taken = bytes.len() - data.len();
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        ready!(self.half.poll_reset(cx));
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.half.data(&mut Bytes::new(), true) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.half.poll_reset(cx));
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}
