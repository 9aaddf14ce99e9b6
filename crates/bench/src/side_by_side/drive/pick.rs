//! One choice of an endpoint, as a request makes it: 1,000 endpoints in three clusters with weights.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use veer_balance::Outcome;
use veer_core::names::ClusterName;

use crate::allocations;
use crate::choice::{self, CLUSTERS};
use crate::side_by_side::figures::{Figure, Run};

/// Requests in flight.
const IN_FLIGHT: usize = 64;
const BATCHES: usize = 20_000;
/// Between one batch and the next, so that plans are made anew as often as at 100,000 requests/s.
const STEP: Duration = Duration::from_micros(640);

pub(super) fn run() -> anyhow::Result<Run> {
    let begun = Instant::now();
    let mut picker = choice::picker(begun)?;
    let (mut rng, mut now) = (fastrand::Rng::with_seed(7), begun);
    let (mut spent, mut allocated) = (Duration::ZERO, Vec::with_capacity(BATCHES));
    let mut counts: BTreeMap<ClusterName, usize> = BTreeMap::new();
    let mut held = Vec::with_capacity(IN_FLIGHT);
    for batch in 0..BATCHES {
        now += STEP;
        // The first batches grow what is then kept.
        let counted = batch >= BATCHES / 10;
        let (before, begun) = (allocations::count(), Instant::now());
        for _ in 0..IN_FLIGHT {
            held.push(picker.pick(now, &mut rng, &[])?);
        }
        if counted {
            spent += begun.elapsed();
            allocated.push(allocations::count() - before);
        }
        for pick in held.drain(..) {
            *counts.entry(pick.cluster().clone()).or_default() += 1;
            pick.finish(Outcome::Success, Duration::from_millis(1), now);
        }
    }
    allocated.sort_unstable();
    let picks = (BATCHES - BATCHES / 10) * IN_FLIGHT;
    for (cluster, weight, _) in CLUSTERS {
        let share = counts.get(&ClusterName::new(cluster)?).copied().unwrap_or(0) as f64 / (BATCHES * IN_FLIGHT) as f64;
        anyhow::ensure!((share - f64::from(weight) / 100.0).abs() < 0.01, "{cluster} got {share} of all requests");
    }
    Ok(Run::of([
        (Figure::PickNs, spent.as_nanos() as f64 / picks as f64),
        // Most batches only choose; the others also meet a new plan, every 100 ms.
        (Figure::Allocations, allocated[allocated.len() / 2] as f64 / IN_FLIGHT as f64),
    ]))
}
