//! Sending a body over a stream.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use veer_http::ResponseHead;
use veer_http::h2::Code;

use super::super::body::{Frame, Outgoing};
use super::super::replay::TryBody;
use super::super::send::SendFault;
use super::Stream;

/// Sending a body over a stream.
#[derive(Default)]
pub struct StreamPump {
    pending: Bytes,
    /// Whether `pending` is the last of it.
    last: bool,
    holds: bool,
    done: bool,
}

impl StreamPump {
    /// Nothing is to be sent: the head ended the stream.
    pub fn done() -> Self {
        Self { done: true, ..Self::default() }
    }

    /// Sends what is there and what the other side takes; ready when all of it was handed to the connection.
    ///
    /// # Errors
    /// The body broke off, or the stream did; the stream is reset.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        half: &Stream,
        body: &mut impl Outgoing,
    ) -> Poll<Result<(), SendFault>> {
        while !self.done {
            if self.holds {
                if !half.data(&mut self.pending, self.last) {
                    ready!(half.poll_reset(cx));
                    return self.fail(SendFault::Io(io::ErrorKind::ConnectionReset.into()));
                }
                self.holds = false;
                self.done = self.last;
                continue;
            }
            match body.poll_frame(cx) {
                Poll::Pending => {
                    if half.poll_reset(cx).is_ready() {
                        return self.fail(SendFault::Io(io::ErrorKind::ConnectionReset.into()));
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    (self.pending, self.last, self.holds) = (data, body.is_end(), true);
                }
                Poll::Ready(Some(Ok(Frame::Trailers(fields)))) => {
                    half.trailers(&fields);
                    self.done = true;
                }
                Poll::Ready(None) => (self.pending, self.last, self.holds) = (Bytes::new(), true, true),
                Poll::Ready(Some(Err(error))) => {
                    half.reset(Code::CANCEL);
                    return self.fail(SendFault::Body(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self, fault: SendFault) -> Poll<Result<(), SendFault>> {
        self.done = true;
        Poll::Ready(Err(fault))
    }
}

/// A request's body under way to an HTTP/2 server.
pub struct StreamSending {
    pump: StreamPump,
    body: TryBody,
}

impl StreamSending {
    /// Begins.
    pub fn new(pump: StreamPump, body: TryBody) -> Self {
        Self { pump, body }
    }

    /// Sends what is there; ready when nothing more is to be sent.
    ///
    /// # Errors
    /// Once, when it cannot be completed.
    pub fn poll(&mut self, cx: &mut Context<'_>, half: &Stream) -> Poll<Result<(), SendFault>> {
        self.pump.poll(cx, half, &mut self.body)
    }

    /// Passes an informational answer on to whom the request is from; false: one too many.
    pub fn inform(&mut self, head: ResponseHead, cx: &mut Context<'_>) -> bool {
        self.body.inform(head, cx)
    }
}
