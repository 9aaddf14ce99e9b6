//! Workload and Link.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use veer_core::policy::DEFAULT_LEASE;
use veer_core::{AppProtocol, Cidr, Locality, TrustDomain};

use crate::decode::{manifest, open_enum};
use crate::types::PortRef;

/// Port on which gateways take connections from other clusters, when an address names none.
pub const GATEWAY_PORT: u16 = 15443;

manifest! {
    /// `spec` of a Workload: one process, in or outside Kubernetes. Its labels select it into Services.
    pub struct WorkloadSpec {
        /// Its address.
        pub address: IpAddr = "address" => required,
        /// Its service account, which is its identity within the namespace.
        pub service_account: Arc<str> = "serviceAccount" => or("default".into()),
        /// Where it runs.
        pub locality: Locality = "locality",
        /// Its ports.
        pub ports: Vec<WorkloadPort> = "ports",
        /// Requests at once that it declares to bear.
        pub capacity: Option<u32> = "capacity",
        /// `false`: gets nothing new.
        pub ready: bool = "ready" => or(true),
        /// 1, or 0 for a workload that is declared and down.
        pub replicas: u32 = "replicas" => or(1),
        /// How Veer starts it; `None`: someone else does.
        pub run: Option<RunSpec> = "run",
    }
    ignored []
}

impl WorkloadSpec {
    /// Whether it is meant to run.
    pub fn is_up(&self) -> bool {
        self.replicas > 0
    }

    /// The port that a Service's `targetPort` leads to.
    pub fn port(&self, target: &PortRef) -> Option<&WorkloadPort> {
        self.ports.iter().find(|port| match target {
            PortRef::Number(number) => port.port == *number,
            PortRef::Name(name) => port.name.as_ref() == Some(name),
        })
    }
}

manifest! {
    /// A port of a Workload.
    #[derive(Default)]
    pub struct WorkloadPort {
        /// Name, which a Service's `targetPort` may use.
        pub name: Option<Arc<str>> = "name",
        /// Number as the mesh knows it.
        pub port: u16 = "port" => required,
        /// Where the application listens, when that is another number: then the proxy listens on [`Self::port`] itself.
        pub app_port: Option<u16> = "appPort",
        /// What is spoken on it.
        pub app_protocol: Option<Arc<str>> = "appProtocol",
    }
    ignored []
}

impl WorkloadPort {
    /// What is spoken on it, by `appProtocol`, else by its name.
    pub fn app(&self) -> AppProtocol {
        AppProtocol::from_kubernetes(self.app_protocol.as_deref(), self.name.as_deref()).0
    }

    /// Where the application listens.
    pub fn app_port(&self) -> u16 {
        self.app_port.unwrap_or(self.port)
    }
}

manifest! {
    /// How Veer starts a workload.
    #[derive(Default)]
    pub struct RunSpec {
        /// Program and arguments; `$(NAME)` stands for a variable of the environment.
        pub command: Vec<Arc<str>> = "command" => required,
        /// Added to the environment.
        pub env: Vec<EnvVar> = "env",
        /// Directory to start it in; relative to the folder of manifests.
        pub working_dir: Option<Arc<str>> = "workingDir",
        /// When it is started again.
        pub restart_policy: RestartPolicy = "restartPolicy",
    }
    ignored []
}

manifest! {
    /// A variable of the environment.
    #[derive(Default)]
    pub struct EnvVar {
        /// Its name.
        pub name: Arc<str> = "name" => required,
        /// Its value.
        pub value: Arc<str> = "value",
    }
    ignored []
}

open_enum! {
    /// When a process is started again, in the words of a Pod.
    pub enum RestartPolicy {
        /// Whenever it ends.
        Always = "Always",
        /// When it ends with a failure.
        OnFailure = "OnFailure",
        /// Never.
        Never = "Never",
    }
    default Always
}

manifest! {
    /// `spec` of a Link: all that is pinned about one peer. The name of the Link is the name of the peer's cluster.
    pub struct LinkSpec {
        /// The peer's trust domain.
        pub trust_domain: TrustDomain = "trustDomain" => required,
        /// Its roots, PEM.
        pub bundle: Arc<str> = "bundle" => required,
        /// Its gateways.
        pub gateways: Vec<LinkGateway> = "gateways",
        /// Addresses that it may hand out; empty: exactly those of [`Self::gateways`].
        pub addresses: Vec<Cidr> = "addresses",
        /// What it may provide; empty: nothing.
        pub provides: Vec<ServicePattern> = "provides",
        /// How long its word is taken without hearing from it.
        pub lease: Duration = "lease" => or(DEFAULT_LEASE),
        /// How its workloads are reached.
        pub network: LinkNetwork = "network",
    }
    ignored []
}

impl LinkSpec {
    /// Whether the peer may provide the service.
    pub fn provides(&self, namespace: &str, name: &str) -> bool {
        self.provides.iter().any(|pattern| pattern.matches(namespace, name))
    }

    /// Whether the peer may hand out the address.
    pub fn allows(&self, address: IpAddr) -> bool {
        if self.addresses.is_empty() {
            self.gateways.iter().any(|gateway| gateway.address.0.ip() == address)
        } else {
            self.addresses.iter().any(|range| range.contains(address))
        }
    }
}

manifest! {
    /// A gateway of a peer.
    pub struct LinkGateway {
        /// Its name within the peer.
        pub name: Arc<str> = "name" => required,
        /// Where it is dialled.
        pub address: GatewayAddress = "address" => required,
        /// Share among the gateways.
        pub weight: u32 = "weight" => or(1),
        /// Gets no new connections.
        pub draining: bool = "draining",
    }
    ignored []
}

/// `address` or `address:port` of a gateway; [`GATEWAY_PORT`] when no port is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GatewayAddress(pub SocketAddr);

open_enum! {
    /// How a peer's workloads are reached.
    pub enum LinkNetwork {
        /// Only through its gateways.
        Gateway = "gateway",
        /// Directly: both clusters are on one flat network.
        Flat = "flat",
    }
    default Gateway
}

/// `namespace/name` of a service, where `*` in either place stands for any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServicePattern {
    /// Namespace; `None`: any.
    pub namespace: Option<Arc<str>>,
    /// Name; `None`: any.
    pub name: Option<Arc<str>>,
}

impl ServicePattern {
    /// Matches every service.
    pub const ANY: ServicePattern = ServicePattern { namespace: None, name: None };

    /// Whether the service is meant.
    pub fn matches(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == namespace) && self.name.as_deref().is_none_or(|n| n == name)
    }
}

impl std::fmt::Display for ServicePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |part: &Option<Arc<str>>| part.clone().unwrap_or_else(|| "*".into());
        write!(f, "{}/{}", part(&self.namespace), part(&self.name))
    }
}
