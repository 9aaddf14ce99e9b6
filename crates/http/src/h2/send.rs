//! What the engine asks a connection to send.

use bytes::Bytes;

use super::code::{Code, Fault};
use super::frame::{self, HEAD, MAX_31, flag, kind};
use super::memo::{Head, Memo, Memos};
use super::stream::{Half, Stream};
use super::{Connection, Leaving, StreamId};
use crate::hpack::{Encoder, Pseudo};
use crate::{Fields, Method, Name, RequestHead, ResponseHead, Scheme};

/// While other streams wait for their turn, one takes no more than this at once.
const TURN: usize = 64 << 10;
/// What a server's farewell PING carries: when it comes back, the peer has seen the GOAWAY before it.
pub(super) const FAREWELL: u64 = u64::from_be_bytes(*b"veer-bye");

/// Why a stream cannot be opened.
#[derive(Debug, Copy, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The peer takes no more at once.
    #[error("the peer takes no more streams at once")]
    TooMany,
    /// One of both ends is going away, or the connection has failed.
    #[error("the connection is going away")]
    GoingAway,
    /// All 2³⁰ ids are used.
    #[error("the connection has no stream id left")]
    Exhausted,
}

impl<S> Connection<S> {
    /// Opens a stream with a request.
    ///
    /// `:authority` is the head's authority or else its `Host` field; fields of the connection (RFC 9113 §8.2.2) are left out.
    /// Extended `CONNECT` is not checked against the peer's settings: see [`Self::takes_protocols`].
    ///
    /// # Errors
    /// The peer or the connection takes no more; `state` is dropped then.
    pub fn request(&mut self, head: &RequestHead, end: bool, state: S) -> Result<StreamId, Refused> {
        if let Some(refused) = self.refusal() {
            return Err(refused);
        }
        let id = self.next;
        self.next += 2;
        let stream = self.open(id);
        stream.local = if end { Half::Closed } else { Half::Body };
        stream.method = head.method();
        stream.state = Some(state);
        self.block(id, end, head, |memos| &mut memos.requests, request);
        Ok(id)
    }

    /// Sends a response's head, also an informational one (which never ends the stream). Nothing when the stream is closed.
    pub fn respond(&mut self, id: StreamId, head: &ResponseHead, end: bool) {
        let informational = head.is_informational();
        let Some(stream) = self.sending(id) else { return };
        if !informational {
            stream.local = Half::Body;
        }
        self.block(id, end && !informational, head, |memos| &mut memos.responses, response);
        if end && !informational {
            self.end_local(id);
        }
    }

    /// Sends as much of the data as windows and the output's room permit, and takes it off `data`. True: all was taken, and the
    /// stream ended if that was asked. False: the stream is blocked; [`Self::writable`] names it when more of it can be sent.
    ///
    /// Of a stream that is closed, everything is taken and dropped: its end was told by an event.
    pub fn data(&mut self, id: StreamId, data: &mut Bytes, end: bool) -> bool {
        let others_wait = !self.ready.is_empty();
        let longest = self.peer.frame as usize;
        let Some(stream) = self.streams.get(id).filter(|stream| stream.local != Half::Closed) else {
            data.clear();
            return true;
        };
        debug_assert!(stream.local == Half::Body, "data before a head");
        stream.blocked = false;
        let mut turn = if others_wait { TURN } else { usize::MAX };
        while !data.is_empty() {
            let window = self.send_window.min(stream.send_window.max(0) as u32) as usize;
            let length = data.len().min(longest).min(window).min(turn);
            if length == 0 || self.output.is_full() {
                stream.blocked = true;
                if stream.send_window > 0 && !stream.queued {
                    stream.queued = true;
                    self.ready.push_back(id);
                }
                return false;
            }
            self.send_window -= length as u32;
            stream.send_window -= length as i32;
            turn -= length;
            let ends = if end && length == data.len() { flag::END_STREAM } else { 0 };
            frame::put_head(self.output.tail(), length, kind::DATA, ends, id);
            self.output.put_data(data.split_to(length));
            self.flood.worked();
            if ends != 0 {
                self.end_local(id);
                return true;
            }
        }
        if end {
            frame::put_head(self.output.tail(), 0, kind::DATA, flag::END_STREAM, id);
            self.end_local(id);
        }
        true
    }

