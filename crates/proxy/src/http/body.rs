//! A response's body on its way to the downstream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::reply;
use super::serve::Busy;
use crate::exchange::Exchange;

/// What the downstream gets. Whatever happens to it (read to its end, broken off, dropped), the exchange it belongs to is
/// ended exactly once.
#[derive(Default)]
pub struct ResponseBody {
    content: Content,
    exchange: Option<Box<Exchange>>,
    deadline: Option<Pin<Box<Sleep>>>,
    grpc: bool,
    busy: Option<Busy>,
}

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    Full(Bytes),
    Upstream(Incoming),
}

/// The body could not be delivered whole. The downstream sees a reset stream or a cut connection, never a whole body.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    /// The upstream failed.
    #[error("the upstream broke off: {0}")]
    Upstream(hyper::Error),
    /// The request's time was over.
    #[error("the request's time was over")]
    Timeout,
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

    /// Keeps the connection busy as long as the body lives.
    pub fn keeping(mut self, busy: Busy) -> Self {
        self.busy = Some(busy);
        self
    }

    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.finish();
        }
    }

    /// hyper does not ask for more when a body says that it has ended.
    fn finish_if_ended(&mut self) {
        if self.is_end_stream() {
            self.finish();
        }
    }

    /// Ends a gRPC stream by trailers, anything else by an error.
    fn break_off(
        &mut self,
        code: u8,
        error: ResponseBodyError,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        self.content = Content::Empty;
        self.deadline = None;
        self.finish();
        Poll::Ready(Some(if self.grpc {
            Ok(Frame::trailers(reply::grpc_trailers(code, &format!("veer: {error}"))))
        } else {
            Err(error)
        }))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let this = &mut *self;
        if this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            if let Some(exchange) = &mut this.exchange {
                exchange.timed_out();
            }
            return this.break_off(4, ResponseBodyError::Timeout);
        }
        match &mut this.content {
            Content::Empty => {
                this.finish();
                Poll::Ready(None)
            }
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.content = Content::Empty;
                if let Some(exchange) = &mut this.exchange {
                    exchange.sent(bytes.len());
                }
                this.finish();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Upstream(body) => match Pin::new(body).poll_frame(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => {
                    this.finish();
                    Poll::Ready(None)
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(exchange) = &mut this.exchange {
                        match (frame.data_ref(), frame.trailers_ref()) {
                            (Some(data), _) => exchange.sent(data.len()),
                            (_, Some(fields)) => exchange.trailers(fields),
                            _ => {}
                        }
                        this.finish_if_ended();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(error))) => {
                    if let Some(exchange) = &mut this.exchange {
                        exchange.broke_off(&error);
                    }
                    this.break_off(14, ResponseBodyError::Upstream(error))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Upstream(body) => body.size_hint(),
        }
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let content = match &self.content {
            Content::Empty => "empty",
            Content::Full(_) => "full",
            Content::Upstream(_) => "upstream",
        };
        f.debug_tuple("ResponseBody").field(&content).finish()
    }
}
