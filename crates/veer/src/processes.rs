//! The verbs that run something: proxy, gateway, control plane, cluster, fleet.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use veer_control::api::TokenRequest;
use veer_control::{ControlConfig, ControlError};
use veer_core::gateway::PathGateway;
use veer_core::time::parse_duration;
use veer_core::{ClusterName, Locality, ObjectName, TrustDomain};
use veer_identity::JoinToken;
use veer_net::drain::{Drain, drain};
use veer_proxy::capture;
use veer_proxy::config::{Capture, ProxyConfig, Workers};
use veer_proxy::gateway::GatewayProcessConfig;

use crate::api;
use crate::supervise::cluster as cluster_process;
use crate::supervise::fleet::{RunningFleet, kill_and_hold, release};
use crate::supervise::plan::{API_PORT, ClusterPlan, FleetPlan, GATEWAY_PORT, XDS_PORT};
use crate::tools::{Target, named};

/// Where packet-filter rules lead connections of the application; beside the port that applications may use openly.
const CAPTURED_OUTBOUND_PORT: u16 = 15002;
/// For connections that are open when a process is told to end.
const DRAIN: Duration = Duration::from_secs(5);
/// Between questions for a join token, while the control plane is not up yet.
const TOKEN_RETRY: Duration = Duration::from_millis(200);

/// `veer proxy`
#[derive(Args)]
pub struct ProxyArgs {
    /// The workload beside which it stands (namespace/name); the token names it too
    #[arg(long)]
    workload: Option<ObjectName>,
    /// Address of the workload
    #[arg(long)]
    address: IpAddr,
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Write an access log (JSON lines) to standard output
    #[arg(long)]
    access_log: bool,
    /// Serve a Gateway's listeners instead of standing beside a workload; --workload names it as <gateway>-gateway
    #[arg(long, conflicts_with = "capture")]
    ingress: bool,
    /// Take connections that packet-filter rules lead here (see `veer capture`)
    #[arg(long)]
    capture: bool,
    #[command(flatten)]
    join: Join,
}

/// `veer gateway`
#[derive(Args)]
pub struct GatewayArgs {
    /// Its name within the cluster; the token names it too
    #[arg(long)]
    name: Option<String>,
    /// Where it listens
    #[arg(long, required_unless_present = "cluster_file")]
    address: Option<IpAddr>,
    /// Its cluster; the token names it too
    #[arg(long)]
    cluster: Option<ClusterName>,
    /// Also relay connections of this cluster's workloads to its peers, on this inside address (address:15444)
    #[arg(long)]
    egress: Option<SocketAddr>,
    #[command(flatten)]
    join: Join,
}

/// How a proxy or gateway gets its identity.
#[derive(Args)]
struct Join {
    /// Control plane (address:15010); the token names it too
    #[arg(long)]
    control: Vec<SocketAddr>,
    /// Join token of `veer token`; needed until the first certificate is there
    #[arg(long, env = "VEER_JOIN_TOKEN", hide_env_values = true)]
    token: Option<JoinToken>,
    /// Folder for certificate and last configuration, so that a restart needs no control plane
    #[arg(long, required_unless_present = "cluster_file")]
    state: Option<PathBuf>,
    /// cluster.json of a cluster of this machine: replaces --control, --token and --state
    #[arg(long, hide = true)]
    cluster_file: Option<PathBuf>,
}

/// `veer control`
#[derive(Args)]
pub struct ControlArgs {
    /// cluster.json of a cluster of `veer run`: replaces everything else
    #[arg(long, hide = true)]
    cluster_file: Option<PathBuf>,
    /// Name of the cluster
    #[arg(long, required_unless_present = "cluster_file")]
    cluster: Option<ClusterName>,
    /// Trust domain to issue for
    #[arg(long, required_unless_present = "cluster_file")]
    trust_domain: Option<TrustDomain>,
    /// Region of its workloads
    #[arg(long, default_value = "")]
    region: String,
    /// Zone of its workloads
    #[arg(long, default_value = "")]
    zone: String,
    /// Folder of manifests (several allowed)
    #[arg(long, required_unless_present = "cluster_file")]
    manifests: Vec<PathBuf>,
    /// Folder for the CA and what must survive a restart
    #[arg(long, required_unless_present = "cluster_file")]
    state: Option<PathBuf>,
    /// Address to listen on (ports 15010 and 15014)
    #[arg(long, required_unless_present = "cluster_file")]
    address: Option<IpAddr>,
    /// A gateway as peers dial it: name=address:port (several allowed)
    #[arg(long, value_parser = read_gateway)]
    gateway: Vec<PathGateway>,
    /// How long a peer's word is taken without hearing from it
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    lease: Duration,
    /// Life of certificates; they are renewed at half of it
    #[arg(long, value_parser = parse_duration, default_value = "24h")]
    certificate_ttl: Duration,
}

