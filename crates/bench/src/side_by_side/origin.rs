//! What the proxies stand before: answers of 100 bytes over HTTP/1.1 and HTTP/2 with prior knowledge, and an echo. It knows
//! what it is going to say before it is asked, and looks at a request only as far as its end.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use veer_load::frames::{self, Frame, Indexing, flag, kind, setting};

/// Length of every body, and of every echoed message.
pub const BODY: usize = 100;

const BUFFER: usize = 64 * 1024;

/// Listens until dropped.
pub struct Origin {
    _tasks: JoinSet<()>,
}

impl Origin {
    /// Answers HTTP on some addresses, echoes on others.
    pub async fn start(http: &[SocketAddr], echo: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        for (addresses, is_http) in [(http, true), (echo, false)] {
            for address in addresses {
                let listener = TcpListener::bind(address).await.with_context(|| format!("origin on {address}"))?;
                tasks.spawn(serve(listener, is_http));
            }
        }
        Ok(Self { _tasks: tasks })
    }
}

async fn serve(listener: TcpListener, is_http: bool) {
    // Dropped with the listener, so that no connection outlives the origin.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            // How a connection ends is the business of the one who asked.
            let _ = stream.set_nodelay(true);
            let _ = if is_http { http(stream).await } else { echo(stream).await };
        });
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..n]).await?;
    }
}

async fn http(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    // No method of HTTP/1.1 that is used here starts like the preface.
    while filled < 3 {
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
    }
    if buffer.starts_with(b"PRI") { http2(stream, buffer, filled).await } else { http1(stream, buffer, filled).await }
}

async fn http1(mut stream: TcpStream, mut buffer: Vec<u8>, mut filled: usize) -> std::io::Result<()> {
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n{}", "x".repeat(BODY));
    loop {
        // Requests have no bodies; several may have arrived.
        let mut taken = 0;
        let mut answers = 0;
        while let Some(end) = buffer[taken..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            taken += end + 4;
            answers += 1;
        }
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
        match answers {
            0 => {}
            1 => stream.write_all(answer.as_bytes()).await?,
            many => stream.write_all(answer.repeat(many).as_bytes()).await?,
        }
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
    }
}

async fn http2(mut stream: TcpStream, mut buffer: Vec<u8>, mut filled: usize) -> std::io::Result<()> {
    let mut connection =
        Http2 { out: Vec::with_capacity(BUFFER), window: i64::from(frames::DEFAULT_WINDOW), waiting: Vec::new() };
    let settings = [(setting::MAX_CONCURRENT_STREAMS, 1024), (setting::INITIAL_WINDOW_SIZE, frames::MAX_WINDOW)];
    frames::put_settings(&mut connection.out, &settings);
    frames::put_window(&mut connection.out, 0, frames::MAX_WINDOW - frames::DEFAULT_WINDOW);
    let block = Http2::block();
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
        connection.answer(&block);
        if !connection.out.is_empty() {
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

struct Http2 {
    out: Vec<u8>,
    /// What the peer lets us send.
    window: i64,
    /// Streams whose request has ended.
    waiting: Vec<u32>,
}

impl Http2 {
    /// The answer's fields, so that no table needs to be kept.
    fn block() -> Vec<u8> {
        let mut block = vec![0x88];
        frames::put_literal(&mut block, Indexing::Without, 31, "text/plain");
        frames::put_literal(&mut block, Indexing::Without, 28, &BODY.to_string());
        block
    }

    fn hear(&mut self, frame: &Frame<'_>) {
        match frame.kind {
            kind::HEADERS | kind::DATA if frame.has(flag::END_STREAM) => self.waiting.push(frame.stream),
            kind::SETTINGS if !frame.has(flag::ACK) => frames::put(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]),
            kind::PING if !frame.has(flag::ACK) => frames::put(&mut self.out, kind::PING, flag::ACK, 0, frame.payload),
            kind::WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.number().unwrap_or(0)),
            _ => {}
        }
    }

    fn answer(&mut self, block: &[u8]) {
        let sendable = usize::try_from(self.window.max(0)).unwrap_or(0) / BODY;
        for stream in self.waiting.drain(..sendable.min(self.waiting.len())) {
            frames::put(&mut self.out, kind::HEADERS, flag::END_HEADERS, stream, block);
            frames::put(&mut self.out, kind::DATA, flag::END_STREAM, stream, &[b'x'; BODY]);
            self.window -= BODY as i64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use veer_load::{ClosedLoad, ClosedPlan, Exchange};

    use super::*;

    #[tokio::test]
    async fn every_request_of_a_closed_loop_is_answered() -> anyhow::Result<()> {
        let (http, echo) = ("127.78.1.1:9000".parse()?, "127.78.1.1:9001".parse()?);
        let _origin = Origin::start(&[http], &[echo]).await?;
        let (host, path) = ("origin".to_owned(), "/".to_owned());
        for (target, exchange) in [
            (http, Exchange::Http1 { host: host.clone(), path: path.clone() }),
            (http, Exchange::Http2 { host, path, streams: 16 }),
            (echo, Exchange::Echo { bytes: BODY }),
        ] {
            let load = ClosedLoad::start(ClosedPlan { target, connections: 4, exchange: exchange.clone() }).await?;
            let report = load.measure(Duration::from_millis(200)).await;
            assert_eq!(report.summary.failures, 0, "{exchange:?}: {:?}", report.reasons);
            assert!(report.summary.requests > 100, "{exchange:?}: {report:?}");
        }
        Ok(())
    }
}
