//! How much each cluster is believed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use veer_core::gateway::{Lease, Path};
use veer_core::names::ClusterName;
use veer_core::policy::DEFAULT_LEASE;

use crate::clock::{Epoch, Micros, micros};

/// What a caller makes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Its control plane holds the lease, and ours says so.
    Fresh,
    /// Control is silent, but the data path answered within the lease: everything is kept.
    Proven,
    /// Neither: last resort only.
    Expired,
}

/// Joins what the control plane says with what the data path showed. `proof` is the age of the last end-to-end handshake, answer
/// or PING acknowledgement.
pub fn standing(control_alive: bool, lease: Lease, proof: Option<Duration>, lease_duration: Duration) -> Standing {
    if control_alive && lease == Lease::Fresh {
        Standing::Fresh
    } else if proof.is_some_and(|age| age < lease_duration) {
        Standing::Proven
    } else {
        Standing::Expired
    }
}

/// All clusters that this process knows; shared by all services.
#[derive(Debug)]
pub struct Clusters {
    own: ClusterName,
    epoch: Epoch,
    control_alive: Arc<AtomicBool>,
    known: Mutex<BTreeMap<ClusterName, Arc<ClusterHealth>>>,
}

impl Clusters {
    /// Begins with the own cluster and a control plane that is alive.
    pub fn new(own: &ClusterName, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            own: own.clone(),
            epoch: Epoch::new(now),
            control_alive: Arc::new(AtomicBool::new(true)),
            known: Mutex::default(),
        })
    }

    /// The own cluster.
    pub fn own(&self) -> &ClusterName {
        &self.own
    }

    /// Whether the session with the own control plane stands.
    pub fn set_control_alive(&self, alive: bool) {
        self.control_alive.store(alive, Relaxed);
    }

    /// Takes the lease that the control plane states. A cluster without a stated lease counts as fresh.
    pub fn set_path(&self, path: &Path) {
        let health = self.get(&path.cluster);
        health.silent.store(path.lease == Lease::Silent, Relaxed);
        health.lease.store(micros(path.lease_duration), Relaxed);
    }

    /// The cluster's health, the same for all who ask.
    pub fn get(&self, cluster: &ClusterName) -> Arc<ClusterHealth> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(health) = known.get(cluster) {
            return Arc::clone(health);
        }
        let health = Arc::new(ClusterHealth {
            name: cluster.clone(),
            own: *cluster == self.own,
            epoch: self.epoch,
            control_alive: Arc::clone(&self.control_alive),
            silent: AtomicBool::new(false),
            lease: AtomicU64::new(micros(DEFAULT_LEASE)),
            proven_at: AtomicU64::new(0),
            probed_at: AtomicU64::new(0),
            rtt: AtomicU64::new(0),
        });
        known.insert(cluster.clone(), Arc::clone(&health));
        health
    }

    /// Clusters in silence whose data path was neither proven nor probed for a quarter of the lease: each is to be probed
    /// now by who uses it, and is not handed out again for as long.
    pub fn proof_due(&self, now: Instant) -> Vec<Arc<ClusterHealth>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter(|health| health.take_probe(now)).cloned().collect()
    }
}

/// What this process knows of one cluster as a whole.
#[derive(Debug)]
pub struct ClusterHealth {
    name: ClusterName,
    own: bool,
    epoch: Epoch,
    control_alive: Arc<AtomicBool>,
    silent: AtomicBool,
    lease: AtomicU64,
    proven_at: AtomicU64,
    probed_at: AtomicU64,
    /// Microseconds; 0 when never measured.
    rtt: AtomicU64,
}

impl ClusterHealth {
    /// The cluster.
    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// Something arrived from the cluster end to end: a handshake finished, an answer or a PING acknowledgement came.
    pub fn prove(&self, now: Instant) {
        self.proven_at.fetch_max(self.epoch.at(now), Relaxed);
    }

    /// Age of the last proof.
    pub fn proof_age(&self, now: Instant) -> Option<Duration> {
        let at = self.proven_at.load(Relaxed);
        (at != 0).then(|| Duration::from_micros(self.epoch.at(now).saturating_sub(at)))
    }

    /// What to make of the cluster now. The own cluster is always fresh: its endpoints are judged one by one.
    pub fn standing(&self, now: Instant) -> Standing {
        if self.own {
            return Standing::Fresh;
        }
        let lease = if self.silent.load(Relaxed) { Lease::Silent } else { Lease::Fresh };
        let duration = Duration::from_micros(self.lease.load(Relaxed));
        standing(self.control_alive.load(Relaxed), lease, self.proof_age(now), duration)
    }

    /// Takes a measured round trip of the path (TCP or PING, not an application's answer). Falls at once and rises slowly:
    /// the path is as short as its best measure, and queues are the endpoints' own.
    pub fn observe_rtt(&self, rtt: Duration) {
        let sample = micros(rtt).max(1);
        let known = self.rtt.load(Relaxed);
        let next = if known == 0 || sample < known { sample } else { known + (sample - known) / 16 };
        self.rtt.store(next, Relaxed);
    }

    /// Round trip of the path; zero while unknown.
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt.load(Relaxed))
    }

    fn take_probe(&self, now: Instant) -> bool {
        if self.own || self.standing(now) == Standing::Fresh {
            return false;
        }
        let now: Micros = self.epoch.at(now);
        let pause = self.lease.load(Relaxed) / 4;
        let (proven, probed) = (self.proven_at.load(Relaxed), self.probed_at.load(Relaxed));
        let rested = |at: Micros| at == 0 || now.saturating_sub(at) >= pause;
        rested(proven) && rested(probed) && self.probed_at.compare_exchange(probed, now, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(lease: Lease) -> Path {
        Path {
            cluster: ClusterName::new("west").unwrap(),
            trust_domain: "west.example".parse().unwrap(),
            gateways: vec![],
            lease,
            lease_duration: Duration::from_secs(8),
        }
    }

    #[test]
    fn silence_without_proof_expires_and_proof_keeps() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let clusters = Clusters::new(&ClusterName::new("east").unwrap(), start);
        let west = clusters.get(&ClusterName::new("west").unwrap());
        assert_eq!(west.standing(at(100)), Standing::Fresh);
        clusters.set_path(&path(Lease::Silent));
        assert_eq!(west.standing(at(100)), Standing::Expired);
        west.prove(at(100));
        assert_eq!(west.standing(at(107)), Standing::Proven);
        assert_eq!(west.standing(at(108)), Standing::Expired);
        clusters.set_path(&path(Lease::Fresh));
        assert_eq!(west.standing(at(200)), Standing::Fresh);
        clusters.set_control_alive(false);
        assert_eq!(west.standing(at(200)), Standing::Expired);
        assert_eq!(clusters.get(clusters.own()).standing(at(200)), Standing::Fresh);
    }

    #[test]
    fn probes_are_handed_out_once_per_quarter_lease_in_silence() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let clusters = Clusters::new(&ClusterName::new("east").unwrap(), start);
        clusters.get(&ClusterName::new("east").unwrap());
        clusters.set_path(&path(Lease::Fresh));
        assert!(clusters.proof_due(at(1)).is_empty());
        clusters.set_path(&path(Lease::Silent));
        assert_eq!(clusters.proof_due(at(1)).len(), 1);
        assert!(clusters.proof_due(at(2)).is_empty());
        assert_eq!(clusters.proof_due(at(3)).len(), 1);
        clusters.get(&ClusterName::new("west").unwrap()).prove(at(4));
        assert!(clusters.proof_due(at(5)).is_empty());
        assert_eq!(clusters.proof_due(at(6)).len(), 1);
    }
}
