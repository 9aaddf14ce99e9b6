//! Clients and applications whose every byte or frame a test decides: HTTP/1.1 as text, HTTP/2 by a foreign stack.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use veer_core::AppProtocol;

use super::{APP_PORT, Control, PATIENCE, Workload};

/// A request as an application got it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The request line, or `METHOD path` of HTTP/2.
    pub line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// What came, in order.
pub type Log = Rc<RefCell<Vec<Seen>>>;

/// A client's proxy, and a server's before an application that speaks one protocol.
pub struct Ends {
    pub client: Workload,
    pub server: Workload,
    pub seen: Log,
}

/// What an application and its caller speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http2,
}

/// All four ways through.
pub const WAYS: [(Speaks, Speaks); 4] = [
    (Speaks::Http1, Speaks::Http1),
    (Speaks::Http1, Speaks::Http2),
    (Speaks::Http2, Speaks::Http1),
    (Speaks::Http2, Speaks::Http2),
];

impl Ends {
    /// With the application that answers as [`http1_app`] and [`http2_app`] say.
    pub async fn new(app: Speaks) -> Self {
        let seen = Log::default();
        let log = Rc::clone(&seen);
        match app {
            Speaks::Http1 => {
                Self::with(AppProtocol::Http1, seen, move |stream| http1_app(stream, Rc::clone(&log))).await
            }
            Speaks::Http2 => {
                Self::with(AppProtocol::Http2, seen, move |stream| http2_app(stream, Rc::clone(&log))).await
            }
        }
    }

    /// With an application that serves a connection so.
    pub async fn with<F: Future<Output = ()> + 'static>(
        protocol: AppProtocol,
        seen: Log,
        serve: impl Fn(TcpStream) -> F + 'static,
    ) -> Self {
        let control = Control::start().await;
        let client = Workload::new(&control, "web").start(&control).await;
        let mut server = Workload::new(&control, "cart");
        server.inbound.ports[0].protocol = protocol;
        let server = server.start(&control).await;
        let listener = TcpListener::bind(SocketAddr::new(server.address, APP_PORT)).await.unwrap();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(stream));
            }
        });
        control.service("cart").at([&server]).put();
        Self { client, server, seen }
    }

    pub fn last(&self) -> Seen {
        self.seen.borrow().last().cloned().unwrap_or_default()
    }
}

/// HTTP/1.1 as it is written.
pub struct Text {
    pub io: TcpStream,
    pub unread: Vec<u8>,
}

impl Text {
    pub async fn connect(address: SocketAddr) -> Self {
        let io = TcpStream::connect(address).await.unwrap();
        io.set_nodelay(true).unwrap();
        Self { io, unread: Vec::new() }
    }

    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.io.write_all(text.as_ref()).await.unwrap();
    }

    /// Ends this side only.
    pub async fn end(&mut self) {
        self.io.shutdown().await.unwrap();
    }

    async fn fill(&mut self) -> usize {
        let read = tokio::time::timeout(PATIENCE, self.io.read_buf(&mut self.unread)).await;
        read.expect("nothing comes").unwrap_or(0)
    }

    /// Everything up to this text, with it.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.unread.split_off(at + end.len());
                return String::from_utf8_lossy(&std::mem::replace(&mut self.unread, rest)).into_owned();
            }
            let read = self.fill().await;
            assert!(read > 0, "ended before {end:?}: {}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Everything to the end.
    pub async fn rest(&mut self) -> String {
        while self.fill().await > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.fill().await > 0, "ended early");
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// The next head; `None` at the end.
    pub async fn head(&mut self) -> Option<Seen> {
        while self.unread.is_empty() {
            if self.fill().await == 0 {
                return None;
            }
        }
        let text = self.until("\r\n\r\n").await;
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next()?.to_owned();
        Some(Seen { line, fields: lines.map(field).collect(), ..Seen::default() })
    }

    pub async fn body(&mut self, seen: &mut Seen) {
        if let Some(length) = seen.field("content-length").and_then(|text| text.parse().ok()) {
            seen.body = self.exactly(length).await;
        } else if seen.field("transfer-encoding").is_some() {
            loop {
                let line = self.until("\r\n").await;
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                if size == 0 {
                    break;
                }
                seen.body.extend(self.exactly(size).await);
                assert_eq!(self.exactly(2).await, b"\r\n");
            }
            loop {
                let line = self.until("\r\n").await;
                if line == "\r\n" {
                    return;
                }
                seen.trailers.push(field(line.trim_end()));
            }
        }
    }

    /// A whole answer to a request with this method, with the informational ones before it.
    pub async fn answer(&mut self, method: &str) -> Told {
        let mut told = Told::default();
        loop {
            let mut seen = self.head().await.expect("an answer");
            let status: u16 = seen.line.split(' ').nth(1).unwrap().parse().unwrap();
            if (100..200).contains(&status) && status != 101 {
                told.interim.push(status);
                continue;
            }
            if method != "HEAD" && !matches!(status, 101 | 204 | 304) {
                self.body(&mut seen).await;
            }
            (told.status, told.seen) = (status, seen);
            return told;
        }
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

/// An answer as a client got it.
#[derive(Debug, Default)]
pub struct Told {
    pub interim: Vec<u16>,
    pub status: u16,
    pub seen: Seen,
}

impl Told {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.body).into_owned()
    }
}

