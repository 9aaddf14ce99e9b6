//! Sending a body over HTTP/1.

use std::io;
use std::task::{Context, Poll, ready};

use veer_http::{ResponseHead, h1};

use super::body::{BodyError, Frame, Outgoing};
use super::pass::{Passed, Passing};
use super::replay::TryBody;
use super::wire::SharedWire;

/// Why a body could not be sent whole.
#[derive(Debug, thiserror::Error)]
pub enum SendFault {
    /// The connection it was to go to was lost.
    #[error("the connection was lost: {0}")]
    Io(#[from] io::Error),
    /// It broke off where it came from.
    #[error(transparent)]
    Body(BodyError),
}

/// What of a message is still to be sent. The head lies in the wire's output already.
pub struct Pump {
    chunked: bool,
    /// The end of a chunk's line goes out with what follows it.
    owes_line: bool,
    all_pushed: bool,
    passing: Option<Box<Passing>>,
    /// It was tried to let the body pass, and could not be done.
    unable: bool,
}

impl Pump {
    /// For a body that is framed so.
    pub fn new(framing: h1::Body) -> Self {
        Self {
            chunked: framing == h1::Body::Chunked,
            owes_line: false,
            all_pushed: matches!(framing, h1::Body::None | h1::Body::Length(0)),
            passing: None,
            unable: false,
        }
    }

    /// Sends what is there; ready when the whole message is with the kernel. The wire is borrowed only in between: the body may be
    /// read from the same one.
    ///
    /// # Errors
    /// The message cannot be completed: the connection must end, or the other side would take it for whole.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wire: &SharedWire,
        body: &mut impl Outgoing,
    ) -> Poll<Result<(), SendFault>> {
        while !self.all_pushed {
            if !self.unable && !self.chunked {
                match ready!(self.poll_pass(cx, wire, body))? {
                    Some(Passed::All) => {
                        self.all_pushed = true;
                        break;
                    }
                    Some(Passed::Unable) => (self.passing, self.unable) = (None, true),
                    None => {}
                }
            }
            ready!(wire.borrow_mut().poll_room(cx))?;
            let polled = body.poll_frame(cx);
            let mut wire = wire.borrow_mut();
            match polled {
                Poll::Pending => {
                    ready!(wire.poll_flush(cx))?;
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    if data.is_empty() {
                        continue;
                    }
                    if self.chunked {
                        self.begin_line(wire.output());
                        h1::write_chunk_start(data.len(), wire.output());
                        self.owes_line = true;
                    }
                    wire.push(data);
                    self.all_pushed = !self.chunked && body.is_end();
                }
                Poll::Ready(Some(Ok(Frame::Trailers(fields)))) => {
                    if self.chunked {
                        self.begin_line(wire.output());
                        h1::write_end(Some(&fields), wire.output());
                    }
                    self.all_pushed = true;
                }
                Poll::Ready(None) => {
                    if self.chunked {
                        self.begin_line(wire.output());
                        h1::write_end(None, wire.output());
                    }
                    self.all_pushed = true;
                }
                Poll::Ready(Some(Err(error))) => {
                    // What there is may go out, but the message stays visibly incomplete.
                    let _ = wire.poll_flush(cx);
                    return Poll::Ready(Err(SendFault::Body(error)));
                }
            }
        }
        wire.borrow_mut().poll_flush(cx).map_err(SendFault::Io)
    }

    /// Lets the kernel move what is left of a large body. `None`: there is nothing of that kind.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        wire: &SharedWire,
        body: &mut impl Outgoing,
    ) -> Poll<Result<Option<Passed>, SendFault>> {
        if self.passing.is_none() {
            let Some((source, left)) = body.passing() else { return Poll::Ready(Ok(None)) };
            if wire.borrow_mut().raw().is_none() {
                return Poll::Ready(Ok(None));
            }
            ready!(wire.borrow_mut().poll_flush(cx))?;
            self.passing = Some(Box::new(Passing::new(source, left)));
        }
        let Some(passing) = self.passing.as_mut().filter(|_| body.goes_on(cx)) else {
            return Poll::Ready(Ok(Some(Passed::Unable)));
        };
        passing.poll(cx, wire, body).map_ok(Some)
    }

    fn begin_line(&mut self, output: &mut Vec<u8>) {
        if std::mem::take(&mut self.owes_line) {
            output.extend_from_slice(b"\r\n");
        }
    }
}

/// A request's body under way to an HTTP/1 server.
pub struct Sending {
    pump: Pump,
    body: TryBody,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    UnderWay,
    Sent,
    Failed,
}

impl Sending {
    /// Begins.
    pub fn new(pump: Pump, body: TryBody) -> Self {
        Self { pump, body, state: State::UnderWay }
    }

    /// Whether the whole request is with the kernel.
    pub fn is_done(&self) -> bool {
        self.state == State::Sent
    }

    /// Sends what is there; ready when nothing more is to be sent.
    ///
    /// # Errors
    /// Once, when it cannot be completed.
    pub fn poll(&mut self, cx: &mut Context<'_>, wire: &SharedWire) -> Poll<Result<(), SendFault>> {
        if self.state != State::UnderWay {
            return Poll::Ready(Ok(()));
        }
        let sent = ready!(self.pump.poll(cx, wire, &mut self.body));
        self.state = if sent.is_ok() { State::Sent } else { State::Failed };
        wire.borrow_mut().open_message = sent.is_err();
        Poll::Ready(sent)
    }

    /// Passes an informational answer on to whom the request is from; false: one too many.
    pub fn inform(&mut self, head: ResponseHead, cx: &mut Context<'_>) -> bool {
        self.body.inform(head, cx)
    }
}
