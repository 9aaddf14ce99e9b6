//! `fleet.yaml`: the clusters of a fleet and who peers with whom.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use veer_core::{ClusterName, TrustDomain};

use crate::decode::manifest;
use crate::types::ServicePattern;

manifest! {
    /// `spec` of a Fleet, the content of `fleet.yaml`.
    pub struct Fleet {
        /// The clusters.
        pub clusters: Vec<FleetCluster> = "clusters" => required,
        /// Who peers with whom.
        pub peering: Vec<FleetPeering> = "peering",
    }
    ignored []
}

impl Fleet {
    /// A cluster by name.
    pub fn cluster(&self, name: &str) -> Option<&FleetCluster> {
        self.clusters.iter().find(|cluster| cluster.name.as_str() == name)
    }
}

manifest! {
    /// A cluster of a fleet.
    pub struct FleetCluster {
        /// Its name.
        pub name: ClusterName = "name" => required,
        /// Its trust domain.
        pub trust_domain: TrustDomain = "trustDomain" => required,
        /// Region of its workloads.
        pub region: Arc<str> = "region",
        /// Zone of workloads that name none.
        pub zone: Arc<str> = "zone",
        /// Its network; clusters that name the same one reach each other's workloads directly. `None`: its own.
        pub network: Option<Arc<str>> = "network",
        /// Linux network namespace (as `ip netns` names it) that its processes run in; `None`: the fleet's own. Needs root.
        pub network_namespace: Option<Arc<str>> = "networkNamespace",
        /// Its folder of manifests, relative to `fleet.yaml`.
        pub manifests: Arc<str> = "manifests" => required,
        /// Its control plane.
        pub control: FleetControl = "control" => required,
        /// Its gateways.
        pub gateways: Vec<FleetGateway> = "gateways",
        /// How long peers take its word without hearing from it; `None`: the default.
        pub lease: Option<Duration> = "lease",
        /// Life of workload certificates; `None`: the default.
        pub certificate_ttl: Option<Duration> = "certificateTtl",
    }
    ignored []
}

manifest! {
    /// The control plane of a cluster.
    pub struct FleetControl {
        /// Its address.
        pub address: IpAddr = "address" => required,
    }
    ignored []
}

manifest! {
    /// A gateway of a cluster.
    pub struct FleetGateway {
        /// Its name.
        pub name: Arc<str> = "name" => required,
        /// Its address.
        pub address: IpAddr = "address" => required,
    }
    ignored []
}

manifest! {
    /// Two clusters that peer.
    pub struct FleetPeering {
        /// The two.
        pub between: Vec<ClusterName> = "between" => required,
        /// What each may provide to the other.
        pub provides: Vec<ServicePattern> = "provides" => or(vec![ServicePattern::ANY]),
    }
    ignored []
}
