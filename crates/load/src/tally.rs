//! Adding samples up.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::Sample;

/// Reasons that are told with their words; of more only the status is.
const MOST_REASONS: usize = 64;

/// Counts and latencies of many samples. Latencies are kept in nanoseconds to three significant digits.
#[derive(Debug, Clone)]
pub struct Tally {
    requests: u64,
    failures: u64,
    latency: Histogram<u64>,
    reasons: BTreeMap<String, u64>,
}

/// A [`Tally`] in figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Requests that ended, well or badly.
    pub requests: u64,
    /// Those that were not served.
    pub failures: u64,
    /// Median latency.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Worst.
    pub max: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        // Three digits of precision is within the crate's 0 to 5; the histogram grows by itself.
        let latency = Histogram::new(3).expect("three digits are allowed");
        Self { requests: 0, failures: 0, latency, reasons: BTreeMap::new() }
    }
}

impl Tally {
    /// Adds one sample.
    pub fn add(&mut self, sample: &Sample) {
        self.record(sample.latency);
        if !sample.ok() {
            let reason = match &sample.outcome {
                Ok(answer) => match answer.words() {
                    // Answers that say something else each time must not fill the memory.
                    Some(words) if self.reasons.len() < MOST_REASONS => format!("status {} ({words})", answer.status),
                    _ => format!("status {}", answer.status),
                },
                Err(failure) => failure.to_string(),
            };
            self.blame(reason);
        }
    }

    /// One more request that took so long, however it ended.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.requests += 1;
        let _ = self.latency.record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The request recorded last was not served.
    pub(crate) fn blame(&mut self, reason: String) {
        self.failures += 1;
        *self.reasons.entry(reason).or_default() += 1;
    }

    /// Adds another tally's samples.
    pub fn merge(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.failures += other.failures;
        // Both histograms grow by themselves, so that this cannot overflow.
        self.latency.add(&other.latency).expect("histograms of one kind add up");
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }

    /// The figures.
    pub fn summary(&self) -> Summary {
        let at = |quantile| Duration::from_nanos(self.latency.value_at_quantile(quantile));
        Summary {
            requests: self.requests,
            failures: self.failures,
            p50: at(0.5),
            p99: at(0.99),
            max: Duration::from_nanos(self.latency.max()),
        }
    }

    /// Why requests failed, and how many each.
    pub fn reasons(&self) -> &BTreeMap<String, u64> {
        &self.reasons
    }
}
