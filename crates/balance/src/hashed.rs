//! Consistent hashing: a key leads to an endpoint by a table that changes only when the endpoints that are stated change. Endpoints
//! that cannot serve now are stepped over, so that their keys go to the next and come back with them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;
use veer_core::hashing::{HashTable, mix};

use crate::cluster::Standing;
use crate::pick::{NoEndpoint, Pick};
use crate::picker::Picker;
use crate::plan::Plan;
use crate::service::ServiceBalance;
use crate::silence::Turn;
use crate::target::{EndpointKey, Target};

/// Places of a Maglev table: prime, so that each endpoint's steps reach every place. 64 KiB per cluster of a service.
const PLACES: u32 = 16_381;
/// Points of one endpoint on a ring.
const POINTS: usize = 160;
/// Most points of a ring, 256 KiB; with more than a hundred endpoints each has fewer.
const MOST_POINTS: usize = 16_384;

/// Where keys of one cluster lead. Made when endpoints change, only looked at by requests.
#[derive(Debug)]
pub(crate) enum Table {
    /// At each place the index of an endpoint.
    Maglev(Box<[u32]>),
    /// Points in order, each with the index of its endpoint.
    Ring(Box<[(u64, u32)]>),
}

impl Table {
    /// For the endpoints that are ready, by their place among all targets; `None` where there are none, or the way of mapping
    /// is not known.
    pub(crate) fn new(kind: HashTable, targets: &[Arc<Target>]) -> Option<Self> {
        let ready = targets.iter().zip(0..).filter(|(target, _)| target.stats.ready.load(Relaxed));
        let mut endpoints: Vec<(u64, u32)> = ready.map(|(target, index)| (target.id, index)).collect();
        // The order in which endpoints are stated must not matter.
        endpoints.sort_unstable();
        match kind {
            _ if endpoints.is_empty() => None,
            HashTable::Maglev => Some(Self::Maglev(maglev(&endpoints))),
            HashTable::Ring => Some(Self::Ring(ring(&endpoints))),
            HashTable::Unknown => None,
        }
    }

    /// The endpoint of a key, then those that stand in for it, in the key's own order; the same one may come again.
    pub(crate) fn walk(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let (length, start) = match self {
            Self::Maglev(places) => (places.len(), (hash % u64::from(PLACES)) as usize),
            Self::Ring(points) => (points.len(), points.partition_point(|(point, _)| *point < hash)),
        };
        (0..length).map(move |step| {
            let at = (start + step) % length;
            match self {
                Self::Maglev(places) => places[at],
                Self::Ring(points) => points[at].1,
            }
        })
    }
}

fn maglev(endpoints: &[(u64, u32)]) -> Box<[u32]> {
    let places = u64::from(PLACES);
    // (next place, step, index): each endpoint goes through all places in an order of its own.
    let mut turns: Vec<(u64, u64, u32)> =
        endpoints.iter().map(|(id, index)| (mix(*id) % places, mix(!*id) % (places - 1) + 1, *index)).collect();
    let mut table = vec![u32::MAX; PLACES as usize].into_boxed_slice();
    let mut left = PLACES;
    'filling: loop {
        for (next, step, index) in &mut turns {
            while table[*next as usize] != u32::MAX {
                *next = (*next + *step) % places;
            }
            table[*next as usize] = *index;
            left -= 1;
            if left == 0 {
                break 'filling;
            }
        }
    }
    table
}

fn ring(endpoints: &[(u64, u32)]) -> Box<[(u64, u32)]> {
    // Halved only where it must be, so that one endpoint more seldom changes the points of all.
    let mut each = POINTS;
    while each > 1 && each * endpoints.len() > MOST_POINTS {
        each /= 2;
    }
    let points = |(id, index): &(u64, u32)| {
        let (id, index) = (*id, *index);
        (0..each as u64).map(move |number| (mix(id ^ mix(number)), index))
    };
    let mut all: Vec<(u64, u32)> = endpoints.iter().flat_map(points).collect();
    all.sort_unstable();
    all.into()
}

impl Plan {
    /// The clusters in the order in which a key tries them: first the one whose part of the shares the key falls into, then as
    /// other requests do: those with a share, those that are believed, the others.
    fn clusters_of(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        // Other bits than those that choose among endpoints.
        let mut at = (mix(hash) >> 11) as f64 / (1_u64 << 53) as f64;
        let first = self.lanes.iter().position(|lane| {
            let here = lane.share > 0.0 && at < lane.share;
            at -= lane.share;
            here
        });
        let rank = |index: usize| match self.lanes[index].standing {
            _ if self.lanes[index].share > 0.0 => 0,
            Standing::Expired => 2,
            Standing::Fresh | Standing::Proven => 1,
        };
        let others = (0..3).flat_map(move |wanted| (0..self.lanes.len()).filter(move |index| rank(*index) == wanted));
        first.into_iter().chain(others.filter(move |index| Some(*index) != first))
    }

    /// The endpoint of a key, without those that `usable` refuses.
    fn find(&self, hash: u64, mut usable: impl FnMut(&Arc<Target>) -> bool) -> Option<&Arc<Target>> {
        self.clusters_of(hash).find_map(|index| {
            let group = &self.set.groups[index];
            // Where nobody is fit, nobody is walked through.
            let any = self.lanes[index].members.iter().any(|member| (*member as usize) < group.endpoints);
            let table = group.table.as_ref().filter(|_| any)?;
            let mut last = None;
            table
                .walk(hash)
                .filter(|index| last.replace(*index) != Some(*index))
                .map(|index| &group.targets[index as usize])
                .find(|target| target.stats.is_fit() && usable(target))
        })
    }
}

impl Picker {
    /// The endpoint that a key leads to: in the cluster whose share the key falls into, the first by the table that is fit, not
    /// among `exclude` and not at its limit. Where there is none, as [`Picker::pick`].
    ///
    /// # Errors
    /// As [`Picker::pick`].
    pub fn pick_hashed(
        &mut self,
        hash: u64,
        now: Instant,
        rng: &mut fastrand::Rng,
        exclude: &[EndpointKey],
    ) -> Result<Pick, NoEndpoint> {
        let balance = Arc::clone(self.balance());
        let at = balance.epoch.at(now);
        balance.refresh(now, at);
        self.follow_plan(rng);
        let breaker = &self.plan.set.policy.circuit_breaker;
        if balance.in_flight.fetch_add(1, Relaxed) < balance.concurrency.most(breaker) {
            let limit = breaker.max_requests_per_endpoint;
            let speaks = |target: &Arc<Target>| match target.stats.silence.turns_away(at) {
                Turn::Welcome => true,
                Turn::Away => false,
                Turn::FoundSilent => {
                    balance.events.found_silent(&target.key.cluster);
                    false
                }
            };
            let enters = |target: &Arc<Target>| {
                !exclude.contains(&target.key) && speaks(target) && target.stats.enter(limit).is_some()
            };
            if let Some(target) = self.plan.find(hash, enters) {
                let target = Arc::clone(target);
                return Ok(Pick::new(balance, target, at, false));
            }
        }
        balance.in_flight.fetch_sub(1, Relaxed);
        self.pick(now, rng, exclude)
    }
}

impl ServiceBalance {
    /// The endpoint that a key leads to now, for people; limits are not looked at. `None`: requests are not led by keys.
    pub fn endpoint_of(&self, hash: u64) -> Option<EndpointKey> {
        self.plan().find(hash, |_| true).map(|target| target.key.clone())
    }
}

#[cfg(test)]
#[path = "hashed_tests.rs"]
mod tests;
