//! Routes in the Gateway API's own terms. `veer-route` orders and matches them; nothing is translated in between.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::FaultRule;
use crate::names::{ClusterName, ObjectName, ServiceHost};
use crate::service::AppProtocol;

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
    /// Requests of one session go to one endpoint.
    #[serde(default)]
    pub session: Option<Arc<SessionPersistence>>,
    /// What a policy for the route says, in place of the service's policy.
    #[serde(default)]
    pub policy: Option<Arc<RulePolicy>>,
}

impl HttpRule {
    /// Shows every reference to a backend that the rule holds: those that serve, and those that filters name, also filters of
    /// single backends. Whoever judges or renames backends goes through here, so that none is forgotten.
    pub fn each_backend(&mut self, visit: &mut dyn FnMut(&mut Backend)) {
        fn of_filters(filters: &mut [Filter], visit: &mut dyn FnMut(&mut Backend)) {
            for filter in filters {
                match filter {
                    Filter::Mirror(mirror) => visit(&mut mirror.to),
                    Filter::ExternalAuth(auth) => visit(&mut auth.to),
                    _ => {}
                }
            }
        }
        of_filters(&mut self.filters, visit);
        for backend in &mut self.backends {
            visit(backend);
            of_filters(&mut backend.filters, visit);
        }
    }
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
    /// The whole path, by a [`Pattern`](crate::Pattern).
    Regex(Arc<str>),
    /// As [`PathMatch::Grpc`], both by a [`Pattern`](crate::Pattern).
    GrpcRegex {
        /// Fully qualified service, when given.
        service: Option<Arc<str>>,
        /// Method, when given.
        method: Option<Arc<str>>,
    },
    /// A condition that only a newer version knows: it holds for every path, and its rule answers 500.
    #[serde(untagged)]
    Unknown(Foreign),
}

/// A condition on a named value (header, query parameter).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueMatch {
    /// Name.
    pub name: Arc<str>,
    /// The value, or a [`Pattern`](crate::Pattern).
    pub value: Arc<str>,
    /// How it is compared.
    #[serde(default)]
    pub by: Comparison,
}

impl ValueMatch {
    /// A condition that exactly this value meets.
    pub fn exact(name: &str, value: &str) -> Self {
        Self { name: name.into(), value: value.into(), by: Comparison::Exact }
    }

    /// A condition that values meet which the pattern holds for as a whole.
    pub fn regex(name: &str, pattern: &str) -> Self {
        Self { name: name.into(), value: pattern.into(), by: Comparison::Regex }
    }
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// Byte by byte.
    #[default]
    Exact,
    /// The whole value, by a [`Pattern`](crate::Pattern).
    Regex,
    /// In a way that only a newer version knows: the condition holds, and its rule answers 500.
    #[serde(other)]
    Unknown,
}

/// Stands for something that a newer version said; what it was is not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Foreign;

impl Serialize for Foreign {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("unknown")
    }
}

impl<'de> Deserialize<'de> for Foreign {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Foreign)
    }
}

/// A filter of a rule or of a backend. Kinds that the control plane does not know become [`Filter::Fail`], because a filter that
/// is not understood must not be skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Sends a copy of the request elsewhere.
    Mirror(Mirror),
    /// Answers for other origins (GEP-1767).
    Cors(Cors),
    /// Asks a service whether the request may pass (GEP-1494).
    ExternalAuth(ExternalAuth),
    /// A filter that only a newer version knows: answers 500.
    #[serde(untagged)]
    Unknown(Foreign),
}

/// A service that says whether a request may pass, over HTTP (GEP-1494): 200 is yes, everything else is the answer to give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAuth {
    /// Who is asked; its weight means nothing. A wrong reference fails the request.
    pub to: Box<Backend>,
    /// It is asked by Envoy's ext_authz over gRPC, else by an HTTP request like the one in question.
    #[serde(default)]
    pub grpc: bool,
    /// What stands before the request's path when it is asked for; over HTTP.
    #[serde(default)]
    pub path: Option<Arc<str>>,
    /// Request fields, lower case, that it sees beside `Host`, `Authorization` and `Content-Length`; over gRPC none named: all.
    #[serde(default)]
    pub request_headers: Vec<Arc<str>>,
    /// Fields of a yes over HTTP, lower case, that go on with the request; none named: all that do not describe the yes itself.
    #[serde(default)]
    pub response_headers: Vec<Arc<str>>,
    /// Most bytes of the body that it sees; larger bodies are refused. 0: it sees none.
    #[serde(default)]
    pub body_limit: u32,
}

/// Copies of requests (GEP-3171). Answers to them are dropped; a wrong reference drops the copy, not the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Where copies go; its weight means nothing.
    pub to: Box<Backend>,
    /// Of [`Self::denominator`] requests so many are copied.
    pub numerator: u32,
    /// At least 1.
    pub denominator: u32,
}

/// Sharing with other origins (Fetch standard, GEP-1767).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cors {
    /// `*`, or `scheme://host[:port]`, where `*` at the head of the host stands for any labels.
    pub allow_origins: Vec<Arc<str>>,
    /// Methods beside GET, HEAD and POST; `*`: all.
    pub allow_methods: Vec<Arc<str>>,
    /// Request fields; `*`: all.
    pub allow_headers: Vec<Arc<str>>,
    /// Response fields that scripts may see; `*`: all, without credentials.
    pub expose_headers: Vec<Arc<str>>,
    /// Whether requests may carry cookies and the like.
    pub allow_credentials: bool,
    /// Seconds for which a browser may keep the answer to a preflight; `None`: 5 (Gateway API).
    pub max_age: Option<u32>,
}

