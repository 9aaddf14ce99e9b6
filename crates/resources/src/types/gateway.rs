//! Gateway, GatewayClass, ListenerSet, TLSRoute, UDPRoute (Gateway API), and the Secrets that hold their certificates.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{BackendRef, GATEWAY_GROUP, Labels, ParentRef, Present, TcpRouteRule};
use crate::decode::{manifest, open_enum};

/// `spec.controllerName` of the classes whose Gateways Veer serves.
pub const CONTROLLER_NAME: &str = "veer.dev/gateway";
/// The class that is there without a GatewayClass object.
pub const GATEWAY_CLASS: &str = "veer";
/// `type` of a Secret with a certificate and its key.
pub const TLS_SECRET: &str = "kubernetes.io/tls";

manifest! {
    /// `spec` of a GatewayClass.
    pub struct GatewayClassSpec {
        /// Who serves Gateways of the class.
        pub controller_name: Arc<str> = "controllerName" => required,
        /// Written, and not supported by this version: the class is not accepted.
        pub parameters_ref: Option<Present> = "parametersRef",
    }
    ignored ["description"]
}

manifest! {
    /// `spec` of a Gateway.
    pub struct GatewaySpec {
        /// The class that it is of.
        pub gateway_class_name: Arc<str> = "gatewayClassName" => required,
        /// Ports on which it takes connections.
        pub listeners: Vec<ListenerSpec> = "listeners" => required,
        /// Where it is reached. Veer assigns none by itself.
        pub addresses: Vec<GatewayAddressSpec> = "addresses",
        /// Which ListenerSets may add listeners; by default none (GEP-1713).
        pub allowed_listeners: AllowedListeners = "allowedListeners",
        /// What holds for TLS of all listeners.
        pub tls: GatewayTls = "tls",
        /// How it is run.
        pub infrastructure: Infrastructure = "infrastructure",
    }
    ignored ["defaultScope"]
}

manifest! {
    /// An address of a Gateway.
    #[derive(Default)]
    pub struct GatewayAddressSpec {
        /// `IPAddress` or another kind; absent is `IPAddress`.
        pub address_type: Arc<str> = "type" => or("IPAddress".into()),
        /// The address; empty: any of the type.
        pub value: Arc<str> = "value",
    }
    ignored []
}

manifest! {
    /// How a Gateway is run.
    #[derive(Default)]
    pub struct Infrastructure {
        /// Written, and not supported by this version: the Gateway is not accepted.
        pub parameters_ref: Option<Present> = "parametersRef",
    }
    ignored ["annotations", "labels"]
}

manifest! {
    /// Which ListenerSets may attach.
    #[derive(Default)]
    pub struct AllowedListeners {
        /// From which namespaces.
        pub namespaces: ListenerNamespaces = "namespaces",
    }
    ignored []
}

manifest! {
    /// Namespaces whose ListenerSets may attach.
    #[derive(Default)]
    pub struct ListenerNamespaces {
        /// Which; absent is none.
        pub from: Option<FromNamespaces> = "from",
        /// With [`FromNamespaces::Selector`].
        pub selector: LabelSelector = "selector",
    }
    ignored []
}

manifest! {
    /// TLS of a whole Gateway.
    #[derive(Default)]
    pub struct GatewayTls {
        /// What is asked of clients (GEP-91).
        pub frontend: Option<FrontendTls> = "frontend",
        /// What is shown to backends (GEP-3155).
        pub backend: Option<GatewayBackendTls> = "backend",
    }
    ignored []
}

manifest! {
    /// What a Gateway shows to backends outside of the mesh.
    #[derive(Default)]
    pub struct GatewayBackendTls {
        /// A Secret with its certificate and key.
        pub client_certificate_ref: Option<CertificateRef> = "clientCertificateRef",
    }
    ignored []
}

