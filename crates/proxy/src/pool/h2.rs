//! HTTP/2 connections that requests share.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::time::Instant;
use veer_identity::clock;
use veer_net::Io;

use super::{DialError, Event, Hop, Reach, SendError, Upstream, Via, refused_untouched};
use crate::exec::LocalExec;
use crate::http::replay::TryBody;

/// A connection with so many streams open is busy: another is opened beside it, while there are fewer than [`MAX_PER_UPSTREAM`].
const BUSY: u32 = 100;
/// Connections of one worker to one endpoint.
const MAX_PER_UPSTREAM: usize = 4;
/// A connection without streams is closed after this.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(90);
/// Silence while streams are open, after which the peer is asked whether it lives, and its time to answer.
const PING_AFTER: Duration = Duration::from_millis(500);
const PING_TIME: Duration = Duration::from_millis(500);
/// Windows: the connection's must never be what limits a stream.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// After a rotation, connections made with the former certificate are replaced within this time.
const RENEW_WITHIN: Duration = Duration::from_secs(5);

/// A dial that several requests wait for. They go on in the order in which they came, which a watch channel would not keep.
#[derive(Default)]
pub(super) struct Dialing {
    result: RefCell<Option<Result<(), DialError>>>,
    settled: Notify,
}

impl Dialing {
    async fn wait(&self) -> Result<(), DialError> {
        loop {
            let settled = self.settled.notified();
            if let Some(result) = &*self.result.borrow() {
                return result.clone();
            }
            settled.await;
        }
    }
}

/// Held by the task that dials: whatever becomes of it, nobody waits for ever.
struct Settle(Rc<Dialing>);

impl Drop for Settle {
    fn drop(&mut self) {
        self.0.result.borrow_mut().get_or_insert(Err(DialError::Abandoned));
        self.0.settled.notify_waiters();
    }
}

/// One connection.
pub struct Connection {
    sender: RefCell<http2::SendRequest<TryBody>>,
    streams: Cell<u32>,
    served: Cell<bool>,
    closed: Cell<bool>,
    quiet_since: Cell<Instant>,
    /// When it gets no more requests.
    until: Cell<Instant>,
    cut: Rc<Notify>,
    gateway: Option<Arc<str>>,
    rtt: Duration,
    jitter: f64,
}

/// A stream's place.
pub struct H2Lease(Rc<Connection>);

/// What is at hand.
pub enum Ready {
    /// A place on a connection.
    Place(H2Lease),
    /// A place, but all connections are busy and another may be opened ([`open_another`]).
    Busy(H2Lease),
    /// No connection.
    Nothing,
}

/// A place on the least busy connection, without waiting.
pub(super) fn ready(upstream: &Upstream) -> Ready {
    let now = Instant::now();
    let connections = upstream.h2.borrow();
    let Some(best) = connections.iter().filter(|c| c.usable(now)).min_by_key(|c| c.streams.get()) else {
        return Ready::Nothing;
    };
    let busy =
        best.streams.get() >= BUSY && connections.len() < MAX_PER_UPSTREAM && upstream.dialing.borrow().is_none();
    let lease = H2Lease::new(Rc::clone(best));
    if busy { Ready::Busy(lease) } else { Ready::Place(lease) }
}

/// Opens a connection beside the busy ones; nobody waits for it.
pub(super) fn open_another(upstream: &Rc<Upstream>, reach: &Reach) {
    drop(dial(upstream, reach));
}

/// A place; waits for a connection when there is none.
pub(super) async fn lease(upstream: &Rc<Upstream>, reach: &Reach) -> Result<H2Lease, DialError> {
    // A connection that was made can be gone before its waiters run; more than once means that the endpoint drops them.
    for _ in 0..3 {
        match ready(upstream) {
            Ready::Place(lease) | Ready::Busy(lease) => return Ok(lease),
            Ready::Nothing => {}
        }
        dial(upstream, reach).wait().await?;
    }
    Err(DialError::Abandoned)
}

/// Opens a connection, also beside others, and reports what came of it: those that are there prove nothing.
pub(super) async fn probe(upstream: &Rc<Upstream>, reach: &Reach) -> Result<(), DialError> {
    dial(upstream, reach).wait().await
}

/// Joins the dial that is under way, or starts one.
fn dial(upstream: &Rc<Upstream>, reach: &Reach) -> Rc<Dialing> {
    let mut place = upstream.dialing.borrow_mut();
    if let Some(under_way) = &*place {
        return Rc::clone(under_way);
    }
    let dialing = Rc::<Dialing>::default();
    *place = Some(Rc::clone(&dialing));
    let settle = Settle(Rc::clone(&dialing));
    let (upstream, reach) = (Rc::clone(upstream), reach.clone());
    // A task of its own: the request that began it may give up while others wait.
    tokio::task::spawn_local(async move {
        let result = connect(&upstream, &reach).await;
        upstream.dialing.borrow_mut().take();
        settle.0.result.replace(Some(result));
        drop(settle);
    });
    dialing
}

