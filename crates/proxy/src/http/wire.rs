//! One HTTP/1 connection, from either side: bytes in, bytes out, and where in a message the reading is.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::Sleep;
use veer_http::{ResponseHead, Version, h1};

use super::body::{BodyError, Frame};
use super::buffers::{self, Amount};
use super::half_closed::{HalfClosed, Look};
use super::pass::WORTHWHILE;
use super::transport::Transport;
use crate::socket::Armed;

/// A piece of a body that is worth a place of its own in a vectored write; smaller ones are copied behind the head.
const WORTH: usize = 16 * 1024;
/// Output that is sent before more is asked for.
const FULL: usize = 32 * 1024;
/// A client that waits for leave to send its body gets it from the server; from us, when the server says nothing for so long.
const LEAVE_TIME: Duration = Duration::from_secs(1);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Shared by whoever reads a body and whoever serves the connection: always the same task.
pub type SharedWire = Rc<RefCell<Wire>>;

/// A connection.
pub struct Wire {
    io: Transport,
    /// Read and not yet used.
    pub input: BytesMut,
    amount: Amount,
    /// What is being read.
    pub reading: Reading,
    /// To be written first.
    pub output: Vec<u8>,
    written: usize,
    /// To be written behind `output`.
    tail: Bytes,
    /// Whether a message is being sent whose end was not handed over yet.
    pub open_message: bool,
    /// A client waits for leave to send its body (RFC 9110 §10.1.1), until then at most.
    awaits_leave: Option<Pin<Box<Sleep>>>,
    /// The client has ended its side.
    half_closed: Option<Box<HalfClosed>>,
}

/// Where in a message the reading is.
#[derive(Debug)]
pub enum Reading {
    /// Before a head, or behind the whole message.
    Head,
    /// So many bytes of a body are left.
    Length(u64),
    /// In a chunked body.
    Chunked(h1::Chunked),
    /// In a body that the connection's end ends.
    UntilClose,
    /// Nothing that follows can be understood.
    Broken,
}

impl Reading {
    /// How a body is read.
    pub fn of(body: h1::Body) -> Self {
        match body {
            h1::Body::None | h1::Body::Length(0) => Reading::Head,
            h1::Body::Length(length) => Reading::Length(length),
            h1::Body::Chunked => Reading::Chunked(h1::Chunked::default()),
            h1::Body::UntilClose => Reading::UntilClose,
        }
    }
}

impl Wire {
    /// A connection of which some bytes may have been read already.
    pub fn new(io: Transport, input: BytesMut) -> Self {
        Self {
            io,
            input,
            amount: Amount::default(),
            reading: Reading::Head,
            output: Vec::new(),
            written: 0,
            tail: Bytes::new(),
            open_message: false,
            awaits_leave: None,
            half_closed: None,
        }
    }

