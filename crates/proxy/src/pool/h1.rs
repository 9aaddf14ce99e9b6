//! HTTP/1.1 connections: one request at a time.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::Instant;
use veer_http::{Method, Name, RequestHead, ResponseHead, h1};
use veer_identity::Spoken;

use super::{Answer, DialError, Event, Hop, Reach, SendError, Upstream};
use crate::http::body::{BodyError, Http1Answer, Incoming, Outgoing};
use crate::http::replay::TryBody;
use crate::http::send::{Pump, SendFault, Sending};
use crate::http::serve::Upgraded;
use crate::http::transport::Transport;
use crate::http::wire::{Reading, SharedWire, Wire};

/// Idle connections kept per endpoint.
const MAX_IDLE: usize = 64;
/// An idle connection is not used after this: most servers close them after a minute, some after five seconds of their own.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// A server may answer with more fields than a client may send.
const LIMITS: h1::Limits = h1::Limits { head: 64 * 1024, fields: 256 };

/// A connection that waits for a request.
pub(super) struct Idle {
    connection: Connection,
    since: Instant,
}

struct Connection {
    wire: SharedWire,
    gateway: Option<Arc<str>>,
    mesh: bool,
    rtt: Duration,
    /// Whether the answer said that the connection goes on.
    keeps: bool,
}

/// The use of a connection for one exchange. Given back by [`super::Lease::done`]; dropped otherwise, which closes the
/// connection.
pub struct H1Lease {
    connection: Connection,
    home: Weak<Upstream>,
    reused: bool,
}

pub(super) async fn lease(upstream: &Rc<Upstream>, reach: &Reach, fresh: bool) -> Result<H1Lease, DialError> {
    if !fresh && let Some(lease) = idle(upstream) {
        return Ok(lease);
    }
    let connection = match reach {
        Reach::Plain(address) => {
            let begun = Instant::now();
            let stream = upstream.outside(*address, Spoken::Http1).await?;
            Connection::new(stream, None, false, begun.elapsed())
        }
        Reach::Mesh(recipe) => {
            let dialed = upstream.dialer.dial(recipe, Hop::Http1).await?;
            upstream.event(Event::Proven(dialed.rtt));
            Connection::new(dialed.stream.into(), recipe.gateway(), true, dialed.rtt)
        }
    };
    Ok(H1Lease { connection, home: Rc::downgrade(upstream), reused: false })
}

/// A connection that waits, if there is one that was not closed meanwhile.
pub(super) fn idle(upstream: &Rc<Upstream>) -> Option<H1Lease> {
    loop {
        let Idle { connection, since } = upstream.idle.borrow_mut().pop()?;
        // The newest comes first: when it is too old, all are.
        if upstream.recent.now().saturating_duration_since(since) < IDLE_TIME && connection.is_quiet() {
            connection.wire.borrow_mut().change_hands();
            return Some(H1Lease { connection, home: Rc::downgrade(upstream), reused: true });
        }
    }
}

/// Closes connections that have waited for too long.
pub(super) fn sweep(upstream: &Upstream, now: Instant) {
    upstream
        .idle
        .borrow_mut()
        .retain(|idle| now.saturating_duration_since(idle.since) < IDLE_TIME && idle.connection.is_quiet());
}

impl Idle {
    pub(super) fn is_mesh(&self) -> bool {
        self.connection.mesh
    }

    pub(super) fn gateway(&self) -> Option<&str> {
        self.connection.gateway.as_deref()
    }
}

impl Connection {
    fn new(io: Transport, gateway: Option<Arc<str>>, mesh: bool, rtt: Duration) -> Self {
        let wire = Rc::new(RefCell::new(Wire::new(io, BytesMut::new())));
        Self { wire, gateway, mesh, rtt, keeps: false }
    }

    /// Whether neither an end nor stray bytes have come. Costs no system call while the reactor has seen nothing.
    fn is_quiet(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.wire.borrow_mut().poll_is_quiet(&mut cx)
    }
}

