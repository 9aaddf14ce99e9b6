//! Limits on how many requests a workload takes in a time, enforced by its own proxy.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A token bucket: it holds [`Self::burst`] requests, and fills at [`Self::requests`] per [`Self::interval`]. Every copy of a service
/// has its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RateLimit {
    /// Who shares a bucket.
    #[serde(default)]
    pub per: Per,
    /// Requests per interval; 0: none at all.
    pub requests: u32,
    /// The interval.
    pub interval: Duration,
    /// Requests at once after a pause; at least 1 counts.
    pub burst: u32,
    /// Who wrote it, such as `TrafficPolicy shop/cart`.
    #[serde(default)]
    pub by: Arc<str>,
}

/// Who shares a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Each verified identity (SPIFFE ID); callers without one share a bucket.
    Caller,
    /// Everybody; also stands for what only a newer version knows, because that lets the fewest pass.
    #[default]
    #[serde(other)]
    All,
}

impl Per {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Per::All => "all",
            Per::Caller => "caller",
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whom = match self.per {
            Per::All => "all callers together",
            Per::Caller => "each caller",
        };
        write!(out, "{} requests per {:?} of {whom}, {} at once", self.requests, self.interval, self.burst.max(1))
    }
}
