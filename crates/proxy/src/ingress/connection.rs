//! One connection from its first byte to whoever serves it.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout, timeout_at};
use veer_core::ingress::PortKind;
use veer_identity::{ALPN_H2_STANDARD, TlsStream};
use veer_net::{Prefixed, Stream};
use veer_telemetry::family::counters;

use super::announced::announced;
use super::door::{Door, Serving};
use super::table::ListenerView;
use crate::client_hello::{Alert, ClientHello, MAX_BYTES, Progress, parse};
use crate::detect::{self, Protocol};
use crate::outbound::{Destination, Downstream, http1, http2, tunnel};
use crate::tcp::{Copied, Relayed};
use crate::worker::{Place, Worker};

/// How long the first bytes may take: clients open some connections ahead of need.
const FIRST_BYTES: Duration = Duration::from_secs(60);
/// A ClientHello, and then the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Serves a connection as its port says.
pub async fn serve(worker: Rc<Worker>, serving: Serving, stream: Stream, place: Place) {
    let table = Rc::clone(&serving.borrow());
    let client = stream.peer_addr().ok().map(|address| address.ip());
    let (stream, client) = match &table.proxy_protocol {
        None => (Prefixed::new(stream), client),
        Some(balancers) => match announced(stream, client, balancers).await {
            Ok(announced) => announced,
            Err(reason) => return worker.refused("ingress", reason),
        },
    };
    match table.kind {
        PortKind::Http => plain(worker, serving, stream, client, place).await,
        PortKind::Tls => {
            // In a place of its own: what a handshake takes is not held by ports without TLS.
            let sealing = Box::pin(sealed(worker, serving, stream, client, place));
            sealing.await;
        }
        PortKind::Tcp => match table.listeners.find("") {
            Some(listener) => bytes(worker, listener, "", stream, place),
            None => worker.refused("ingress", "no_listener"),
        },
        // No connection comes by such a port.
        PortKind::Udp => worker.refused("ingress", "no_listener"),
    }
}

async fn plain(
    worker: Rc<Worker>,
    serving: Serving,
    mut stream: Prefixed<Stream>,
    client: Option<IpAddr>,
    place: Place,
) {
    let spoken = detect::detect(&mut stream, FIRST_BYTES).await;
    let from = Rc::new(Downstream { destination: None, door: Some(Door::plain(serving, client)) });
    let (stream, read) = match spoken {
        Ok(_) if stream.seen().is_empty() => return,
        Ok(_) => stream.into_parts(),
        Err(_) => return,
    };
    let read = BytesMut::from(&read[..]);
    match spoken {
        Ok(Protocol::Http2) => place.go_on(http2(worker, stream.into(), read, from, "ingress")),
        // What is no HTTP is answered as HTTP/1.1 says: 400.
        _ => place.go_on(http1(worker, stream.into(), read, from, "ingress")),
    }
}

/// TLS: the server name says which listener is meant, and the listener whether TLS ends here.
async fn sealed(
    worker: Rc<Worker>,
    serving: Serving,
    mut stream: Prefixed<Stream>,
    client: Option<IpAddr>,
    place: Place,
) {
    let hello = match read_hello(&mut stream).await {
        Ok(hello) => hello,
        Err((reason, alert)) => return refuse(&worker, stream, reason, alert).await,
    };
    let name = hello.server_name.as_deref().unwrap_or_default();
    let listener = serving.borrow().listeners.find(name).cloned();
    let Some(listener) = listener else {
        return refuse(&worker, stream, "no_listener", Some(Alert::UnrecognizedName)).await;
    };
    let Some(tls) = listener.tls.clone() else {
        return match listener.hosts.find(name) {
            Some(_) => bytes(worker, &listener, name, stream, place),
            None => refuse(&worker, stream, "no_route", Some(Alert::UnrecognizedName)).await,
        };
    };
    let (stream, read) = stream.into_parts();
    let accepted = timeout(HANDSHAKE_TIME, veer_identity::accept_read(stream, &read, tls)).await;
    let count = |outcome: &str| {
        worker.process.telemetry.metrics.counter(&counters::TLS_HANDSHAKES, &["ingress", outcome]).inc();
    };
    let stream: TlsStream<Stream> = match accepted {
        Ok(Ok((stream, _))) => stream,
        Ok(Err(error)) => return count(error.outcome()),
        Err(_) => return count("timeout"),
    };
    count("ok");
    if !listener.is_http {
        return bytes(worker, &listener, name, Copied(stream), place);
    }
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2_STANDARD);
    let door = Door::sealed(serving, hello.server_name, listener.asks, client);
    let from = Rc::new(Downstream { destination: None, door: Some(door) });
    match is_http2 {
        true => place.go_on(http2(worker, stream.into(), BytesMut::new(), from, "ingress")),
        false => place.go_on(http1(worker, stream.into(), BytesMut::new(), from, "ingress")),
    }
}

fn bytes(worker: Rc<Worker>, listener: &ListenerView, name: &str, stream: impl Relayed + 'static, place: Place) {
    let service = listener.hosts.find(name).cloned();
    let Some(port) = service.as_ref().and_then(|service| service.ports.first()).map(|port| port.port) else {
        return worker.refused("ingress", "no_route");
    };
    if let Some(service) = service {
        place.go_on(tunnel::serve(worker, stream, Destination { service, port }));
    }
}

async fn read_hello(stream: &mut Prefixed<Stream>) -> Result<ClientHello, (&'static str, Option<Alert>)> {
    let deadline = Instant::now() + HANDSHAKE_TIME;
    loop {
        match parse(stream.seen()) {
            Progress::Found(hello) => return Ok(hello),
            Progress::NotTls => return Err(("no_tls", None)),
            Progress::Malformed(fault) => return Err(("broken_hello", Some(fault.alert()))),
            Progress::NeedMore => {}
        }
        match timeout_at(deadline, stream.fill(MAX_BYTES)).await {
            Ok(Ok(0) | Err(_)) => return Err(("gone", None)),
            Ok(Ok(_)) => {}
            Err(_) => return Err(("slow_hello", None)),
        }
    }
}

async fn refuse(worker: &Worker, mut stream: Prefixed<Stream>, reason: &'static str, alert: Option<Alert>) {
    worker.refused("ingress", reason);
    if let Some(alert) = alert {
        let said = async {
            stream.get_mut().write_all(&alert.record()).await?;
            stream.get_mut().shutdown().await
        };
        let _ = timeout(Duration::from_secs(1), said).await;
    }
}
