//! A proxy from its start to its end.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;
use veer_core::inbound::TrustBundle;
use veer_core::{Inbound, Known, TrustDomain};
use veer_identity::{Identity, clock};
use veer_net::{BindOptions, Drain};
use veer_telemetry::access_log::AccessLogTarget;
use veer_telemetry::family::gauges;
use veer_telemetry::{AccessLog, AccessLogConfig, Metrics};
use veer_xds::{NodeInfo, SessionState, agent};

use crate::admin::Admin;
use crate::config::{ProxyConfig, Workers};
use crate::enrolment::{Enrolment, Home};
use crate::error::ProxyError;
use crate::limits;
use crate::pages::{self, Pages};
use crate::process::Process;
use crate::telemetry::Telemetry;
use crate::worker::{Command, Worker};

/// How often the process looks whether there is something to persist: what was just learned should survive a crash.
const PERSIST_LOOK: Duration = Duration::from_millis(100);
/// While news keeps coming it is persisted this often.
const PERSIST: Duration = Duration::from_secs(2);
/// While there is none it is persisted so often all the same: a process that is killed should know until when it was confirmed.
const CONFIRM: Duration = Duration::from_secs(15);
/// How often it reports to its control plane.
const REPORT: Duration = Duration::from_secs(5);
/// A control session may be gone for so long before the leases that it stated count as silent: half of the default lease,
/// for that is how old its last word may be at worst when it is lost.
const CONTROL_GRACE: Duration = Duration::from_secs(5);

/// Runs the proxy beside a workload until it is drained. Must be called on a current-thread runtime: that becomes the side
/// runtime (control session, certificates, admin), and carries traffic only with [`Workers::Local`].
///
/// # Errors
/// When it cannot start: no identity, or a listener that cannot be bound.
pub async fn run(config: ProxyConfig, drain: Drain) -> Result<(), ProxyError> {
    LocalSet::new().run_until(start(config, drain)).await
}

async fn start(config: ProxyConfig, drain: Drain) -> Result<(), ProxyError> {
    limits::raise_descriptor_limit();
    let mut rng = veer_net::rng();
    let metrics = Metrics::new();
    veer_telemetry::panics::count(&metrics);
    metrics.gauge(&gauges::BUILD, &[env!("CARGO_PKG_VERSION"), "proxy"]).set(1.0);
    metrics.gauge(&gauges::PROCESS_START, &[]).set(clock::unix_seconds(clock::now()) as f64);
    let target = if config.access_log { AccessLogTarget::Stdout } else { AccessLogTarget::Off };
    let log_config = AccessLogConfig { target, ..AccessLogConfig::default() };
    let (log, _writer) = AccessLog::start(&log_config, &metrics).map_err(ProxyError::Worker)?;
    let telemetry = Telemetry { metrics, log };

    // Seen from outside before anything else, so that waiting for an identity is not taken for being dead.
    let admin = Admin::new(telemetry.metrics.clone());
    if let Some(address) = config.admin {
        let bound = config.network.bind(address, BindOptions::default()).await;
        let listener = bound.map_err(|error| ProxyError::Bind { address, error })?;
        spawn_local(pages::serve(listener, Rc::clone(&admin) as Rc<dyn Pages>, drain.clone()));
    }

    // Who am I?
    let home = Home {
        network: config.network,
        options: config.connect_options(),
        control: control_addresses(&config),
        node: config.workload.to_string(),
        state: config.state_dir.clone(),
    };
    let enrolling = home.enrol(config.join.as_ref(), rng.fork());
    let enrolment = tokio::select! {
        biased;
        enrolment = enrolling => enrolment?,
        _ = drain.started() => return Ok(()),
    };

    // What does the control plane say? What the former process knew holds until it speaks.
    let node = NodeInfo {
        id: config.workload.to_string(),
        cluster: enrolment.cluster.to_string(),
        workload: config.workload.to_string(),
        ..NodeInfo::default()
    };
    let (client, session) = veer_xds::client(node, rng.fork());
    if let Some(cache) = home.load_config() {
        client.import_cache(cache, clock::now());
    }
    let (dialler, dialling) = (home.clone(), enrolment.clone());
    spawn_local(async move { session.run(async || dialler.dial(&dialling).await).await });
    let trust = keep_trust(&client, &enrolment, &home);
    let (inbound, orders) = follow_inbound(&client, &config, trust.clone());

    let process = Process::new(
        config.clone(),
        enrolment.identity.clone(),
        client.clone(),
        &enrolment.cluster,
        telemetry.clone(),
        inbound.clone(),
        trust,
    );
    for domain in enrolment.identity.trust_store().bundles().map(|bundle| bundle.trust_domain.clone()) {
        process.want_trust(&domain);
    }
    spawn_local(home.clone().renew(enrolment.clone(), client.clone(), orders, telemetry.metrics.clone(), rng.fork()));
    spawn_local(watch_control(Arc::clone(&process)));
    spawn_local(report(Arc::clone(&process)));
    spawn_local(persist(home.clone(), client.clone()));
    admin.started(Arc::clone(&process));

    // Traffic.
    let outcome = work(&process, &admin, &mut rng, &drain).await;
    home.save_config(&client);
    home.save(&enrolment);
    outcome
}

