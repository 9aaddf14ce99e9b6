//! What the gateway knows, made ready for deciding: server name in, destination or refusal out. Pure but for the
//! counters it carries.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;
use veer_core::gateway::{Path, TokenKey};
use veer_core::sni::Sni;
use veer_core::{ClusterName, GatewayConfig};
use veer_identity::token::{RouteToken, TokenCrypter, TokenError, open};

use super::replica::Replica;
use crate::client_hello::{Alert, ClientHello, Fault};

/// One generation of what the control plane said. Counters of what stays are carried over from the former generation.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) config: Arc<GatewayConfig>,
    keys: Vec<TokenCrypter>,
    peers: HashMap<ClusterName, Arc<Peer>>,
    services: HashMap<u32, Arc<[Arc<Replica>]>>,
    endpoints: HashMap<SocketAddr, Arc<Replica>>,
    egress: HashMap<ClusterName, Arc<Egress>>,
    /// This cluster's control plane.
    pub(crate) control: Vec<Arc<Replica>>,
}

/// A peer whose callers come in.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: ClusterName,
    limit: AtomicUsize,
    open: AtomicUsize,
    /// Set once no key of the peer is left: what is open is cut.
    revoked: watch::Sender<bool>,
}

/// One of a peer's connections; dropping it makes room.
#[derive(Debug)]
pub(crate) struct PeerPermit(Arc<Peer>);

/// A peer to which callers go out.
#[derive(Debug)]
pub(crate) struct Egress {
    pub(crate) cluster: ClusterName,
    pub(crate) gateways: Vec<EgressGateway>,
}

/// One of a peer's gateways.
#[derive(Debug)]
pub(crate) struct EgressGateway {
    pub(crate) name: Arc<str>,
    pub(crate) weight: u32,
    pub(crate) draining: bool,
    pub(crate) replica: Arc<Replica>,
}

/// Where a connection goes.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    /// This cluster's control plane.
    Control,
    /// One endpoint.
    Endpoint { peer: Arc<Peer>, endpoint: Arc<Replica> },
    /// Any of these.
    Service { peer: Arc<Peer>, endpoints: Arc<[Arc<Replica>]> },
}

/// Why a connection goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the gateway has no configuration yet")]
    NotReady,
    #[error("not TLS")]
    NotTls,
    #[error("the ClientHello is malformed: {0}")]
    Hello(#[from] Fault),
    #[error("no whole ClientHello came in time")]
    Slow,
    #[error("no server name")]
    NoName,
    #[error("the server name is none of the mesh")]
    BadName,
    #[error("the server name is of another cluster")]
    OtherCluster,
    #[error("the token is refused: {0}")]
    Token(TokenError),
    #[error("the token was offered for another port than the one beside it")]
    Port,
    #[error("the token's service is not offered any more")]
    NoService,
    #[error("the peer holds as many connections as it may")]
    PeerLimit,
    #[error("too many connections to the control plane")]
    ControlLimit,
    #[error("nothing behind the token can be reached")]
    Unreachable,
    #[error("the endpoint closed the connection without an answer")]
    NoAnswer,
}

impl Refusal {
    /// What the caller is told; nothing that is not TLS is answered at all.
    pub(crate) fn alert(self) -> Option<Alert> {
        Some(match self {
            Refusal::NotTls => return None,
            Refusal::Slow => Alert::DecodeError,
            Refusal::Hello(fault) => fault.alert(),
            Refusal::NotReady => Alert::UserCanceled,
            Refusal::NoName | Refusal::BadName | Refusal::OtherCluster => Alert::UnrecognizedName,
            Refusal::Token(_) | Refusal::Port | Refusal::NoService => Alert::UnrecognizedName,
            Refusal::PeerLimit | Refusal::ControlLimit => Alert::AccessDenied,
            Refusal::Unreachable | Refusal::NoAnswer => Alert::InternalError,
        })
    }

    /// For metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Refusal::NotReady => "not_ready",
            Refusal::NotTls => "not_tls",
            Refusal::Hello(_) => "malformed_hello",
            Refusal::Slow => "slow_hello",
            Refusal::NoName => "no_name",
            Refusal::BadName => "bad_name",
            Refusal::OtherCluster => "other_cluster",
            Refusal::Token(TokenError::Malformed) => "malformed_token",
            Refusal::Token(TokenError::UnknownKey) => "unknown_key",
            Refusal::Token(TokenError::Forged) => "forged_token",
            Refusal::Port => "other_port",
            Refusal::NoService => "no_service",
            Refusal::PeerLimit => "peer_limit",
            Refusal::ControlLimit => "control_limit",
            Refusal::Unreachable => "unreachable",
            Refusal::NoAnswer => "no_answer",
        }
    }
}