async fn connect(upstream: &Rc<Upstream>, reach: &Reach) -> Result<(), DialError> {
    match reach {
        Reach::Plain(address) => {
            let begun = Instant::now();
            let stream = upstream.dialer.tcp(*address).await?;
            start(upstream, stream, *address, None, begun.elapsed(), None).await
        }
        Reach::Mesh(recipe) => {
            let dialed = upstream.dialer.dial(recipe, Hop::H2).await?;
            upstream.event(Event::Proven(dialed.rtt));
            let mut left = dialed.ends.duration_since(clock::now()).unwrap_or_default();
            if recipe.via.as_ref().is_some_and(Via::began_to_drain) {
                // Too late to be among those that were told to leave: it serves who waits for it, and no more.
                left = left.min(Duration::from_secs(1));
            }
            start(upstream, dialed.stream, recipe.address, recipe.gateway(), dialed.rtt, Some(left)).await
        }
    }
}

async fn start(
    upstream: &Rc<Upstream>,
    io: impl Io,
    address: std::net::SocketAddr,
    gateway: Option<Arc<str>>,
    rtt: Duration,
    lifetime: Option<Duration>,
) -> Result<(), DialError> {
    let (sender, driver) = http2::Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIME)
        .max_header_list_size(64 * 1024)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| DialError::Http { address, error: Arc::new(error) })?;
    let now = Instant::now();
    let jitter = upstream.jitter.get();
    upstream.jitter.set((jitter + 0.618_034).fract());
    // Between 70 and 90 % of what is left: never near the end, never all at once.
    let until =
        lifetime.map_or(now + Duration::from_secs(30 * 24 * 3600), |left| now + left.mul_f64(0.7 + 0.2 * jitter));
    let connection = Rc::new(Connection {
        sender: RefCell::new(sender),
        streams: Cell::new(0),
        served: Cell::new(false),
        closed: Cell::new(false),
        quiet_since: Cell::new(now),
        until: Cell::new(until),
        cut: Rc::new(Notify::new()),
        gateway,
        rtt,
        jitter,
    });
    let cut = Rc::clone(&connection.cut);
    tokio::task::spawn_local(drive(driver, cut, Rc::downgrade(&connection), Rc::downgrade(upstream)));
    if !upstream.retired.get() {
        upstream.h2.borrow_mut().push(connection);
    }
    Ok(())
}

/// Polls the connection to its end. Holds no part of it: without list and leases hyper ends it by itself.
async fn drive(
    driver: impl Future<Output = hyper::Result<()>>,
    cut: Rc<Notify>,
    connection: Weak<Connection>,
    upstream: Weak<Upstream>,
) {
    let ended = tokio::select! {
        biased;
        ended = driver => ended,
        () = cut.notified() => Ok(()),
    };
    if let Some(connection) = connection.upgrade() {
        connection.closed.set(true);
    }
    let Some(upstream) = upstream.upgrade() else { return };
    upstream.h2.borrow_mut().retain(|c| !c.closed.get());
    // GOAWAY ends in order. Anything else (reset, end of stream without farewell, no answer to PING) is a loss.
    if ended.is_err() {
        upstream.event(Event::Lost);
    }
}

/// Closes what has been quiet for long or has come to its time: leaving the list, it ends after its last stream.
pub(super) fn sweep(upstream: &Upstream, now: Instant) {
    upstream.h2.borrow_mut().retain(|c| {
        let idle = c.streams.get() == 0 && now.saturating_duration_since(c.quiet_since.get()) > IDLE_TIME;
        c.usable(now) && !idle
    });
}

impl Connection {
    fn usable(&self, now: Instant) -> bool {
        !self.closed.get() && now < self.until.get() && !self.sender.borrow().is_closed()
    }

    pub(super) fn gateway(&self) -> Option<&str> {
        self.gateway.as_deref()
    }

    pub(super) fn streams(&self) -> u32 {
        self.streams.get()
    }

    pub(super) fn cut(&self) {
        self.closed.set(true);
        self.cut.notify_one();
    }

    pub(super) fn renew(&self) {
        let soon = Instant::now() + RENEW_WITHIN.mul_f64(self.jitter);
        self.until.set(self.until.get().min(soon));
    }
}

impl H2Lease {
    fn new(connection: Rc<Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(connection)
    }

    pub(super) async fn send(&mut self, request: Request<TryBody>) -> Result<Response<Incoming>, SendError> {
        let sending = self.0.sender.borrow_mut().try_send_request(request);
        match sending.await {
            Ok(response) => {
                self.0.served.set(true);
                Ok(response)
            }
            Err(mut failed) => {
                let request = failed.take_message();
                let error = failed.into_error();
                let nothing_sent = request.is_some() || refused_untouched(&error);
                Err(SendError { request, nothing_sent, error })
            }
        }
    }

    pub(super) fn reused(&self) -> bool {
        self.0.served.get()
    }

    pub(super) fn gateway(&self) -> Option<&Arc<str>> {
        self.0.gateway.as_ref()
    }

    pub(super) fn rtt(&self) -> Duration {
        self.0.rtt
    }
}

impl Drop for H2Lease {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.quiet_since.set(Instant::now());
    }
}
