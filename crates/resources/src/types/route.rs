//! HTTPRoute, GRPCRoute, TCPRoute, ReferenceGrant (Gateway API).

use std::sync::Arc;
use std::time::Duration;

use veer_core::names::stable_hash;
use veer_core::route::{SessionCarrier, SessionPersistence};

use crate::decode::{manifest, open_enum};
use crate::object::KindName;

/// API group of the Gateway API; the default group of a parent.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// API group of ServiceImport.
pub const MCS_GROUP: &str = "multicluster.x-k8s.io";

manifest! {
    /// `spec` of an HTTPRoute.
    #[derive(Default)]
    pub struct HttpRouteSpec {
        /// What it attaches to.
        pub parent_refs: Vec<ParentRef> = "parentRefs",
        /// Hosts it is for; with a Service as parent it has no meaning and is reported.
        pub hostnames: Vec<Arc<str>> = "hostnames",
        /// Its rules; none written is one rule that matches everything and has no backends.
        pub rules: Vec<HttpRouteRule> = "rules",
    }
    ignored ["useDefaultGateways"]
}

manifest! {
    /// What a route attaches to. Veer acts on a Service (group "") and a ServiceImport; other kinds are someone else's.
    pub struct ParentRef {
        /// API group.
        pub group: Arc<str> = "group" => or(GATEWAY_GROUP.into()),
        /// Kind.
        pub kind: Arc<str> = "kind" => or("Gateway".into()),
        /// Namespace; `None`: the route's.
        pub namespace: Option<Arc<str>> = "namespace",
        /// Name.
        pub name: Arc<str> = "name" => required,
        /// Name of one of its ports; `None`: all.
        pub section_name: Option<Arc<str>> = "sectionName",
        /// One of its ports; `None`: all.
        pub port: Option<u16> = "port",
    }
    ignored []
}

impl ParentRef {
    /// Which of the kinds that Veer acts on it names; `None`: someone else's.
    pub fn target(&self) -> Option<TargetKind> {
        TargetKind::of(&self.group, &self.kind)
    }
}

/// The two kinds that routes attach and lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetKind {
    /// `v1` Service
    Service,
    /// `multicluster.x-k8s.io` ServiceImport
    ServiceImport,
}

impl TargetKind {
    /// By group and kind. The group `core` is read as the core group, as in the Gateway API's GEP-1742 examples.
    pub fn of(group: &str, kind: &str) -> Option<Self> {
        match (group, kind) {
            ("" | "core", "Service") => Some(TargetKind::Service),
            (MCS_GROUP, "ServiceImport") => Some(TargetKind::ServiceImport),
            _ => None,
        }
    }

    /// The kind by its name.
    pub fn kind_name(self) -> KindName {
        match self {
            TargetKind::Service => KindName::Service,
            TargetKind::ServiceImport => KindName::ServiceImport,
        }
    }
}

manifest! {
    /// A rule of an HTTPRoute.
    #[derive(Default)]
    pub struct HttpRouteRule {
        /// Its name.
        pub name: Option<Arc<str>> = "name",
        /// Alternatives; empty: everything.
        pub matches: Vec<HttpRouteMatch> = "matches",
        /// What is done to requests, in this order.
        pub filters: Vec<RouteFilter> = "filters",
        /// Where they go.
        pub backend_refs: Vec<BackendRef> = "backendRefs",
        /// Limits on time.
        pub timeouts: RouteTimeouts = "timeouts",
        /// What is retried.
        pub retry: Option<RouteRetry> = "retry",
        /// Requests of one session go to one endpoint.
        pub session_persistence: Option<SessionSpec> = "sessionPersistence",
    }
    ignored []
}

/// A field whose content does not matter: it is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Present;

manifest! {
    /// Conditions of an HTTPRoute that must all hold.
    #[derive(Default)]
    pub struct HttpRouteMatch {
        /// On the path.
        pub path: Option<PathRule> = "path",
        /// On header fields.
        pub headers: Vec<ValueRule> = "headers",
        /// On query parameters.
        pub query_params: Vec<ValueRule> = "queryParams",
        /// Exact method.
        pub method: Option<Arc<str>> = "method",
    }
    ignored []
}

