//! Clients: what an application would be.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use veer_proxy::exec::LocalExec;

use super::app::{Body, full};

/// One connection.
pub enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub type Error = Box<dyn std::error::Error>;

impl Client {
    pub async fn http1(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection.with_upgrades());
        Ok(Self::Http1(sender))
    }

    pub async fn http2(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::handshake(LocalExec, TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        Ok(Self::Http2(sender))
    }

    /// Sends, and returns the head with the body still coming.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        Ok(match self {
            Client::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Client::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }

    /// Sends, and reads the answer to its end.
    pub async fn ask(&mut self, request: Request<Body>) -> Result<Answer, Error> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = body.collect().await?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    pub async fn get(&mut self, host: &str, path: &str) -> Result<Answer, Error> {
        let request = self.request(Method::GET, host, path, b"");
        self.ask(request).await
    }

    pub async fn post(&mut self, host: &str, path: &str, body: &[u8]) -> Result<Answer, Error> {
        let request = self.request(Method::POST, host, path, body);
        self.ask(request).await
    }

    /// A request in this connection's form.
    pub fn request(&self, method: Method, host: &str, path: &str, body: &[u8]) -> Request<Body> {
        let builder = Request::builder().method(method);
        match self {
            Client::Http1(_) => builder.uri(path).header("host", host),
            Client::Http2(_) => builder.uri(format!("http://{host}{path}")),
        }
        .body(full(body))
        .unwrap()
    }
}
