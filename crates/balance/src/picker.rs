//! The choice for one request: a cluster by largest remainder, an endpoint by earliest virtual deadline.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::clock::Micros;
use crate::cluster::Standing;
use crate::pick::{NoEndpoint, NoEndpointReason, Pick};
use crate::plan::{LanePlan, Plan};
use crate::service::ServiceBalance;
use crate::silence::Turn;
use crate::snapshot::Events;
use crate::stats::Stats;
use crate::target::{EndpointKey, Target};

/// Virtual time of one pick of an idle endpoint of weight 1.
const STEP: f64 = 65_536.0;
/// No weight makes a step longer than that of this weight.
const LEAST_WEIGHT: f64 = 0.001;
/// So many silent endpoints are stepped over by one request, so that a service of which nobody answers costs no search.
const MOST_SILENT: u32 = 16;

/// One worker's choice among a service's endpoints.
///
/// *Clusters*: each pick credits every cluster with its share and is charged to the one with the most credit, so that a
/// split of 90 to 10 is exact after ten picks, and not only in the long run.
///
/// *Endpoints*: each has a virtual deadline; the earliest is picked and moves back by `(1 + in flight) / weight`. Equal endpoints get
/// equal shares exactly, the loaded and the slow get less, and everybody's turn comes.
#[derive(Debug)]
pub struct Picker {
    balance: Arc<ServiceBalance>,
    pub(crate) plan: Arc<Plan>,
    version: u64,
    lanes: Vec<Lane>,
    /// Put aside while looking for another; empty between picks.
    aside: Vec<Slot>,
    /// Where panic looks first.
    turn: usize,
}

/// Virtual deadline and index of a target; the earliest is the heap's greatest.
type Slot = Reverse<(u64, u32)>;

#[derive(Debug, Default)]
struct Lane {
    credit: f64,
    tried: bool,
    heap: BinaryHeap<Slot>,
    clock: u64,
}

/// What a look through the lanes met.
#[derive(Debug, Clone, Copy, Default)]
struct Met {
    full: bool,
    excluded: bool,
    silent: bool,
}

/// What is asked of the lanes.
#[derive(Debug, Clone, Copy)]
struct Ask<'a> {
    exclude: &'a [EndpointKey],
    /// Requests in flight to one endpoint.
    limit: u32,
    at: Micros,
    /// Whether endpoints that are silent will do.
    silent_too: bool,
}

impl Picker {
    /// A picker for one worker.
    pub fn new(balance: Arc<ServiceBalance>) -> Self {
        // Version 0 is before the first plan: the first pick takes it over.
        Self { plan: balance.plan(), balance, version: 0, lanes: Vec::new(), aside: Vec::new(), turn: 0 }
    }

    /// The service's balance.
    pub fn balance(&self) -> &Arc<ServiceBalance> {
        &self.balance
    }

    /// Chooses an endpoint that is not among `exclude`.
    ///
    /// In this order: clusters by their share, other clusters that are believed, clusters that are not believed any more (expired).
    /// When no endpoint is fit anywhere, *panic*: any that its cluster calls ready is tried rather than none, own cluster first,
    /// and those that answer with errors before those that cannot be reached. Clusters to which the user gave weight 0 never serve.
    ///
    /// # Errors
    /// When a limit is reached, all candidates are excluded, or none is known.
    pub fn pick(&mut self, now: Instant, rng: &mut fastrand::Rng, exclude: &[EndpointKey]) -> Result<Pick, NoEndpoint> {
        let at = self.balance.epoch.at(now);
        self.balance.refresh(now, at);
        self.follow_plan(rng);
        let breaker = &self.plan.set.policy.circuit_breaker;
        let limit = breaker.max_requests_per_endpoint;
        let mut ask = Ask { exclude, limit, at, silent_too: false };
        if self.balance.in_flight.fetch_add(1, Relaxed) >= self.balance.concurrency.most(breaker) {
            self.balance.in_flight.fetch_sub(1, Relaxed);
            return Err(self.nobody(NoEndpointReason::Overflow));
        }
        let mut met = Met::default();
        let mut chosen = self.choose(ask, &mut met);
        if chosen.is_none() && met.silent {
            // Whoever may answer is better than nobody.
            ask.silent_too = true;
            chosen = self.choose(ask, &mut met);
        }
        let found = match chosen {
            Some(target) => Ok((target, false)),
            None if met.full => Err(NoEndpointReason::Overflow),
            None if met.excluded => Err(NoEndpointReason::Excluded),
            None => self.in_panic(exclude, limit).map(|target| (target, true)),
        };
        match found {
            Ok((target, panic)) => Ok(Pick::new(Arc::clone(&self.balance), target, at, panic)),
            Err(reason) => {
                self.balance.in_flight.fetch_sub(1, Relaxed);
                Err(self.nobody(reason))
            }
        }
    }

