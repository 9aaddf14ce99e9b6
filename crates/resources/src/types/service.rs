//! Service, EndpointSlice, ServiceExport, ServiceImport.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use veer_core::AppProtocol;

use crate::decode::{manifest, open_enum};
use crate::types::Labels;

manifest! {
    /// `spec` of a Service.
    #[derive(Default)]
    pub struct ServiceSpec {
        /// Labels of the workloads that serve it; empty: EndpointSlices say who does.
        pub selector: Labels = "selector",
        /// Its ports.
        pub ports: Vec<ServicePort> = "ports",
        /// What it is.
        pub service_type: ServiceType = "type",
        /// First virtual address, `None` (as text) for a headless service, or empty.
        pub cluster_ip: Option<Arc<str>> = "clusterIP",
        /// All virtual addresses; the first equals [`Self::cluster_ip`].
        pub cluster_ips: Vec<Arc<str>> = "clusterIPs",
        /// The name that a service of type ExternalName stands for.
        pub external_name: Option<Arc<str>> = "externalName",
        /// Workloads that are not ready get traffic, too.
        pub publish_not_ready_addresses: bool = "publishNotReadyAddresses",
    }
    ignored [
        "allocateLoadBalancerNodePorts", "externalIPs", "externalTrafficPolicy", "healthCheckNodePort",
        "internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy", "loadBalancerClass", "loadBalancerIP",
        "loadBalancerSourceRanges", "sessionAffinity", "sessionAffinityConfig", "trafficDistribution",
    ]
}

impl ServiceSpec {
    /// Whether it has no virtual address by intention (`clusterIP: None`).
    pub fn is_headless(&self) -> bool {
        self.cluster_ip.as_deref() == Some("None") || self.cluster_ips.first().is_some_and(|ip| &**ip == "None")
    }

    /// Virtual addresses, without repetition.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = Vec::new();
        for ip in self.cluster_ip.iter().chain(&self.cluster_ips).filter_map(|ip| ip.parse().ok()) {
            if !all.contains(&ip) {
                all.push(ip);
            }
        }
        all
    }
}

open_enum! {
    /// `type` of a Service.
    pub enum ServiceType {
        /// Has virtual addresses (or none: headless).
        ClusterIp = "ClusterIP",
        /// Also on a port of every node.
        NodePort = "NodePort",
        /// Also behind a load balancer.
        LoadBalancer = "LoadBalancer",
        /// Another name for something outside.
        ExternalName = "ExternalName",
    }
    default ClusterIp
}

manifest! {
    /// A port of a Service.
    #[derive(Default)]
    pub struct ServicePort {
        /// Name; unique, and required when there are several ports.
        pub name: Option<Arc<str>> = "name",
        /// Number that callers use.
        pub port: u16 = "port" => required,
        /// Where it leads on a workload; `None`: the same number.
        pub target_port: Option<PortRef> = "targetPort",
        /// Transport.
        pub protocol: Transport = "protocol",
        /// What is spoken on it (KEP-3726).
        pub app_protocol: Option<Arc<str>> = "appProtocol",
    }
    ignored ["nodePort"]
}

impl ServicePort {
    /// What is spoken on it, by `appProtocol`, else by the name of the port.
    pub fn app(&self) -> AppProtocol {
        AppProtocol::from_kubernetes(self.app_protocol.as_deref(), self.name.as_deref()).0
    }

    /// Where it leads on a workload.
    pub fn target(&self) -> PortRef {
        self.target_port.clone().unwrap_or(PortRef::Number(self.port))
    }
}

/// A port of a workload, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By the name that the workload gives it.
    Name(Arc<str>),
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortRef::Number(number) => number.fmt(f),
            PortRef::Name(name) => name.fmt(f),
        }
    }
}

open_enum! {
    /// Transport of a port. Veer carries TCP.
    pub enum Transport {
        /// TCP
        Tcp = "TCP",
        /// UDP
        Udp = "UDP",
        /// SCTP
        Sctp = "SCTP",
    }
    default Tcp
}

/// Label of an EndpointSlice: the Service it belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label of an EndpointSlice: who wrote it.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

manifest! {
    /// An EndpointSlice. It has no `spec`.
    #[derive(Default)]
    pub struct EndpointSlice {
        /// Family of the addresses.
        pub address_type: AddressType = "addressType" => required,
        /// Members.
        pub endpoints: Vec<SliceEndpoint> = "endpoints",
        /// Ports that all of them have.
        pub ports: Vec<SlicePort> = "ports",
    }
    ignored []
}