manifest! {
    /// A condition on the path.
    pub struct PathRule {
        /// How it is compared.
        pub match_type: PathMatchType = "type",
        /// With what.
        pub value: Arc<str> = "value" => or("/".into()),
    }
    ignored []
}

open_enum! {
    /// How a path is compared.
    pub enum PathMatchType {
        /// The whole path.
        Exact = "Exact",
        /// Whole elements of the path.
        PathPrefix = "PathPrefix",
        /// By a regular expression.
        RegularExpression = "RegularExpression",
    }
    default PathPrefix
}

manifest! {
    /// A condition on a header field or a query parameter.
    #[derive(Default)]
    pub struct ValueRule {
        /// How it is compared.
        pub match_type: ValueMatchType = "type",
        /// Its name.
        pub name: Arc<str> = "name" => required,
        /// With what.
        pub value: Arc<str> = "value" => required,
    }
    ignored []
}

open_enum! {
    /// How a value is compared.
    pub enum ValueMatchType {
        /// The whole value.
        Exact = "Exact",
        /// By a regular expression.
        RegularExpression = "RegularExpression",
    }
    default Exact
}

/// A filter of a rule or of a backend.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteFilter {
    /// Changes the request's fields.
    RequestHeaderModifier(HeaderModifier),
    /// Changes the response's fields.
    ResponseHeaderModifier(HeaderModifier),
    /// Answers with a redirect.
    RequestRedirect(RedirectFilter),
    /// Changes host or path before it is sent.
    UrlRewrite(RewriteFilter),
    /// Sends copies elsewhere.
    RequestMirror(MirrorFilter),
    /// Answers for other origins.
    Cors(CorsFilter),
    /// Asks a service whether requests may pass.
    ExternalAuth(ExternalAuthFilter),
    /// Anything else, by its `type`: kinds of upstream that this version does not act on, and kinds it never heard of. A rule
    /// with such a filter must not serve as if the filter were not there.
    Unsupported(Arc<str>),
}

manifest! {
    /// Copies of requests (GEP-3171).
    pub struct MirrorFilter {
        /// Where they go; a weight and filters have no meaning here.
        pub backend_ref: BackendRef = "backendRef" => required,
        /// Of 100 requests so many; `None` and no [`Self::fraction`]: all.
        pub percent: Option<u32> = "percent",
        /// Instead of [`Self::percent`].
        pub fraction: Option<Fraction> = "fraction",
    }
    ignored []
}

manifest! {
    /// A fraction.
    pub struct Fraction {
        /// Upper part.
        pub numerator: u32 = "numerator" => required,
        /// Lower part.
        pub denominator: u32 = "denominator" => or(100),
    }
    ignored []
}

manifest! {
    /// Sharing with other origins (GEP-1767).
    #[derive(Default)]
    pub struct CorsFilter {
        /// `*`, or `scheme://host[:port]`; the host may begin with `*`.
        pub allow_origins: Vec<Arc<str>> = "allowOrigins",
        /// Whether requests may carry cookies and the like.
        pub allow_credentials: Option<bool> = "allowCredentials",
        /// Methods, or `*`.
        pub allow_methods: Vec<Arc<str>> = "allowMethods",
        /// Request fields, or `*`.
        pub allow_headers: Vec<Arc<str>> = "allowHeaders",
        /// Response fields, or `*`.
        pub expose_headers: Vec<Arc<str>> = "exposeHeaders",
        /// Seconds.
        pub max_age: Option<u32> = "maxAge",
    }
    ignored []
}

manifest! {
    /// A service that says whether requests may pass (GEP-1494).
    pub struct ExternalAuthFilter {
        /// How it is asked.
        pub protocol: AuthProtocol = "protocol" => required,
        /// Who is asked; a weight and filters have no meaning here.
        pub backend_ref: BackendRef = "backendRef" => required,
        /// More about [`AuthProtocol::Grpc`].
        pub grpc: Option<GrpcAuth> = "grpc",
        /// More about [`AuthProtocol::Http`].
        pub http: Option<HttpAuth> = "http",
        /// How much of the body it sees.
        pub forward_body: Option<ForwardBody> = "forwardBody",
    }
    ignored []
}

