//! Connections to the target: as many as the load needs for HTTP/1.1, a fixed number for HTTP/2.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore};

use crate::{Answer, Protocol, Request};

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The target took no connection.
    Connect(String),
    /// The connection ended, or broke the protocol, before the answer was whole.
    Broken(String),
    /// Not in time.
    Timeout,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect(why) => write!(f, "connecting failed: {why}"),
            Failure::Broken(why) => write!(f, "no whole answer: {why}"),
            Failure::Timeout => f.write_str("no answer in time"),
        }
    }
}

impl std::error::Error for Failure {}

/// Sends requests to one address. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    protocol: Protocol,
    /// HTTP/1.1: connections that are idle; HTTP/2: one slot per connection.
    idle: std::sync::Mutex<Vec<http1::SendRequest<Full<Bytes>>>>,
    permits: Semaphore,
    multiplexed: Vec<Mutex<Option<http2::SendRequest<Full<Bytes>>>>>,
    next: AtomicUsize,
}

impl Client {
    /// Opens nothing yet. `connections` is the most for HTTP/1.1, the exact number for HTTP/2; at least 1.
    pub fn new(target: SocketAddr, protocol: Protocol, connections: usize) -> Self {
        let connections = connections.max(1);
        let multiplexed = match protocol {
            Protocol::Http1 => 0,
            Protocol::Http2 => connections,
        };
        Self {
            shared: Arc::new(Shared {
                target,
                protocol,
                idle: std::sync::Mutex::default(),
                permits: Semaphore::new(connections),
                multiplexed: (0..multiplexed).map(|_| Mutex::new(None)).collect(),
                next: AtomicUsize::new(0),
            }),
        }
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// When no whole answer arrived; an answer of any status is not an error.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request; an HTTP/1.1 connection is closed with it.
    pub async fn send(&self, request: &Request) -> Result<Answer, Failure> {
        match self.shared.protocol {
            Protocol::Http1 => self.send_http1(request).await,
            Protocol::Http2 => self.send_http2(request).await,
        }
    }

    async fn send_http1(&self, request: &Request) -> Result<Answer, Failure> {
        // The semaphore is never closed.
        let _permit = self.shared.permits.acquire().await.map_err(|e| Failure::Connect(e.to_string()))?;
        loop {
            let idle = self.shared.idle.lock().unwrap_or_else(|e| e.into_inner()).pop();
            let reused = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.open_http1().await?,
            };
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(build(request, &request.path)).await {
                Ok(response) => {
                    let answer = read(response, request.grpc).await?;
                    self.shared.idle.lock().unwrap_or_else(|e| e.into_inner()).push(connection);
                    return Ok(answer);
                }
                Err(mut failed) => {
                    // The target closed an idle connection and took nothing of the request: any client would use another.
                    if reused && failed.take_message().is_some() {
                        continue;
                    }
                    return Err(broken(&failed.into_error()));
                }
            }
        }
    }

    async fn send_http2(&self, request: &Request) -> Result<Answer, Failure> {
        let slot = self.shared.next.fetch_add(1, Ordering::Relaxed) % self.shared.multiplexed.len();
        let uri = format!("http://{}{}", request.host, request.path);
        let mut connection = {
            let mut slot = self.shared.multiplexed[slot].lock().await;
            match &*slot {
                Some(open) if !open.is_closed() => open.clone(),
                _ => slot.insert(self.open_http2().await?).clone(),
            }
        };
        connection.ready().await.map_err(|e| broken(&e))?;
        let response = connection.send_request(build(request, &uri)).await.map_err(|e| broken(&e))?;
        read(response, request.grpc).await
    }

    async fn open_http1(&self) -> Result<http1::SendRequest<Full<Bytes>>, Failure> {
        let (sender, connection) = http1::handshake(self.connect().await?).await.map_err(|e| broken(&e))?;
        // The connection's own end shows in the requests on it.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn open_http2(&self) -> Result<http2::SendRequest<Full<Bytes>>, Failure> {
        let io = self.connect().await?;
        let (sender, connection) =
            http2::Builder::new(TokioExecutor::new()).handshake(io).await.map_err(|e| broken(&e))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn connect(&self) -> Result<TokioIo<TcpStream>, Failure> {
        let stream = TcpStream::connect(self.shared.target).await.map_err(|e| Failure::Connect(e.to_string()))?;
        stream.set_nodelay(true).map_err(|e| Failure::Connect(e.to_string()))?;
        Ok(TokioIo::new(stream))
    }
}

fn build(request: &Request, uri: &str) -> http::Request<Full<Bytes>> {
    let mut head = http::Request::builder().method(&request.method).uri(uri);
    if !uri.starts_with("http") {
        head = head.header(http::header::HOST, &*request.host);
    }
    for (name, value) in &request.headers {
        head = head.header(name, value);
    }
    // The parts were checked when the plan was made; a bad path or host is the author's mistake and worth the panic.
    head.body(Full::new(request.body.clone())).expect("method, host and path make a request")
}

async fn read(response: http::Response<hyper::body::Incoming>, grpc: bool) -> Result<Answer, Failure> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|e| broken(&e))?;
    let status_of = |fields: &http::HeaderMap| fields.get("grpc-status").map(|status| status == "0");
    let grpc_ok = || body.trailers().and_then(status_of).or_else(|| status_of(&head.headers)).unwrap_or(false);
    let ok = head.status.as_u16() < 500 && (!grpc || grpc_ok());
    Ok(Answer { status: head.status.as_u16(), ok, body: body.to_bytes(), headers: head.headers })
}

fn broken(error: &hyper::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Failure::Broken(text)
}
