//! gRPC over one HTTP/2 connection on any byte stream: hyper drives the connection, tonic frames the messages.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use veer_net::Io;

/// When a silent connection is given up: a PING after `interval` without a byte, the end when no answer came within `timeout`.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// Default 2 s: with the time-out, less than half of the default lease.
    pub interval: Duration,
    /// Default 2 s.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(2), timeout: Duration::from_secs(2) }
    }
}

/// Runs hyper's tasks on the current thread's task set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// A client's end of a connection; cheap to clone, and the connection ends with the last clone. Must be used inside a local
/// task set.
#[derive(Debug, Clone)]
pub struct Channel {
    send: SendRequest<Body>,
}

/// Largest response that a client reads: a single resource is never cut, and one service may have ten thousand endpoints.
const MAX_RESPONSE: usize = 32 << 20;
/// A whole chunk of a large change fits, so the connection's window is not what limits a resync.
const WINDOW: u32 = 4 << 20;

impl Channel {
    /// Begins HTTP/2 with prior knowledge.
    ///
    /// # Errors
    /// When the other end is gone or does not speak HTTP/2.
    pub async fn connect(io: impl Io, keep_alive: KeepAlive) -> io::Result<Self> {
        let (send, connection) = hyper::client::conn::http2::Builder::new(LocalExec)
            .timer(TokioTimer::new())
            .keep_alive_interval(keep_alive.interval)
            .keep_alive_timeout(keep_alive.timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "control connection ended");
            }
        });
        Ok(Self { send })
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed()
    }

    pub(crate) async fn unary<M1, M2>(&self, path: &'static str, message: M1) -> Result<M2, Status>
    where
        M1: prost::Message + 'static,
        M2: prost::Message + Default + 'static,
    {
        let mut grpc = self.grpc();
        grpc.ready().await.map_err(unavailable)?;
        let codec = ProstCodec::<M1, M2>::default();
        let response = grpc.unary(Request::new(message), PathAndQuery::from_static(path), codec).await?;
        Ok(response.into_inner())
    }

    pub(crate) fn grpc(&self) -> Grpc<Self> {
        // hyper wants an authority for `:authority`; nobody routes by it, TLS has decided already who answers.
        let origin = http::Uri::from_static("http://control.veer.dev");
        Grpc::with_origin(self.clone(), origin).max_decoding_message_size(MAX_RESPONSE)
    }
}

pub(crate) fn unavailable(error: hyper::Error) -> Status {
    Status::unavailable(format!("connection to the control plane: {error}"))
}

impl tonic::codegen::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.send.send_request(request))
    }
}

/// Answers one unary call.
pub(crate) async fn answer<M1, M2, H, F>(
    request: http::Request<Incoming>,
    max_in: usize,
    handler: H,
) -> http::Response<Body>
where
    M1: prost::Message + Default + 'static,
    M2: prost::Message + 'static,
    H: FnOnce(M1) -> F,
    F: Future<Output = Result<M2, Status>>,
{
    let codec = ProstCodec::<M2, M1>::default();
    tonic::server::Grpc::new(codec).max_decoding_message_size(max_in).unary(Handler(Some(handler)), request).await
}

struct Handler<H>(Option<H>);

impl<M1, M2, H, F> UnaryService<M1> for Handler<H>
where
    H: FnOnce(M1) -> F,
    F: Future<Output = Result<M2, Status>>,
{
    type Response = M2;
    type Future = HandlerFuture<F>;

    fn call(&mut self, request: Request<M1>) -> Self::Future {
        // tonic calls a unary service once.
        HandlerFuture(self.0.take().map(|handler| Box::pin(handler(request.into_inner()))))
    }
}

struct HandlerFuture<F>(Option<Pin<Box<F>>>);

impl<M2, F: Future<Output = Result<M2, Status>>> Future for HandlerFuture<F> {
    type Output = Result<Response<M2>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Some(future) => future.as_mut().poll(cx).map_ok(Response::new),
            None => Poll::Ready(Err(Status::internal("a unary call was answered twice"))),
        }
    }
}

/// The answer when a call could not be taken at all.
pub(crate) fn refuse(status: Status) -> Result<http::Response<Body>, Infallible> {
    Ok(status.into_http())
}
