//! TrafficPolicy and AuthorizationPolicy.

use std::sync::Arc;
use std::time::Duration;

use veer_core::ClusterName;
use veer_core::fault::FaultRule;
use veer_core::policy::{self, AuthorizationAction};

use crate::decode::manifest;
use crate::object::KindName;
use crate::types::{ConsistentHashSpec, FaultSpec, GATEWAY_GROUP, Labels, RateLimitSpec, SessionSpec, TargetKind};

manifest! {
    /// `spec` of a TrafficPolicy, with the fields of [`veer_core::policy::TrafficPolicy`]; what is not written is as a less
    /// specific policy says, else the default there.
    pub struct TrafficPolicySpec {
        /// What it is for (see [`PolicyTarget::policed`]).
        pub target_ref: PolicyTarget = "targetRef" => required,
        /// See [`veer_core::policy::TrafficPolicy::slow_start`].
        pub slow_start: Option<Duration> = "slowStart",
        /// See [`veer_core::policy::TrafficPolicy::outlier`].
        pub outlier: OutlierSpec = "outlier",
        /// See [`veer_core::policy::TrafficPolicy::circuit_breaker`].
        pub circuit_breaker: CircuitBreakerSpec = "circuitBreaker",
        /// See [`veer_core::policy::TrafficPolicy::retry_budget`].
        pub retry_budget: RetryBudgetSpec = "retryBudget",
        /// See [`veer_core::policy::TrafficPolicy::locality`].
        pub locality: LocalitySpec = "locality",
        /// See [`veer_core::policy::TrafficPolicy::try_timeout`].
        pub try_timeout: Option<Duration> = "tryTimeout",
        /// See [`veer_core::policy::TrafficPolicy::hash`].
        pub consistent_hash: Option<ConsistentHashSpec> = "consistentHash",
        /// Limits at the callee: the proxies of the service's Workloads in this cluster enforce them.
        pub rate_limits: Vec<RateLimitSpec> = "rateLimits",
        /// See [`veer_core::policy::TrafficPolicy::faults`].
        pub faults: Vec<FaultSpec> = "faults",
    }
    ignored []
}

impl TrafficPolicySpec {
    /// Puts what is written over what a less specific policy said, or the default; lists as a whole. `by` names the policy.
    pub fn apply(&self, by: &Arc<str>, to: &mut policy::TrafficPolicy) {
        set(&mut to.slow_start, &self.slow_start);
        set(&mut to.outlier.consecutive_failures, &self.outlier.consecutive_failures);
        set(&mut to.outlier.failure_ratio, &self.outlier.failure_ratio);
        set(&mut to.outlier.minimum_requests, &self.outlier.minimum_requests);
        set(&mut to.outlier.interval, &self.outlier.interval);
        set(&mut to.outlier.base_ejection, &self.outlier.base_ejection);
        set(&mut to.outlier.max_ejection, &self.outlier.max_ejection);
        set(&mut to.outlier.max_ejected_ratio, &self.outlier.max_ejected_ratio);
        set(&mut to.circuit_breaker.max_requests_per_endpoint, &self.circuit_breaker.max_requests_per_endpoint);
        set(&mut to.circuit_breaker.max_requests, &self.circuit_breaker.max_requests);
        let adaptive = |written: &AdaptiveSpec| policy::Adaptive {
            latency: written.latency,
            min_requests: written.min_requests.unwrap_or(4).max(1),
        };
        replace(&mut to.circuit_breaker.adaptive, self.circuit_breaker.adaptive.as_ref().map(adaptive));
        set(&mut to.retry_budget.ratio, &self.retry_budget.ratio);
        set(&mut to.retry_budget.interval, &self.retry_budget.interval);
        set(&mut to.retry_budget.min_per_second, &self.retry_budget.min_per_second);
        set(&mut to.locality.local_first, &self.locality.local_first);
        set(&mut to.locality.overprovisioning, &self.locality.overprovisioning);
        set(&mut to.locality.target_utilisation, &self.locality.target_utilisation);
        let weight = |w: &ClusterWeightSpec| policy::ClusterWeight { cluster: w.cluster.clone(), weight: w.weight };
        replace_list(&mut to.locality.weights, self.locality.weights.iter().map(weight).collect());
        if let Some(limit) = self.try_timeout {
            to.try_timeout = (!limit.is_zero()).then_some(limit);
        }
        replace(&mut to.hash, self.consistent_hash.as_ref().and_then(ConsistentHashSpec::policy).map(Arc::new));
        replace_list(&mut to.faults, self.faults(by));
        // What is right in each of two policies may not fit together.
        to.outlier.base_ejection = to.outlier.base_ejection.min(to.outlier.max_ejection);
        if let Some(adaptive) = &mut to.circuit_breaker.adaptive {
            adaptive.min_requests = adaptive.min_requests.min(to.circuit_breaker.max_requests);
        }
    }