/// `veer capture`
#[derive(Args)]
pub struct CaptureArgs {
    /// Print the rules instead of applying them
    #[arg(long)]
    print: bool,
    /// Remove the rules
    #[arg(long, conflicts_with = "print")]
    remove: bool,
    /// Mark (SO_MARK) of connections that must pass: those of the proxy
    #[arg(long, default_value_t = capture::DEFAULT_MARK)]
    mark: u32,
    /// Ports of the application that are not captured
    #[arg(long, value_delimiter = ',')]
    exclude_inbound: Vec<u16>,
    /// Destination ports that are not captured
    #[arg(long, value_delimiter = ',')]
    exclude_outbound: Vec<u16>,
}

/// `veer shop`
#[derive(Args)]
pub struct ShopArgs {
    service: veer_shop::Service,
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long, default_value = "v1")]
    version: String,
    #[arg(long, env = "VEER_OUTBOUND")]
    outbound: SocketAddr,
    #[arg(long, env = "VEER_CLUSTER")]
    cluster: String,
    #[arg(long, env = "VEER_WORKLOAD")]
    workload: String,
}

fn read_gateway(text: &str) -> Result<PathGateway, String> {
    let refuse = || format!("{text:?}: write name=address:port, like gateway-1=192.0.2.7:15443");
    let (name, address) = text.split_once('=').ok_or_else(refuse)?;
    let address = address.parse().map_err(|_| refuse())?;
    Ok(PathGateway { name: name.into(), address, weight: 1, draining: false })
}

/// Logs go to standard error; `VEER_LOG` filters them.
fn start_log() {
    let filter = std::env::var(veer_telemetry::logging::FILTER_VARIABLE).ok();
    // Fails only when logging was started before.
    let _ = veer_telemetry::logging::init(filter.as_deref(), "info", veer_telemetry::logging::LogFormat::Text);
}

/// Ends when the process is told to (`SIGTERM` or Ctrl-C).
async fn told_to_end() -> std::io::Result<()> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    poll_fn(|cx| {
        if term.poll_recv(cx).is_ready() { std::task::Poll::Ready(()) } else { interrupt.poll_recv(cx).map(|_| ()) }
    })
    .await;
    Ok(())
}

/// A drain that starts when the process is told to end.
fn drain_when_told() -> Drain {
    let (trigger, drain) = drain();
    tokio::task::spawn_local(async move {
        match told_to_end().await {
            Ok(()) => trigger.start(DRAIN),
            // Without signals nobody tells; the process runs until it is killed.
            Err(error) => {
                tracing::warn!(%error, "no signals");
                std::future::pending::<()>().await;
            }
        }
        // The watchers see the trigger's end as never starting; keep it for as long as the process lives.
        std::future::pending::<()>().await;
    });
    drain
}

/// Runs a proxy until told to end.
///
/// # Errors
/// When it cannot listen or get an identity.
pub async fn proxy(arguments: ProxyArgs) -> anyhow::Result<()> {
    start_log();
    let named = arguments.workload.clone().or_else(|| arguments.join.token.as_ref().map(|t| t.workload.clone()));
    let workload = named.context("name the workload with --workload namespace/name, or give a token")?;
    let request = TokenRequest { workload: Some(workload.clone()), gateway: None };
    let state = format!("{}.{}", workload.namespace, workload.name);
    let Joined { control, token, state } = arguments.join.resolve(&request, &state).await?;
    let mut config = ProxyConfig::new(workload, arguments.address);
    config.control = control;
    config.join = token;
    config.state_dir = Some(state);
    config.workers = Workers::Threads(arguments.workers.max(1));
    config.access_log = arguments.access_log;
    config.ingress = arguments.ingress;
    if arguments.capture {
        config.capture = Some(Capture {
            outbound: (Ipv4Addr::UNSPECIFIED, CAPTURED_OUTBOUND_PORT).into(),
            inbound: (Ipv4Addr::UNSPECIFIED, capture::DEFAULT_INBOUND_PORT).into(),
            transparent: false,
        });
        config.mark = Some(capture::DEFAULT_MARK);
    }
    veer_proxy::run(config, drain_when_told()).await.context("proxy")
}

