//! Changing the protocol of a connection (RFC 9110 §7.8): WebSocket and whatever else is asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use veer_http::ResponseHead;

use super::body::ResponseBody;
use super::fields;
use super::serve::{Response, Upgraded};
use crate::error::RequestError;
use crate::exchange::Exchange;
use crate::tcp::{Copied, RelayOptions, relay};

/// The upstream agreed: tells the downstream, and relays bytes from then on. What the exchange holds is held as long as the
/// relay runs. `asked` says whether the downstream wanted to change its protocol.
///
/// # Errors
/// When it did not, or the upstream's connection cannot be had.
pub fn switch(
    mut head: ResponseHead,
    upstream: Option<Box<Upgraded>>,
    asked: bool,
    exchange: &mut Exchange,
) -> Result<Response, RequestError> {
    let Some(upstream) = upstream.filter(|_| asked) else {
        return Err(RequestError::UpstreamProtocol("101 to a request that did not ask for it".to_owned()));
    };
    let upgrade = head.fields.get(veer_http::Name::Upgrade).map(<[u8]>::to_vec);
    fields::strip_hop_by_hop(&mut head.fields);
    if let Some(upgrade) = upgrade {
        head.fields.push(veer_http::Name::Upgrade, &upgrade);
    }
    // The exchange ends with the head (the connection is what lives on); its places stay taken.
    let hold = (exchange.take_hold(), exchange.open());
    let mut response = Response::new(head, ResponseBody::empty());
    response.tunnel = Some(Box::new(move |downstream| {
        Box::pin(async move {
            let _held = hold;
            relay(&mut Copied(downstream), &mut Copied(*upstream), RelayOptions::default(), &mut ()).await;
        })
    }));
    Ok(response)
}

impl AsyncRead for Upgraded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Upgraded::Connection(_, read) if !read.is_empty() => {
                let count = read.len().min(buffer.remaining());
                buffer.put_slice(&read[..count]);
                read.advance(count);
                Poll::Ready(Ok(()))
            }
            Upgraded::Connection(io, _) => Pin::new(io).poll_read(cx, buffer),
            Upgraded::Stream(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Upgraded::Connection(io, _) => Pin::new(io).poll_write(cx, bytes),
            Upgraded::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Upgraded::Connection(io, _) => Pin::new(io).poll_flush(cx),
            Upgraded::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Upgraded::Connection(io, _) => Pin::new(io).poll_shutdown(cx),
            Upgraded::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
