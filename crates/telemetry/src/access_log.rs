//! The access log: one JSON object per line for each request or TCP connection. Its keys are a contract.
//!
//! A request never waits for it: entries go through a bounded channel to a thread that formats and writes, and what does
//! not fit is dropped and counted.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use crate::edge::{Direction, Protocol};
use crate::family::{Counter, counters};
use crate::flag::{Blame, Flag};
use crate::metrics::Metrics;

/// One request or TCP connection. Empty texts are left out of the line.
#[derive(Debug, Clone, Serialize)]
pub struct AccessEntry {
    /// When it began.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// Which side logged.
    pub direction: Direction,
    /// What the caller spoke.
    pub protocol: Protocol,
    /// HTTP method.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub method: String,
    /// Host that the caller named.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub host: String,
    /// Path, without query.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub path: String,
    /// HTTP status; 0 when none was sent.
    pub status: u16,
    /// What went wrong.
    pub flag: Flag,
    /// Whose fault it was.
    pub blame: Blame,
    /// First to last byte.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// Bytes of the request's body, or from the source.
    pub request_bytes: u64,
    /// Bytes of the response's body, or to the source.
    pub response_bytes: u64,
    /// Calling workload.
    #[serde(skip_serializing_if = "absent")]
    pub source_workload: Arc<str>,
    /// Its namespace.
    #[serde(skip_serializing_if = "absent")]
    pub source_namespace: Arc<str>,
    /// Its cluster.
    #[serde(skip_serializing_if = "absent")]
    pub source_cluster: Arc<str>,
    /// Its verified identity.
    #[serde(skip_serializing_if = "absent")]
    pub source_identity: Arc<str>,
    /// Service that was called.
    #[serde(skip_serializing_if = "absent")]
    pub destination_service: Arc<str>,
    /// Workload that answered.
    #[serde(skip_serializing_if = "absent")]
    pub destination_workload: Arc<str>,
    /// Its namespace.
    #[serde(skip_serializing_if = "absent")]
    pub destination_namespace: Arc<str>,
    /// Its cluster.
    #[serde(skip_serializing_if = "absent")]
    pub destination_cluster: Arc<str>,
    /// Route and rule that led there.
    #[serde(skip_serializing_if = "absent")]
    pub route: Arc<str>,
    /// Tries, the first included.
    pub attempts: u32,
    /// W3C trace id.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub trace_id: String,
    /// What to know beyond the flag, in words.
    #[serde(skip_serializing_if = "absent")]
    pub reason: Arc<str>,
}

impl AccessEntry {
    /// An entry in which nothing is said yet but this.
    pub fn new(time: SystemTime, direction: Direction, protocol: Protocol) -> Self {
        let none: Arc<str> = "".into();
        Self {
            time,
            direction,
            protocol,
            method: String::new(),
            host: String::new(),
            path: String::new(),
            status: 0,
            flag: Flag::None,
            blame: Blame::None,
            duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            source_workload: none.clone(),
            source_namespace: none.clone(),
            source_cluster: none.clone(),
            source_identity: none.clone(),
            destination_service: none.clone(),
            destination_workload: none.clone(),
            destination_namespace: none.clone(),
            destination_cluster: none.clone(),
            route: none.clone(),
            attempts: 1,
            trace_id: String::new(),
            reason: none,
        }
    }

    fn is_failure(&self) -> bool {
        self.status >= 500 || self.blame != Blame::None
    }
}

/// Where entries go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLogTarget {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// How the access log is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLogConfig {
    /// Where to. Default [`AccessLogTarget::Off`].
    pub target: AccessLogTarget,
    /// Entries that may wait for the writer. Default 4,096.
    pub capacity: usize,
    /// Share of successes that is logged, 0 to 1; failures always are. Default 1.
    pub sample: f64,
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self { target: AccessLogTarget::Off, capacity: 4096, sample: 1.0 }
    }
}

/// Takes entries. Clone it freely.
#[derive(Debug, Clone)]
pub struct AccessLog(Option<Arc<Sender>>);

#[derive(Debug)]
struct Sender {
    entries: mpsc::Sender<Message>,
    dropped: Counter,
    sample: f64,
    successes: AtomicU64,
}

/// `None` ends the writer.
type Message = Option<AccessEntry>;

