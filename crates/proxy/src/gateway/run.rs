//! A gateway process: the gateway itself, and the side tasks that keep it fed.
//!
//! Traffic needs nothing but the last configuration, not even a valid certificate of the gateway's own: with one kept
//! from before, a gateway that restarts while its control plane is gone serves at once, and goes on serving.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use veer_core::names::SYSTEM_NAMESPACE;
use veer_core::{GatewayConfig, Known, ObjectName};
use veer_identity::{Identity, clock};
use veer_net::{BindOptions, Drain};
use veer_telemetry::Metrics;
use veer_telemetry::family::{counters, gauges};
use veer_xds::{Client, NodeInfo, Subscription, agent};

use super::{Gateway, GatewayProcessConfig};
use crate::config::Workers;
use crate::enrolment::Home;
use crate::error::ProxyError;
use crate::limits;
use crate::pages::{self, Pages};

/// How often a gateway reports to its control plane.
const REPORT: Duration = Duration::from_secs(5);

/// Runs a gateway until it is drained. Must be called on a current-thread runtime: that becomes the side runtime
/// (control session, certificate, admin), and carries traffic only with [`Workers::Local`].
///
/// # Errors
/// When it cannot start: an address that cannot be bound; neither a configuration from before nor an identity to get one.
pub async fn run(config: GatewayProcessConfig, drain: Drain) -> Result<(), ProxyError> {
    LocalSet::new().run_until(start(config, drain)).await
}

async fn start(config: GatewayProcessConfig, drain: Drain) -> Result<(), ProxyError> {
    limits::raise_descriptor_limit();
    let mut rng = veer_net::rng();
    let metrics = Metrics::new();
    veer_telemetry::panics::count(&metrics);
    metrics.gauge(&gauges::BUILD, &[env!("CARGO_PKG_VERSION"), "gateway"]).set(1.0);
    metrics.gauge(&gauges::PROCESS_START, &[]).set(clock::unix_seconds(clock::now()) as f64);
    let gateway = Gateway::new(config.clone(), metrics.clone(), drain.clone());

    // What the former process knew holds until the control plane speaks.
    let home = home(&config);
    let node = NodeInfo {
        id: home.node.clone(),
        cluster: config.cluster.to_string(),
        workload: home.node.clone(),
        ..NodeInfo::default()
    };
    let (client, session) = veer_xds::client(node, rng.fork());
    if let Some(cache) = home.load_config() {
        client.import_cache(cache, clock::now());
    }
    let mut subscription = client.subscribe::<GatewayConfig>(config.cluster.as_str());
    if let Known::Present(known) = subscription.borrow_and_update() {
        take(&gateway, &metrics, known);
    }

    let side = Rc::new(SideView {
        gateway: gateway.clone(),
        client: client.clone(),
        metrics: metrics.clone(),
        identity: ArcSwapOption::empty(),
    });
    metrics.before_render({
        let client = client.clone();
        move |metrics| measure(&client, metrics)
    });
    if let Some(address) = config.admin {
        let listener = config
            .network
            .bind(address, BindOptions::default())
            .await
            .map_err(|error| ProxyError::Bind { address, error })?;
        spawn_local(pages::serve(listener, Rc::clone(&side) as Rc<dyn Pages>, drain.clone()));
    }

    let (orders, ordered) = watch::channel(gateway.config().map(|known| known.rotate));
    spawn_local(follow(subscription, gateway.clone(), client.clone(), home.clone(), metrics.clone(), orders));
    spawn_local(report(client.clone(), gateway.clone(), config.clone()));
    let joining = async {
        let enrolment = match home.enrol(config.join.as_ref(), rng.fork()).await {
            Ok(enrolment) => enrolment,
            // Nothing that it could learn is worth the traffic that it carries.
            Err(error) if gateway.config().is_some() => {
                tracing::error!(%error, "serving what was known before; nothing new will be learnt");
                return std::future::pending().await;
            }
            Err(error) => return Err(error),
        };
        side.identity.store(Some(Arc::new(enrolment.identity.clone())));
        spawn_local(home.clone().renew(enrolment.clone(), client.clone(), ordered, metrics.clone(), rng.fork()));
        match session.run(async || home.dial(&enrolment).await).await {}
    };
    tokio::select! {
        // Whoever is drained before it has an identity has nothing to end.
        biased;
        outcome = work(&gateway, &config) => outcome,
        failed = joining => failed,
    }
}

