//! What a workload's proxy needs to know about its own workload.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::{ClusterName, Locality, ObjectName, SpiffeId, TrustDomain};
use crate::policy::AuthorizationPolicy;
use crate::rate::RateLimit;
use crate::resource::Resource;
use crate::service::AppProtocol;

/// Port of a workload's proxy on which mutual TLS is mandatory in every mode. Gateways dial no other.
pub const MESH_PORT: u16 = 15008;

/// The callee's side of one workload. Resource name: the workload, `namespace/name`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inbound {
    /// The workload.
    pub workload: ObjectName,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its identity.
    pub identity: SpiffeId,
    /// Its address.
    pub address: IpAddr,
    /// Where it runs.
    #[serde(default)]
    pub locality: Locality,
    /// Port for mutual TLS.
    pub mesh_port: u16,
    /// Whether plaintext is taken on the application's ports.
    #[serde(default)]
    pub mtls: MtlsMode,
    /// Its ports. Connections to others are refused.
    #[serde(default)]
    pub ports: Vec<InboundPort>,
    /// Policies that select this workload.
    #[serde(default)]
    pub authorization: Vec<AuthorizationPolicy>,
    /// Foreign trust domains and the ports that were offered to them. A caller of a foreign trust domain that is not here is
    /// refused before any policy is asked.
    #[serde(default)]
    pub offered_to: Vec<OfferedTo>,
    /// Counts the operator's orders to renew certificates now (`veer rotate`): a proxy that sees it grow renews at once.
    #[serde(default)]
    pub rotate: u64,
}

impl Inbound {
    /// The port by its number.
    pub fn port(&self, port: u16) -> Option<&InboundPort> {
        self.ports.iter().find(|p| p.port == port)
    }

    /// Whether callers of the trust domain may come to the port: always for this cluster's own, else only when offered.
    pub fn admits(&self, caller: &TrustDomain, port: u16) -> bool {
        *caller == self.identity.trust_domain
            || self.offered_to.iter().any(|o| o.trust_domain == *caller && o.ports.contains(&port))
    }
}

impl Inbound {
    /// Whether callers of the trust domain may ask the port with safe methods only. Never for this cluster's own.
    pub fn safe_only(&self, caller: &TrustDomain, port: u16) -> bool {
        *caller != self.identity.trust_domain
            && self.offered_to.iter().any(|o| o.trust_domain == *caller && o.safe_only.contains(&port))
    }
}

impl Resource for Inbound {
    const TYPE_URL: &'static str = "veer.dev/v1.Inbound";
}

/// Whether plaintext is accepted beside mutual TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MtlsMode {
    /// Plaintext is accepted on the application's ports.
    #[default]
    Permissive,
    /// Only mutual TLS.
    Strict,
}

/// A port of the workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundPort {
    /// Number as the rest of the mesh knows it (`targetPort`).
    pub port: u16,
    /// Where the application listens.
    pub app: SocketAddr,
    /// What it speaks.
    #[serde(default)]
    pub protocol: AppProtocol,
    /// Name of a service that selects the workload on this port, for metrics; the first by name.
    #[serde(default)]
    pub service: Option<Arc<str>>,
    /// Requests at once that the workload declares to bear. `None`: nobody said.
    #[serde(default)]
    pub capacity: Option<u32>,
    /// Limits on requests, all of which act.
    #[serde(default)]
    pub limits: Vec<RateLimit>,
}

/// What a foreign trust domain may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedTo {
    /// The peer's trust domain.
    pub trust_domain: TrustDomain,
    /// The peer's cluster, for metrics; absent from older control planes.
    #[serde(default)]
    pub cluster: Option<ClusterName>,
    /// Ports of this workload.
    pub ports: Vec<u16>,
    /// Those of them that take safe methods only (GET, HEAD, OPTIONS), and neither byte streams nor changes of the protocol.
    #[serde(default)]
    pub safe_only: Vec<u16>,
}

/// A trust domain's roots. Resource name: the trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustBundle {
    /// The trust domain; the roots are believed for it and no other.
    pub trust_domain: TrustDomain,
    /// Root certificates, PEM, concatenated.
    pub roots_pem: String,
}

impl Resource for TrustBundle {
    const TYPE_URL: &'static str = "veer.dev/v1.TrustBundle";
}
