//! What a control plane is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use veer_core::gateway::PathGateway;
use veer_core::inbound::MESH_PORT;
use veer_core::policy::DEFAULT_LEASE;
use veer_core::{ClusterName, Locality, TrustDomain};
use veer_net::Network;

/// Port for xDS, joining and peering.
pub const XDS_PORT: u16 = 15010;
/// Port of the HTTP API.
pub const API_PORT: u16 = 15014;
/// Lifetime of certificates; they are renewed at half. The published autonomy of a proxy without its control plane.
pub const DEFAULT_CERTIFICATE_TTL: Duration = Duration::from_secs(24 * 3600);
/// Silence after which what a peer said is no longer used.
pub const DEFAULT_GONE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Shortest lease: below, the pings would be the load, and a stall of a busy machine an outage.
pub const MIN_LEASE: Duration = Duration::from_millis(500);
/// Shortest life of a certificate that renewal keeps up with.
pub const MIN_CERTIFICATE_TTL: Duration = Duration::from_secs(10);

/// The configuration of one cluster's control plane.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Its own trust domain.
    pub trust_domain: TrustDomain,
    /// Region (and zone) where it runs.
    pub locality: Locality,
    /// Folders of manifests.
    pub manifests: Vec<PathBuf>,
    /// Folder for the CA, keys and what must survive a restart.
    pub state_dir: PathBuf,
    /// Where proxies, gateways and (through gateways) peers connect: gRPC over mutual TLS. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Addresses that join tokens name and gateways relay peers to; empty: the address that [`Self::listen`] turned out to be.
    pub advertise: Vec<SocketAddr>,
    /// The HTTP API: plain and read-only. Port 0 takes a free one.
    pub api: SocketAddr,
    /// The cluster's gateways, as peers may dial them.
    pub gateways: Vec<PathGateway>,
    /// Port of workloads' proxies on which mutual TLS is mandatory.
    pub mesh_port: u16,
    /// Lease of peers whose Link sets none.
    pub lease: Duration,
    /// Life of the certificates issued.
    pub certificate_ttl: Duration,
    /// Silence after which what a peer said is no longer used.
    pub gone_after: Duration,
    /// Real sockets or the simulation's.
    pub network: Network,
    /// Seed for jitter (never for secrets).
    pub seed: u64,
}

impl ControlConfig {
    /// A configuration with the defaults, listening on `listen` and, on the same address, [`API_PORT`].
    pub fn new(cluster: ClusterName, trust_domain: TrustDomain, state_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            cluster,
            trust_domain,
            locality: Locality::default(),
            manifests: Vec::new(),
            state_dir,
            listen,
            advertise: Vec::new(),
            api: SocketAddr::new(listen.ip(), API_PORT),
            gateways: Vec::new(),
            mesh_port: MESH_PORT,
            lease: DEFAULT_LEASE,
            certificate_ttl: DEFAULT_CERTIFICATE_TTL,
            gone_after: DEFAULT_GONE_AFTER,
            network: Network::Tcp,
            seed: 0,
        }
    }

    /// Every fault of the configuration at once, each with its key; empty when it is sound.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.lease < MIN_LEASE {
            faults.push(format!("lease: {:?} is shorter than {MIN_LEASE:?}", self.lease));
        }
        if self.certificate_ttl < MIN_CERTIFICATE_TTL {
            faults.push(format!("certificateTtl: {:?} is shorter than {MIN_CERTIFICATE_TTL:?}", self.certificate_ttl));
        }
        if self.gone_after < self.lease {
            faults.push(format!("goneAfter: {:?} is shorter than the lease {:?}", self.gone_after, self.lease));
        }
        if self.manifests.is_empty() {
            faults.push("manifests: names no folder; a cluster without manifests means nothing".to_owned());
        }
        if self.mesh_port == 0 {
            faults.push("meshPort: must not be 0".to_owned());
        }
        let mut names: Vec<&Arc<str>> = self.gateways.iter().map(|gateway| &gateway.name).collect();
        names.sort();
        for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
            faults.push(format!("gateways: the name {:?} is there twice", pair[0]));
        }
        faults
    }
}
