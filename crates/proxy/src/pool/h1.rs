//! HTTP/1.1 connections: one request at a time.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use veer_net::Io;

use super::{DialError, Event, Hop, Reach, SendError, Upstream};
use crate::http::replay::TryBody;

/// Connections that wait for the next request, per worker and endpoint.
const MAX_IDLE: usize = 64;
/// How long they wait: less than the keep-alive of common servers (nginx 75 s, Go none, Node 5 s, Python none), as far as one
/// number can be; a request that meets a connection closed meanwhile is sent again, since nothing of it was taken up.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// A connection that waits.
pub(super) struct Idle {
    connection: Connection,
    since: Instant,
}

struct Connection {
    sender: http1::SendRequest<TryBody>,
    gateway: Option<Arc<str>>,
    mesh: bool,
    rtt: Duration,
}

/// A connection in use.
pub struct H1Lease {
    connection: Option<Connection>,
    home: Weak<Upstream>,
    reused: bool,
}

/// A connection that waits, the latest first, unless `fresh`; else a new one.
pub(super) async fn lease(upstream: &Rc<Upstream>, reach: &Reach, fresh: bool) -> Result<H1Lease, DialError> {
    while let Some(idle) = (!fresh).then(|| upstream.idle.borrow_mut().pop()).flatten() {
        let mut connection = idle.connection;
        // At once when it waits for a request; an error when it was closed meanwhile.
        if idle.since.elapsed() < IDLE_TIME && connection.sender.ready().await.is_ok() {
            return Ok(H1Lease { connection: Some(connection), home: Rc::downgrade(upstream), reused: true });
        }
    }
    let connection = match reach {
        Reach::Plain(address) => {
            let begun = Instant::now();
            let stream = upstream.dialer.tcp(*address).await?;
            start(stream, *address, None, false, begun.elapsed()).await?
        }
        Reach::Mesh(recipe) => {
            let dialed = upstream.dialer.dial(recipe, Hop::Http1).await?;
            upstream.event(Event::Proven(dialed.rtt));
            start(dialed.stream, recipe.address, recipe.gateway(), true, dialed.rtt).await?
        }
    };
    Ok(H1Lease { connection: Some(connection), home: Rc::downgrade(upstream), reused: false })
}

async fn start(
    io: impl Io,
    address: std::net::SocketAddr,
    gateway: Option<Arc<str>>,
    mesh: bool,
    rtt: Duration,
) -> Result<Connection, DialError> {
    let (sender, driver) = http1::Builder::new()
        .max_headers(256)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| DialError::Http { address, error: Arc::new(error) })?;
    tokio::task::spawn_local(async move {
        // Failures show at the request that was under way; between requests they are the ordinary end of a keep-alive.
        let _ = driver.with_upgrades().await;
    });
    Ok(Connection { sender, gateway, mesh, rtt })
}

/// Closes what has waited too long.
pub(super) fn sweep(upstream: &Upstream, now: Instant) {
    upstream
        .idle
        .borrow_mut()
        .retain(|idle| now.saturating_duration_since(idle.since) < IDLE_TIME && !idle.connection.sender.is_closed());
}

impl Idle {
    pub(super) fn is_mesh(&self) -> bool {
        self.connection.mesh
    }

    pub(super) fn gateway(&self) -> Option<&str> {
        self.connection.gateway.as_deref()
    }
}

impl H1Lease {
    pub(super) async fn send(&mut self, request: Request<TryBody>) -> Result<Response<Incoming>, SendError> {
        let Some(connection) = &mut self.connection else {
            unreachable!("a lease holds its connection until it is given back")
        };
        match connection.sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            Err(mut failed) => {
                let request = failed.take_message();
                let nothing_sent = request.is_some();
                Err(SendError { request, nothing_sent, error: failed.into_error() })
            }
        }
    }

    pub(super) fn put_back(mut self) {
        let (Some(connection), Some(home)) = (self.connection.take(), self.home.upgrade()) else { return };
        if connection.sender.is_closed() || home.retired.get() {
            return;
        }
        let mut idle = home.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    pub(super) fn reused(&self) -> bool {
        self.reused
    }

    pub(super) fn gateway(&self) -> Option<&Arc<str>> {
        self.connection.as_ref().and_then(|c| c.gateway.as_ref())
    }

    pub(super) fn rtt(&self) -> Duration {
        self.connection.as_ref().map_or(Duration::ZERO, |c| c.rtt)
    }
}
