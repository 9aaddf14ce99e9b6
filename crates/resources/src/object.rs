//! One object of a manifest.

use std::fmt;
use std::sync::Arc;

use veer_core::ObjectName;

use crate::diagnostic::{Diagnostic, Location};
use crate::node::Node;
use crate::positions::Positions;
use crate::types::*;

/// One object. Cheap to clone: everything behind it is shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// `metadata`.
    pub meta: Arc<ObjectMeta>,
    /// What it is, with its `spec`.
    pub kind: Kind,
    /// Where its document begins.
    pub at: Location,
    /// Its document has errors, and leaving it out would open a door: an AuthorizationPolicy that could not be read allows
    /// nobody until it is mended, and a Namespace whose mTLS mode could not be read is strict.
    pub failed_closed: bool,
    pub(crate) positions: Positions,
    /// Metadata and spec as they are written, for kinds whose status is shown beside them.
    pub(crate) written: Option<Arc<Node>>,
}

impl Object {
    /// An object that stands in no file: for tests and for sources other than folders.
    pub fn new(meta: ObjectMeta, kind: Kind) -> Self {
        Self {
            meta: Arc::new(meta),
            kind,
            at: Location::default(),
            failed_closed: false,
            positions: Positions::default(),
            written: None,
        }
    }

    /// `metadata` and `spec` as they are written, as one JSON object; `None` for kinds without a status and for objects that
    /// stand in no file.
    pub fn written_json(&self) -> Option<String> {
        self.written.as_ref().map(|node| node.to_json(&["metadata", "spec"]))
    }

    /// `namespace/name`; the namespace of objects that live in none is empty.
    pub fn name(&self) -> ObjectName {
        ObjectName { namespace: Arc::clone(&self.meta.namespace), name: Arc::clone(&self.meta.name) }
    }

    /// What tells it from all other objects of a cluster.
    pub fn key(&self) -> (KindName, ObjectName) {
        (self.kind.name(), self.name())
    }

    /// Where a field stands: `spec.rules[0].backendRefs[1].port`, or `metadata.annotations["veer.dev/audience"]` for keys
    /// with dots. A field that is not written is where the nearest part of its path that is written stands.
    pub fn locate(&self, path: &str) -> Location {
        match self.positions.find(path) {
            Some((line, column)) => Location { file: Arc::clone(&self.at.file), line, column },
            None => self.at.clone(),
        }
    }

    /// An error at one of its fields, in the form of [`Object::locate`].
    pub fn error(
        &self,
        code: &'static str,
        path: &str,
        reason: impl Into<String>,
        mend: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::error(code, &self.locate(path), reason, mend)
    }

    /// A warning at one of its fields, in the form of [`Object::locate`].
    pub fn warning(
        &self,
        code: &'static str,
        path: &str,
        reason: impl Into<String>,
        mend: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::warning(code, &self.locate(path), reason, mend)
    }

    /// Whether losing it is losing a user's intent (routes, exports, imports, grants, links, policies), not a fact that
    /// comes and goes by itself. A mass loss of intent is held for confirmation by sources.
    pub fn is_intent(&self) -> bool {
        self.kind.name().is_intent()
    }
}

/// A typed object.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `v1` Namespace
    Namespace,
    /// `v1` Service
    Service(Arc<ServiceSpec>),
    /// `discovery.k8s.io/v1` EndpointSlice
    EndpointSlice(Arc<EndpointSlice>),
    /// `multicluster.x-k8s.io` ServiceExport
    ServiceExport(Arc<ServiceExportSpec>),
    /// `multicluster.x-k8s.io` ServiceImport
    ServiceImport(Arc<ServiceImportSpec>),
    /// `gateway.networking.k8s.io` HTTPRoute
    HttpRoute(Arc<HttpRouteSpec>),
    /// `gateway.networking.k8s.io` GRPCRoute
    GrpcRoute(Arc<GrpcRouteSpec>),
    /// `gateway.networking.k8s.io` TCPRoute
    TcpRoute(Arc<TcpRouteSpec>),
    /// `gateway.networking.k8s.io` Gateway
    Gateway(Arc<GatewaySpec>),
    /// `gateway.networking.k8s.io` GatewayClass
    GatewayClass(Arc<GatewayClassSpec>),
    /// `gateway.networking.k8s.io` ListenerSet
    ListenerSet(Arc<ListenerSetSpec>),
    /// `gateway.networking.k8s.io` TLSRoute
    TlsRoute(Arc<TlsRouteSpec>),
    /// `gateway.networking.k8s.io` UDPRoute
    UdpRoute(Arc<UdpRouteSpec>),
    /// `v1` Secret
    Secret(Arc<Secret>),
    /// `v1` ConfigMap
    ConfigMap(Arc<ConfigMap>),
    /// `certificates.k8s.io` ClusterTrustBundle
    ClusterTrustBundle(Arc<ClusterTrustBundleSpec>),
    /// `gateway.networking.k8s.io` ReferenceGrant
    ReferenceGrant(Arc<ReferenceGrantSpec>),
    /// `veer.dev/v1alpha1` Workload
    Workload(Arc<WorkloadSpec>),
    /// `veer.dev/v1alpha1` Link
    Link(Arc<LinkSpec>),
    /// `veer.dev/v1alpha1` TrafficPolicy
    TrafficPolicy(Arc<TrafficPolicySpec>),
    /// `gateway.networking.x-k8s.io/v1alpha1` XBackendTrafficPolicy
    BackendTrafficPolicy(Arc<BackendTrafficPolicySpec>),
    /// `gateway.networking.k8s.io` BackendTLSPolicy
    BackendTlsPolicy(Arc<BackendTlsPolicySpec>),
    /// `gateway.networking.x-k8s.io/v1alpha1` XBackend
    XBackend(Arc<XBackendSpec>),
    /// `veer.dev/v1alpha1` AuthorizationPolicy
    AuthorizationPolicy(Arc<AuthorizationPolicySpec>),
}

