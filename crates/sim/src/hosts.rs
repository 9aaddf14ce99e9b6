//! What runs on the hosts: control plane, gateway, workload with its proxy.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;
use veer_control::api::{Status, TokenAnswer, TokenRequest};
use veer_control::{ApiRequest, Control, ControlConfig, Handle};
use veer_core::names::SYSTEM_NAMESPACE;
use veer_identity::JoinToken;
use veer_net::{Drain, drain};
use veer_proxy::config::{ADMIN_PORT, ProxyConfig};
use veer_proxy::gateway::GatewayProcessConfig;
use veer_telemetry::text::{self, Sample};

use crate::app;
use crate::journal::{Journal, What};
use crate::spec::Role;

/// How often a host looks at its switches and its desk.
const LOOK: Duration = Duration::from_millis(100);
/// Time for what is open when a proxy is told to end.
const DRAIN: Duration = Duration::from_secs(5);

/// How a test steers a workload, and what it sees of it.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    /// The host runs.
    pub(crate) on: Cell<bool>,
    /// The application answers with errors.
    pub(crate) failing: Cell<bool>,
    /// The proxy is told to end.
    pub(crate) draining: Cell<bool>,
    /// Time between requests; `None`: no requests.
    pub(crate) every: Cell<Option<Duration>>,
    /// What the proxy's metrics said last.
    pub(crate) metrics: RefCell<Vec<Sample>>,
}

/// Where members of a cluster get their join tokens, as from an operator with access to the control plane's socket.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    wanted: RefCell<BTreeSet<String>>,
    tokens: RefCell<BTreeMap<String, JoinToken>>,
    /// What the control plane said of itself last.
    pub(crate) status: RefCell<Option<Status>>,
}

impl Desk {
    /// A token for a member that has no identity yet.
    async fn token(&self, member: &str, state: Option<&Path>) -> Option<JoinToken> {
        if state.is_some_and(|state| state.join("svid.pem").exists()) {
            return None;
        }
        self.wanted.borrow_mut().insert(member.to_owned());
        loop {
            if let Some(token) = self.tokens.borrow_mut().remove(member) {
                return Some(token);
            }
            sleep(LOOK).await;
        }
    }

    fn issue(&self, handle: &Handle) {
        self.wanted.borrow_mut().retain(|member| {
            let request = match member.split_once('/') {
                Some((SYSTEM_NAMESPACE, gateway)) => TokenRequest { workload: None, gateway: Some(gateway.to_owned()) },
                _ => TokenRequest { workload: member.parse().ok(), gateway: None },
            };
            let answer = handle.answer(&ApiRequest::post("/v1/tokens", &request));
            // Refused as long as the manifests do not name it.
            let Ok(answer) = serde_json::from_slice::<TokenAnswer>(&answer.body) else { return true };
            let token = answer.token.parse().expect("the control plane writes good tokens");
            self.tokens.borrow_mut().insert(member.clone(), token);
            false
        });
    }
}

/// A control plane, and an operator beside it.
pub(crate) async fn control(config: ControlConfig, host: Rc<str>, desk: Rc<Desk>, journal: Journal) -> turmoil::Result {
    let control = Control::bind(config).await?;
    let handle = control.handle();
    let running = spawn_local(control.run(Drain::never()));
    let mut noted = BTreeMap::new();
    while !running.is_finished() {
        desk.issue(&handle);
        let status = handle.status();
        for peer in &status.peers {
            let state = (format!("{:?}", peer.state), peer.offers, peer.endpoints);
            if noted.insert(peer.cluster.to_string(), state.clone()).as_ref() != Some(&state) {
                let (state, services, endpoints) = state;
                let what = What::Peer { cluster: peer.cluster.to_string(), state, offers: (services, endpoints) };
                journal.note(&host, what);
            }
        }
        desk.status.replace(Some(status));
        sleep(LOOK).await;
    }
    running.await??;
    Err("the control plane ended".into())
}

/// A gateway.
pub(crate) async fn gateway(mut config: GatewayProcessConfig, desk: Rc<Desk>) -> turmoil::Result {
    config.join = desk.token(&format!("{SYSTEM_NAMESPACE}/{}", config.name), config.state_dir.as_deref()).await;
    Ok(veer_proxy::gateway::run(config, Drain::never()).await?)
}

/// A workload: its application and its proxy.
pub(crate) async fn workload(
    mut config: ProxyConfig,
    role: Role,
    host: Rc<str>,
    switches: Rc<Switches>,
    desk: Rc<Desk>,
    journal: Journal,
    look: Duration,
) -> turmoil::Result {
    while !switches.on.get() {
        sleep(LOOK).await;
    }
    match role {
        Role::Copy(_) => drop(spawn_local(app::serve(host, Rc::clone(&switches)))),
        Role::Caller(service) => {
            spawn_local(watch(Rc::clone(&host), Rc::clone(&switches), journal.clone(), look));
            spawn_local(app::call(host, Rc::clone(&switches), service, journal));
        }
    }
    config.join = desk.token(&config.workload.to_string(), config.state_dir.as_deref()).await;
    let (trigger, drain) = drain();
    spawn_local(async move {
        while !switches.draining.get() {
            sleep(LOOK).await;
        }
        trigger.start(DRAIN);
        std::future::pending::<()>().await;
    });
    Ok(veer_proxy::run(config, drain).await?)
}

/// Follows what a proxy thinks of endpoints and gateways.
async fn watch(host: Rc<str>, switches: Rc<Switches>, journal: Journal, look: Duration) {
    let mut noted: BTreeMap<String, f64> = BTreeMap::new();
    loop {
        sleep(look).await;
        // Not there yet, or just ending.
        let Ok((_, body)) = app::ask(ADMIN_PORT, "localhost", "/metrics").await else { continue };
        let samples = text::parse(&String::from_utf8_lossy(&body)).expect("metrics can be parsed");
        let telling = |sample: &&Sample| {
            ["veer_endpoints", "veer_endpoint_ejections_total", "veer_path_up"].contains(&sample.name.as_str())
        };
        let mut now: BTreeMap<String, f64> = noted.keys().map(|series| (series.clone(), 0.0)).collect();
        for sample in samples.iter().filter(telling) {
            let labels: Vec<&str> = sample.labels.values().map(String::as_str).collect();
            now.insert(format!("{}[{}]", sample.name, labels.join(" ")), sample.value);
        }
        for (series, value) in &now {
            if noted.get(series).copied().unwrap_or(0.0) != *value {
                journal.note(&host, What::Proxy { series: series.clone(), value: *value });
            }
        }
        noted = now;
        switches.metrics.replace(samples);
    }
}
