//! What a worker does beside requests: dial again what could not be reached, probe what is silent, forget what is unused.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use veer_balance::{PathBalance, PathReplica};

use crate::outbound;
use crate::worker::Worker;

/// How often the balance is asked whom to dial: well below its shortest pause (250 ms).
const TICK: Duration = Duration::from_millis(100);
/// How often what is unused is looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How often downstream connections are looked at.
const WATCH: Duration = Duration::from_secs(1);

/// Runs as long as the worker.
pub async fn run(worker: Rc<Worker>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let identity = worker.process.identity.clone();
    let mut changed = identity.changed();
    let mut shown = identity.svid();
    let mut swept = Instant::now();
    let mut watched = swept;
    loop {
        tokio::select! {
            biased;
            _ = tick.tick() => {
                let now = worker.recent.look();
                dial_due(&worker, now);
                if now.saturating_duration_since(watched) >= WATCH {
                    watched = now;
                    worker.connections.sweep(watched);
                }
                if now.saturating_duration_since(swept) >= SWEEP {
                    swept = now;
                    worker.knowledge.sweep(swept);
                    worker.pools.sweep(swept);
                    worker.inbound.app.sweep(swept);
                }
            }
            next = changed.changed() => {
                if next.is_err() {
                    return;
                }
                let svid = identity.svid();
                let rotated = !Arc::ptr_eq(&svid, &shown);
                shown = svid;
                worker.pools.identity_changed(rotated, |domain| identity.trusts(domain));
                worker.connections.trust(|domain| identity.trusts(domain));
            }
        }
    }
}

fn dial_due(worker: &Rc<Worker>, now: Instant) {
    let backends = worker.knowledge.backends();
    for backend in &backends {
        for target in backend.balance.probe_due(now) {
            tokio::task::spawn_local(outbound::probe(Rc::clone(worker), Rc::clone(backend), target));
        }
    }
    for view in worker.knowledge.paths() {
        for replica in view.balance.probe_due(now) {
            tokio::task::spawn_local(probe_gateway(Rc::clone(worker), Arc::clone(&view.balance), replica));
        }
    }
    for cluster in worker.process.clusters.proof_due(now) {
        // Any endpoint there proves the way to the cluster; only those that are used are known here.
        let found = backends.iter().find_map(|b| Some((Rc::clone(b), b.balance.any_target(cluster.name())?)));
        if let Some((backend, target)) = found {
            tokio::task::spawn_local(outbound::probe(Rc::clone(worker), backend, target));
        }
    }
}

/// A gateway that accepts a connection is there; whom it leads to is another question.
async fn probe_gateway(worker: Rc<Worker>, balance: Arc<PathBalance>, replica: Arc<PathReplica>) {
    match worker.pools.dialer().tcp(replica.address).await {
        Ok(_) => balance.reachable(&replica),
        Err(_) => balance.failed(&replica, Instant::now()),
    }
}