impl H1Lease {
    pub(super) async fn send(
        &mut self,
        head: &RequestHead,
        upgrade: Option<&[u8]>,
        body: TryBody,
    ) -> Result<Answer, SendError> {
        let wire = &self.connection.wire;
        let framing = framing(head, &body);
        {
            let mut wire = wire.borrow_mut();
            wire.open_message = true;
            h1::write_request(head, framing, upgrade, wire.output());
        }
        let mut sending = Sending::new(Pump::new(framing), body);
        let method = head.method();
        let (answer, parsed) = poll_fn(|cx| poll_answer(cx, wire, &mut sending, method)).await?;
        self.connection.keeps = parsed.keep_alive;
        if answer.status == 101 {
            let (io, input) = wire.borrow_mut().take();
            return Ok(Answer {
                head: answer,
                body: Incoming::Empty,
                upgraded: Some(Box::new(Upgraded::Connection(io, input))),
            });
        }
        wire.borrow_mut().reading = Reading::of(parsed.body);
        let body = if matches!(wire.borrow().reading, Reading::Head) && sending.is_done() {
            Incoming::Empty
        } else {
            Incoming::Http1Answer(Box::new(Http1Answer { wire: Rc::clone(wire), sending }))
        };
        Ok(Answer { head: answer, body, upgraded: None })
    }

    pub(super) fn put_back(self) {
        let Some(home) = self.home.upgrade() else { return };
        if !self.connection.keeps || home.retired.get() {
            return;
        }
        {
            let mut wire = self.connection.wire.borrow_mut();
            wire.rest();
            let read = matches!(wire.reading, Reading::Head) && wire.input.is_empty();
            let clean = read && !wire.open_message && !wire.has_output();
            if !clean {
                return;
            }
        }
        let mut idle = home.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { connection: self.connection, since: home.recent.now() });
        }
    }

    pub(super) fn reused(&self) -> bool {
        self.reused
    }

    pub(super) fn gateway(&self) -> Option<&Arc<str>> {
        self.connection.gateway.as_ref()
    }

    pub(super) fn rtt(&self) -> Duration {
        self.connection.rtt
    }
}

fn framing(head: &RequestHead, body: &TryBody) -> h1::Body {
    // Over HTTP/2 the length is told by the field alone, and held by the connection.
    let told = || head.fields.get_str(Name::ContentLength)?.parse().ok();
    match body.length().or_else(told) {
        Some(0) if body.is_end() => h1::Body::None,
        Some(length) => h1::Body::Length(length),
        None => h1::Body::Chunked,
    }
}

/// Sends the request and reads the answer's head, whichever can go on.
fn poll_answer(
    cx: &mut Context<'_>,
    wire: &SharedWire,
    sending: &mut Sending,
    method: Method,
) -> Poll<Result<(ResponseHead, h1::Parsed), SendError>> {
    let unsent = match sending.poll(cx, wire) {
        Poll::Ready(Err(SendFault::Body(error))) => return Poll::Ready(Err(SendError::Request(error))),
        // The server may have answered before it closed.
        Poll::Ready(Err(SendFault::Io(error))) => Some(error),
        Poll::Ready(Ok(())) | Poll::Pending => None,
    };
    let mut wire = wire.borrow_mut();
    loop {
        if !wire.input.is_empty() {
            let mut head = ResponseHead::roomy();
            match h1::response(&wire.input, method, &LIMITS, &mut head) {
                Ok(Some(parsed)) => {
                    wire.input.advance(parsed.consumed);
                    if !head.is_informational() {
                        return Poll::Ready(Ok((head, parsed)));
                    }
                    if !sending.inform(head, cx) {
                        return Poll::Ready(Err(SendError::Protocol(super::lease::TOO_TALKATIVE.to_owned())));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(SendError::Protocol(fault.to_string()))),
            }
        }
        let closed_early = wire.input.is_empty();
        match ready!(wire.poll_fill(cx)) {
            Ok(0) => {
                let error = unsent.map_or(BodyError::Incomplete, BodyError::Io);
                return Poll::Ready(Err(SendError::Lost { silent: closed_early, error }));
            }
            Ok(_) => {}
            Err(error) => {
                return Poll::Ready(Err(SendError::Lost { silent: closed_early, error: BodyError::Io(error) }));
            }
        }
    }
}