    /// Reads what is there behind what was read already; 0 at the end of the stream.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        buffers::poll_read(&mut self.io, &mut self.input, &mut self.amount, cx)
    }

    /// Whether between messages nothing has come, not even an end. To be asked before a connection is used again.
    pub fn poll_is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        if !matches!(self.reading, Reading::Head) || !self.input.is_empty() {
            return false;
        }
        match self.io.socket() {
            // Looks at what the reactor has seen, and leaves no waker behind.
            Some(socket) => socket.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            None => self.poll_fill(cx).is_pending(),
        }
    }

    /// The next piece of the body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            match &mut self.reading {
                Reading::Head => return Poll::Ready(None),
                Reading::Broken => return Poll::Ready(Some(Err(BodyError::Broken))),
                Reading::Length(left) if !self.input.is_empty() => {
                    let count = usize::try_from(*left).map_or(self.input.len(), |left| left.min(self.input.len()));
                    *left -= count as u64;
                    if *left == 0 {
                        self.reading = Reading::Head;
                    }
                    return Poll::Ready(Some(Ok(Frame::Data(self.input.split_to(count).freeze()))));
                }
                Reading::UntilClose if !self.input.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::Data(self.input.split().freeze()))));
                }
                Reading::Chunked(chunked) => match chunked.decode(&mut self.input) {
                    Ok(Some(h1::Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                    Ok(Some(h1::Piece::End(trailers))) => {
                        self.reading = Reading::Head;
                        return Poll::Ready(trailers.map(|fields| Ok(Frame::Trailers(fields))));
                    }
                    Ok(None) => {}
                    Err(fault) => {
                        self.reading = Reading::Broken;
                        return Poll::Ready(Some(Err(BodyError::Framing(fault))));
                    }
                },
                Reading::Length(_) | Reading::UntilClose => {}
            }
            if self.awaits_leave.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
                self.give_leave();
            }
            if self.has_output() {
                // Whoever is to send the body may be waiting for what we owe.
                let _ = self.poll_flush(cx);
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if matches!(self.reading, Reading::UntilClose) => {
                    self.reading = Reading::Broken;
                    return Poll::Ready(None);
                }
                Ok(0) => {
                    self.reading = Reading::Broken;
                    return Poll::Ready(Some(Err(BodyError::Incomplete)));
                }
                // A client that sends needs no leave any more.
                Ok(_) => self.awaits_leave = None,
                Err(error) => {
                    self.reading = Reading::Broken;
                    return Poll::Ready(Some(Err(BodyError::Io(error))));
                }
            }
        }
    }

    /// The client sends its body only when it is told to, or after a while.
    pub fn await_leave(&mut self) {
        self.awaits_leave = Some(Box::pin(tokio::time::sleep(LEAVE_TIME)));
    }

    /// Whether the client was still waiting for leave; it will not get it any more.
    pub fn refuse_leave(&mut self) -> bool {
        self.awaits_leave.take().is_some()
    }

    fn give_leave(&mut self) {
        if self.awaits_leave.take().is_some() {
            self.output().extend_from_slice(CONTINUE);
        }
    }

    /// Writes an informational answer; `100` only to a client that waits for it.
    pub fn inform(&mut self, head: &ResponseHead, cx: &mut Context<'_>) {
        if head.status == 100 {
            self.give_leave();
        } else {
            h1::write_response(head, h1::Body::None, h1::Persist::Keep, Version::Http11, self.output());
        }
        // What does not go out now goes out before the answer.
        let _ = self.poll_flush(cx);
    }

    /// Ready when the client is gone. `most` bytes of later requests are read.
    pub fn poll_gone(&mut self, version: Version, most: usize, cx: &mut Context<'_>) -> Poll<()> {
        while self.half_closed.is_none() && self.input.len() < most {
            match ready!(self.poll_fill(cx)) {
                Ok(0) => self.half_closed = Some(Box::new(HalfClosed::new(version != Version::Http10))),
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        while let Some(client) = &mut self.half_closed {
            match ready!(client.poll(cx)) {
                // RFC 9110 §15.2: every client of HTTP/1.1 can read and ignore it.
                Look::Ask => {
                    self.output().extend_from_slice(CONTINUE);
                    let _ = self.poll_flush(cx);
                }
                Look::Listen if !self.io.is_refused() => {}
                Look::Listen | Look::Over => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Room for what is written next.
    pub fn output(&mut self) -> &mut Vec<u8> {
        if self.output.capacity() == 0 {
            self.output = buffers::output();
        }
        &mut self.output
    }

    /// Adds a piece of a body to what is to be written; copied when it is small. Only after [`Self::poll_room`] said yes,
    /// which it says again only when nothing would come between.
    pub fn push(&mut self, data: Bytes) {
        if data.len() < WORTH {
            self.output().extend_from_slice(&data);
        } else {
            self.tail = data;
        }
    }

    /// Waits until more may be added: bounded by [`FULL`], and nothing may be added behind a tail.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tail.is_empty() && self.output.len() < FULL { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    /// Whether anything is still to be written.
    pub fn has_output(&self) -> bool {
        self.written < self.output.len() || !self.tail.is_empty()
    }

    /// Writes all there is.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.has_output() {
            let head = &self.output[self.written..];
            let io = Pin::new(&mut self.io);
            let count = if self.tail.is_empty() {
                ready!(io.poll_write(cx, head))?
            } else {
                ready!(io.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(&self.tail)]))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = count.min(head.len());
            self.written += of_head;
            self.tail.advance(count - of_head);
        }
        if self.written > 0 {
            self.written = 0;
            self.output.clear();
            buffers::give_output(std::mem::take(&mut self.output));
        }
        if self.io.is_buffered() { Pin::new(&mut self.io).poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Whether it is a socket, with nothing between it and what is written.
    pub fn is_plain(&self) -> bool {
        self.io.socket().is_some()
    }

    /// Ends the writing side.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// How much of a body comes next of which nothing was read yet, when it is so much that it is better not read at all.
    pub fn passes(&self) -> Option<u64> {
        match self.reading {
            Reading::Length(left) if left > WORTHWHILE => {
                (self.input.is_empty() && self.awaits_leave.is_none() && self.io.socket().is_some()).then_some(left)
            }
            _ => None,
        }
    }

    /// So much of the body went by.
    pub fn passed(&mut self, count: u64) {
        if let Reading::Length(left) = &mut self.reading {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.reading = Reading::Head;
            }
        }
    }

    /// The kernel's socket, to move bytes past everything else.
    pub fn raw(&mut self) -> Option<(&TcpStream, &mut Armed)> {
        self.io.raw()
    }

    /// The connection will be idle: it holds no memory for input then.
    pub fn rest(&mut self) {
        buffers::give_input(&mut self.input, &mut self.amount);
    }

    /// Another task has the connection from here on.
    pub fn change_hands(&mut self) {
        self.io.change_hands();
    }

    /// Takes the connection away for another protocol, with what was read of it.
    pub fn take(&mut self) -> (Transport, BytesMut) {
        self.reading = Reading::Broken;
        self.io.change_hands();
        (std::mem::replace(&mut self.io, Transport::Gone), std::mem::take(&mut self.input))
    }
}
