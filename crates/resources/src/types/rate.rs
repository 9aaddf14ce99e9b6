//! Rate limits in a TrafficPolicy.

use std::sync::Arc;
use std::time::Duration;

use veer_core::rate::{Per, RateLimit};

use crate::decode::{manifest, open_enum};

manifest! {
    /// See [`RateLimit`].
    pub struct RateLimitSpec {
        /// Who shares a bucket.
        pub per: RatePer = "per",
        /// Requests per interval.
        pub requests: u32 = "requests" => required,
        /// The interval; `None`: 1 s.
        pub interval: Option<Duration> = "interval",
        /// Requests at once; `None`: those of one interval.
        pub burst: Option<u32> = "burst",
    }
    ignored []
}

open_enum! {
    /// Who shares a bucket.
    pub enum RatePer {
        /// Everybody.
        All = "All",
        /// Each verified identity.
        Caller = "Caller",
    }
    default All
}

impl RateLimitSpec {
    /// The limit as callees enforce it; `by` names the policy.
    pub fn limit(&self, by: &Arc<str>) -> RateLimit {
        let per = match self.per {
            RatePer::Caller => Per::Caller,
            // What is not known lets the fewest pass.
            RatePer::All | RatePer::Unknown(_) => Per::All,
        };
        RateLimit {
            per,
            requests: self.requests,
            interval: self.interval.filter(|time| !time.is_zero()).unwrap_or(Duration::from_secs(1)),
            burst: self.burst.unwrap_or(self.requests).max(1),
            by: Arc::clone(by),
        }
    }
}