manifest! {
    /// What is asked of clients at listeners for HTTPS.
    #[derive(Default)]
    pub struct FrontendTls {
        /// At every port without an entry of its own.
        pub default: FrontendTlsConfig = "default",
        /// By port, in place of the default.
        pub per_port: Vec<FrontendTlsPort> = "perPort",
    }
    ignored []
}

impl FrontendTls {
    /// What holds at a port; `None`: clients are not asked for a certificate.
    pub fn at(&self, port: u16) -> Option<&FrontendValidation> {
        let own = self.per_port.iter().find(|own| own.port == port).map(|own| &own.tls);
        own.unwrap_or(&self.default).validation.as_ref()
    }
}

manifest! {
    /// What is asked of clients at one port.
    pub struct FrontendTlsPort {
        /// The port.
        pub port: u16 = "port" => required,
        /// What is asked.
        pub tls: FrontendTlsConfig = "tls" => required,
    }
    ignored []
}

manifest! {
    /// What is asked of clients.
    #[derive(Default)]
    pub struct FrontendTlsConfig {
        /// `None`: no certificate.
        pub validation: Option<FrontendValidation> = "validation",
    }
    ignored []
}

manifest! {
    /// A client's certificate is asked for, and held against authorities.
    #[derive(Default)]
    pub struct FrontendValidation {
        /// Where the authorities' certificates are.
        pub ca_certificate_refs: Vec<ObjectRef> = "caCertificateRefs" => required,
        /// What becomes of clients without a valid one.
        pub mode: FrontendValidationMode = "mode",
    }
    ignored []
}

open_enum! {
    /// What becomes of clients without a valid certificate.
    pub enum FrontendValidationMode {
        /// They are refused.
        AllowValidOnly = "AllowValidOnly",
        /// They are served like others.
        AllowInsecureFallback = "AllowInsecureFallback",
    }
    default AllowValidOnly
}

manifest! {
    /// Refers to any object.
    #[derive(Default)]
    pub struct ObjectRef {
        /// API group.
        pub group: Arc<str> = "group",
        /// Kind.
        pub kind: Arc<str> = "kind" => required,
        /// Namespace; `None`: the referrer's.
        pub namespace: Option<Arc<str>> = "namespace",
        /// Name.
        pub name: Arc<str> = "name" => required,
    }
    ignored []
}

manifest! {
    /// `spec` of a ListenerSet (GEP-1713).
    pub struct ListenerSetSpec {
        /// The Gateway that it adds listeners to.
        pub parent_ref: ListenerSetParent = "parentRef" => required,
        /// The listeners.
        pub listeners: Vec<ListenerSpec> = "listeners" => required,
    }
    ignored []
}

manifest! {
    /// The Gateway of a ListenerSet.
    #[derive(Default)]
    pub struct ListenerSetParent {
        /// API group.
        pub group: Arc<str> = "group" => or(GATEWAY_GROUP.into()),
        /// Kind.
        pub kind: Arc<str> = "kind" => or("Gateway".into()),
        /// Namespace; `None`: the ListenerSet's.
        pub namespace: Option<Arc<str>> = "namespace",
        /// Name.
        pub name: Arc<str> = "name" => required,
    }
    ignored []
}

manifest! {
    /// A listener of a Gateway or a ListenerSet.
    pub struct ListenerSpec {
        /// Its name, unique within the object.
        pub name: Arc<str> = "name" => required,
        /// Host that it is for, `*.example.com` for all below; `None`: every host.
        pub hostname: Option<Arc<str>> = "hostname",
        /// Port.
        pub port: u16 = "port" => required,
        /// What is spoken.
        pub protocol: ListenerProtocol = "protocol" => required,
        /// TLS; for HTTPS and TLS.
        pub tls: Option<ListenerTls> = "tls",
        /// Which routes may attach.
        pub allowed_routes: AllowedRoutes = "allowedRoutes",
    }
    ignored []
}

open_enum! {
    /// What a listener speaks.
    pub enum ListenerProtocol {
        /// HTTP in clear text.
        Http = "HTTP",
        /// HTTP over TLS that ends here.
        Https = "HTTPS",
        /// TLS, led on by its server name.
        Tls = "TLS",
        /// Bytes.
        Tcp = "TCP",
        /// Datagrams.
        Udp = "UDP",
    }
    default Http
}

