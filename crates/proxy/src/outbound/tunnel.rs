//! Bytes instead of requests: captured connections that speak no HTTP, and `CONNECT`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use veer_balance::{Dial, NoEndpointReason, Outcome, Pick};
use veer_core::ServiceHost;
use veer_core::policy::DEFAULT_REROUTES;
use veer_core::route::Backend as RouteBackend;
use veer_http::{Name, RequestHead};
use veer_identity::{Blame, TlsStream, clock};
use veer_net::Stream;
use veer_telemetry::{AccessEntry, Direction, Edge, Flag, Protocol};

use super::destination::Destination;
use super::reach;
use crate::error::RequestError;
use crate::exchange::Exchange;
use crate::http::fields::VeerError;
use crate::http::h2::Tunnel;
use crate::http::serve::Response;
use crate::http::{BYTES, reply};
use crate::knowledge::{Missing, PortView, ServiceView};
use crate::pool::{DialError, Hop, Lease, Reach, Upstream};
use crate::tcp::{Copied, End, RelayOptions, Relayed, Side, relay};
use crate::worker::Worker;

/// More than this over one stream is much: later connections to the endpoint do not share.
const MUCH: u64 = 32 << 20;
/// For the other proxy to connect to its application, which takes [`CONNECT_TIME`](crate::pool::dial::CONNECT_TIME) at most.
const OPEN_TIME: Duration = Duration::from_secs(2);

type Opening<'a> = Pin<Box<dyn Future<Output = Result<Opened, RequestError>> + 'a>>;

/// A connection to an endpoint.
struct Opened {
    io: Io,
    pick: Pick,
    edge: Edge,
}

enum Io {
    /// To an endpoint outside of the mesh.
    Plain(Stream),
    /// A stream of a connection that is shared, and the place there: no handshake for each.
    Shared(Box<Tunnel>, Lease, Rc<Upstream>),
    /// A connection of its own: for endpoints over which much is carried, and when the shared ones are full.
    Own(Box<TlsStream<Stream>>),
}

/// Why one endpoint gave none.
enum NotOpened {
    Dial(DialError),
    /// The callee's proxy said why not.
    Refused(VeerError),
    /// The shared connection was lost, or nobody answered.
    Lost(String),
}

impl From<DialError> for NotOpened {
    fn from(error: DialError) -> Self {
        NotOpened::Dial(error)
    }
}

/// Relays a captured connection to the service that it was going to.
pub async fn serve(worker: Rc<Worker>, mut downstream: impl Relayed, to: Destination) {
    let log = TcpLog::begin(&worker, &to.service.host);
    let Some(port) = to.service.port(to.port) else { return };
    // In a place of its own: what opening takes is not held while bytes are relayed.
    let opening: Opening<'_> = Box::pin(open(&worker, &to.service, port));
    match opening.await {
        Ok(opened) => carry(&worker, &mut downstream, opened, log).await,
        Err(error) => {
            worker.refused("outbound", error.verdict().flag.as_str());
            log.refused(&worker, &error);
        }
    }
}

/// Relays a captured connection to an address that is no service of the mesh, as it came.
pub async fn pass_through(worker: Rc<Worker>, mut downstream: impl Relayed, original: SocketAddr) {
    match worker.pools.dialer().tcp(original).await {
        Ok(mut upstream) => {
            let edge = worker.service_edge(None);
            let _open = edge.tcp_open();
            let mut meter = |direction, bytes| match direction {
                crate::tcp::Direction::Up => edge.tcp_bytes(bytes, 0),
                crate::tcp::Direction::Down => edge.tcp_bytes(0, bytes),
            };
            let relaying = relay(&mut downstream, &mut upstream, RelayOptions::default(), &mut meter);
            worker.until_drained(relaying).await;
        }
        Err(error) => worker.refused("outbound", error.outcome()),
    }
}

/// Answers `CONNECT`: opens the connection first, so that a failure is still an answer.
///
/// # Errors
/// No endpoint, or none that could be reached.
pub async fn connect(
    worker: &Rc<Worker>,
    service: &Rc<ServiceView>,
    port: &PortView,
    exchange: &mut Exchange,
) -> Result<Response, RequestError> {
    let opened = open(worker, service, port).await?;
    exchange.edge(opened.edge.clone());
    let (worker, log) = (Rc::clone(worker), TcpLog::begin(worker, &service.host));
    let mut response = reply::empty(200);
    response.tunnel = Some(Box::new(move |downstream| {
        Box::pin(async move { carry(&worker, &mut Copied(downstream), opened, log).await })
    }));
    Ok(response)
}

