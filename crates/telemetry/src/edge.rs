//! Edges: everything that is counted about traffic from one source to one destination.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::flag::Flag;
use crate::histogram::Histogram;

/// Which side of the mesh counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The callee's proxy.
    Inbound,
    /// The caller's proxy.
    Outbound,
}

impl Direction {
    /// The word in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

/// What is spoken on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Protocol {
    /// HTTP/1.
    Http1 = 1,
    /// HTTP/2.
    Http2 = 2,
    /// gRPC.
    Grpc = 3,
    /// Bytes.
    Tcp = 4,
}

impl Protocol {
    const ALL: [Protocol; 4] = [Protocol::Http1, Protocol::Http2, Protocol::Grpc, Protocol::Tcp];

    /// The word in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
            Protocol::Grpc => "grpc",
            Protocol::Tcp => "tcp",
        }
    }
}

/// Why a request was tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RetryReason {
    /// The connection was lost after something had been sent.
    ConnectionLost,
    /// One try took too long.
    Timeout,
    /// A proxy on the other side answered with an error of its own.
    ProxyError,
    /// The route retries this response code.
    Code,
}

impl RetryReason {
    const ALL: [RetryReason; 4] =
        [RetryReason::ConnectionLost, RetryReason::Timeout, RetryReason::ProxyError, RetryReason::Code];

    /// The word in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            RetryReason::ConnectionLost => "connection_lost",
            RetryReason::Timeout => "timeout",
            RetryReason::ProxyError => "proxy_error",
            RetryReason::Code => "code",
        }
    }
}

/// Labels of every traffic series. Empty where nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeLabels {
    /// Who counted.
    pub direction: Direction,
    /// Calling workload.
    pub source_workload: Arc<str>,
    /// Its namespace.
    pub source_namespace: Arc<str>,
    /// Its cluster.
    pub source_cluster: Arc<str>,
    /// Service that was called: its host.
    pub destination_service: Arc<str>,
    /// Workload that answered.
    pub destination_workload: Arc<str>,
    /// Its namespace.
    pub destination_namespace: Arc<str>,
    /// Its cluster.
    pub destination_cluster: Arc<str>,
}

impl EdgeLabels {
    /// Names and values in the order in which they are exposed.
    pub fn pairs(&self) -> [(&'static str, &str); 8] {
        [
            ("direction", self.direction.as_str()),
            ("source_workload", &self.source_workload),
            ("source_namespace", &self.source_namespace),
            ("source_cluster", &self.source_cluster),
            ("destination_service", &self.destination_service),
            ("destination_workload", &self.destination_workload),
            ("destination_namespace", &self.destination_namespace),
            ("destination_cluster", &self.destination_cluster),
        ]
    }
}

/// A handle to the counters of one edge. Clone it freely, keep it as long as the edge is used; some minutes after the last
/// handle is gone the series disappear.
#[derive(Clone)]
pub struct Edge(pub(crate) Arc<Series>);

impl Edge {
    /// Counts a finished request. No lock, no look-up, no allocation.
    pub fn request(&self, done: &RequestDone) {
        let series = &*self.0;
        series.statuses.add(done.protocol, done.status, done.flag);
        series.duration.observe(done.duration);
        series.request_bytes.fetch_add(done.request_bytes, Relaxed);
        series.response_bytes.fetch_add(done.response_bytes, Relaxed);
    }

    /// Counts a retry after a try on this edge failed.
    pub fn retry(&self, reason: RetryReason) {
        self.0.retries[reason as usize].fetch_add(1, Relaxed);
    }

    /// Counts a request that was led elsewhere because nothing had been sent on this edge.
    pub fn reroute(&self) {
        self.0.reroutes.fetch_add(1, Relaxed);
    }

    /// Counts a TCP connection as opened now, and as open until the guard is dropped.
    #[must_use = "the connection counts as closed when the guard is dropped"]
    pub fn tcp_open(&self) -> TcpOpen {
        self.0.tcp_total.fetch_add(1, Relaxed);
        self.0.tcp_open.fetch_add(1, Relaxed);
        TcpOpen(self.clone())
    }

