//! What comes out: the meaning of a cluster's manifests, as resources for its proxies and gateways and offers to its peers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use veer_core::inbound::TrustBundle;
use veer_core::{
    ClusterName, Endpoints, GatewayConfig, Inbound, Ingress, ObjectName, Offer, Path, Service, ServiceHost, TrustDomain,
};
use veer_resources::{Diagnostic, KindName};

use crate::status::Status;

/// What the objects and the peers' offers mean. Two compilations of one [`Compiler`](crate::Compiler) share every part that
/// did not change: the same `Arc`.
#[derive(Debug, Clone, PartialEq)]
pub struct Meaning {
    /// Services by the names that callers use: the host, and each virtual address as text.
    pub services: BTreeMap<String, Arc<Service>>,
    /// Endpoints by host; every service has them, if only an empty list.
    pub endpoints: BTreeMap<ServiceHost, Arc<Endpoints>>,
    /// The callee's side of every workload.
    pub inbound: BTreeMap<ObjectName, Arc<Inbound>>,
    /// What each Gateway's proxy serves, by the proxy's name; private keys among it.
    pub ingress: BTreeMap<ObjectName, Arc<Ingress>>,
    /// Status of every object that Veer writes one for.
    pub statuses: BTreeMap<(KindName, ObjectName), Arc<Status>>,
    /// How each peer is reached.
    pub paths: BTreeMap<ClusterName, Arc<Path>>,
    /// Roots of this cluster and of each peer.
    pub bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
    /// For this cluster's gateways.
    pub gateway: Arc<GatewayConfig>,
    /// What each peer is offered, by service; every linked peer has a list, if only an empty one.
    pub offers: BTreeMap<ClusterName, Vec<Arc<Offer>>>,
    /// What peers said that is not believed.
    pub refused: Vec<Refused>,
    /// What is wrong with the manifests, by place.
    pub faults: Vec<Diagnostic>,
}

/// Something a peer said that its Link does not permit, or that no honest peer would say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refused {
    /// The peer.
    pub cluster: ClusterName,
    /// The offered service; `None`: something about the peer itself.
    pub service: Option<ObjectName>,
    /// Why.
    pub reason: String,
}

impl Refused {
    pub(crate) fn whole(cluster: ClusterName, reason: String) -> Self {
        Self { cluster, service: None, reason }
    }
}