open_enum! {
    /// Family of the addresses of an EndpointSlice.
    pub enum AddressType {
        /// IPv4
        Ipv4 = "IPv4",
        /// IPv6
        Ipv6 = "IPv6",
        /// Host names; Veer does not use them.
        Fqdn = "FQDN",
    }
    default Ipv4
}

manifest! {
    /// A member of an EndpointSlice.
    #[derive(Default)]
    pub struct SliceEndpoint {
        /// Its addresses, all of one host; upstream says to use the first.
        pub addresses: Vec<Arc<str>> = "addresses" => required,
        /// Whether it can serve.
        pub conditions: EndpointConditions = "conditions",
        /// Its own label in the service's domain.
        pub hostname: Option<Arc<str>> = "hostname",
        /// The object behind it.
        pub target_ref: Option<TargetRef> = "targetRef",
        /// Node it runs on.
        pub node_name: Option<Arc<str>> = "nodeName",
        /// Zone it runs in.
        pub zone: Option<Arc<str>> = "zone",
    }
    ignored ["hints", "deprecatedTopology"]
}

manifest! {
    /// Conditions of a member of an EndpointSlice. What nobody said counts as upstream counts it.
    #[derive(Default)]
    pub struct EndpointConditions {
        /// May get traffic; unknown counts as ready.
        pub ready: Option<bool> = "ready",
        /// Can serve, also while it terminates; unknown counts as [`Self::ready`].
        pub serving: Option<bool> = "serving",
        /// Is going away; unknown counts as no.
        pub terminating: Option<bool> = "terminating",
    }
    ignored []
}

impl EndpointConditions {
    /// Whether it may get new work.
    pub fn is_ready(&self) -> bool {
        self.ready.unwrap_or(true) && !self.terminating.unwrap_or(false)
    }

    /// Whether it can finish what it has.
    pub fn is_serving(&self) -> bool {
        self.serving.unwrap_or_else(|| self.ready.unwrap_or(true))
    }
}

manifest! {
    /// The object behind a member of an EndpointSlice.
    #[derive(Default)]
    pub struct TargetRef {
        /// Kind: `Pod` or `Workload`.
        pub kind: Option<Arc<str>> = "kind",
        /// Its namespace; `None`: the slice's.
        pub namespace: Option<Arc<str>> = "namespace",
        /// Its name.
        pub name: Option<Arc<str>> = "name",
    }
    ignored ["apiVersion", "fieldPath", "resourceVersion", "uid"]
}

manifest! {
    /// A port of an EndpointSlice.
    #[derive(Default)]
    pub struct SlicePort {
        /// Name, equal to that of the Service's port.
        pub name: Option<Arc<str>> = "name",
        /// Number; `None`: all ports, which no Service uses.
        pub port: Option<u16> = "port",
        /// Transport.
        pub protocol: Transport = "protocol",
        /// What is spoken on it.
        pub app_protocol: Option<Arc<str>> = "appProtocol",
    }
    ignored []
}

manifest! {
    /// `spec` of a ServiceExport (MCS API). Who is offered the service is [`ObjectMeta::audience`](crate::ObjectMeta::audience).
    #[derive(Default)]
    pub struct ServiceExportSpec {
        /// Labels that travel with the export.
        pub exported_labels: Labels = "exportedLabels",
        /// Annotations that travel with the export.
        pub exported_annotations: Labels = "exportedAnnotations",
    }
    ignored []
}

manifest! {
    /// `spec` of a ServiceImport (MCS API).
    #[derive(Default)]
    pub struct ServiceImportSpec {
        /// What it is.
        pub import_type: ImportType = "type",
        /// Ports, where the user wants fewer than are offered; empty: as offered.
        pub ports: Vec<ImportPort> = "ports",
        /// Virtual addresses.
        pub ips: Vec<IpAddr> = "ips",
    }
    ignored [
        "sessionAffinity", "sessionAffinityConfig", "ipFamilies", "internalTrafficPolicy", "trafficDistribution",
    ]
}

open_enum! {
    /// `type` of a ServiceImport.
    pub enum ImportType {
        /// Has a virtual address.
        ClusterSetIp = "ClusterSetIP",
        /// Each endpoint for itself.
        Headless = "Headless",
    }
    default ClusterSetIp
}

manifest! {
    /// A port of a ServiceImport.
    #[derive(Default)]
    pub struct ImportPort {
        /// Name.
        pub name: Option<Arc<str>> = "name",
        /// Number that callers use.
        pub port: u16 = "port" => required,
        /// Transport.
        pub protocol: Transport = "protocol",
        /// What is spoken on it.
        pub app_protocol: Option<Arc<str>> = "appProtocol",
    }
    ignored []
}