impl AccessLog {
    /// Logs nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Opens the target and starts the writer. The guard writes what is left when it is dropped.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub fn start(config: &AccessLogConfig, metrics: &Metrics) -> io::Result<(Self, AccessLogGuard)> {
        let writer: Box<dyn Write + Send> =
            match &config.target {
                AccessLogTarget::Off => return Ok((Self::off(), AccessLogGuard { stop: None })),
                AccessLogTarget::Stdout => Box::new(io::stdout()),
                AccessLogTarget::File(path) => {
                    Box::new(fs::OpenOptions::new().append(true).create(true).open(path).map_err(|error| {
                        io::Error::new(error.kind(), format!("access log {}: {error}", path.display()))
                    })?)
                }
            };
        Self::start_with(writer, config, metrics)
    }

    /// Like [`Self::start`], into any writer.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start_with(
        writer: Box<dyn Write + Send>,
        config: &AccessLogConfig,
        metrics: &Metrics,
    ) -> io::Result<(Self, AccessLogGuard)> {
        let (entries, receiver) = mpsc::channel(config.capacity.max(1));
        let dropped = metrics.counter(&counters::ACCESS_LOG_DROPPED, &[]);
        let lost = dropped.clone();
        let thread =
            std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(receiver, writer, &lost))?;
        let guard = AccessLogGuard { stop: Some((entries.clone(), thread)) };
        let sample = config.sample.clamp(0.0, 1.0);
        Ok((Self(Some(Arc::new(Sender { entries, dropped, sample, successes: AtomicU64::new(0) }))), guard))
    }

    /// Whether entries go anywhere; spares the making of those that do not.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands an entry to the writer, or drops and counts it. Never waits.
    pub fn log(&self, entry: AccessEntry) {
        let Some(sender) = &self.0 else { return };
        if !entry.is_failure() && !sender.sampled() {
            return;
        }
        if sender.entries.try_send(Some(entry)).is_err() {
            sender.dropped.inc();
        }
    }
}

impl Sender {
    /// Evenly spread over the successes, without drawing lots.
    fn sampled(&self) -> bool {
        if self.sample >= 1.0 {
            return true;
        }
        let n = self.successes.fetch_add(1, Relaxed) as f64;
        (n * self.sample).floor() < ((n + 1.0) * self.sample).floor()
    }
}

/// Ends the writer when dropped, after it has written what it had been given.
#[derive(Debug)]
pub struct AccessLogGuard {
    stop: Option<(mpsc::Sender<Message>, JoinHandle<()>)>,
}

impl Drop for AccessLogGuard {
    fn drop(&mut self) {
        let Some((entries, thread)) = self.stop.take() else { return };
        // The queue may be full while the writer is at work; it gets through it unless its target hangs.
        let mut stop = None;
        for _ in 0..STOP_TRIES {
            match entries.try_send(stop) {
                Ok(()) => {
                    let _ = thread.join();
                    return;
                }
                Err(mpsc::error::TrySendError::Full(message)) => {
                    stop = message;
                    std::thread::park_timeout(STOP_WAIT);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
    }
}

const STOP_TRIES: u32 = 200;
const STOP_WAIT: Duration = Duration::from_millis(10);

fn write_all(mut entries: mpsc::Receiver<Message>, writer: Box<dyn Write + Send>, lost: &Counter) {
    let mut writer = BufWriter::with_capacity(64 * 1024, writer);
    while let Some(message) = entries.blocking_recv() {
        let mut next = Some(message);
        let mut batch = 0;
        loop {
            match next.take() {
                Some(Some(entry)) => {
                    batch += 1;
                    let written = serde_json::to_writer(&mut writer, &entry).is_ok() && writer.write_all(b"\n").is_ok();
                    if !written {
                        lost.inc();
                    }
                }
                Some(None) => {
                    let _ = writer.flush();
                    return;
                }
                None => break,
            }
            match entries.try_recv() {
                Ok(message) => next = Some(message),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        // Flushed whenever it has caught up: a line is never late by more than the burst that it came in.
        if writer.flush().is_err() {
            lost.add(batch);
        }
    }
}

fn absent(text: &Arc<str>) -> bool {
    text.is_empty()
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Rfc3339(*time))
}

/// Shows a time as `2026-01-31T23:59:59.123Z`.
pub struct Rfc3339(pub SystemTime);

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years begin in March here, so that the
/// leap day is the last of its year; eras are 400 years, 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}
