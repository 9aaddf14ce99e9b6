//! The serving side: one call of [`serve_connection`] per accepted connection.

mod state;
mod stream;

pub(crate) use state::WILDCARD;

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use veer_core::SpiffeId;
use veer_net::Io;

use crate::agent::{self, Agents};
use crate::enroll::{self, Enroll};
use crate::grpc::{KeepAlive, LocalExec, answer, refuse};
use crate::lease::{self, Leases};
use crate::node::NodeInfo;

/// A future of the current thread, for hooks that are called through a trait object.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What subscribers are told. Called often and on the serving thread: answers come from a snapshot in memory.
pub trait Source: 'static {
    /// The resource as this subscriber may see it: its version (see [`version_of`](crate::version_of)) and its JSON. `None` is a
    /// *statement* that there is none for this subscriber; where it would only mean "not known yet", [`Source::knows`] says so.
    fn get(&self, who: &Subscriber, type_url: &str, name: &str) -> Option<(String, Bytes)>;

    /// The names behind the wildcard `*`.
    fn list(&self, who: &Subscriber, type_url: &str) -> Vec<String>;

    /// The generation of the snapshot: a change makes every stream look for new versions of what it subscribed to. Generation 0
    /// means *not ready*: subscriptions are taken, nothing is answered.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether the absence of this resource is a statement now. While it is `false` and [`Source::get`] has none, nothing is said.
    fn knows(&self, who: &Subscriber, type_url: &str, name: &str) -> bool {
        let _ = (who, type_url, name);
        true
    }

    /// Whether resources of this type exist at all for this version of the control plane. A subscriber of another type is told
    /// that it is not served here, which is not the same as absent.
    fn serves(&self, type_url: &str) -> bool {
        crate::TYPE_ORDER.contains(&type_url)
    }

    /// A subscriber has applied everything of this type up to the generation.
    fn accepted(&self, who: &Subscriber, type_url: &str, generation: u64) {
        let _ = (who, type_url, generation);
    }

    /// A subscriber has been told everything up to the generation, and has answered for all of it, be it that nothing concerned
    /// it. What it refused was reported before.
    fn caught_up(&self, who: &Subscriber, generation: u64) {
        let _ = (who, generation);
    }

    /// A subscriber refused something of this type in the generation; the text names the resources and the reasons.
    fn rejected(&self, who: &Subscriber, type_url: &str, generation: u64, reason: &str) {
        let _ = (who, type_url, generation, reason);
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// Proven by its certificate.
    pub id: SpiffeId,
    /// Claimed at the beginning of its stream; empty before that, and in calls beside the stream.
    pub node: NodeInfo,
}

impl Subscriber {
    /// A peer whose certificate was verified.
    pub fn verified(id: SpiffeId) -> Self {
        Self { id, node: NodeInfo::default() }
    }
}

/// Everything that a control plane serves. What is `None` is answered *unimplemented*.
#[derive(Clone)]
pub struct Services {
    /// Resources.
    pub source: Arc<dyn Source>,
    /// First and next certificates.
    pub enroll: Option<Arc<dyn Enroll>>,
    /// Liveness for peers.
    pub leases: Option<Arc<dyn Leases>>,
    /// Proxies' reports.
    pub agents: Option<Arc<dyn Agents>>,
    /// How this control plane names itself to its clients (cluster and incarnation).
    pub identifier: Arc<str>,
    /// Bounds on every connection.
    pub limits: Limits,
    /// Counters over all connections.
    pub stats: Arc<ServerStats>,
}

impl Services {
    /// Resources only, with default bounds.
    pub fn new(identifier: &str, source: Arc<dyn Source>) -> Self {
        Self {
            source,
            enroll: None,
            leases: None,
            agents: None,
            identifier: identifier.into(),
            limits: Limits::default(),
            stats: Arc::default(),
        }
    }
}

/// Bounds on what one connection may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Names per stream, over all types. Default 20,000: ten thousand services and their endpoints.
    pub subscriptions: usize,
    /// Bytes of one request message. Default 4 MiB, gRPC's own default.
    pub request_bytes: usize,
    /// Bytes of resources in one response, unless a single one is larger. Default 1 MiB.
    pub response_bytes: usize,
    /// Calls at once, the resource stream included. Default 32.
    pub calls: u32,
    /// How long a connection without a client certificate may last: one call. Default 10 s.
    pub anonymous: Duration,
    /// When a silent connection is given up.
    pub keep_alive: KeepAlive,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions: 20_000,
            request_bytes: 4 << 20,
            response_bytes: 1 << 20,
            calls: 32,
            anonymous: Duration::from_secs(10),
            keep_alive: KeepAlive::default(),
        }
    }
}

