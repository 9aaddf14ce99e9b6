//! What can be asked of a running proxy: `/metrics`, `/ready`, `/live`, `/dump`.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use veer_telemetry::Metrics;
use veer_telemetry::family::{counters, gauges};

use crate::explain::Question;
use crate::pages::{self, Pages};
use crate::process::Process;
use crate::run::holds;
use crate::worker::Command;

/// For a worker's part of the dump.
const DUMP_TIME: Duration = Duration::from_secs(1);
/// For what would become of a request: the control plane may have to be asked about names.
const EXPLAIN_TIME: Duration = Duration::from_secs(10);

/// The admin server's view of the process.
pub struct Admin {
    metrics: Metrics,
    process: RefCell<Option<Arc<Process>>>,
    workers: RefCell<Vec<mpsc::UnboundedSender<Command>>>,
    serving: Cell<usize>,
    ready: Cell<bool>,
}

impl Admin {
    /// Nothing has started yet.
    pub fn new(metrics: Metrics) -> Rc<Self> {
        Rc::new(Self {
            metrics,
            process: RefCell::default(),
            workers: RefCell::default(),
            serving: Cell::new(0),
            ready: Cell::new(false),
        })
    }

    /// Identity is held.
    pub fn started(&self, process: Arc<Process>) {
        let measured = Arc::clone(&process);
        self.metrics.before_render(move |metrics| measure(&measured, metrics));
        *self.process.borrow_mut() = Some(process);
    }

    /// A worker that can be asked.
    pub fn worker(&self, commands: mpsc::UnboundedSender<Command>) {
        self.workers.borrow_mut().push(commands);
    }

    /// All listeners are open.
    pub fn serving(&self) {
        self.ready.set(true);
    }

    /// One more worker has its listeners open; ready when all have.
    pub fn ready_after(&self, count: usize) {
        self.serving.set(self.serving.get() + 1);
        self.ready.set(self.serving.get() >= count);
    }

    /// Why it is not ready, if it is not.
    fn not_ready(&self) -> Option<&'static str> {
        let process = self.process.borrow();
        let Some(process) = &*process else { return Some("no identity yet") };
        if !holds(&process.identity) {
            return Some("the certificate has expired");
        }
        if process.inbound.borrow().is_none() {
            return Some("the control plane has not said what this workload is");
        }
        (!self.ready.get()).then_some("listeners are not open")
    }

    async fn knows(&self) -> serde_json::Value {
        let Some(process) = self.process.borrow().clone() else {
            return json!({ "ready": false, "reason": self.not_ready() });
        };
        let now = Instant::now();
        let mut pools = Vec::new();
        let workers: Vec<_> = self.workers.borrow().clone();
        for worker in workers {
            let (answer, answered) = oneshot::channel();
            if worker.send(Command::Dump(answer)).is_ok()
                && let Ok(Ok(pool)) = tokio::time::timeout(DUMP_TIME, answered).await
            {
                pools.push(pool);
            }
        }
        let mut identity = pages::identity_json(&process.identity);
        let trusted = process.identity.trust_store();
        identity["trusts"] = trusted.bundles().map(|bundle| bundle.trust_domain.to_string()).collect();
        let age = process.xds.unconfirmed_for();
        json!({
            "workload": process.config.workload.to_string(),
            "cluster": process.own_cluster().as_str(),
            "version": env!("CARGO_PKG_VERSION"),
            "ready": self.not_ready().is_none(),
            "notReady": self.not_ready(),
            "identity": identity,
            "configAgeSeconds": age.map_or(0, |age| age.as_secs()),
            "inbound": process.inbound.borrow().as_deref(),
            "services": process.services().iter().map(|s| s.snapshot(now)).collect::<Vec<_>>(),
            "paths": process.paths().into_iter().map(|(cluster, balance)| {
                let health = process.clusters.get(&cluster);
                json!({
                    "cluster": cluster.as_str(),
                    "standing": health.standing(now),
                    "proofAgeSeconds": health.proof_age(now).map(|age| age.as_secs_f64()),
                    "roundTripSeconds": health.rtt().as_secs_f64(),
                    "gateways": balance.snapshot(now),
                })
            }).collect::<Vec<_>>(),
            "pools": pools,
            "control": process.xds.dump(),
        })
    }
}

impl Pages for Admin {
    fn ready(&self) -> Result<(), String> {
        self.not_ready().map_or(Ok(()), |reason| Err(reason.to_owned()))
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn dump(&self) -> Pin<Box<dyn Future<Output = serde_json::Value> + '_>> {
        Box::pin(self.knows())
    }

    fn explain(&self, query: &str) -> Pin<Box<dyn Future<Output = Option<serde_json::Value>> + '_>> {
        let question = Question::from_query(query);
        Box::pin(async move {
            let worker = self.workers.borrow().first().cloned()?;
            let (answer, answered) = oneshot::channel();
            worker.send(Command::Explain(question?, answer)).ok()?;
            let told = tokio::time::timeout(EXPLAIN_TIME, answered).await.ok()?.ok()?;
            serde_json::to_value(told).ok()
        })
    }
}

/// Gauges that nobody else brings up to date.
fn measure(process: &Process, metrics: &Metrics) {
    let now = Instant::now();
    let status = process.xds.status();
    let age = process.xds.unconfirmed_for().unwrap_or_default();
    metrics.gauge(&gauges::CONFIG_GENERATION, &[]).set(status.generation as f64);
    metrics.gauge(&gauges::CONFIG_AGE, &[]).set(age.as_secs_f64());
    metrics.gauge(&gauges::CONTROL_CONNECTED, &[]).set(f64::from(u8::from(status.connected)));
    for (cluster, balance) in process.paths() {
        let health = process.clusters.get(&cluster);
        if let Some(age) = health.proof_age(now) {
            metrics.gauge(&gauges::PEER_AGE, &[cluster.as_str()]).set(age.as_secs_f64());
        }
        for replica in balance.snapshot(now) {
            let up = replica.unreachable_for.is_none() && !replica.draining;
            let labels = [cluster.as_str(), &*replica.name];
            metrics.gauge(&gauges::PATH_UP, &labels).set(f64::from(u8::from(up)));
        }
    }
    for service in process.services() {
        let snapshot = service.snapshot(now);
        let host = snapshot.host.as_str();
        for (cluster, lost) in &snapshot.losses {
            for (kind, count) in [
                ("consecutive", lost.consecutive),
                ("ratio", lost.ratio),
                ("unreachable", lost.unreachable),
                ("silent", lost.silent),
            ] {
                let counter = metrics.counter(&counters::ENDPOINT_EJECTIONS, &[host, cluster.as_str(), kind]);
                counter.add(count.saturating_sub(counter.get()));
            }
        }
        metrics.forget_gauges(&gauges::CONCURRENCY_LIMIT, &[host]);
        if service.policy().circuit_breaker.adaptive.is_some() {
            metrics.gauge(&gauges::CONCURRENCY_LIMIT, &[host]).set(f64::from(snapshot.concurrency_limit));
        }
        metrics.forget_gauges(&gauges::ENDPOINTS, &[host]);
        for cluster in &snapshot.clusters {
            // The gateway's own pick stands for copies that are counted already.
            for endpoint in cluster.endpoints.iter().filter(|endpoint| !endpoint.gateway_picks) {
                let state = serde_json::to_value(endpoint.state).ok();
                let state = state.as_ref().and_then(|state| state.as_str()).unwrap_or("unknown");
                metrics.gauge(&gauges::ENDPOINTS, &[host, cluster.cluster.as_str(), state]).add(1.0);
            }
        }
    }
}
