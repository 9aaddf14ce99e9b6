//! One downstream connection: hyper's server with the bounds that a proxy needs.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use veer_net::{Drain, Io};

use super::body::ResponseBody;
use crate::exec::LocalExec;

/// Most header fields of one request (hyper answers 431 above).
const MAX_FIELDS: usize = 100;
/// Most bytes of one header section.
const MAX_HEAD: usize = 64 * 1024;
/// From a head's first byte to its last.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// An idle connection is closed after this; longer than the keep-alive of common client pools, so that they close first.
const IDLE_TIME: Duration = Duration::from_secs(620);
/// How often both are looked at: one timer per connection, not per request.
const TICK: Duration = Duration::from_secs(5);
/// Streams at once on one connection.
const MAX_STREAMS: u32 = 1000;
/// Resets that a peer may provoke before the connection is closed (CVE-2023-44487, "rapid reset").
const MAX_RESETS: usize = 1024;
/// Window of one stream and of the whole connection: the connection's must never be what limits a stream.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// A downstream that has streams open but is silent is asked whether it lives.
const PING_AFTER: Duration = Duration::from_secs(15);
const PING_TIME: Duration = Duration::from_secs(10);

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// After what is open (GOAWAY, `Connection: close`).
    Gracefully,
    /// At once.
    Now,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By either side's will, or with the network.
    InOrder,
    /// What came broke the rules of HTTP; it was answered as the standard says (400, GOAWAY).
    Broken,
    /// A head did not become whole in time.
    SlowHead,
}

impl End {
    /// For metrics, when the connection was refused.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            End::InOrder => None,
            End::Broken => Some("broken_http"),
            End::SlowHead => Some("slow_head"),
        }
    }

    fn of(result: Result<(), hyper::Error>) -> Self {
        match result {
            Err(error) if error.is_parse() || broke_http2(&error) => End::Broken,
            _ => End::InOrder,
        }
    }
}

/// Whether it was this side that found the fault.
fn broke_http2(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(h2::Error::is_library)
}

/// Serves HTTP/1.1 (and 1.0) until the connection ends, `close` says so, or the drain is over.
pub async fn http1<I, H, F>(io: I, handle: H, close: impl Future<Output = Close>, drain: &Drain) -> End
where
    I: Io,
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    let activity = Rc::new(Activity::new(true));
    let io = Watched { inner: io, bytes: Arc::clone(&activity.bytes) };
    let service = service(handle, &activity);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    drive(connection, |connection| connection.graceful_shutdown(), &activity, close, drain).await
}

/// Serves HTTP/2 until the connection ends, `close` says so, or the drain is over.
pub async fn http2<I, H, F>(io: I, handle: H, close: impl Future<Output = Close>, drain: &Drain) -> End
where
    I: Io,
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    let activity = Rc::new(Activity::new(false));
    let io = Watched { inner: io, bytes: Arc::clone(&activity.bytes) };
    let service = service(handle, &activity);
    let connection = http2::Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIME)
        .serve_connection(TokioIo::new(io), service);
    drive(connection, |connection| connection.graceful_shutdown(), &activity, close, drain).await
}

fn service<H, F>(
    handle: H,
    activity: &Rc<Activity>,
) -> impl hyper::service::HttpService<
    Incoming,
    ResBody = ResponseBody,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<ResponseBody>, Infallible>> + 'static,
>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    let activity = Rc::clone(activity);
    service_fn(move |request| {
        let busy = Busy::new(&activity);
        let response = handle(request);
        async move { Ok(response.await.map(|body| body.keeping(busy))) }
    })
}

/// Polls the connection to its end, and ends it when its time has come.
async fn drive<C: Future<Output = Result<(), hyper::Error>>>(
    connection: C,
    shut_down: fn(Pin<&mut C>),
    activity: &Activity,
    close: impl Future<Output = Close>,
    drain: &Drain,
) -> End {
    let mut connection = pin!(connection);
    let mut close = pin!(close);
    let mut tick = tokio::time::interval(TICK);
    let mut closing = false;
    let mut deadline = pin!(tokio::time::sleep(Duration::MAX));
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return End::of(ended),
            how = close.as_mut(), if !closing => {
                if how == Close::Now { return End::InOrder; }
                shut_down(connection.as_mut());
                closing = true;
            }
            limit = drain.started(), if !closing => {
                shut_down(connection.as_mut());
                deadline.as_mut().reset(limit);
                closing = true;
            }
            () = deadline.as_mut() => return End::InOrder,
            _ = tick.tick() => match activity.look(Instant::now()) {
                Look::Fine => {}
                Look::SlowHead => return End::SlowHead,
                Look::Idle if closing => {}
                Look::Idle => {
                    shut_down(connection.as_mut());
                    closing = true;
                }
            },
        }
    }
}

/// What a connection is doing, seen from outside of hyper.
#[derive(Debug)]
struct Activity {
    /// Whether bytes between requests are the head of the next one. In HTTP/2 they may be anything.
    heads: bool,
    bytes: Arc<AtomicU64>,
    in_flight: Cell<u32>,
    /// Bytes read when the last request ended.
    mark: Cell<u64>,
    quiet_since: Cell<Option<Instant>>,
    head_since: Cell<Option<Instant>>,
}

impl Activity {
    fn new(heads: bool) -> Self {
        Self {
            heads,
            bytes: Arc::default(),
            in_flight: Cell::new(0),
            mark: Cell::new(0),
            quiet_since: Cell::new(None),
            head_since: Cell::new(None),
        }
    }

    fn look(&self, now: Instant) -> Look {
        if self.in_flight.get() > 0 {
            return Look::Fine;
        }
        if self.heads && self.bytes.load(Ordering::Relaxed) > self.mark.get() {
            // Bytes came, but no request: a head is being sent. The tick adds at most its own length.
            let since = self.head_since.get().unwrap_or(now);
            self.head_since.set(Some(since));
            return if now >= since + HEAD_TIME { Look::SlowHead } else { Look::Fine };
        }
        let since = self.quiet_since.get().unwrap_or(now);
        self.quiet_since.set(Some(since));
        if now >= since + IDLE_TIME { Look::Idle } else { Look::Fine }
    }

    fn quiet(&self) {
        self.mark.set(self.bytes.load(Ordering::Relaxed));
        self.quiet_since.set(None);
        self.head_since.set(None);
    }
}

enum Look {
    Fine,
    SlowHead,
    Idle,
}

/// Held while a request is answered, to the end of the response's body.
#[derive(Debug)]
pub struct Busy(Rc<Activity>);

impl Busy {
    fn new(activity: &Rc<Activity>) -> Self {
        activity.in_flight.set(activity.in_flight.get() + 1);
        Self(Rc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.quiet();
    }
}

/// Counts what is read.
struct Watched<I> {
    inner: I,
    bytes: Arc<AtomicU64>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
