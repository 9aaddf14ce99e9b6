//! The mesh port: mutual TLS, always.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;
use veer_core::sni::Sni;
use veer_identity::{ALPN_H2, ALPN_HTTP1, ALPN_TCP, ClientAuth, TlsStream, VerifiedPeer, clock};
use veer_net::{Listener, Stream};
use veer_telemetry::family::counters;

use super::serve::{http1, http2};
use super::state::Caller;
use super::tcp;
use crate::http::serve::Close;
use crate::http::watch::Watch;
use crate::tcp::Copied;
use crate::worker::{Place, Worker};

/// A handshake takes two round trips; whoever needs longer does not mean it.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Serves the mesh port.
pub async fn listen(worker: Rc<Worker>, listener: Listener) {
    let serving = Rc::clone(&worker);
    worker.accept(listener, "inbound", move |stream, place| connection(Rc::clone(&serving), stream, place)).await;
}

async fn connection(worker: Rc<Worker>, stream: Stream, place: Place) {
    let process = &worker.process;
    let tls = process.identity.server_config(&[ALPN_H2, ALPN_HTTP1, ALPN_TCP], ClientAuth::Workloads);
    let accepted = tokio::time::timeout(HANDSHAKE_TIME, veer_identity::accept(stream, tls)).await;
    let count =
        |outcome: &str| process.telemetry.metrics.counter(&counters::TLS_HANDSHAKES, &["inbound", outcome]).inc();
    let (stream, peer) = match accepted {
        Ok(Ok((stream, Some(peer)))) => {
            count("ok");
            (stream, peer)
        }
        Ok(Ok((_, None))) => return count("no_certificate"),
        Ok(Err(error)) => return count(error.outcome()),
        Err(_) => return count("timeout"),
    };
    // The name is a hint about the port; who may use the port is decided by the identity.
    let port = stream.get_ref().1.server_name().and_then(|name| name.parse::<Sni>().ok()).and_then(|sni| sni.port());
    let Some(port) = port else {
        worker.refused("inbound", "no_server_name");
        return;
    };
    let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let (until, domain) = (end_of(&worker, &peer), peer.id.trust_domain.clone());
    let watch = worker.connections.watch(Some(until), Some(domain));
    let caller = Rc::new(Caller::new(Some(peer), port));
    match alpn.as_deref() {
        Some(ALPN_H2) => place.go_on(http2(worker, stream.into(), BytesMut::new(), caller, watch)),
        Some(ALPN_HTTP1) => place.go_on(http1(worker, stream.into(), BytesMut::new(), caller, watch)),
        Some(ALPN_TCP) => place.go_on(bytes(worker, stream, caller, watch)),
        _ => worker.refused("inbound", "no_protocol"),
    }
}

/// Bytes cannot be drained: they end when nobody may be believed any more.
async fn bytes(worker: Rc<Worker>, stream: TlsStream<Stream>, caller: Rc<Caller>, watch: Rc<Watch>) {
    let cut = std::future::poll_fn(|cx| {
        watch.wait(cx);
        if watch.closing() == Some(Close::Now) { Poll::Ready(()) } else { Poll::Pending }
    });
    let serving = tcp::serve(&worker, Copied(stream), &caller);
    tokio::select! {
        biased;
        () = serving => {}
        () = cut => {}
    }
}

/// When a connection is to be closed gracefully: shortly before the first of both certificates ends, not all at once.
fn end_of(worker: &Worker, peer: &VerifiedPeer) -> Instant {
    let ends = peer.not_after.min(worker.process.identity.svid().not_after);
    let left = ends.duration_since(clock::now()).unwrap_or_default();
    let share = 0.92 + 0.06 * worker.rng.borrow_mut().f64();
    Instant::now() + left.mul_f64(share)
}
