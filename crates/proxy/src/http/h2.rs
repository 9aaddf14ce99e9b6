//! HTTP/2 connections: streams that share one, and the task that moves its bytes.
//!
//! Streams write frames into the connection's output and read from their own places in it; one task per connection, the *driver*,
//! reads, hands out and writes. It is woken when there is output, and runs after the tasks that were ready before it: what all of
//! them had to say goes out in one write.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use veer_http::h2::{self, Code, Connection, Event, StreamId};
use veer_http::{Fields, RequestHead, ResponseHead};

use super::body::{BodyError, Frame, Outgoing};
use super::buffers::{self, Amount};
use super::replay::TryBody;
use super::send::SendFault;
use super::transport::Transport;

/// Reads of one turn, before others get theirs.
const READS: usize = 16;
/// Slices of one vectored write.
const SLICES: usize = 16;
/// Pieces smaller than this are joined, if more than one has come before anybody took the first: each would cost as much as a
/// large one on the rest of its way.
const SMALL: usize = 4 * 1024;
/// What joined pieces become: the payload of one frame.
const JOINED: usize = 16 * 1024;

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

/// What a stream has received and nobody has taken yet.
#[derive(Default)]
pub struct Slot {
    waker: Option<Waker>,
    head: Option<ResponseHead>,
    data: VecDeque<(Bytes, u32)>,
    /// Behind `data`: small pieces, and what they count for in the windows.
    joined: (BytesMut, u32),
    trailers: Option<Fields>,
    ended: bool,
    reset: Option<Reset>,
}

/// A stream that ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Why.
    pub code: Code,
    /// Nothing of it was acted upon: it was refused, or came after the last that the peer took up.
    pub untouched: bool,
    /// It ended with its connection, unannounced.
    pub lost: bool,
}

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

/// When a peer that is silent while streams are open is asked whether it lives.
#[derive(Debug, Clone, Copy)]
pub struct Ping {
    /// After so long without a byte.
    pub after: Duration,
    /// It has so long to answer.
    pub time: Duration,
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
                connection.set_state(id, Slot { ended: end, ..Slot::default() });
                return Some((id, head, end));
            }
            Event::Response { id, head, end } => {
                if let Some(slot) = connection.state(id).filter(|_| !head.is_informational()) {
                    slot.head = Some(head);
                    slot.ended = end;
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

impl Slot {
    fn add(&mut self, data: Bytes, flow: u32) {
        let (joined, counted) = &mut self.joined;
        let small = data.len() < SMALL && joined.len() + data.len() <= JOINED;
        if !joined.is_empty() && !small {
            self.data.push_back((joined.split().freeze(), std::mem::take(counted)));
        }
        if data.len() >= SMALL {
            return self.data.push_back((data, flow));
        }
        if joined.is_empty() {
            match self.data.back().filter(|(last, _)| last.len() < SMALL) {
                None => return self.data.push_back((data, flow)),
                Some((last, before)) => {
                    joined.reserve(JOINED);
                    joined.extend_from_slice(last);
                    *counted = *before;
                    self.data.pop_back();
                }
            }
        }
        joined.extend_from_slice(&data);
        *counted += flow;
    }

    /// The next piece, and what it counts for in the windows.
    fn next(&mut self) -> Option<(Bytes, u32)> {
        let (joined, counted) = &mut self.joined;
        self.data
            .pop_front()
            .or_else(|| (!joined.is_empty()).then(|| (joined.split().freeze(), std::mem::take(counted))))
    }

    fn has_data(&self) -> bool {
        !self.data.is_empty() || !self.joined.0.is_empty()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

impl Stream {
    /// Waits for the response's head.
    ///
    /// # Errors
    /// The stream ended without one.
    pub fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Reset>> {
        let mut connection = self.link.connection.borrow_mut();
        let Some(slot) = connection.state(self.id) else {
            return Poll::Ready(Err(Reset { code: Code::CANCEL, untouched: false, lost: true }));
        };
        if let Some(head) = slot.head.take() {
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
            match control(cx, link.connection.borrow().open_streams() > 0) {
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

/// Whether the peer lives, while somebody waits for it.
struct Alive {
    ping: Ping,
    heard: Instant,
    asked: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

enum Look {
    Fine,
    /// A PING is in the output.
    Asked,
    Dead,
}

impl Alive {
    fn new(ping: Ping) -> Self {
        Self { ping, heard: Instant::now(), asked: false, sleep: None }
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
        self.asked = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>, connection: &mut Connection<Slot>) -> Look {
        if connection.open_streams() == 0 {
            self.sleep = None;
            self.asked = false;
            return Look::Fine;
        }
        loop {
            let limit = if self.asked { self.ping.after + self.ping.time } else { self.ping.after };
            let due = self.heard + limit;
            let Some(sleep) = &mut self.sleep else {
                let now = Instant::now();
                if due <= now && !self.asked {
                    return self.ask(connection, now);
                }
                let mut sleep = Box::pin(tokio::time::sleep_until(due));
                let _ = sleep.as_mut().poll(cx);
                self.sleep = Some(sleep);
                return Look::Fine;
            };
            if !sleep.is_elapsed() {
                return Look::Fine;
            }
            self.sleep = None;
            let now = Instant::now();
            if due > now {
                continue;
            }
            if self.asked {
                return Look::Dead;
            }
            return self.ask(connection, now);
        }
    }

    fn ask(&mut self, connection: &mut Connection<Slot>, now: Instant) -> Look {
        connection.ping(0x7665_6572);
        self.asked = true;
        // The answer's time runs from now, however long the connection was quiet before.
        self.heard = now - self.ping.after;
        Look::Asked
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_joined_and_none_changes_its_place() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut slot, mut sent, mut taken) = (Slot::default(), Vec::new(), Vec::new());
            let (mut counted, mut released, mut pieces) = (0, 0, 0);
            for _ in 0..100 {
                if rng.u8(..) < 40 {
                    while let Some((data, flow)) = slot.next() {
                        assert!(!data.is_empty() && data.len() <= JOINED.max(20_000));
                        taken.extend_from_slice(&data);
                        released += flow;
                        pieces += 1;
                    }
                    assert!(!slot.has_data());
                }
                let length = if rng.u8(..) < 30 { rng.usize(SMALL..20_000) } else { rng.usize(1..SMALL) };
                let data: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
                sent.extend_from_slice(&data);
                counted += length as u32 + 3;
                slot.add(data.into(), length as u32 + 3);
            }
            while let Some((data, flow)) = slot.next() {
                taken.extend_from_slice(&data);
                released += flow;
                pieces += 1;
            }
            assert!(taken == sent && released == counted && pieces < 100, "seed {seed}");
        }
    }

    #[test]
    fn a_single_small_piece_is_not_copied() {
        let mut slot = Slot::default();
        let data = Bytes::from(vec![7; 1000]);
        slot.add(data.clone(), 1000);
        assert_eq!(slot.next().unwrap().0.as_ptr(), data.as_ptr());
    }
}
