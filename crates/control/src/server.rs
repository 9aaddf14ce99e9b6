//! Listeners: gRPC over mutual TLS for proxies, gateways and peers; HTTP for the API; the socket for privileged verbs.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::JoinSet;
use veer_identity::{ALPN_H2_STANDARD, ALPN_XDS, ClientAuth, clock};
use veer_net::{Listener, Stream};
use veer_xds::{Subscriber, serve_connection};

use crate::answers;
use crate::connection::{Connection, Shown};
use crate::http;

use crate::plane::Plane;
use crate::random::hex;

/// Time for a handshake: a connection that proves nothing may not stay.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections at once; beyond, new ones are closed, and who has one keeps it.
const MAX_CONNECTIONS: usize = 16_384;
/// Connections of the API at once.
const MAX_API_CONNECTIONS: usize = 256;

/// Serves proxies, gateways and peers until dropped.
pub(crate) async fn serve(plane: Arc<Plane>, listener: Listener) -> io::Result<()> {
    let identifier = format!("{}/{}", plane.config.cluster, plane.incarnation());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // First, so that a flood of new connections cannot keep ended ones on the books.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                if connections.len() < MAX_CONNECTIONS {
                    connections.spawn_local(connection(Arc::clone(&plane), stream, identifier.clone()));
                }
            }
        }
    }
}

async fn connection(plane: Arc<Plane>, stream: Stream, identifier: String) {
    let config = plane.identity.server_config(&[ALPN_XDS, ALPN_H2_STANDARD], ClientAuth::Optional);
    let (stream, peer) = match tokio::time::timeout(HANDSHAKE, veer_identity::accept(stream, config)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return tracing::debug!(outcome = error.outcome(), %error, "a handshake failed"),
        Err(_) => return tracing::debug!("a handshake took too long"),
    };
    let shown = peer.as_ref().map(|peer| Shown { id: peer.id.clone(), certificate: hex(&peer.fingerprint) });
    let connection = Connection::new(plane, shown);
    if !connection.is_welcome() {
        return tracing::debug!(peer = ?peer.map(|peer| peer.id), "a stranger with a valid certificate was turned away");
    }
    // A connection was judged by the certificate of its handshake, and ends with it.
    let left = peer.as_ref().map(|peer| peer.not_after.duration_since(clock::now()).unwrap_or_default());
    let services = connection.services(&identifier);
    let subscriber = peer.map(|peer| Subscriber::verified(peer.id));
    tokio::select! {
        biased;
        () = serve_connection(stream, subscriber, services) => {}
        () = connection.revoked() => tracing::info!("a connection was closed: its Workload or Link is gone"),
        () = tokio::time::sleep(left.unwrap_or(Duration::MAX)), if left.is_some() => {}
    }
}

/// Serves the plain API until dropped.
pub(crate) async fn serve_api(plane: Arc<Plane>, listener: Listener) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // First, so that a flood of new connections cannot keep ended ones on the books.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                if connections.len() < MAX_API_CONNECTIONS {
                    connections.spawn_local(api(Arc::clone(&plane), stream, false));
                }
            }
        }
    }
}

/// The socket of privileged verbs: whoever may open it may do everything.
pub(crate) fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    // Left over from a control plane that was killed; a living one holds its ports and has stopped this start already.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody slips in before the mode is set: the folder itself is its owner's only.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the socket until dropped.
pub(crate) async fn serve_socket(plane: Arc<Plane>, listener: UnixListener) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // First, so that a flood of new connections cannot keep ended ones on the books.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors, for a moment: no reason to end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                if connections.len() < MAX_API_CONNECTIONS {
                    connections.spawn_local(api(Arc::clone(&plane), stream, true));
                }
            }
        }
    }
}

async fn api(plane: Arc<Plane>, io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, privileged: bool) {
    if let Err(error) = http::serve_connection(io, |request| answers::answer(&plane, &request, privileged)).await {
        tracing::debug!(%error, "a connection of the API failed");
    }
}
