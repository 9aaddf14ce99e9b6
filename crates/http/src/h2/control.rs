//! Frames that are not part of a message: windows, resets, settings, pings, farewells, priorities.

use super::code::{Code, Fault};
use super::frame::{self, FrameHead, MAX_31, flag, kind};
use super::receive::Outcome;
use super::send::FAREWELL;
use super::stream::Half;
use super::{Connection, Event, Leaving, Opening, StreamId};

impl<S> Connection<S> {
    pub(super) fn on_window_update(&mut self, id: StreamId, payload: &[u8]) -> Outcome {
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

    pub(super) fn on_reset(&mut self, id: StreamId, payload: &[u8]) -> Outcome {
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

    pub(super) fn on_settings(&mut self, head: &FrameHead, payload: &[u8]) -> Outcome {
        if head.id != 0 {
            return Err(Fault::protocol("SETTINGS on a stream"));
        }
        if head.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(Fault::size("an acknowledgement of SETTINGS with a payload"));
            }
            if std::mem::replace(&mut self.acknowledged, true) {
                return self.flood.vain_frame().map(|()| None);
            }
            self.decoder.acknowledged();
            // From now on what we said holds, also for streams that are open.
            let less = self.early_window() - self.config.stream_window;
            self.streams.iter_mut().for_each(|stream| stream.receive_window -= less as i32);
            return Ok(None);
        }
        let before = self.peer.stream_window;
        let first = std::mem::replace(&mut self.opening, Opening::Over) == Opening::Settings;
        self.peer.apply(payload, !self.server, first)?;
        for table in self.peer.tables.take().into_iter().flat_map(|(least, last)| [least, last]) {
            self.encoder.set_peer_table_size(table as usize);
        }
        if self.peer.stream_window != before {
            self.shift_windows(i64::from(self.peer.stream_window) - i64::from(before))?;
        }
        self.flood.answer(&self.output)?;
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

    pub(super) fn on_ping(&mut self, head: &FrameHead, payload: &[u8]) -> Outcome {
        let Ok(payload) = payload.try_into().map(u64::from_be_bytes) else {
            return Err(Fault::size("PING is not 8 bytes long"));
        };
        if head.id != 0 {
            return Err(Fault::protocol("PING on a stream"));
        }
        if !head.has(flag::ACK) {
            self.flood.answer(&self.output)?;
            frame::put_ping(self.output.tail(), flag::ACK, payload);
            return Ok(None);
        }
        self.flood.answered()?;
        if self.leaving == Leaving::Told && payload == FAREWELL {
            self.go_away(Code::NO_ERROR);
            return Ok(None);
        }
        Ok(Some(Event::Pong(payload)))
    }

    pub(super) fn on_go_away(&mut self, id: StreamId, payload: &[u8]) -> Outcome {
        if id != 0 {
            return Err(Fault::protocol("GOAWAY on a stream"));
        }
        if payload.len() < 8 {
            return Err(Fault::size("GOAWAY is shorter than 8 bytes"));
        }
        let last = (frame::number(payload) & MAX_31).min(self.left.unwrap_or(MAX_31));
        let code = Code(frame::number(&payload[4..]));
        self.left = Some(last);
        let lost =
            self.streams.iter_mut().find(|stream| stream.id > last && !stream.is_closed()).map(|stream| stream.id);
        if let Some(id) = lost.filter(|_| !self.server) {
            // One at a time, each with the same frame.
            self.again = true;
            self.close(id);
            return Ok(Some(Event::Reset { id, code: Code::REFUSED_STREAM, untouched: true }));
        }
        self.flood.vain_frame()?;
        Ok(Some(Event::GoAway { last, code }))
    }

    /// RFC 9113 §5.3.2: read and ignored.
    pub(super) fn on_priority(&mut self, id: StreamId, payload: &[u8]) -> Outcome {
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
    pub(super) fn on_priority_update(&mut self, id: StreamId, payload: &[u8]) -> Outcome {
        if payload.len() < 4 {
            return Err(Fault::size("PRIORITY_UPDATE is shorter than 4 bytes"));
        }
        if !self.server || id != 0 || frame::number(payload) & MAX_31 == 0 {
            return Err(Fault::protocol("PRIORITY_UPDATE from a server, on a stream, or of no stream"));
        }
        self.flood.vain_frame().map(|()| None)
    }
}