    /// The endpoint of this [`Target::id`], for a request of a session that is bound to it. `None` when it is not known here, is
    /// excluded, or could not serve now: then the session moves.
    pub fn pick_bound(&mut self, id: u64, now: Instant, exclude: &[EndpointKey]) -> Option<Pick> {
        let at = self.balance.epoch.at(now);
        self.balance.refresh(now, at);
        let plan = self.balance.plan();
        let allowed = plan.set.groups.iter().filter(|group| group.is_allowed());
        let mut bound = allowed.flat_map(|group| &group.targets[..group.endpoints]).filter(|target| target.id == id);
        let target = bound.find(|target| target.stats.ready.load(Relaxed) && target.stats.is_fit())?;
        let breaker = &plan.set.policy.circuit_breaker;
        if exclude.contains(&target.key) {
            return None;
        }
        let room = self.balance.in_flight.fetch_add(1, Relaxed) < self.balance.concurrency.most(breaker);
        if !room || target.stats.enter(breaker.max_requests_per_endpoint).is_none() {
            self.balance.in_flight.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Pick::new(Arc::clone(&self.balance), Arc::clone(target), at, false))
    }

    fn choose(&mut self, ask: Ask<'_>, met: &mut Met) -> Option<Arc<Target>> {
        self.lanes.iter_mut().for_each(|lane| lane.tried = false);
        let mut first = true;
        while let Some(index) = self.next_lane() {
            let (lane, plan) = (&mut self.lanes[index], &self.plan);
            lane.tried = true;
            let targets = &plan.set.groups[index].targets;
            if let Some(target) = lane.next(targets, ask, &mut self.aside, met, &self.balance.events) {
                // A pick that was not its turn (a retry, a full cluster) is nobody's debt.
                if first && plan.lanes[index].share > 0.0 {
                    self.lanes.iter_mut().zip(&plan.lanes).for_each(|(lane, plan)| lane.credit += plan.share);
                    self.lanes[index].credit -= 1.0;
                }
                return Some(target);
            }
            first = false;
        }
        None
    }

    /// The lane whose turn it is among those not tried yet: by credit where there is a share, then the others that are believed,
    /// then the expired.
    fn next_lane(&self) -> Option<usize> {
        let rank = |plan: &LanePlan| match plan.standing {
            _ if plan.share > 0.0 => 2,
            Standing::Expired => 0,
            Standing::Fresh | Standing::Proven => 1,
        };
        let lanes = self.lanes.iter().zip(&self.plan.lanes).enumerate();
        let open = lanes.filter(|(_, (lane, _))| !lane.tried && !lane.heap.is_empty());
        let score = |(index, (lane, plan)): (usize, (&Lane, &LanePlan))| (rank(plan), lane.credit + plan.share, index);
        // Of equals the first: this cluster, then peers by name.
        let better =
            |a: &(i32, f64, usize), b: &(i32, f64, usize)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(b.2.cmp(&a.2));
        open.map(score).max_by(better).map(|(_, _, index)| index)
    }

    fn in_panic(&mut self, exclude: &[EndpointKey], limit: u32) -> Result<Arc<Target>, NoEndpointReason> {
        self.turn = self.turn.wrapping_add(1);
        let plan = &self.plan;
        let groups = || plan.set.groups.iter().zip(&plan.lanes).filter(|(group, _)| group.is_allowed());
        let mut met = Met::default();
        for (reachable, believed) in [(true, true), (true, false), (false, true), (false, false)] {
            let fitting = groups().filter(|(_, lane)| (lane.standing != Standing::Expired) == believed);
            // The own cluster comes first in the set.
            for (group, _) in fitting {
                let endpoints = &group.targets[..group.endpoints];
                let turned = endpoints.iter().cycle().skip(self.turn % endpoints.len().max(1)).take(endpoints.len());
                for target in turned.filter(|t| t.stats.ready.load(Relaxed) && t.stats.is_reachable() == reachable) {
                    if exclude.contains(&target.key) {
                        met.excluded = true;
                    } else if target.stats.enter(limit).is_some() {
                        self.balance.events.panic.fetch_add(1, Relaxed);
                        return Ok(Arc::clone(target));
                    } else {
                        met.full = true;
                    }
                }
            }
        }
        Err(match met {
            Met { full: true, .. } => NoEndpointReason::Overflow,
            Met { excluded: true, .. } => NoEndpointReason::Excluded,
            Met { .. } => NoEndpointReason::Empty,
        })
    }

