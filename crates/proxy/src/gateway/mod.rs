//! The gateway between clusters: blind, fair, and small.
//!
//! TLS runs end to end between the proxies of two workloads. The gateway reads the server name of a ClientHello,
//! `<token>.p<port>.<cluster>`, opens the token (authenticated encryption under a key of one peer), dials the endpoint
//! on its mesh port, and relays bytes. It holds no key of anybody's traffic and no list of what may call what: the
//! callee decides that by the caller's verified identity.
//!
//! What follows a connection: `front` (first byte to the callee's answer), `pass` (from there to the last), `table` (who
//! may go where), `replica` (busy, resting), `admission` (how many), `metrics`. What keeps it fed: [`run()`] with its side tasks.
//!
//! | told to the caller | alert | meaning |
//! |---|---|---|
//! | stale or foreign token, name of nobody | `unrecognized_name` | try another endpoint |
//! | endpoint unreachable, or closed without an answer | `internal_error` | try another endpoint |
//! | over a limit | `access_denied` | try another gateway |
//! | not ready | `user_canceled` | try another gateway |
//! | unreadable hello | `decode_error` and others of RFC 8446 §6 | |
//! | no TLS at all | none, the connection is closed | |

mod admission;
mod config;
mod front;
mod metrics;
mod pass;
mod replica;
mod run;
mod table;

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep_until;
use veer_core::{ClusterName, GatewayConfig};
use veer_net::{BindOptions, Drain, Listener};
use veer_telemetry::Metrics;

pub use admission::ConnectionLimits;
pub use config::{EGRESS_PORT, GatewayProcessConfig, PUBLIC_PORT};
pub use run::run;

use admission::Admission;
use front::{Side, Worker, accept_loop};
use metrics::GatewayMetrics;
use table::Table;

/// A gateway, apart from what keeps it fed: takes configurations, serves connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Shared>);

/// What all workers and connections of a gateway share.
#[derive(Debug)]
struct Shared {
    config: GatewayProcessConfig,
    table: ArcSwapOption<Table>,
    public: Arc<Admission>,
    egress: Arc<Admission>,
    control_permits: Arc<Semaphore>,
    metrics: GatewayMetrics,
    drain: Drain,
}

/// The sockets of a gateway, bound and not yet served. One set per worker.
#[derive(Debug)]
pub struct Doors {
    /// Where peers' callers come in.
    pub public: Listener,
    /// Where this cluster's callers go out.
    pub egress: Option<Listener>,
}

impl Gateway {
    /// A gateway that knows nothing yet: it refuses everybody until [`Self::learn`] is called.
    pub fn new(config: GatewayProcessConfig, metrics: Metrics, drain: Drain) -> Self {
        Self(Arc::new(Shared {
            table: ArcSwapOption::empty(),
            public: Admission::new(config.limits),
            egress: Admission::new(config.limits),
            control_permits: Arc::new(Semaphore::new(config.max_control_connections)),
            metrics: GatewayMetrics::new(metrics),
            config,
            drain,
        }))
    }

    /// Takes a configuration into use; connections that are open stay, except those of peers to which nothing is
    /// offered any more. A configuration of another cluster is refused whole; a key that cannot be used is left out.
    /// Returns what was wrong.
    pub fn learn(&self, config: Arc<GatewayConfig>) -> Vec<String> {
        if config.cluster != self.0.config.cluster {
            return vec![format!(
                "configuration of cluster {} refused: this gateway is of {}",
                config.cluster, self.0.config.cluster
            )];
        }
        let former = self.0.table.load_full();
        let (table, faults) = Table::next(config, former.as_deref());
        self.0.table.store(Some(Arc::new(table)));
        faults
    }

    /// Whether it has a configuration and is not draining.
    pub fn is_ready(&self) -> bool {
        self.0.table.load().is_some() && !self.0.drain.is_started()
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.0.drain.is_started()
    }

    /// The configuration in use.
    pub fn config(&self) -> Option<Arc<GatewayConfig>> {
        self.0.table.load().as_ref().map(|table| Arc::clone(&table.config))
    }

    /// Its name within its cluster.
    pub fn name(&self) -> &str {
        &self.0.config.name
    }

    /// Its cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.0.config.cluster
    }

    /// Connections at present, both doors together.
    pub fn open_connections(&self) -> usize {
        self.0.public.open() + self.0.egress.open()
    }

    /// Opens the listening sockets.
    ///
    /// # Errors
    /// When an address is taken or not ours.
    pub async fn bind(&self, reuse_port: bool) -> io::Result<Doors> {
        let config = &self.0.config;
        let options = BindOptions { reuse_port, ..Default::default() };
        let named =
            |error: io::Error, address| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
        let public = config.network.bind(config.public, options).await.map_err(|error| named(error, config.public))?;
        let egress = match config.egress {
            Some(address) => Some(config.network.bind(address, options).await.map_err(|error| named(error, address))?),
            None => None,
        };
        Ok(Doors { public, egress })
    }

    /// Serves until the drain has begun and every connection of these doors has ended or was cut at its deadline.
    /// Connections are tasks of the surrounding [`tokio::task::LocalSet`] or [`tokio::runtime::LocalRuntime`].
    ///
    /// # Errors
    /// When a listening socket breaks.
    pub async fn serve(&self, doors: Doors) -> io::Result<()> {
        let worker = Worker::new(Arc::clone(&self.0));
        let (busy, mut idle) = mpsc::channel::<()>(1);
        let public = accept_loop(Rc::clone(&worker), doors.public, Side::Public, busy.clone());
        let egress = async {
            match doors.egress {
                Some(listener) => accept_loop(Rc::clone(&worker), listener, Side::Egress, busy.clone()).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(public, egress)?;
        drop(busy);
        // Nothing is ever sent: it closes when the last connection has dropped its end.
        tokio::select! {
            biased;
            _ = idle.recv() => return Ok(()),
            () = async { sleep_until(self.0.drain.started().await).await } => worker.cut.fire(),
        }
        let _ = idle.recv().await;
        Ok(())
    }

    /// What the gateway knows, for people. Token keys are named, never shown.
    pub fn dump(&self) -> serde_json::Value {
        let Some(table) = self.0.table.load_full() else { return serde_json::Value::Null };
        let config = &table.config;
        let keys: Vec<_> = config.keys.iter().map(|key| json!({ "id": key.id, "peer": key.peer })).collect();
        let peers = table.peers().map(|(name, open, limit)| json!({ "peer": name, "open": open, "limit": limit }));
        json!({
            "cluster": config.cluster,
            "meshPort": config.mesh_port,
            "control": config.control,
            "keys": keys,
            "peers": peers.collect::<Vec<_>>(),
            "services": config.services,
            "egress": config.egress,
            "openConnections": { "public": self.0.public.open(), "egress": self.0.egress.open() },
            "draining": self.0.drain.is_started(),
        })
    }
}

impl Shared {
    fn admission(&self, side: Side) -> &Arc<Admission> {
        match side {
            Side::Public => &self.public,
            Side::Egress => &self.egress,
        }
    }
}

#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod tests;