impl Kind {
    /// Which kind.
    pub fn name(&self) -> KindName {
        match self {
            Kind::Namespace => KindName::Namespace,
            Kind::Service(_) => KindName::Service,
            Kind::EndpointSlice(_) => KindName::EndpointSlice,
            Kind::ServiceExport(_) => KindName::ServiceExport,
            Kind::ServiceImport(_) => KindName::ServiceImport,
            Kind::HttpRoute(_) => KindName::HttpRoute,
            Kind::GrpcRoute(_) => KindName::GrpcRoute,
            Kind::TcpRoute(_) => KindName::TcpRoute,
            Kind::Gateway(_) => KindName::Gateway,
            Kind::GatewayClass(_) => KindName::GatewayClass,
            Kind::ListenerSet(_) => KindName::ListenerSet,
            Kind::TlsRoute(_) => KindName::TlsRoute,
            Kind::UdpRoute(_) => KindName::UdpRoute,
            Kind::Secret(_) => KindName::Secret,
            Kind::ConfigMap(_) => KindName::ConfigMap,
            Kind::ClusterTrustBundle(_) => KindName::ClusterTrustBundle,
            Kind::ReferenceGrant(_) => KindName::ReferenceGrant,
            Kind::Workload(_) => KindName::Workload,
            Kind::Link(_) => KindName::Link,
            Kind::TrafficPolicy(_) => KindName::TrafficPolicy,
            Kind::BackendTrafficPolicy(_) => KindName::BackendTrafficPolicy,
            Kind::BackendTlsPolicy(_) => KindName::BackendTlsPolicy,
            Kind::XBackend(_) => KindName::XBackend,
            Kind::AuthorizationPolicy(_) => KindName::AuthorizationPolicy,
        }
    }
}

/// A kind by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum KindName {
    Namespace,
    Service,
    EndpointSlice,
    ServiceExport,
    ServiceImport,
    HttpRoute,
    GrpcRoute,
    TcpRoute,
    Gateway,
    GatewayClass,
    ListenerSet,
    TlsRoute,
    UdpRoute,
    Secret,
    ConfigMap,
    ClusterTrustBundle,
    ReferenceGrant,
    Workload,
    Link,
    TrafficPolicy,
    BackendTrafficPolicy,
    BackendTlsPolicy,
    XBackend,
    AuthorizationPolicy,
}

impl KindName {
    /// All kinds that are read.
    pub const ALL: [KindName; 24] = [
        KindName::Namespace,
        KindName::Service,
        KindName::EndpointSlice,
        KindName::ServiceExport,
        KindName::ServiceImport,
        KindName::HttpRoute,
        KindName::GrpcRoute,
        KindName::TcpRoute,
        KindName::Gateway,
        KindName::GatewayClass,
        KindName::ListenerSet,
        KindName::TlsRoute,
        KindName::UdpRoute,
        KindName::Secret,
        KindName::ConfigMap,
        KindName::ClusterTrustBundle,
        KindName::ReferenceGrant,
        KindName::Workload,
        KindName::Link,
        KindName::TrafficPolicy,
        KindName::BackendTrafficPolicy,
        KindName::BackendTlsPolicy,
        KindName::XBackend,
        KindName::AuthorizationPolicy,
    ];

