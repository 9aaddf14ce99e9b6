//! HTTP/2 with prior knowledge, a fixed number of streams in flight, whatever is ready written at once.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Counter, Exchange, ending};
use crate::frames::{self, Frame, Indexing, Name, flag, kind, setting};

const BUFFER: usize = 64 * 1024;
/// Table that every peer has unless it says otherwise (RFC 9113, 6.5.2).
const DEFAULT_TABLE: u32 = 4096;
/// Received bytes after which the connection's window, opened as wide as it goes, is opened again.
const WINDOW_DUE: u32 = 1 << 28;

/// Until the connection breaks.
pub(super) async fn run(stream: &mut TcpStream, exchange: &Exchange, counter: &Counter) {
    // The caller keeps the others.
    let Exchange::Http2 { host, path, streams, grpc } = exchange else { return };
    let (begun, streams) = (Instant::now(), *streams);
    let mut connection = Connection {
        blocks: Blocks::new(host, path, grpc.is_some()),
        message: grpc.map(message),
        next: 1,
        open: Vec::with_capacity(streams),
        out: Vec::with_capacity(BUFFER),
        received: 0,
        settled: false,
    };
    connection.greet();
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    let reason = loop {
        if !connection.out.is_empty() {
            if let Err(error) = stream.write_all(&connection.out).await {
                break ending(Err(error));
            }
            connection.out.clear();
        }
        match stream.read(&mut buffer[filled..]).await {
            Ok(n) if n > 0 => filled += n,
            ended => break ending(ended),
        }
        let mut rest = &buffer[..filled];
        let mut fault = None;
        while let Some(frame) = Frame::take(&mut rest) {
            if let Err(reason) = connection.hear(&frame, counter) {
                fault = Some(reason);
                break;
            }
        }
        if let Some(reason) = fault {
            break reason;
        }
        let left = rest.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
        if connection.settled {
            while connection.open.len() < streams {
                connection.ask();
            }
        }
    };
    if connection.open.is_empty() {
        counter.failed(begun, reason.clone());
    }
    for asked in connection.open {
        counter.failed(asked.begun, reason.clone());
    }
}

/// A message of so many bytes with its prefix.
fn message(length: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.resize(message.len() + length, b'x');
    message
}

struct Connection {
    blocks: Blocks,
    /// Body of a gRPC call.
    message: Option<Vec<u8>>,
    next: u32,
    /// Few enough to be searched in turn.
    open: Vec<Asked>,
    out: Vec<u8>,
    received: u32,
    /// The peer's settings are known.
    settled: bool,
}

struct Asked {
    stream: u32,
    begun: Instant,
    /// Status 200 was seen.
    ok: bool,
}

impl Connection {
    fn greet(&mut self) {
        self.out.extend_from_slice(frames::PREFACE);
        frames::put_settings(
            &mut self.out,
            &[(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, frames::MAX_WINDOW)],
        );
        frames::put_window(&mut self.out, 0, frames::MAX_WINDOW - frames::DEFAULT_WINDOW);
    }

    fn ask(&mut self) {
        let block = self.blocks.next();
        match &self.message {
            None => {
                frames::put(&mut self.out, kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, self.next, block);
            }
            // Short enough for any window: what is awaited in front of a proxy is its answer.
            Some(message) => {
                frames::put(&mut self.out, kind::HEADERS, flag::END_HEADERS, self.next, block);
                frames::put(&mut self.out, kind::DATA, flag::END_STREAM, self.next, message);
            }
        }
        self.open.push(Asked { stream: self.next, begun: Instant::now(), ok: false });
        self.next += 2;
    }

    fn hear(&mut self, frame: &Frame<'_>, counter: &Counter) -> Result<(), String> {
        match frame.kind {
            kind::DATA => {
                self.received += u32::try_from(frame.payload.len()).unwrap_or(0);
                if self.received >= WINDOW_DUE {
                    frames::put_window(&mut self.out, 0, self.received);
                    self.received = 0;
                }
                if frame.has(flag::END_STREAM) {
                    self.end(frame.stream, self.message.is_none(), counter);
                }
            }
            kind::HEADERS => {
                let block = frame.block().ok_or("malformed HEADERS")?;
                if let Some(asked) = self.open.iter_mut().find(|asked| asked.stream == frame.stream) {
                    // Trailers, too, come as HEADERS; they say nothing of the status.
                    asked.ok |= frames::is_ok(block);
                }
                if frame.has(flag::END_STREAM) {
                    self.end(frame.stream, true, counter);
                }
            }
            kind::SETTINGS if !frame.has(flag::ACK) => {
                for (name, value) in frame.settings() {
                    if name == setting::HEADER_TABLE_SIZE && value < DEFAULT_TABLE {
                        self.blocks.keep_plain();
                    }
                }
                self.settled = true;
                frames::put(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
            }
            kind::PING if !frame.has(flag::ACK) => frames::put(&mut self.out, kind::PING, flag::ACK, 0, frame.payload),
            kind::RST_STREAM => return Err(format!("stream reset with code {}", frame.number().unwrap_or(0))),
            kind::GOAWAY => return Err("GOAWAY".to_owned()),
            _ => {}
        }
        Ok(())
    }

    /// `whole`: it ended the way it should, with trailers or without.
    fn end(&mut self, stream: u32, whole: bool, counter: &Counter) {
        let Some(at) = self.open.iter().position(|asked| asked.stream == stream) else { return };
        let asked = self.open.swap_remove(at);
        match (asked.ok, whole) {
            (true, true) => counter.served(asked.begun),
            (true, false) => counter.failed(asked.begun, "no trailers".to_owned()),
            (false, _) => counter.failed(asked.begun, "status not 200".to_owned()),
        }
    }
}

/// The request's header block, as a client with a dynamic table writes it: in full once, by indexes from then on.
struct Blocks {
    plain: Vec<u8>,
    first: Vec<u8>,
    indexed: Vec<u8>,
    use_table: bool,
    sent: bool,
}

impl Blocks {
    fn new(host: &str, path: &str, grpc: bool) -> Self {
        // By their index in the static table: :authority, :path, user-agent, accept or content-type.
        let mut fields = vec![(Name::Index(1), host), (Name::Index(4), path), (Name::Index(58), "veer-load")];
        if grpc {
            fields.extend([(Name::Index(31), "application/grpc"), (Name::Text("te"), "trailers")]);
        } else {
            fields.push((Name::Index(19), "*/*"));
        }
        // :method GET or POST, :scheme http
        let start = vec![if grpc { 0x83 } else { 0x82 }, 0x86];
        let (mut plain, mut first, mut indexed) = (start.clone(), start.clone(), start);
        for (n, (name, value)) in fields.iter().enumerate() {
            frames::put_literal(&mut plain, Indexing::Without, *name, value);
            frames::put_literal(&mut first, Indexing::Incremental, *name, value);
            // The dynamic table starts at 62 with what was entered last.
            indexed.push(0x80 | (62 + (fields.len() - 1 - n) as u8));
        }
        Self { plain, first, indexed, use_table: true, sent: false }
    }

    /// The peer has no table of the default size. Heeded before the first request only; none was seen to shrink it later.
    fn keep_plain(&mut self) {
        self.use_table = self.sent && self.use_table;
    }

    fn next(&mut self) -> &[u8] {
        if !self.use_table {
            return &self.plain;
        }
        if std::mem::replace(&mut self.sent, true) { &self.indexed } else { &self.first }
    }
}
