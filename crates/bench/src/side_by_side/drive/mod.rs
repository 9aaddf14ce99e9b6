//! Loading the contenders of a work, and watching what it costs them.

mod closed;
mod growth;
mod handshakes;
mod memory;
mod paced;
mod pick;
mod tls;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::Instant;
use veer_load::{ClosedLoad, ClosedPlan};

use super::contenders::{Contender, Peer};
use super::figures::{Figure, Run};
use super::origin::Origin;
use super::process;
use super::programs::{self, ORIGINS, Running, Stage};
use super::works::{Kind, Shape, Work};

/// For a proxy to serve its first request.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Runs per contender.
    pub rounds: usize,
    /// Length of a run.
    pub span: Duration,
    /// Load before it counts.
    pub warm_up: Duration,
}

/// What becomes of the runs as they end.
pub type Sink<'a> = &'a mut dyn FnMut(Contender, anyhow::Result<Run>);

/// Runs a work: all contenders are started, then take turns. What goes wrong with one of them is told and the others go on.
///
/// # Errors
/// When the origin cannot be started.
pub async fn work(
    work: Work,
    contenders: &[Contender],
    stage: &Stage,
    effort: Effort,
    folder: &Path,
    sink: Sink<'_>,
) -> anyhow::Result<()> {
    let shape = work.shape();
    match shape.kind {
        Kind::Growth | Kind::Pick => {
            for contender in contenders {
                let run = if shape.kind == Kind::Pick { pick::run() } else { growth::run(stage, effort).await };
                sink(*contender, run);
            }
            return Ok(());
        }
        _ => {}
    }
    let origin = Origin::start(&shape, &ORIGINS).await?;
    let mut entries = Vec::new();
    for (place, contender) in contenders.iter().enumerate() {
        let folder = folder.join(format!("{}-{}", work.name(), contender.name()));
        match entry(*contender, work, place as u8, stage, folder).await {
            Ok(entry) => entries.push(entry),
            Err(error) => sink(*contender, Err(error)),
        }
    }
    if let Kind::Paced(rate) = shape.kind {
        paced::prepare(&mut entries, &shape, rate, stage).await?;
    }
    // What has been kept once is not given back: a second look would see less.
    let rounds = if matches!(shape.kind, Kind::Rest | Kind::Idle { .. }) { 1 } else { effort.rounds };
    for _ in 0..rounds {
        let mut direct = None;
        for entry in &mut entries {
            let run = match shape.kind {
                Kind::Closed => closed::run(entry, &shape, work, stage, effort).await,
                Kind::Paced(rate) => paced::run(entry, &shape, rate, stage, effort, &mut direct).await,
                Kind::Handshakes { resumed } => handshakes::run(entry, &shape, resumed, stage, effort).await,
                Kind::Rest => memory::at_rest(entry).await,
                Kind::Idle { .. } => memory::idle(entry, &shape).await,
                Kind::Growth | Kind::Pick => continue,
            };
            sink(entry.contender, run.with_context(|| logs(&entry.folder)));
        }
    }
    if let Kind::Paced(_) = shape.kind {
        process::take_over(&[std::process::id()], false);
    }
    origin.end().await;
    Ok(())
}

/// A contender that runs.
struct Entry {
    contender: Contender,
    running: Running,
    folder: PathBuf,
    /// Requests per second at which it is as busy as is asked for, where that was found out.
    rate: f64,
}

/// Starts a contender and waits until it serves.
async fn entry(contender: Contender, work: Work, place: u8, stage: &Stage, folder: PathBuf) -> anyhow::Result<Entry> {
    std::fs::create_dir(&folder)?;
    let shape = work.shape();
    let running = programs::start(contender, work, place, stage, &folder).await?;
    let mut entry = Entry { contender, running, folder, rate: 0.0 };
    let ready = if programs::is_met_with_tls(&shape) {
        serves_tls(&mut entry).await
    } else {
        serves(&mut entry.running, &shape).await
    };
    ready.with_context(|| logs(&entry.folder))?;
    Ok(entry)
}