/// Runs a gateway until told to end.
///
/// # Errors
/// When it cannot listen or get an identity.
pub async fn gateway(arguments: GatewayArgs) -> anyhow::Result<()> {
    start_log();
    let from_token = || arguments.join.token.as_ref().map(|token| token.workload.name.to_string());
    let name = arguments.name.clone().or_else(from_token).context("name the gateway with --name, or give a token")?;
    let plan = arguments.join.plan()?;
    let planned = plan.as_ref().and_then(|plan| plan.gateways.iter().find(|gateway| gateway.name == name));
    let address = arguments.address.or(planned.map(|gateway| gateway.address));
    let address = address.with_context(|| format!("no address for gateway {name}"))?;
    let from_token = || arguments.join.token.as_ref().map(|token| token.cluster.clone());
    let cluster = arguments.cluster.clone().or(plan.map(|plan| plan.name)).or_else(from_token);
    let cluster = cluster.context("name the cluster with --cluster, or give a token")?;
    let request = TokenRequest { workload: None, gateway: Some(name.clone()) };
    let Joined { control, token, state } = arguments.join.resolve(&request, &name).await?;
    let mut config = GatewayProcessConfig::new(&name, cluster, address);
    config.egress = arguments.egress;
    config.control = control;
    config.join = token;
    config.state_dir = Some(state);
    veer_proxy::gateway::run(config, drain_when_told()).await.context("gateway")
}

struct Joined {
    control: Vec<SocketAddr>,
    token: Option<JoinToken>,
    state: PathBuf,
}

impl Join {
    fn plan(&self) -> anyhow::Result<Option<ClusterPlan>> {
        let read = |file: &PathBuf| ClusterPlan::read(file).with_context(|| format!("reading {}", file.display()));
        self.cluster_file.as_ref().map(read).transpose()
    }

    /// On a machine with the control plane's own socket, a token is asked for there, for as long as it takes.
    async fn resolve(self, request: &TokenRequest, name: &str) -> anyhow::Result<Joined> {
        let Some(plan) = self.plan()? else {
            let mut control = self.control;
            control.extend(self.token.iter().flat_map(|token| token.control.clone()));
            control.dedup();
            anyhow::ensure!(!control.is_empty(), "name the control plane with --control, or give a token");
            return Ok(Joined { control, token: self.token, state: self.state.context("--state is missing")? });
        };
        let state = plan.process_state(name);
        let mut token = None;
        while token.is_none() && !has_identity(&state) {
            match api::token(&plan, request).await {
                Ok(answer) => token = Some(answer.token.parse()?),
                Err(error) => {
                    tracing::info!("waiting for a join token: {error:#}");
                    tokio::time::sleep(TOKEN_RETRY).await;
                }
            }
        }
        Ok(Joined { control: vec![plan.xds()], token, state })
    }
}

/// Whether a restart finds a certificate that is still good, so that no token is needed.
fn has_identity(state: &Path) -> bool {
    veer_identity::Svid::load(&state.join("svid.pem"))
        .is_ok_and(|svid| !svid.remaining(veer_identity::clock::now()).is_zero())
}

/// Runs a control plane until told to end.
///
/// # Errors
/// When it cannot listen, or its state cannot be kept.
pub async fn control(arguments: ControlArgs) -> anyhow::Result<()> {
    start_log();
    let config = match &arguments.cluster_file {
        Some(file) => planned_control(&ClusterPlan::read(file).with_context(|| format!("reading {}", file.display()))?),
        None => arguments.config()?,
    };
    let run: Result<(), ControlError> = veer_control::run(config, drain_when_told()).await;
    run.context("control plane")
}

impl ControlArgs {
    fn config(self) -> anyhow::Result<ControlConfig> {
        let missing = "a flag is missing";
        let address = self.address.context(missing)?;
        let (cluster, trust_domain) = (self.cluster.context(missing)?, self.trust_domain.context(missing)?);
        let listen = SocketAddr::new(address, XDS_PORT);
        let mut config = ControlConfig::new(cluster, trust_domain, self.state.context(missing)?, listen);
        config.locality = Locality { region: self.region.into(), zone: self.zone.into() };
        config.manifests = self.manifests;
        config.gateways = self.gateway;
        config.lease = self.lease;
        config.certificate_ttl = self.certificate_ttl;
        Ok(config)
    }
}

