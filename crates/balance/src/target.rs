//! What can be picked, and how it is dialled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;
use veer_core::endpoints::{Endpoint, Reach, ServiceToken};
use veer_core::names::{ClusterName, ObjectName, SpiffeId};

use crate::clock::Epoch;
use crate::cluster::ClusterHealth;
use crate::stats::Stats;

/// Tells endpoints apart, over all clusters and also through address ranges that overlap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct EndpointKey {
    /// Its address within its own network.
    pub address: IpAddr,
    /// The workload; name `*` when a gateway picks.
    pub workload: ObjectName,
    /// Its cluster.
    pub cluster: ClusterName,
}

impl EndpointKey {
    /// A number that stands for it in tokens of sessions: the same in every process and version, and not the address itself.
    pub fn id(&self) -> u64 {
        veer_core::names::stable_hash(&format!("{}/{}/{}", self.cluster, self.workload, self.address))
    }
}

/// One endpoint, or a cluster's gateway that picks one.
#[derive(Debug)]
pub struct Target {
    /// Which one.
    pub key: EndpointKey,
    /// [`EndpointKey::id`].
    pub id: u64,
    /// How it is reached.
    pub reach: Reach,
    pub(crate) kind: Kind,
    pub(crate) stats: Arc<Stats>,
    pub(crate) health: Arc<ClusterHealth>,
    pub(crate) epoch: Epoch,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Kind {
    Endpoint(Endpoint),
    /// By service token: for when endpoint tokens have gone stale in silence.
    AnyOf(Vec<ServiceToken>),
}

/// How a service port of a target is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dial<'a> {
    /// Plaintext to a workload of this cluster that is not in the mesh.
    Plain {
        /// The workload's port.
        address: SocketAddr,
    },
    /// Mutual TLS straight to the workload's proxy (SNI `p<port>.<cluster>`).
    Mesh {
        /// The proxy's mesh port.
        address: SocketAddr,
        /// The workload's port.
        target_port: u16,
        /// The workload's cluster.
        cluster: &'a ClusterName,
        /// Exactly who may answer.
        identities: &'a [SpiffeId],
    },
    /// Mutual TLS to the workload's proxy through a gateway of its cluster (SNI `<token>.p<port>.<cluster>`); which replica is
    /// [`PathBalance`](crate::PathBalance)'s choice.
    Gateway {
        /// The peer.
        cluster: &'a ClusterName,
        /// What the gateway needs.
        token: &'a Arc<str>,
        /// The workload's port.
        target_port: u16,
        /// Exactly who may answer.
        identities: &'a [SpiffeId],
    },
}

impl Target {
    /// The endpoint; `None` when the gateway picks one.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &self.kind {
            Kind::Endpoint(endpoint) => Some(endpoint),
            Kind::AnyOf(_) => None,
        }
    }

    /// The cluster as a whole: for proofs of the data path and its round trip.
    pub fn cluster_health(&self) -> &Arc<ClusterHealth> {
        &self.health
    }

    /// Requests of this process in flight to it.
    pub fn in_flight(&self) -> u32 {
        self.stats.in_flight.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// How the service port is dialled. `None` when the target does not have the port, or could only be reached across clusters
    /// without mutual TLS, which never happens.
    pub fn dial(&self, service_port: u16) -> Option<Dial<'_>> {
        let cluster = &self.key.cluster;
        match &self.kind {
            Kind::AnyOf(tokens) => {
                let token = tokens.iter().find(|t| t.service_port == service_port)?;
                let ServiceToken { token, target_port, identities, .. } = token;
                Some(Dial::Gateway { cluster, token, target_port: *target_port, identities })
            }
            Kind::Endpoint(endpoint) => {
                let port = endpoint.port(service_port)?;
                let identities =
                    endpoint.identity.as_ref().map(std::slice::from_ref).filter(|_| endpoint.mesh_port != 0);
                let (target_port, token) = (port.target_port, &port.token);
                match (self.reach, identities) {
                    (Reach::Gateway, Some(identities)) if !token.is_empty() => {
                        Some(Dial::Gateway { cluster, token, target_port, identities })
                    }
                    (Reach::Local | Reach::Flat, Some(identities)) => {
                        let address = SocketAddr::new(endpoint.address, endpoint.mesh_port);
                        Some(Dial::Mesh { address, target_port, cluster, identities })
                    }
                    (Reach::Local, None) => {
                        Some(Dial::Plain { address: SocketAddr::new(endpoint.address, target_port) })
                    }
                    (Reach::Gateway, _) | (Reach::Flat, None) => None,
                }
            }
        }
    }

    /// Takes the utilisation that the endpoint reported with an answer (ORCA `application_utilization`; 1.0 is full).
    pub fn report_load(&self, utilisation: f64, now: Instant) {
        self.stats.observe_load(utilisation, self.epoch.at(now));
    }
}