/// Waits for the first request to be served.
async fn serves(running: &mut Running, shape: &Shape) -> anyhow::Result<()> {
    let begun = Instant::now();
    // One connection: a proxy that is only half up must not be met by all.
    let plan = ClosedPlan { connections: 1, ..plan(running, shape) };
    loop {
        running.processes.iter_mut().try_for_each(process::Process::check)?;
        let last = match ClosedLoad::start(plan.clone()).await {
            Ok(load) => {
                let seen = load.measure(POLL).await;
                if seen.summary.failures == 0 && seen.summary.requests > 0 {
                    return Ok(());
                }
                format!("{} requests, {:?}", seen.summary.requests, seen.reasons)
            }
            Err(failure) => {
                tokio::time::sleep(POLL).await;
                failure.to_string()
            }
        };
        ensure!(begun.elapsed() < START, "does not serve within {START:?}: {last}");
    }
}

/// Waits for the first request over TLS to be served.
async fn serves_tls(entry: &mut Entry) -> anyhow::Result<()> {
    let begun = Instant::now();
    let running = &mut entry.running;
    let client = loop {
        running.processes.iter_mut().try_for_each(process::Process::check)?;
        match tls::Client::new(running, false, false) {
            Ok(client) => break client,
            Err(error) => ensure!(begun.elapsed() < START, "no client: {error:#}"),
        }
        tokio::time::sleep(POLL).await;
    };
    loop {
        running.processes.iter_mut().try_for_each(process::Process::check)?;
        match client.ask(&running.host).await {
            Ok(_) => return Ok(()),
            Err(error) => ensure!(begun.elapsed() < START, "does not serve within {START:?}: {error:#}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

fn plan(running: &Running, shape: &Shape) -> ClosedPlan {
    ClosedPlan {
        target: running.target,
        connections: shape.connections,
        exchange: shape.exchange(&running.host),
        reconnect: shape.reconnect,
    }
}

/// CPU time of everybody who matters, since they started.
struct Clock {
    at: Instant,
    proxies: Duration,
    hop: Duration,
    own: Duration,
    core: Duration,
}

impl Clock {
    fn read(running: &Running, stage: &Stage) -> anyhow::Result<Self> {
        let cpu = |roots: &[u32]| process::cpu_time(&process::with_children(roots)?);
        Ok(Self {
            at: Instant::now(),
            proxies: cpu(&running.roots())?,
            hop: cpu(&running.hop())?,
            own: process::cpu_time(&[std::process::id()])?,
            core: process::core_busy(stage.proxy_core)?,
        })
    }

    /// What `served` requests since then have cost.
    fn since(&self, running: &Running, stage: &Stage, served: u64) -> anyhow::Result<Run> {
        let now = Self::read(running, stage)?;
        let elapsed = (now.at - self.at).as_secs_f64();
        let served = served as f64;
        let proxies = (now.proxies - self.proxies).as_secs_f64();
        let busy = |time: f64| 100.0 * time / elapsed;
        let mut run = Run::of([(Figure::LoadBusy, busy((now.own - self.own).as_secs_f64()))]);
        if running.parts.is_empty() {
            return Ok(run);
        }
        run.set(Figure::CpuUs, 1e6 * proxies / served);
        run.set(Figure::PerCpuSecond, served / proxies);
        run.set(Figure::ProxyBusy, busy(proxies));
        run.set(Figure::OthersBusy, busy((now.core - self.core).as_secs_f64() - proxies).max(0.0));
        if !running.hop().is_empty() {
            run.set(Figure::HopCpuUs, 1e6 * (now.hop - self.hop).as_secs_f64() / served);
        }
        Ok(run)
    }
}

/// What the proxies of a contender said.
fn logs(folder: &Path) -> String {
    let mut said = String::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            said += &std::fs::read_to_string(entry.path()).unwrap_or_default();
        }
    }
    if said.is_empty() { "it said nothing".to_owned() } else { format!("it said:\n{said}") }
}

impl Entry {
    fn is_direct(&self) -> bool {
        self.contender.peer == Peer::Direct
    }
}
