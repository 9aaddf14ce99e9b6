//! `veer`: proxy, gateway, control plane and tool in one binary.

mod api;
mod demo;
mod memory;
mod processes;
mod supervise;
mod table;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::LocalRuntime;
use veer_control::api::TokenRequest;
use veer_core::ObjectName;

use crate::tools::{Format, Target};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A multi-cluster service mesh and traffic manager: any request finds a healthy copy, wherever it runs.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// See it work: three clusters on this machine, real traffic, real failures
    Demo(DemoArgs),
    /// Run a fleet folder: every cluster with its control plane, gateways, proxies and processes
    Run {
        /// Folder with fleet.yaml
        fleet: PathBuf,
        /// State folder (default: .veer in the fleet's folder)
        #[arg(long)]
        state: Option<PathBuf>,
    },
    /// Clusters, peers, leases, ages, and faults in manifests
    Status {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        format: Format,
    },
    /// Rate, success and latency per service, or per edge, now
    Stat(tools::stat::Stat),
    /// Gateways and routes as they are written, with their status
    Get(tools::get::Get),
    /// Find faults in manifests before they are applied; exit code 1 if there are any
    Lint(tools::lint::Lint),
    /// What would become of a request that nobody sends, and who wrote what acts on it
    Explain(tools::explain::Explain),
    /// The rules that act on a service, and who wrote them
    Routes(OfHost),
    /// The copies that can serve, cluster by cluster
    Endpoints(OfHost),
    /// Check everything, and say what to do about what is wrong; exit code 1 if something is broken
    Check {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        format: Format,
    },
    /// Print a cluster's own Link, to be put among the other side's manifests
    Link {
        #[command(flatten)]
        target: Target,
    },
    /// Make a join token for a workload, or a gateway, outside this machine
    Token {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        format: Format,
        /// For the proxy of this Workload (namespace/name)
        #[arg(required_unless_present = "gateway")]
        workload: Option<ObjectName>,
        /// For this gateway
        #[arg(long, conflicts_with = "workload")]
        gateway: Option<String>,
    },
    /// Have every proxy and gateway renew its certificate now
    Rotate(Everywhere),
    /// Let go what vanished from the manifests all at once and is kept until confirmed
    Confirm(Everywhere),
    /// Take a gateway out of its peers' rotation, or back
    Drain {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        format: Format,
        /// Name of the gateway
        gateway: String,
        /// Take it back
        #[arg(long)]
        undo: bool,
    },
    /// Kill a cluster, or one of its processes, with SIGKILL, and keep it dead until `veer start`
    Stop {
        #[command(flatten)]
        target: Target,
        /// CLUSTER or CLUSTER/PROCESS (processes are named as their log files)
        what: String,
    },
    /// Let what `veer stop` killed start again
    Start {
        #[command(flatten)]
        target: Target,
        /// CLUSTER or CLUSTER/PROCESS
        what: String,
    },
    /// Run a proxy beside a workload
    Proxy(processes::ProxyArgs),
    /// Run a gateway of a cluster
    Gateway(processes::GatewayArgs),
    /// Run the control plane of a cluster
    Control(processes::ControlArgs),
    /// Print, apply or remove the packet-filter rules of transparent capture
    Capture(processes::CaptureArgs),
    /// Send requests at a fixed rate and print what became of them
    Load(tools::load::LoadArgs),
    /// A service of the example shop
    #[command(hide = true)]
    Shop(processes::ShopArgs),
    /// The process that is a cluster of `veer run`
    #[command(hide = true)]
    Cluster {
        #[arg(long)]
        file: PathBuf,
    },
    /// Become a command that dies with its parent
    #[command(hide = true)]
    Exec {
        #[arg(long)]
        parent: u32,
        #[arg(last = true)]
        command: Vec<String>,
    },
}