    /// Ends a stream with trailers, once [`Self::data`] has taken everything.
    pub fn trailers(&mut self, id: StreamId, fields: &Fields) {
        if self.sending(id).is_none() {
            return;
        }
        self.block(id, true, fields, |memos| &mut memos.trailers_written, put_fields);
        self.end_local(id);
    }

    /// Resets a stream. Its state stays until [`Self::forget`].
    pub fn reset(&mut self, id: StreamId, code: Code) {
        if self.close(id) {
            self.put_reset(id, code);
        }
    }

    /// Gives the peer back what it may send, after the data are used: in steps of half a window.
    pub fn release(&mut self, id: StreamId, bytes: u32) {
        let half = self.config.stream_window / 2;
        let Some(stream) = self.streams.get(id) else { return };
        let bytes = bytes.min(stream.held);
        stream.held -= bytes;
        if stream.remote != Half::Closed {
            stream.released += bytes;
            if stream.released > 0 && stream.released >= half {
                frame::put_window_update(self.output.tail(), id, stream.released);
                stream.receive_window += stream.released as i32;
                stream.released = 0;
            }
        }
        self.release_connection(bytes);
    }

    /// Forgets a stream and hands its state back. One that is not closed is reset: by a server that has answered with `NO_ERROR`
    /// (RFC 9113 §8.1), else with `CANCEL`. What was not released is.
    pub fn forget(&mut self, id: StreamId) -> Option<S> {
        let stream = self.streams.remove(id)?;
        self.release_connection(stream.held);
        if stream.queued && self.ready.len() > 64 + 2 * self.streams.len() {
            // Nobody may have asked for long who can go on.
            self.ready.retain(|id| self.streams.get(*id).is_some());
        }
        if !stream.is_closed() {
            self.active -= 1;
            let answered = self.server && stream.local == Half::Closed;
            self.put_reset(id, if answered { Code::NO_ERROR } else { Code::CANCEL });
        }
        stream.state
    }

    /// A blocked stream that can go on, each in its turn: its next call is [`Self::data`]. Ask until there is none, before the output
    /// is written.
    pub fn writable(&mut self) -> Option<StreamId> {
        if self.ready.is_empty() || self.send_window == 0 || self.output.is_full() {
            return None;
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(stream) = self.streams.get(id) else { continue };
            stream.queued = false;
            if stream.blocked && stream.send_window > 0 {
                return Some(id);
            }
        }
        None
    }

    /// Asks the peer for a sign of life; [`super::Event::Pong`] is the answer.
    pub fn ping(&mut self, payload: u64) {
        self.flood.asked();
        frame::put_ping(self.output.tail(), 0, payload);
    }

    /// Goes away at once: streams that have come are served, later ones are not taken. A second call says another code.
    pub fn go_away(&mut self, code: Code) {
        let last = self.last();
        self.leaving = Leaving::Above(last);
        frame::put_go_away(self.output.tail(), last, code, "");
    }

    /// Goes away gracefully. A server first says that it will, and takes what was under way until the peer has heard it
    /// (RFC 9113 §6.8): who drives the connection calls [`Self::go_away`] when the peer does not answer.
    pub fn shut_down(&mut self) {
        if self.leaving != Leaving::No || self.fault.is_some() {
            return;
        }
        if !self.server {
            return self.go_away(Code::NO_ERROR);
        }
        self.leaving = Leaving::Told;
        frame::put_go_away(self.output.tail(), MAX_31, Code::NO_ERROR, "");
        self.ping(FAREWELL);
    }

    /// Whether the peer takes extended `CONNECT` (RFC 8441).
    pub fn takes_protocols(&self) -> bool {
        self.peer.connect_protocol
    }

