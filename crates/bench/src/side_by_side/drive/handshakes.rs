//! Handshakes of mutual TLS as fast as they go: what the called proxy of a pair takes for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::ensure;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Clock, Effort, Entry, tls};
use crate::side_by_side::contenders::Variant;
use crate::side_by_side::figures::{Figure, Run};
use crate::side_by_side::process::{peak_memory, with_children};
use crate::side_by_side::programs::Stage;
use crate::side_by_side::works::Shape;

#[derive(Default)]
struct Count {
    done: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
}

pub(super) async fn run(
    entry: &mut Entry,
    shape: &Shape,
    resumed: bool,
    stage: &Stage,
    effort: Effort,
) -> anyhow::Result<Run> {
    let running = &entry.running;
    let classic = entry.contender.variant == Variant::Classic;
    let (_, group) = tls::Client::new(running, false, classic)?.shake_hands().await?;
    let count = Arc::new(Count::default());
    let (first_reason, mut reasons) = tokio::sync::mpsc::channel(1);
    let mut clients = JoinSet::new();
    for _ in 0..shape.connections {
        // Each keeps its own sessions.
        let client = tls::Client::new(running, resumed, classic)?;
        let (count, first_reason) = (Arc::clone(&count), first_reason.clone());
        clients.spawn(async move {
            loop {
                match client.shake_hands().await {
                    Ok((resumed, _)) => {
                        count.done.fetch_add(1, Relaxed);
                        count.resumed.fetch_add(u64::from(resumed), Relaxed);
                    }
                    Err(error) => {
                        count.failed.fetch_add(1, Relaxed);
                        let _ = first_reason.try_send(format!("{error:#}"));
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        });
    }
    tokio::time::sleep(effort.warm_up).await;
    let read = || [&count.done, &count.resumed, &count.failed].map(|count| count.load(Relaxed));
    let (clock, before, begun) = (Clock::read(running, stage)?, read(), Instant::now());
    tokio::time::sleep(effort.span).await;
    let (after, elapsed) = (read(), begun.elapsed());
    let [done, resumed, failed] = std::array::from_fn(|n| after[n] - before[n]);
    let reasons: Vec<String> = reasons.try_recv().into_iter().collect();
    ensure!(done > 0, "no handshake succeeded: {reasons:?}");
    let mut run = clock.since(running, stage, done)?;
    run.set(Figure::Rate, done as f64 / elapsed.as_secs_f64());
    run.set(Figure::Resumed, 100.0 * resumed as f64 / done as f64);
    let all = with_children(&running.roots())?;
    run.set(Figure::PeakMib, super::closed::mib(peak_memory(&all)?));
    run.failures = failed;
    run.reasons = reasons;
    run.note = group.map(|group| format!("keys exchanged by {group:?}"));
    Ok(run)
}
