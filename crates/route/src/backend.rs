//! The choice among a rule's backends.

use std::sync::atomic::{AtomicU32, Ordering};

use veer_core::route::Backend;

/// The fractional part of the golden ratio in 32 bits: multiples of it fill the circle as evenly as any sequence can (Weyl), so that
/// after n choices every backend is within about one of its due share.
const GOLDEN: u32 = 0x9E37_79B9;

/// Chooses the same share of requests, evenly in time.
#[derive(Debug)]
pub struct Share {
    numerator: u32,
    denominator: u32,
    turn: AtomicU32,
}

impl Share {
    /// `numerator` of `denominator` requests; of a denominator of 0 none.
    pub fn new(numerator: u32, denominator: u32) -> Self {
        // From the middle: a configuration that is renewed often must not make every first request one of them.
        Self { numerator, denominator, turn: AtomicU32::new(1 << 31) }
    }

    /// Whether this is one of them.
    pub fn is_due(&self) -> bool {
        let place = self.turn.fetch_add(GOLDEN, Ordering::Relaxed);
        (u64::from(place) * u64::from(self.denominator)) >> 32 < u64::from(self.numerator) && self.denominator > 0
    }
}

/// Deals requests to weighted backends, evenly in time and exactly in share: no coin is tossed.
#[derive(Debug, Default)]
pub struct Deal {
    turn: AtomicU32,
}

impl Deal {
    /// The next backend by weight. `None` when there is none or all weigh nothing, which answers 500 (Gateway API). A backend that
    /// is [`invalid`](Backend::invalid) keeps its share, and that share answers 500.
    pub fn pick<'b>(&self, backends: &'b [Backend]) -> Option<&'b Backend> {
        self.pick_index(backends).and_then(|index| backends.get(index))
    }

    /// The same by its place in the list.
    pub fn pick_index(&self, backends: &[Backend]) -> Option<usize> {
        if let [only] = backends {
            return (only.weight > 0).then_some(0);
        }
        let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
        let place = self.turn.fetch_add(GOLDEN, Ordering::Relaxed);
        // The place on a circle of 2³² becomes a place among the weights; at most 16 backends of 32 bits fit in 64 × 32.
        let mut at = u64::try_from((u128::from(total) * u128::from(place)) >> 32).unwrap_or(0);
        backends.iter().position(|b| match at.checked_sub(u64::from(b.weight)) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use veer_core::names::ServiceHost;

    use super::*;

    fn backends(weights: &[u32]) -> Vec<Backend> {
        let host = |i| ServiceHost::new(&format!("b{i}.shop.svc.cluster.local")).unwrap();
        weights
            .iter()
            .enumerate()
            .map(|(i, &weight)| Backend {
                host: host(i),
                port: 80,
                weight,
                invalid: None,
                filters: vec![],
                protocol: None,
            })
            .collect()
    }

    #[test]
    fn shares_follow_weights() {
        let (deal, backends) = (Deal::default(), backends(&[90, 0, 10]));
        let mut counts = [0; 3];
        for n in 1..=10_000 {
            let picked = deal.pick(&backends).unwrap();
            counts[backends.iter().position(|b| b.host == picked.host).unwrap()] += 1;
            assert!((f64::from(counts[2]) - f64::from(n) / 10.0).abs() < 3.0, "after {n}: {counts:?}");
        }
        assert_eq!(counts[1], 0);
    }

    #[test]
    fn a_share_is_even() {
        for (numerator, denominator) in [(0, 100), (1, 100), (1, 3), (50, 100), (100, 100), (7, 5), (1, 0)] {
            let share = Share::new(numerator, denominator);
            let ratio = f64::from(numerator.min(denominator)) / f64::from(denominator.max(1));
            let mut due = 0;
            for n in 1..=1000 {
                due += u32::from(share.is_due());
                assert!((f64::from(due) - f64::from(n) * ratio).abs() < 3.0, "{numerator}/{denominator}: {due} of {n}");
            }
        }
    }

    #[test]
    fn no_weight_no_backend() {
        let deal = Deal::default();
        assert!(deal.pick(&[]).is_none());
        assert!(deal.pick(&backends(&[0])).is_none());
        assert!(deal.pick(&backends(&[0, 0])).is_none());
        let huge = backends(&[u32::MAX, u32::MAX, u32::MAX]);
        assert!((0..1000).all(|_| deal.pick(&huge).is_some()));
    }
}
