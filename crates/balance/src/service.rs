//! One service's endpoints with all that this process has seen of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use veer_core::endpoints::{ClusterEndpoints, Endpoints};
use veer_core::names::{ClusterName, ObjectName, ServiceHost};
use veer_core::policy::{OutlierPolicy, TrafficPolicy};

use crate::adaptive::Concurrency;
use crate::budget::RetryBudget;
use crate::clock::{Epoch, Micros, micros};
use crate::cluster::Clusters;
use crate::hashed::Table;
use crate::pick::Outcome;
use crate::plan::{Group, PERIOD, Plan, Planner, Set};
use crate::snapshot::Events;
use crate::target::{EndpointKey, Kind, Target};

/// How long an endpoint that may not be ejected (the limit is reached) is not considered again.
const SPARE: Micros = 100_000;

/// A service's balance, shared by the workers of a process; each picks through its own [`Picker`](crate::Picker).
#[derive(Debug)]
pub struct ServiceBalance {
    host: ServiceHost,
    clusters: Arc<Clusters>,
    pub(crate) epoch: Epoch,
    pub(crate) in_flight: AtomicU32,
    pub(crate) events: Events,
    budget: RetryBudget,
    pub(crate) concurrency: Concurrency,
    plan: ArcSwap<Plan>,
    /// Grows with each plan, so that pickers see a new one by one load.
    version: AtomicU64,
    plan_at: AtomicU64,
    /// Grows whenever an endpoint is lost or returns.
    transitions: AtomicU64,
    planner: Mutex<(Planner, u64)>,
}

impl ServiceBalance {
    /// Begins with endpoints that are taken for healthy: only what joins later starts slowly.
    pub fn new(endpoints: &Endpoints, clusters: &Arc<Clusters>, now: Instant) -> Arc<Self> {
        let epoch = Epoch::new(now);
        let set = Arc::new(set(endpoints, clusters, epoch, None, epoch.at(now)));
        let mut planner = Planner::new(Arc::clone(&set));
        let empty = Plan { set, lanes: Vec::new() };
        let plan = planner.plan(None, true, now, epoch.at(now)).unwrap_or(empty);
        Arc::new(Self {
            host: endpoints.host.clone(),
            clusters: Arc::clone(clusters),
            epoch,
            in_flight: AtomicU32::new(0),
            events: Events::default(),
            budget: RetryBudget::new(&endpoints.policy.retry_budget, now),
            concurrency: Concurrency::default(),
            plan: ArcSwap::from_pointee(plan),
            version: AtomicU64::new(1),
            plan_at: AtomicU64::new(epoch.at(now) + PERIOD),
            transitions: AtomicU64::new(0),
            planner: Mutex::new((planner, 0)),
        })
    }

