//! The plan: which endpoints are fit, what each weighs, and the share of each cluster. Made every [`PERIOD`] by whichever worker
//! picks first, and at once when health is lost; pickers follow it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;
use veer_core::names::ClusterName;
use veer_core::policy::TrafficPolicy;

use crate::clock::{Micros, micros, seconds};
use crate::cluster::{ClusterHealth, Standing};
use crate::hashed::Table;
use crate::share::{Strength, next_demand, next_local_share, split};
use crate::target::Target;

/// Time between plans while nothing happens.
pub(crate) const PERIOD: Micros = 100_000;
/// Latency within this factor of the peers' median, plus [`BAND_EXTRA`], is no difference.
const BAND: f64 = 1.25;
const BAND_EXTRA: f64 = 2_000.0;
/// A slow endpoint keeps this part of its weight: enough to see it recover.
const SLOWEST: f64 = 0.05;

/// The endpoints of a service as last stated. Immutable; what is seen of them is shared through [`Target`].
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) policy: Arc<TrafficPolicy>,
    pub(crate) groups: Vec<Group>,
}

impl Set {
    /// Whether both say the same of the very same targets.
    pub(crate) fn is_same(&self, other: &Set) -> bool {
        let same = |a: &Group, b: &Group| {
            a.cluster == b.cluster
                && a.weight == b.weight
                && a.endpoints == b.endpoints
                && a.targets.len() == b.targets.len()
                && a.targets.iter().zip(&b.targets).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        self.policy == other.policy
            && self.groups.len() == other.groups.len()
            && self.groups.iter().zip(&other.groups).all(|(a, b)| same(a, b))
    }
}

/// The endpoints of one cluster.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) cluster: ClusterName,
    pub(crate) own: bool,
    pub(crate) health: Arc<ClusterHealth>,
    /// Written by the user; `None` when no weights are written at all.
    pub(crate) weight: Option<u32>,
    /// The endpoints; behind them the gateway's own pick, where there is a service token.
    pub(crate) targets: Vec<Arc<Target>>,
    /// Number of endpoints among the targets.
    pub(crate) endpoints: usize,
    /// Where keys lead, when the policy leads requests by keys.
    pub(crate) table: Option<Arc<Table>>,
}

impl Group {
    /// Whether the user lets it serve at all.
    pub(crate) fn is_allowed(&self) -> bool {
        self.weight != Some(0)
    }
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) set: Arc<Set>,
    /// Like the set's groups.
    pub(crate) lanes: Vec<LanePlan>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LanePlan {
    pub(crate) share: f64,
    pub(crate) standing: Standing,
    /// Indices of fit targets.
    pub(crate) members: Vec<u32>,
}

/// What planning remembers between plans.
#[derive(Debug)]
pub(crate) struct Planner {
    pub(crate) set: Arc<Set>,
    pub(crate) local_share: f64,
    demand: Option<f64>,
    planned_at: Micros,
    expired: BTreeSet<ClusterName>,
    strengths: Vec<Strength>,
    shares: Vec<f64>,
    latencies: Vec<f64>,
}

impl Planner {
    pub(crate) fn new(set: Arc<Set>) -> Self {
        Self {
            set,
            local_share: 0.0,
            demand: None,
            planned_at: 0,
            expired: BTreeSet::new(),
            strengths: Vec::new(),
            shares: Vec::new(),
            latencies: Vec::new(),
        }
    }

    /// Makes a plan; `None` when the one in force still holds. `force` when something happened that pickers must learn of.
    pub(crate) fn plan(&mut self, current: Option<&Plan>, force: bool, instant: Instant, now: Micros) -> Option<Plan> {
        let set = Arc::clone(&self.set);
        let policy = &set.policy;
        let mut moved = force;
        self.strengths.clear();
        let mut lanes: Vec<LanePlan> = Vec::with_capacity(set.groups.len());
        for group in &set.groups {
            let standing = group.health.standing(instant);
            self.return_from_silence(group, standing, now);
            let (lane, strength) = self.weigh(group, standing, policy, now, &mut moved);
            lanes.push(lane);
            self.strengths.push(strength);
        }
        self.move_local_share(policy, now);
        split(&self.strengths, self.local_share, &policy.locality, &mut self.shares);
        for (lane, share) in lanes.iter_mut().zip(&self.shares) {
            lane.share = *share;
        }
        self.planned_at = now;
        let holds = |current: &Plan| !moved && Arc::ptr_eq(&current.set, &set) && current.lanes == lanes;
        (!current.is_some_and(holds)).then_some(Plan { set, lanes })
    }

    /// A cluster that was given up and is believed again begins with a slow start.
    fn return_from_silence(&mut self, group: &Group, standing: Standing, now: Micros) {
        if standing == Standing::Expired {
            if self.planned_at != 0 {
                self.expired.insert(group.cluster.clone());
            }
        } else if self.expired.remove(&group.cluster) {
            group.targets.iter().for_each(|target| target.stats.begin_ramp(now));
        }
    }