    /// Counts bytes of a TCP connection, from and to the source.
    pub fn tcp_bytes(&self, from_source: u64, to_source: u64) {
        self.0.tcp_from_source.fetch_add(from_source, Relaxed);
        self.0.tcp_to_source.fetch_add(to_source, Relaxed);
    }

    /// The labels.
    pub fn labels(&self) -> &EdgeLabels {
        &self.0.labels
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Edge").field(&self.0.labels).finish()
    }
}

/// A finished request.
#[derive(Debug, Clone, Copy)]
pub struct RequestDone {
    /// What the caller spoke.
    pub protocol: Protocol,
    /// HTTP status, for gRPC as well; 0 when none was sent.
    pub status: u16,
    /// What went wrong.
    pub flag: Flag,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
}

/// An open TCP connection; counts as closed when dropped.
#[derive(Debug)]
pub struct TcpOpen(Edge);

impl Drop for TcpOpen {
    fn drop(&mut self) {
        self.0.0.tcp_open.fetch_sub(1, Relaxed);
    }
}

/// The counters behind an [`Edge`].
pub(crate) struct Series {
    pub(crate) labels: EdgeLabels,
    pub(crate) statuses: Statuses,
    pub(crate) duration: Histogram,
    pub(crate) request_bytes: AtomicU64,
    pub(crate) response_bytes: AtomicU64,
    pub(crate) retries: [AtomicU64; RetryReason::ALL.len()],
    pub(crate) reroutes: AtomicU64,
    pub(crate) tcp_total: AtomicU64,
    pub(crate) tcp_open: AtomicI64,
    pub(crate) tcp_from_source: AtomicU64,
    pub(crate) tcp_to_source: AtomicU64,
}

impl Series {
    pub(crate) fn new(labels: EdgeLabels) -> Self {
        Self {
            labels,
            statuses: Statuses::default(),
            duration: Histogram::default(),
            request_bytes: AtomicU64::default(),
            response_bytes: AtomicU64::default(),
            retries: Default::default(),
            reroutes: AtomicU64::default(),
            tcp_total: AtomicU64::default(),
            tcp_open: AtomicI64::default(),
            tcp_from_source: AtomicU64::default(),
            tcp_to_source: AtomicU64::default(),
        }
    }

    /// Retries counted so far, by reason.
    pub(crate) fn retries(&self) -> impl Iterator<Item = (RetryReason, u64)> {
        RetryReason::ALL.into_iter().map(|reason| (reason, self.retries[reason as usize].load(Relaxed)))
    }
}

/// Requests by protocol, status and flag.
///
/// An edge sees few of the combinations, so they are a short list that grows at its end: the first that was seen, nearly
/// always the one that succeeds, is found at once. What does not fit (nobody's normal life) goes through a lock.
#[derive(Default)]
pub(crate) struct Statuses {
    slots: [Slot; SLOTS],
    rest: Mutex<BTreeMap<u32, u64>>,
}

const SLOTS: usize = 12;

#[derive(Default)]
struct Slot {
    /// 0: free.
    key: AtomicU32,
    count: AtomicU64,
}

impl Statuses {
    fn add(&self, protocol: Protocol, status: u16, flag: Flag) {
        // Never 0, because no protocol is.
        let key = u32::from(status) << 16 | (flag as u32) << 8 | protocol as u32;
        for slot in &self.slots {
            let found = match slot.key.load(Ordering::Acquire) {
                0 => match slot.key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => key,
                    Err(taken) => taken,
                },
                taken => taken,
            };
            if found == key {
                slot.count.fetch_add(1, Relaxed);
                return;
            }
        }
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    /// Protocol, status, flag and number of each combination seen.
    pub(crate) fn snapshot(&self) -> Vec<(Protocol, u16, Flag, u64)> {
        let slots = self.slots.iter().map(|slot| (slot.key.load(Ordering::Acquire), slot.count.load(Relaxed)));
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        slots.chain(rest.iter().map(|(key, count)| (*key, *count))).filter_map(read).collect()
    }
}

fn read((key, count): (u32, u64)) -> Option<(Protocol, u16, Flag, u64)> {
    let protocol = Protocol::ALL.into_iter().find(|protocol| *protocol as u32 == key & 0xff)?;
    let flag = *Flag::ALL.get((key >> 8 & 0xff) as usize)?;
    Some((protocol, (key >> 16) as u16, flag, count))
}
