//! Routes in the Gateway API's own terms. `veer-route` orders and matches them; nothing is translated in between.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{ClusterName, ObjectName, ServiceHost};

/// An HTTPRoute or GRPCRoute attached to a service port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpRoute {
    /// The object that said so.
    pub name: ObjectName,
    /// Which kind it came from.
    #[serde(default)]
    pub kind: RouteKind,
    /// `metadata.creationTimestamp` (RFC 3339), when there is one: the older route wins a tie, then the smaller name.
    #[serde(default)]
    pub created: Option<Arc<str>>,
    /// Set for a *consumer* route (GAMMA): written in another namespace than the service's, it acts only for callers of that
    /// namespace, and for them instead of the producer's routes. `None`: a *producer* route, for everybody else.
    #[serde(default)]
    pub consumer_namespace: Option<Arc<str>>,
    /// The peer whose export this route came with; `None`: written in this cluster.
    #[serde(default)]
    pub owner: Option<ClusterName>,
    /// Inside an [`Offer`](crate::Offer): the service port it is attached to, `None`: all of them. Inside a
    /// [`ServicePort`](crate::ServicePort) it is attached already, and this says nothing new.
    #[serde(default)]
    pub parent_port: Option<u16>,
    /// Rules, in the order written.
    #[serde(default)]
    pub rules: Vec<HttpRule>,
}

/// The kind of a route object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteKind {
    /// `HTTPRoute`
    #[default]
    Http,
    /// `GRPCRoute`
    Grpc,
}

/// One rule: if any match holds, the filters act and one of the backends serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpRule {
    /// `name` of the rule, when written.
    #[serde(default)]
    pub name: Option<Arc<str>>,
    /// Alternatives; empty means everything.
    #[serde(default)]
    pub matches: Vec<HttpMatch>,
    /// In the order written.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// Weighted; all of weight 0, or none, answers 500 (Gateway API).
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// Limits on time.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What is retried beyond Veer's own safe retries.
    #[serde(default)]
    pub retry: Option<Retry>,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpMatch {
    /// On the path; `None` matches every path.
    #[serde(default)]
    pub path: Option<PathMatch>,
    /// Exact method, upper case.
    #[serde(default)]
    pub method: Option<Arc<str>>,
    /// All must hold; names are lower case and unique.
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
    /// All must hold; names are case-sensitive and unique.
    #[serde(default)]
    pub query: Vec<ValueMatch>,
}

/// A condition on the path of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathMatch {
    /// The whole path.
    Exact(Arc<str>),
    /// Whole path elements: `/a` holds for `/a` and `/a/b`, never for `/ab`.
    Prefix(Arc<str>),
    /// Some text in the method's place of a gRPC path: `/<service>/…` (service only) when method is absent, or any service
    /// with that method.
    Grpc {
        /// Fully qualified service, when given.
        service: Option<Arc<str>>,
        /// Method, when given.
        method: Option<Arc<str>>,
    },
}

/// A condition on a named value (header, query parameter).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueMatch {
    /// Name.
    pub name: Arc<str>,
    /// Exact value.
    pub value: Arc<str>,
}

/// A filter of a rule. Kinds this version does not know never reach a proxy: compile replaces the rule's backends by
/// [`Filter::Fail`], because a filter that is not understood must not be skipped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// Changes the request's fields.
    RequestHeaders(HeaderChange),
    /// Changes the response's fields.
    ResponseHeaders(HeaderChange),
    /// Answers with a redirect.
    Redirect {
        /// `http` or `https`.
        #[serde(default)]
        scheme: Option<Arc<str>>,
        /// Host of the new location.
        #[serde(default)]
        host: Option<Arc<str>>,
        /// Port of the new location.
        #[serde(default)]
        port: Option<u16>,
        /// Replacement of the path.
        #[serde(default)]
        path: Option<PathChange>,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// Changes the request before it is sent.
    Rewrite {
        /// New `Host`/`:authority`.
        #[serde(default)]
        host: Option<Arc<str>>,
        /// Replacement of the path.
        #[serde(default)]
        path: Option<PathChange>,
    },
    /// Answers with this status; the text says why in the access log.
    Fail {
        /// HTTP status.
        status: u16,
        /// Reason, for logs and `veer routes`.
        reason: Arc<str>,
    },
}

/// Set, add and remove header fields, in this order of the Gateway API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderChange {
    /// Overwrites.
    #[serde(default)]
    pub set: Vec<ValueMatch>,
    /// Appends.
    #[serde(default)]
    pub add: Vec<ValueMatch>,
    /// Names, lower case.
    #[serde(default)]
    pub remove: Vec<Arc<str>>,
}

/// A replacement of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathChange {
    /// The whole path.
    Full(Arc<str>),
    /// The prefix that the rule's match named.
    Prefix(Arc<str>),
}

/// A weighted backend of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Service that serves; the name of its [`Endpoints`](crate::Endpoints).
    pub host: ServiceHost,
    /// Service port.
    pub port: u16,
    /// Share among the rule's backends; 0 gets nothing.
    pub weight: u32,
    /// Set when the reference is wrong (no such service or port, not permitted): its share answers 500 (Gateway API).
    #[serde(default)]
    pub invalid: Option<Arc<str>>,
}

/// Limits on time of a rule (GEP-1742). `None` and zero: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From the first byte of the request to the last of the response, all tries together.
    #[serde(default)]
    pub request: Option<Duration>,
    /// One try, to the response's head.
    #[serde(default)]
    pub backend_request: Option<Duration>,
}

/// What a rule retries (GEP-1731).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Response codes that are retried.
    #[serde(default)]
    pub codes: Vec<u16>,
    /// Tries after the first. `None`: the default of [`crate::policy::DEFAULT_RETRY_ATTEMPTS`].
    #[serde(default)]
    pub attempts: Option<u32>,
    /// Least wait between tries. `None`: [`crate::policy::DEFAULT_RETRY_BACKOFF`].
    #[serde(default)]
    pub backoff: Option<Duration>,
}

/// A TCPRoute attached to a service port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRoute {
    /// The object that said so.
    pub name: ObjectName,
    /// Set for a consumer route (see [`HttpRoute::consumer_namespace`]).
    #[serde(default)]
    pub consumer_namespace: Option<Arc<str>>,
    /// Weighted backends, chosen per connection.
    pub backends: Vec<Backend>,
}
