//! What the balance looks like from outside: for dumps and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use veer_core::endpoints::Reach;
use veer_core::names::{ClusterName, ServiceHost};

use crate::clock::micros;
use crate::cluster::Standing;
use crate::service::ServiceBalance;
use crate::stats::EndpointState;
use crate::target::EndpointKey;

/// Counters of a service; they only grow.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) ejected_consecutive: AtomicU64,
    pub(crate) ejected_ratio: AtomicU64,
    pub(crate) spared: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) restored: AtomicU64,
    pub(crate) silent: AtomicU64,
    pub(crate) spoke: AtomicU64,
    pub(crate) overflow: AtomicU64,
    pub(crate) panic: AtomicU64,
    by_cluster: Mutex<BTreeMap<ClusterName, LossCounts>>,
}

impl Events {
    /// An endpoint of the cluster was found silent.
    pub(crate) fn found_silent(&self, cluster: &ClusterName) {
        self.silent.fetch_add(1, Relaxed);
        self.lost(cluster, |counts| counts.silent += 1);
    }

    /// An endpoint of the cluster was taken out. Rare, hence the lock.
    pub(crate) fn lost(&self, cluster: &ClusterName, count: impl FnOnce(&mut LossCounts)) {
        let mut all = self.by_cluster.lock().unwrap_or_else(PoisonError::into_inner);
        count(all.entry(cluster.clone()).or_default());
    }
}

/// How often endpoints of one cluster were taken out of the rotation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LossCounts {
    /// Ejected for failures in a row.
    pub consecutive: u64,
    /// Ejected for their ratio of failures.
    pub ratio: u64,
    /// Found unreachable.
    pub unreachable: u64,
    /// Found silent.
    pub silent: u64,
}

/// What happened since the process began to balance the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventCounts {
    /// Endpoints ejected for failures in a row.
    pub ejected_consecutive: u64,
    /// Endpoints ejected for their ratio of failures.
    pub ejected_ratio: u64,
    /// Times that an endpoint stayed although it failed, because the limit on ejections was reached.
    pub spared: u64,
    /// Endpoints found unreachable.
    pub unreachable: u64,
    /// Endpoints reached again.
    pub restored: u64,
    /// Endpoints found silent.
    pub silent: u64,
    /// Silent endpoints that answered again.
    pub spoke: u64,
    /// Requests refused because the circuit was open.
    pub overflow: u64,
    /// Requests sent to an unfit endpoint for want of a fit one.
    pub panic: u64,
}

/// A service as this process balances it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSnapshot {
    /// The service.
    pub host: ServiceHost,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that may be in flight now.
    pub concurrency_limit: u32,
    /// Share that the own cluster bears by health and load; [`ClusterSnapshot::share`] is what it gets.
    pub local_share: f64,
    /// Requests and retries within the retry budget's window.
    pub budget: (u64, u64),
    /// Counters.
    pub events: EventCounts,
    /// Endpoints taken out, also of clusters that have none any more.
    pub losses: BTreeMap<ClusterName, LossCounts>,
    /// Cluster by cluster.
    pub clusters: Vec<ClusterSnapshot>,
}

/// The endpoints of one cluster.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSnapshot {
    /// The cluster.
    pub cluster: ClusterName,
    /// Whether it is believed.
    pub standing: Standing,
    /// Its share of requests.
    pub share: f64,
    /// Its endpoints.
    pub endpoints: Vec<EndpointSnapshot>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSnapshot {
    /// Which one.
    #[serde(flatten)]
    pub key: EndpointKey,
    /// How it is reached.
    pub reach: Reach,
    /// Whether the gateway picks the endpoint behind it.
    pub gateway_picks: bool,
    /// Its state.
    pub state: EndpointState,
    /// Its weight among the endpoints of its cluster; 0 while it gets nothing.
    pub weight: f32,
    /// Requests of this process in flight.
    pub in_flight: u32,
    /// Smoothed latency net of the path, seconds.
    pub latency: Option<f64>,
    /// Utilisation that it reported.
    pub utilisation: Option<f64>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// How often it was ejected for failures.
    pub ejections: u64,
    /// Until it returns from ejection, or since it cannot be reached or is silent.
    pub for_time: Option<Duration>,
}

impl ServiceBalance {
    /// Everything as it is now.
    pub fn snapshot(&self, now: Instant) -> ServiceSnapshot {
        let at = self.epoch.at(now);
        let plan = self.plan();
        let slow_start = micros(plan.set.policy.slow_start);
        let clusters = plan.set.groups.iter().zip(&plan.lanes).map(|(group, lane)| {
            let endpoints = group.targets.iter().map(|target| {
                let stats = &target.stats;
                let state = stats.state(at, slow_start);
                let (until, since) = (stats.ejected_until.load(Relaxed), stats.unreachable_since.load(Relaxed));
                EndpointSnapshot {
                    key: target.key.clone(),
                    reach: target.reach,
                    gateway_picks: target.endpoint().is_none(),
                    state,
                    weight: if matches!(state, EndpointState::Healthy | EndpointState::SlowStart) {
                        stats.weight()
                    } else {
                        0.0
                    },
                    in_flight: target.in_flight(),
                    latency: stats.latency().map(|latency| latency / 1e6),
                    utilisation: stats.load(at),
                    consecutive_failures: stats.consecutive.load(Relaxed),
                    ejections: stats.ejections.load(Relaxed),
                    for_time: match state {
                        EndpointState::Ejected => Some(Duration::from_micros(until.saturating_sub(at))),
                        EndpointState::Unreachable => Some(Duration::from_micros(at.saturating_sub(since))),
                        EndpointState::Silent => stats.silence.lasts(at).map(Duration::from_micros),
                        _ => None,
                    },
                }
            });
            ClusterSnapshot {
                cluster: group.cluster.clone(),
                standing: group.health.standing(now),
                share: lane.share,
                endpoints: endpoints.collect(),
            }
        });
        ServiceSnapshot {
            host: self.host().clone(),
            in_flight: self.in_flight.load(Relaxed),
            concurrency_limit: self.concurrency.most(&plan.set.policy.circuit_breaker),
            local_share: self.local_share(),
            budget: self.retry_budget().counts(now),
            events: self.events(),
            losses: self.events.by_cluster.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            clusters: clusters.collect(),
        }
    }

    /// The counters.
    pub fn events(&self) -> EventCounts {
        let Events {
            ejected_consecutive,
            ejected_ratio,
            spared,
            unreachable,
            restored,
            silent,
            spoke,
            overflow,
            panic,
            ..
        } = &self.events;
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        EventCounts {
            ejected_consecutive: read(ejected_consecutive),
            ejected_ratio: read(ejected_ratio),
            spared: read(spared),
            unreachable: read(unreachable),
            restored: read(restored),
            silent: read(silent),
            spoke: read(spoke),
            overflow: read(overflow),
            panic: read(panic),
        }
    }
}
