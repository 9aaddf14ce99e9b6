//! One try: an endpoint, a connection, the request, the response's head.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::{Instant, Sleep};
use veer_balance::{Dial, EndpointKey, NoEndpointReason, Outcome, Pick};
use veer_core::AppProtocol;
use veer_http::{Name, RequestHead};
use veer_identity::Blame;
use veer_telemetry::Edge;

use super::reach;
use super::tries::{Failure, Tries};
use crate::error::RequestError;
use crate::exchange::{Hold, grpc_outcome};
use crate::http::Protocol;
use crate::http::fields::{self, VeerError};
use crate::http::interim::Interim;
use crate::http::replay::Replay;
use crate::knowledge::Backend;
use crate::pool::{self, DialError, Lease, SendError, Upstream};
use crate::worker::Worker;

/// What stays the same over all tries of a request.
pub struct Asked {
    /// The head, without fields of the downstream's hop; the authority is as the caller wrote it, or as a rule rewrote it.
    pub head: RequestHead,
    /// What the caller speaks.
    pub protocol: Protocol,
    /// The protocol it wants to change to.
    pub upgrade: Option<Vec<u8>>,
    /// The body.
    pub body: Replay,
    /// Whom informational answers go to.
    pub interim: Interim,
    /// Port of the backend's service.
    pub port: u16,
    /// What is spoken on it, for endpoints outside of the mesh.
    pub app: AppProtocol,
}

/// A response's head, and what its body will hold.
pub struct Answer {
    /// As it came, without fields of the mesh's hop.
    pub response: pool::Answer,
    /// The places that it holds.
    pub hold: Hold,
    /// When the callee's proxy made it.
    pub veer_error: Option<VeerError>,
    /// Where it is counted.
    pub edge: Edge,
}

/// Why there is none.
pub struct Failed {
    /// For the decision what next.
    pub failure: Failure,
    /// For the caller, if nothing is next.
    pub error: RequestError,
    /// Whom to avoid.
    pub key: Option<EndpointKey>,
    /// Where it is counted.
    pub edge: Option<Edge>,
}

/// Tries once.
pub async fn attempt(
    worker: &Rc<Worker>,
    backend: &Rc<Backend>,
    asked: &mut Asked,
    tries: &Tries,
    begun: Instant,
) -> Result<Answer, Failed> {
    let pick = pick(worker, backend, tries, begun)?;
    let target = Arc::clone(pick.target());
    let edge = backend.edge(&worker.process, &target);
    let failed = |failure, error| Failed { failure, error, key: Some(target.key.clone()), edge: Some(edge.clone()) };
    let Some(dial) = target.dial(asked.port) else {
        let error = RequestError::NoEndpoint(format!("{} has no such port", target.key.workload));
        return Err(failed(Failure::NothingSent, error));
    };
    let upstream = backend.upstream(&worker.pools, &target, asked.port, &dial);

    // No longer than the try may take; a connection that comes later serves the next.
    let deadline = tries.try_deadline(begun);
    let mut waited = false;
    let connected = match ready(worker, &upstream, &dial, asked) {
        Some(lease) => Some(Ok(lease)),
        None => within(deadline, open(worker, &upstream, &dial, asked).as_mut(), &mut waited).await,
    };
    let mut lease = match connected {
        Some(Ok(lease)) => lease,
        Some(Err(error)) => {
            let through = matches!(dial, Dial::Gateway { .. });
            let outcome = match error.blame(through) {
                Blame::Endpoint => Outcome::ConnectFailed,
                Blame::Path | Blame::Local => Outcome::Cancelled,
            };
            pick.finish(outcome, begun.elapsed(), Instant::now());
            return Err(failed(Failure::NothingSent, RequestError::Connect(error.to_string())));
        }
        None => {
            pick.finish(Outcome::Cancelled, begun.elapsed(), Instant::now());
            return Err(failed(Failure::NothingSent, RequestError::Timeout));
        }
    };

    // The other proxy, and nobody else, hears what the caller speaks.
    if matches!(dial, Dial::Plain { .. }) {
        asked.head.fields.remove(Name::VeerProto);
    } else {
        asked.head.fields.set(Name::VeerProto, asked.protocol.as_str().as_bytes());
    }
    if let Some(all) = tries.deadline.filter(|_| tries.tells_deadline) {
        fields::set_grpc_timeout(&mut asked.head.fields, all.saturating_duration_since(Instant::now()));
    }
    let sent_at = if waited { Instant::now() } else { begun };
    let sent = {
        let body = asked.body.next_try().informing(&asked.interim);
        let sending = pin!(lease.send(&asked.head, asked.upgrade.as_deref(), body));
        within(deadline, sending, &mut waited).await
    };
    match sent {
        Some(Ok(response)) => Ok(judge(response, pick, lease, &dial, sent_at, edge)),
        Some(Err(error)) => {
            let (failure, outcome, error) = lost(error, &lease, asked);
            pick.finish(outcome, sent_at.elapsed(), Instant::now());
            Err(failed(failure, error))
        }
        None => {
            pick.finish(Outcome::Timeout, sent_at.elapsed(), Instant::now());
            Err(failed(Failure::Timeout, RequestError::Timeout))
        }
    }
}

