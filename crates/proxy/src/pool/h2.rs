//! HTTP/2 connections that requests share.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::time::Instant;
use veer_http::{RequestHead, ResponseHead, h2};
use veer_identity::{Spoken, clock};

use super::{Answer, DialError, Event, Hop, Reach, SendError, Upstream, Via};
use crate::http::body::{Http2Answer, Incoming, Outgoing};
use crate::http::h2::{Link, LinkEnd, Ping, StreamPump, StreamSending, Tunnel, drive};
use crate::http::replay::TryBody;
use crate::http::send::SendFault;
use crate::http::transport::Transport;
use crate::recent::Recent;

/// A connection with so many streams open is busy: another is opened beside it, while there are fewer than [`MAX_PER_UPSTREAM`].
const BUSY: u32 = 100;
/// Connections of one worker to one endpoint.
const MAX_PER_UPSTREAM: usize = 4;
/// The same when those that are there leave no room, since streams on them are not read: nobody waits for a slow reader of another
/// request, until so many are stuck.
const MAX_STARVED: usize = 16;
/// A connection without streams is closed after this.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(90);
/// Silence while streams are open, after which the peer is asked whether it lives, and its time to answer.
const PING: Ping = Ping { after: Duration::from_millis(500), time: Duration::from_millis(500) };
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
    link: Rc<Link>,
    streams: Cell<u32>,
    served: Cell<bool>,
    closed: Cell<bool>,
    recent: Recent,
    quiet_since: Cell<Instant>,
    /// When it gets no more requests.
    until: Cell<Instant>,
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
    let now = upstream.recent.now();
    let connections = upstream.h2.borrow();
    let Some(best) =
        connections.iter().filter(|c| c.usable(now)).min_by_key(|c| (c.link.is_starved(), c.streams.get()))
    else {
        return Ready::Nothing;
    };
    if connections.len() < MAX_STARVED && best.link.is_starved() {
        return Ready::Nothing;
    }
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
            let stream = upstream.outside(*address, Spoken::Http2).await?;
            start(upstream, stream, None, begun.elapsed(), None);
            Ok(())
        }
        Reach::Mesh(recipe) => {
            let dialed = upstream.dialer.dial(recipe, Hop::H2).await?;
            upstream.event(Event::Proven(dialed.rtt));
            let mut left = dialed.ends.duration_since(clock::now()).unwrap_or_default();
            if recipe.via.as_ref().is_some_and(Via::began_to_drain) {
                // Too late to be among those that were told to leave: it serves who waits for it, and no more.
                left = left.min(Duration::from_secs(1));
            }
            start(upstream, dialed.stream.into(), recipe.gateway(), dialed.rtt, Some(left));
            Ok(())
        }
    }
}

fn start(upstream: &Rc<Upstream>, io: Transport, gateway: Option<Arc<str>>, rtt: Duration, lifetime: Option<Duration>) {
    let link = Link::new(h2::Connection::client(h2::Config::default()));
    let now = Instant::now();
    let jitter = upstream.jitter.get();
    upstream.jitter.set((jitter + 0.618_034).fract());
    // Between 70 and 90 % of what is left: never near the end, never all at once.
    let until =
        lifetime.map_or(now + Duration::from_secs(30 * 24 * 3600), |left| now + left.mul_f64(0.7 + 0.2 * jitter));
    let connection = Rc::new(Connection {
        link: Rc::clone(&link),
        streams: Cell::new(0),
        served: Cell::new(false),
        closed: Cell::new(false),
        recent: upstream.recent.clone(),
        quiet_since: Cell::new(now),
        until: Cell::new(until),
        gateway,
        rtt,
        jitter,
    });
    tokio::task::spawn_local(run(link, io, Rc::downgrade(&connection), Rc::downgrade(upstream)));
    if !upstream.retired.get() {
        upstream.h2.borrow_mut().push(connection);
    }
}

/// Moves the connection's bytes until it ends.
async fn run(link: Rc<Link>, io: Transport, connection: Weak<Connection>, upstream: Weak<Upstream>) {
    // Servers open no streams to a client; push is refused.
    let ended = drive(link, io, BytesMut::new(), PING, |_, _| None, |_, _, _| {}).await;
    if let Some(connection) = connection.upgrade() {
        connection.closed.set(true);
    }
    let Some(upstream) = upstream.upgrade() else { return };
    upstream.h2.borrow_mut().retain(|c| !c.closed.get());
    // GOAWAY ends in order. Anything else (reset, end of stream without farewell, no answer to PING) is a loss.
    if !matches!(ended, LinkEnd::InOrder) {
        upstream.event(Event::Lost);
    }
}

/// Closes what has been quiet for long or has come to its time: leaving the list, it ends after its last stream.
pub(super) fn sweep(upstream: &Upstream, now: Instant) {
    upstream.h2.borrow_mut().retain(|c| {
        if c.streams.get() == 0 {
            c.link.rest();
        }
        let idle = c.streams.get() == 0 && now.saturating_duration_since(c.quiet_since.get()) > IDLE_TIME;
        c.usable(now) && !idle
    });
}

impl Connection {
    fn usable(&self, now: Instant) -> bool {
        !self.closed.get() && now < self.until.get() && !self.link.is_closed()
    }

    pub(super) fn gateway(&self) -> Option<&str> {
        self.gateway.as_deref()
    }

    pub(super) fn streams(&self) -> u32 {
        self.streams.get()
    }

    pub(super) fn cut(&self) {
        self.closed.set(true);
        self.link.cut();
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

    pub(super) async fn send(&mut self, head: &RequestHead, body: TryBody) -> Result<Answer, SendError> {
        let end = body.is_end();
        let half = self.0.link.open(head, end).map_err(|_| SendError::Unsent)?;
        let pump = if end { StreamPump::done() } else { StreamPump::default() };
        let mut sending = StreamSending::new(pump, body);
        let head = poll_fn(|cx| {
            let sent = sending.poll(cx, &half);
            if let Poll::Ready(Err(SendFault::Body(error))) = sent {
                return Poll::Ready(Err(SendError::Request(error)));
            }
            loop {
                let head = std::task::ready!(half.poll_head(cx)).map_err(SendError::Reset)?;
                if !head.is_informational() {
                    return Poll::Ready(Ok(head));
                }
                if !sending.inform(head, cx) {
                    return Poll::Ready(Err(SendError::Protocol(super::lease::TOO_TALKATIVE.to_owned())));
                }
            }
        })
        .await?;
        self.0.served.set(true);
        let body = if half.is_end() {
            Incoming::Empty
        } else {
            Incoming::Http2Answer(Box::new(Http2Answer { half, sending }))
        };
        Ok(Answer { head, body, upgraded: None })
    }

    pub(super) async fn connect(&mut self, head: &RequestHead) -> Result<(ResponseHead, Tunnel), SendError> {
        let half = self.0.link.open(head, false).map_err(|_| SendError::Unsent)?;
        let head = poll_fn(|cx| half.poll_head(cx)).await.map_err(SendError::Reset)?;
        self.0.served.set(true);
        Ok((head, Tunnel::new(half)))
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

impl Drop for Connection {
    fn drop(&mut self) {
        // Neither the pool nor a request holds it: streams that are left, end as they will.
        self.link.close();
    }
}

impl Drop for H2Lease {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.quiet_since.set(self.0.recent.now());
    }
}
