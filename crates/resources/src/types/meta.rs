//! `metadata`, and the annotations that Veer reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use veer_core::inbound::MtlsMode;
use veer_core::{Cidr, ClusterName};

use crate::decode::manifest;

/// Labels or annotations.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// On a ServiceExport: the peers that are offered the service, `*` or a list of clusters.
pub const AUDIENCE: &str = "veer.dev/audience";
/// On a Service: `clusterset` makes its `cluster.local` host stand for the copies of all clusters.
pub const SCOPE: &str = "veer.dev/scope";
/// On a ServiceImport: `true` gives each peer's copy a host of its own, `name-cluster`.
pub const PER_CLUSTER_NAMES: &str = "veer.dev/per-cluster-names";
/// On a Namespace or a Workload: `strict` or `permissive`.
pub const MTLS: &str = "veer.dev/mtls";
/// On a Workload: `external` when someone else starts its proxy (a machine that joins with a token).
pub const PROXY: &str = "veer.dev/proxy";
/// On a Workload that Veer starts: `true` lets its proxy take the connections that packet-filter rules lead to it (`veer capture`).
pub const CAPTURE: &str = "veer.dev/capture";
/// On a Workload that Veer starts, or a Gateway: `true` has its proxy write an access log (JSON lines in its log file).
pub const ACCESS_LOG: &str = "veer.dev/access-log";
/// On a ServiceExport, or on a Namespace for all its exports: `false` lets callers of other clusters ask with safe methods only.
pub const UNSAFE_METHODS: &str = "veer.dev/allow-unsafe-methods";
/// On a Gateway: ranges of addresses, with commas between them, of load balancers that begin each connection with a PROXY header.
pub const PROXY_PROTOCOL: &str = "veer.dev/proxy-protocol";
/// Annotations that Veer reads; all others under `veer.dev/` are reported.
pub const ANNOTATIONS: [&str; 9] =
    [AUDIENCE, SCOPE, PER_CLUSTER_NAMES, MTLS, PROXY, CAPTURE, ACCESS_LOG, UNSAFE_METHODS, PROXY_PROTOCOL];

/// Namespace of objects that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

manifest! {
    /// `metadata` of any object.
    #[derive(Default)]
    pub struct ObjectMeta {
        /// Name within the namespace and kind.
        pub name: Arc<str> = "name" => required,
        /// Namespace; `default` when none is written, empty for kinds that live in none.
        pub namespace: Arc<str> = "namespace",
        /// Labels.
        pub labels: Labels = "labels",
        /// Annotations.
        pub annotations: Labels = "annotations",
        /// When it was made (RFC 3339), when somebody knows.
        pub creation_timestamp: Option<Arc<str>> = "creationTimestamp",
        /// Counts changes of the spec, when somebody counts them: what a status is about.
        pub generation: Option<u32> = "generation",
    }
    ignored [
        "uid", "resourceVersion", "generateName", "selfLink", "managedFields", "ownerReferences", "finalizers",
        "deletionTimestamp", "deletionGracePeriodSeconds",
    ]
}

impl ObjectMeta {
    /// Metadata with nothing but a name.
    pub fn named(namespace: &str, name: &str) -> Self {
        Self { name: name.into(), namespace: namespace.into(), ..Self::default() }
    }

    /// An annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(AsRef::as_ref)
    }

    /// [`AUDIENCE`]. Names that are not clusters' were reported as errors and offer nothing to anybody.
    pub fn audience(&self) -> Audience {
        match self.annotation(AUDIENCE).map(str::trim) {
            None | Some("") => Audience::Nobody,
            Some("*") => Audience::Everybody,
            Some(list) => {
                Audience::Clusters(list.split(',').filter_map(|name| ClusterName::new(name.trim()).ok()).collect())
            }
        }
    }

    /// [`SCOPE`] is `clusterset`.
    pub fn is_clusterset_scoped(&self) -> bool {
        self.annotation(SCOPE) == Some("clusterset")
    }

    /// [`PER_CLUSTER_NAMES`] is `true`.
    pub fn wants_per_cluster_names(&self) -> bool {
        self.annotation(PER_CLUSTER_NAMES) == Some("true")
    }

    /// [`UNSAFE_METHODS`]; `None` when nobody said. A text that is not understood allows none.
    pub fn allows_unsafe_methods(&self) -> Option<bool> {
        self.annotation(UNSAFE_METHODS).map(|text| text == "true")
    }

    /// [`PROXY_PROTOCOL`]; `None` when nobody said. Ranges that are not understood were reported as errors and are trusted by nobody.
    pub fn proxy_protocol(&self) -> Option<Arc<[Cidr]>> {
        let list = self.annotation(PROXY_PROTOCOL)?;
        Some(list.split(',').filter_map(|range| range.trim().parse().ok()).collect())
    }

    /// [`MTLS`]; `None` when nobody said. A text that is not understood is strict.
    pub fn mtls(&self) -> Option<MtlsMode> {
        self.annotation(MTLS).map(|text| match text {
            "permissive" => MtlsMode::Permissive,
            _ => MtlsMode::Strict,
        })
    }
}

/// Whom a service is offered to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// No peer.
    Nobody,
    /// Every peer.
    Everybody,
    /// These peers.
    Clusters(Vec<ClusterName>),
}

impl Audience {
    /// Whether the peer is among them.
    pub fn includes(&self, peer: &ClusterName) -> bool {
        match self {
            Audience::Nobody => false,
            Audience::Everybody => true,
            Audience::Clusters(clusters) => clusters.contains(peer),
        }
    }
}

/// Whether the labels hold all that the selector asks for. An empty selector selects nothing, as in a Service.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