fn pick(worker: &Worker, backend: &Backend, tries: &Tries, now: Instant) -> Result<Pick, Failed> {
    if let Some(pick) = tries.led.bound.and_then(|id| backend.pick_bound(id, &tries.exclude, now)) {
        return Ok(pick);
    }
    let mut rng = worker.rng.borrow_mut();
    let mut picked = match tries.led.hash {
        None => backend.pick(&mut rng, &tries.exclude, now),
        Some(hash) => backend.pick_hashed(hash, &mut rng, &tries.exclude, now),
    };
    if picked.as_ref().is_err_and(|none| none.reason == NoEndpointReason::Excluded) {
        // All have failed once: any of them may do better now than nobody.
        picked = backend.pick(&mut rng, &[], now);
    }
    picked.map_err(|none| {
        let error = match none.reason {
            NoEndpointReason::Overflow => RequestError::Overflow(backend.host.to_string()),
            NoEndpointReason::Empty | NoEndpointReason::Excluded => RequestError::NoEndpoint(none.to_string()),
        };
        // Nobody to send to is no failure of a try: waiting does not help within this request's time.
        Failed { failure: Failure::NoEndpoint, error, key: None, edge: None }
    })
}

/// A connection that is there.
fn ready(worker: &Rc<Worker>, upstream: &Rc<Upstream>, dial: &Dial<'_>, asked: &Asked) -> Option<Lease> {
    if asked.upgrade.is_some() {
        // It will not come back, and one that waited could turn out to be stale.
        return None;
    }
    if speaks_http1(upstream, dial, asked) {
        return upstream.h1_idle();
    }
    reach::at_hand(worker, upstream, dial)
}

type Opening<'a> = Pin<Box<dyn Future<Output = Result<Lease, DialError>> + 'a>>;

/// A new connection. In a place of its own: the way of every other request has no room for a handshake.
fn open<'a>(worker: &'a Rc<Worker>, upstream: &'a Rc<Upstream>, dial: &'a Dial<'_>, asked: &Asked) -> Opening<'a> {
    let fresh = asked.upgrade.is_some();
    let http1 = fresh || speaks_http1(upstream, dial, asked);
    Box::pin(async move {
        let reach = reach::of(worker, dial).await?;
        if http1 { upstream.h1(&reach, fresh).await } else { upstream.h2(&reach).await }
    })
}

fn speaks_http1(upstream: &Upstream, dial: &Dial<'_>, asked: &Asked) -> bool {
    matches!(dial, Dial::Plain { .. })
        && match asked.app {
            AppProtocol::Http1 => true,
            AppProtocol::Http2 | AppProtocol::Grpc => false,
            // Every server of HTTP over TLS speaks HTTP/1.1; whom gRPC is for speaks HTTP/2.
            AppProtocol::Detect | AppProtocol::Tcp if upstream.is_sealed() => !fields::is_grpc(&asked.head.fields),
            AppProtocol::Detect | AppProtocol::Tcp => asked.protocol == Protocol::Http1,
        }
}

