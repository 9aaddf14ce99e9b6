//! A request's body that may be needed again: kept up to a limit while it is sent.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::Notify;
use veer_http::{Fields, ResponseHead};

use super::body::{BodyError, Frame, Incoming, Outgoing};
use super::interim::{self, Interim};
use super::wire::SharedWire;

/// Most that is kept of one body. Larger ones are sent once.
pub const REPLAY_LIMIT: usize = 64 * 1024;

/// The owner's side: makes a body for each try.
#[derive(Clone, Default)]
pub struct Replay(Option<Rc<RefCell<Tape>>>);

/// The body of one try. Only the newest try may read; an older one, still held by a connection that gave up on it, fails.
pub struct TryBody {
    tape: Option<Rc<RefCell<Tape>>>,
    generation: u32,
    next: usize,
    trailers_sent: bool,
    interim: Interim,
    /// Informational answers so far.
    told: u8,
}

struct Tape {
    source: Incoming,
    generation: u32,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// Whether `kept` still holds everything from the start.
    whole: bool,
    /// Whether any of it was given to a connection.
    touched: bool,
    trailers: Option<Fields>,
    ended: bool,
    failed: bool,
    read: u64,
    copy: Option<CopyWriter>,
}

/// A copy of a body in the making, for those who get a copy of the request.
pub struct BodyCopy {
    content: RefCell<Content>,
    ended: Notify,
}

#[derive(Default)]
struct Content {
    pieces: Vec<Bytes>,
    room: usize,
    trailers: Option<Fields>,
    end: Option<CopyEnd>,
}

/// How a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyEnd {
    /// The whole body is there.
    Whole,
    /// The body is larger than the copy may be.
    TooLarge,
    /// The body was not read to its end.
    Broken,
}

impl BodyCopy {
    fn new(room: usize) -> Rc<Self> {
        Rc::new(Self { content: RefCell::new(Content { room, ..Content::default() }), ended: Notify::new() })
    }

    /// Waits for the end.
    pub async fn end(&self) -> CopyEnd {
        loop {
            let ended = self.ended.notified();
            if let Some(end) = self.content.borrow().end {
                return end;
            }
            ended.await;
        }
    }

    /// The body, when it is whole.
    pub fn replay(&self) -> Replay {
        let content = self.content.borrow();
        if content.pieces.is_empty() && content.trailers.is_none() {
            return Replay(None);
        }
        let tape = Tape::new(Incoming::Empty);
        let bytes = content.pieces.iter().map(Bytes::len).sum();
        let (kept, trailers) = (content.pieces.clone(), content.trailers.clone());
        Replay(Some(Rc::new(RefCell::new(Tape { kept, kept_bytes: bytes, trailers, ended: true, ..tape }))))
    }

    fn finish(&self, end: CopyEnd) {
        let mut content = self.content.borrow_mut();
        if content.end.is_none() {
            content.end = Some(end);
            if end != CopyEnd::Whole {
                content.pieces = Vec::new();
            }
            self.ended.notify_waiters();
        }
    }
}

/// The writing end: whatever happens to the body, the copy ends.
struct CopyWriter(Rc<BodyCopy>);

impl CopyWriter {
    fn add(&self, frame: &Frame) {
        let mut content = self.0.content.borrow_mut();
        if content.end.is_some() {
            return;
        }
        match frame {
            Frame::Data(data) => match content.room.checked_sub(data.len()) {
                Some(room) => {
                    content.room = room;
                    content.pieces.push(data.clone());
                }
                None => {
                    drop(content);
                    self.0.finish(CopyEnd::TooLarge);
                }
            },
            Frame::Trailers(fields) => content.trailers = Some(fields.clone()),
        }
    }
}

impl Drop for CopyWriter {
    fn drop(&mut self) {
        self.0.finish(CopyEnd::Broken);
    }
}

impl Replay {
    /// Takes the downstream's body. One that has ended already costs nothing.
    pub fn new(source: Incoming) -> Self {
        if source.is_end() {
            return Self(None);
        }
        Self(Some(Rc::new(RefCell::new(Tape::new(source)))))
    }

    /// A copy of the body, to be filled as the body is read, of at most so many bytes. Ask while all that was read is kept, and once.
    pub fn copy(&self, room: usize) -> Rc<BodyCopy> {
        let copy = BodyCopy::new(room);
        match &self.0 {
            Some(tape) => tape.borrow_mut().begin_copy(CopyWriter(Rc::clone(&copy))),
            None => copy.finish(CopyEnd::Whole),
        }
        copy
    }

    /// A body that is at hand.
    pub fn full(body: Bytes) -> Self {
        if body.is_empty() {
            return Self(None);
        }
        let tape = Tape { kept_bytes: body.len(), kept: vec![body], ended: true, ..Tape::new(Incoming::Empty) };
        Self(Some(Rc::new(RefCell::new(tape))))
    }

    /// No body.
    pub fn empty() -> Self {
        Self(None)
    }

    /// The body for the next try; takes the source from the one before.
    pub fn next_try(&self) -> TryBody {
        let generation = self.0.as_ref().map_or(0, |tape| {
            let mut tape = tape.borrow_mut();
            tape.generation += 1;
            tape.generation
        });
        TryBody { tape: self.0.clone(), generation, next: 0, trailers_sent: false, interim: Interim::Nobody, told: 0 }
    }

