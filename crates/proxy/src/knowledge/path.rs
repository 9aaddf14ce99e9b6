//! How a peer cluster is reached.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use veer_balance::PathBalance;
use veer_core::{ClusterName, Path};

use super::{Entry, Map};
use crate::pool::Pools;
use crate::process::Process;

/// A peer's gateways, with what this process has seen of them.
pub struct PathView {
    /// As the control plane stated it.
    pub path: Arc<Path>,
    /// Replicas, shared by all workers.
    pub balance: Arc<PathBalance>,
}

/// The entry of the path, made on first use.
pub(super) fn subscribe(
    process: &Arc<Process>,
    pools: &Rc<Pools>,
    paths: &RefCell<Map<ClusterName, Rc<Entry<PathView>>>>,
    cluster: &ClusterName,
) -> Rc<Entry<PathView>> {
    if let Some(entry) = paths.borrow().get(cluster) {
        return Rc::clone(entry);
    }
    let (owner, pools) = (Arc::clone(process), Rc::clone(pools));
    let entry = Entry::follow(
        process.subscribe_path(cluster),
        Instant::now(),
        move |path: &Arc<Path>, before: Option<&Rc<PathView>>| {
            owner.clusters.set_path(path);
            owner.want_trust(&path.trust_domain);
            if let Some(before) = before {
                // Replicas that drain or have gone lose their connections in order; requests find others at once.
                for former in &before.path.gateways {
                    let same = |g: &&veer_core::PathGateway| g.name == former.name && g.address == former.address;
                    let stays = path.gateways.iter().find(same).is_some_and(|g| !g.draining || former.draining);
                    if !stays {
                        pools.retire_gateway(&path.cluster, &former.name);
                    }
                }
            }
            let balance = owner.path_balance(path, Instant::now());
            Rc::new(PathView { path: Arc::clone(path), balance })
        },
    );
    paths.borrow_mut().insert(cluster.clone(), Rc::clone(&entry));
    entry
}
