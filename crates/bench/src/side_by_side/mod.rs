//! Veer beside other proxies: the same work, in the same run, on the same core.
//!
//! Load and origin share one core, the proxy (both of a pair) has another to itself. All contenders of a work are started, then
//! take turns, so that a change of the machine's mood hits all of them. The figure that counts is requests per second of the
//! proxy's CPU time: it does not depend on whether load, origin or proxy was the limit.

mod contenders;
mod drive;
mod figures;
mod goals;
mod machine;
mod origin;
mod process;
mod programs;
mod report;
mod works;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use rustix::fs::FlockOperation;
use tokio::signal::unix::{SignalKind, signal};

use self::contenders::Peer;
use self::drive::Effort;
use self::machine::Machine;
use self::programs::Stage;
use self::report::{Report, Settings};
use self::works::Work;

pub use self::process::prefer;

/// `veer-bench side-by-side`
#[derive(Args)]
pub struct SideBySide {
    /// Runs per proxy and work
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one run
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Seconds of load before a run counts
    #[arg(long, default_value_t = 0.2)]
    warm_up: f64,
    /// One run each: 7 minutes instead of 25, for a first look
    #[arg(long)]
    quick: bool,
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

impl SideBySide {
    /// What `veer-bench memory` asks for.
    pub fn of_memory() -> Self {
        Self {
            rounds: 3,
            seconds: 1.0,
            warm_up: 0.2,
            quick: false,
            works: vec![Work::Rest, Work::Idle, Work::IdleTls, Work::Growth],
            peers: vec![Peer::Veer],
            load_core: 0,
            proxy_core: 1,
            envoy: PathBuf::new(),
            output: PathBuf::new(),
        }
    }

    fn effort(&self) -> Effort {
        let rounds = if self.quick { 1 } else { self.rounds };
        let (span, warm_up) = (Duration::from_secs_f64(self.seconds), Duration::from_secs_f64(self.warm_up));
        Effort { rounds, span, warm_up }
    }
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
    let _alone = alone()?;
    let folder = tempfile::Builder::new().prefix("veer-bench-").tempdir()?;
    // Proxies run in folders of their own.
    let stage = Stage {
        veer: std::path::absolute(veer)?,
        envoy: std::path::absolute(if flags.envoy.as_os_str().is_empty() { Path::new("envoy") } else { &flags.envoy })?,
        proxy_core: flags.proxy_core,
        load_core: flags.load_core,
        certificates: folder.path().to_owned(),
        floor: folder.path().join("floor"),
    };
    let works = if flags.works.is_empty() { Work::ALL.to_vec() } else { flags.works.clone() };
    let peers = if flags.peers.is_empty() { Peer::ALL.to_vec() } else { flags.peers.clone() };
    peers.iter().try_for_each(|peer| peer.check(&stage))?;
    programs::certificates::write(&stage.certificates)?;
    if peers.contains(&Peer::Floor) {
        programs::build_floor(&stage.floor)?;
    }
    // Before this process sees one core only.
    let machine = Machine::describe();
    process::pin(None, stage.load_core)?;
    process::prefer();
    let effort = flags.effort();
    let settings = Settings {
        command: command(std::env::args().skip(1)),
        rounds: effort.rounds,
        seconds: flags.seconds,
        warm_up: flags.warm_up,
    };
    let versions = peers.iter().filter_map(|peer| peer.version(&stage)).collect();
    let mut report = Report::new(machine, versions, settings);
    let begun = tokio::time::Instant::now();
    for work in works {
        let contenders = work.contenders(&peers);
        let mut sink = |contender: contenders::Contender, run: anyhow::Result<figures::Run>| {
            let who = format!("{} {}", work.name(), contender.name());
            match &run {
                Ok(run) => eprintln!("{who}: {run}"),
                Err(error) => eprintln!("{who} DID NOT RUN: {error:#}"),
            }
            report.add(work, contender, run);
        };
        drive::work(work, &contenders, &stage, effort, folder.path(), &mut sink).await?;
        println!("\n{}", report.table(work));
        eprintln!("{:.0} s so far", begun.elapsed().as_secs_f64());
    }
    if flags.output.as_os_str().is_empty() {
        return Ok(());
    }
    report.write(&flags.output)?;
    println!("\nwritten to {}", flags.output.display());
    let errors: Vec<String> = report.errors().collect();
    ensure!(errors.is_empty(), "not everything ran:\n{}", errors.join("\n"));
    Ok(())
}

/// Arguments that matter to others who repeat the measurement: where files are does not.
fn command(mut arguments: impl Iterator<Item = String>) -> String {
    let mut kept = Vec::new();
    while let Some(argument) = arguments.next() {
        let names = ["--veer", "--output", "--envoy"];
        if names.contains(&argument.as_str()) {
            arguments.next();
        } else if !names.iter().any(|name| argument.starts_with(&format!("{name}="))) {
            kept.push(argument);
        }
    }
    kept.join(" ")
}

/// Waits until no other measurement runs on this machine: both would be wrong, and want the same addresses.
fn alone() -> anyhow::Result<File> {
    let path = std::env::temp_dir().join("veer-bench.lock");
    let file = File::options().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        eprintln!("waiting for another measurement to end");
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_without_the_paths_of_this_machine() {
        let words = "--veer /a/veer side-by-side --quick --output=/tmp/x --works http1".split(' ').map(str::to_owned);
        assert_eq!(command(words), "side-by-side --quick --works http1");
    }
}
