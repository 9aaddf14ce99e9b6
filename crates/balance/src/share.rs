//! How load is split between clusters. Pure.

use veer_core::policy::LocalityPolicy;

/// Load-driven moves smaller than this are not begun: what is measured always trembles.
const DEAD_BAND: f64 = 0.05;
/// Load-driven moves per second.
const STEP: f64 = 0.1;
/// A share below is taken for this one when demand is reckoned from it.
const SEED: f64 = 0.05;
/// Demand is smoothed over this many seconds.
const DEMAND_TIME: f64 = 2.0;

/// What a cluster could bear.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Strength {
    /// This very cluster.
    pub(crate) own: bool,
    /// Not expired.
    pub(crate) usable: bool,
    /// Written by the user; `None` when no weights are written at all.
    pub(crate) weight: Option<u32>,
    /// Endpoints known.
    pub(crate) known: u32,
    /// Of these, fit to serve.
    pub(crate) healthy: u32,
    /// Sum of what slow start grants to those.
    pub(crate) ramped: f64,
    /// Fit ones in slow start.
    pub(crate) ramping: u32,
    /// Mean utilisation, where endpoints tell or declare a capacity.
    pub(crate) utilisation: Option<f64>,
}

impl Strength {
    /// Part of its load that the cluster can bear by health alone.
    ///
    /// Endpoints in slow start count only as far as they have come, for a cluster that comes back from nothing must not be given
    /// everything at once. But where settled endpoints carry the cluster, more joining them is no loss of health.
    pub(crate) fn health(&self, overprovisioning: f64) -> f64 {
        if self.healthy == 0 {
            return 0.0;
        }
        let part = |of: f64, all: u32| if all == 0 { 0.0 } else { of / f64::from(all) };
        let risen = part(self.ramped, self.known);
        let settled = part(f64::from(self.healthy - self.ramping), self.known - self.ramping);
        (overprovisioning.max(1.0) * risen.max(settled)).min(1.0)
    }

    fn serves(&self) -> bool {
        self.healthy > 0 && self.weight != Some(0)
    }
}

/// Utilisation that the own cluster would have if all load were at home, smoothed. Reckoned from what it has at its present share:
/// unlike utilisation itself it stays the same while the share moves, so that smoothing it makes no overshoot.
pub(crate) fn next_demand(known: Option<f64>, dt: f64, utilisation: Option<f64>, share: f64) -> Option<f64> {
    let now = utilisation? / share.max(SEED);
    Some(known.map_or(now, |known| known + (now - known) * (1.0 - (-dt / DEMAND_TIME).exp())))
}

/// The own cluster's share after `dt` seconds: lost health takes effect at once, returned health within `ramp` seconds; load moves
/// it in bounded steps outside a dead band.
pub(crate) fn next_local_share(
    current: f64,
    dt: f64,
    health: f64,
    demand: Option<f64>,
    ramp: f64,
    policy: &LocalityPolicy,
) -> f64 {
    if health <= current && demand.is_none() {
        return health;
    }
    let current = current.min(health);
    let wanted = match demand {
        Some(demand) => policy.target_utilisation / demand.max(0.01),
        None => health,
    };
    // What load could come home is not cut to what health allows before it is compared, or the last of it would stay away for ever.
    if demand.is_some() && (wanted - current).abs() <= DEAD_BAND {
        return current;
    }
    if wanted < current {
        return (current - STEP * dt).max(wanted);
    }
    let growth = match demand {
        Some(_) => STEP * dt,
        None if ramp > 0.0 => policy.overprovisioning.max(1.0) * dt / ramp,
        None => 1.0,
    };
    (current + growth).min(wanted).min(health)
}

/// Share of each cluster; they sum to 1, or to 0 when none serves. Expired clusters have a share only when no other serves.
pub(crate) fn split(clusters: &[Strength], local_share: f64, policy: &LocalityPolicy, shares: &mut Vec<f64>) {
    let last_resort = !clusters.iter().any(|cluster| cluster.usable && cluster.serves());
    shares.clear();
    shares.extend(clusters.iter().map(|cluster| match cluster.weight {
        _ if !cluster.serves() || !(cluster.usable || last_resort) => 0.0,
        Some(weight) => f64::from(weight) * cluster.health(policy.overprovisioning),
        None => cluster.ramped,
    }));
    let local_first = policy.local_first && policy.weights.is_empty();
    let own = clusters.iter().position(|c| c.own && c.serves()).filter(|_| local_first);
    let others: f64 = shares.iter().enumerate().filter(|&(i, _)| Some(i) != own).map(|(_, share)| share).sum();
    let left = match own {
        Some(_) if others > 0.0 => 1.0 - local_share,
        Some(_) => 0.0,
        None => 1.0,
    };
    for (i, share) in shares.iter_mut().enumerate() {
        *share = if Some(i) == own {
            1.0 - left
        } else if others > 0.0 {
            *share / others * left
        } else {
            0.0
        };
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