/// What a client asks, in either protocol.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    pub method: &'static str,
    pub path: &'static str,
    pub fields: Vec<(&'static str, &'static str)>,
    pub body: Option<&'static str>,
    pub trailers: Vec<(&'static str, &'static str)>,
}

impl Ask {
    pub fn get(path: &'static str) -> Self {
        Self { method: "GET", path, ..Self::default() }
    }

    pub fn field(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, value));
        self
    }

    /// Asks `cart` over a connection of its own.
    pub async fn over(&self, address: SocketAddr, speaks: Speaks) -> Told {
        match speaks {
            Speaks::Http1 => self.as_text(address).await,
            Speaks::Http2 => self.as_frames(address).await,
        }
    }

    /// As text; a body goes in one chunk when trailers follow it, and waits for leave when it asks for that.
    async fn as_text(&self, address: SocketAddr) -> Told {
        let mut text = Text::connect(address).await;
        let mut head = format!("{} {} HTTP/1.1\r\nhost: cart\r\n", self.method, self.path);
        self.fields.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        let body = match self.body {
            None => String::new(),
            Some(body) if self.trailers.is_empty() => {
                head.push_str(&format!("content-length: {}\r\n", body.len()));
                body.to_owned()
            }
            Some(body) => {
                head.push_str("transfer-encoding: chunked\r\n");
                let trailers: String =
                    self.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                format!("{:x}\r\n{body}\r\n0\r\n{trailers}\r\n", body.len())
            }
        };
        text.send(format!("{head}\r\n")).await;
        let mut interim = Vec::new();
        if self.fields.contains(&("expect", "100-continue")) {
            while interim.last() != Some(&100) {
                let head = text.head().await.expect("leave");
                let status = head.line.split(' ').nth(1).unwrap().parse().unwrap();
                if status >= 200 {
                    return Told { interim, status, seen: head };
                }
                interim.push(status);
            }
        }
        text.send(body).await;
        let mut told = text.answer(self.method).await;
        interim.append(&mut told.interim);
        told.interim = interim;
        told
    }

    async fn as_frames(&self, address: SocketAddr) -> Told {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::task::spawn_local(connection);
        let mut request = Request::builder().method(self.method).uri(format!("http://cart{}", self.path));
        for (name, value) in &self.fields {
            request = request.header(*name, *value);
        }
        let (response, mut body) = sender.send_request(request.body(()).unwrap(), self.body.is_none()).unwrap();
        let mut response = Box::pin(response);
        let mut told = Told::default();
        let waits = self.fields.contains(&("expect", "100-continue"));
        let mut sent = self.body.is_none();
        loop {
            if !sent && (!waits || told.interim.contains(&100)) {
                sent = true;
                body.send_data(Bytes::from(self.body.unwrap_or_default()), self.trailers.is_empty()).unwrap();
                if !self.trailers.is_empty() {
                    body.send_trailers(map(&self.trailers)).unwrap();
                }
            }
            let next = poll_fn(|cx| {
                if let Poll::Ready(Some(Ok(informed))) = response.as_mut().get_mut().poll_informational(cx) {
                    return Poll::Ready(Err(informed));
                }
                response.as_mut().poll(cx).map(Ok)
            });
            match tokio::time::timeout(PATIENCE, next).await.expect("an answer") {
                Err(informed) => told.interim.push(informed.status().as_u16()),
                Ok(answer) => {
                    let (head, mut body) = answer.expect("an answer").into_parts();
                    told.status = head.status.as_u16();
                    told.seen.fields = list(&head.headers);
                    while let Some(data) = body.data().await {
                        let data = data.expect("a whole body");
                        let _ = body.flow_control().release_capacity(data.len());
                        told.seen.body.extend(data);
                    }
                    told.seen.trailers = body.trailers().await.unwrap().as_ref().map(list).unwrap_or_default();
                    return told;
                }
            }
        }
    }
}

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
}