    /// The faults that it injects.
    pub fn faults(&self, by: &Arc<str>) -> Vec<FaultRule> {
        self.faults.iter().map(|fault| fault.rule(by)).collect()
    }

    /// Fields that are written and mean nothing at a route: they are about the service as a whole, and whoever serves it.
    pub fn unfit_for_routes(&self) -> Vec<&'static str> {
        let written = [
            ("slowStart", self.slow_start.is_some()),
            ("outlier", self.outlier != OutlierSpec::default()),
            ("circuitBreaker", self.circuit_breaker != CircuitBreakerSpec::default()),
            ("retryBudget", self.retry_budget != RetryBudgetSpec::default()),
            ("locality", self.locality != LocalitySpec::default()),
            ("consistentHash", self.consistent_hash.is_some()),
            ("rateLimits", !self.rate_limits.is_empty()),
        ];
        written.into_iter().filter(|(_, written)| *written).map(|(field, _)| field).collect()
    }
}

fn replace<T>(to: &mut Option<T>, written: Option<T>) {
    if written.is_some() {
        *to = written;
    }
}

fn replace_list<T>(to: &mut Vec<T>, written: Vec<T>) {
    if !written.is_empty() {
        *to = written;
    }
}

fn set<T: Clone>(to: &mut T, written: &Option<T>) {
    if let Some(value) = written {
        *to = value.clone();
    }
}

manifest! {
    /// `spec` of an XBackendTrafficPolicy (GEP-3388, GEP-1619).
    pub struct BackendTrafficPolicySpec {
        /// The services that it is for.
        pub target_refs: Vec<PolicyTarget> = "targetRefs" => required,
        /// Retries among requests.
        pub retry_constraint: Option<RetryConstraint> = "retryConstraint",
        /// Sessions.
        pub session_persistence: Option<SessionSpec> = "sessionPersistence",
    }
    ignored []
}

manifest! {
    /// Retries among requests.
    #[derive(Default)]
    pub struct RetryConstraint {
        /// A share of the requests.
        pub budget: RetryShare = "budget",
        /// What is allowed whatever the share is.
        pub min_retry_rate: RetryRate = "minRetryRate",
    }
    ignored []
}

manifest! {
    /// Retries as a share of requests.
    #[derive(Default)]
    pub struct RetryShare {
        /// Of 100 requests; `None`: 20.
        pub percent: Option<u32> = "percent",
        /// Window; `None`: 10 s.
        pub interval: Option<Duration> = "interval",
    }
    ignored []
}

manifest! {
    /// Retries in a time.
    #[derive(Default)]
    pub struct RetryRate {
        /// How many; `None`: 10.
        pub count: Option<u32> = "count",
        /// In which time; `None`: 1 s.
        pub interval: Option<Duration> = "interval",
    }
    ignored []
}

impl BackendTrafficPolicySpec {
    /// Puts what is written into the policy of a service; `service` makes the default name of sessions.
    pub fn apply(&self, service: &str, to: &mut policy::TrafficPolicy) {
        if let Some(constraint) = &self.retry_constraint {
            let (budget, rate) = (&constraint.budget, &constraint.min_retry_rate);
            let default = policy::RetryBudget::default();
            let time = rate.interval.filter(|time| !time.is_zero()).unwrap_or(Duration::from_secs(1));
            to.retry_budget = policy::RetryBudget {
                ratio: budget.percent.map_or(default.ratio, |percent| f64::from(percent) / 100.0),
                interval: budget.interval.filter(|time| !time.is_zero()).unwrap_or(default.interval),
                min_per_second: f64::from(rate.count.unwrap_or(10)) / time.as_secs_f64(),
                answers: true,
            };
        }
        if let Some(session) = self.session_persistence.as_ref().and_then(|written| written.session(service)) {
            to.session = Some(Arc::new(session));
        }
    }
}

