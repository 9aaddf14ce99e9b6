//! HTTP/2 connections: streams that share one, and the task that moves its bytes.
//!
//! Streams write frames into the connection's output and read from their own places in it ([`Slot`]); one task per connection, the
//! *driver*, reads, hands out and writes ([`drive()`]). It is woken when there is output, and runs after the tasks that were ready
//! before it: what all of them had to say goes out in one write.

mod alive;
mod drive;
mod pump;
mod slot;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use veer_http::h2::{self, Code, Connection, Event, StreamId};
use veer_http::{Fields, RequestHead, ResponseHead};

use super::body::{BodyError, Frame};

pub use alive::Ping;
pub use drive::{Close, LinkEnd, drive};
pub use pump::{StreamPump, StreamSending};
pub use slot::{Reset, Slot};
pub use tunnel::Tunnel;

/// A connection as its streams see it.
pub struct Link {
    connection: RefCell<Connection<Slot>>,
    driver: Cell<Option<Waker>>,
    /// No more streams will be opened; the driver ends when none is left.
    closing: Cell<bool>,
    /// The driver ends at once.
    cut: Cell<bool>,
    ended: Cell<bool>,
}

/// A stream; the last handle to go ends it.
pub type Half = Rc<Stream>;

/// One stream of a connection.
pub struct Stream {
    link: Rc<Link>,
    id: StreamId,
}

impl Link {
    /// Around a fresh connection.
    pub fn new(connection: Connection<Slot>) -> Rc<Self> {
        Rc::new(Self {
            connection: RefCell::new(connection),
            driver: Cell::new(None),
            closing: Cell::new(false),
            cut: Cell::new(false),
            ended: Cell::new(false),
        })
    }

    /// Whether another stream can be opened now.
    pub fn can_open(&self) -> bool {
        !self.ended.get() && !self.closing.get() && self.connection.borrow().can_open()
    }

    /// Whether other streams leave a new one no room ([`Connection::is_starved`]).
    pub fn is_starved(&self) -> bool {
        self.connection.borrow().is_starved()
    }

    /// Whether no stream will ever be opened again.
    pub fn is_closed(&self) -> bool {
        self.ended.get() || self.closing.get() || self.connection.borrow().going_away()
    }

    /// Sends a request's head.
    ///
    /// # Errors
    /// [`h2::Refused`]; nothing was sent.
    pub fn open(self: &Rc<Self>, head: &RequestHead, end: bool) -> Result<Half, h2::Refused> {
        if self.ended.get() {
            return Err(h2::Refused::GoingAway);
        }
        let id = self.connection.borrow_mut().request(head, end, Slot::default())?;
        self.kick();
        Ok(Rc::new(Stream { link: Rc::clone(self), id }))
    }

    /// Gives memory back that only streams need.
    pub fn rest(&self) {
        self.connection.borrow_mut().rest();
    }

    /// Opens nothing more; ends when all streams have.
    pub fn close(&self) {
        self.closing.set(true);
        self.kick();
    }

    /// Ends now, with all streams.
    pub fn cut(&self) {
        self.cut.set(true);
        self.kick();
    }

