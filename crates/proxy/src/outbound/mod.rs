//! The caller's side: what the application opens.

mod attempt;
mod auth;
pub mod destination;
mod ext_authz;
mod faults;
pub mod filters;
pub mod hashing;
mod mirror;
mod reach;
pub mod request;
mod session;
pub mod tries;
pub mod tunnel;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio::time::Instant;
use veer_balance::Target;
use veer_core::AppProtocol;
use veer_net::{Listener, Prefixed, Stream};

pub use self::destination::Destination;
use self::hashing::Source;
use crate::detect::{self, DEFAULT_WAIT, Protocol};
use crate::http::serve;
use crate::http::transport::Transport;
use crate::ingress::Door;
use crate::knowledge::Backend;
use crate::pool::DialError;
use crate::worker::{Place, Worker};

/// How long the explicit listener waits for a connection's first bytes: clients may open some ahead of need.
const FIRST_BYTES: Duration = Duration::from_secs(60);

/// A connection of the application.
pub struct Downstream {
    /// Where a captured connection was going. `None`: each request says for itself.
    pub destination: Option<Destination>,
    /// At a Gateway: each request is for whom the door says.
    pub door: Option<Door>,
}

impl Downstream {
    /// Who sends.
    fn source<'a>(&self, worker: &'a Worker) -> Source<'a> {
        let client = self.door.as_ref().and_then(Door::client);
        client.map_or(Source::Workload(&worker.process.config.workload), Source::Client)
    }
}

/// Serves the explicit listener: an HTTP proxy, and a reverse proxy by `Host`.
pub async fn listen(worker: Rc<Worker>, listener: Listener) {
    let serving = Rc::clone(&worker);
    // The same for every connection.
    let from = Rc::new(Downstream { destination: None, door: None });
    let serve = move |stream, place| explicit(Rc::clone(&serving), Rc::clone(&from), stream, place);
    worker.accept(listener, "outbound", serve).await;
}

/// Serves connections that packet-filter rules led here.
pub async fn listen_captured(worker: Rc<Worker>, listener: Listener) {
    let serving = Rc::clone(&worker);
    let own = listener.local_addr().ok();
    worker
        .accept(listener, "outbound", move |stream, place| {
            let original = original_destination(&stream, own);
            captured(Rc::clone(&serving), stream, original, place)
        })
        .await;
}

/// Where a captured connection was going: REDIRECT leaves it with connection tracking, TPROXY in the socket itself.
pub fn original_destination(stream: &Stream, listener: Option<SocketAddr>) -> Option<SocketAddr> {
    veer_net::original_dst(stream).or_else(|| stream.local_addr().ok().filter(|address| Some(*address) != listener))
}

async fn explicit(worker: Rc<Worker>, from: Rc<Downstream>, stream: Stream, place: Place) {
    let mut stream = Prefixed::new(stream);
    match detect::detect(&mut stream, FIRST_BYTES).await {
        Ok(Protocol::Http2) => {
            let (io, read) = parts(stream);
            place.go_on(http2(worker, io, read, from, "outbound"));
        }
        // What is no HTTP is answered as HTTP/1.1 says: 400.
        Ok(_) if !stream.seen().is_empty() => {
            let (io, read) = parts(stream);
            place.go_on(http1(worker, io, read, from, "outbound"));
        }
        Ok(_) | Err(_) => {}
    }
}