open_enum! {
    /// How a service is asked whether requests may pass.
    pub enum AuthProtocol {
        /// By a request like the one in question; 200 is yes.
        Http = "HTTP",
        /// By Envoy's ext_authz.
        Grpc = "GRPC",
    }
    default Http
}

manifest! {
    /// How a service is asked over gRPC.
    #[derive(Default)]
    pub struct GrpcAuth {
        /// Request fields that it sees; none named: all.
        pub allowed_headers: Vec<Arc<str>> = "allowedHeaders",
    }
    ignored []
}

manifest! {
    /// How a service is asked over HTTP.
    #[derive(Default)]
    pub struct HttpAuth {
        /// What stands before the path.
        pub path: Option<Arc<str>> = "path",
        /// Request fields that it sees.
        pub allowed_headers: Vec<Arc<str>> = "allowedHeaders",
        /// Fields of its yes that go on.
        pub allowed_response_headers: Vec<Arc<str>> = "allowedResponseHeaders",
    }
    ignored []
}

manifest! {
    /// How much of a body is shown.
    #[derive(Default)]
    pub struct ForwardBody {
        /// Most bytes.
        pub max_size: u32 = "maxSize",
    }
    ignored []
}

manifest! {
    /// Set, add and remove header fields.
    #[derive(Default)]
    pub struct HeaderModifier {
        /// Overwrites.
        pub set: Vec<HeaderValue> = "set",
        /// Appends.
        pub add: Vec<HeaderValue> = "add",
        /// Removes.
        pub remove: Vec<Arc<str>> = "remove",
    }
    ignored []
}

manifest! {
    /// A header field.
    #[derive(Default)]
    pub struct HeaderValue {
        /// Its name.
        pub name: Arc<str> = "name" => required,
        /// Its value.
        pub value: Arc<str> = "value" => required,
    }
    ignored []
}

manifest! {
    /// A redirect.
    pub struct RedirectFilter {
        /// `http` or `https`; `None`: as the request.
        pub scheme: Option<Arc<str>> = "scheme",
        /// Host; `None`: as the request.
        pub hostname: Option<Arc<str>> = "hostname",
        /// Path; `None`: as the request.
        pub path: Option<PathModifier> = "path",
        /// Port; `None`: by the scheme.
        pub port: Option<u16> = "port",
        /// Status code.
        pub status_code: u16 = "statusCode" => or(302),
    }
    ignored []
}

manifest! {
    /// A rewrite.
    #[derive(Default)]
    pub struct RewriteFilter {
        /// New host.
        pub hostname: Option<Arc<str>> = "hostname",
        /// New path.
        pub path: Option<PathModifier> = "path",
    }
    ignored []
}

manifest! {
    /// A replacement of a path.
    pub struct PathModifier {
        /// Which part.
        pub modifier_type: PathModifierType = "type" => required,
        /// The whole new path, with [`PathModifierType::ReplaceFullPath`].
        pub replace_full_path: Option<Arc<str>> = "replaceFullPath",
        /// What comes in place of the prefix that the match named, with [`PathModifierType::ReplacePrefixMatch`].
        pub replace_prefix_match: Option<Arc<str>> = "replacePrefixMatch",
    }
    ignored []
}

open_enum! {
    /// Which part of a path is replaced.
    pub enum PathModifierType {
        /// The whole path.
        ReplaceFullPath = "ReplaceFullPath",
        /// The matched prefix.
        ReplacePrefixMatch = "ReplacePrefixMatch",
    }
    default ReplaceFullPath
}

