//! Callers: requests of every kind at a fixed rate, and what became of each.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use veer_load::{Client, Protocol, Request};

use crate::ledger::{Book, filler, sum};
use crate::world::OUTSIDE;

/// Requests have six seconds by their route; what has not ended then is stuck.
const STUCK: Duration = Duration::from_secs(15);
/// No route gives byte streams a time: the caller does, as applications must.
const STREAM_TIME: Duration = Duration::from_secs(6);
/// Requests per second of one caller.
const RATE: u32 = 60;
/// Lets every caller number its requests by itself.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Who said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An answer came.
    Veer,
    /// The caller's own proxy was gone, or went.
    Nobody,
}

/// A request that was not served.
#[derive(Debug, Clone)]
pub struct Missed {
    pub from: &'static str,
    pub kind: &'static str,
    pub at: Instant,
    pub by: By,
    pub reason: String,
}

/// What became of all requests.
#[derive(Default)]
pub struct Outcome {
    pub sent: AtomicU64,
    pub served: AtomicU64,
    pub missed: Mutex<Vec<Missed>>,
    /// What must never be: answers of another request, of another service, cut short, or none at all.
    pub wrong: Mutex<Vec<String>>,
    /// Served by (caller, copy), since the last look.
    pub by: Mutex<Vec<(&'static str, String)>>,
}

impl Outcome {
    /// Requests that were not served.
    pub fn missed(&self) -> Vec<Missed> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who served whom since the last look.
    pub fn take_served(&self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut *self.by.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn miss(&self, missed: Missed) {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).push(missed);
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

/// A caller within one cluster.
#[derive(Clone)]
pub struct Caller {
    pub from: &'static str,
    /// Where its proxy takes requests.
    pub proxy: SocketAddr,
    pub outcome: Arc<Outcome>,
    pub book: Arc<Book>,
}

impl Caller {
    /// Sends until told to stop, then waits for the answers that are still out. Runs within the caller's network.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let client = Client::new(self.proxy, Protocol::Http1, 512);
        let mut requests = tokio::task::JoinSet::new();
        let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    requests.spawn(self.clone().one(client.clone()));
                }
                Some(_) = requests.join_next() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        while requests.join_next().await.is_some() {}
    }

    async fn one(self, client: Client) {
        let id = NUMBER.fetch_add(1, Relaxed);
        let (kind, request) = request(id);
        // A Gateway opens no tunnels.
        let kind = if kind == "stream" && self.from == OUTSIDE { "read" } else { kind };
        self.outcome.sent.fetch_add(1, Relaxed);
        let (begun, body) = (Instant::now(), sum(&request.body));
        let miss = |by, reason| self.outcome.miss(Missed { from: self.from, kind, at: begun, by, reason });
        if kind == "stream" {
            return match tokio::time::timeout(STREAM_TIME, stream(self.proxy, id)).await {
                Err(_) => miss(By::Veer, "no answer on a stream".to_owned()),
                Ok(Err(Broken::Proxy(error))) => miss(By::Nobody, error.to_string()),
                Ok(Err(Broken::Refused(status))) => miss(By::Veer, status),
                Ok(Ok(answer)) => self.judge(id, kind, sum(&[]), &answer),
            };
        }
        match tokio::time::timeout(STUCK, client.send(&request)).await {
            Err(_) => self.outcome.wrong(format!("{} {kind} {id}: no end after {STUCK:?}", self.from)),
            Ok(Err(failure)) => miss(By::Nobody, failure.to_string()),
            Ok(Ok(answer)) if answer.status != 200 => {
                miss(By::Veer, format!("status {} ({})", answer.status, answer.words().unwrap_or_default()));
            }
            Ok(Ok(answer)) => self.judge(id, kind, body, &answer.body),
        }
    }

    fn judge(&self, id: u64, kind: &str, body: u64, answer: &[u8]) {
        match self.check(id, kind, body, answer) {
            Ok(copy) => {
                self.outcome.served.fetch_add(1, Relaxed);
                self.outcome.by.lock().unwrap_or_else(PoisonError::into_inner).push((self.from, copy));
            }
            Err(why) => self.outcome.wrong(format!("{} {kind} {id}: {why}", self.from)),
        }
    }

    /// The copy that served, or what is wrong with the answer.
    fn check(&self, id: u64, kind: &str, body: u64, answer: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(answer).map_err(|error| error.to_string())?;
        let (first, rest) = text.split_once('\n').ok_or_else(|| format!("cut short: {text:?}"))?;
        let service = if kind == "canary" { "canary" } else { "ledger" };
        let [by, copy, of, read] = first.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("not an answer: {first:?}"));
        };
        if by != service {
            return Err(format!("served by {by}"));
        }
        if of != id.to_string() || read != body.to_string() {
            return Err(format!("the answer of another request: {first:?}"));
        }
        if kind == "big" && rest != filler(id) {
            return Err(format!("{} bytes that are not those of the answer", rest.len()));
        }
        if kind == "write" && self.book.executions(id) != 1 {
            return Err(format!("answered, and executed {} times", self.book.executions(id)));
        }
        Ok(copy.to_owned())
    }
}

/// One of ten is for the canary, one is big, one goes over a byte stream, two are writes with bodies of up to 20 KiB.
fn request(id: u64) -> (&'static str, Request) {
    let get = |kind: &str| Request::get(kind, "ledger.shop", &format!("/{kind}/{id}"));
    match id % 10 {
        0 => {
            let (name, value) = (HeaderName::from_static("canary"), HeaderValue::from_static("yes"));
            ("canary", get("canary").with_header(name, value))
        }
        1 => ("big", get("big")),
        2 | 3 => {
            let body: Bytes = (0..1 + (id * 7919) % 20_000).map(|n| (n ^ id) as u8).collect();
            ("write", Request { method: Method::POST, body, ..get("write") })
        }
        9 => ("stream", get("read")),
        _ => ("read", get("read")),
    }
}

/// Why there is no answer on a stream.
enum Broken {
    /// The caller's own proxy, or the stream, ended before the answer did.
    Proxy(std::io::Error),
    /// No stream, or an answer that is none.
    Refused(String),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self::Proxy(error)
    }
}

/// A read over a byte stream of its own (`CONNECT`): Veer sees bytes, and the copy a request.
async fn stream(proxy: SocketAddr, id: u64) -> Result<Vec<u8>, Broken> {
    let mut io = BufReader::new(TcpStream::connect(proxy).await?);
    io.write_all(b"CONNECT ledger.shop:80 HTTP/1.1\r\nHost: ledger.shop:80\r\n\r\n").await?;
    head(&mut io).await?;
    io.write_all(format!("GET /read/{id} HTTP/1.1\r\nHost: ledger\r\n\r\n").as_bytes()).await?;
    let length = head(&mut io).await?;
    let mut answer = vec![0; length];
    io.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Reads a head of status 200; the length of what follows.
async fn head(io: &mut BufReader<TcpStream>) -> Result<usize, Broken> {
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if io.read_line(&mut line).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        if first.is_empty() {
            first.clone_from(&line);
        }
        if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = number.trim().parse().map_err(|_| Broken::Refused(line.clone()))?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    if first.starts_with("HTTP/1.1 200 ") { Ok(length) } else { Err(Broken::Refused(first.trim().to_owned())) }
}
