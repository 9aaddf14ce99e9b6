//! How a service is balanced and protected: Veer's own policy, where no standard has one.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::FaultRule;
use crate::hashing::ConsistentHash;
use crate::names::ClusterName;
use crate::rate::RateLimit;
use crate::route::SessionPersistence;

/// Tries after the first when a rule names codes but no number (GEP-1731 leaves it to implementations).
pub const DEFAULT_RETRY_ATTEMPTS: u32 = 2;
/// Least wait between tries.
pub const DEFAULT_RETRY_BACKOFF: Duration = Duration::from_millis(10);
/// How often a request of which nothing was sent is led elsewhere; not counted against the budget, capped all the same.
pub const DEFAULT_REROUTES: u32 = 4;
/// Default lease of a peer: how long its word is taken without hearing from it.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);

/// Balancing and protection of one service, at its callers. Every field has a default, so `TrafficPolicy::default()` is
/// what a service without a policy gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficPolicy {
    /// Time until a new or returned endpoint gets its whole share. Default 10 s; zero turns it off.
    pub slow_start: Duration,
    /// Ejection of endpoints that fail.
    pub outlier: OutlierPolicy,
    /// Limits towards the service, per calling proxy.
    pub circuit_breaker: CircuitBreaker,
    /// Budget for retries, per calling proxy.
    pub retry_budget: RetryBudget,
    /// How load leaves this cluster.
    pub locality: LocalityPolicy,
    /// One try, to the response's head, when the route sets nothing. Default none.
    pub try_timeout: Option<Duration>,
    /// Requests of one session go to one endpoint, when the route says nothing of sessions. Default none.
    pub session: Option<Arc<SessionPersistence>>,
    /// Requests with one key go to one endpoint; sessions stand over it. Default none.
    pub hash: Option<Arc<ConsistentHash>>,
    /// Faults injected on purpose; the first that holds acts. Default none.
    pub faults: Vec<FaultRule>,
    /// Limits that the proxies of the service's own Workloads enforce; callers only tell them. Default none.
    pub limits: Vec<RateLimit>,
    /// Who wrote it, most general first, such as `TrafficPolicy shop/cart`. Empty: nobody, these are the defaults.
    pub by: Vec<Arc<str>>,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            slow_start: Duration::from_secs(10),
            outlier: OutlierPolicy::default(),
            circuit_breaker: CircuitBreaker::default(),
            retry_budget: RetryBudget::default(),
            locality: LocalityPolicy::default(),
            try_timeout: None,
            session: None,
            hash: None,
            faults: Vec::new(),
            limits: Vec::new(),
            by: Vec::new(),
        }
    }
}

/// Outlier ejection, in Envoy's terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutlierPolicy {
    /// Failures in a row (5xx made by the workload, resets, time-outs) that eject. Default 5; 0 turns it off.
    pub consecutive_failures: u32,
    /// Share of failures among at least [`Self::minimum_requests`] within [`Self::interval`] that ejects. Default 0.5.
    pub failure_ratio: f64,
    /// Least requests for [`Self::failure_ratio`] to count. Default 10.
    pub minimum_requests: u32,
    /// Window of the ratio. Default 5 s.
    pub interval: Duration,
    /// First ejection lasts this long, the n-th n times as long. Default 5 s.
    pub base_ejection: Duration,
    /// Longest ejection. Default 60 s.
    pub max_ejection: Duration,
    /// At most this share of a cluster's endpoints is ejected for failures it answers itself. Default 0.5; endpoints that
    /// cannot be reached at all do not count.
    pub max_ejected_ratio: f64,
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_ratio: 0.5,
            minimum_requests: 10,
            interval: Duration::from_secs(5),
            base_ejection: Duration::from_secs(5),
            max_ejection: Duration::from_secs(60),
            max_ejected_ratio: 0.5,
        }
    }
}

