//! TrafficPolicy and AuthorizationPolicy.

use std::sync::Arc;
use std::time::Duration;

use veer_core::ClusterName;
use veer_core::fault::FaultRule;
use veer_core::policy::{self, AuthorizationAction};
use veer_core::rate::RateLimit;
use veer_core::written::Written;

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
    /// What is written; `by` names the policy. Lists that are empty say nothing.
    pub fn written(&self, by: &Arc<str>) -> Written {
        let (outlier, breaker, budget, locality) =
            (&self.outlier, &self.circuit_breaker, &self.retry_budget, &self.locality);
        let adaptive = |written: &AdaptiveSpec| policy::Adaptive {
            latency: written.latency,
            min_requests: written.min_requests.unwrap_or(4).max(1),
        };
        let weight = |w: &ClusterWeightSpec| policy::ClusterWeight { cluster: w.cluster.clone(), weight: w.weight };
        Written {
            slow_start: self.slow_start,
            consecutive_failures: outlier.consecutive_failures,
            failure_ratio: outlier.failure_ratio,
            minimum_requests: outlier.minimum_requests,
            outlier_interval: outlier.interval,
            base_ejection: outlier.base_ejection,
            max_ejection: outlier.max_ejection,
            max_ejected_ratio: outlier.max_ejected_ratio,
            max_requests_per_endpoint: breaker.max_requests_per_endpoint,
            max_requests: breaker.max_requests,
            adaptive: breaker.adaptive.as_ref().map(adaptive),
            retry_ratio: budget.ratio,
            retry_interval: budget.interval,
            retry_min_per_second: budget.min_per_second,
            retry_answers: None,
            local_first: locality.local_first,
            overprovisioning: locality.overprovisioning,
            target_utilisation: locality.target_utilisation,
            weights: some(locality.weights.iter().map(weight).collect()),
            try_timeout: self.try_timeout,
            session: None,
            hash: self.consistent_hash.as_ref().and_then(ConsistentHashSpec::policy).map(Arc::new),
            faults: some(self.faults(by)),
            limits: some(self.limits(by)),
            by: vec![Arc::clone(by)],
        }
    }

    /// The limits that callees enforce.
    pub fn limits(&self, by: &Arc<str>) -> Vec<RateLimit> {
        self.rate_limits.iter().map(|limit| limit.limit(by)).collect()
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

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
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
    /// What is written; `service` makes the default name of sessions, `by` names the policy.
    pub fn written(&self, service: &str, by: Arc<str>) -> Written {
        let mut word = Written { by: vec![by], ..Written::default() };
        if let Some(constraint) = &self.retry_constraint {
            let (budget, rate) = (&constraint.budget, &constraint.min_retry_rate);
            let default = policy::RetryBudget::default();
            let time = rate.interval.filter(|time| !time.is_zero()).unwrap_or(Duration::from_secs(1));
            word.retry_ratio = Some(budget.percent.map_or(default.ratio, |percent| f64::from(percent) / 100.0));
            word.retry_interval = Some(budget.interval.filter(|time| !time.is_zero()).unwrap_or(default.interval));
            word.retry_min_per_second = Some(f64::from(rate.count.unwrap_or(10)) / time.as_secs_f64());
            word.retry_answers = Some(true);
        }
        let session = self.session_persistence.as_ref().and_then(|written| written.session(service));
        word.session = session.map(Arc::new);
        word
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