manifest! {
    /// What a policy is for, in the policy's own namespace.
    pub struct PolicyTarget {
        /// API group; may be left out.
        pub group: Option<Arc<str>> = "group",
        /// `Service` or `ServiceImport`; of a TrafficPolicy also `Namespace`, `HTTPRoute` or `GRPCRoute`.
        pub kind: Arc<str> = "kind" => or("Service".into()),
        /// Name.
        pub name: Arc<str> = "name" => required,
    }
    ignored []
}

impl PolicyTarget {
    /// What a TrafficPolicy is for; `None` was reported as an error.
    pub fn policed(&self) -> Option<KindName> {
        match (self.group.as_deref(), &*self.kind) {
            (None | Some("" | "core"), "Namespace") => Some(KindName::Namespace),
            (None | Some(GATEWAY_GROUP), "HTTPRoute") => Some(KindName::HttpRoute),
            (None | Some(GATEWAY_GROUP), "GRPCRoute") => Some(KindName::GrpcRoute),
            _ => self.target().map(TargetKind::kind_name),
        }
    }

    /// Which kind of service it names, if any.
    pub fn target(&self) -> Option<TargetKind> {
        match (self.group.as_deref(), &*self.kind) {
            (None, "Service") => Some(TargetKind::Service),
            (None, "ServiceImport") => Some(TargetKind::ServiceImport),
            (Some(group), kind) => TargetKind::of(group, kind),
            _ => None,
        }
    }
}

manifest! {
    /// See [`veer_core::policy::OutlierPolicy`].
    #[derive(Default)]
    pub struct OutlierSpec {
        /// Failures in a row that eject.
        pub consecutive_failures: Option<u32> = "consecutiveFailures",
        /// Share of failures that ejects.
        pub failure_ratio: Option<f64> = "failureRatio",
        /// Least requests for the share to count.
        pub minimum_requests: Option<u32> = "minimumRequests",
        /// Window of the share.
        pub interval: Option<Duration> = "interval",
        /// First ejection.
        pub base_ejection: Option<Duration> = "baseEjection",
        /// Longest ejection.
        pub max_ejection: Option<Duration> = "maxEjection",
        /// Most endpoints ejected.
        pub max_ejected_ratio: Option<f64> = "maxEjectedRatio",
    }
    ignored []
}

manifest! {
    /// See [`veer_core::policy::CircuitBreaker`].
    #[derive(Default)]
    pub struct CircuitBreakerSpec {
        /// Requests in flight to one endpoint.
        pub max_requests_per_endpoint: Option<u32> = "maxRequestsPerEndpoint",
        /// Requests in flight to the service.
        pub max_requests: Option<u32> = "maxRequests",
        /// Requests in flight follow the latency.
        pub adaptive: Option<AdaptiveSpec> = "adaptive",
    }
    ignored []
}

manifest! {
    /// See [`policy::Adaptive`].
    pub struct AdaptiveSpec {
        /// Average latency up to which more is let in.
        pub latency: Duration = "latency" => required,
        /// Requests that may always be in flight; `None`: 4.
        pub min_requests: Option<u32> = "minRequests",
    }
    ignored []
}

manifest! {
    /// See [`veer_core::policy::RetryBudget`].
    #[derive(Default)]
    pub struct RetryBudgetSpec {
        /// Retries as a share of requests.
        pub ratio: Option<f64> = "ratio",
        /// Window.
        pub interval: Option<Duration> = "interval",
        /// Always allowed, per second.
        pub min_per_second: Option<f64> = "minPerSecond",
    }
    ignored []
}

