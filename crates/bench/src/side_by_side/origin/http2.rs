//! HTTP/2 with prior knowledge, and gRPC over it: frames that were written once, streams in turn, within the peer's windows.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use veer_load::frames::{self, Frame, Indexing, Name, flag, kind, setting};

use super::BUFFER;
use crate::side_by_side::works::{Shape, Spoken};

/// Written at once at most.
const OUT: usize = 256 * 1024;

/// What is said to every request. No table is used, so that none needs to be kept.
pub(super) struct Answer {
    head: Vec<u8>,
    /// Payload of one DATA frame.
    data: Vec<u8>,
    /// How many of them.
    frames: usize,
    trailers: Option<Vec<u8>>,
}

impl Answer {
    pub(super) fn new(shape: &Shape) -> Self {
        let mut head = vec![0x88];
        if shape.spoken != Spoken::Grpc {
            frames::put_literal(&mut head, Indexing::Without, Name::Index(31), "text/plain");
            frames::put_literal(&mut head, Indexing::Without, Name::Index(28), &shape.body.to_string());
            return Self { head, data: vec![b'x'; shape.body], frames: 1, trailers: None };
        }
        frames::put_literal(&mut head, Indexing::Without, Name::Index(31), "application/grpc");
        let mut data = vec![0];
        data.extend_from_slice(&u32::try_from(shape.body).unwrap_or(u32::MAX).to_be_bytes());
        data.resize(data.len() + shape.body, b'x');
        let mut trailers = Vec::new();
        frames::put_literal(&mut trailers, Indexing::Without, Name::Text("grpc-status"), "0");
        Self { head, data, frames: shape.messages, trailers: Some(trailers) }
    }
}

pub(super) async fn run(
    mut stream: TcpStream,
    mut buffer: Vec<u8>,
    mut filled: usize,
    answer: &Answer,
) -> std::io::Result<()> {
    let mut connection = Connection {
        out: Vec::with_capacity(BUFFER),
        window: i64::from(frames::DEFAULT_WINDOW),
        initial: i64::from(frames::DEFAULT_WINDOW),
        streams: Vec::new(),
    };
    let settings = [(setting::MAX_CONCURRENT_STREAMS, 1024), (setting::INITIAL_WINDOW_SIZE, frames::MAX_WINDOW)];
    frames::put_settings(&mut connection.out, &settings);
    frames::put_window(&mut connection.out, 0, frames::MAX_WINDOW - frames::DEFAULT_WINDOW);
    let mut greeted = false;
    loop {
        let mut rest = &buffer[..filled];
        if !greeted && rest.len() >= frames::PREFACE.len() {
            rest = &rest[frames::PREFACE.len()..];
            greeted = true;
        }
        while greeted && let Some(frame) = Frame::take(&mut rest) {
            connection.hear(&frame);
        }
        let left = rest.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
        loop {
            connection.answer(answer);
            if connection.out.is_empty() {
                break;
            }
            stream.write_all(&connection.out).await?;
            connection.out.clear();
        }
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
    }
}

struct Connection {
    out: Vec<u8>,
    /// What the peer lets us send.
    window: i64,
    /// What it lets us send on a new stream.
    initial: i64,
    /// Few enough to be searched in turn.
    streams: Vec<Stream>,
}

struct Stream {
    id: u32,
    window: i64,
    /// The request has ended.
    asked: bool,
    /// DATA frames that were sent; `None`: not even the head was.
    sent: Option<usize>,
}

impl Connection {
    fn hear(&mut self, frame: &Frame<'_>) {
        match frame.kind {
            kind::HEADERS | kind::DATA => {
                let ended = frame.has(flag::END_STREAM);
                match self.streams.iter_mut().find(|stream| stream.id == frame.stream) {
                    Some(stream) => stream.asked |= ended,
                    None => {
                        self.streams.push(Stream { id: frame.stream, window: self.initial, asked: ended, sent: None })
                    }
                }
            }
            kind::SETTINGS if !frame.has(flag::ACK) => {
                for (_, value) in frame.settings().filter(|(name, _)| *name == setting::INITIAL_WINDOW_SIZE) {
                    let more = i64::from(value) - self.initial;
                    self.initial += more;
                    self.streams.iter_mut().for_each(|stream| stream.window += more);
                }
                frames::put(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
            }
            kind::PING if !frame.has(flag::ACK) => frames::put(&mut self.out, kind::PING, flag::ACK, 0, frame.payload),
            kind::WINDOW_UPDATE => {
                let more = i64::from(frame.number().unwrap_or(0));
                if frame.stream == 0 {
                    self.window += more;
                } else if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == frame.stream) {
                    stream.window += more;
                }
            }
            kind::RST_STREAM => self.streams.retain(|stream| stream.id != frame.stream),
            _ => {}
        }
    }

    /// Adds what may be sent, a frame of every stream in turn.
    fn answer(&mut self, answer: &Answer) {
        let size = answer.data.len() as i64;
        let mut moved = true;
        while moved && self.out.len() < OUT {
            moved = false;
            for stream in self.streams.iter_mut().filter(|stream| stream.asked) {
                if stream.window < size || self.window < size {
                    continue;
                }
                let sent = stream.sent.unwrap_or_else(|| {
                    frames::put(&mut self.out, kind::HEADERS, flag::END_HEADERS, stream.id, &answer.head);
                    0
                });
                let is_last = sent + 1 == answer.frames;
                let flags = if is_last && answer.trailers.is_none() { flag::END_STREAM } else { 0 };
                frames::put(&mut self.out, kind::DATA, flags, stream.id, &answer.data);
                if is_last && let Some(trailers) = &answer.trailers {
                    let flags = flag::END_HEADERS | flag::END_STREAM;
                    frames::put(&mut self.out, kind::HEADERS, flags, stream.id, trailers);
                }
                stream.window -= size;
                self.window -= size;
                stream.sent = Some(sent + 1);
                moved = true;
            }
            self.streams.retain(|stream| stream.sent != Some(answer.frames));
        }
    }
}
