//! What one cluster offers to one peer: travels between control planes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::endpoints::{Endpoint, ServiceToken};
use crate::gateway::PathGateway;
use crate::names::{ClusterName, ObjectName, TrustDomain};
use crate::resource::Resource;
use crate::route::{HttpRoute, TcpRoute};
use crate::service::AppProtocol;
use crate::written::Written;

/// One exported service as one peer may use it. Resource name: `namespace/name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The exported service.
    pub service: ObjectName,
    /// Its ports.
    pub ports: Vec<OfferPort>,
    /// Its endpoints, each with tokens for this peer.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Tokens for any endpoint.
    #[serde(default)]
    pub service_tokens: Vec<ServiceToken>,
    /// The owner's routes, which travel with the export.
    #[serde(default)]
    pub http_routes: Vec<HttpRoute>,
    /// The owner's TCPRoutes, likewise.
    #[serde(default)]
    pub tcp_routes: Vec<TcpRoute>,
    /// The owner's policies for the service; a consumer may narrow them.
    #[serde(default)]
    pub policy: Written,
}

impl Resource for Offer {
    const TYPE_URL: &'static str = "veer.dev/v1.Offer";
}

/// A port of an offered service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferPort {
    /// Number.
    pub port: u16,
    /// Name.
    #[serde(default)]
    pub name: Option<Arc<str>>,
    /// What is spoken on it.
    #[serde(default)]
    pub protocol: AppProtocol,
}

/// How the offering cluster is reached now. Resource name: the cluster. Anything outside what the consumer's Link allows is
/// refused there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerGateways {
    /// The offering cluster.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its gateway replicas.
    pub gateways: Vec<PathGateway>,
}

impl Resource for PeerGateways {
    const TYPE_URL: &'static str = "veer.dev/v1.PeerGateways";
}
