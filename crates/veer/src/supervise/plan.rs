//! Where everything of a fleet lies: folders, addresses, ports. One file per cluster (`cluster.json`) tells all its processes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use veer_core::{ClusterName, TrustDomain};

/// Control plane: xDS, enrolment and peering, all over TLS.
pub const XDS_PORT: u16 = 15010;
/// Control plane: read-only HTTP API.
pub const API_PORT: u16 = 15014;
/// Proxy: requests of the application, to be sent through the mesh.
pub const OUTBOUND_PORT: u16 = 15001;
/// Proxy and gateway: metrics, readiness, dump.
pub const ADMIN_PORT: u16 = 15020;
/// Gateway: connections of other clusters.
pub const GATEWAY_PORT: u16 = 15443;

/// One cluster, as its own processes and the tools see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterPlan {
    /// Name.
    pub name: ClusterName,
    /// Trust domain that its CA issues for.
    pub trust_domain: TrustDomain,
    /// `topology.kubernetes.io/region` of workloads that say nothing else.
    pub region: String,
    /// `topology.kubernetes.io/zone` of workloads that say nothing else.
    pub zone: String,
    /// Folders of manifests: the user's own, then the Links that the fleet file asks for.
    pub manifests: Vec<PathBuf>,
    /// Everything the cluster's processes keep.
    pub state: PathBuf,
    /// Where the control plane listens.
    pub control: IpAddr,
    /// Its gateways.
    pub gateways: Vec<GatewayPlan>,
    /// How long a peer's word is taken without hearing from it.
    pub lease: Duration,
    /// Life of a workload certificate.
    pub certificate_ttl: Duration,
    /// Linux network namespace of its processes; the fleet's own if absent.
    pub network_namespace: Option<String>,
}

/// One gateway replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayPlan {
    /// Name within the cluster.
    pub name: String,
    /// Where it listens.
    pub address: IpAddr,
}

impl ClusterPlan {
    /// Reads `cluster.json`.
    ///
    /// # Errors
    /// When the file cannot be read or is not one of ours.
    pub fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&std::fs::read(path)?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
    }

    /// The file that tells the cluster's processes.
    pub fn file(&self) -> PathBuf {
        self.state.join("cluster.json")
    }

    /// State of the control plane: CA, tokens, what peers offered.
    pub fn control_state(&self) -> PathBuf {
        self.state.join("control")
    }

    /// State of a proxy (`namespace.name`) or gateway: certificate, last configuration.
    pub fn process_state(&self, name: &str) -> PathBuf {
        self.state.join("processes").join(name)
    }

    /// Logs of all its processes.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Names of processes that must not be started.
    pub fn held(&self) -> PathBuf {
        self.state.join("held")
    }

    /// Links made from the fleet file.
    pub fn links(&self) -> PathBuf {
        self.state.join("links")
    }

    /// What runs now.
    pub fn run_file(&self) -> PathBuf {
        self.state.join("run.json")
    }

    /// xDS, enrolment, peering.
    pub fn xds(&self) -> SocketAddr {
        (self.control, XDS_PORT).into()
    }

    /// The read-only API.
    pub fn api(&self) -> SocketAddr {
        (self.control, API_PORT).into()
    }

    /// Makes the cluster's folders.
    ///
    /// # Errors
    /// When the state folder cannot be written to.
    pub fn make_folders(&self) -> io::Result<()> {
        for folder in [self.control_state(), self.logs(), self.held(), self.links(), self.state.join("processes")] {
            std::fs::create_dir_all(folder)?;
        }
        Ok(())
    }
}

/// The fleet as the tools find it (`fleet.json` in the state folder).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetPlan {
    /// Its clusters, in the order of the fleet file.
    pub clusters: Vec<ClusterPlan>,
}

impl FleetPlan {
    /// State folder of a fleet folder, unless the user chose another.
    pub fn default_state(fleet: &Path) -> PathBuf {
        fleet.join(".veer")
    }

    /// Reads the plan of a fleet that runs or ran.
    ///
    /// # Errors
    /// When there is none: the message says how to start one.
    pub fn read(state: &Path) -> io::Result<Self> {
        let path = state.join("fleet.json");
        let text = std::fs::read(&path).map_err(|error| {
            let hint =
                format!("{}: {error}; start the fleet with `veer run DIR`, or point --fleet at it", path.display());
            io::Error::new(error.kind(), hint)
        })?;
        serde_json::from_slice(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
    }

    /// The cluster of this name.
    pub fn cluster(&self, name: &str) -> Option<&ClusterPlan> {
        self.clusters.iter().find(|cluster| cluster.name.as_str() == name)
    }
}
