//! What a proxy is told when it starts. Everything else it learns from the control plane.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use veer_core::ObjectName;
use veer_core::inbound::MESH_PORT;
use veer_identity::JoinToken;
use veer_net::{ConnectOptions, Network};

/// Port of the explicit outbound listener.
pub const OUTBOUND_PORT: u16 = 15001;
/// Port of the admin server.
pub const ADMIN_PORT: u16 = 15020;

/// The start of a proxy.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// The workload beside which it stands.
    pub workload: ObjectName,
    /// Addresses of the control plane (gRPC). Those of the join token are used too.
    pub control: Vec<SocketAddr>,
    /// How to get the first certificate. `None`: one was persisted.
    pub join: Option<JoinToken>,
    /// Where identity, trust and the last configuration are kept, so that a restart needs no control plane. `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// Address of the workload, where inbound listeners bind. `None`: as the control plane says.
    pub address: Option<IpAddr>,
    /// Where the application sends requests to.
    pub outbound: Option<SocketAddr>,
    /// Where other proxies connect to. `None`: the workload's address and the mesh port that the control plane says.
    pub mesh: Option<SocketAddr>,
    /// It stands for a Gateway, not beside a workload: it serves the Gateway's listeners, and has none of its own.
    pub ingress: bool,
    /// Metrics, readiness, dump.
    pub admin: Option<SocketAddr>,
    /// Transparent capture, where packet-filter rules lead connections to the proxy.
    pub capture: Option<Capture>,
    /// How the workers run.
    pub workers: Workers,
    /// Sockets.
    pub network: Network,
    /// Mark of the proxy's own connections (`SO_MARK`), by which packet-filter rules let them pass.
    pub mark: Option<u32>,
    /// Access log: one JSON line per request to standard output.
    pub access_log: bool,
    /// How long requests wait for the control plane's first word on a service.
    pub knowledge_wait: Duration,
    /// Connections at once per listener and worker.
    pub max_connections: usize,
}

/// Ports that packet-filter rules lead captured connections to.
#[derive(Debug, Clone, Copy)]
pub struct Capture {
    /// What the application opens.
    pub outbound: SocketAddr,
    /// What others open to the application.
    pub inbound: SocketAddr,
    /// Whether the rules lead by TPROXY (which needs `IP_TRANSPARENT`) and not by REDIRECT.
    pub transparent: bool,
}

/// How the workers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// So many threads, each with a runtime and accept queues of its own.
    Threads(usize),
    /// As tasks of the caller's [`tokio::task::LocalSet`]: simulations and tests.
    Local,
}

impl ProxyConfig {
    /// The defaults for a workload: one worker, listeners on the loopback addresses that the contract names.
    pub fn new(workload: ObjectName, address: IpAddr) -> Self {
        Self {
            workload,
            control: Vec::new(),
            join: None,
            state_dir: None,
            address: Some(address),
            outbound: Some(SocketAddr::new(address, OUTBOUND_PORT)),
            mesh: Some(SocketAddr::new(address, MESH_PORT)),
            ingress: false,
            admin: Some(SocketAddr::new(address, ADMIN_PORT)),
            capture: None,
            workers: Workers::Threads(1),
            network: Network::Tcp,
            mark: None,
            access_log: false,
            knowledge_wait: Duration::from_secs(1),
            max_connections: 10_000,
        }
    }

    /// Source and mark of the proxy's own connections. Elsewhere the kernel's routes know better which address leads out of the
    /// machine (it may have one inside and one outside); on loopback they lead everywhere, and only the workload's own address tells
    /// processes apart.
    pub(crate) fn connect_options(&self) -> ConnectOptions {
        let source = self.address.filter(|address| self.network == Network::Tcp && address.is_loopback());
        ConnectOptions { source, mark: self.mark }
    }
}
