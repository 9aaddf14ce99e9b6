//! Waiting longer after each failure.

use std::time::Duration;

/// Exponential back-off with jitter.
///
/// The *n*-th wait is `base · 2ⁿ`, at most `max`, times a random factor between one half and one. The random half keeps a fleet
/// that lost its control plane in one moment from returning in one moment; the fixed half keeps a single unlucky caller
/// from trying again at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    /// Starts with waits of up to `base` and ends with waits of up to `max`.
    pub fn new(base: Duration, max: Duration, rng: fastrand::Rng) -> Self {
        Self { base, max: max.max(base), failures: 0, rng }
    }

    /// How long to wait after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let doubled = 1u32.checked_shl(self.failures).and_then(|factor| self.base.checked_mul(factor));
        self.failures = self.failures.saturating_add(1);
        let full = doubled.unwrap_or(self.max).min(self.max);
        full.mul_f64(0.5 + self.rng.f64() / 2.0)
    }

    /// Waits after one more failure.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }

    /// Forgets all failures: the next wait is a first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}
