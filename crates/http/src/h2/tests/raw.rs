//! A peer that writes and reads single frames.

use bytes::{Buf, BytesMut};

use crate::h2::frame::{FrameHead, HEAD, PREFACE, flag, kind};
use crate::h2::{Code, Config, Connection, Event, Fault};

/// A connection whose peer is the test.
pub(super) struct Raw {
    pub connection: Connection<u32>,
    pub input: BytesMut,
}

/// A frame that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u32,
    pub payload: Vec<u8>,
}

impl Raw {
    /// A server that has had its peer's preface and settings, and whose own are acknowledged.
    pub(super) fn server(config: Config) -> Self {
        let mut raw = Self::new(Connection::server(config));
        raw.input.extend_from_slice(PREFACE);
        raw.open();
        raw
    }

    /// The same for a client.
    pub(super) fn client(config: Config) -> Self {
        let mut raw = Self::new(Connection::client(config));
        raw.open();
        raw
    }

    pub(super) fn new(connection: Connection<u32>) -> Self {
        Self { connection, input: BytesMut::new() }
    }

    fn open(&mut self) {
        let mut frames = settings(&[]);
        frames.extend(frame(kind::SETTINGS, flag::ACK, 0, b""));
        let events = self.feed(&frames).unwrap();
        assert!(matches!(events[..], [Event::Settings]), "{events:?}");
        self.written();
    }

    /// Hands bytes over; all events.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Fault> {
        self.input.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(event) = self.connection.receive(&mut self.input)? {
            events.push(event);
        }
        Ok(events)
    }

    /// Takes the frames that are to be written.
    pub(super) fn written(&mut self) -> Vec<Frame> {
        let output = self.connection.output();
        let mut bytes = output.copy_to_bytes(output.remaining());
        if bytes.starts_with(PREFACE) {
            bytes.advance(PREFACE.len());
        }
        let mut frames = Vec::new();
        while let Some(head) = FrameHead::read(&bytes) {
            let payload = bytes[HEAD..HEAD + head.length].to_vec();
            bytes.advance(HEAD + head.length);
            frames.push(Frame { kind: head.kind, flags: head.flags, id: head.id, payload });
        }
        assert!(bytes.is_empty());
        frames
    }

    /// The RST_STREAM frames that are to be written.
    pub(super) fn resets(&mut self) -> Vec<(u32, Code)> {
        let resets = self.written().into_iter().filter(|frame| frame.kind == kind::RST_STREAM);
        resets.map(|frame| (frame.id, frame.code())).collect()
    }
}

impl Frame {
    /// Of an RST_STREAM frame.
    pub(super) fn code(&self) -> Code {
        Code(u32::from_be_bytes(self.payload[..4].try_into().unwrap()))
    }
}

pub(super) fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::h2::frame::put_head(&mut out, payload.len(), kind, flags, id);
    out.extend_from_slice(payload);
    out
}

pub(super) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in entries {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

pub(super) fn window_update(id: u32, by: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, id, &by.to_be_bytes())
}

pub(super) fn reset(id: u32, code: Code) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, id, &code.0.to_be_bytes())
}

pub(super) fn data(id: u32, data: &[u8], end: bool) -> Vec<u8> {
    frame(kind::DATA, if end { flag::END_STREAM } else { 0 }, id, data)
}

/// A header block of literals that enter no table.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in fields.iter().map(|(name, value)| [name, value]) {
        out.push(0);
        for text in text {
            // A length of seven bits and more (RFC 7541 §5.1).
            let mut length = text.len();
            if length < 127 {
                out.push(length as u8);
            } else {
                out.push(127);
                length -= 127;
                while length >= 128 {
                    out.push(length as u8 | 128);
                    length >>= 7;
                }
                out.push(length as u8);
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

pub(super) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "shop.test")];
pub(super) const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "shop.test")];

pub(super) fn headers(id: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
    frame(kind::HEADERS, flags, id, &block(fields))
}
