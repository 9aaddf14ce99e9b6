//! What a gateway counts. Labels are names from the configuration and words from a fixed list, never what a stranger
//! sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use veer_core::ClusterName;
use veer_telemetry::family::{counters, gauges};
use veer_telemetry::{Counter, Gauge, Metrics};

use super::front::Side;
use crate::tcp::Direction;

/// Handles, resolved once per peer.
#[derive(Debug)]
pub(crate) struct GatewayMetrics {
    all: Metrics,
    peers: Mutex<HashMap<ClusterName, Arc<Meters>>>,
    control: Arc<Meters>,
}

/// The counters of one peer.
#[derive(Debug)]
pub(crate) struct Meters {
    all: Metrics,
    peer: Box<str>,
    open: Gauge,
    from_peer: Counter,
    to_peer: Counter,
}

/// Shows a connection as open while it lives.
pub(crate) struct Open(Arc<Meters>);

impl GatewayMetrics {
    pub(crate) fn new(all: Metrics) -> Self {
        // Not a cluster's name: those have no slash.
        let control = Arc::new(Meters::new(&all, "/control"));
        Self { all, peers: Mutex::default(), control }
    }

    pub(crate) fn of_peer(&self, peer: &ClusterName) -> Arc<Meters> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meters) = peers.get(peer) {
            return Arc::clone(meters);
        }
        let meters = Arc::new(Meters::new(&self.all, peer.as_str()));
        peers.insert(peer.clone(), Arc::clone(&meters));
        meters
    }

    pub(crate) fn control(&self) -> Arc<Meters> {
        Arc::clone(&self.control)
    }

    pub(crate) fn refused(&self, side: Side, reason: &'static str) {
        let direction = if side == Side::Public { "gateway" } else { "egress" };
        self.all.counter(&counters::REFUSED_CONNECTIONS, &[direction, reason]).inc();
    }

    /// A connection of a known peer was not relayed.
    pub(crate) fn relay_failed(&self, peer: &ClusterName, reason: &'static str) {
        self.all.counter(&counters::RELAY_CONNECTIONS, &[peer.as_str(), reason]).inc();
    }

    pub(crate) fn dial_failed(&self, peer: &str) {
        self.all.counter(&counters::RELAY_CONNECTIONS, &[peer, "dial_failed"]).inc();
    }

    /// A peer's gateway was dialled; a failure says whether it was in the rotation until now.
    pub(crate) fn path_dialled(&self, cluster: &str, gateway: &str, outcome: Result<(), bool>) {
        let word = if outcome.is_ok() { "ok" } else { "connect_failed" };
        self.all.counter(&counters::PATH_CONNECTIONS, &[cluster, gateway, word]).inc();
        if outcome == Err(true) {
            self.all.counter(&counters::PATH_EJECTIONS, &[cluster, gateway, "connect"]).inc();
        }
        self.all.gauge(&gauges::PATH_UP, &[cluster, gateway]).set(if outcome.is_ok() { 1.0 } else { 0.0 });
    }
}

impl Meters {
    fn new(all: &Metrics, peer: &str) -> Self {
        Self {
            all: all.clone(),
            peer: peer.into(),
            open: all.gauge(&gauges::RELAY_OPEN, &[peer]),
            from_peer: all.counter(&counters::RELAY_BYTES, &[peer, "from_peer"]),
            to_peer: all.counter(&counters::RELAY_BYTES, &[peer, "to_peer"]),
        }
    }

    pub(crate) fn open(self: &Arc<Self>) -> Open {
        self.open.add(1.0);
        Open(Arc::clone(self))
    }

    /// A relay ended so.
    pub(crate) fn ended(&self, outcome: &'static str) {
        self.all.counter(&counters::RELAY_CONNECTIONS, &[&self.peer, outcome]).inc();
    }

    pub(crate) fn moved(&self, side: Side, direction: Direction, bytes: u64) {
        // On the public side the caller is the peer's, on the egress side the callee is.
        match (side, direction) {
            (Side::Public, Direction::Up) | (Side::Egress, Direction::Down) => self.from_peer.add(bytes),
            (Side::Public, Direction::Down) | (Side::Egress, Direction::Up) => self.to_peer.add(bytes),
        }
    }
}

impl Open {
    pub(crate) fn meters(&self) -> &Meters {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.add(-1.0);
    }
}