/// Limits that open the circuit, per calling proxy and service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CircuitBreaker {
    /// Requests in flight to one endpoint. Default 1,024.
    pub max_requests_per_endpoint: u32,
    /// Requests in flight to the service. Default 16,384.
    pub max_requests: u32,
    /// Requests in flight to the service follow its latency, up to [`Self::max_requests`]. Default none.
    pub adaptive: Option<Adaptive>,
}

/// Adaptive concurrency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adaptive {
    /// More requests are let in while answers come within this time on average.
    pub latency: Duration,
    /// So many requests may always be in flight; at least 1.
    #[serde(default)]
    pub min_requests: u32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { max_requests_per_endpoint: 1024, max_requests: 16_384, adaptive: None }
    }
}

/// Retry budget (GEP-3388).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryBudget {
    /// Retries as a share of requests within the interval. Default 0.2.
    pub ratio: f64,
    /// Window. Default 10 s.
    pub interval: Duration,
    /// Retries that are always allowed, per second. Default 10.
    pub min_per_second: f64,
    /// Whether a request whose retry the budget does not allow is answered with 503, whatever the last try brought (GEP-3388).
    /// Default `false`: what the last try brought is the answer.
    pub answers: bool,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { ratio: 0.2, interval: Duration::from_secs(10), min_per_second: 10.0, answers: false }
    }
}

/// Local first, then in proportion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalityPolicy {
    /// `true` (default): this cluster serves what it can bear, the rest spills over. `false`: all clusters share by weight
    /// or by number of endpoints.
    pub local_first: bool,
    /// Health share is multiplied by this before it counts as missing. Default 1.4: with 72 % of copies healthy all load stays.
    pub overprovisioning: f64,
    /// Utilisation (in flight against declared capacity) up to which load stays local. Default 0.8.
    pub target_utilisation: f64,
    /// Weights between clusters, where the user wrote them; clusters not named weigh 0. Empty: none written.
    pub weights: Vec<ClusterWeight>,
}

impl Default for LocalityPolicy {
    fn default() -> Self {
        Self { local_first: true, overprovisioning: 1.4, target_utilisation: 0.8, weights: Vec::new() }
    }
}

/// A weight that the user gave a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterWeight {
    /// The cluster, also this one.
    pub cluster: ClusterName,
    /// Its share.
    pub weight: u32,
}

/// One AuthorizationPolicy, enforced at the callee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationPolicy {
    /// `namespace/name` of the object.
    pub name: Arc<str>,
    /// What a matching rule does.
    pub action: AuthorizationAction,
    /// Alternatives. An ALLOW policy without rules allows nobody; a DENY policy without rules denies nobody.
    #[serde(default)]
    pub rules: Vec<AuthorizationRule>,
}

/// What a policy does to requests that match. DENY is looked at first; if any ALLOW policy selects the workload, what none
/// of them allows is refused; without ALLOW policies everything not denied passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorizationAction {
    /// Lets it pass.
    Allow,
    /// Refuses it.
    Deny,
}

/// A rule holds when one of `from` (or none is written) and one of `to` (or none is written) hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorizationRule {
    /// Callers.
    pub from: Vec<CallerMatch>,
    /// Requests.
    pub to: Vec<RequestMatch>,
}

/// Conditions on the verified caller, all of which must hold; an empty list does not restrict. A caller without an identity
/// (plaintext) matches only a `CallerMatch` that restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallerMatch {
    /// Whole SPIFFE IDs; `*` at the end stands for any rest.
    pub principals: Vec<Arc<str>>,
    /// Kubernetes namespaces of callers **of this cluster's trust domain**.
    pub namespaces: Vec<Arc<str>>,
    /// Trust domains.
    pub trust_domains: Vec<Arc<str>>,
}

/// Conditions on what is asked for, all of which must hold; an empty list does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestMatch {
    /// Ports of the workload.
    pub ports: Vec<u16>,
    /// HTTP methods, upper case.
    pub methods: Vec<Arc<str>>,
    /// Paths; `*` at the end stands for any rest.
    pub paths: Vec<Arc<str>>,
}