fn list(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

/// How long the application thinks about `/slow`.
pub const SLOW: std::time::Duration = std::time::Duration::from_millis(1500);

/// What both applications answer, by path: informational statuses, whether the body is read before the answer, status.
fn plan(path: &str) -> (&'static [u16], bool, u16) {
    match path {
        "/hints" => (&[103, 102, 103], true, 200),
        "/continue" => (&[103, 100], true, 200),
        "/refuse" => (&[], false, 401),
        "/204" => (&[], true, 204),
        "/304" => (&[], true, 304),
        "/talkative" => (&[103; 40], true, 200),
        _ => (&[], true, 200),
    }
}

/// Answers `hello`, with trailers when the path is `/trailers`.
pub async fn http1_app(stream: TcpStream, log: Log) {
    let mut text = Text { io: stream, unread: Vec::new() };
    while let Some(mut seen) = text.head().await {
        let path = seen.path().to_owned();
        let (interim, reads, status) = plan(&path);
        for status in interim {
            let _ =
                text.io.write_all(format!("HTTP/1.1 {status} Early\r\nlink: </style.css>\r\n\r\n").as_bytes()).await;
        }
        if reads {
            text.body(&mut seen).await;
        }
        let head_only = seen.line.starts_with("HEAD");
        log.borrow_mut().push(seen);
        if path == "/slow" {
            tokio::time::sleep(SLOW).await;
        }
        let body = if path == "/trailers" {
            "transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n".to_owned()
        } else if matches!(status, 204 | 304) {
            "\r\n".to_owned()
        } else {
            format!("content-length: 5\r\n\r\n{}", if head_only { "" } else { "hello" })
        };
        let answer = format!("HTTP/1.1 {status} Said\r\n{body}");
        if text.io.write_all(answer.as_bytes()).await.is_err() || !reads {
            return;
        }
    }
}

/// The same over HTTP/2.
pub async fn http2_app(stream: TcpStream, log: Log) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::task::spawn_local(http2_answer(request, respond, Rc::clone(&log)));
    }
}

async fn http2_answer(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>, log: Log) {
    let (head, mut body) = request.into_parts();
    let mut seen =
        Seen { line: format!("{} {}", head.method, head.uri.path()), fields: list(&head.headers), ..Seen::default() };
    let path = head.uri.path().to_owned();
    let (interim, reads, status) = plan(&path);
    for status in interim {
        let informed = Response::builder().status(*status).header("link", "</style.css>").body(()).unwrap();
        let _ = respond.send_informational(informed);
    }
    if reads {
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            seen.body.extend(data);
        }
        seen.trailers = body.trailers().await.ok().flatten().as_ref().map(list).unwrap_or_default();
    }
    log.borrow_mut().push(seen);
    if path == "/slow" {
        tokio::time::sleep(SLOW).await;
    }
    let mut answer = Response::builder().status(status);
    let bodiless = head.method == http::Method::HEAD || matches!(status, 204 | 304);
    if head.method == http::Method::HEAD {
        answer = answer.header("content-length", "5");
    }
    let Ok(mut sending) = respond.send_response(answer.body(()).unwrap(), bodiless) else { return };
    if !bodiless {
        let trails = path == "/trailers";
        let _ = sending.send_data(Bytes::from_static(b"hello"), !trails);
        if trails {
            let _ = sending.send_trailers(map(&[("x-sum", "5")]));
        }
    }
}
