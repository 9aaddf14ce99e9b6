//! Start, run and end of a control plane.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::JoinSet;
use veer_core::ClusterName;
use veer_identity::{Identity, clock};
use veer_net::{BindOptions, Drain, Listener, Network};
use veer_source::FolderSource;

use crate::api::Status;
use crate::config::ControlConfig;
use crate::http::{ApiRequest, ApiResponse};
use crate::issuer::Issuer;
use crate::plane::Plane;
use crate::state::{self, StateDir, StateError};
use crate::{answers, catalog, peering, server};

/// The control plane cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The configuration is not sound; every fault, with its key.
    #[error("configuration: {}", .0.join("; "))]
    Config(Vec<String>),
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The certificate authority or the own certificate.
    #[error(transparent)]
    Identity(#[from] veer_identity::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {at}: {source}")]
    Listen {
        /// Address or path.
        at: String,
        /// Why.
        source: io::Error,
    },
    /// A part of the control plane ended.
    #[error("{part} ended{}", .source.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Ended {
        /// Which.
        part: &'static str,
        /// Why, when it said so.
        source: Option<io::Error>,
    },
}

/// Runs the control plane of one cluster until `drain` begins. Must run inside a local task set ([`tokio::task::LocalSet`] or
/// a `LocalRuntime`).
///
/// # Errors
/// When it cannot start, or a listener fails for good. Faults in manifests, silent peers and unreadable folders are states,
/// not errors.
///
/// # Cancel safety
/// Dropping the future ends everything at once, as a crash would; what was acknowledged is on disk.
pub async fn run(config: ControlConfig, drain: Drain) -> Result<(), ControlError> {
    Control::bind(config).await?.run(drain).await
}

/// A control plane that holds its state and its ports, and does not serve yet.
#[derive(Debug)]
pub struct Control {
    plane: Arc<Plane>,
    listener: Listener,
    api: Listener,
    socket: Option<UnixListener>,
    lock: std::fs::File,
}

/// A handle to a control plane: the API without sockets. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Plane>);

impl Control {
    /// Opens the state folder and takes the ports.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn bind(config: ControlConfig) -> Result<Self, ControlError> {
        let faults = config.faults();
        if !faults.is_empty() {
            return Err(ControlError::Config(faults));
        }
        // A second control plane on the same state folder stops here and has touched nothing.
        let lock = state::lock(&config.state_dir)?;
        let bind = async |at: SocketAddr| {
            let listen = |source| ControlError::Listen { at: at.to_string(), source };
            let listener = config.network.bind(at, BindOptions::default()).await.map_err(listen)?;
            let bound = listener.local_addr().map_err(listen)?;
            // A simulated host listens on *any*; what is told to others is the address that was asked for.
            let address = if bound.ip().is_unspecified() { SocketAddr::new(at.ip(), bound.port()) } else { bound };
            Ok::<_, ControlError>((listener, address))
        };
        let (listener, listen) = bind(config.listen).await?;
        let (api, api_address) = bind(config.api).await?;