fn control_addresses(config: &ProxyConfig) -> Vec<std::net::SocketAddr> {
    let mut all = config.control.clone();
    for address in config.join.iter().flat_map(|token| &token.control) {
        if !all.contains(address) {
            all.push(*address);
        }
    }
    all
}

/// The own workload, and the control plane's orders to renew certificates.
fn follow_inbound(
    client: &veer_xds::Client,
    config: &ProxyConfig,
    trust: mpsc::UnboundedSender<TrustDomain>,
) -> (watch::Receiver<Option<Arc<Inbound>>>, watch::Receiver<Option<u64>>) {
    let mut subscription = client.subscribe::<Inbound>(&config.workload.to_string());
    let first = subscription.borrow_and_update().present().cloned();
    let (orders, ordered) = watch::channel(first.as_ref().map(|inbound| inbound.rotate));
    // Callers of the trust domains that something was offered to can be judged only by their roots.
    let want = move |inbound: &Inbound| {
        inbound.offered_to.iter().for_each(|offered| drop(trust.send(offered.trust_domain.clone())));
    };
    first.iter().for_each(|inbound| want(inbound));
    let (sender, receiver) = watch::channel(first);
    spawn_local(async move {
        loop {
            match subscription.changed().await {
                Known::Present(inbound) => {
                    want(&inbound);
                    orders.send_if_modified(|order| order.replace(inbound.rotate) != Some(inbound.rotate));
                    sender.send_replace(Some(inbound));
                }
                // Its deletion ends the renewal of its certificate; until then it serves what is under way.
                Known::Absent => tracing::warn!("the control plane says that this workload is no more"),
                Known::Unknown => {}
            }
        }
    });
    (receiver, ordered)
}

/// Follows the bundle of every trust domain that is asked for.
fn keep_trust(client: &veer_xds::Client, enrolment: &Enrolment, home: &Home) -> mpsc::UnboundedSender<TrustDomain> {
    let (sender, mut wanted) = mpsc::unbounded_channel::<TrustDomain>();
    let (client, enrolment, home) = (client.clone(), enrolment.clone(), home.clone());
    spawn_local(async move {
        let mut followed = std::collections::BTreeSet::new();
        while let Some(domain) = wanted.recv().await {
            if followed.insert(domain.clone()) {
                let subscription = client.subscribe::<TrustBundle>(domain.as_str());
                spawn_local(follow_trust(subscription, domain, enrolment.clone(), home.clone()));
            }
        }
    });
    sender
}

async fn follow_trust(
    mut subscription: veer_xds::Subscription<TrustBundle>,
    domain: TrustDomain,
    enrolment: Enrolment,
    home: Home,
) -> Infallible {
    let mut known = subscription.borrow_and_update();
    loop {
        match &known {
            Known::Present(bundle) if bundle.trust_domain == domain => {
                match enrolment.identity.trust((**bundle).clone()) {
                    Ok(()) => home.save(&enrolment),
                    Err(error) => tracing::error!(%error, "a trust bundle was refused, the former stays"),
                }
            }
            Known::Present(other) => {
                tracing::error!(%domain, other = %other.trust_domain, "a bundle under another trust domain's name was refused");
            }
            // A statement: the peer was unlinked.
            Known::Absent => {
                enrolment.identity.distrust(&domain);
                home.save(&enrolment);
            }
            Known::Unknown => {}
        }
        known = subscription.changed().await;
    }
}

