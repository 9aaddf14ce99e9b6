//! The task of a connection: reads, hands out, writes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use veer_http::RequestHead;
use veer_http::h2;

use super::super::buffers::{self, Amount};
use super::super::transport::Transport;
use super::alive::{Alive, Look, Ping};
use super::{Half, Link};

/// Reads of one turn, before others get theirs.
const READS: usize = 16;
/// Slices of one vectored write.
const SLICES: usize = 16;

/// How a connection ended.
#[derive(Debug)]
pub enum LinkEnd {
    /// By agreement.
    InOrder,
    /// The network, or a peer that went without a word or did not answer.
    Lost,
    /// The peer broke the protocol; it was told.
    Broken(h2::Fault),
}

/// Moves a connection's bytes until it ends. `request` is given each stream that the peer opens; `control` is asked at each turn
/// whether the connection is to end.
pub fn drive(
    link: Rc<Link>,
    mut io: Transport,
    input: BytesMut,
    ping: Ping,
    mut control: impl FnMut(&mut Context<'_>, bool) -> Option<Close>,
    mut request: impl FnMut(Half, RequestHead, bool),
) -> impl Future<Output = LinkEnd> {
    // Not an `async fn`: that would hold its arguments twice.
    let mut turn =
        Turn { input, amount: Amount::default(), alive: Alive::new(ping), fault: None, eof: false, reads: 0 };
    async move {
        let end = poll_fn(|cx| {
            link.driver.set(Some(cx.waker().clone()));
            if link.cut.get() {
                return Poll::Ready(LinkEnd::InOrder);
            }
            // By itself: within the match it would be borrowed to the match's end.
            let busy = link.connection.borrow().open_streams() > 0;
            match control(cx, busy) {
                Some(Close::Now) => return Poll::Ready(LinkEnd::InOrder),
                Some(Close::Gracefully) => link.connection.borrow_mut().shut_down(),
                None => {}
            }
            turn.poll(cx, &link, &mut io, &mut request)
        })
        .await;
        link.end();
        if !matches!(end, LinkEnd::Lost) {
            // A farewell is a courtesy: nobody waits for it long.
            let farewell = poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx));
            let _ = Box::pin(tokio::time::timeout(Duration::from_secs(1), farewell)).await;
        }
        end
    }
}

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// After what is open (GOAWAY, `Connection: close`).
    Gracefully,
    /// At once.
    Now,
}

struct Turn {
    input: BytesMut,
    amount: Amount,
    alive: Alive,
    fault: Option<h2::Fault>,
    eof: bool,
    reads: usize,
}

impl Turn {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        link: &Rc<Link>,
        io: &mut Transport,
        request: &mut impl FnMut(Half, RequestHead, bool),
    ) -> Poll<LinkEnd> {
        self.reads = 0;
        loop {
            self.hand_out(link, request);
            let wrote = match poll_write(link, io, cx) {
                Ok(wrote) => wrote,
                Err(_) => return Poll::Ready(LinkEnd::Lost),
            };
            if let Some(fault) = &self.fault {
                // What was to be said was said, as far as the peer takes it.
                return Poll::Ready(LinkEnd::Broken(*fault));
            }
            if self.is_over(link) {
                return if wrote { Poll::Ready(LinkEnd::InOrder) } else { Poll::Pending };
            }
            if self.eof {
                let idle = link.connection.borrow().open_streams() == 0;
                return Poll::Ready(if idle { LinkEnd::InOrder } else { LinkEnd::Lost });
            }
            if self.reads >= READS {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match buffers::poll_read(io, &mut self.input, &mut self.amount, cx) {
                Poll::Ready(Ok(0)) => self.eof = true,
                Poll::Ready(Ok(_)) => {
                    self.reads += 1;
                    self.alive.heard();
                }
                Poll::Ready(Err(_)) => return Poll::Ready(LinkEnd::Lost),
                Poll::Pending => match self.alive.poll(cx, &mut link.connection.borrow_mut()) {
                    Look::Fine => return Poll::Pending,
                    Look::Asked => {}
                    Look::Dead => return Poll::Ready(LinkEnd::Lost),
                },
            }
        }
    }

    fn hand_out(&mut self, link: &Rc<Link>, request: &mut impl FnMut(Half, RequestHead, bool)) {
        while self.fault.is_none() && !self.input.is_empty() {
            let received = link.connection.borrow_mut().receive(&mut self.input);
            match received {
                Ok(Some(event)) => {
                    if let Some((id, head, end)) = link.take(event) {
                        request(link.stream(id), head, end);
                    }
                }
                Ok(None) => return,
                Err(fault) => self.fault = Some(fault),
            }
        }
    }

    fn is_over(&self, link: &Link) -> bool {
        let connection = link.connection.borrow();
        connection.is_shut() || (link.closing.get() && connection.open_streams() == 0)
    }
}

/// Writes what there is, and lets streams go on that waited for room; whether all of it went out.
fn poll_write(link: &Link, io: &mut Transport, cx: &mut Context<'_>) -> io::Result<bool> {
    let mut connection = link.connection.borrow_mut();
    loop {
        while let Some(id) = connection.writable() {
            if let Some(slot) = connection.state(id) {
                slot.wake();
            }
        }
        let output = connection.output();
        if !output.has_remaining() {
            break;
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = output.chunks_vectored(&mut slices);
        let polled = if count == 1 {
            Pin::new(&mut *io).poll_write(cx, &slices[0])
        } else {
            Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count])
        };
        match polled {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(count)) => output.advance(count),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(false),
        }
    }
    if io.is_buffered() {
        return match Pin::new(io).poll_flush(cx) {
            Poll::Ready(flushed) => flushed.map(|()| true),
            Poll::Pending => Ok(false),
        };
    }
    Ok(true)
}