    /// Whether another try would see the whole body.
    pub fn can_repeat(&self) -> bool {
        self.0.as_ref().is_none_or(|tape| {
            let tape = tape.borrow();
            (tape.whole || !tape.touched) && !tape.failed
        })
    }

    /// No further try will come: what comes from now on is not kept.
    pub fn commit(&self) {
        if let Some(tape) = &self.0 {
            tape.borrow_mut().whole = false;
        }
    }

    /// Whether the downstream failed to deliver the body.
    pub fn failed(&self) -> bool {
        self.0.as_ref().is_some_and(|tape| tape.borrow().failed)
    }

    /// Whether the body was read to its end.
    pub fn ended(&self) -> bool {
        self.0.as_ref().is_none_or(|tape| tape.borrow().ended)
    }

    /// Bytes read from the downstream so far.
    pub fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |tape| tape.borrow().read)
    }
}

impl TryBody {
    /// No body.
    pub fn empty() -> Self {
        Replay::empty().next_try()
    }

    /// Says whom informational answers to this try go to; without it, to nobody.
    pub fn informing(self, interim: &Interim) -> Self {
        Self { interim: interim.clone(), ..self }
    }

    /// Passes an informational answer on; false: one too many.
    pub fn inform(&mut self, head: ResponseHead, cx: &mut Context<'_>) -> bool {
        self.told += 1;
        self.interim.tell(head, cx);
        usize::from(self.told) <= interim::MOST
    }
}

impl Tape {
    fn new(source: Incoming) -> Self {
        Self {
            source,
            generation: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            whole: true,
            touched: false,
            trailers: None,
            ended: false,
            failed: false,
            read: 0,
            copy: None,
        }
    }

    fn begin_copy(&mut self, copy: CopyWriter) {
        for data in &self.kept {
            copy.add(&Frame::Data(data.clone()));
        }
        self.trailers.iter().for_each(|fields| copy.add(&Frame::Trailers(fields.clone())));
        if self.ended {
            copy.0.finish(CopyEnd::Whole);
        } else {
            self.copy = Some(copy);
        }
    }

    /// Tells the copy, where there is one. The end is told once the last frame was.
    fn tell_copy(&mut self, frame: Option<&Frame>) {
        if let Some(copy) = &self.copy {
            frame.into_iter().for_each(|frame| copy.add(frame));
            if self.ended {
                copy.0.finish(CopyEnd::Whole);
                self.copy = None;
            }
        }
    }

    fn keep(&mut self, data: &Bytes) {
        if !self.whole {
            return;
        }
        if self.kept_bytes + data.len() > REPLAY_LIMIT {
            self.whole = false;
            return;
        }
        self.kept_bytes += data.len();
        self.kept.push(data.clone());
    }
}

impl Outgoing for TryBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(tape) = &self.tape else { return Poll::Ready(None) };
        let mut tape = tape.borrow_mut();
        if tape.generation != self.generation {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        tape.touched = true;
        if let Some(data) = tape.kept.get(self.next).cloned() {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::Data(data))));
        }
        if !tape.whole && !tape.kept.is_empty() {
            // Nobody reads them again.
            tape.kept = Vec::new();
            self.next = 0;
        }
        if tape.ended {
            let trailers = tape.trailers.clone().filter(|_| !self.trailers_sent);
            self.trailers_sent = true;
            return Poll::Ready(trailers.map(|fields| Ok(Frame::Trailers(fields))));
        }
        match tape.source.poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                tape.ended = true;
                tape.tell_copy(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                tape.failed = true;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                match &frame {
                    Frame::Data(data) => {
                        tape.read += data.len() as u64;
                        tape.keep(data);
                        if tape.whole {
                            self.next += 1;
                        }
                        tape.ended = tape.source.is_end();
                    }
                    Frame::Trailers(fields) => {
                        tape.trailers = Some(fields.clone());
                        tape.ended = true;
                        self.trailers_sent = true;
                    }
                }
                if tape.copy.is_some() {
                    tape.tell_copy(Some(&frame));
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end(&self) -> bool {
        self.tape.as_ref().is_none_or(|tape| {
            let tape = tape.borrow();
            let trailers_left = tape.trailers.is_some() && !self.trailers_sent;
            tape.generation == self.generation && tape.ended && self.next >= tape.kept.len() && !trailers_left
        })
    }

    fn passing(&self) -> Option<(SharedWire, u64)> {
        let tape = self.tape.as_ref()?.borrow();
        let fresh = tape.generation == self.generation && !tape.whole && tape.kept.is_empty() && !tape.ended;
        if fresh && tape.copy.is_none() { tape.source.passing() } else { None }
    }

    fn goes_on(&mut self, _: &mut Context<'_>) -> bool {
        self.tape.as_ref().is_some_and(|tape| tape.borrow().generation == self.generation)
    }

    fn passed(&mut self, count: u64) {
        let Some(tape) = &self.tape else { return };
        let mut tape = tape.borrow_mut();
        tape.read += count;
        tape.source.passed(count);
        tape.ended = tape.source.is_end();
    }

    fn length(&self) -> Option<u64> {
        let Some(tape) = &self.tape else { return Some(0) };
        let tape = tape.borrow();
        let kept: u64 = tape.kept.iter().skip(self.next).map(|data| data.len() as u64).sum();
        tape.source.length().map(|rest| rest + kept)
    }
}
