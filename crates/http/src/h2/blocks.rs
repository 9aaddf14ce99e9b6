//! Header blocks: requests, responses, trailers.

use bytes::Buf;

use super::code::{Code, Fault};
use super::frame::{FrameHead, flag};
use super::output::HIGH_WATER;
use super::receive::Outcome;
use super::section::{self, Verdict};
use super::stream::{Half, UNKNOWN};
use super::{Connection, Event, StreamId};
use crate::hpack::HpackFault;
use crate::{Fields, Method, RequestHead, ResponseHead};

/// While so many bytes wait to be written that streams of data cannot be the reason, the peer does not read its answers: new requests
/// are refused.
const UNREAD: usize = HIGH_WATER + (1 << 20);

/// A header block whose end has not come.
pub(super) struct Block {
    pub id: StreamId,
    end: bool,
    bytes: Vec<u8>,
    frames: usize,
}

impl<S> Connection<S> {
    pub(super) fn on_headers(&mut self, head: &FrameHead, payload: &[u8]) -> Outcome {
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

    pub(super) fn on_continuation(&mut self, head: &FrameHead, payload: &[u8]) -> Outcome {
        let Some(block) = &mut self.block else { return Ok(None) };
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        // A block is never longer than its fields; one that is too large is read as long as it can be answered like one. And frames
        // that say nothing cost as well (CVE-2024-27316).
        let most = 2 * self.config.max_head;
        if block.bytes.len() > most || block.frames > 8 + most / 1024 {
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
                if self.is_ignored(id) {
                    return self.flood.vain_frame().map(|()| None);
                }
                let skipped = self.skipped.0 <= id && id < self.skipped.1;
                let code = if skipped { Code::PROTOCOL_ERROR } else { Code::STREAM_CLOSED };
                Err(Fault::new(code, "HEADERS on a closed stream"))
            }
        }
    }

    fn on_request(&mut self, id: StreamId, end: bool, block: &[u8]) -> Outcome {
        if id > self.newest + 2 {
            self.skipped = (self.newest + 1, id);
        }
        self.newest = id;
        if self.is_beyond(id) {
            // The peer will see from our GOAWAY that nobody looks at it.
            self.discard(block)?;
            return self.flood.vain_frame().map(|()| None);
        }
        let full = self.active >= self.config.streams as usize
            || self.streams.len() >= self.config.streams as usize * 2
            || self.output.remaining() > UNREAD;
        if full {
            self.discard(block)?;
            return self.refuse(id, Code::REFUSED_STREAM);
        }
        let (room, before) = (Fields::roomy(), self.decoder.state());
        let (head, promised) = match self.memos.requests.read(block, before, room) {
            Ok(known) => known,
            Err(room) => {
                let mut head = RequestHead::default();
                head.fields = room;
                let verdict =
                    section::request(&mut self.decoder, block, &self.config, &mut head).map_err(compression)?;
                let promised = match verdict {
                    // RFC 9110 §9.3.6: CONNECT has no body, what follows is the tunnel's.
                    Verdict::Good { .. } if head.method() == Method::Connect => UNKNOWN,
                    Verdict::Good { promised } => promised,
                    Verdict::Malformed => return self.refuse(id, Code::PROTOCOL_ERROR),
                    Verdict::TooLarge => return self.too_large(id, end),
                };
                self.memos.requests.keep_read(block, [before, self.decoder.state()], &head, promised);
                (head, promised)
            }
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
        let (room, before) = (Fields::roomy(), self.decoder.state());
        let (head, promised) = match self.memos.responses.read(block, before, room) {
            Ok(known) => known,
            Err(fields) => {
                let mut head = ResponseHead { fields, ..ResponseHead::default() };
                let verdict =
                    section::response(&mut self.decoder, block, &self.config, &mut head).map_err(compression)?;
                let Verdict::Good { promised } = verdict else { return self.unfit(id, verdict) };
                self.memos.responses.keep_read(block, [before, self.decoder.state()], &head, promised);
                (head, promised)
            }
        };
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
            // RFC 9110 §6.4.1, §9.3.6: some have no body, or a tunnel, whatever their content-length says.
            stream.promised = match (stream.method, head.status) {
                (Method::Head, _) | (_, 204 | 304) => 0,
                (Method::Connect, 200..=299) => UNKNOWN,
                _ => promised,
            };
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
        let (room, before) = (Fields::roomy(), self.decoder.state());
        let fields = match self.memos.trailers_read.read(block, before, room) {
            Ok((known, _)) => known,
            Err(mut fields) => {
                let verdict =
                    section::trailers(&mut self.decoder, block, &self.config, &mut fields).map_err(compression)?;
                let Verdict::Good { .. } = verdict else { return self.unfit(id, verdict) };
                self.memos.trailers_read.keep_read(block, [before, self.decoder.state()], &fields, UNKNOWN);
                fields
            }
        };
        let whole = self.streams.get(id).is_some_and(|stream| stream.count_body(0, true));
        if !end || !whole {
            return self.stream_error(id, Code::PROTOCOL_ERROR);
        }
        self.end_remote(id);
        Ok(Some(Event::Trailers { id, fields }))
    }

    fn discard(&mut self, block: &[u8]) -> Result<(), Fault> {
        section::discard(&mut self.decoder, block).map_err(compression)
    }

    /// Resets a stream that nobody has heard of.
    fn refuse(&mut self, id: StreamId, code: Code) -> Outcome {
        // Before it has seen our settings, the peer cannot know how many streams are too many.
        if self.acknowledged || code != Code::REFUSED_STREAM {
            self.flood.vain_stream()?;
        } else {
            self.flood.vain_frame()?;
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