/// Takes the mesh's own fields out of the response and tells the balance what it says about the endpoint.
fn judge(
    mut response: pool::Answer,
    pick: Pick,
    lease: Lease,
    dial: &Dial<'_>,
    sent_at: Instant,
    edge: Edge,
) -> Answer {
    let now = Instant::now();
    let latency = now - sent_at;
    let meshed = !matches!(dial, Dial::Plain { .. });
    let target = pick.target();
    let veer_error = if meshed { VeerError::take(&mut response.head.fields) } else { None };
    if meshed {
        target.cluster_health().prove(now);
        if let Some(load) = fields::take_load(&mut response.head.fields) {
            target.report_load(load, now);
        }
    }
    let outcome = match veer_error {
        // A refusal by policy says nothing about the endpoint's health.
        Some(error) if error.flag.blame() == veer_telemetry::Blame::Downstream => Outcome::Cancelled,
        Some(_) => Outcome::ProxyError,
        None if response.head.status >= 500 => Outcome::AppError5xx,
        None => grpc_outcome(&response.head.fields).unwrap_or(Outcome::Success),
    };
    // gRPC tells its outcome at the end.
    let pending = (outcome == Outcome::Success && fields::is_grpc(&response.head.fields) && !response.body.is_end())
        .then_some(outcome);
    if pending.is_none() {
        pick.report(outcome, latency, now);
    } else {
        pick.answered();
    }
    let hold = Hold { pick: Some(pick), lease: Some(lease), latency, pending, load: None };
    Answer { response, hold, veer_error, edge }
}

/// What a request that was not answered means.
fn lost(error: SendError, lease: &Lease, asked: &Asked) -> (Failure, Outcome, RequestError) {
    if asked.body.failed() {
        return (Failure::Lost, Outcome::Cancelled, RequestError::BodyIncomplete);
    }
    let text = error.to_string();
    if error.nothing_sent() {
        // The connection was closing when the request came to it: in order, so nobody is to blame.
        return (Failure::NothingSent, Outcome::Cancelled, RequestError::Connect(text));
    }
    if matches!(lease, Lease::H1(_)) && lease.reused() && error.closed_idle() {
        return (Failure::Stale, Outcome::Cancelled, RequestError::Lost(text));
    }
    if matches!(error, SendError::Protocol(_)) {
        return (Failure::Lost, Outcome::ProxyError, RequestError::UpstreamProtocol(text));
    }
    (Failure::Lost, Outcome::ConnectionLost, RequestError::Lost(text))
}

impl Answer {
    /// Who gave it.
    pub fn key(&self) -> Option<EndpointKey> {
        self.hold.pick.as_ref().map(|pick| pick.target().key.clone())
    }

    /// Why it should not be given to the caller, if it should not.
    pub fn failure(&self, tries: &Tries) -> Option<Failure> {
        match self.veer_error {
            Some(error) if error.flag.blame() == veer_telemetry::Blame::Downstream => None,
            Some(error) if !error.sent => Some(Failure::NothingSent),
            Some(error) if error.flag == veer_telemetry::Flag::UpstreamTimeout => Some(Failure::Timeout),
            Some(_) => Some(Failure::Lost),
            None => {
                let status = self.response.head.status;
                tries.names(status).then_some(Failure::Status(status))
            }
        }
    }
}

/// The future's output unless the deadline comes first; no timer is set for what is there at once. Tells whether it was not.
async fn within<F: Future + ?Sized>(
    deadline: Option<Instant>,
    mut future: Pin<&mut F>,
    waited: &mut bool,
) -> Option<F::Output> {
    let mut sleep: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        *waited = true;
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}
