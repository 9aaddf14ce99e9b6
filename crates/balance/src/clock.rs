//! Instants as numbers, so that they fit into atomics.

use std::time::Duration;

use tokio::time::Instant;

/// Microseconds since an epoch; 0 means *never*, so every instant is at least 1.
pub(crate) type Micros = u64;

/// The instant that counting begins at. All that compare numbers share one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epoch(Instant);

impl Epoch {
    pub(crate) fn new(now: Instant) -> Self {
        Self(now)
    }

    pub(crate) fn at(self, now: Instant) -> Micros {
        micros(now.saturating_duration_since(self.0)) + 1
    }
}

pub(crate) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}

pub(crate) fn seconds(micros: Micros) -> f64 {
    micros as f64 / 1e6
}