    fn nobody(&self, reason: NoEndpointReason) -> NoEndpoint {
        if reason == NoEndpointReason::Overflow {
            self.balance.events.overflow.fetch_add(1, Relaxed);
        }
        let mut nobody = NoEndpoint { reason, known: 0, ejected: 0, unreachable: 0 };
        for group in self.plan.set.groups.iter().filter(|group| group.is_allowed()) {
            for target in &group.targets[..group.endpoints] {
                nobody.known += 1;
                nobody.ejected += usize::from(target.stats.is_ejected());
                nobody.unreachable += usize::from(!target.stats.is_reachable());
            }
        }
        nobody
    }

    /// Takes over a new plan: endpoints that stay keep their deadlines, clusters their credit.
    pub(crate) fn follow_plan(&mut self, rng: &mut fastrand::Rng) {
        let version = self.balance.version();
        if version == self.version {
            return;
        }
        self.version = version;
        let plan = self.balance.plan();
        let old = std::mem::replace(&mut self.plan, plan);
        let mut old_lanes = std::mem::take(&mut self.lanes);
        for (group, lane_plan) in self.plan.set.groups.iter().zip(&self.plan.lanes) {
            let before = old.set.groups.iter().position(|g| g.cluster == group.cluster);
            let before = before.and_then(|index| Some((index, std::mem::take(old_lanes.get_mut(index)?))));
            let mut lane = Lane::default();
            let mut deadlines: HashMap<*const Stats, u64> = HashMap::new();
            if let Some((index, old_lane)) = before {
                let targets = &old.set.groups[index].targets;
                let of = |index: u32| targets.get(index as usize).map(|target| Arc::as_ptr(&target.stats));
                let kept = old_lane.heap.iter().filter_map(|&Reverse((deadline, index))| Some((of(index)?, deadline)));
                deadlines.extend(kept);
                lane.clock = old_lane.clock;
                lane.credit = if lane_plan.share > 0.0 { old_lane.credit } else { 0.0 };
            }
            let slots = lane_plan.members.iter().filter_map(|&index| {
                let stats = &group.targets.get(index as usize)?.stats;
                let step = step(stats);
                // A newcomer's first turn is anywhere within its first step, or all workers would fall upon it together. A deadline
                // from a time of little weight does not bind any longer than the present weight says.
                let known = deadlines.get(&Arc::as_ptr(stats));
                let deadline =
                    known.map_or_else(|| (step as f64 * rng.f64()) as u64 + lane.clock, |&d| d.min(lane.clock + step));
                Some(Reverse((deadline, index)))
            });
            lane.heap = slots.collect();
            self.lanes.push(lane);
        }
        let most = self.plan.set.groups.iter().map(|group| group.targets.len()).max().unwrap_or(0);
        self.aside.reserve(most);
    }
}

impl Lane {
    fn next(
        &mut self,
        targets: &[Arc<Target>],
        ask: Ask<'_>,
        aside: &mut Vec<Slot>,
        met: &mut Met,
        events: &Events,
    ) -> Option<Arc<Target>> {
        let mut found = None;
        let mut silent = 0;
        while let Some(mut top) = self.heap.peek_mut() {
            let Reverse((deadline, index)) = *top;
            let target = &targets[index as usize];
            if !target.stats.is_fit() {
                // Lost since the plan was made; the next plan brings it back when it is fit.
                PeekMut::pop(top);
            } else if ask.exclude.contains(&target.key) {
                met.excluded = true;
                aside.push(PeekMut::pop(top));
            } else {
                let step = step(&target.stats);
                let next = Reverse((deadline.saturating_add(step), index));
                // Its turn passes, as if it had been taken: it does not gather turns for later.
                let turn = if ask.silent_too { Turn::Welcome } else { target.stats.silence.turns_away(ask.at) };
                if turn != Turn::Welcome {
                    if turn == Turn::FoundSilent {
                        events.found_silent(&target.key.cluster);
                    }
                    met.silent = true;
                    PeekMut::pop(top);
                    aside.push(next);
                    silent += 1;
                    if silent == MOST_SILENT {
                        break;
                    }
                    continue;
                }
                if target.stats.enter(ask.limit).is_some() {
                    *top = next;
                    self.clock = self.clock.max(deadline);
                    found = Some(Arc::clone(target));
                    break;
                }
                met.full = true;
                PeekMut::pop(top);
                aside.push(next);
            }
        }
        self.heap.extend(aside.drain(..));
        found
    }
}

/// How far back a pick moves an endpoint.
fn step(stats: &Stats) -> u64 {
    let weight = f64::from(stats.weight()).max(LEAST_WEIGHT);
    (STEP * f64::from(1 + stats.in_flight.load(Relaxed)) / weight) as u64
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;