    fn weigh(
        &mut self,
        group: &Group,
        standing: Standing,
        policy: &TrafficPolicy,
        now: Micros,
        moved: &mut bool,
    ) -> (LanePlan, Strength) {
        let slow_start = micros(policy.slow_start);
        let endpoints = &group.targets[..group.endpoints];
        self.latencies.clear();
        for target in endpoints {
            target.return_from_ejection(policy, now);
            if target.stats.is_fit() {
                self.latencies.extend(target.stats.latency());
            }
        }
        let median = median(&mut self.latencies);
        let band = median.map(|median| median * BAND + BAND_EXTRA);
        // Latencies are net of the path, silence is not.
        let path = micros(group.health.rtt()) as f64;

        let mut members = Vec::with_capacity(group.targets.len());
        let mut strength = Strength {
            own: group.own,
            usable: standing != Standing::Expired,
            weight: group.weight,
            known: u32::try_from(endpoints.len()).unwrap_or(u32::MAX),
            ..Strength::default()
        };
        let (mut load, mut loads, mut unreachable) = (0.0, 0, 0_u32);
        for (index, target) in (0..).zip(endpoints) {
            let stats = &target.stats;
            if !stats.is_fit() {
                unreachable += u32::from(!stats.is_reachable());
                continue;
            }
            // One that is slower than others has its own measure: it is slow, not silent.
            let usual = median.map(|median| median.max(stats.latency().unwrap_or(0.0)) + path);
            stats.silence.set_usual(usual);
            let ramp = stats.ramp(now, slow_start);
            let pace = match (band, stats.latency()) {
                (Some(band), Some(latency)) => (band / latency).clamp(SLOWEST, 1.0),
                _ => 1.0,
            };
            *moved |= stats.set_weight((ramp * pace) as f32);
            members.push(index);
            strength.healthy += 1;
            strength.ramped += ramp;
            strength.ramping += u32::from(ramp < 1.0);
            if let Some(used) = target.utilisation(now) {
                load += used;
                loads += 1;
            }
        }
        // In silence the share of endpoints whose tokens lead nowhere goes to whatever the gateway knows by now.
        if let Some(gateway) = group.targets.get(group.endpoints)
            && standing != Standing::Fresh
            && unreachable > 0
            && gateway.stats.is_fit()
        {
            *moved |= gateway.stats.set_weight(unreachable as f32);
            members.push(u32::try_from(group.endpoints).unwrap_or(u32::MAX));
            strength.healthy += unreachable;
            strength.ramped += f64::from(unreachable);
        }
        if !group.is_allowed() {
            members.clear();
        }
        strength.utilisation = (loads > 0).then(|| load / f64::from(loads));
        (LanePlan { share: 0.0, standing, members }, strength)
    }

    fn move_local_share(&mut self, policy: &TrafficPolicy, now: Micros) {
        let own = self.strengths.iter().find(|strength| strength.own);
        let health = own.map_or(0.0, |own| own.health(policy.locality.overprovisioning));
        self.local_share = if self.planned_at == 0 {
            health
        } else {
            // A plan that was long in coming is no licence for a jump: nothing was measured meanwhile.
            let dt = seconds(now.saturating_sub(self.planned_at)).min(1.0);
            let utilisation = own.and_then(|own| own.utilisation);
            let ramp = policy.slow_start.as_secs_f64();
            self.demand = next_demand(self.demand, dt, utilisation, self.local_share);
            next_local_share(self.local_share, dt, health, self.demand, ramp, &policy.locality)
        };
    }
}

impl Target {
    /// The part of its capacity that is in use, where it says so or declared one.
    fn utilisation(&self, now: Micros) -> Option<f64> {
        let declared = || {
            let capacity = self.endpoint()?.capacity.filter(|&capacity| capacity > 0)?;
            Some(f64::from(self.in_flight()) / f64::from(capacity))
        };
        self.stats.load(now).or_else(declared)
    }

    fn return_from_ejection(&self, policy: &TrafficPolicy, now: Micros) {
        let stats = &self.stats;
        let until = stats.ejected_until.load(Relaxed);
        let pause = micros(policy.outlier.interval);
        if until != 0 {
            if until <= now {
                stats.consecutive.store(0, Relaxed);
                stats.window.clear();
                stats.begin_ramp(now);
                stats.calm_at.store(now + pause, Relaxed);
                stats.ejected_until.store(0, Relaxed);
            }
        } else if stats.ejection_level.load(Relaxed) > 0 && stats.calm_at.load(Relaxed) <= now {
            stats.ejection_level.fetch_sub(1, Relaxed);
            stats.calm_at.store(now + pause, Relaxed);
        }
    }
}

/// The lower median: of two, the faster one is the measure.
fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