        let (state, mut set_aside) = StateDir::open(&config.state_dir)?;
        let (issuer, more) = Issuer::open(&state, &config.trust_domain, config.certificate_ttl)?;
        set_aside.extend(more);
        let faults: Vec<String> = set_aside.iter().map(ToString::to_string).collect();
        for fault in &faults {
            tracing::error!(fault, "a file of the state folder is unreadable and is done without");
        }
        let identity = Identity::new(issuer.own()?, [issuer.bundle()])?;
        // A simulation asks by its handle: it has no sockets of files.
        let socket = if matches!(config.network, Network::Tcp) {
            let path = state.socket();
            let listen = |source| ControlError::Listen { at: path.display().to_string(), source };
            Some(server::bind_socket(&path).map_err(listen)?)
        } else {
            None
        };
        let plane = Plane::new(config, (listen, api_address), state, issuer, identity, faults);
        Ok(Self { plane, listener, api, socket, lock })
    }

    /// A handle, also good while it runs.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.plane))
    }

    /// Serves until `drain` begins.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn run(self, drain: Drain) -> Result<(), ControlError> {
        // The lock is held to the end, and no longer: handles outlive the run.
        let Self { plane, listener, api, socket, lock: _lock } = self;
        tracing::info!(cluster = %plane.config.cluster, listen = %plane.listen, api = %plane.api, "control plane");
        let mut parts: JoinSet<(&'static str, io::Result<()>)> = JoinSet::new();
        let (snapshots, confirm) = FolderSource::new(plane.config.manifests.clone()).watch();
        // Set once: a control plane runs once.
        let _ = plane.confirm.set(confirm);
        parts.spawn_local(part("catalog", catalog::run(Arc::clone(&plane), snapshots)));
        parts.spawn_local(part("book of peers", catalog::keep_book(Arc::clone(&plane))));
        parts.spawn_local(part("peering", peering::run(Arc::clone(&plane))));
        parts.spawn_local(part("own certificate", renew_own(Arc::clone(&plane))));
        let serving = Arc::clone(&plane);
        parts.spawn_local(async move { ("xDS listener", server::serve(serving, listener).await) });
        let serving = Arc::clone(&plane);
        parts.spawn_local(async move { ("API listener", server::serve_api(serving, api).await) });
        if let Some(socket) = socket {
            let serving = Arc::clone(&plane);
            parts.spawn_local(async move { ("socket", server::serve_socket(serving, socket).await) });
        }
        let ended = tokio::select! {
            biased;
            _ = drain.started() => Ok(()),
            Some(ended) = parts.join_next() => Err(match ended {
                Ok((part, result)) => ControlError::Ended { part, source: result.err() },
                // A panic is a fault of this program: it ends loudly, and its supervisor starts it again with all that is on disk.
                Err(error) => ControlError::Ended { part: "a task", source: Some(io::Error::other(error)) },
            }),
        };
        parts.shutdown().await;
        for (peer, error) in plane.book.save(true) {
            tracing::error!(%peer, %error, "what the peer said could not be saved");
        }
        ended
    }
}

impl Handle {
    /// The cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.0.config.cluster
    }

    /// Where proxies, gateways and peers are served.
    pub fn listen(&self) -> SocketAddr {
        self.0.listen
    }

    /// Where the API is served.
    pub fn api(&self) -> SocketAddr {
        self.0.api
    }

    /// Answers a request of the API, privileged as on the socket.
    pub fn answer(&self, request: &ApiRequest) -> ApiResponse {
        answers::answer(&self.0, request, true)
    }

    /// `GET /v1/status`.
    pub fn status(&self) -> Status {
        answers::status(&self.0)
    }

    /// This cluster's own Link manifest, as its peers pin it.
    pub fn link(&self) -> String {
        answers::own_link(&self.0)
    }

    /// Waits until the manifests were read and it serves.
    pub async fn ready(&self) {
        // The sender lives in the plane that this handle holds.
        let _ = self.0.generation.subscribe().wait_for(|generation| *generation > 0).await;
    }
}

async fn part(name: &'static str, run: impl Future<Output = ()>) -> (&'static str, io::Result<()>) {
    run.await;
    (name, Ok(()))
}

/// Renews the control plane's own certificate at half of its life, and when the operator orders it.
async fn renew_own(plane: Arc<Plane>) {
    const RETRY: Duration = Duration::from_secs(5);
    /// Wall time may jump; looking this often bounds what a jump does.
    const LOOK: Duration = Duration::from_secs(60);
    let mut orders = plane.orders.subscribe();
    let mut rotate = plane.settings().rotate;
    loop {
        let due = plane.identity.renew_at().duration_since(clock::now()).unwrap_or_default();
        tokio::select! {
            biased;
            () = tokio::time::sleep(due.min(LOOK)) => {}
            _ = orders.changed() => {}
        }
        let ordered = plane.settings().rotate;
        if clock::now() < plane.identity.renew_at() && ordered == rotate {
            continue;
        }
        match plane.issuer.own() {
            Ok(svid) => {
                plane.identity.rotate(svid);
                rotate = ordered;
                tracing::info!("the control plane's own certificate was renewed");
            }
            Err(error) => {
                tracing::error!(%error, "the control plane's own certificate could not be renewed");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
