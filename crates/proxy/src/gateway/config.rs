//! What a gateway is told when it starts. Everything else it learns from the control plane.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use veer_core::ClusterName;
use veer_identity::JoinToken;
use veer_net::{ConnectOptions, Network};

use super::admission::ConnectionLimits;
use crate::config::Workers;
use crate::tcp::DEFAULT_IDLE;

/// Port for peers.
pub const PUBLIC_PORT: u16 = 15443;
/// Port for callers of this cluster that may not reach peers themselves; to be bound on an inside address only.
pub const EGRESS_PORT: u16 = 15444;

/// The start of a gateway.
#[derive(Debug, Clone)]
pub struct GatewayProcessConfig {
    /// Its name among the gateways of its cluster.
    pub name: String,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Addresses of the control plane (gRPC). Those of the join token are used too.
    pub control: Vec<SocketAddr>,
    /// How to get the first certificate. `None`: one was persisted.
    pub join: Option<JoinToken>,
    /// Where identity, trust and the last configuration are kept (mode 0600), so that a restart needs no control plane.
    /// `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// Where peers' callers come in.
    pub public: SocketAddr,
    /// Where this cluster's callers go out. Anybody who reaches it may call peers through it: an inside address.
    pub egress: Option<SocketAddr>,
    /// Metrics, readiness, dump.
    pub admin: Option<SocketAddr>,
    /// How the workers run.
    pub workers: Workers,
    /// Sockets.
    pub network: Network,
    /// Source address of connections to endpoints and peers. `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// Limits on connections, per door.
    pub limits: ConnectionLimits,
    /// Connections at once to the control plane: one or two per peer are normal, and anybody may open one.
    pub max_control_connections: usize,
    /// How long a ClientHello may take. Default 10 s.
    pub hello_time: Duration,
    /// How long connecting to one address may take. Default 700 ms: the caller waits 1 s for its handshake and shall hear the alert.
    pub dial_time: Duration,
    /// How long the callee may take to answer the hello. Default 10 s: callers give up long before.
    pub answer_time: Duration,
    /// How long a relayed connection may be silent. Default 1 h.
    pub idle: Duration,
}

impl GatewayProcessConfig {
    /// The defaults: one worker, all doors at `address`.
    pub fn new(name: &str, cluster: ClusterName, address: IpAddr) -> Self {
        Self {
            name: name.to_owned(),
            cluster,
            control: Vec::new(),
            join: None,
            state_dir: None,
            public: SocketAddr::new(address, PUBLIC_PORT),
            egress: Some(SocketAddr::new(address, EGRESS_PORT)),
            admin: Some(SocketAddr::new(address, crate::config::ADMIN_PORT)),
            workers: Workers::Threads(1),
            network: Network::Tcp,
            source: None,
            limits: ConnectionLimits::default(),
            max_control_connections: 256,
            hello_time: Duration::from_secs(10),
            dial_time: Duration::from_millis(700),
            answer_time: Duration::from_secs(10),
            idle: DEFAULT_IDLE,
        }
    }

    pub(super) fn connect_options(&self) -> ConnectOptions {
        ConnectOptions { source: self.source, mark: None }
    }
}