/// Serves on one or many threads until the drain is over.
async fn work(gateway: &Gateway, config: &GatewayProcessConfig) -> Result<(), ProxyError> {
    let address = config.public;
    let fail = move |error| ProxyError::Bind { address, error };
    match config.workers {
        Workers::Local => {
            let doors = gateway.bind(false).await.map_err(fail)?;
            gateway.serve(doors).await.map_err(fail)
        }
        Workers::Threads(count) => {
            let count = count.max(1);
            let (ended, mut endings) = mpsc::unbounded_channel();
            for number in 0..count {
                let (gateway, ended) = (gateway.clone(), ended.clone());
                let serve = move || {
                    // A runtime of the thread's own: tasks need not be able to move, and waking one takes no lock.
                    let built = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                    let outcome = built.map_err(ProxyError::Worker).and_then(|runtime| {
                        runtime.block_on(async {
                            let doors = gateway.bind(count > 1).await.map_err(fail)?;
                            gateway.serve(doors).await.map_err(fail)
                        })
                    });
                    // Fails only when nobody waits any more.
                    let _ = ended.send(outcome);
                };
                let name = format!("gateway-{number}");
                std::thread::Builder::new().name(name).spawn(serve).map_err(ProxyError::Worker)?;
            }
            drop(ended);
            while let Some(outcome) = endings.recv().await {
                outcome?;
            }
            Ok(())
        }
    }
}

fn home(config: &GatewayProcessConfig) -> Home {
    let mut control = config.control.clone();
    for address in config.join.iter().flat_map(|token| &token.control) {
        if !control.contains(address) {
            control.push(*address);
        }
    }
    Home {
        network: config.network,
        options: config.connect_options(),
        control,
        node: ObjectName::new(SYSTEM_NAMESPACE, &config.name).to_string(),
        state: config.state_dir.clone(),
    }
}

/// Takes every configuration into use, and keeps it for the next process.
async fn follow(
    mut subscription: Subscription<GatewayConfig>,
    gateway: Gateway,
    client: Client,
    home: Home,
    metrics: Metrics,
    orders: watch::Sender<Option<u64>>,
) {
    loop {
        match subscription.changed().await {
            Known::Present(known) => {
                let rotate = known.rotate;
                take(&gateway, &metrics, known);
                home.save_config(&client);
                orders.send_if_modified(|order| order.replace(rotate) != Some(rotate));
            }
            // A cluster always has a configuration for its gateways; without one there would be nobody to tell.
            Known::Absent => {
                tracing::error!("the control plane has no configuration for this gateway; the former stays")
            }
            Known::Unknown => {}
        }
    }
}

fn take(gateway: &Gateway, metrics: &Metrics, known: Arc<GatewayConfig>) {
    for fault in gateway.learn(known) {
        metrics.counter(&counters::CONFIG_REJECTIONS, &["GatewayConfig"]).inc();
        tracing::error!(fault, "part of the gateway's configuration was refused");
    }
}

async fn report(client: Client, gateway: Gateway, config: GatewayProcessConfig) {
    let mut tick = tokio::time::interval(REPORT);
    loop {
        tick.tick().await;
        let Some(channel) = client.channel() else { continue };
        let status = client.status();
        let report = agent::Report {
            node: config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            admin: config.admin,
            generation: status.server_generation.parse().unwrap_or(status.generation),
            counts: [("connectionsOpen".to_owned(), gateway.open_connections() as u64)].into(),
            more: [("kind".to_owned(), "gateway".into())].into(),
            ..agent::Report::default()
        };
        if let Err(status) = agent::report(&channel, &report).await {
            tracing::debug!(reason = status.message(), "the control plane did not take the report");
        }
    }
}

/// Gauges that nobody else brings up to date.
fn measure(client: &Client, metrics: &Metrics) {
    let status = client.status();
    let age = client.unconfirmed_for().unwrap_or_default();
    metrics.gauge(&gauges::CONFIG_GENERATION, &[]).set(status.generation as f64);
    metrics.gauge(&gauges::CONFIG_AGE, &[]).set(age.as_secs_f64());
    metrics.gauge(&gauges::CONTROL_CONNECTED, &[]).set(f64::from(u8::from(status.connected)));
}

/// What the admin pages show.
struct SideView {
    gateway: Gateway,
    client: Client,
    metrics: Metrics,
    identity: ArcSwapOption<Identity>,
}

impl Pages for SideView {
    fn ready(&self) -> Result<(), String> {
        if self.gateway.is_draining() {
            return Err("draining".to_owned());
        }
        self.gateway
            .config()
            .map(|_| ())
            .ok_or_else(|| "the control plane has not said what is offered to whom".to_owned())
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn dump(&self) -> Pin<Box<dyn Future<Output = serde_json::Value> + '_>> {
        Box::pin(async {
            // The client's own dump would show the keys of tokens, so the session alone is taken from it.
            let session = self.client.dump().get("session").cloned();
            let ready = self.ready();
            serde_json::json!({
                "gateway": self.gateway.name(),
                "cluster": self.gateway.cluster(),
                "version": env!("CARGO_PKG_VERSION"),
                "ready": ready.is_ok(),
                "notReady": ready.err(),
                "identity": self.identity.load_full().map(|identity| pages::identity_json(&identity)),
                "configAgeSeconds": self.client.unconfirmed_for().map_or(0, |age| age.as_secs()),
                "knows": self.gateway.dump(),
                "control": session,
            })
        })
    }
}
