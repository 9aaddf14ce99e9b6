//! What the peer sends: frames in, events out.

use bytes::{Buf, Bytes, BytesMut};

use super::code::{Code, Fault};
use super::frame::{self, FrameHead, HEAD, MAX_31, PREFACE, flag, kind};
use super::output::HIGH_WATER;
use super::section::{self, Verdict};
use super::send::FAREWELL;
use super::stream::{Half, UNKNOWN};
use super::{Connection, Event, Leaving, Opening, StreamId};
use crate::hpack::HpackFault;
use crate::{Fields, Method, RequestHead, ResponseHead};

/// Data up to this length are copied, so that a few bytes do not keep a large buffer from being used again.
const COPIED: usize = 256;
/// While so many bytes wait to be written that streams of data cannot be the reason, the peer does not read its answers: new requests
/// are refused.
const UNREAD: usize = HIGH_WATER + (1 << 20);

/// A header block whose end has not come.
pub(super) struct Block {
    id: StreamId,
    end: bool,
    bytes: Vec<u8>,
    frames: usize,
}

/// What a frame came to.
type Outcome = Result<Option<Event>, Fault>;

impl<S> Connection<S> {
    /// Takes the next event out of what was received. None: more bytes are needed.
    ///
    /// Large data are split off the buffer without a copy, so that it is best refilled with [`BytesMut::reserve`].
    ///
    /// # Errors
    /// The peer broke the protocol in a way that ends the connection (RFC 9113 §5.4.1). `GOAWAY` is queued: write the output, then
    /// close; the streams are all lost. Every later call fails the same.
    pub fn receive(&mut self, input: &mut BytesMut) -> Outcome {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let outcome = self.next_event(input);
        if let Err(fault) = outcome {
            self.fail(fault);
        }
        outcome
    }

    fn next_event(&mut self, input: &mut BytesMut) -> Outcome {
        if !self.events.is_empty() {
            return Ok(self.events.pop_front());
        }
        if self.opening == Opening::Preface && !self.preface(input)? {
            return Ok(None);
        }
        while let Some(head) = FrameHead::read(input) {
            self.admit(&head)?;
            if input.len() < HEAD + head.length {
                break;
            }
            let event = if head.kind == kind::DATA {
                input.advance(HEAD);
                self.on_data(&head, input)?
            } else {
                let event = self.on_frame(&head, &input[HEAD..HEAD + head.length])?;
                input.advance(HEAD + head.length);
                event
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Whether the client's preface is there.
    fn preface(&mut self, input: &mut BytesMut) -> Result<bool, Fault> {
        let length = input.len().min(PREFACE.len());
        if input[..length] != PREFACE[..length] {
            return Err(Fault::protocol("the connection does not begin with the preface of HTTP/2"));
        }
        let whole = length == PREFACE.len();
        if whole {
            input.advance(length);
            self.opening = Opening::Settings;
        }
        Ok(whole)
    }

    /// What can be said before the payload is there.
    fn admit(&self, head: &FrameHead) -> Result<(), Fault> {
        if head.length > self.config.frame as usize {
            return Err(Fault::size("a frame is longer than SETTINGS_MAX_FRAME_SIZE"));
        }
        if self.opening == Opening::Settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Fault::protocol("the first frame is not SETTINGS"));
        }
        match &self.block {
            Some(block) if head.kind != kind::CONTINUATION || head.id != block.id => {
                Err(Fault::protocol("a header block is interrupted by another frame"))
            }
            None if head.kind == kind::CONTINUATION => Err(Fault::protocol("CONTINUATION without HEADERS before it")),
            _ => Ok(()),
        }
    }

    fn on_frame(&mut self, head: &FrameHead, payload: &[u8]) -> Outcome {
        match head.kind {
            kind::HEADERS => self.on_headers(head, payload),
            kind::CONTINUATION => self.on_continuation(head, payload),
            kind::WINDOW_UPDATE => self.on_window_update(head.id, payload),
            kind::RST_STREAM => self.on_reset(head.id, payload),
            kind::SETTINGS => self.on_settings(head, payload),
            kind::PING => self.on_ping(head, payload),
            kind::GOAWAY => self.on_go_away(head.id, payload),
            kind::PRIORITY => self.on_priority(head.id, payload),
            kind::PRIORITY_UPDATE => self.on_priority_update(head.id, payload),
            kind::PUSH_PROMISE => Err(Fault::protocol("PUSH_PROMISE, which is not permitted here")),
            // RFC 9113 §4.1: of an unknown kind.
            _ => self.flood.vain_frame().map(|()| None),
        }
    }

    /// The frame's head is taken off the input already.
    fn on_data(&mut self, head: &FrameHead, input: &mut BytesMut) -> Outcome {
        let (id, end) = (head.id, head.has(flag::END_STREAM));
        if self.is_idle(id) {
            return Err(Fault::protocol("DATA on no stream or on an idle one"));
        }
        let place = head.data(&input[..head.length])?;
        let flow = head.length as u32;
        let Some(left) = self.receive_window.checked_sub(flow) else {
            return Err(Fault::new(Code::FLOW_CONTROL_ERROR, "more DATA than the connection's window permits"));
        };
        self.receive_window = left;
        let wrong = match self.streams.get(id) {
            None => Some(Code::STREAM_CLOSED),
            Some(stream) if stream.remote == Half::Closed => Some(Code::STREAM_CLOSED),
            // A response without a head.
            Some(stream) if stream.remote == Half::Head => Some(Code::PROTOCOL_ERROR),
            Some(stream) if i64::from(stream.receive_window) < i64::from(flow) => Some(Code::FLOW_CONTROL_ERROR),
            Some(stream) => {
                stream.receive_window -= flow as i32;
                (!stream.count_body(place.len(), end)).then_some(Code::PROTOCOL_ERROR)
            }
        };
        if let Some(code) = wrong {
            input.advance(head.length);
            self.release_connection(flow);
            return self.stray(id, code);
        }
        let data = take(input, place, head.length);
        if end {
            self.end_remote(id);
        } else if data.is_empty() {
            self.flood.vain_frame()?;
        } else {
            self.flood.worked();
        }
        if let Some(stream) = self.streams.get(id) {
            stream.held += flow;
        }
        if data.is_empty() && !end {
            // Padding alone concerns nobody.
            self.release(id, flow);
            return Ok(None);
        }
        Ok(Some(Event::Data { id, data, flow, end }))
    }

    fn on_headers(&mut self, head: &FrameHead, payload: &[u8]) -> Outcome {
        if head.id.is_multiple_of(2) || (!self.server && self.is_idle(head.id)) {
            return Err(Fault::protocol("HEADERS on no stream or on one that cannot be opened so"));
        }
        let fragment = head.fragment(payload)?;
        let end = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.on_block(head.id, end, fragment);
        }
        self.block = Some(Block { id: head.id, end, bytes: fragment.to_vec(), frames: 1 });
        Ok(None)
    }

