//! The gateway replicas of a peer: chosen, ejected and restored apart from the endpoints behind them, so that one dead gateway
//! is one ejection and not a hundred.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use veer_core::gateway::Path;

use crate::clock::{Epoch, Micros};
use crate::stats::redial_pause;

/// The replicas of one peer's gateway; one for all workers. Asked once per connection, so a short lock is cheap.
#[derive(Debug)]
pub struct PathBalance {
    epoch: Epoch,
    replicas: Mutex<Vec<Arc<PathReplica>>>,
}

/// One gateway replica.
#[derive(Debug)]
pub struct PathReplica {
    /// Its name within the peer.
    pub name: Arc<str>,
    /// Where it is dialled.
    pub address: SocketAddr,
    weight: AtomicU32,
    draining: AtomicBool,
    /// Virtual time of the last use: grows by `1 / weight` with each, so that the least is next.
    used: AtomicU64,
    /// Since when it cannot be reached; 0 when it can.
    failed_at: AtomicU64,
    attempts: AtomicU32,
    probe_at: AtomicU64,
    ejections: AtomicU64,
}

/// A replica's state for dumps and metrics.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ReplicaSnapshot {
    /// Name within the peer.
    pub name: Arc<str>,
    /// Where it is dialled.
    pub address: SocketAddr,
    /// Share among the replicas.
    pub weight: u32,
    /// Gets no new connections.
    pub draining: bool,
    /// For how long it has not been reachable.
    pub unreachable_for: Option<Duration>,
    /// How often it was ejected.
    pub ejections: u64,
}

/// Virtual time of one use at weight 1.
const STEP: u64 = 1 << 24;

impl PathBalance {
    /// All replicas are taken for reachable.
    pub fn new(path: &Path, now: Instant) -> Arc<Self> {
        let balance = Self { epoch: Epoch::new(now), replicas: Mutex::default() };
        balance.update(path);
        Arc::new(balance)
    }

    /// Takes a changed path; replicas that stay (same name and address) keep what is known of them.
    pub fn update(&self, path: &Path) {
        let mut replicas = self.lock();
        // A newcomer begins where the others are, or it would take every connection until it caught up.
        let used = replicas.iter().map(|r| r.used.load(Relaxed)).min().unwrap_or(0);
        *replicas = path
            .gateways
            .iter()
            .map(|gateway| {
                let same = |r: &&Arc<PathReplica>| r.name == gateway.name && r.address == gateway.address;
                let replica = replicas.iter().find(same).cloned().unwrap_or_else(|| {
                    Arc::new(PathReplica {
                        name: gateway.name.clone(),
                        address: gateway.address,
                        weight: AtomicU32::new(0),
                        draining: AtomicBool::new(false),
                        used: AtomicU64::new(used),
                        failed_at: AtomicU64::new(0),
                        attempts: AtomicU32::new(0),
                        probe_at: AtomicU64::new(0),
                        ejections: AtomicU64::new(0),
                    })
                });
                replica.weight.store(gateway.weight, Relaxed);
                replica.draining.store(gateway.draining, Relaxed);
                replica
            })
            .collect();
    }

    /// The replica for the next connection: by weight, among equals the one not used for longest. When none is fit, one that
    /// drains or has weight 0; when none can be reached, all in turn. `None` only without replicas.
    pub fn pick(&self) -> Option<Arc<PathReplica>> {
        let replicas = self.lock();
        let best = replicas.iter().min_by_key(|replica| {
            let unfit = replica.is_draining() || replica.weight.load(Relaxed) == 0;
            (!replica.is_reachable(), unfit, replica.used.load(Relaxed))
        })?;
        let step = STEP / u64::from(best.weight.load(Relaxed).max(1));
        best.used.fetch_add(step.max(1), Relaxed);
        Some(Arc::clone(best))
    }

    /// The replica could not be reached or was lost: it is out until a probe reaches it again.
    pub fn failed(&self, replica: &PathReplica, now: Instant) {
        let now = self.epoch.at(now);
        if replica.failed_at.compare_exchange(0, now, Relaxed, Relaxed).is_ok() {
            replica.ejections.fetch_add(1, Relaxed);
            replica.attempts.store(1, Relaxed);
            replica.probe_at.store(now + redial_pause(0), Relaxed);
        }
    }

    /// The replica was reached.
    pub fn reachable(&self, replica: &PathReplica) {
        if replica.failed_at.swap(0, Relaxed) != 0 {
            // It begins beside the others: what it missed is not made up for in one rush.
            let used = self.lock().iter().map(|r| r.used.load(Relaxed)).max().unwrap_or(0);
            replica.used.fetch_max(used, Relaxed);
        }
    }

    /// Replicas to be dialled now to see whether they are back; each is handed out once per pause.
    pub fn probe_due(&self, now: Instant) -> Vec<Arc<PathReplica>> {
        let now = self.epoch.at(now);
        self.lock().iter().filter(|replica| replica.take_probe(now)).cloned().collect()
    }

    /// The replicas as they are.
    pub fn snapshot(&self, now: Instant) -> Vec<ReplicaSnapshot> {
        let now = self.epoch.at(now);
        let replicas = self.lock();
        let snapshot = |replica: &Arc<PathReplica>| {
            let failed = replica.failed_at.load(Relaxed);
            ReplicaSnapshot {
                name: replica.name.clone(),
                address: replica.address,
                weight: replica.weight.load(Relaxed),
                draining: replica.is_draining(),
                unreachable_for: (failed != 0).then(|| Duration::from_micros(now.saturating_sub(failed))),
                ejections: replica.ejections.load(Relaxed),
            }
        };
        replicas.iter().map(snapshot).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<PathReplica>>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PathReplica {
    /// Whether it is to get no new connections; those it has are to move when they can.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Whether it could be reached when last tried.
    pub fn is_reachable(&self) -> bool {
        self.failed_at.load(Relaxed) == 0
    }

    fn take_probe(&self, now: Micros) -> bool {
        let at = self.probe_at.load(Relaxed);
        if self.is_reachable() || at > now {
            return false;
        }
        let pause = redial_pause(self.attempts.load(Relaxed));
        let taken = self.probe_at.compare_exchange(at, now + pause, Relaxed, Relaxed).is_ok();
        if taken {
            self.attempts.fetch_add(1, Relaxed);
        }
        taken
    }
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