impl Table {
    /// The next generation. Keys that cannot be used are left out and named in the second value: one bad key must not
    /// take the others down.
    pub(crate) fn next(config: Arc<GatewayConfig>, former: Option<&Table>) -> (Self, Vec<String>) {
        let mut faults = Vec::new();
        let mut keys = Vec::new();
        let mut peers: HashMap<ClusterName, Arc<Peer>> = HashMap::new();
        for key in &config.keys {
            match TokenCrypter::new(key) {
                Ok(crypter) => keys.push(crypter),
                Err(error) => faults.push(format!("key {} of {}: {error}", key.id, key.peer)),
            }
            let peer = peers.entry(key.peer.clone()).or_insert_with(|| {
                let peer = former.and_then(|former| former.peers.get(&key.peer)).cloned();
                let peer = peer.unwrap_or_else(|| Arc::new(Peer::new(key.peer.clone())));
                peer.limit.store(0, Ordering::Relaxed);
                peer
            });
            peer.limit.fetch_max(limit(key), Ordering::Relaxed);
        }
        let mut endpoints: HashMap<SocketAddr, Arc<Replica>> = HashMap::new();
        let mut endpoint = |address: SocketAddr| {
            let kept = || former.and_then(|former| former.endpoints.get(&address)).cloned();
            Arc::clone(endpoints.entry(address).or_insert_with(|| kept().unwrap_or_else(|| Replica::new(address))))
        };
        let services = config
            .services
            .iter()
            .map(|service| {
                let usable = service.endpoints.iter().filter(|address| address.port() == config.mesh_port);
                (service.id, usable.map(|address| endpoint(*address)).collect())
            })
            .collect();
        let egress = config.egress.iter().map(|path| {
            let former = former.and_then(|former| former.egress.get(&path.cluster));
            (path.cluster.clone(), Arc::new(Egress::next(path, former.map(|former| &**former))))
        });
        let egress = egress.collect();
        let control = config.control.iter().map(|address| {
            let kept = former.and_then(|former| former.control.iter().find(|replica| replica.address == *address));
            kept.map_or_else(|| Replica::new(*address), Arc::clone)
        });
        let control = control.collect();
        let table = Self { keys, peers, services, endpoints, egress, control, config };
        if let Some(former) = former {
            for (_, peer) in former.peers.iter().filter(|(name, _)| !table.peers.contains_key(*name)) {
                peer.revoked.send_replace(true);
            }
        }
        (table, faults)
    }

    /// Reads a caller's wish on the public side.
    pub(crate) fn inbound(&self, hello: &ClientHello) -> Result<Destination, Refusal> {
        let sni = server_name(hello)?;
        if *sni.cluster() != self.config.cluster {
            return Err(Refusal::OtherCluster);
        }
        let (token, asked) = match sni {
            Sni::Control { .. } => return Ok(Destination::Control),
            // Who could dial directly would not be here.
            Sni::Direct { .. } => return Err(Refusal::BadName),
            Sni::Gateway { token, port, .. } => (token, port),
        };
        let (token, key) = open(&token, &self.keys).map_err(Refusal::Token)?;
        let peer = self.peers.get(&key.peer).cloned().ok_or(Refusal::Token(TokenError::UnknownKey))?;
        match token {
            // The callee believes the port beside the token; it must be the one that was offered.
            RouteToken::Endpoint { port, .. } | RouteToken::Service { port, .. } if port != asked => Err(Refusal::Port),
            RouteToken::Endpoint { addr, .. } => {
                let address = SocketAddr::new(addr, self.config.mesh_port);
                // An endpoint that is in no service any more may still end what callers have begun with it.
                let endpoint = self.endpoints.get(&address).cloned().unwrap_or_else(|| Replica::new(address));
                Ok(Destination::Endpoint { peer, endpoint })
            }
            RouteToken::Service { id, .. } => {
                let endpoints = self.services.get(&id).cloned().ok_or(Refusal::NoService)?;
                Ok(Destination::Service { peer, endpoints })
            }
        }
    }

    /// Reads a caller's wish on the egress side. The token is the peer's to open.
    pub(crate) fn egress(&self, hello: &ClientHello) -> Result<Arc<Egress>, Refusal> {
        match server_name(hello)? {
            Sni::Direct { .. } => Err(Refusal::BadName),
            Sni::Gateway { cluster, .. } | Sni::Control { cluster } => {
                self.egress.get(&cluster).cloned().ok_or(Refusal::OtherCluster)
            }
        }
    }

    /// Open connections per peer.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&ClusterName, usize, usize)> {
        self.peers.iter().map(|(name, peer)| (name, peer.open(), peer.limit.load(Ordering::Relaxed)))
    }
}

fn server_name(hello: &ClientHello) -> Result<Sni, Refusal> {
    let name = hello.server_name.as_deref().ok_or(Refusal::NoName)?;
    name.parse().map_err(|_| Refusal::BadName)
}

fn limit(key: &TokenKey) -> usize {
    usize::try_from(key.max_connections).unwrap_or(usize::MAX)
}

impl Peer {
    fn new(name: ClusterName) -> Self {
        Self { name, limit: AtomicUsize::new(0), open: AtomicUsize::new(0), revoked: watch::channel(false).0 }
    }

    /// Takes one of the connections that the peer may hold.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<PeerPermit, Refusal> {
        let limit = self.limit.load(Ordering::Relaxed);
        let entered =
            self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < limit).then_some(open + 1));
        entered.map(|_| PeerPermit(Arc::clone(self))).map_err(|_| Refusal::PeerLimit)
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until nothing is offered to the peer any more.
    pub(crate) async fn revoked(&self) {
        // The sender lives in `self`, so waiting cannot fail before it is true.
        let _ = self.revoked.subscribe().wait_for(|revoked| *revoked).await;
    }
}

impl PeerPermit {
    /// Whether nothing is offered to the peer any more.
    pub(crate) fn is_revoked(&self) -> bool {
        *self.0.revoked.borrow()
    }
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Egress {
    fn next(path: &Path, former: Option<&Egress>) -> Self {
        let gateways = path.gateways.iter().map(|gateway| {
            let kept = former.and_then(|f| f.gateways.iter().find(|g| g.replica.address == gateway.address));
            EgressGateway {
                name: gateway.name.clone(),
                weight: gateway.weight,
                draining: gateway.draining,
                replica: kept.map_or_else(|| Replica::new(gateway.address), |kept| Arc::clone(&kept.replica)),
            }
        });
        Self { cluster: path.cluster.clone(), gateways: gateways.collect() }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
