//! Who can serve: the endpoints of a service, cluster by cluster, and how each cluster is reached.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backend_tls::BackendTls;
use crate::names::{ClusterName, Locality, ObjectName, ServiceHost, SpiffeId};
use crate::policy::TrafficPolicy;
use crate::resource::Resource;

/// Every endpoint of a service that this cluster knows of. Resource name: the service's host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The service.
    pub host: ServiceHost,
    /// How it is balanced and protected.
    #[serde(default)]
    pub policy: TrafficPolicy,
    /// This cluster first, then peers by name.
    #[serde(default)]
    pub clusters: Vec<ClusterEndpoints>,
    /// TLS toward those of them that are not in the mesh, by port of the service; other ports are spoken to in clear text.
    #[serde(default)]
    pub tls: Vec<Arc<BackendTls>>,
    /// A name outside of all clusters that the proxy resolves for each new connection: it stands in place of the address of the only
    /// endpoint. `None`: endpoints have addresses.
    #[serde(default)]
    pub external: Option<Arc<str>>,
}

impl Resource for Endpoints {
    const TYPE_URL: &'static str = "veer.dev/v1.Endpoints";
}

/// The copies of a service in one cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterEndpoints {
    /// The cluster; also the name of its [`Path`](crate::Path) when it is reached by gateway.
    pub cluster: ClusterName,
    /// How its endpoints are dialled.
    pub reach: Reach,
    /// The endpoints; may be empty.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// One token per service port that lets the cluster's gateway pick an endpoint itself: for when endpoint tokens have
    /// gone stale in silence. Empty where endpoints are dialled directly.
    #[serde(default)]
    pub service_tokens: Vec<ServiceToken>,
}

/// How the endpoints of a cluster are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// This very cluster.
    Local,
    /// Another cluster on the same flat network.
    Flat,
    /// Only through that cluster's gateways.
    Gateway,
}

/// One copy of a service: one workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The workload, unique within its cluster.
    pub workload: ObjectName,
    /// Its address within its own network. Through a gateway it only tells endpoints apart.
    pub address: IpAddr,
    /// Its ports, one per service port.
    pub ports: Vec<EndpointPort>,
    /// Who answers there, when it is in the mesh; the caller verifies exactly this identity. `None`: plaintext, local only.
    #[serde(default)]
    pub identity: Option<SpiffeId>,
    /// Port on which mutual TLS is always on; 0 when not in the mesh.
    #[serde(default)]
    pub mesh_port: u16,
    /// Where it runs.
    #[serde(default)]
    pub locality: Locality,
    /// `false`: gets nothing new, keeps what it has (EndpointSlice `serving`/`terminating`).
    #[serde(default = "yes")]
    pub ready: bool,
    /// Requests at once that it declares to bear (`veer.dev/capacity`), for spill-over by load. `None`: nobody said.
    #[serde(default)]
    pub capacity: Option<u32>,
}

fn yes() -> bool {
    true
}

impl Endpoint {
    /// Where the service port leads on this endpoint.
    pub fn port(&self, service_port: u16) -> Option<&EndpointPort> {
        self.ports.iter().find(|p| p.service_port == service_port)
    }
}

/// Where a service port leads on an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPort {
    /// Port of the service.
    pub service_port: u16,
    /// Port of the workload.
    pub target_port: u16,
    /// What a gateway needs to lead there (see [`crate::sni`]); empty where the endpoint is dialled directly.
    #[serde(default)]
    pub token: Arc<str>,
}

/// A token for any endpoint of a service (see [`ClusterEndpoints::service_tokens`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceToken {
    /// Port of the service.
    pub service_port: u16,
    /// Port of the workloads.
    pub target_port: u16,
    /// The token.
    pub token: Arc<str>,
    /// Every identity that may answer.
    pub identities: Vec<SpiffeId>,
}
