//! As fast as it goes.

use anyhow::ensure;
use veer_load::{ClosedLoad, ClosedReport};

use super::{Clock, Effort, Entry, plan};
use crate::side_by_side::figures::{Figure, Run};
use crate::side_by_side::process::{Memory, peak_memory, with_children};
use crate::side_by_side::programs::Stage;
use crate::side_by_side::works::{Shape, Work};

pub(super) async fn run(
    entry: &mut Entry,
    shape: &Shape,
    work: Work,
    stage: &Stage,
    effort: Effort,
) -> anyhow::Result<Run> {
    let running = &entry.running;
    let load = ClosedLoad::start(plan(running, shape)).await?;
    load.measure(effort.warm_up).await;
    let clock = Clock::read(running, stage)?;
    let measured = load.measure(effort.span).await;
    let served = served(&measured)?;
    let mut run = clock.since(running, stage, served)?;
    add(&mut run, &measured);
    if !entry.is_direct() {
        let all = with_children(&running.roots())?;
        run.set(Figure::PeakMib, mib(peak_memory(&all)?));
        run.set(Figure::LargestPeakMib, mib(Memory::of(&all)?.largest_peak));
    }
    if let (Some(bytes), Some(requests)) = (work.carried(), run.get(Figure::PerCpuSecond)) {
        run.set(Figure::MibPerCpuSecond, requests * mib(bytes as u64));
    }
    Ok(run)
}

/// How many were served; an error when none was.
pub(super) fn served(measured: &ClosedReport) -> anyhow::Result<u64> {
    let served = measured.summary.requests - measured.summary.failures;
    ensure!(served > 0, "nothing was served: {:?}", measured.reasons);
    Ok(served)
}

/// What the load saw.
pub(super) fn add(run: &mut Run, measured: &ClosedReport) {
    run.set(Figure::Rate, measured.rate());
    run.set(Figure::P50Us, measured.summary.p50.as_secs_f64() * 1e6);
    run.set(Figure::P99Us, measured.summary.p99.as_secs_f64() * 1e6);
    run.failures = measured.summary.failures;
    run.reasons = measured.reasons.keys().take(3).cloned().collect();
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