manifest! {
    /// A weighted backend.
    pub struct BackendRef {
        /// API group.
        pub group: Arc<str> = "group",
        /// Kind.
        pub kind: Arc<str> = "kind" => or("Service".into()),
        /// Namespace; `None`: the route's.
        pub namespace: Option<Arc<str>> = "namespace",
        /// Name.
        pub name: Arc<str> = "name" => required,
        /// Port; required for the kinds that Veer knows.
        pub port: Option<u16> = "port",
        /// Share among the rule's backends.
        pub weight: u32 = "weight" => or(1),
        /// What is done to requests for this backend.
        pub filters: Vec<RouteFilter> = "filters",
    }
    ignored []
}

impl BackendRef {
    /// Which of the kinds that Veer knows it names.
    pub fn target(&self) -> Option<TargetKind> {
        TargetKind::of(&self.group, &self.kind)
    }

    /// Whether it names an XBackend.
    pub fn is_xbackend(&self) -> bool {
        &*self.group == super::EXPERIMENTAL_GROUP && &*self.kind == "XBackend"
    }
}

manifest! {
    /// Limits on time (GEP-1742). Zero: no limit.
    #[derive(Default)]
    pub struct RouteTimeouts {
        /// The whole request, all tries together.
        pub request: Option<Duration> = "request",
        /// One try.
        pub backend_request: Option<Duration> = "backendRequest",
    }
    ignored []
}

manifest! {
    /// What is retried (GEP-1731).
    #[derive(Default)]
    pub struct RouteRetry {
        /// Response codes.
        pub codes: Vec<u16> = "codes",
        /// Tries after the first.
        pub attempts: Option<u32> = "attempts",
        /// Least wait between tries.
        pub backoff: Option<Duration> = "backoff",
    }
    ignored []
}

manifest! {
    /// Sessions (GEP-1619).
    #[derive(Default)]
    pub struct SessionSpec {
        /// Name of the cookie or the header field; `None`: made from the name of the route or the service.
        pub session_name: Option<Arc<str>> = "sessionName",
        /// What carries the token.
        pub session_type: SessionType = "type",
        /// Oldest session.
        pub absolute_timeout: Option<Duration> = "absoluteTimeout",
        /// More about the cookie.
        pub cookie_config: Option<CookieConfig> = "cookieConfig",
    }
    ignored []
}

impl SessionSpec {
    /// What it means; `owner` stands for whatever it was written in, and makes its default name. `None` for what this version
    /// does not know.
    pub fn session(&self, owner: &str) -> Option<SessionPersistence> {
        let lifetime = self.cookie_config.as_ref().map(|config| &config.lifetime_type);
        let carrier = match (&self.session_type, lifetime) {
            (SessionType::Header, _) => SessionCarrier::Header,
            (SessionType::Cookie, None | Some(CookieLifetime::Session)) => SessionCarrier::Cookie,
            (SessionType::Cookie, Some(CookieLifetime::Permanent)) => SessionCarrier::PermanentCookie,
            (SessionType::Cookie, Some(CookieLifetime::Unknown(_))) | (SessionType::Unknown(_), _) => return None,
        };
        let name = match &self.session_name {
            Some(name) if carrier == SessionCarrier::Header => name.to_ascii_lowercase().into(),
            Some(name) => Arc::clone(name),
            None => format!("veer-session-{:08x}", stable_hash(owner) as u32).into(),
        };
        let absolute_timeout = self.absolute_timeout.filter(|limit| !limit.is_zero());
        Some(SessionPersistence { name, carrier, absolute_timeout })
    }
}

open_enum! {
    /// What carries a session's token.
    pub enum SessionType {
        /// A cookie.
        Cookie = "Cookie",
        /// A header field.
        Header = "Header",
    }
    default Cookie
}

manifest! {
    /// The cookie of a session.
    #[derive(Default)]
    pub struct CookieConfig {
        /// How long a browser keeps it.
        pub lifetime_type: CookieLifetime = "lifetimeType",
    }
    ignored []
}

open_enum! {
    /// How long a browser keeps a cookie.
    pub enum CookieLifetime {
        /// As long as its own session.
        Session = "Session",
        /// Until the absolute timeout.
        Permanent = "Permanent",
    }
    default Session
}