    /// Has the driver look at the output.
    fn kick(&self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    fn stream(self: &Rc<Self>, id: StreamId) -> Half {
        Rc::new(Stream { link: Rc::clone(self), id })
    }

    /// Puts what came where its stream looks for it. A request is for the caller to take up.
    fn take(&self, event: Event) -> Option<(StreamId, RequestHead, bool)> {
        let mut connection = self.connection.borrow_mut();
        match event {
            Event::Request { id, head, end } => {
                let mut slot = Slot::default();
                slot.ended = end;
                connection.set_state(id, slot);
                return Some((id, head, end));
            }
            Event::Response { id, head, end } => {
                if let Some(slot) = connection.state(id) {
                    if head.is_informational() {
                        slot.told(head);
                    } else {
                        slot.head = Some(head);
                        slot.ended = end;
                    }
                    slot.wake();
                }
            }
            Event::Data { id, data, flow, end } => match connection.state(id) {
                Some(slot) => {
                    slot.ended |= end;
                    slot.wake();
                    if data.is_empty() {
                        connection.release(id, flow);
                    } else {
                        slot.add(data, flow);
                    }
                }
                None => connection.release(id, flow),
            },
            Event::Trailers { id, fields } => {
                if let Some(slot) = connection.state(id) {
                    slot.trailers = Some(fields);
                    slot.ended = true;
                    slot.wake();
                }
            }
            Event::Reset { id, code, untouched } => {
                if let Some(slot) = connection.state(id) {
                    slot.reset = Some(Reset { code, untouched, lost: false });
                    slot.wake();
                }
            }
            Event::GoAway { .. } | Event::Pong(_) | Event::Settings => {}
        }
        None
    }

    fn end(&self) {
        self.ended.set(true);
        for slot in self.connection.borrow_mut().states() {
            if !slot.ended && slot.reset.is_none() {
                slot.reset = Some(Reset { code: Code::CANCEL, untouched: false, lost: true });
            }
            slot.wake();
        }
    }
}

impl Stream {
    /// Waits for the response's head, or an informational one before it.
    ///
    /// # Errors
    /// The stream ended without one.
    pub fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Reset>> {
        let mut connection = self.link.connection.borrow_mut();
        let Some(slot) = connection.state(self.id) else {
            return Poll::Ready(Err(Reset { code: Code::CANCEL, untouched: false, lost: true }));
        };
        if let Some(head) = slot.next_head() {
            return Poll::Ready(Ok(head));
        }
        if let Some(reset) = slot.reset {
            return Poll::Ready(Err(reset));
        }
        slot.wait(cx);
        Poll::Pending
    }

    /// The next piece of the body that arrives.
    pub fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut connection = self.link.connection.borrow_mut();
        let Some(slot) = connection.state(self.id) else { return Poll::Ready(Some(Err(BodyError::Broken))) };
        if let Some((data, flow)) = slot.next() {
            connection.release(self.id, flow);
            let has_output = connection.output().has_remaining();
            drop(connection);
            if has_output {
                self.link.kick();
            }
            return Poll::Ready(Some(Ok(Frame::Data(data))));
        }
        if let Some(fields) = slot.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::Trailers(fields))));
        }
        if slot.ended {
            return Poll::Ready(None);
        }
        if let Some(reset) = slot.reset {
            return Poll::Ready(Some(Err(BodyError::Reset(reset.code))));
        }
        slot.wait(cx);
        Poll::Pending
    }

    /// Whether everything that arrives was taken.
    pub fn is_end(&self) -> bool {
        let mut connection = self.link.connection.borrow_mut();
        connection.state(self.id).is_none_or(|slot| slot.ended && !slot.has_data() && slot.trailers.is_none())
    }

    /// Ready when the stream was ended by the other side or with its connection.
    pub fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut connection = self.link.connection.borrow_mut();
        match connection.state(self.id) {
            Some(slot) if slot.reset.is_none() => {
                slot.wait(cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Sends a response's head.
    pub fn respond(&self, head: &ResponseHead, end: bool) {
        self.link.connection.borrow_mut().respond(self.id, head, end);
        self.link.kick();
    }

    /// Sends an informational head, which others follow.
    pub fn inform(&self, head: &ResponseHead) {
        self.link.connection.borrow_mut().respond(self.id, head, false);
        self.link.kick();
    }

    /// Ends the stream early.
    pub fn reset(&self, code: Code) {
        self.link.connection.borrow_mut().reset(self.id, code);
        self.link.kick();
    }

    fn data(&self, data: &mut Bytes, end: bool) -> bool {
        let all = self.link.connection.borrow_mut().data(self.id, data, end);
        self.link.kick();
        all
    }

    fn trailers(&self, fields: &Fields) {
        self.link.connection.borrow_mut().trailers(self.id, fields);
        self.link.kick();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut connection = self.link.connection.borrow_mut();
        connection.forget(self.id);
        let wanted = connection.output().has_remaining() || connection.open_streams() == 0;
        drop(connection);
        if wanted {
            self.link.kick();
        }
    }
}