/// A connection to an endpoint of the service; several are tried, for nothing is sent before it stands.
async fn open(worker: &Rc<Worker>, service: &ServiceView, port: &PortView) -> Result<Opened, RequestError> {
    let (host, service_port) = choose_backend(service, port)?;
    let backend = worker.knowledge.backend(&host).await.map_err(|missing| match missing {
        Missing::Absent => RequestError::NoEndpoint(format!("{host} has none")),
        Missing::Unknown => RequestError::Unknown(host.to_string()),
    })?;
    let mut exclude = Vec::new();
    let mut last = None;
    for _ in 0..=DEFAULT_REROUTES {
        let picked = backend.pick(&mut worker.rng.borrow_mut(), &exclude, Instant::now());
        let pick = match (picked, last.take()) {
            (Ok(pick), _) => pick,
            (Err(none), None) if none.reason == NoEndpointReason::Overflow => {
                return Err(RequestError::Overflow(host.to_string()));
            }
            (Err(none), None) => return Err(RequestError::NoEndpoint(none.to_string())),
            (Err(_), Some(error)) => return Err(error),
        };
        let target = Arc::clone(pick.target());
        exclude.push(target.key.clone());
        let Some(dial) = target.dial(service_port) else { continue };
        let edge = backend.edge(&worker.process, &target);
        let begun = Instant::now();
        let upstream = backend.upstream(&worker.pools, &target, service_port, &dial);
        match open_once(worker, &upstream, &dial, &host, service_port).await {
            Ok(io) => {
                target.cluster_health().prove(Instant::now());
                pick.report(Outcome::Success, begun.elapsed(), Instant::now());
                return Ok(Opened { io, pick, edge });
            }
            Err(NotOpened::Refused(refused)) if refused.flag == Flag::Denied => {
                // Whoever may not come to one copy may come to none.
                pick.finish(Outcome::Cancelled, begun.elapsed(), Instant::now());
                return Err(RequestError::Denied("by the callee".to_owned()));
            }
            Err(error) => {
                let (outcome, error) = error.judge(matches!(dial, Dial::Gateway { .. }));
                pick.finish(outcome, begun.elapsed(), Instant::now());
                edge.reroute();
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| RequestError::NoEndpoint(format!("{host} has no port {service_port}"))))
}

impl NotOpened {
    fn judge(self, through: bool) -> (Outcome, RequestError) {
        match self {
            NotOpened::Dial(error) => {
                let outcome = match error.blame(through) {
                    Blame::Endpoint => Outcome::ConnectFailed,
                    Blame::Path | Blame::Local => Outcome::Cancelled,
                };
                (outcome, RequestError::Connect(error.to_string()))
            }
            NotOpened::Refused(refused) => {
                (Outcome::ConnectFailed, RequestError::Connect(format!("the callee's proxy says {}", refused.flag)))
            }
            NotOpened::Lost(error) => (Outcome::ConnectionLost, RequestError::Lost(error)),
        }
    }
}

async fn open_once(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    dial: &Dial<'_>,
    host: &ServiceHost,
    port: u16,
) -> Result<Io, NotOpened> {
    let meshed = !matches!(dial, Dial::Plain { .. });
    if meshed
        && !upstream.carries_much()
        && let Some(io) = share(worker, upstream, dial, host, port).await?
    {
        return Ok(io);
    }
    let dialer = worker.pools.dialer();
    Ok(match reach::of(worker, dial).await? {
        Reach::Plain(address) => match upstream.sealed_bytes(address).await? {
            Some(stream) => Io::Own(Box::new(stream)),
            None => Io::Plain(upstream.plain_bytes(address).await?),
        },
        Reach::Mesh(recipe) => Io::Own(Box::new(dialer.dial(&recipe, Hop::Tcp).await?.stream)),
    })
}

/// A stream of a connection that requests use as well. `None` when there is no room on any.
async fn share(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    dial: &Dial<'_>,
    host: &ServiceHost,
    port: u16,
) -> Result<Option<Io>, NotOpened> {
    let mut lease = match reach::at_hand(worker, upstream, dial) {
        Some(lease) => lease,
        None => upstream.h2(&reach::of(worker, dial).await?).await?,
    };
    let mut head = RequestHead::roomy();
    head.set_method(b"CONNECT");
    head.set_authority(format!("{host}:{port}").as_bytes());
    head.fields.push(Name::VeerProto, BYTES);
    match tokio::time::timeout(OPEN_TIME, lease.connect(&head)).await {
        Ok(Ok((head, tunnel))) if head.status == 200 => {
            Ok(Some(Io::Shared(Box::new(tunnel), lease, Rc::clone(upstream))))
        }
        Ok(Ok((mut head, _))) => Err(match VeerError::take(&mut head.fields) {
            Some(refused) => NotOpened::Refused(refused),
            None => NotOpened::Lost(format!("the callee's proxy answered {} to CONNECT", head.status)),
        }),
        Ok(Err(error)) if error.nothing_sent() => Ok(None),
        Ok(Err(error)) => Err(NotOpened::Lost(error.to_string())),
        Err(_) => Err(NotOpened::Lost(format!("no answer to CONNECT within {OPEN_TIME:?}"))),
    }
}

fn choose_backend(service: &ServiceView, port: &PortView) -> Result<(ServiceHost, u16), RequestError> {
    let Some(route) = &port.tcp_route else { return Ok((service.host.clone(), port.port)) };
    let picked: Option<&RouteBackend> = port.tcp_deal.pick(&route.backends);
    match picked {
        None => Err(RequestError::NoBackend(format!("{}: none has a weight", route.name))),
        Some(RouteBackend { invalid: Some(reason), .. }) => {
            Err(RequestError::NoBackend(format!("{}: {reason}", route.name)))
        }
        Some(backend) => Ok((backend.host.clone(), backend.port)),
    }
}

async fn carry(worker: &Rc<Worker>, downstream: &mut impl Relayed, opened: Opened, mut log: TcpLog) {
    let Opened { io, pick, edge } = opened;
    let _open = edge.tcp_open();
    let (mut up, mut down) = (0, 0);
    let sharing = if let Io::Shared(_, _, upstream) = &io { Some(Rc::clone(upstream)) } else { None };
    let mut meter = |direction, bytes| {
        match direction {
            crate::tcp::Direction::Up => {
                up += bytes;
                edge.tcp_bytes(bytes, 0);
            }
            crate::tcp::Direction::Down => {
                down += bytes;
                edge.tcp_bytes(0, bytes);
            }
        }
        if up + down > MUCH
            && let Some(upstream) = &sharing
        {
            upstream.carried_much();
        }
    };
    let options = RelayOptions::default();
    let report = match io {
        Io::Plain(mut upstream) => worker.until_drained(relay(downstream, &mut upstream, options, &mut meter)).await,
        Io::Own(upstream) => {
            let mut upstream = Copied(*upstream);
            worker.until_drained(relay(downstream, &mut upstream, options, &mut meter)).await
        }
        Io::Shared(tunnel, _place, _) => {
            let mut upstream = Copied(*tunnel);
            worker.until_drained(relay(downstream, &mut upstream, options, &mut meter)).await
        }
    };
    if let Some(End::Failed { side, error }) = report.map(|report| report.end) {
        let flag = match side {
            Side::First => Flag::DownstreamClosed,
            Side::Second => Flag::UpstreamConnectionLost,
        };
        log.failed(flag, error);
    }
    drop(pick);
    log.end(worker, &edge, up, down);
}

/// The access log's line of a connection, when the log is on.
struct TcpLog(Option<Box<AccessEntry>>, Instant);

impl TcpLog {
    fn begin(worker: &Worker, host: &ServiceHost) -> Self {
        let line = worker.process.telemetry.log.is_on().then(|| {
            let mut line = AccessEntry::new(clock::now(), Direction::Outbound, Protocol::Tcp);
            line.host = host.to_string();
            Box::new(line)
        });
        Self(line, Instant::now())
    }

    fn failed(&mut self, flag: Flag, reason: impl ToString) {
        if let Some(line) = &mut self.0 {
            line.flag = flag;
            line.blame = flag.blame();
            line.reason = reason.to_string().into();
        }
    }

    fn refused(mut self, worker: &Worker, error: &RequestError) {
        self.failed(error.verdict().flag, error);
        self.end(worker, &worker.service_edge(None), 0, 0);
    }

    fn end(self, worker: &Worker, edge: &Edge, up: u64, down: u64) {
        let Self(Some(mut line), begun) = self else { return };
        line.duration = begun.elapsed();
        (line.request_bytes, line.response_bytes) = (up, down);
        crate::exchange::label(&mut line, edge.labels());
        worker.process.telemetry.log.log(*line);
    }
}
