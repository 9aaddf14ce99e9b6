//! The retry budget (GEP-3388): what keeps retries from making an outage worse.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;
use veer_core::policy;

use crate::clock::{Epoch, micros};

/// A sliding window cut into this many slices.
const SLICES: u64 = 10;

/// Counts requests and retries over the interval of the policy. A retry is allowed while retries are fewer than the ratio of
/// *original* requests, or than the floor, whichever is more: in a total outage the load on the service is at most
/// `1 + ratio` times what callers ask for (plus nothing, once the floor is passed).
#[derive(Debug)]
pub struct RetryBudget {
    epoch: Epoch,
    /// Length of a slice in microseconds.
    slice: AtomicU64,
    /// Bits of an `f64`.
    ratio: AtomicU64,
    /// Retries per interval that are always allowed; bits of an `f64`.
    floor: AtomicU64,
    answers: AtomicBool,
    requests: Window,
    retries: Window,
}

impl RetryBudget {
    /// An empty window.
    pub fn new(policy: &policy::RetryBudget, now: Instant) -> Self {
        let budget = Self {
            epoch: Epoch::new(now),
            slice: AtomicU64::new(1),
            ratio: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            answers: AtomicBool::new(false),
            requests: Window::default(),
            retries: Window::default(),
        };
        budget.set_policy(policy);
        budget
    }

    /// Takes a changed policy; what was counted stays.
    pub fn set_policy(&self, policy: &policy::RetryBudget) {
        let floor = (policy.min_per_second * policy.interval.as_secs_f64()).max(0.0);
        self.slice.store((micros(policy.interval) / SLICES).max(1), Relaxed);
        self.ratio.store(policy.ratio.max(0.0).to_bits(), Relaxed);
        self.floor.store(floor.to_bits(), Relaxed);
        self.answers.store(policy.answers, Relaxed);
    }

    /// Whether a request whose retry it does not allow is answered with 503.
    pub fn answers(&self) -> bool {
        self.answers.load(Relaxed)
    }

    /// Counts an original request; retries are not counted here.
    pub fn request(&self, now: Instant) {
        self.requests.add(self.slice_at(now));
    }

    /// Takes a retry from the budget, if it allows one.
    pub fn retry(&self, now: Instant) -> bool {
        let slice = self.slice_at(now);
        let share = f64::from_bits(self.ratio.load(Relaxed)) * self.requests.sum(slice) as f64;
        let allowed = share.max(f64::from_bits(self.floor.load(Relaxed)));
        // Counted first and given back when over, so that two workers cannot both take the last one.
        self.retries.add(slice);
        if self.retries.sum(slice) as f64 <= allowed {
            return true;
        }
        self.retries.give_back(slice);
        false
    }

    /// Requests and retries within the window.
    pub fn counts(&self, now: Instant) -> (u64, u64) {
        let slice = self.slice_at(now);
        (self.requests.sum(slice), self.retries.sum(slice))
    }

    /// 32 bits of slices are enough for 136 years of seconds.
    fn slice_at(&self, now: Instant) -> u64 {
        (self.epoch.at(now) / self.slice.load(Relaxed) + SLICES) & u64::from(u32::MAX)
    }
}

/// Counts per slice: the slice's number above, the count below, so that one atomic holds both.
#[derive(Debug, Default)]
struct Window([AtomicU64; SLICES as usize]);

impl Window {
    fn add(&self, slice: u64) {
        let cell = self.cell(slice);
        let fresh = slice << 32 | 1;
        let mut seen = cell.load(Relaxed);
        loop {
            let next = if seen >> 32 == slice { seen + u64::from(seen as u32 != u32::MAX) } else { fresh };
            match cell.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    fn give_back(&self, slice: u64) {
        let take = |seen: u64| (seen >> 32 == slice && seen as u32 > 0).then(|| seen - 1);
        // Nothing to give back when the slice has turned meanwhile.
        let _ = self.cell(slice).fetch_update(Relaxed, Relaxed, take);
    }

    fn sum(&self, slice: u64) -> u64 {
        let recent = |cell: u64| slice.wrapping_sub(cell >> 32) < SLICES;
        self.0
            .iter()
            .map(|cell| cell.load(Relaxed))
            .filter(|&cell| recent(cell))
            .map(|cell| u64::from(cell as u32))
            .sum()
    }

    fn cell(&self, slice: u64) -> &AtomicU64 {
        &self.0[(slice % SLICES) as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_total_outage_is_not_amplified() {
        let start = Instant::now();
        let budget = RetryBudget::new(&policy::RetryBudget::default(), start);
        let (mut sent, mut asked) = (0, 0);
        // 1,000 requests a second for a minute; each wants two retries, and nothing ever succeeds.
        for ms in 0..60_000 {
            let now = start + Duration::from_millis(ms);
            budget.request(now);
            asked += 1;
            sent += 1 + u64::from(budget.retry(now)) + u64::from(budget.retry(now));
        }
        let amplification = sent as f64 / asked as f64;
        assert!((1.19..=1.21).contains(&amplification), "{amplification}");
    }

    #[test]
    fn the_floor_serves_the_quiet_and_the_window_slides() {
        let start = Instant::now();
        let policy =
            policy::RetryBudget { ratio: 0.1, interval: Duration::from_secs(10), min_per_second: 0.5, answers: false };
        let budget = RetryBudget::new(&policy, start);
        let granted = |at: u64| (0..20).filter(|_| budget.retry(start + Duration::from_secs(at))).count();
        assert_eq!(granted(0), 5);
        assert_eq!(granted(5), 0);
        assert_eq!(granted(11), 5);
        for _ in 0..200 {
            budget.request(start + Duration::from_secs(12));
        }
        assert_eq!(granted(12), 15);
    }

    #[test]
    fn zero_is_off() {
        let start = Instant::now();
        let policy = policy::RetryBudget { ratio: 0.0, interval: Duration::ZERO, min_per_second: 0.0, answers: false };
        let budget = RetryBudget::new(&policy, start);
        budget.request(start);
        assert!(!budget.retry(start));
    }
}
