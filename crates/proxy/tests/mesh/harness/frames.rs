//! HTTP/2 frame by frame, without any rule.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let from = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[from..from + 4].try_into().unwrap())
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(id.to_be_bytes());
    out.extend(payload);
    out
}

/// A header block of literals that enter no table (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// `GET path` of `cart`, with more fields.
pub fn get(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "cart")];
    fields.extend(more);
    block(&fields)
}

/// A request without a body.
pub fn request(id: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, id, &get(path, &[]))
}

/// A client that has sent preface and settings.
pub struct Frames {
    io: TcpStream,
    unread: Vec<u8>,
}

impl Frames {
    pub async fn connect(address: SocketAddr) -> Self {
        let io = TcpStream::connect(address).await.unwrap();
        io.set_nodelay(true).unwrap();
        let mut frames = Self { io, unread: Vec::new() };
        assert!(frames.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat()).await);
        frames
    }

    /// Whether the other side still took it.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.io.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None` at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if self.unread.len() >= 9 {
                let length = u32::from_be_bytes([0, self.unread[0], self.unread[1], self.unread[2]]) as usize;
                if self.unread.len() >= 9 + length {
                    let rest = self.unread.split_off(9 + length);
                    let bytes = std::mem::replace(&mut self.unread, rest);
                    let id = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
                    return Some(Frame { kind: bytes[3], flags: bytes[4], id, payload: bytes[9..].to_vec() });
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.io.read_buf(&mut self.unread)).await.expect("nothing comes");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next frame of this kind; `None` at the end.
    pub async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}