    /// As written in `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            KindName::Namespace => "Namespace",
            KindName::Service => "Service",
            KindName::EndpointSlice => "EndpointSlice",
            KindName::ServiceExport => "ServiceExport",
            KindName::ServiceImport => "ServiceImport",
            KindName::HttpRoute => "HTTPRoute",
            KindName::GrpcRoute => "GRPCRoute",
            KindName::TcpRoute => "TCPRoute",
            KindName::Gateway => "Gateway",
            KindName::GatewayClass => "GatewayClass",
            KindName::ListenerSet => "ListenerSet",
            KindName::TlsRoute => "TLSRoute",
            KindName::UdpRoute => "UDPRoute",
            KindName::Secret => "Secret",
            KindName::ConfigMap => "ConfigMap",
            KindName::ClusterTrustBundle => "ClusterTrustBundle",
            KindName::ReferenceGrant => "ReferenceGrant",
            KindName::Workload => "Workload",
            KindName::Link => "Link",
            KindName::TrafficPolicy => "TrafficPolicy",
            KindName::BackendTrafficPolicy => "XBackendTrafficPolicy",
            KindName::BackendTlsPolicy => "BackendTLSPolicy",
            KindName::XBackend => "XBackend",
            KindName::AuthorizationPolicy => "AuthorizationPolicy",
        }
    }

    /// API group; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            KindName::Namespace | KindName::Service | KindName::Secret | KindName::ConfigMap => "",
            KindName::ClusterTrustBundle => "certificates.k8s.io",
            KindName::EndpointSlice => "discovery.k8s.io",
            KindName::ServiceExport | KindName::ServiceImport => "multicluster.x-k8s.io",
            KindName::HttpRoute
            | KindName::GrpcRoute
            | KindName::TcpRoute
            | KindName::TlsRoute
            | KindName::UdpRoute
            | KindName::Gateway
            | KindName::GatewayClass
            | KindName::ListenerSet
            | KindName::BackendTlsPolicy
            | KindName::ReferenceGrant => "gateway.networking.k8s.io",
            KindName::BackendTrafficPolicy | KindName::XBackend => "gateway.networking.x-k8s.io",
            KindName::Workload | KindName::Link | KindName::TrafficPolicy | KindName::AuthorizationPolicy => "veer.dev",
        }
    }

    /// Versions that are read, the preferred one first.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            KindName::Namespace
            | KindName::Service
            | KindName::EndpointSlice
            | KindName::Secret
            | KindName::ConfigMap => &["v1"],
            KindName::ClusterTrustBundle => &["v1beta1", "v1alpha1"],
            KindName::ServiceExport | KindName::ServiceImport => &["v1beta1", "v1alpha1"],
            KindName::HttpRoute | KindName::ReferenceGrant | KindName::Gateway | KindName::GatewayClass => {
                &["v1", "v1beta1"]
            }
            KindName::ListenerSet => &["v1"],
            KindName::BackendTlsPolicy => &["v1", "v1alpha3"],
            KindName::TlsRoute => &["v1", "v1alpha3", "v1alpha2"],
            KindName::UdpRoute => &["v1", "v1alpha2"],
            KindName::GrpcRoute => &["v1", "v1alpha2"],
            KindName::TcpRoute => &["v1", "v1alpha2"],
            KindName::Workload
            | KindName::Link
            | KindName::TrafficPolicy
            | KindName::BackendTrafficPolicy
            | KindName::XBackend
            | KindName::AuthorizationPolicy => &["v1alpha1"],
        }
    }

    /// `apiVersion` to write.
    pub fn api_version(self) -> String {
        match self.group() {
            "" => self.versions()[0].to_owned(),
            group => format!("{group}/{}", self.versions()[0]),
        }
    }

    /// Whether objects of the kind live in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, KindName::Namespace | KindName::Link | KindName::GatewayClass | KindName::ClusterTrustBundle)
    }

    /// Whether Veer writes a status for objects of the kind.
    pub fn has_status(self) -> bool {
        matches!(
            self,
            KindName::Gateway
                | KindName::GatewayClass
                | KindName::ListenerSet
                | KindName::HttpRoute
                | KindName::GrpcRoute
                | KindName::TlsRoute
                | KindName::TcpRoute
                | KindName::UdpRoute
                | KindName::TrafficPolicy
                | KindName::BackendTrafficPolicy
                | KindName::BackendTlsPolicy
                | KindName::XBackend
        )
    }

    /// Whether losing objects of the kind is losing a user's intent (see [`Object::is_intent`]).
    pub fn is_intent(self) -> bool {
        matches!(
            self,
            KindName::ServiceExport
                | KindName::ServiceImport
                | KindName::HttpRoute
                | KindName::GrpcRoute
                | KindName::TcpRoute
                | KindName::TlsRoute
                | KindName::UdpRoute
                | KindName::Gateway
                | KindName::GatewayClass
                | KindName::ListenerSet
                | KindName::Secret
                | KindName::ConfigMap
                | KindName::ClusterTrustBundle
                | KindName::ReferenceGrant
                | KindName::Link
                | KindName::TrafficPolicy
                | KindName::BackendTrafficPolicy
                | KindName::BackendTlsPolicy
                | KindName::AuthorizationPolicy
        )
    }
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