manifest! {
    /// See [`veer_core::policy::LocalityPolicy`].
    #[derive(Default)]
    pub struct LocalitySpec {
        /// Local first.
        pub local_first: Option<bool> = "localFirst",
        /// Factor on the health share.
        pub overprovisioning: Option<f64> = "overprovisioning",
        /// Utilisation up to which load stays local.
        pub target_utilisation: Option<f64> = "targetUtilisation",
        /// Weights between clusters.
        pub weights: Vec<ClusterWeightSpec> = "weights",
    }
    ignored []
}

manifest! {
    /// A weight between clusters.
    pub struct ClusterWeightSpec {
        /// The cluster.
        pub cluster: ClusterName = "cluster" => required,
        /// Its share.
        pub weight: u32 = "weight" => required,
    }
    ignored []
}

manifest! {
    /// `spec` of an AuthorizationPolicy. Unknown fields in it are errors: a condition that is not understood must not widen
    /// what is allowed.
    pub struct AuthorizationPolicySpec {
        /// The workloads of its namespace that it is for; `None`: all.
        pub selector: Option<WorkloadSelector> = "selector",
        /// What a matching rule does.
        pub action: AuthorizationAction = "action" => or(AuthorizationAction::Allow),
        /// Alternatives. ALLOW without rules allows nobody.
        pub rules: Vec<AuthorizationRuleSpec> = "rules",
    }
    ignored []
}

impl AuthorizationPolicySpec {
    /// What stands in for a policy that could not be read: nobody is allowed.
    pub fn nobody(selector: Option<WorkloadSelector>) -> Self {
        Self { selector, action: AuthorizationAction::Allow, rules: Vec::new() }
    }

    /// Whether a workload of the policy's namespace is selected.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_none_or(|s| s.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value)))
    }

    /// The policy as callees enforce it; `name` is that of the object.
    pub fn policy(&self, name: &veer_core::ObjectName) -> policy::AuthorizationPolicy {
        policy::AuthorizationPolicy {
            name: name.to_string().into(),
            action: self.action,
            rules: self.rules.iter().map(AuthorizationRuleSpec::rule).collect(),
        }
    }
}

manifest! {
    /// Selects workloads by labels, all of which must be there; empty: all workloads.
    #[derive(Default)]
    pub struct WorkloadSelector {
        /// The labels.
        pub match_labels: Labels = "matchLabels",
    }
    ignored []
}

manifest! {
    /// See [`veer_core::policy::AuthorizationRule`].
    #[derive(Default)]
    pub struct AuthorizationRuleSpec {
        /// Callers; empty: all.
        pub from: Vec<CallerSpec> = "from",
        /// Requests; empty: all.
        pub to: Vec<RequestSpec> = "to",
    }
    ignored []
}

impl AuthorizationRuleSpec {
    fn rule(&self) -> policy::AuthorizationRule {
        let from = |caller: &CallerSpec| policy::CallerMatch {
            principals: caller.principals.clone(),
            namespaces: caller.namespaces.clone(),
            trust_domains: caller.trust_domains.clone(),
        };
        let to = |request: &RequestSpec| policy::RequestMatch {
            ports: request.ports.clone(),
            methods: request.methods.clone(),
            paths: request.paths.clone(),
        };
        policy::AuthorizationRule { from: self.from.iter().map(from).collect(), to: self.to.iter().map(to).collect() }
    }
}

manifest! {
    /// See [`veer_core::policy::CallerMatch`].
    #[derive(Default)]
    pub struct CallerSpec {
        /// SPIFFE IDs; `*` at the end stands for any rest.
        pub principals: Vec<Arc<str>> = "principals",
        /// Namespaces of this cluster's callers.
        pub namespaces: Vec<Arc<str>> = "namespaces",
        /// Trust domains.
        pub trust_domains: Vec<Arc<str>> = "trustDomains",
    }
    ignored []
}

manifest! {
    /// See [`veer_core::policy::RequestMatch`].
    #[derive(Default)]
    pub struct RequestSpec {
        /// Ports of the workload.
        pub ports: Vec<u16> = "ports",
        /// HTTP methods.
        pub methods: Vec<Arc<str>> = "methods",
        /// Paths; `*` at the end stands for any rest.
        pub paths: Vec<Arc<str>> = "paths",
    }
    ignored []
}