manifest! {
    /// TLS of a listener.
    #[derive(Default)]
    pub struct ListenerTls {
        /// Where TLS ends.
        pub mode: TlsMode = "mode",
        /// Certificates, when it ends here.
        pub certificate_refs: Vec<CertificateRef> = "certificateRefs",
        /// Choices of an implementation. Veer has none.
        pub options: Labels = "options",
    }
    ignored []
}

open_enum! {
    /// Where TLS ends.
    pub enum TlsMode {
        /// At the Gateway.
        Terminate = "Terminate",
        /// At the backend.
        Passthrough = "Passthrough",
    }
    default Terminate
}

manifest! {
    /// Refers to a certificate.
    #[derive(Default)]
    pub struct CertificateRef {
        /// API group.
        pub group: Arc<str> = "group",
        /// Kind.
        pub kind: Arc<str> = "kind" => or("Secret".into()),
        /// Namespace; `None`: the referrer's.
        pub namespace: Option<Arc<str>> = "namespace",
        /// Name.
        pub name: Arc<str> = "name" => required,
    }
    ignored []
}

manifest! {
    /// Which routes may attach to a listener.
    #[derive(Default)]
    pub struct AllowedRoutes {
        /// From which namespaces.
        pub namespaces: RouteNamespaces = "namespaces",
        /// Of which kinds; empty: those that fit the listener's protocol.
        pub kinds: Vec<RouteGroupKind> = "kinds",
    }
    ignored []
}

manifest! {
    /// Namespaces whose routes may attach.
    #[derive(Default)]
    pub struct RouteNamespaces {
        /// Which.
        pub from: FromNamespaces = "from",
        /// With [`FromNamespaces::Selector`].
        pub selector: LabelSelector = "selector",
    }
    ignored []
}

open_enum! {
    /// A choice of namespaces.
    pub enum FromNamespaces {
        /// Every namespace.
        All = "All",
        /// Those that a selector selects.
        Selector = "Selector",
        /// The object's own.
        Same = "Same",
        /// None.
        Nobody = "None",
    }
    default Same
}

manifest! {
    /// A kind of routes.
    #[derive(Default)]
    pub struct RouteGroupKind {
        /// API group.
        pub group: Arc<str> = "group" => or(GATEWAY_GROUP.into()),
        /// Kind.
        pub kind: Arc<str> = "kind" => required,
    }
    ignored []
}

manifest! {
    /// A selector of Kubernetes' `meta/v1`: everything that it asks for must hold. Empty: everything is selected.
    #[derive(Default)]
    pub struct LabelSelector {
        /// Labels that must be there.
        pub match_labels: Labels = "matchLabels",
        /// Further conditions.
        pub match_expressions: Vec<LabelExpression> = "matchExpressions",
    }
    ignored []
}

manifest! {
    /// One condition of a [`LabelSelector`].
    pub struct LabelExpression {
        /// The label.
        pub key: Arc<str> = "key" => required,
        /// What must hold of it.
        pub operator: LabelOperator = "operator" => required,
        /// The values it is held against.
        pub values: Vec<Arc<str>> = "values",
    }
    ignored []
}

open_enum! {
    /// What must hold of a label.
    pub enum LabelOperator {
        /// It has one of the values.
        In = "In",
        /// It has none of the values, or is not there.
        NotIn = "NotIn",
        /// It is there.
        Exists = "Exists",
        /// It is not there.
        DoesNotExist = "DoesNotExist",
    }
    default In
}

impl LabelSelector {
    /// Whether it selects something with these labels. An operator that is not known selects nothing.
    pub fn selects(&self, labels: &Labels) -> bool {
        let holds = |expression: &LabelExpression| {
            let value = labels.get(&expression.key);
            match expression.operator {
                LabelOperator::In => value.is_some_and(|value| expression.values.contains(value)),
                LabelOperator::NotIn => value.is_none_or(|value| !expression.values.contains(value)),
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
                LabelOperator::Unknown(_) => false,
            }
        };
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(holds)
    }
}