fn planned_control(plan: &ClusterPlan) -> ControlConfig {
    let mut config = ControlConfig::new(plan.name.clone(), plan.trust_domain.clone(), plan.control_state(), plan.xds());
    config.api = SocketAddr::new(plan.control, API_PORT);
    config.locality = Locality { region: plan.region.as_str().into(), zone: plan.zone.as_str().into() };
    config.manifests = plan.manifests.clone();
    config.gateways = plan
        .gateways
        .iter()
        .map(|gateway| PathGateway {
            name: gateway.name.as_str().into(),
            address: (gateway.address, GATEWAY_PORT).into(),
            weight: 1,
            draining: false,
        })
        .collect();
    config.lease = plan.lease;
    config.certificate_ttl = plan.certificate_ttl;
    config
}

/// Runs a fleet until told to end.
///
/// # Errors
/// When the fleet file has faults.
pub async fn run_fleet(folder: &Path, state: Option<PathBuf>) -> anyhow::Result<()> {
    start_log();
    let state = state.unwrap_or_else(|| FleetPlan::default_state(folder));
    let fleet = RunningFleet::start(folder, &state)?;
    for cluster in &fleet.plan.clusters {
        anstream::println!("{}: control plane {}, logs {}", cluster.name, cluster.api(), cluster.logs().display());
    }
    anstream::println!("running; `veer status --fleet {}` tells more, Ctrl-C ends it", folder.display());
    told_to_end().await?;
    anstream::println!("stopping");
    fleet.stop().await;
    Ok(())
}

/// Runs one cluster of a fleet until told to end.
///
/// # Errors
/// When its file cannot be read.
pub async fn cluster(file: &Path) -> anyhow::Result<()> {
    start_log();
    cluster_process::run(file, async {
        if let Err(error) = told_to_end().await {
            tracing::warn!(%error, "no signals");
            std::future::pending::<()>().await;
        }
    })
    .await
}

/// Prints, applies or removes the rules of transparent capture.
///
/// # Errors
/// When the packet filter's tools are missing or refuse.
pub fn capture(arguments: &CaptureArgs) -> anyhow::Result<()> {
    let rules = capture::Capture {
        outbound_port: Some(CAPTURED_OUTBOUND_PORT),
        proxy_mark: Some(arguments.mark),
        exclude_inbound_ports: arguments.exclude_inbound.clone(),
        exclude_outbound_ports: arguments.exclude_outbound.clone(),
        ipv6: false,
        ..Default::default()
    };
    if arguments.print {
        anstream::print!("{}", rules.nft());
    } else if arguments.remove {
        capture::remove(capture::Tool::find()?, &capture::Namespace::Current)?;
    } else {
        capture::apply(&rules, capture::Tool::find()?, &capture::Namespace::Current)?;
    }
    Ok(())
}

/// Runs a service of the example shop until told to end.
///
/// # Errors
/// When it cannot listen.
pub async fn shop(arguments: ShopArgs) -> anyhow::Result<()> {
    let ShopArgs { service, listen, version, outbound, cluster, workload } = arguments;
    let name = format!("{cluster}/{workload}");
    tokio::select! {
        served = veer_shop::run(veer_shop::Config { service, listen, name, version, outbound }) => served?,
        told = told_to_end() => told?,
    }
    Ok(())
}

/// `veer stop`
///
/// # Errors
/// When it does not run.
pub fn stop(target: &Target, what: &str) -> anyhow::Result<()> {
    let (held, run_file, name) = place(target, what)?;
    kill_and_hold(&held, &run_file, &name)
}

/// `veer start`
///
/// # Errors
/// When the fleet was never started.
pub fn start(target: &Target, what: &str) -> anyhow::Result<()> {
    let (held, _, name) = place(target, what)?;
    Ok(release(&held, &name)?)
}

/// Folder of held names, file of running processes, and name, of a cluster or one of its processes.
fn place(target: &Target, what: &str) -> anyhow::Result<(PathBuf, PathBuf, String)> {
    let (cluster, process) = what.split_once('/').map_or((what, None), |(cluster, process)| (cluster, Some(process)));
    let plan = named(&target.plan()?, cluster)?;
    Ok(match process {
        Some(process) => (plan.held(), plan.run_file(), process.to_owned()),
        None => (target.state().join("held"), target.state().join("run.json"), cluster.to_owned()),
    })
}
