//! A latency histogram of atomics. prometheus-client's own takes a mutex per observation, which is more than the path of a
//! request can afford.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets in seconds, 0.5 ms to 10 s; the last bucket is unbounded. Dense where services inside a
/// cluster answer.
pub const BOUNDS: [f64; 18] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const BUCKETS: usize = BOUNDS.len() + 1;

/// The same bounds in nanoseconds.
const NANOS: [u64; BOUNDS.len()] = {
    let mut nanos = [0; BOUNDS.len()];
    let mut i = 0;
    while i < nanos.len() {
        // Through microseconds, which every bound is a whole number of, lest 0.001 become 999,999.
        nanos[i] = (BOUNDS[i] * 1e6 + 0.5) as u64 * 1000;
        i += 1;
    }
    nanos
};

/// Counts durations by bucket. Shared by reference, written from anywhere.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = NANOS.partition_point(|&bound| bound < nanos);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let bound = |i: usize| BOUNDS.get(i).copied().unwrap_or(f64::INFINITY);
        let buckets: Vec<_> = self.buckets.iter().enumerate().map(|(i, n)| (bound(i), n.load(Relaxed))).collect();
        HistogramSnapshot {
            count: buckets.iter().map(|(_, n)| n).sum(),
            sum: self.nanos.load(Relaxed) as f64 / 1e9,
            buckets,
        }
    }
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSnapshot {
    /// Observations.
    pub count: u64,
    /// Sum in seconds.
    pub sum: f64,
    /// Upper bound in seconds and number in that bucket alone.
    pub buckets: Vec<(f64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for bound in BOUNDS {
            histogram.observe(Duration::from_secs_f64(bound));
        }
        histogram.observe(Duration::from_secs(11));
        histogram.observe(Duration::ZERO);
        let snapshot = histogram.snapshot();
        let numbers: Vec<u64> = snapshot.buckets.iter().map(|(_, n)| *n).collect();
        assert_eq!(numbers[0], 2);
        assert!(numbers[1..].iter().all(|n| *n == 1), "{numbers:?}");
        assert_eq!(snapshot.count, 20);
        assert!((snapshot.sum - (BOUNDS.iter().sum::<f64>() + 11.0)).abs() < 1e-6);
    }
}
