//! Between clusters: paths as callers see them, and what a gateway needs to know.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::{ClusterName, ServiceHost, TrustDomain};
use crate::policy::DEFAULT_LEASE;
use crate::resource::Resource;

/// How a peer cluster is reached, and how much of it is believed now. Resource name: the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// The peer.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its gateway replicas; each is probed and ejected by itself.
    #[serde(default)]
    pub gateways: Vec<PathGateway>,
    /// Whether this cluster's control plane holds a valid lease of the peer.
    pub lease: Lease,
    /// Length of the lease. Default 10 s.
    #[serde(default = "default_lease")]
    pub lease_duration: std::time::Duration,
}

fn default_lease() -> std::time::Duration {
    DEFAULT_LEASE
}

impl Resource for Path {
    const TYPE_URL: &'static str = "veer.dev/v1.Path";
}

/// One gateway replica on a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathGateway {
    /// Its name within the peer.
    pub name: Arc<str>,
    /// Where it is dialled.
    pub address: SocketAddr,
    /// Share among the replicas. Default 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// Gets no new connections.
    #[serde(default)]
    pub draining: bool,
}

fn one() -> u32 {
    1
}

/// What the control plane knows of a peer. A proxy joins it with its own proof of the data path:
/// *fresh*, or *silent* with proof: everything is kept; *silent* without proof: last resort only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lease {
    /// The peer's control plane answered within the lease.
    Fresh,
    /// It did not.
    Silent,
}

/// What a gateway needs. Resource name: the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayConfig {
    /// The gateway's own cluster.
    pub cluster: ClusterName,
    /// Port of workloads' proxies on which mutual TLS is mandatory.
    pub mesh_port: u16,
    /// Where this cluster's control plane takes peers' streams (SNI `control.<cluster>`).
    pub control: Vec<SocketAddr>,
    /// Keys that open tokens, by key id; a key belongs to one peer.
    #[serde(default)]
    pub keys: Vec<TokenKey>,
    /// Endpoints of offered services, for service tokens.
    #[serde(default)]
    pub services: Vec<GatewayService>,
    /// Peers that workloads of this cluster may reach through this gateway's egress side.
    #[serde(default)]
    pub egress: Vec<Path>,
    /// Counts the operator's orders to renew certificates now: a gateway that sees it grow renews at once.
    #[serde(default)]
    pub rotate: u64,
}

impl Resource for GatewayConfig {
    const TYPE_URL: &'static str = "veer.dev/v1.GatewayConfig";
}

/// A key for one peer and one epoch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey {
    /// Travels in clear at the front of a token.
    pub id: u32,
    /// Whose tokens it opens.
    pub peer: ClusterName,
    /// 32 bytes, base64 (standard alphabet, padded).
    pub secret: String,
    /// Connections at once that the peer may hold through one gateway. Default 10,000.
    #[serde(default = "default_peer_connections")]
    pub max_connections: u32,
}

fn default_peer_connections() -> u32 {
    10_000
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The present endpoints of an offered service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayService {
    /// Number inside service tokens.
    pub id: u32,
    /// The service.
    pub host: ServiceHost,
    /// Mesh addresses of its ready endpoints.
    pub endpoints: Vec<SocketAddr>,
}