/// Tells the balance whether the control plane's word on leases is fresh.
async fn watch_control(process: Arc<Process>) {
    let mut states = process.xds.states();
    loop {
        let lost = matches!(*states.borrow_and_update(), SessionState::Stale | SessionState::Connecting);
        if lost {
            // Returns early when the session is back.
            let back = states.wait_for(|state| matches!(state, SessionState::Synced | SessionState::AwaitFirst));
            match tokio::time::timeout(CONTROL_GRACE, back).await {
                Ok(Ok(_)) => continue,
                Ok(Err(_)) => return,
                Err(_) => process.clusters.set_control_alive(false),
            }
        } else {
            process.clusters.set_control_alive(true);
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

async fn report(process: Arc<Process>) {
    let mut tick = tokio::time::interval(REPORT);
    loop {
        tick.tick().await;
        let Some(channel) = process.xds.channel() else { continue };
        let now = Instant::now();
        let status = process.xds.status();
        let proofs = process.paths().into_iter().filter_map(|(cluster, _)| {
            let age = process.clusters.get(&cluster).proof_age(now)?;
            Some((cluster, u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
        });
        let report = agent::Report {
            workload: Some(process.config.workload.clone()),
            node: process.config.workload.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            admin: process.config.admin,
            generation: status.server_generation.parse().unwrap_or(status.generation),
            proofs: proofs.collect(),
            ..agent::Report::default()
        };
        if let Err(status) = agent::report(&channel, &report).await {
            tracing::debug!(reason = status.message(), "the control plane did not take the report");
        }
    }
}

/// Keeps the configuration for the next process: as soon as a burst of news is over, and now and then during a long one.
async fn persist(home: Home, client: veer_xds::Client) {
    let mut tick = tokio::time::interval(PERSIST_LOOK);
    let (mut kept, mut seen) = ((0, 0), (0, 0));
    let mut saved = Instant::now();
    loop {
        tick.tick().await;
        let status = client.status();
        let now = (status.generation, status.subscriptions);
        let settled = now == seen;
        seen = now;
        let news = kept != now && (settled || saved.elapsed() >= PERSIST);
        if news || (status.connected && saved.elapsed() >= CONFIRM) {
            (kept, saved) = (now, Instant::now());
            home.save_config(&client);
        }
    }
}

async fn work(
    process: &Arc<Process>,
    admin: &Rc<Admin>,
    rng: &mut fastrand::Rng,
    drain: &Drain,
) -> Result<(), ProxyError> {
    match process.config.workers {
        Workers::Local => {
            let (commands, received) = mpsc::unbounded_channel();
            admin.worker(commands);
            let worker = Worker::new(Arc::clone(process), rng.fork(), drain.clone());
            worker.run(received, || admin.serving()).await
        }
        Workers::Threads(count) => {
            let (ended, mut endings) = mpsc::unbounded_channel();
            let count = count.max(1);
            for number in 0..count {
                let (commands, received) = mpsc::unbounded_channel();
                admin.worker(commands);
                thread(number, Arc::clone(process), rng.fork(), drain.clone(), received, ended.clone())?;
            }
            let mut left = count;
            while left > 0 {
                match endings.recv().await {
                    Some(Ending::Serving) => admin.ready_after(count),
                    Some(Ending::Over(outcome)) => {
                        outcome?;
                        left -= 1;
                    }
                    None => break,
                }
            }
            Ok(())
        }
    }
}

enum Ending {
    Serving,
    Over(Result<(), ProxyError>),
}

fn thread(
    number: usize,
    process: Arc<Process>,
    rng: fastrand::Rng,
    drain: Drain,
    commands: mpsc::UnboundedReceiver<Command>,
    ended: mpsc::UnboundedSender<Ending>,
) -> Result<(), ProxyError> {
    let serve = move || {
        let serving = ended.clone();
        // A runtime of the thread's own: tasks need not be able to move, and waking one takes no lock.
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let outcome = built.map_err(ProxyError::Worker).and_then(|runtime| {
            runtime.block_on(async move {
                let worker = Worker::new(process, rng, drain);
                // Fails only when nobody is left to be told.
                worker.run(commands, move || drop(serving.send(Ending::Serving))).await
            })
        });
        let _ = ended.send(Ending::Over(outcome));
    };
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(serve).map_err(ProxyError::Worker)?;
    Ok(())
}

/// Whether the identity can be shown now.
pub(crate) fn holds(identity: &Identity) -> bool {
    !identity.svid().remaining(clock::now()).is_zero()
}
