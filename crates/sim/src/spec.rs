//! What a fleet consists of.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The clusters of a fleet, and how its simulation runs.
#[derive(Debug, Clone)]
pub struct FleetSpec {
    /// All chance follows from it.
    pub seed: u64,
    /// Resolution of the network: a message takes at least one tick. Shorter is more exact and costs more.
    pub tick: Duration,
    /// How often callers' proxies are looked at.
    pub look: Duration,
    /// Lease between all clusters.
    pub lease: Duration,
    /// Life of certificates.
    pub certificate_ttl: Duration,
    /// In the order of their addresses.
    pub clusters: Vec<ClusterSpec>,
}

/// A cluster, peer of all others.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Its name; its trust domain is `<name>.example`.
    pub name: String,
    /// Number of gateways, named `gateway-1` and so on.
    pub gateways: u8,
    /// In the order of their addresses.
    pub workloads: Vec<WorkloadSpec>,
}

/// A workload with its proxy.
#[derive(Debug, Clone)]
pub struct WorkloadSpec {
    /// Its name, in namespace `shop`.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Whether it is there from the start; else its manifest is written, and its host runs, when the test says so.
    pub present: bool,
}

/// What a workload is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A copy of the service of this name: answers every request and says who it is and who asked.
    Copy(String),
    /// Sends requests to the service of this name, in any cluster, when the test tells it to.
    Caller(String),
}

impl FleetSpec {
    /// A fleet without clusters.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            tick: Duration::from_millis(5),
            look: Duration::from_millis(500),
            lease: Duration::from_secs(10),
            certificate_ttl: Duration::from_secs(24 * 3600),
            clusters: Vec::new(),
        }
    }

    /// Adds a cluster.
    #[must_use]
    pub fn with(mut self, cluster: ClusterSpec) -> Self {
        self.clusters.push(cluster);
        self
    }
}

impl ClusterSpec {
    /// A cluster with one gateway and no workloads.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), gateways: 1, workloads: Vec::new() }
    }

    /// With so many gateways.
    #[must_use]
    pub fn gateways(mut self, gateways: u8) -> Self {
        self.gateways = gateways;
        self
    }

    /// With these copies of a service.
    #[must_use]
    pub fn copies<const N: usize>(self, service: &str, names: [&str; N]) -> Self {
        names.into_iter().fold(self, |cluster, name| cluster.workload(name, Role::Copy(service.to_owned()), true))
    }

    /// With these copies of a service, which are not there yet.
    #[must_use]
    pub fn later<const N: usize>(self, service: &str, names: [&str; N]) -> Self {
        names.into_iter().fold(self, |cluster, name| cluster.workload(name, Role::Copy(service.to_owned()), false))
    }

    /// With a caller of a service.
    #[must_use]
    pub fn caller(self, name: &str, service: &str) -> Self {
        self.workload(name, Role::Caller(service.to_owned()), true)
    }

    fn workload(mut self, name: &str, role: Role, present: bool) -> Self {
        self.workloads.push(WorkloadSpec { name: name.to_owned(), role, present });
        self
    }

    /// The services of which it has, or will have, copies.
    pub(crate) fn services(&self) -> Vec<&str> {
        let copies = self.workloads.iter().filter_map(|workload| match &workload.role {
            Role::Copy(service) => Some(service.as_str()),
            Role::Caller(_) => None,
        });
        let mut services: Vec<_> = copies.collect();
        services.dedup();
        services
    }
}

/// First octet group of a cluster's gateways and workloads.
const FIRST_GATEWAY: u8 = 2;
const FIRST_WORKLOAD: u8 = 11;

/// Address of the control plane of the cluster with this index.
pub(crate) fn control_address(cluster: usize) -> IpAddr {
    address(cluster, 1)
}

/// Address of a gateway.
pub(crate) fn gateway_address(cluster: usize, gateway: u8) -> IpAddr {
    address(cluster, FIRST_GATEWAY + gateway)
}

/// Address of a workload.
pub(crate) fn workload_address(cluster: usize, workload: usize) -> IpAddr {
    address(cluster, FIRST_WORKLOAD + u8::try_from(workload).expect("few workloads"))
}

fn address(cluster: usize, host: u8) -> IpAddr {
    let cluster = u8::try_from(cluster + 1).expect("few clusters");
    Ipv4Addr::new(10, cluster, 0, host).into()
}
