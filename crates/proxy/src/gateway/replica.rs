//! One address that may be dialled, among others that would do as well: how busy it is, and whether it was reachable of
//! late.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Rest after the first failure; doubled with each further one.
const FIRST_REST: Duration = Duration::from_millis(250);
/// Longest rest: a replica that is back is used within this time.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// An address with its record.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    open: AtomicUsize,
    failures: AtomicU32,
    rests_until: Mutex<Option<Instant>>,
}

/// A connection to a replica; dropping it makes the replica less busy.
#[derive(Debug)]
pub(crate) struct InUse(Arc<Replica>);

impl Replica {
    pub(crate) fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            address,
            open: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            rests_until: Mutex::default(),
        })
    }

    /// Counts a connection, or an attempt at one: what is being dialled counts, or a burst would go to one replica.
    pub(crate) fn take(self: &Arc<Self>) -> InUse {
        self.open.fetch_add(1, Ordering::Relaxed);
        InUse(Arc::clone(self))
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Could not be reached. Says whether it was in the rotation until now.
    pub(crate) fn failed(&self, now: Instant) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let rest = FIRST_REST.saturating_mul(1 << failures.min(10)).min(LONGEST_REST);
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + rest);
        failures == 0
    }

    /// Was reached.
    pub(crate) fn succeeded(&self) {
        if self.failures.swap(0, Ordering::Relaxed) > 0 {
            *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Whether it is left alone for now.
    pub(crate) fn rests(&self, now: Instant) -> bool {
        // The lock is only for those that have failed.
        self.failures.load(Ordering::Relaxed) > 0
            && self.rests_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }
}

impl InUse {
    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// In which order replicas are tried: those that do not rest first, the least busy first, equals by lot. `busy` scales
/// by weight.
pub(crate) fn in_order<T>(
    candidates: &[T],
    replica: impl Fn(&T) -> &Arc<Replica>,
    weight: impl Fn(&T) -> u32,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Vec<usize> {
    let mut order: Vec<(bool, u64, u32, usize)> = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| weight(candidate) > 0)
        .map(|(index, candidate)| {
            let at = replica(candidate);
            let busy = (at.open() as u64 + 1).saturating_mul(1 << 16) / u64::from(weight(candidate));
            (at.rests(now), busy, rng.u32(..), index)
        })
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(.., index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(count: u16) -> Vec<Arc<Replica>> {
        (0..count).map(|port| Replica::new(SocketAddr::from(([127, 0, 0, 1], port)))).collect()
    }

    fn order(replicas: &[Arc<Replica>], now: Instant) -> Vec<usize> {
        in_order(replicas, |r| r, |_| 1, now, &mut fastrand::Rng::with_seed(7))
    }

    #[tokio::test]
    async fn connections_spread_evenly_and_the_failed_come_last() {
        let replicas = replicas(3);
        let now = Instant::now();
        let taken: Vec<InUse> = (0..9).map(|_| replicas[order(&replicas, now)[0]].take()).collect();
        assert!(replicas.iter().all(|replica| replica.open() == 3));
        drop(taken);
        assert!(replicas.iter().all(|replica| replica.open() == 0));

        assert!(replicas[1].failed(now), "was in the rotation");
        assert!(!replicas[1].failed(now), "was not");
        assert_eq!(order(&replicas, now)[2], 1);
        assert!(!replicas[1].rests(now + FIRST_REST * 2), "it is tried again after its rest");
        replicas[1].succeeded();
        assert!(!replicas[1].rests(now));
    }

    #[tokio::test]
    async fn weights_are_kept_and_zero_gets_nothing() {
        let replicas = replicas(3);
        let weights = [1, 3, 0];
        let candidates: Vec<_> = replicas.iter().cloned().zip(weights).collect();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut taken = Vec::new();
        for _ in 0..40 {
            let order = in_order(&candidates, |c| &c.0, |c| c.1, Instant::now(), &mut rng);
            assert_eq!(order.len(), 2);
            taken.push(replicas[order[0]].take());
        }
        let open: Vec<usize> = replicas.iter().map(|replica| replica.open()).collect();
        assert!(open[0].abs_diff(10) <= 1 && open[1].abs_diff(30) <= 1 && open[2] == 0, "{open:?}");
    }
}