/// Counters over all connections of a control plane.
#[derive(Debug, Default)]
pub struct ServerStats {
    /// Resource streams open now.
    pub streams: AtomicU64,
    /// Responses sent.
    pub responses: AtomicU64,
    /// Resources sent.
    pub resources: AtomicU64,
    /// Absences stated.
    pub removals: AtomicU64,
    /// Responses that were refused.
    pub nacks: AtomicU64,
    /// Requests for types that are not served.
    pub unknown_types: AtomicU64,
    /// Names refused because of a bound.
    pub refused_names: AtomicU64,
    /// Calls refused because the caller has no identity.
    pub unauthenticated: AtomicU64,
    /// Streams ended because of a malformed message.
    pub malformed: AtomicU64,
}

impl ServerStats {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Serves one connection until it ends; dropping the future ends it. `peer` is `None` when the other end showed no client
/// certificate: then it may only join. Must run inside a local task set.
pub async fn serve_connection(io: impl Io, peer: Option<Subscriber>, services: Services) {
    let limits = services.limits;
    let anonymous = peer.is_none();
    let context = Rc::new(Context { peer, services });
    let service = hyper::service::service_fn(move |request| dispatch(Rc::clone(&context), request));
    let connection = hyper::server::conn::http2::Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.keep_alive.interval)
        .keep_alive_timeout(limits.keep_alive.timeout)
        .max_concurrent_streams(limits.calls)
        .max_header_list_size(16 << 10)
        .max_send_buf_size(64 << 10)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let ended = if anonymous {
        match tokio::time::timeout(limits.anonymous, connection.as_mut()).await {
            Ok(ended) => ended,
            Err(_) => return,
        }
    } else {
        connection.await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "control connection ended");
    }
}

struct Context {
    peer: Option<Subscriber>,
    services: Services,
}

/// Method of the resource stream.
pub(crate) const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

async fn dispatch(context: Rc<Context>, request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    let max = context.services.limits.request_bytes;
    let services = &context.services;
    let path = request.uri().path();
    if path == enroll::JOIN {
        let Some(hook) = services.enroll.clone() else { return refuse(not_served()) };
        return Ok(answer(request, max, async move |ask: enroll::JoinRequest| {
            enroll::JoinResponse::from_enrolled(hook.join(ask.into()).await?)
        })
        .await);
    }
    let Some(who) = context.peer.clone() else {
        ServerStats::add(&services.stats.unauthenticated, 1);
        return refuse(Status::unauthenticated(
            "without a client certificate only veer.v1.Identity/Join may be called",
        ));
    };
    match path {
        ADS => Ok(stream::open(who, services.clone(), request).await),
        enroll::RENEW => {
            let Some(hook) = services.enroll.clone() else { return refuse(not_served()) };
            Ok(answer(request, max, async move |ask: enroll::RenewRequest| {
                let renew = enroll::Renew { csr_der: ask.csr_der, workload: ask.workload };
                enroll::JoinResponse::from_enrolled(hook.renew(&who, renew).await?)
            })
            .await)
        }
        lease::LEASE => {
            let Some(hook) = services.leases.clone() else { return refuse(not_served()) };
            Ok(answer(request, max, async move |ask: lease::LeaseRequest| {
                let nonce = ask.nonce;
                let ask = lease::LeaseAsk { consumer_cluster: ask.consumer_cluster, version: ask.version };
                let lease::LeaseGrant { generation, incarnation } = hook.lease(&who, &ask).await?;
                Ok(lease::LeaseResponse { nonce, generation, incarnation })
            })
            .await)
        }
        agent::REPORT => {
            let Some(hook) = services.agents.clone() else { return refuse(not_served()) };
            Ok(answer(request, max, async move |ask: agent::ReportRequest| {
                let report = serde_json::from_slice(&ask.json)
                    .map_err(|error| Status::invalid_argument(format!("report: {error}")))?;
                hook.report(&who, report)?;
                Ok(agent::ReportResponse {})
            })
            .await)
        }
        _ => refuse(not_served()),
    }
}

fn not_served() -> Status {
    Status::unimplemented("this control plane does not serve that method")
}
