//! Settings of both sides (RFC 9113 §6.5, RFC 8441 §3, RFC 9218 §2.1).

use super::code::{Code, Fault};
use super::frame::{self, FRAME, MAX_31, WINDOW, kind};

/// What a connection permits its peer, and how much it holds for it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Streams that the peer may have open at once (`SETTINGS_MAX_CONCURRENT_STREAMS`); a server's only. Default 1000.
    pub streams: u32,
    /// Bytes that the peer may send on a stream before some are released. Default 1 MiB, at most 2³¹ − 1.
    pub stream_window: u32,
    /// The same over all streams. Default 16 MiB; at least 65,535, which is what every connection begins with.
    pub connection_window: u32,
    /// The longest payload of a frame that the peer may send. Default 16,384, which is also the least.
    pub frame: u32,
    /// The largest head or trailer section, as RFC 9113 §6.5.2 counts it. Default 64 KiB.
    pub max_head: usize,
    /// The most fields of a head or trailer section. Default 100.
    pub max_fields: usize,
    /// Bytes of the compression table that the peer may refer to. Default 4096.
    pub table: usize,
    /// Whether a server takes extended `CONNECT` (RFC 8441). Default false.
    pub connect_protocol: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            streams: 1000,
            stream_window: 1 << 20,
            connection_window: 16 << 20,
            frame: FRAME,
            max_head: 64 << 10,
            max_fields: 100,
            table: 4096,
            connect_protocol: false,
        }
    }
}

const TABLE: u16 = 1;
const PUSH: u16 = 2;
const STREAMS: u16 = 3;
const STREAM_WINDOW: u16 = 4;
const LONGEST_FRAME: u16 = 5;
const LARGEST_HEAD: u16 = 6;
const CONNECT_PROTOCOL: u16 = 8;
const NO_OLD_PRIORITIES: u16 = 9;

impl Config {
    /// Within what the protocol permits.
    pub(super) fn bounded(mut self) -> Self {
        self.stream_window = self.stream_window.min(MAX_31);
        self.connection_window = self.connection_window.clamp(WINDOW, MAX_31);
        self.frame = self.frame.clamp(FRAME, (1 << 24) - 1);
        self
    }

    /// `SETTINGS`, and the connection's window.
    pub(super) fn announce(&self, server: bool, out: &mut Vec<u8>) {
        let start = out.len();
        frame::put_head(out, 0, kind::SETTINGS, 0, 0);
        let mut put = |id: u16, value: u32| {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        };
        put(STREAM_WINDOW, self.stream_window);
        put(LARGEST_HEAD, self.max_head.min(u32::MAX as usize) as u32);
        if self.table != 4096 {
            put(TABLE, self.table as u32);
        }
        if self.frame != FRAME {
            put(LONGEST_FRAME, self.frame);
        }
        if server {
            put(STREAMS, self.streams);
            put(NO_OLD_PRIORITIES, 1);
            if self.connect_protocol {
                put(CONNECT_PROTOCOL, 1);
            }
        } else {
            put(PUSH, 0);
        }
        let length = out.len() - start - frame::HEAD;
        out[start + 2] = length as u8;
        if self.connection_window > WINDOW {
            frame::put_window_update(out, 0, self.connection_window - WINDOW);
        }
    }
}

/// The peer's settings.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Sizes of the compression table that were named and not yet taken over: the least, and the last (RFC 7541 §4.2).
    pub tables: Option<(u32, u32)>,
    pub streams: u32,
    pub stream_window: u32,
    pub frame: u32,
    pub connect_protocol: bool,
}

impl Default for Peer {
    fn default() -> Self {
        // Until a server has said how many streams it takes, no more than any should (RFC 9113 §6.5.2).
        Self { tables: None, streams: 100, stream_window: WINDOW, frame: FRAME, connect_protocol: false }
    }
}

impl Peer {
    /// Takes over the payload of a `SETTINGS` frame. `first`: what the first does not name has its initial value.
    pub(super) fn apply(&mut self, payload: &[u8], from_server: bool, first: bool) -> Result<(), Fault> {
        let (entries, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Fault::size("SETTINGS are no whole number of entries"));
        }
        if first {
            self.streams = u32::MAX;
        }
        for &[a, b, c, d, e, f] in entries {
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                TABLE => self.tables = Some((self.tables.map_or(value, |(least, _)| least.min(value)), value)),
                PUSH if value > 1 => return Err(Fault::protocol("SETTINGS_ENABLE_PUSH is neither 0 nor 1")),
                PUSH if value == 1 && from_server => {
                    return Err(Fault::protocol("a server's SETTINGS_ENABLE_PUSH is 1"));
                }
                STREAMS => self.streams = value,
                STREAM_WINDOW if value > MAX_31 => {
                    return Err(Fault::new(Code::FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large"));
                }
                STREAM_WINDOW => self.stream_window = value,
                LONGEST_FRAME if !(FRAME..1 << 24).contains(&value) => {
                    return Err(Fault::protocol("SETTINGS_MAX_FRAME_SIZE is out of range"));
                }
                LONGEST_FRAME => self.frame = value,
                CONNECT_PROTOCOL if value > 1 || (value == 0 && self.connect_protocol) => {
                    return Err(Fault::protocol("SETTINGS_ENABLE_CONNECT_PROTOCOL is not 0, not 1, or taken back"));
                }
                CONNECT_PROTOCOL => self.connect_protocol = value == 1,
                NO_OLD_PRIORITIES if value > 1 => {
                    return Err(Fault::protocol("SETTINGS_NO_RFC7540_PRIORITIES is neither 0 nor 1"));
                }
                // Also SETTINGS_MAX_HEADER_LIST_SIZE, which is advice: whether a head is too large is the peer's to say.
                _ => {}
            }
        }
        Ok(())
    }
}
