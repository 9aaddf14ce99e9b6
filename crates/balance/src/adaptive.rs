//! Adaptive concurrency: the limit on requests in flight follows the latency that it brings about. Additive increase and
//! multiplicative decrease, as TCP does with its window: while answers come within the policy's latency and the limit is in use, it
//! grows by a twentieth (at least one) per [`WINDOW`]; when they do not, it falls by a tenth.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use veer_core::policy::{Adaptive, CircuitBreaker};

use crate::clock::{Micros, micros};

/// Time over which answers are averaged.
const WINDOW: Micros = 100_000;
/// Fewer answers say nothing; the window goes on.
const LEAST_ANSWERS: u32 = 8;
/// Where the limit begins.
const FIRST_LIMIT: u32 = 64;

/// The limit of one service, for all workers of the process.
#[derive(Debug)]
pub(crate) struct Concurrency {
    limit: AtomicU32,
    window_ends: AtomicU64,
    sum: AtomicU64,
    answers: AtomicU32,
    /// Most requests in flight within the window.
    peak: AtomicU32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            limit: AtomicU32::new(FIRST_LIMIT),
            window_ends: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            answers: AtomicU32::new(0),
            peak: AtomicU32::new(0),
        }
    }
}

impl Concurrency {
    /// Requests that may be in flight now.
    pub(crate) fn most(&self, breaker: &CircuitBreaker) -> u32 {
        match &breaker.adaptive {
            None => breaker.max_requests,
            Some(adaptive) => self.limit.load(Relaxed).max(adaptive.min_requests.max(1)).min(breaker.max_requests),
        }
    }

    /// Takes an answer's latency, with the requests in flight when it came.
    pub(crate) fn observe(
        &self,
        adaptive: &Adaptive,
        breaker: &CircuitBreaker,
        latency: Micros,
        in_flight: u32,
        now: Micros,
    ) {
        self.sum.fetch_add(latency, Relaxed);
        let answers = self.answers.fetch_add(1, Relaxed) + 1;
        self.peak.fetch_max(in_flight, Relaxed);
        let ends = self.window_ends.load(Relaxed);
        // One worker closes the window; what others add meanwhile counts for the next.
        if now < ends
            || answers < LEAST_ANSWERS
            || self.window_ends.compare_exchange(ends, now + WINDOW, Relaxed, Relaxed).is_err()
        {
            return;
        }
        let mean = self.sum.swap(0, Relaxed) / u64::from(self.answers.swap(0, Relaxed).max(1));
        let peak = self.peak.swap(0, Relaxed);
        let limit = self.most(breaker);
        let next = if mean > micros(adaptive.latency) {
            limit - (limit / 10).max(1)
        } else if peak.saturating_mul(2) > limit {
            limit.saturating_add((limit / 20).max(1))
        } else {
            // What nobody used says nothing about more.
            limit
        };
        self.limit.store(next.max(adaptive.min_requests.max(1)).min(breaker.max_requests.max(1)), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A service that answers `capacity` requests at once in 10 ms, and more of them in proportion slower; asked by as many as may.
    fn settle(limit: &Concurrency, breaker: &CircuitBreaker, capacity: u32, asking: u32, now: &mut Micros) -> u32 {
        for _ in 0..400 {
            let in_flight = limit.most(breaker).min(asking);
            let latency = 10_000 * u64::from(in_flight.max(capacity)) / u64::from(capacity);
            *now += WINDOW;
            for _ in 0..LEAST_ANSWERS * 2 {
                let adaptive = breaker.adaptive.as_ref().unwrap();
                limit.observe(adaptive, breaker, latency, in_flight, *now);
            }
        }
        limit.most(breaker)
    }

    #[test]
    fn the_limit_finds_what_the_service_bears_in_time_and_follows_it() {
        let adaptive = Adaptive { latency: Duration::from_millis(20), min_requests: 4 };
        let breaker = CircuitBreaker { adaptive: Some(adaptive), ..CircuitBreaker::default() };
        let (limit, mut now) = (Concurrency::default(), 1);
        // 20 ms are reached at twice the capacity.
        for capacity in [100, 10, 400] {
            let found = settle(&limit, &breaker, capacity, u32::MAX, &mut now);
            let wanted = f64::from(capacity) * 2.0;
            assert!((f64::from(found) / wanted - 1.0).abs() < 0.15, "capacity {capacity}: {found}");
        }
        assert_eq!(settle(&limit, &breaker, 1, u32::MAX, &mut now), 4, "never below the least");
    }

    #[test]
    fn an_unused_limit_does_not_grow_and_without_the_option_the_ceiling_holds() {
        let adaptive = Adaptive { latency: Duration::from_millis(20), min_requests: 4 };
        let breaker = CircuitBreaker { adaptive: Some(adaptive), max_requests: 1000, ..CircuitBreaker::default() };
        let (limit, mut now) = (Concurrency::default(), 1);
        assert_eq!(settle(&limit, &breaker, 100, 5, &mut now), FIRST_LIMIT);
        assert_eq!(settle(&limit, &breaker, 100_000, u32::MAX, &mut now), 1000, "the ceiling");
        assert_eq!(limit.most(&CircuitBreaker { adaptive: None, max_requests: 7, ..breaker }), 7);
    }
}