manifest! {
    /// `spec` of a TLSRoute.
    #[derive(Default)]
    pub struct TlsRouteSpec {
        /// What it attaches to.
        pub parent_refs: Vec<ParentRef> = "parentRefs",
        /// Server names that it is for.
        pub hostnames: Vec<Arc<str>> = "hostnames",
        /// Its rules; upstream allows one.
        pub rules: Vec<TcpRouteRule> = "rules" => required,
    }
    ignored ["useDefaultGateways"]
}

manifest! {
    /// `spec` of a UDPRoute.
    #[derive(Default)]
    pub struct UdpRouteSpec {
        /// What it attaches to.
        pub parent_refs: Vec<ParentRef> = "parentRefs",
        /// Its rules; upstream allows one.
        pub rules: Vec<TcpRouteRule> = "rules" => required,
    }
    ignored ["useDefaultGateways"]
}

impl ParentRef {
    /// Which of the kinds with listeners it names.
    pub fn listeners(&self) -> Option<ListenerParent> {
        match (&*self.group, &*self.kind) {
            (GATEWAY_GROUP, "Gateway") => Some(ListenerParent::Gateway),
            (GATEWAY_GROUP, "ListenerSet") => Some(ListenerParent::ListenerSet),
            _ => None,
        }
    }
}

/// The two kinds that have listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerParent {
    /// Gateway
    Gateway,
    /// ListenerSet
    ListenerSet,
}

/// A ConfigMap, as far as it holds certificates of authorities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// `data["ca.crt"]`, PEM. Nothing else of it is kept.
    pub authorities: Option<Arc<str>>,
}

manifest! {
    /// `spec` of a ClusterTrustBundle (`certificates.k8s.io`).
    pub struct ClusterTrustBundleSpec {
        /// Certificates of authorities, PEM.
        pub trust_bundle: Arc<str> = "trustBundle" => required,
    }
    ignored ["signerName"]
}

/// A Secret, as far as it holds a certificate. Its values are never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// `type`; [`TLS_SECRET`] for those that listeners refer to. Of other types nothing but `ca.crt` is kept.
    pub secret_type: Arc<str>,
    /// Values by key, decoded.
    pub data: BTreeMap<Arc<str>, Arc<str>>,
}

impl Secret {
    /// `tls.crt`: the chain, PEM.
    pub fn certificate(&self) -> Option<&Arc<str>> {
        self.data.get("tls.crt")
    }

    /// `ca.crt`: certificates of authorities, PEM.
    pub fn authorities(&self) -> Option<&Arc<str>> {
        self.data.get("ca.crt")
    }

    /// `tls.key`: its key, PEM.
    pub fn key(&self) -> Option<&Arc<str>> {
        self.data.get("tls.key")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("type", &self.secret_type).finish_non_exhaustive()
    }
}

/// Whether a text holds PEM sections (RFC 7468) with this ending of their label, each with a body of base64.
pub fn has_pem(text: &str, label: &str) -> bool {
    use base64::Engine as _;
    let mut found = false;
    let mut rest = text;
    while let Some(at) = rest.find("-----BEGIN ") {
        let Some((name, after)) = rest[at + 11..].split_once("-----") else { return false };
        let Some((body, after)) = after.split_once(&*format!("-----END {name}-----")) else { return false };
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let sound = !body.is_empty() && base64::engine::general_purpose::STANDARD.decode(&body).is_ok();
        if name.ends_with(label) {
            if !sound {
                return false;
            }
            found = true;
        }
        rest = after;
    }
    found
}

impl BackendRef {
    /// Group and kind as a person writes them.
    pub fn described(&self) -> String {
        if self.group.is_empty() { self.kind.to_string() } else { format!("{}/{}", self.group, self.kind) }
    }
}
