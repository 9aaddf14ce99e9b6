//! An open loop at next to no cost: for latencies of microseconds, where a client library would be the most of them.
//!
//! Every request has a time at which it is due and its latency counts from then, also while it waits for a free connection, so that
//! a stall is not hidden (*coordinated omission*). The clock is a timer of the kernel, which is late by microseconds where a runtime's
//! own is by a millisecond.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::closed::connect;
use crate::turn::{Fault, Message};
use crate::{ClosedReport, Exchange, Failure, Tally};

/// What is sent, where and how fast.
#[derive(Debug, Clone)]
pub struct PacedPlan {
    /// Where connections are opened.
    pub target: SocketAddr,
    /// Connections; they take turns.
    pub connections: usize,
    /// What happens on each; not HTTP/2.
    pub exchange: Exchange,
    /// Requests per second.
    pub rate: f64,
    /// How long requests become due that do not count.
    pub warm_up: Duration,
    /// How long requests become due that count.
    pub span: Duration,
    /// A request without an answer so long after the last was due has failed.
    pub patience: Duration,
}

/// Runs the plan. Requests per second of the report are those that were served by those that were due, which falls behind the plan's when the target does.
///
/// # Errors
/// When a connection is refused, or no timer can be had.
///
/// # Cancel safety
/// Dropping the future ends the run.
pub async fn run(plan: PacedPlan) -> Result<ClosedReport, Failure> {
    let message = plan.exchange.message(false).ok_or_else(|| Failure::Connect("one at a time only".to_owned()))?;
    let shared = Arc::new(Shared::default());
    let mut connections = JoinSet::new();
    for _ in 0..plan.connections {
        let stream = connect(plan.target).await.map_err(|error| Failure::Connect(error.to_string()))?;
        connections.spawn(serve(message.clone(), stream, plan.target, Arc::clone(&shared)));
    }
    let begun = Instant::now();
    let counts_from = begun + plan.warm_up;
    let total = (plan.rate * (plan.warm_up + plan.span).as_secs_f64()) as u64;
    let timer = Timer::new().map_err(|error| Failure::Connect(format!("no timer: {error}")))?;
    let mut n = 0;
    while n < total {
        let due = begun + Duration::from_secs_f64(n as f64 / plan.rate);
        timer.until(due).await.map_err(|error| Failure::Connect(format!("no timer: {error}")))?;
        // A timer that is late brings several.
        let now = Instant::now();
        while n < total {
            let due = begun + Duration::from_secs_f64(n as f64 / plan.rate);
            if due > now {
                break;
            }
            shared.add(due, due >= counts_from);
            n += 1;
        }
    }
    // What is left open when patience ends is told as failed.
    let _ = tokio::time::timeout(plan.patience, shared.all_done()).await;
    connections.shutdown().await;
    Ok(shared.report(plan.span, plan.patience))
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Work for whoever waits longest.
    work: Notify,
    none_open: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Due>,
    /// Added and not ended; those among them that count.
    open: u64,
    open_counted: u64,
    tally: Tally,
}

#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    counts: bool,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn add(&self, at: Instant, counts: bool) {
        let mut state = self.lock();
        state.queue.push_back(Due { at, counts });
        state.open += 1;
        state.open_counted += u64::from(counts);
        drop(state);
        self.work.notify_one();
    }

    async fn next(&self) -> Due {
        loop {
            if let Some(due) = self.lock().queue.pop_front() {
                return due;
            }
            self.work.notified().await;
        }
    }

    fn end(&self, due: Due, fault: Option<String>) {
        let mut state = self.lock();
        state.open -= 1;
        if due.counts {
            state.open_counted -= 1;
            state.tally.record(due.at.elapsed());
            if let Some(reason) = fault {
                state.tally.blame(reason);
            }
        }
        if state.open == 0 {
            self.none_open.notify_one();
        }
    }

    /// Once nothing is open.
    async fn all_done(&self) {
        while self.lock().open > 0 {
            self.none_open.notified().await;
        }
    }

    fn report(&self, elapsed: Duration, patience: Duration) -> ClosedReport {
        let mut state = self.lock();
        for _ in 0..std::mem::take(&mut state.open_counted) {
            state.tally.record(patience);
            state.tally.blame(Failure::Timeout.to_string());
        }
        ClosedReport { elapsed, summary: state.tally.summary(), reasons: state.tally.reasons().clone() }
    }
}

async fn serve(message: Message, mut stream: TcpStream, target: SocketAddr, shared: Arc<Shared>) {
    let mut turn = message.turn();
    loop {
        let due = shared.next().await;
        match turn.take(&mut stream).await {
            Ok(()) => shared.end(due, None),
            Err(Fault::Refused(reason)) => shared.end(due, Some(reason)),
            Err(Fault::Broken(reason)) => {
                shared.end(due, Some(reason));
                match connect(target).await {
                    Ok(fresh) => stream = fresh,
                    // The others go on.
                    Err(_) => return,
                }
            }
        }
    }
}

/// A timer of the kernel.
struct Timer(AsyncFd<std::os::fd::OwnedFd>);

impl Timer {
    #[allow(unsafe_code)]
    fn new() -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: an `OwnedFd` always gives the same descriptor, and closes it only when it is dropped.
        Ok(Self(unsafe { AsyncFd::register(timer) }?))
    }

    /// Not before a time; at once when it has passed.
    async fn until(&self, at: Instant) -> std::io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Connections get their turn all the same.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let once = Itimerspec { it_interval: zero, it_value: value };
        rustix::time::timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        let mut ready = self.0.readable().await?;
        let mut expirations = [0; 8];
        // Nothing to read is a readiness that came too early: the caller asks again.
        let _ = rustix::io::read(self.0.get_ref(), &mut expirations);
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Echoes; every `nth` message only after a wait.
    async fn echo(nth: u64, wait: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut buffer, mut n) = ([0; 256], 0);
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        n += 1;
                        if n % nth == 0 {
                            tokio::time::sleep(wait).await;
                        }
                        if stream.write_all(&buffer[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn plan(target: SocketAddr, connections: usize) -> PacedPlan {
        PacedPlan {
            target,
            connections,
            exchange: Exchange::Echo { bytes: 100 },
            rate: 1000.0,
            warm_up: Duration::from_millis(100),
            span: Duration::from_millis(500),
            patience: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn as_many_are_served_as_were_due() {
        let target = echo(u64::MAX, Duration::ZERO).await;
        let report = run(plan(target, 8)).await.unwrap();
        assert_eq!((report.summary.requests, report.summary.failures), (500, 0), "{report:?}");
        assert!((report.rate() - 1000.0).abs() < 1.0);
    }

    #[tokio::test]
    async fn a_stall_counts_against_all_that_were_due_during_it() {
        // One connection that stalls for 100 ms twice in the counted half second: a fifth of the requests or more are late.
        let target = echo(200, Duration::from_millis(100)).await;
        let report = run(plan(target, 1)).await.unwrap();
        assert_eq!(report.summary.requests, 500);
        assert!(report.summary.p99 > Duration::from_millis(50), "{report:?}");
    }

    #[tokio::test]
    async fn what_is_never_answered_is_told() {
        let target = echo(1, Duration::from_secs(60)).await;
        let report = run(PacedPlan { patience: Duration::from_millis(50), ..plan(target, 2) }).await.unwrap();
        assert_eq!((report.summary.requests, report.summary.failures), (500, 500), "{report:?}");
    }
}