#[derive(clap::Args)]
struct DemoArgs {
    /// Leave the fleet running at the end, and print commands to try
    #[arg(long)]
    keep: bool,
    /// Print the result as JSON, and nothing else
    #[arg(long)]
    json: bool,
    /// Requests per second of all visitors together
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Empty folder for the fleet, its state and logs (default: a temporary one)
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Play only these steps (numbers from 1)
    #[arg(long, value_delimiter = ',')]
    steps: Vec<usize>,
}

#[derive(clap::Args)]
struct OfHost {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
    /// Service: cart.shop, or its whole host (default: all)
    host: Option<String>,
}

#[derive(clap::Args)]
struct Everywhere {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Verb::Exec { parent, command } = &cli.verb {
        let error = supervise::child::exec(*parent, command);
        eprintln!("veer exec {command:?}: {error}");
        return ExitCode::from(127);
    }
    let runtime = match LocalRuntime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("veer: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.verb)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            anstream::eprintln!("veer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `Ok(false)`: it ran, and the answer is no.
async fn run(verb: Verb) -> anyhow::Result<bool> {
    match verb {
        Verb::Demo(DemoArgs { keep, json, rate, folder, steps }) => {
            return demo::run(demo::Options { keep, json, rate, folder, steps }).await;
        }
        Verb::Run { fleet, state } => processes::run_fleet(&fleet, state).await?,
        Verb::Status { target, format } => return tools::look::status(&target, &format).await,
        Verb::Stat(stat) => return stat.run().await,
        Verb::Get(get) => return get.run().await,
        Verb::Lint(lint) => return lint.run(),
        Verb::Explain(explain) => return explain.run().await,
        Verb::Routes(OfHost { target, format, host }) => {
            return tools::routes::routes(&target, whole_host(host)?.as_deref(), &format).await;
        }
        Verb::Endpoints(OfHost { target, format, host }) => {
            return tools::look::endpoints(&target, whole_host(host)?.as_deref(), &format).await;
        }
        Verb::Check { target, format } => return tools::check::check(&target, &format).await,
        Verb::Link { target } => tools::identity::link(&target).await?,
        Verb::Token { target, format, workload, gateway } => {
            tools::identity::token(&target, &TokenRequest { workload, gateway }, &format).await?;
        }
        Verb::Rotate(Everywhere { target, format }) => tools::identity::verb(&target, "/v1/rotate", &format).await?,
        Verb::Confirm(Everywhere { target, format }) => tools::identity::verb(&target, "/v1/confirm", &format).await?,
        Verb::Drain { target, format, gateway, undo } => {
            let verb = if undo { "undrain" } else { "drain" };
            target.one_cluster()?;
            tools::identity::verb(&target, &format!("/v1/gateways/{gateway}/{verb}"), &format).await?;
        }
        Verb::Stop { target, what } => processes::stop(&target, &what)?,
        Verb::Start { target, what } => processes::start(&target, &what)?,
        Verb::Proxy(arguments) => {
            tokio::task::spawn_local(memory::settle());
            processes::proxy(arguments).await?;
        }
        Verb::Gateway(arguments) => {
            tokio::task::spawn_local(memory::settle());
            processes::gateway(arguments).await?;
        }
        Verb::Control(arguments) => processes::control(arguments).await?,
        Verb::Capture(arguments) => processes::capture(&arguments)?,
        Verb::Load(arguments) => return arguments.run().await,
        Verb::Shop(arguments) => processes::shop(arguments).await?,
        Verb::Cluster { file } => processes::cluster(&file).await?,
        // Handled before there was a runtime.
        Verb::Exec { .. } => {}
    }
    Ok(true)
}

/// What a person types for a service (`cart.shop`), as the host that it is known by.
fn whole_host(host: Option<String>) -> anyhow::Result<Option<String>> {
    let Some(host) = host else { return Ok(None) };
    match veer_core::ServiceHost::complete(&host, "default") {
        Some(whole) => Ok(Some(whole.to_string())),
        None => anyhow::bail!("{host:?} is no service: write name.namespace, or the whole host"),
    }
}
