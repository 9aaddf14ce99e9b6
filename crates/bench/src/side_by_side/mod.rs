//! Veer beside other proxies: the same work, in the same run, on the same core.
//!
//! Load and origin share one core, the proxy (both of a pair) has another to itself. Every run starts its proxy afresh; runs
//! of different proxies take turns, so that a change of the machine's mood hits all of them. The figure that counts is
//! requests per second of the proxy's CPU time: it does not depend on whether load, origin or proxy was the limit.

mod certificates;
mod floor;
mod machine;
mod origin;
mod peers;
mod process;
mod report;
mod veer;
mod works;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use veer_load::{ClosedLoad, ClosedPlan};

use self::machine::Machine;
use self::origin::Origin;
use self::peers::{Peer, Running, Stage};
use self::report::{Report, Run, Settings};
use self::works::{APPLICATION, ECHO, ECHO_APPLICATION, ORIGIN, Work};

/// For a proxy to serve its first request.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// `veer-bench side-by-side`
#[derive(Args)]
pub struct SideBySide {
    /// Runs per proxy and work
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one run
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of load before a run counts
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Only these works
    #[arg(long, alias = "work", value_delimiter = ',')]
    works: Vec<Work>,
    /// Only these proxies
    #[arg(long, alias = "peer", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Core of load and origin
    #[arg(long, default_value_t = 0)]
    load_core: usize,
    /// Core of the proxies
    #[arg(long, default_value_t = 1)]
    proxy_core: usize,
    /// Envoy (`benches/peers` installs it there)
    #[arg(long, default_value = "target/peers/envoy")]
    envoy: PathBuf,
    /// Folder for the report
    #[arg(long, default_value = "docs/benchmarks")]
    output: PathBuf,
}

/// Measures, prints, and writes the report.
pub async fn run(veer: &Path, flags: SideBySide) -> anyhow::Result<()> {
    // Processes outlive this one when it is killed by a signal, and end when it returns.
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        measured = measure(veer, flags) => measured,
        _ = term.recv() => bail!("told to end"),
        _ = interrupt.recv() => bail!("told to end"),
    }
}

async fn measure(veer: &Path, flags: SideBySide) -> anyhow::Result<()> {
    ensure!(flags.load_core != flags.proxy_core, "load and proxies need a core each");
    ensure!(flags.rounds > 0 && flags.seconds > 0.0, "nothing to measure");
    let folder = tempfile::Builder::new().prefix("veer-bench-").tempdir()?;
    let stage = Stage {
        veer: veer.to_owned(),
        // Proxies run in folders of their own.
        envoy: std::path::absolute(&flags.envoy)?,
        proxy_core: flags.proxy_core,
        load_core: flags.load_core,
        certificates: folder.path().to_owned(),
        floor: folder.path().join("floor"),
    };
    let or_all = |some: &[_], all: &[_]| if some.is_empty() { all.to_vec() } else { some.to_vec() };
    let works = if flags.works.is_empty() { Work::ALL.to_vec() } else { flags.works.clone() };
    let peers: Vec<Peer> = or_all(&flags.peers, &Peer::ALL);
    peers.iter().try_for_each(|peer| peer.check(&stage))?;
    certificates::write(&stage.certificates)?;
    if peers.contains(&Peer::Floor) {
        floor::build(&stage.floor)?;
    }
    // Before this process sees one core only.
    let machine = Machine::describe();
    process::pin(None, stage.load_core)?;
    let _origin = Origin::start(&[ORIGIN, APPLICATION], &[ECHO, ECHO_APPLICATION]).await?;
    let settings = Settings {
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        rounds: flags.rounds,
        seconds: flags.seconds,
        warm_up: flags.warm_up,
    };
    let versions = peers.iter().filter_map(|peer| peer.version(&stage)).collect();
    let mut report = Report::new(machine, versions, settings);
    for work in works {
        for round in 0..flags.rounds {
            for peer in peers.iter().filter(|peer| peer.does(work)) {
                let name = format!("{:?}-{:?}-{round}", work, peer).to_lowercase();
                let folder = folder.path().join(&name);
                std::fs::create_dir(&folder)?;
                let run = one(*peer, work, &stage, &folder, &flags).await;
                let run = run.with_context(|| format!("{}, {}, {}", work.title(), peer.title(), logs(&folder)))?;
                eprintln!("{name}: {run}");
                report.add(work, *peer, run);
            }
        }
        println!("\n{}", report.table(work));
    }
    report.write(&flags.output)?;
    println!("\nwritten to {}", flags.output.display());
    Ok(())
}

/// One run of one peer.
async fn one(peer: Peer, work: Work, stage: &Stage, folder: &Path, flags: &SideBySide) -> anyhow::Result<Run> {
    let mut running = peer.start(work, stage, folder).await?;
    let load = serving(&mut running, work).await?;
    load.measure(Duration::from_secs_f64(flags.warm_up)).await;
    let proxies = process::with_children(&running.roots)?;
    let own = [std::process::id()];
    let before = (process::cpu_time(&proxies)?, process::cpu_time(&own)?);
    let measured = load.measure(Duration::from_secs_f64(flags.seconds)).await;
    let after = (process::cpu_time(&proxies)?, process::cpu_time(&own)?);
    ensure!(measured.summary.requests > measured.summary.failures, "nothing was served: {:?}", measured.reasons);
    Ok(Run::new(&measured, after.0 - before.0, after.1 - before.1, process::peak_memory(&proxies)?))
}

/// Starts the load once the proxy serves.
async fn serving(running: &mut Running, work: Work) -> anyhow::Result<ClosedLoad> {
    let plan =
        ClosedPlan { target: running.target, connections: work.connections(), exchange: work.exchange(&running.host) };
    let begun = Instant::now();
    let mut last = String::new();
    // One connection first: a proxy that is only half up must not be met by all.
    let mut first = None;
    loop {
        running.processes.iter_mut().try_for_each(process::Process::check)?;
        match &first {
            None => match ClosedLoad::start(ClosedPlan { connections: 1, ..plan.clone() }).await {
                Ok(load) => first = Some(load),
                Err(failure) => {
                    last = failure.to_string();
                    tokio::time::sleep(POLL).await;
                }
            },
            Some(load) => {
                let seen = load.measure(POLL).await;
                if seen.summary.failures == 0 && seen.summary.requests > 0 {
                    return Ok(ClosedLoad::start(plan).await?);
                }
                last = format!("{} requests, {:?}", seen.summary.requests, seen.reasons);
            }
        }
        ensure!(begun.elapsed() < START, "does not serve within {START:?}: {last}");
    }
}

/// What the proxies of a run said.
fn logs(folder: &Path) -> String {
    let mut said = String::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            said += &std::fs::read_to_string(entry.path()).unwrap_or_default();
        }
    }
    if said.is_empty() { "which said nothing".to_owned() } else { format!("which said:\n{said}") }
}