async fn captured(worker: Rc<Worker>, stream: Stream, original: Option<SocketAddr>, place: Place) {
    // A connection to the listener itself, not led here by a rule: forwarding it would be a loop.
    let Some(original) = original else {
        worker.refused("outbound", "not_captured");
        return;
    };
    let mut stream = Prefixed::new(stream);
    let destination = match destination::by_address(&worker.knowledge, original).await {
        Ok(Some(destination)) => destination,
        Ok(None) => return place.go_on(tunnel::pass_through(worker, stream, original)),
        Err(_) => {
            worker.refused("outbound", "unknown");
            return;
        }
    };
    let protocol = destination.service.port(destination.port).map_or(AppProtocol::Tcp, |port| port.protocol);
    let spoken = match protocol {
        AppProtocol::Tcp => Protocol::Opaque,
        AppProtocol::Detect => match detect::detect(&mut stream, DEFAULT_WAIT).await {
            Ok(spoken) => spoken,
            Err(_) => return,
        },
        AppProtocol::Http1 | AppProtocol::Http2 | AppProtocol::Grpc => {
            match detect::detect(&mut stream, FIRST_BYTES).await {
                Ok(Protocol::Http2) => Protocol::Http2,
                Ok(_) => Protocol::Http1,
                Err(_) => return,
            }
        }
    };
    let from = |destination| Rc::new(Downstream { destination: Some(destination), door: None });
    match spoken {
        Protocol::Http1 => {
            let (io, read) = parts(stream);
            place.go_on(http1(worker, io, read, from(destination), "outbound"));
        }
        Protocol::Http2 => {
            let (io, read) = parts(stream);
            place.go_on(http2(worker, io, read, from(destination), "outbound"));
        }
        Protocol::Tls | Protocol::Opaque => place.go_on(tunnel::serve(worker, stream, destination)),
    }
}

// Not `async fn`s: those would hold their arguments, and what was read to detect the protocol, for the connection's life.

/// Serves HTTP/1 to who asks for services; `read` was read of the connection already, `direction` says where it is counted.
pub fn http1(
    worker: Rc<Worker>,
    io: Transport,
    read: BytesMut,
    from: Rc<Downstream>,
    direction: &'static str,
) -> impl Future<Output = ()> {
    let (connections, watch) = (Rc::clone(&worker.connections), worker.connections.watch(None, None));
    let counting = Rc::clone(&worker);
    let handle = move |request| request::handle(Rc::clone(&worker), Rc::clone(&from), request);
    let serving = serve::http1(io, read, handle, connections, watch);
    serving.map(move |end| counting.ended(direction, end))
}

/// The same for HTTP/2.
pub fn http2(
    worker: Rc<Worker>,
    io: Transport,
    read: BytesMut,
    from: Rc<Downstream>,
    direction: &'static str,
) -> impl Future<Output = ()> {
    let (connections, watch) = (Rc::clone(&worker.connections), worker.connections.watch(None, None));
    let counting = Rc::clone(&worker);
    let handle = move |request| request::handle(Rc::clone(&worker), Rc::clone(&from), request);
    let serving = serve::http2(io, read, handle, connections, watch);
    serving.map(move |end| counting.ended(direction, end))
}

/// The connection, and what detection read of it.
fn parts(stream: Prefixed<Stream>) -> (Transport, BytesMut) {
    let (stream, read) = stream.into_parts();
    (stream.into(), BytesMut::from(&read[..]))
}

/// Dials a target outside of any request, to learn whether it can be reached, and tells the balance.
pub async fn probe(worker: Rc<Worker>, backend: Rc<Backend>, target: Arc<Target>) {
    let ports: Vec<u16> =
        target.endpoint().map(|e| e.ports.iter().map(|p| p.service_port).collect()).unwrap_or_default();
    // Any port will do: it is the proxy that answers.
    let Some((port, dial)) = ports.iter().find_map(|port| Some((*port, target.dial(*port)?))) else { return };
    let result: Result<(), DialError> = async {
        let reach = reach::of(&worker, &dial).await?;
        backend.upstream(&worker.pools, &target, port, &dial).probe(&reach).await
    }
    .await;
    let now = Instant::now();
    match result {
        Ok(()) => {
            target.cluster_health().prove(now);
            backend.balance.reachable(&target, now);
        }
        Err(error) => {
            let through = matches!(dial, veer_balance::Dial::Gateway { .. });
            if error.blame(through) == veer_identity::Blame::Endpoint {
                backend.balance.unreachable(&target, now);
            }
        }
    }
}
