//! Rate limits at the callee: token buckets that all workers of the process share.
//!
//! A bucket is one number, the time at which it will be full again (GCRA, ITU-T I.371): taking a token is one compare-and-swap.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use veer_core::SpiffeId;
use veer_core::rate::{Per, RateLimit};

/// Most callers with a bucket of their own, per limit; beyond, callers share one until some of the others have paused.
pub const MOST_CALLERS: usize = 4096;

/// One limit on one port.
pub struct Limiter {
    /// As written.
    pub limit: RateLimit,
    epoch: Instant,
    /// Nanoseconds that one request costs; `None`: no request passes.
    cost: Option<u64>,
    /// Nanoseconds that a bucket may be behind.
    room: u64,
    all: Bucket,
    callers: Mutex<HashMap<Option<SpiffeId>, Arc<Bucket>, foldhash::fast::RandomState>>,
}

/// The time, in nanoseconds since the limiter's epoch, at which the bucket will be full.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Limiter {
    /// Full buckets.
    pub fn new(limit: &RateLimit, now: Instant) -> Self {
        let interval = nanoseconds(limit.interval).max(1);
        let cost = interval.checked_div(u64::from(limit.requests)).map(|cost| cost.max(1));
        let room = cost.unwrap_or(0).saturating_mul(u64::from(limit.burst.max(1)));
        Self { limit: limit.clone(), epoch: now, cost, room, all: Bucket::default(), callers: Mutex::default() }
    }

    /// Takes a token for a request of this caller.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&self, caller: Option<&SpiffeId>, now: Instant) -> Result<(), Duration> {
        let Some(cost) = self.cost else { return Err(self.limit.interval) };
        let at = nanoseconds(now.saturating_duration_since(self.epoch));
        match self.limit.per {
            Per::All => self.all.take(at, cost, self.room),
            Per::Caller => match self.bucket(caller, at) {
                Some(bucket) => bucket.take(at, cost, self.room),
                // Everybody who found no place shares one.
                None => self.all.take(at, cost, self.room),
            },
        }
    }

    /// Gives the token back: another limit did not let the request pass.
    pub fn give_back(&self, caller: Option<&SpiffeId>) {
        let Some(cost) = self.cost else { return };
        let own = match self.limit.per {
            Per::All => None,
            Per::Caller => self.lock().get(&caller.cloned()).cloned(),
        };
        own.as_deref().unwrap_or(&self.all).0.fetch_sub(cost, Relaxed);
    }

    fn bucket(&self, caller: Option<&SpiffeId>, at: u64) -> Option<Arc<Bucket>> {
        let mut callers = self.lock();
        let key = caller.cloned();
        if let Some(bucket) = callers.get(&key) {
            return Some(Arc::clone(bucket));
        }
        if callers.len() >= MOST_CALLERS {
            // A full bucket says nothing.
            callers.retain(|_, bucket| bucket.0.load(Relaxed) > at);
            if callers.len() >= MOST_CALLERS {
                return None;
            }
        }
        Some(Arc::clone(callers.entry(key).or_default()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Option<SpiffeId>, Arc<Bucket>, foldhash::fast::RandomState>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn take(&self, at: u64, cost: u64, room: u64) -> Result<(), Duration> {
        let mut full_at = self.0.load(Relaxed);
        loop {
            let next = full_at.max(at).saturating_add(cost);
            if next - at > room {
                return Err(Duration::from_nanos(next - at - room));
            }
            match self.0.compare_exchange_weak(full_at, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(per: Per, requests: u32, burst: u32, now: Instant) -> Limiter {
        Limiter::new(&RateLimit { per, requests, interval: SECOND, burst, by: "".into() }, now)
    }

    fn id(number: usize) -> SpiffeId {
        format!("spiffe://west.example/ns/shop/sa/web-{number}").parse().unwrap()
    }

    #[test]
    fn a_burst_passes_then_the_rate() {
        let mut now = Instant::now();
        let limiter = limiter(Per::All, 10, 5, now);
        let burst = (0..20).filter(|_| limiter.take(None, now).is_ok()).count();
        assert_eq!(burst, 5);
        let wait = limiter.take(None, now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(limiter.take(None, now + wait - Duration::from_millis(1)).is_err());
        now += wait;
        assert!(limiter.take(None, now).is_ok() && limiter.take(None, now).is_err());
        let mut passed = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            passed += u32::from(limiter.take(None, now).is_ok());
        }
        assert!((99..=101).contains(&passed), "{passed} in ten seconds");
    }

    #[test]
    fn each_caller_has_its_own_bucket_and_what_is_given_back_can_be_taken() {
        let now = Instant::now();
        let limiter = limiter(Per::Caller, 1, 1, now);
        assert!(limiter.take(Some(&id(1)), now).is_ok() && limiter.take(Some(&id(1)), now).is_err());
        assert!(limiter.take(Some(&id(2)), now).is_ok());
        assert!(limiter.take(None, now).is_ok() && limiter.take(None, now).is_err());
        limiter.give_back(Some(&id(1)));
        assert!(limiter.take(Some(&id(1)), now).is_ok() && limiter.take(Some(&id(1)), now).is_err());
    }

    #[test]
    fn buckets_are_bounded_and_those_of_the_quiet_are_given_away() {
        let now = Instant::now();
        let limiter = limiter(Per::Caller, 10, 1, now);
        for number in 0..MOST_CALLERS {
            assert!(limiter.take(Some(&id(number)), now).is_ok());
        }
        // Strangers share one bucket, and nobody gets a second token for it.
        assert!(limiter.take(Some(&id(MOST_CALLERS)), now).is_ok());
        assert!(limiter.take(Some(&id(MOST_CALLERS + 1)), now).is_err());
        assert!(limiter.take(Some(&id(0)), now).is_err());
        assert_eq!(limiter.lock().len(), MOST_CALLERS);
        let later = now + SECOND;
        assert!(limiter.take(Some(&id(MOST_CALLERS + 1)), later).is_ok());
        assert_eq!(limiter.lock().len(), 1);
    }

    #[test]
    fn zero_lets_nothing_pass() {
        let now = Instant::now();
        assert_eq!(limiter(Per::All, 0, 5, now).take(None, now), Err(SECOND));
    }
}