/// Set, add and remove header fields, in this order of the Gateway API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderChange {
    /// Overwrites.
    #[serde(default)]
    pub set: Vec<HeaderField>,
    /// Appends.
    #[serde(default)]
    pub add: Vec<HeaderField>,
    /// Names, lower case.
    #[serde(default)]
    pub remove: Vec<Arc<str>>,
}

/// A header field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderField {
    /// Name, lower case.
    pub name: Arc<str>,
    /// Value.
    pub value: Arc<str>,
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
    /// What is done to requests for this backend alone, after the rule's filters.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// What that port speaks (GEP-1911); `None`: as the port that the request came for.
    #[serde(default)]
    pub protocol: Option<AppProtocol>,
}

/// Limits on time of a rule (GEP-1742). `None` and zero: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From the first byte of the request to the last of the response, all tries together.
    #[serde(default)]
    pub request: Option<Duration>,
    /// One try, to the last byte of its response; behind the head, when it can no more be tried again, the response breaks off.
    #[serde(default)]
    pub backend_request: Option<Duration>,
}

/// What a policy for a route says; it stands over the same fields of the policy of whatever service a rule leads to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RulePolicy {
    /// One try, to the response's head, when the rule itself sets nothing. Zero: no limit; `None`: as the service's policy says.
    pub try_timeout: Option<Duration>,
    /// Faults injected on purpose; empty: as the service's policy says.
    pub faults: Vec<FaultRule>,
    /// Who wrote it, such as `TrafficPolicy shop/canary`.
    pub by: Arc<str>,
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

/// Sessions that stay with one endpoint as long as it can serve (GEP-1619).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPersistence {
    /// Name of the cookie, or of the header field in lower case.
    pub name: Arc<str>,
    /// What carries the session's token.
    #[serde(default)]
    pub carrier: SessionCarrier,
    /// A session that is older is none any more.
    #[serde(default)]
    pub absolute_timeout: Option<Duration>,
}

/// What carries a session's token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionCarrier {
    /// A cookie that ends with the browser's session.
    #[default]
    Cookie,
    /// A cookie that the browser keeps until the absolute timeout.
    PermanentCookie,
    /// A header field: the client sends back what the first answer said.
    Header,
    /// Something that only a newer version knows: there are no sessions then.
    #[serde(other)]
    Unknown,
}

/// A TCPRoute attached to a service port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRoute {
    /// The object that said so.
    pub name: ObjectName,
    /// Set for a consumer route (see [`HttpRoute::consumer_namespace`]).
    #[serde(default)]
    pub consumer_namespace: Option<Arc<str>>,
    /// The peer whose export this route came with; `None`: written in this cluster.
    #[serde(default)]
    pub owner: Option<ClusterName>,
    /// Inside an [`Offer`](crate::Offer): the service port that it is attached to, `None`: all of them.
    #[serde(default)]
    pub parent_port: Option<u16>,
    /// Weighted backends, chosen per connection.
    pub backends: Vec<Backend>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_version_says_is_unknown_and_never_lost() {
        let rule = r#"{
            "matches": [
                {"path": {"wildcard": {"of": "/a"}}, "headers": [{"name": "a", "value": "b", "by": "prefix"}]},
                {"path": {"exact": "/a"}, "headers": [{"name": "a", "value": "b"}]}
            ],
            "filters": [{"quota": {"per": "second"}}, "quiet", {"fail": {"status": 500, "reason": "x"}}, {"rewrite": {}}]
        }"#;
        let rule: HttpRule = serde_json::from_str(rule).unwrap();
        assert_eq!(rule.matches[0].path, Some(PathMatch::Unknown(Foreign)));
        assert_eq!(rule.matches[0].headers[0].by, Comparison::Unknown);
        assert_eq!(rule.matches[1].path, Some(PathMatch::Exact("/a".into())));
        assert_eq!(rule.matches[1].headers[0], ValueMatch::exact("a", "b"));
        assert_eq!(rule.filters[..2], [Filter::Unknown(Foreign), Filter::Unknown(Foreign)]);
        assert_eq!(rule.filters[2], Filter::Fail { status: 500, reason: "x".into() });
        assert_eq!(rule.filters[3], Filter::Rewrite { host: None, path: None });
        // It stays unknown wherever it travels.
        let again: HttpRule = serde_json::from_str(&serde_json::to_string(&rule).unwrap()).unwrap();
        assert_eq!(again, rule);
    }

    #[test]
    fn every_backend_is_shown() {
        let backend = |host: &str, filters| Backend {
            host: ServiceHost::new(host).unwrap(),
            port: 80,
            weight: 1,
            invalid: None,
            filters,
            protocol: None,
        };
        let mirror =
            |host| Filter::Mirror(Mirror { to: Box::new(backend(host, vec![])), numerator: 1, denominator: 1 });
        let mut rule = HttpRule {
            filters: vec![mirror("a.shop")],
            backends: vec![backend("b.shop", vec![mirror("c.shop")])],
            ..HttpRule::default()
        };
        let mut seen = Vec::new();
        rule.each_backend(&mut |backend| seen.push(backend.host.to_string()));
        assert_eq!(seen, ["a.shop", "b.shop", "c.shop"]);
    }
}
