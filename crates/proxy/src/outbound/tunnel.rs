//! Bytes instead of requests: captured connections that speak no HTTP, and `CONNECT`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use veer_balance::{Dial, NoEndpointReason, Outcome, Pick};
use veer_core::ServiceHost;
use veer_core::policy::DEFAULT_REROUTES;
use veer_core::route::Backend as RouteBackend;
use veer_identity::{Blame, TlsStream, clock};
use veer_net::Stream;
use veer_telemetry::{AccessEntry, Direction, Edge, Flag, Protocol};

use super::destination::Destination;
use super::reach;
use crate::error::RequestError;
use crate::exchange::Exchange;
use crate::http::reply;
use crate::http::serve::Response;
use crate::knowledge::{Missing, PortView, ServiceView};
use crate::pool::{DialError, Hop, Reach};
use crate::tcp::{Copied, End, RelayOptions, Relayed, Side, relay};
use crate::worker::Worker;

type Opening<'a> = Pin<Box<dyn Future<Output = Result<Opened, RequestError>> + 'a>>;

/// A connection to an endpoint.
struct Opened {
    io: Io,
    pick: Pick,
    edge: Edge,
}

enum Io {
    Plain(Stream),
    Mesh(Box<TlsStream<Stream>>),
}

/// Relays a captured connection to the service that it was going to.
pub async fn serve(worker: Rc<Worker>, mut downstream: impl Relayed, to: Destination) {
    let log = TcpLog::begin(&to.service.host);
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
    let (worker, log) = (Rc::clone(worker), TcpLog::begin(&service.host));
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
        match dial_once(worker, &dial).await {
            Ok(io) => {
                target.cluster_health().prove(Instant::now());
                pick.report(Outcome::Success, begun.elapsed(), Instant::now());
                return Ok(Opened { io, pick, edge });
            }
            Err(error) => {
                let through = matches!(dial, Dial::Gateway { .. });
                let outcome = match error.blame(through) {
                    Blame::Endpoint => Outcome::ConnectFailed,
                    Blame::Path | Blame::Local => Outcome::Cancelled,
                };
                pick.finish(outcome, begun.elapsed(), Instant::now());
                edge.reroute();
                last = Some(RequestError::Connect(error.to_string()));
            }
        }
    }
    Err(last.unwrap_or_else(|| RequestError::NoEndpoint(format!("{host} has no port {service_port}"))))
}

async fn dial_once(worker: &Rc<Worker>, dial: &Dial<'_>) -> Result<Io, DialError> {
    let dialer = worker.pools.dialer();
    match reach::of(worker, dial).await? {
        Reach::Plain(address) => dialer.tcp(address).await.map(Io::Plain),
        Reach::Mesh(recipe) => dialer.dial(&recipe, Hop::Tcp).await.map(|dialed| Io::Mesh(Box::new(dialed.stream))),
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
    let mut meter = |direction, bytes| match direction {
        crate::tcp::Direction::Up => {
            up += bytes;
            edge.tcp_bytes(bytes, 0);
        }
        crate::tcp::Direction::Down => {
            down += bytes;
            edge.tcp_bytes(0, bytes);
        }
    };
    let options = RelayOptions::default();
    let report = match io {
        Io::Plain(mut upstream) => worker.until_drained(relay(downstream, &mut upstream, options, &mut meter)).await,
        Io::Mesh(upstream) => {
            let mut upstream = Copied(*upstream);
            worker.until_drained(relay(downstream, &mut upstream, options, &mut meter)).await
        }
    };
    if let Some(End::Failed { side, error }) = report.map(|report| report.end) {
        log.flag = match side {
            Side::First => Flag::DownstreamClosed,
            Side::Second => Flag::UpstreamConnectionLost,
        };
        log.reason = error.to_string();
    }
    drop(pick);
    log.end(worker, &edge, up, down);
}

/// The access log's line of a connection.
struct TcpLog {
    line: AccessEntry,
    begun: Instant,
    flag: Flag,
    reason: String,
}

impl TcpLog {
    fn begin(host: &ServiceHost) -> Self {
        let mut line = AccessEntry::new(clock::now(), Direction::Outbound, Protocol::Tcp);
        line.host = host.to_string();
        Self { line, begun: Instant::now(), flag: Flag::None, reason: String::new() }
    }

    fn refused(mut self, worker: &Worker, error: &RequestError) {
        self.flag = error.verdict().flag;
        self.reason = error.to_string();
        self.end(worker, &worker.service_edge(None), 0, 0);
    }

    fn end(self, worker: &Worker, edge: &Edge, up: u64, down: u64) {
        let Self { mut line, begun, flag, reason } = self;
        line.flag = flag;
        line.blame = flag.blame();
        line.reason = reason.into();
        line.duration = begun.elapsed();
        (line.request_bytes, line.response_bytes) = (up, down);
        crate::exchange::label(&mut line, edge.labels());
        worker.process.telemetry.log.log(line);
    }
}
