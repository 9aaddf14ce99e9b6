//! What outlives a process.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

/// Everything a client knew, to be written to a file and read again by the next process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cache {
    /// Version of the program that wrote it. Another version may read more fields than this one kept, so it asks for everything again.
    pub writer: String,
    /// When the control plane had last confirmed all of it, in seconds since 1970; 0 when nobody knows.
    pub confirmed: u64,
    /// Single resources.
    pub resources: Vec<CachedResource>,
    /// Collections.
    pub collections: Vec<CachedCollection>,
}

/// One subscription.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CachedResource {
    /// Type.
    pub type_url: String,
    /// Name.
    pub name: String,
    /// Version of the body.
    pub version: String,
    /// When it was received, in seconds since 1970.
    pub received: u64,
    /// Whether the control plane had said that there is none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    /// The resource; `None` when it was absent or not yet answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

/// A subscription to all resources of a type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CachedCollection {
    /// Type.
    pub type_url: String,
    /// When it was received, in seconds since 1970.
    pub received: u64,
    /// Versions by name.
    pub versions: BTreeMap<String, String>,
    /// Resources by name; `None` when it was not yet answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bodies: Option<BTreeMap<String, Value>>,
}

/// The version that this program writes into caches.
pub(super) const WRITER: &str = env!("CARGO_PKG_VERSION");

/// When something was received, on the clock of this process, which may have begun later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    pub(super) at: Instant,
    pub(super) before: Duration,
}

impl Received {
    pub(super) fn now() -> Self {
        Self { at: Instant::now(), before: Duration::ZERO }
    }

    /// A wall time in the future counts as now: clocks are set.
    pub(super) fn from_wall(seconds: u64, now: SystemTime) -> Self {
        let then = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let before = then.and_then(|then| now.duration_since(then).ok()).unwrap_or_default();
        Self { at: Instant::now(), before }
    }

    pub(super) fn age(self) -> Duration {
        self.at.elapsed() + self.before
    }

    pub(super) fn to_wall(self, now: SystemTime) -> u64 {
        let then = now.checked_sub(self.age()).unwrap_or(UNIX_EPOCH);
        then.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}
