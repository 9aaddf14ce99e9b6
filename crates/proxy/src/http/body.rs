//! Bodies on their way through.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::{Instant, Sleep};
use veer_http::{Fields, h1, h2};

use super::h2::Half;
use super::reply;
use super::send::Sending;
use super::wire::{Reading, SharedWire};
use crate::exchange::Exchange;

/// A piece of a body.
#[derive(Debug, Clone)]
pub enum Frame {
    /// Bytes.
    Data(Bytes),
    /// Fields behind the last byte.
    Trailers(Fields),
}

/// A body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Io(io::Error),
    /// The connection ended in the middle.
    #[error("the connection ended in the middle of the body")]
    Incomplete,
    /// The body's framing is broken.
    #[error("{0}")]
    Framing(h1::Fault),
    /// The stream was reset.
    #[error("the stream was reset ({0:?})")]
    Reset(h2::Code),
    /// An error was told before.
    #[error("the connection cannot be read any more")]
    Broken,
    /// The upstream broke off while a response went through.
    #[error("the upstream broke off: {0}")]
    Upstream(Box<BodyError>),
    /// The request's time was over.
    #[error("the request's time was over")]
    Timeout,
    /// A newer try of the request took over.
    #[error("another try has taken over")]
    Superseded,
}

/// What can be sent.
pub trait Outgoing {
    /// The next piece; `None` at the end.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;

    /// Whether nothing more comes, as far as it is known now.
    fn is_end(&self) -> bool;

    /// Bytes that are left, when it is known.
    fn length(&self) -> Option<u64>;

    /// The connection whose next bytes are the body's, and how many, where that is so many that nobody needs to read them.
    fn passing(&self) -> Option<(SharedWire, u64)> {
        None
    }

    /// While bytes pass: does what is to be done beside. False: they are to be asked for piece by piece again, which says why.
    fn goes_on(&mut self, _: &mut Context<'_>) -> bool {
        true
    }

    /// So many bytes of that connection were moved on.
    fn passed(&mut self, _: u64) {}
}

/// What arrives.
#[derive(Default)]
pub enum Incoming {
    /// Nothing.
    #[default]
    Empty,
    /// A request's body over HTTP/1.
    Http1(SharedWire),
    /// A response's body over HTTP/1; the request's may still be under way.
    Http1Answer(Box<Http1Answer>),
    /// Over HTTP/2.
    Http2(Half),
    /// A response's body over HTTP/2; the request's may still be under way.
    Http2Answer(Box<Http2Answer>),
}

/// See [`Incoming::Http1Answer`].
pub struct Http1Answer {
    /// The connection.
    pub wire: SharedWire,
    /// The request's body.
    pub sending: Sending,
}

/// See [`Incoming::Http2Answer`].
pub struct Http2Answer {
    /// The stream.
    pub half: Half,
    /// The request's body.
    pub sending: super::h2::StreamSending,
}

impl Incoming {
    /// The next piece; `None` at the end.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self {
            Incoming::Empty => Poll::Ready(None),
            Incoming::Http1(wire) => wire.borrow_mut().poll_body(cx),
            Incoming::Http1Answer(answer) => {
                // A request's body that fails shows as a broken answer soon enough.
                let _ = answer.sending.poll(cx, &answer.wire);
                answer.wire.borrow_mut().poll_body(cx)
            }
            Incoming::Http2(half) => half.poll_frame(cx),
            Incoming::Http2Answer(answer) => {
                let _ = answer.sending.poll(cx, &answer.half);
                answer.half.poll_frame(cx)
            }
        }
    }

    /// See [`Outgoing::passing`].
    pub fn passing(&self) -> Option<(SharedWire, u64)> {
        let wire = match self {
            Incoming::Http1(wire) => wire,
            Incoming::Http1Answer(answer) => &answer.wire,
            Incoming::Empty | Incoming::Http2(_) | Incoming::Http2Answer(_) => return None,
        };
        wire.borrow().passes().map(|left| (Rc::clone(wire), left))
    }

    /// See [`Outgoing::passed`].
    pub fn passed(&mut self, count: u64) {
        match self {
            Incoming::Http1(wire) => wire.borrow_mut().passed(count),
            Incoming::Http1Answer(answer) => answer.wire.borrow_mut().passed(count),
            Incoming::Empty | Incoming::Http2(_) | Incoming::Http2Answer(_) => {}
        }
    }

    /// Whether nothing more comes, as far as it is known now.
    pub fn is_end(&self) -> bool {
        match self {
            Incoming::Empty => true,
            Incoming::Http1(wire) => matches!(wire.borrow().reading, Reading::Head),
            Incoming::Http1Answer(answer) => matches!(answer.wire.borrow().reading, Reading::Head),
            Incoming::Http2(half) => half.is_end(),
            Incoming::Http2Answer(answer) => answer.half.is_end(),
        }
    }

    /// Bytes that are left, when the framing says so.
    pub fn length(&self) -> Option<u64> {
        let of_wire = |wire: &SharedWire| match wire.borrow().reading {
            Reading::Head => Some(0),
            Reading::Length(left) => Some(left),
            Reading::Chunked(_) | Reading::UntilClose | Reading::Broken => None,
        };
        match self {
            Incoming::Empty => Some(0),
            Incoming::Http1(wire) => of_wire(wire),
            Incoming::Http1Answer(answer) => of_wire(&answer.wire),
            Incoming::Http2(half) => half.is_end().then_some(0),
            Incoming::Http2Answer(answer) => answer.half.is_end().then_some(0),
        }
    }
}

