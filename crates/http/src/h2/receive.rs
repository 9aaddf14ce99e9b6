//! What the peer sends: frames in, events out.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use super::code::{Code, Fault};
use super::frame::{FrameHead, HEAD, PREFACE, flag, kind};
use super::output::HIGH_WATER;
use super::stream::Half;
use super::{Connection, Event, Opening, StreamId};

/// Data up to this length are copied, so that a few bytes do not keep a large buffer from being used again.
const COPIED: usize = 256;
/// When so many bytes wait to be written, the peer has sent for long and not read what it was told: the connection is ended.
const UNREADABLE: usize = HIGH_WATER + (16 << 20);

/// What a frame came to.
pub(super) type Outcome = Result<Option<Event>, Fault>;

impl<S> Connection<S> {
    /// Takes the next event out of what was received. None: more bytes are needed.
    ///
    /// Large data are split off the buffer without a copy, so that it is best refilled with [`BytesMut::reserve`].
    ///
    /// # Errors
    /// The peer broke the protocol in a way that ends the connection (RFC 9113 §5.4.1). `GOAWAY` is queued: write the output, then
    /// close; the streams are all lost. Every later call fails the same.
    pub fn receive(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Fault> {
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
        if self.opening == Opening::Preface && !self.preface(input)? {
            return Ok(None);
        }
        while let Some(head) = FrameHead::read(input) {
            self.admit(&head)?;
            if input.len() < HEAD + head.length {
                break;
            }
            let outcome = if head.kind == kind::DATA {
                self.on_data(&head, input)
            } else {
                let outcome = self.on_frame(&head, &input[HEAD..HEAD + head.length]);
                if !std::mem::take(&mut self.again) {
                    input.advance(HEAD + head.length);
                }
                outcome
            };
            if self.server && self.output.remaining() > UNREADABLE {
                return Err(Fault::new(Code::ENHANCE_YOUR_CALM, "the peer does not read its answers"));
            }
            if !matches!(outcome, Ok(None)) {
                return outcome;
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

    /// The frame is taken off the input.
    fn on_data(&mut self, head: &FrameHead, input: &mut BytesMut) -> Outcome {
        let (id, end) = (head.id, head.has(flag::END_STREAM));
        if self.is_idle(id) {
            return Err(Fault::protocol("DATA on no stream or on an idle one"));
        }
        let place = head.data(&input[HEAD..HEAD + head.length])?;
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
                let fits = stream.count_body(place.len(), end);
                if fits {
                    stream.held += flow;
                }
                (!fits).then_some(Code::PROTOCOL_ERROR)
            }
        };
        if let Some(code) = wrong {
            input.advance(HEAD + head.length);
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
        if data.is_empty() && !end {
            // Padding alone concerns nobody.
            self.release(id, flow);
            return Ok(None);
        }
        Ok(Some(Event::Data { id, data, flow, end }))
    }

    /// The peer has sent its last on the stream.
    pub(super) fn end_remote(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.remote = Half::Closed;
        if stream.local == Half::Closed {
            self.active -= 1;
            self.flood.served();
        }
    }

    /// A frame that does not fit a stream that is or was there. What is under way on a stream that was reset here is ignored
    /// (RFC 9113 §5.1).
    pub(super) fn stray(&mut self, id: StreamId, code: Code) -> Outcome {
        if self.is_ignored(id) { self.flood.vain_frame().map(|()| None) } else { self.stream_error(id, code) }
    }

    /// RFC 9113 §5.4.2. An event only when the stream was not closed.
    pub(super) fn stream_error(&mut self, id: StreamId, code: Code) -> Outcome {
        self.flood.vain_stream()?;
        self.put_reset(id, code);
        Ok(self.close(id).then_some(Event::Reset { id, code, untouched: false }))
    }
}

/// Takes a frame off the input, and its data out of that.
fn take(input: &mut BytesMut, data: Range<usize>, length: usize) -> Bytes {
    if data.len() <= COPIED {
        let copy = Bytes::copy_from_slice(&input[HEAD + data.start..HEAD + data.end]);
        input.advance(HEAD + length);
        return copy;
    }
    let mut frame = input.split_to(HEAD + length).freeze();
    frame.truncate(HEAD + data.end);
    frame.advance(HEAD + data.start);
    frame
}
