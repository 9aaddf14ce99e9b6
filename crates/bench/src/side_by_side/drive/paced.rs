//! At a rate: latency from when a request was due, and what of it is the proxy's.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use veer_load::{ClosedLoad, ClosedReport, PacedPlan, paced};

use super::closed::{add, served};
use super::{Clock, Effort, Entry, plan};
use crate::side_by_side::figures::{Figure, Run};
use crate::side_by_side::process::{take_over, with_children};
use crate::side_by_side::programs::{ORIGINS, Stage};
use crate::side_by_side::works::{Rate, Shape};

/// Percentiles need more requests than CPU time does.
const LONGER: f64 = 1.5;
/// To find out what a proxy can do.
const SATURATION: Duration = Duration::from_millis(700);
/// The cost of a request follows the rate, and the rate the cost: this often they are brought together.
const ATTEMPTS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(5);

/// `direct` keeps what load and origin alone took, for the contenders of a round.
pub(super) async fn run(
    entry: &Entry,
    shape: &Shape,
    rate: Rate,
    stage: &Stage,
    effort: Effort,
    direct: &mut Option<ClosedReport>,
) -> anyhow::Result<Run> {
    let rate = match rate {
        Rate::Fixed(rate) => rate,
        Rate::Share(_) => {
            // Every proxy has its own rate, so that each needs its own comparison.
            *direct = None;
            entry.rate
        }
    };
    let running = &entry.running;
    if direct.is_none() {
        *direct = Some(at(ORIGINS[0], &running.host, shape, rate, effort).await?);
    }
    let direct = direct.as_ref().context("no comparison")?;
    if entry.is_direct() {
        let mut run = Run::default();
        add(&mut run, direct);
        return Ok(run);
    }
    let clock = Clock::read(running, stage)?;
    let measured = at(running.target, &running.host, shape, rate, effort).await?;
    // What came before it counted has cost as well.
    let all = served(&measured)? as f64 * (1.0 + effort.warm_up.as_secs_f64() / span(effort).as_secs_f64());
    let mut run = clock.since(running, stage, all as u64)?;
    add(&mut run, &measured);
    let added = |of: fn(&ClosedReport) -> Duration| (of(&measured).as_secs_f64() - of(direct).as_secs_f64()) * 1e6;
    run.set(Figure::P50AddedUs, added(|report| report.summary.p50));
    run.set(Figure::P99AddedUs, added(|report| report.summary.p99));
    Ok(run)
}

async fn at(target: SocketAddr, host: &str, shape: &Shape, rate: f64, effort: Effort) -> anyhow::Result<ClosedReport> {
    let plan = PacedPlan {
        target,
        connections: shape.connections,
        exchange: shape.exchange(host),
        rate,
        warm_up: effort.warm_up,
        span: span(effort),
        patience: PATIENCE,
    };
    Ok(paced::run(plan).await?)
}

fn span(effort: Effort) -> Duration {
    effort.span.mul_f64(LONGER)
}

/// Clears the way, and finds out at which rate each is as busy as is asked for, where that matters.
pub(super) async fn prepare(entries: &mut [Entry], shape: &Shape, rate: Rate, stage: &Stage) -> anyhow::Result<()> {
    for entry in entries.iter() {
        take_over(&with_children(&entry.running.roots())?, true);
    }
    take_over(&[std::process::id()], true);
    if let Rate::Share(share) = rate {
        for entry in entries.iter_mut().filter(|entry| !entry.is_direct()) {
            entry.rate = busy_rate(entry, shape, share, stage).await?;
        }
    }
    Ok(())
}

/// The rate at which a proxy is busy for `share` of the time. In a closed loop requests come in crowds, which share system calls and
/// records; at a steady rate each costs more, and how much is known only at that rate.
async fn busy_rate(entry: &Entry, shape: &Shape, share: f64, stage: &Stage) -> anyhow::Result<f64> {
    let load = ClosedLoad::start(plan(&entry.running, shape)).await?;
    load.measure(SATURATION / 2).await;
    // Never more, where load and origin are the limit.
    let most = share * load.measure(SATURATION).await.rate();
    drop(load);
    let mut rate = most;
    for _ in 0..ATTEMPTS {
        let clock = Clock::read(&entry.running, stage)?;
        let effort = Effort { rounds: 1, span: SATURATION, warm_up: Duration::ZERO };
        let report = at(entry.running.target, &entry.running.host, shape, rate, effort).await?;
        let cost = clock.since(&entry.running, stage, served(&report)?)?.get(Figure::CpuUs).context("no CPU time")?;
        rate = (share * 1e6 / cost).min(most);
    }
    Ok(rate)
}