/// What the downstream gets. Whatever happens to it (read to its end, broken off, dropped), the exchange it belongs to is
/// ended exactly once.
#[derive(Default)]
pub struct ResponseBody {
    content: Content,
    exchange: Option<Box<Exchange>>,
    deadline: Option<Pin<Box<Sleep>>>,
    grpc: bool,
}

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    Full(Bytes),
    Upstream(Incoming),
}

impl ResponseBody {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body at hand.
    pub fn full(bytes: Bytes) -> Self {
        Self { content: Content::Full(bytes), ..Self::default() }
    }

    /// The upstream's body, within a deadline.
    pub fn upstream(body: Incoming, deadline: Option<Instant>, grpc: bool) -> Self {
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        Self { content: Content::Upstream(body), deadline, grpc, ..Self::default() }
    }

    /// Ties the exchange's end to the body's.
    pub fn of_exchange(mut self, exchange: Box<Exchange>) -> Self {
        self.exchange = Some(exchange);
        self.finish_if_ended();
        self
    }

    fn finish(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.finish();
        }
    }

    /// Nobody asks for more when a body says that it has ended.
    fn finish_if_ended(&mut self) {
        if self.exchange.is_some() && self.is_end() {
            self.finish();
        }
    }

    /// Ends a gRPC stream by trailers, anything else by an error.
    fn break_off(&mut self, code: u8, error: BodyError) -> Poll<Option<Result<Frame, BodyError>>> {
        self.content = Content::Empty;
        self.deadline = None;
        self.finish();
        Poll::Ready(Some(if self.grpc {
            Ok(Frame::Trailers(reply::grpc_trailers(code, &format!("veer: {error}"))))
        } else {
            Err(error)
        }))
    }
}

impl Outgoing for ResponseBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            if let Some(exchange) = &mut self.exchange {
                exchange.timed_out();
            }
            return self.break_off(4, BodyError::Timeout);
        }
        match &mut self.content {
            Content::Empty => {
                self.finish();
                Poll::Ready(None)
            }
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                if let Some(exchange) = &mut self.exchange {
                    exchange.sent(bytes.len());
                }
                self.finish();
                Poll::Ready(Some(Ok(Frame::Data(bytes))))
            }
            Content::Upstream(body) => match body.poll_frame(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => {
                    self.finish();
                    Poll::Ready(None)
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(exchange) = &mut self.exchange {
                        match &frame {
                            Frame::Data(data) => exchange.sent(data.len()),
                            Frame::Trailers(fields) => exchange.trailers(fields),
                        }
                        self.finish_if_ended();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(error))) => {
                    if let Some(exchange) = &mut self.exchange {
                        exchange.broke_off(&error);
                    }
                    self.break_off(14, BodyError::Upstream(Box::new(error)))
                }
            },
        }
    }

    fn is_end(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Upstream(body) => body.is_end(),
        }
    }

    fn passing(&self) -> Option<(SharedWire, u64)> {
        match &self.content {
            Content::Upstream(body) => body.passing(),
            Content::Empty | Content::Full(_) => None,
        }
    }

    fn goes_on(&mut self, cx: &mut Context<'_>) -> bool {
        if let Content::Upstream(Incoming::Http1Answer(answer)) = &mut self.content {
            let _ = answer.sending.poll(cx, &answer.wire);
        }
        !self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }

    fn passed(&mut self, count: u64) {
        if let Content::Upstream(body) = &mut self.content {
            body.passed(count);
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.sent(count as usize);
        }
        self.finish_if_ended();
    }

    fn length(&self) -> Option<u64> {
        match &self.content {
            Content::Empty => Some(0),
            Content::Full(bytes) => Some(bytes.len() as u64),
            Content::Upstream(body) => body.length(),
        }
    }
}