    fn on_continuation(&mut self, head: &FrameHead, payload: &[u8]) -> Outcome {
        let Some(block) = &mut self.block else { return Ok(None) };
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        // A block is hardly longer than what it says; and frames that say nothing cost as well (CVE-2024-27316).
        let most = self.config.max_head;
        if block.bytes.len() > most + HEAD || block.frames > 8 + most / 1024 {
            return Err(Fault::new(Code::ENHANCE_YOUR_CALM, "a header block beyond all bounds"));
        }
        if !head.has(flag::END_HEADERS) {
            return Ok(None);
        }
        match self.block.take() {
            Some(block) => self.on_block(block.id, block.end, &block.bytes),
            None => Ok(None),
        }
    }

    /// A whole header block. Whatever the stream is, the block is decoded.
    fn on_block(&mut self, id: StreamId, end: bool, block: &[u8]) -> Outcome {
        match self.streams.get(id).map(|stream| stream.remote) {
            Some(Half::Head) => self.on_response(id, end, block),
            Some(Half::Body) => self.on_trailers(id, end, block),
            Some(Half::Closed) => {
                self.discard(block)?;
                self.stray(id, Code::STREAM_CLOSED)
            }
            None if self.server && self.is_idle(id) => self.on_request(id, end, block),
            None => {
                self.discard(block)?;
                if self.was_reset(id) {
                    return self.flood.vain_frame().map(|()| None);
                }
                let skipped = self.skipped.0 <= id && id < self.skipped.1;
                let code = if skipped { Code::PROTOCOL_ERROR } else { Code::STREAM_CLOSED };
                Err(Fault::new(code, "HEADERS on a closed stream"))
            }
        }
    }

