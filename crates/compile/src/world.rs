//! What goes in: everything that the meaning of a cluster depends on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use veer_core::gateway::{Lease, TokenKey};
use veer_core::inbound::TrustBundle;
use veer_core::offer::PeerGateways;
use veer_core::{ClusterName, Locality, Offer, TrustDomain};
use veer_resources::Object;

/// Everything that [`compile`](crate::compile) looks at. The order of objects and peers does not matter.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// This cluster.
    pub cluster: &'a ClusterConfig,
    /// Its manifests.
    pub objects: &'a [Object],
    /// What is known of each peer; a peer without a `Link` is not believed.
    pub peers: &'a [PeerView],
    /// Makes the tokens that offers carry.
    pub sealer: &'a dyn TokenSealer,
}

/// What a cluster knows about itself beside its manifests.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// Its name; no Link may claim it.
    pub name: ClusterName,
    /// Its trust domain; no Link may claim it.
    pub trust_domain: TrustDomain,
    /// Where a workload runs that does not say it.
    pub locality: Locality,
    /// Port of workloads' proxies on which mutual TLS is always on ([`veer_core::inbound::MESH_PORT`]).
    pub mesh_port: u16,
    /// Where the control plane takes peers' streams; for the gateways.
    pub control: Vec<SocketAddr>,
    /// Keys that open tokens; for the gateways.
    pub keys: Vec<TokenKey>,
    /// The cluster's own roots.
    pub bundle: TrustBundle,
    /// Counts the operator's orders to renew certificates now; handed on to proxies and gateways.
    pub rotate: u64,
}

/// What is known of one peer now.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerView {
    /// The peer: the name of its `Link`.
    pub cluster: ClusterName,
    /// Whether it was heard within the lease.
    pub lease: Lease,
    /// The gateways it states, when it has said so.
    pub gateways: Option<PeerGateways>,
    /// What it offers, as last stated; silence does not empty this list.
    pub offers: Vec<Arc<Offer>>,
}

/// Makes the tokens that let a peer's callers through this cluster's gateways (see [`veer_core::sni`]).
///
/// The same question must get the same answer as long as [`TokenSealer::epoch`] does not change: what was compiled is kept.
pub trait TokenSealer {
    /// A number that changes whenever the tokens for the peer would (a new key).
    fn epoch(&self, peer: &ClusterName) -> u64;
    /// A token that leads to one workload's port. `None`: there is no key for the peer, which then gets no token.
    fn endpoint(&self, peer: &ClusterName, address: IpAddr, port: u16) -> Option<Arc<str>>;
    /// A token that leads to any workload of the offered service (its number in
    /// [`GatewayService`](veer_core::gateway::GatewayService)), at the workloads' port.
    fn service(&self, peer: &ClusterName, service: u32, port: u16) -> Option<Arc<str>>;
}