    /// The service.
    pub fn host(&self) -> &ServiceHost {
        &self.host
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<TrafficPolicy> {
        Arc::clone(&self.plan.load().set.policy)
    }

    /// The budget that retries of this service are taken from.
    pub fn retry_budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// Takes changed endpoints or a changed policy. What is known of endpoints that stay (same cluster, workload and address)
    /// stays, and so does the [`Target`] of one that did not change; new ones start slowly. To say the same again does nothing.
    pub fn update(&self, endpoints: &Endpoints, now: Instant) {
        self.budget.set_policy(&endpoints.policy.retry_budget);
        let mut planner = self.lock();
        let at = self.epoch.at(now);
        let set = set(endpoints, &self.clusters, self.epoch, Some(&planner.0.set), at);
        // Every worker of a process says the same; only the first time it is news.
        if !set.is_same(&planner.0.set) {
            planner.0.set = Arc::new(set);
            self.replan(planner, now);
        }
    }

    /// Endpoints that cannot be reached and are to be dialled now; each is handed out once per pause. Answer with
    /// [`Self::reachable`] when a connection stands; a dial that fails needs no answer.
    pub fn probe_due(&self, now: Instant) -> Vec<Arc<Target>> {
        let at = self.epoch.at(now);
        let plan = self.plan.load();
        let targets = plan.set.groups.iter().flat_map(|group| &group.targets);
        targets.filter(|target| target.stats.ready.load(Relaxed) && target.stats.take_probe(at)).cloned().collect()
    }

    /// The endpoint was reached: it returns by slow start.
    pub fn reachable(&self, target: &Target, now: Instant) {
        let stats = &target.stats;
        if !stats.is_reachable() && stats.unreachable_since.swap(0, Relaxed) != 0 {
            stats.begin_ramp(self.epoch.at(now));
            // What was asked before went to a process that is gone.
            stats.answered(&self.events);
            self.events.restored.fetch_add(1, Relaxed);
            self.transition();
        }
    }

    /// The endpoint cannot be reached, or its connection was found dead while idle: it is out until a dial succeeds.
    pub fn unreachable(&self, target: &Target, now: Instant) {
        if target.stats.lose(self.epoch.at(now)) {
            self.events.unreachable.fetch_add(1, Relaxed);
            self.events.lost(&target.key.cluster, |counts| counts.unreachable += 1);
            self.transition();
        }
    }

    /// Some endpoint of the cluster that should be there, for a probe of the data path.
    pub fn any_target(&self, cluster: &ClusterName) -> Option<Arc<Target>> {
        let plan = self.plan.load();
        let group = plan.set.groups.iter().find(|group| group.cluster == *cluster)?;
        let best = group.targets.iter().filter(|target| target.stats.ready.load(Relaxed));
        best.min_by_key(|target| !target.stats.is_fit()).cloned()
    }

    pub(crate) fn version(&self) -> u64 {
        // Pairs with the store behind the plan it counts.
        self.version.load(std::sync::atomic::Ordering::Acquire)
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    pub(crate) fn local_share(&self) -> f64 {
        self.lock().0.local_share
    }

    /// Makes a new plan when it is time. One worker does so; the others go on with the old one meanwhile.
    pub(crate) fn refresh(&self, instant: Instant, now: Micros) {
        let due = self.plan_at.load(Relaxed);
        if now < due || self.plan_at.compare_exchange(due, now + PERIOD, Relaxed, Relaxed).is_err() {
            return;
        }
        self.replan(self.lock(), instant);
    }

    pub(crate) fn report(&self, target: &Target, started: Micros, outcome: Outcome, latency: Duration, now: Instant) {
        let at = self.epoch.at(now);
        let policy = &self.plan.load().set.policy;
        let stats = &target.stats;
        // What was sent before the endpoint returned says nothing about it now.
        let current = started >= stats.returned_at.load(Relaxed);
        let net = micros(latency).saturating_sub(micros(target.health.rtt()));
        if let Some(adaptive) = &policy.circuit_breaker.adaptive
            && matches!(outcome, Outcome::Success | Outcome::AppError5xx | Outcome::Timeout)
        {
            let in_flight = self.in_flight.load(Relaxed);
            self.concurrency.observe(adaptive, &policy.circuit_breaker, net, in_flight, at);
        }
        match outcome {
            Outcome::Cancelled => {}
            Outcome::Success => {
                target.health.prove(now);
                stats.answered(&self.events);
                stats.consecutive.store(0, Relaxed);
                stats.window.add(false, at, micros(policy.outlier.interval));
                stats.observe_latency(net, at);
                self.reachable(target, now);
            }
            Outcome::AppError5xx | Outcome::ProxyError => {
                target.health.prove(now);
                if outcome == Outcome::AppError5xx {
                    stats.answered(&self.events);
                }
                if current {
                    self.failed(target, &policy.outlier, at);
                }
            }
            Outcome::Timeout => {
                stats.observe_latency(net, at);
                if current {
                    self.failed(target, &policy.outlier, at);
                }
            }
            Outcome::ConnectionLost => {
                if current {
                    self.failed(target, &policy.outlier, at);
                    self.unreachable(target, now);
                }
            }
            Outcome::ConnectFailed => {
                if current {
                    self.unreachable(target, now);
                }
            }
        }
    }

    fn failed(&self, target: &Target, policy: &OutlierPolicy, now: Micros) {
        let stats = &target.stats;
        let row = stats.consecutive.fetch_add(1, Relaxed) + 1;
        let (requests, failures) = stats.window.add(true, now, micros(policy.interval));
        let in_a_row = policy.consecutive_failures != 0 && row >= policy.consecutive_failures;
        let too_many = policy.failure_ratio > 0.0
            && requests >= policy.minimum_requests.max(1)
            && f64::from(failures) >= policy.failure_ratio * f64::from(requests);
        if (in_a_row || too_many) && !stats.is_ejected() && stats.spared_until.load(Relaxed) <= now {
            self.eject(target, in_a_row, policy, now);
        }
    }

    fn eject(&self, target: &Target, in_a_row: bool, policy: &OutlierPolicy, now: Micros) {
        // The lock makes the count below hold: two workers cannot both take the last place.
        let planner = self.lock();
        let stats = &target.stats;
        if stats.is_ejected() {
            return;
        }
        if !may_eject(&planner.0.set, target, policy) {
            stats.spared_until.store(now + SPARE, Relaxed);
            self.events.spared.fetch_add(1, Relaxed);
            return;
        }
        let level = stats.ejection_level.fetch_add(1, Relaxed).saturating_add(1);
        let base = micros(policy.base_ejection);
        let time = base.saturating_mul(u64::from(level)).min(micros(policy.max_ejection).max(base));
        stats.ejected_until.store(now.saturating_add(time), Relaxed);
        stats.ejections.fetch_add(1, Relaxed);
        let kind = if in_a_row { &self.events.ejected_consecutive } else { &self.events.ejected_ratio };
        kind.fetch_add(1, Relaxed);
        self.events.lost(&target.key.cluster, |counts| {
            *(if in_a_row { &mut counts.consecutive } else { &mut counts.ratio }) += 1;
        });
        self.transition();
    }

    fn transition(&self) {
        self.transitions.fetch_add(1, Relaxed);
        self.plan_at.store(0, Relaxed);
    }

    fn replan(&self, mut planner: MutexGuard<'_, (Planner, u64)>, now: Instant) {
        let transitions = self.transitions.load(Relaxed);
        let (planner, seen) = &mut *planner;
        let force = std::mem::replace(seen, transitions) != transitions;
        if let Some(plan) = planner.plan(Some(&self.plan.load()), force, now, self.epoch.at(now)) {
            self.plan.store(Arc::new(plan));
            self.version.fetch_add(1, std::sync::atomic::Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Planner, u64)> {
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the policy's limit leaves room for one more. A cluster's only endpoint may go too, when others can serve:
/// the limit protects against ejecting everybody, not against using a healthy copy elsewhere.
fn may_eject(set: &Set, target: &Target, policy: &OutlierPolicy) -> bool {
    // What a gateway picks is many endpoints: their failures are no one's.
    if policy.max_ejected_ratio <= 0.0 || target.endpoint().is_none() {
        return false;
    }
    let Some(group) = set.groups.iter().find(|group| group.cluster == target.key.cluster) else { return false };
    let endpoints = &group.targets[..group.endpoints];
    let known = endpoints.iter().filter(|t| t.stats.ready.load(Relaxed)).count();
    let ejected = endpoints.iter().filter(|t| t.stats.is_ejected()).count();
    let room = (policy.max_ejected_ratio * known as f64) as usize;
    let others = || {
        let groups = set.groups.iter().filter(|group| group.is_allowed());
        groups.flat_map(|group| &group.targets[..group.endpoints]).any(|t| t.key != target.key && t.stats.is_fit())
    };
    ejected < room || (ejected == 0 && others())
}

/// The set of endpoints as stated, with what is known of those that stay.
fn set(endpoints: &Endpoints, clusters: &Clusters, epoch: Epoch, known: Option<&Set>, now: Micros) -> Set {
    let known_targets: HashMap<&EndpointKey, &Arc<Target>> = known
        .iter()
        .flat_map(|set| set.groups.iter().flat_map(|group| &group.targets))
        .map(|target| (&target.key, target))
        .collect();
    let stats = |key: &EndpointKey, ready: bool| {
        let stats = known_targets.get(key).map_or_else(Arc::default, |target| Arc::clone(&target.stats));
        let was_ready = stats.ready.swap(ready, Relaxed);
        if ready && !was_ready && known.is_some() {
            stats.begin_ramp(now);
        }
        stats
    };
    let weights = &endpoints.policy.locality.weights;
    let endpoints_policy = &endpoints.policy;
    let hash = endpoints_policy.hash.as_deref();
    let group = |cluster: &ClusterEndpoints| {
        let health = clusters.get(&cluster.cluster);
        let target = |key: EndpointKey, kind: Kind, ready: bool| {
            let unchanged = known_targets.get(&key).filter(|known| known.reach == cluster.reach && known.kind == kind);
            if let Some(unchanged) = unchanged {
                return Arc::clone(unchanged);
            }
            let stats = stats(&key, ready);
            let id = key.id();
            Arc::new(Target { stats, reach: cluster.reach, health: Arc::clone(&health), epoch, key, id, kind })
        };
        let mut targets: Vec<_> = cluster
            .endpoints
            .iter()
            .map(|endpoint| {
                let key = EndpointKey {
                    address: endpoint.address,
                    workload: endpoint.workload.clone(),
                    cluster: cluster.cluster.clone(),
                };
                target(key, Kind::Endpoint(endpoint.clone()), endpoint.ready)
            })
            .collect();
        let endpoints = targets.len();
        if !cluster.service_tokens.is_empty() {
            let key = EndpointKey {
                address: std::net::Ipv4Addr::UNSPECIFIED.into(),
                workload: ObjectName::new("*", "*"),
                cluster: cluster.cluster.clone(),
            };
            targets.push(target(key, Kind::AnyOf(cluster.service_tokens.clone()), true));
        }
        let before = known.filter(|known| known.policy.hash == endpoints_policy.hash).and_then(|known| {
            let of = known.groups.iter().find(|group| group.cluster == cluster.cluster)?;
            let same =
                of.targets[..of.endpoints].iter().map(Arc::as_ptr).eq(targets[..endpoints].iter().map(Arc::as_ptr));
            of.table.clone().filter(|_| same)
        });
        let made = || hash.and_then(|hash| Table::new(hash.table, &targets[..endpoints])).map(Arc::new);
        let table = before.or_else(made);
        Group {
            cluster: cluster.cluster.clone(),
            own: cluster.cluster == *clusters.own(),
            weight: (!weights.is_empty())
                .then(|| weights.iter().find(|w| w.cluster == cluster.cluster).map_or(0, |w| w.weight)),
            table,
            health,
            targets,
            endpoints,
        }
    };
    Set { policy: Arc::new(endpoints.policy.clone()), groups: endpoints.clusters.iter().map(group).collect() }
}