    fn on_request(&mut self, id: StreamId, end: bool, block: &[u8]) -> Outcome {
        if let Leaving::Above(_) = self.leaving {
            // The peer knows from our GOAWAY that nobody looks at it.
            self.discard(block)?;
            return self.flood.vain_frame().map(|()| None);
        }
        if id > self.newest + 2 {
            self.skipped = (self.newest + 1, id);
        }
        self.newest = id;
        let full = self.active >= self.config.streams as usize
            || self.streams.len() >= self.config.streams as usize * 2
            || bytes::Buf::remaining(&self.output) > UNREAD;
        if full {
            self.discard(block)?;
            return self.refuse(id, Code::REFUSED_STREAM);
        }
        let mut head = RequestHead::default();
        head.fields = self.fields();
        let verdict = section::request(&mut self.decoder, block, &self.config, &mut head).map_err(compression)?;
        let promised = match verdict {
            // RFC 9110 §9.3.6: CONNECT has no body, what follows is the tunnel's.
            Verdict::Good { .. } if head.method() == Method::Connect => UNKNOWN,
            Verdict::Good { promised } => promised,
            Verdict::Malformed => return self.refuse(id, Code::PROTOCOL_ERROR),
            Verdict::TooLarge => return self.too_large(id, end),
        };
        if end && promised != UNKNOWN && promised != 0 {
            return self.refuse(id, Code::PROTOCOL_ERROR);
        }
        let stream = self.open(id);
        stream.promised = promised;
        stream.remote = if end { Half::Closed } else { Half::Body };
        self.flood.worked();
        Ok(Some(Event::Request { id, head, end }))
    }

    fn on_response(&mut self, id: StreamId, end: bool, block: &[u8]) -> Outcome {
        let mut head = ResponseHead { fields: self.fields(), ..ResponseHead::default() };
        let verdict = section::response(&mut self.decoder, block, &self.config, &mut head).map_err(compression)?;
        let Verdict::Good { promised } = verdict else { return self.unfit(id, verdict) };
        if head.is_informational() {
            if end {
                return self.stream_error(id, Code::PROTOCOL_ERROR);
            }
            self.flood.vain_frame()?;
            return Ok(Some(Event::Response { id, head, end }));
        }
        self.flood.worked();
        if let Some(stream) = self.streams.get(id) {
            stream.remote = Half::Body;
            // RFC 9110 §6.4.1: these have no body, whatever their content-length says.
            let bodiless = stream.head_only || matches!(head.status, 204 | 304);
            stream.promised = if bodiless { 0 } else { promised };
            if end && !stream.count_body(0, true) {
                return self.stream_error(id, Code::PROTOCOL_ERROR);
            }
        }
        if end {
            self.end_remote(id);
        }
        Ok(Some(Event::Response { id, head, end }))
    }

    fn on_trailers(&mut self, id: StreamId, end: bool, block: &[u8]) -> Outcome {
        let mut fields = self.fields();
        let verdict = section::trailers(&mut self.decoder, block, &self.config, &mut fields).map_err(compression)?;
        let whole = self.streams.get(id).is_some_and(|stream| stream.count_body(0, true));
        if !end || !whole {
            return self.stream_error(id, Code::PROTOCOL_ERROR);
        }
        let Verdict::Good { .. } = verdict else { return self.unfit(id, verdict) };
        self.end_remote(id);
        Ok(Some(Event::Trailers { id, fields }))
    }

    fn on_window_update(&mut self, id: StreamId, payload: &[u8]) -> Outcome {
        if payload.len() != 4 {
            return Err(Fault::size("WINDOW_UPDATE is not 4 bytes long"));
        }
        self.flood.vain_frame()?;
        let increment = frame::number(payload) & MAX_31;
        if id == 0 {
            if increment == 0 {
                return Err(Fault::protocol("WINDOW_UPDATE of nothing"));
            }
            return match self.send_window.checked_add(increment).filter(|window| *window <= MAX_31) {
                Some(window) => {
                    self.send_window = window;
                    Ok(None)
                }
                None => Err(Fault::new(Code::FLOW_CONTROL_ERROR, "the connection's window is too large")),
            };
        }
        if self.is_idle(id) {
            return Err(Fault::protocol("WINDOW_UPDATE on an idle stream"));
        }
        let Some(stream) = self.streams.get(id).filter(|stream| stream.local != Half::Closed) else {
            return Ok(None);
        };
        if increment == 0 {
            return self.stream_error(id, Code::PROTOCOL_ERROR);
        }
        let Some(window) = stream.send_window.checked_add(increment as i32) else {
            return self.stream_error(id, Code::FLOW_CONTROL_ERROR);
        };
        stream.send_window = window;
        if stream.blocked && !stream.queued && window > 0 {
            stream.queued = true;
            self.ready.push_back(id);
        }
        Ok(None)
    }

