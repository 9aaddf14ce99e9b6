//! The application's own ports: plaintext from callers outside of the mesh, while the workload takes it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::BytesMut;
use tokio::task::JoinHandle;
use veer_core::AppProtocol;
use veer_net::{BindOptions, Listener, Prefixed, Stream};

use super::serve::{http1, http2};
use super::state::Caller;
use super::tcp;
use crate::detect::{self, DEFAULT_WAIT, Protocol};
use crate::worker::{Place, Worker};

/// Keeps a listener on every port of the workload where the application itself listens elsewhere.
pub async fn listen_ports(worker: Rc<Worker>) {
    let mut changes = worker.inbound.changes();
    let mut open: HashMap<SocketAddr, JoinHandle<()>> = HashMap::new();
    loop {
        let inbound = changes.borrow_and_update().clone();
        let wanted: Vec<SocketAddr> = inbound
            .iter()
            .flat_map(|inbound| {
                inbound.ports.iter().map(|port| (SocketAddr::new(inbound.address, port.port), port.app))
            })
            .filter(|(address, app)| address != app)
            .map(|(address, _)| address)
            .collect();
        open.retain(|address, task| {
            let stays = wanted.contains(address) && !task.is_finished();
            if !stays {
                // Only the listener: what it accepted has tasks of its own.
                task.abort();
            }
            stays
        });
        for address in wanted {
            if open.contains_key(&address) {
                continue;
            }
            let options = BindOptions { reuse_port: true, ..BindOptions::default() };
            match worker.process.config.network.bind(address, options).await {
                Ok(listener) => {
                    open.insert(
                        address,
                        tokio::task::spawn_local(listen(Rc::clone(&worker), listener, address.port())),
                    );
                }
                Err(error) => tracing::error!(%address, %error, "the workload's port cannot be listened on"),
            }
        }
        // Tried again with the next change, and from time to time: a port that was taken may be free.
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(std::time::Duration::from_secs(5)) => {}
            _ = worker.drain.started() => return,
        }
    }
}

async fn listen(worker: Rc<Worker>, listener: Listener, port: u16) {
    let serving = Rc::clone(&worker);
    worker.accept(listener, "inbound", move |stream, place| connection(Rc::clone(&serving), stream, port, place)).await;
}

/// Serves connections to the workload that packet-filter rules led here.
pub async fn listen_captured(worker: Rc<Worker>, listener: Listener) {
    let serving = Rc::clone(&worker);
    let own = listener.local_addr().ok();
    let serve = move |stream: Stream, place| {
        let original = crate::outbound::original_destination(&stream, own);
        let worker = Rc::clone(&serving);
        async move {
            match original {
                Some(original) => connection(worker, stream, original.port(), place).await,
                None => worker.refused("inbound", "not_captured"),
            }
        }
    };
    worker.accept(listener, "inbound", serve).await;
}

async fn connection(worker: Rc<Worker>, stream: Stream, port: u16, place: Place) {
    let caller = Rc::new(Caller::new(None, port));
    let mut stream = Prefixed::new(stream);
    let declared = worker.inbound.view().ok().and_then(|view| view.inbound.port(port).map(|port| port.protocol));
    let spoken = match declared {
        Some(AppProtocol::Tcp) => Protocol::Opaque,
        _ => match detect::detect(&mut stream, DEFAULT_WAIT).await {
            Ok(spoken) => spoken,
            Err(_) => return,
        },
    };
    // An HTTP port whose caller is slow to speak is still HTTP.
    let waits = declared.is_some_and(AppProtocol::is_http) && stream.seen().is_empty();
    if spoken != Protocol::Http1 && spoken != Protocol::Http2 && !(spoken == Protocol::Opaque && waits) {
        return place.go_on(async move { tcp::serve(&worker, stream, &caller).await });
    }
    let (stream, read) = stream.into_parts();
    let (io, read, watch) = (stream.into(), BytesMut::from(&read[..]), worker.connections.watch(None, None));
    match spoken {
        Protocol::Http2 => place.go_on(http2(worker, io, read, caller, watch)),
        _ => place.go_on(http1(worker, io, read, caller, watch)),
    }
}