manifest! {
    /// `spec` of a GRPCRoute.
    #[derive(Default)]
    pub struct GrpcRouteSpec {
        /// What it attaches to.
        pub parent_refs: Vec<ParentRef> = "parentRefs",
        /// Hosts it is for; with a Service as parent it has no meaning and is reported.
        pub hostnames: Vec<Arc<str>> = "hostnames",
        /// Its rules.
        pub rules: Vec<GrpcRouteRule> = "rules",
    }
    ignored ["useDefaultGateways"]
}

manifest! {
    /// A rule of a GRPCRoute.
    #[derive(Default)]
    pub struct GrpcRouteRule {
        /// Its name.
        pub name: Option<Arc<str>> = "name",
        /// Alternatives; empty: everything.
        pub matches: Vec<GrpcRouteMatch> = "matches",
        /// What is done to requests, in this order.
        pub filters: Vec<RouteFilter> = "filters",
        /// Where they go.
        pub backend_refs: Vec<BackendRef> = "backendRefs",
        /// Limits on time; not in the Gateway API's GRPCRoute yet (GEP-1742 foresees it), accepted here in the same words.
        pub timeouts: RouteTimeouts = "timeouts",
        /// What is retried; as [`Self::timeouts`].
        pub retry: Option<RouteRetry> = "retry",
        /// Requests of one session go to one endpoint.
        pub session_persistence: Option<SessionSpec> = "sessionPersistence",
    }
    ignored []
}

manifest! {
    /// Conditions of a GRPCRoute that must all hold.
    #[derive(Default)]
    pub struct GrpcRouteMatch {
        /// On service and method.
        pub method: Option<GrpcMethodRule> = "method",
        /// On metadata.
        pub headers: Vec<ValueRule> = "headers",
    }
    ignored []
}

manifest! {
    /// A condition on service and method; at least one is written.
    #[derive(Default)]
    pub struct GrpcMethodRule {
        /// How they are compared.
        pub match_type: ValueMatchType = "type",
        /// Fully qualified service.
        pub service: Option<Arc<str>> = "service",
        /// Method.
        pub method: Option<Arc<str>> = "method",
    }
    ignored []
}

manifest! {
    /// `spec` of a TCPRoute.
    #[derive(Default)]
    pub struct TcpRouteSpec {
        /// What it attaches to.
        pub parent_refs: Vec<ParentRef> = "parentRefs",
        /// Its rules; upstream allows one.
        pub rules: Vec<TcpRouteRule> = "rules" => required,
    }
    ignored ["useDefaultGateways"]
}

manifest! {
    /// A rule of a TCPRoute.
    #[derive(Default)]
    pub struct TcpRouteRule {
        /// Its name.
        pub name: Option<Arc<str>> = "name",
        /// Where connections go.
        pub backend_refs: Vec<BackendRef> = "backendRefs" => required,
    }
    ignored []
}

manifest! {
    /// `spec` of a ReferenceGrant: objects of other namespaces that may refer to objects of this one.
    #[derive(Default)]
    pub struct ReferenceGrantSpec {
        /// Who may refer.
        pub from: Vec<GrantFrom> = "from" => required,
        /// To what.
        pub to: Vec<GrantTo> = "to" => required,
    }
    ignored []
}

manifest! {
    /// Who may refer.
    #[derive(Default)]
    pub struct GrantFrom {
        /// API group.
        pub group: Arc<str> = "group" => required,
        /// Kind.
        pub kind: Arc<str> = "kind" => required,
        /// Namespace.
        pub namespace: Arc<str> = "namespace" => required,
    }
    ignored []
}

manifest! {
    /// What may be referred to.
    #[derive(Default)]
    pub struct GrantTo {
        /// API group.
        pub group: Arc<str> = "group" => required,
        /// Kind.
        pub kind: Arc<str> = "kind" => required,
        /// Name; `None`: all of the kind.
        pub name: Option<Arc<str>> = "name",
    }
    ignored []
}