    pub(super) fn refusal(&self) -> Option<Refused> {
        if self.going_away() {
            Some(Refused::GoingAway)
        } else if self.server || self.next > MAX_31 {
            Some(Refused::Exhausted)
        } else if self.active >= self.peer.streams as usize {
            Some(Refused::TooMany)
        } else {
            None
        }
    }

    /// The connection's last words.
    pub(super) fn fail(&mut self, fault: Fault) {
        self.fault = Some(fault);
        let last = self.last();
        frame::put_go_away(self.output.tail(), last, fault.code, fault.reason);
    }

    /// The last stream of the peer that anybody has looked at.
    fn last(&self) -> StreamId {
        match self.leaving {
            Leaving::Above(last) => last,
            _ => self.newest,
        }
    }

    /// The stream, when we may send on it.
    fn sending(&mut self, id: StreamId) -> Option<&mut Stream<S>> {
        self.streams.get(id).filter(|stream| stream.local != Half::Closed)
    }

    fn end_local(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.local = Half::Closed;
        if stream.remote == Half::Closed {
            self.active -= 1;
            self.flood.served();
        }
    }

    /// Writes a header block: `HEADERS`, and `CONTINUATION` when it is longer than the peer's frames.
    fn block<H: Head>(
        &mut self,
        id: StreamId,
        end: bool,
        head: &H,
        memo: fn(&mut Memos) -> &mut Memo<H>,
        write: fn(&H, &mut Encoder, &mut Vec<u8>),
    ) {
        let (out, memo, before) = (self.output.tail(), memo(&mut self.memos), self.encoder.state());
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        if let Some(block) = memo.write(head, before) {
            out.extend_from_slice(block);
        } else {
            self.encoder.begin(out);
            write(head, &mut self.encoder, out);
            memo.keep_written(head, [before, self.encoder.state()], &out[start + HEAD..]);
        }
        frame::finish_block(out, start, id, end, self.peer.frame as usize);
    }
}

fn request(head: &RequestHead, encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.pseudo(Pseudo::Method, head.method_str().as_bytes(), out);
    // A plain CONNECT names nothing but host and port (RFC 9113 §8.5).
    if head.method() != Method::Connect || head.protocol().is_some() {
        let scheme: &[u8] = match head.scheme {
            Scheme::Http => b"http",
            Scheme::Https => b"https",
        };
        encoder.pseudo(Pseudo::Scheme, scheme, out);
        encoder.pseudo(Pseudo::Path, if head.target().is_empty() { b"/" } else { head.target() }, out);
    }
    if let Some(authority) = head.authority().or_else(|| head.fields.get(Name::Host)) {
        encoder.pseudo(Pseudo::Authority, authority, out);
    }
    if let Some(protocol) = head.protocol() {
        encoder.pseudo(Pseudo::Protocol, protocol, out);
    }
    put_fields(&head.fields, encoder, out);
}

fn response(head: &ResponseHead, encoder: &mut Encoder, out: &mut Vec<u8>) {
    let digit = |unit: u16| b'0' + (head.status / unit % 10) as u8;
    encoder.pseudo(Pseudo::Status, &[digit(100), digit(10), digit(1)], out);
    put_fields(&head.fields, encoder, out);
}

/// Fields without those of the connection (RFC 9113 §8.2.2) and without `Host`, which `:authority` has become.
fn put_fields(fields: &Fields, encoder: &mut Encoder, out: &mut Vec<u8>) {
    for (known, name, value, sensitive) in fields.entries() {
        match known {
            Name::Connection
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::TransferEncoding
            | Name::Upgrade
            | Name::Http2Settings
            | Name::Host => {}
            Name::Te => {
                let mut members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                if members.any(|member| member.eq_ignore_ascii_case(b"trailers")) {
                    encoder.field(known, name, b"trailers", false, out);
                }
            }
            _ => encoder.field(known, name, value, sensitive, out),
        }
    }
}
