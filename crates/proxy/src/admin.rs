//! What can be asked of a running proxy: `/metrics`, `/ready`, `/live`, `/dump`.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use veer_net::{BindOptions, Stream};
use veer_telemetry::Metrics;
use veer_telemetry::family::{counters, gauges};

use crate::config::ProxyConfig;
use crate::error::ProxyError;
use crate::pages;
use crate::process::Process;
use crate::run::holds;
use crate::worker::Command;

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// For a request's head, and between requests.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// For a worker's part of the dump.
const DUMP_TIME: Duration = Duration::from_secs(1);

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
    pub fn ready(&self) {
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

    async fn dump(&self) -> serde_json::Value {
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
        let events = snapshot.events;
        for (kind, count) in [
            ("consecutive", events.ejected_consecutive),
            ("ratio", events.ejected_ratio),
            ("unreachable", events.unreachable),
        ] {
            let counter = metrics.counter(&counters::ENDPOINT_EJECTIONS, &[host, "", kind]);
            counter.add(count.saturating_sub(counter.get()));
        }
        metrics.forget_gauges(&gauges::ENDPOINTS, &[host]);
        for cluster in &snapshot.clusters {
            for endpoint in &cluster.endpoints {
                let state = serde_json::to_value(endpoint.state).ok();
                let state = state.as_ref().and_then(|state| state.as_str()).unwrap_or("unknown");
                metrics.gauge(&gauges::ENDPOINTS, &[host, cluster.cluster.as_str(), state]).add(1.0);
            }
        }
    }
}

/// Opens the admin server.
///
/// # Errors
/// When the address cannot be bound.
pub async fn listen(config: &ProxyConfig, address: SocketAddr, admin: Rc<Admin>) -> Result<(), ProxyError> {
    let listener = config
        .network
        .bind(address, BindOptions::default())
        .await
        .map_err(|error| ProxyError::Bind { address, error })?;
    tokio::task::spawn_local(async move {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let Ok((stream, _)) = listener.accept().await else { return };
            let admin = Rc::clone(&admin);
            tokio::task::spawn_local(async move {
                serve(stream, admin).await;
                drop(place);
            });
        }
    });
    Ok(())
}

async fn serve(stream: Stream, admin: Rc<Admin>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = Rc::clone(&admin);
        async move { Ok::<_, Infallible>(answer(&admin, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // Errors are the client's.
    let _ = connection.await;
}

async fn answer(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = |status, text: String| reply(status, "text/plain; charset=utf-8", text);
    if *request.method() != Method::GET && *request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/live" => text(StatusCode::OK, "live\n".to_owned()),
        "/ready" => match admin.not_ready() {
            None => text(StatusCode::OK, "ready\n".to_owned()),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
        },
        "/metrics" => reply(StatusCode::OK, veer_telemetry::CONTENT_TYPE, admin.metrics.render()),
        "/dump" => {
            let json = serde_json::to_string_pretty(&admin.dump().await).unwrap_or_default();
            reply(StatusCode::OK, "application/json", json)
        }
        _ => text(StatusCode::NOT_FOUND, "/metrics /ready /live /dump\n".to_owned()),
    }
}

fn reply(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