    fn on_reset(&mut self, id: StreamId, payload: &[u8]) -> Outcome {
        if payload.len() != 4 {
            return Err(Fault::size("RST_STREAM is not 4 bytes long"));
        }
        if self.is_idle(id) {
            return Err(Fault::protocol("RST_STREAM on no stream or on an idle one"));
        }
        let unanswered = self.server && self.streams.get(id).is_some_and(|stream| stream.local == Half::Head);
        if unanswered {
            self.flood.vain_stream()?;
        }
        if !self.close(id) {
            return self.flood.vain_frame().map(|()| None);
        }
        let code = Code(frame::number(payload));
        Ok(Some(Event::Reset { id, code, untouched: code == Code::REFUSED_STREAM }))
    }

    fn on_settings(&mut self, head: &FrameHead, payload: &[u8]) -> Outcome {
        if head.id != 0 {
            return Err(Fault::protocol("SETTINGS on a stream"));
        }
        if head.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(Fault::size("an acknowledgement of SETTINGS with a payload"));
            }
            self.flood.vain_frame()?;
            if !std::mem::replace(&mut self.acknowledged, true) {
                self.decoder.acknowledged();
                // From now on what we said holds, also for streams that are open.
                let less = self.early_window() - self.config.stream_window;
                self.streams.iter_mut().for_each(|stream| stream.receive_window -= less as i32);
            }
            return Ok(None);
        }
        let before = self.peer.stream_window;
        let table = self.peer.table;
        let first = std::mem::replace(&mut self.opening, Opening::Over) == Opening::Settings;
        self.peer.apply(payload, !self.server, first)?;
        if self.peer.table != table {
            self.encoder.set_peer_table_size(self.peer.table as usize);
        }
        if self.peer.stream_window != before {
            self.shift_windows(i64::from(self.peer.stream_window) - i64::from(before))?;
        }
        let behind = !self.output.is_empty();
        self.flood.answer(behind)?;
        frame::put_head(self.output.tail(), 0, kind::SETTINGS, flag::ACK, 0);
        Ok(Some(Event::Settings))
    }

    /// RFC 9113 §6.9.2: another initial window changes the windows of all streams.
    fn shift_windows(&mut self, by: i64) -> Result<(), Fault> {
        for stream in self.streams.iter_mut() {
            let window = i32::try_from(i64::from(stream.send_window) + by);
            stream.send_window = window
                .map_err(|_| Fault::new(Code::FLOW_CONTROL_ERROR, "SETTINGS make a stream's window too large"))?;
            if stream.blocked && !stream.queued && stream.send_window > 0 {
                stream.queued = true;
                self.ready.push_back(stream.id);
            }
        }
        Ok(())
    }

    fn on_ping(&mut self, head: &FrameHead, payload: &[u8]) -> Outcome {
        let Ok(payload) = payload.try_into().map(u64::from_be_bytes) else {
            return Err(Fault::size("PING is not 8 bytes long"));
        };
        if head.id != 0 {
            return Err(Fault::protocol("PING on a stream"));
        }
        if !head.has(flag::ACK) {
            let behind = !self.output.is_empty();
            self.flood.answer(behind)?;
            frame::put_ping(self.output.tail(), flag::ACK, payload);
            return Ok(None);
        }
        self.flood.vain_frame()?;
        if self.leaving == Leaving::Told && payload == FAREWELL {
            self.go_away(Code::NO_ERROR);
            return Ok(None);
        }
        Ok(Some(Event::Pong(payload)))
    }

    fn on_go_away(&mut self, id: StreamId, payload: &[u8]) -> Outcome {
        if id != 0 {
            return Err(Fault::protocol("GOAWAY on a stream"));
        }
        if payload.len() < 8 {
            return Err(Fault::size("GOAWAY is shorter than 8 bytes"));
        }
        self.flood.vain_frame()?;
        let last = (frame::number(payload) & MAX_31).min(self.left.unwrap_or(MAX_31));
        let code = Code(frame::number(&payload[4..]));
        self.left = Some(last);
        if !self.server {
            let mut lost: Vec<_> =
                self.streams.iter_mut().filter(|s| s.id > last && !s.is_closed()).map(|s| s.id).collect();
            lost.sort_unstable();
            for id in lost {
                self.close(id);
                self.events.push_back(Event::Reset { id, code: Code::REFUSED_STREAM, untouched: true });
            }
        }
        Ok(Some(Event::GoAway { last, code }))
    }

    /// RFC 9113 §5.3.2: read and ignored.
    fn on_priority(&mut self, id: StreamId, payload: &[u8]) -> Outcome {
        if id == 0 {
            return Err(Fault::protocol("PRIORITY on no stream"));
        }
        self.flood.vain_frame()?;
        match (payload.len(), self.is_idle(id)) {
            (5, _) => Ok(None),
            // No stream to reset.
            (_, true) => Err(Fault::size("PRIORITY is not 5 bytes long")),
            (_, false) => self.stray(id, Code::FRAME_SIZE_ERROR),
        }
    }

    /// RFC 9218 §7.1: read and ignored.
    fn on_priority_update(&mut self, id: StreamId, payload: &[u8]) -> Outcome {
        if payload.len() < 4 {
            return Err(Fault::size("PRIORITY_UPDATE is shorter than 4 bytes"));
        }
        if !self.server || id != 0 || frame::number(payload) & MAX_31 == 0 {
            return Err(Fault::protocol("PRIORITY_UPDATE from a server, on a stream, or of no stream"));
        }
        self.flood.vain_frame().map(|()| None)
    }

    /// Room for a section: used before, if there is such.
    fn fields(&mut self) -> Fields {
        self.spare.pop().unwrap_or_else(|| Fields::with_capacity(512, 12))
    }

    fn discard(&mut self, block: &[u8]) -> Result<(), Fault> {
        section::discard(&mut self.decoder, block).map_err(compression)
    }

    /// The peer has sent its last on the stream.
    fn end_remote(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.remote = Half::Closed;
        if stream.local == Half::Closed {
            self.active -= 1;
            self.flood.served();
        }
    }

    /// A frame that does not fit a stream that is or was there. What is under way on a stream that was reset here is ignored
    /// (RFC 9113 §5.1).
    fn stray(&mut self, id: StreamId, code: Code) -> Outcome {
        if self.was_reset(id) { self.flood.vain_frame().map(|()| None) } else { self.stream_error(id, code) }
    }

    /// RFC 9113 §5.4.2. An event only when the stream was not closed.
    fn stream_error(&mut self, id: StreamId, code: Code) -> Outcome {
        self.flood.vain_stream()?;
        self.put_reset(id, code);
        Ok(self.close(id).then_some(Event::Reset { id, code, untouched: false }))
    }

    /// Resets a stream that nobody has heard of.
    fn refuse(&mut self, id: StreamId, code: Code) -> Outcome {
        // Before it has seen our settings, the peer cannot know how many streams are too many.
        if self.acknowledged || code != Code::REFUSED_STREAM {
            self.flood.vain_stream()?;
        }
        self.put_reset(id, code);
        Ok(None)
    }

    /// A head that is malformed or too large, of a stream that is open.
    fn unfit(&mut self, id: StreamId, verdict: Verdict) -> Outcome {
        self.stream_error(id, if verdict == Verdict::TooLarge { Code::ENHANCE_YOUR_CALM } else { Code::PROTOCOL_ERROR })
    }

    /// RFC 9113 §10.5.1: the answer to a head beyond the limits.
    fn too_large(&mut self, id: StreamId, end: bool) -> Outcome {
        self.flood.vain_stream()?;
        let stream = self.open(id);
        stream.remote = if end { Half::Closed } else { Half::Body };
        self.respond(id, &ResponseHead::new(431), true);
        self.forget(id);
        Ok(None)
    }
}

fn compression(_: HpackFault) -> Fault {
    Fault::new(Code::COMPRESSION_ERROR, "a header block cannot be decompressed")
}

/// Takes a payload off the input, and its data out of that.
fn take(input: &mut BytesMut, data: std::ops::Range<usize>, length: usize) -> Bytes {
    if data.len() > COPIED {
        let mut payload = input.split_to(length).freeze();
        payload.truncate(data.end);
        payload.advance(data.start);
        return payload;
    }
    let copy = Bytes::copy_from_slice(&input[data]);
    input.advance(length);
    copy
}
