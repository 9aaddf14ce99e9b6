//! Load that does not flatter.
//!
//! [`run`] sends requests at a fixed rate, whatever the answers do (*open loop*): every request has a time at which it is
//! due, and its latency counts from that time, so a stalled server cannot hide its stall by slowing the generator
//! (*coordinated omission*). The caller gets one [`Sample`] per request and keeps what it wants of it in a [`Tally`].
//!
//! [`ClosedLoad`] keeps a fixed number of requests in flight (*closed loop*) at next to no cost of its own. It finds out what
//! a server can do and what it costs; its latencies are those of a saturated server. [`paced::run`] is an open loop that costs as little, to find out
//! what microseconds a proxy adds.

mod client;
pub mod closed;
pub mod frames;
pub mod paced;
mod tally;
mod turn;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use client::{Client, Failure};
pub use closed::{ClosedLoad, ClosedPlan, ClosedReport, Exchange};
pub use paced::PacedPlan;
pub use tally::{Summary, Tally};
pub use turn::throw_away;

/// What is sent, where, how fast and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where connections are opened.
    pub target: SocketAddr,
    /// What is spoken on them.
    pub protocol: Protocol,
    /// Connections: the most for HTTP/1.1 (opened when needed), the exact number for HTTP/2.
    pub connections: usize,
    /// Requests per second.
    pub rate: f64,
    /// How long requests become due; the last answers are awaited beyond it.
    pub duration: Duration,
    /// A request without an answer by then has failed. Counts from when it was due.
    pub timeout: Duration,
    /// Sent in turn.
    pub requests: Vec<Request>,
}

/// The protocol between the generator and its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 with keep-alive.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// One request, to be sent many times.
#[derive(Debug, Clone)]
pub struct Request {
    /// Name of the kind of request, handed back in [`Sample::kind`].
    pub kind: Arc<str>,
    /// Method.
    pub method: Method,
    /// `Host` or `:authority`.
    pub host: Arc<str>,
    /// Path and query.
    pub path: Arc<str>,
    /// More fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Body; for gRPC with its five-byte prefix.
    pub body: Bytes,
    /// Success needs `grpc-status: 0`, in the trailers or the head.
    pub grpc: bool,
}

impl Request {
    /// A GET.
    pub fn get(kind: &str, host: &str, path: &str) -> Self {
        Self {
            kind: kind.into(),
            method: Method::GET,
            host: host.into(),
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            grpc: false,
        }
    }

    /// A unary gRPC call with an already encoded message.
    pub fn grpc(kind: &str, host: &str, path: &str, message: &[u8]) -> Self {
        let mut body = Vec::with_capacity(5 + message.len());
        body.push(0);
        body.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(message);
        Self {
            method: Method::POST,
            headers: vec![
                (http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
                (http::header::TE, HeaderValue::from_static("trailers")),
            ],
            body: body.into(),
            grpc: true,
            ..Self::get(kind, host, path)
        }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// What became of one request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The request's kind.
    pub kind: Arc<str>,
    /// When it was due, from the start of the run.
    pub due: Duration,
    /// From when it was due to the last byte of the answer, or to the failure.
    pub latency: Duration,
    /// The answer's status and body, or why there was none.
    pub outcome: Result<Answer, Failure>,
}

impl Sample {
    /// Whether the request was served: an answer below 500 (for gRPC with status 0).
    pub fn ok(&self) -> bool {
        matches!(&self.outcome, Ok(answer) if answer.ok)
    }
}

/// An answer that arrived whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Below 500, and for gRPC `grpc-status: 0`.
    pub ok: bool,
    /// The head's fields.
    pub headers: http::HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// What a failed answer says about itself: gRPC's message, or the first line of a text; at most 160 characters.
    pub fn words(&self) -> Option<String> {
        let message = self.headers.get("grpc-message").and_then(|message| message.to_str().ok());
        let line = || std::str::from_utf8(&self.body).ok()?.lines().next();
        let words = message.or_else(line)?.trim();
        (!words.is_empty()).then(|| words.chars().take(160).collect())
    }
}

/// Sends the plan's requests when they are due and hands each one's [`Sample`] to `sink`, in the order of completion.
///
/// # Cancel safety
/// Dropping the future ends the run; what is in flight is abandoned without a sample.
pub async fn run(plan: Plan, mut sink: impl FnMut(Sample)) {
    let plan = Arc::new(plan);
    let client = Client::new(plan.target, plan.protocol, plan.connections);
    let (samples_in, mut samples) = mpsc::unbounded_channel();
    let start = Instant::now();
    let schedule = tokio::spawn(send_when_due(Arc::clone(&plan), client, start, samples_in));
    while let Some(sample) = samples.recv().await {
        sink(sample);
    }
    // The channel closed because the scheduler and every request are done; a panic in it is a bug worth passing on.
    if let Err(failed) = schedule.await {
        std::panic::resume_unwind(failed.into_panic());
    }
}

async fn send_when_due(plan: Arc<Plan>, client: Client, start: Instant, samples: mpsc::UnboundedSender<Sample>) {
    let gap = 1.0 / plan.rate;
    let total = (plan.rate * plan.duration.as_secs_f64()).round() as u64;
    for n in 0..total {
        let due = Duration::from_secs_f64(gap * n as f64);
        tokio::time::sleep_until(start + due).await;
        if samples.is_closed() {
            return;
        }
        let (plan, client, samples) = (Arc::clone(&plan), client.clone(), samples.clone());
        tokio::spawn(async move {
            let request = &plan.requests[(n % plan.requests.len() as u64) as usize];
            let outcome = match tokio::time::timeout_at(start + due + plan.timeout, client.send(request)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::Timeout),
            };
            let latency = Instant::now() - (start + due);
            // The receiver only goes when the run was cancelled.
            let _ = samples.send(Sample { kind: Arc::clone(&request.kind), due, latency, outcome });
        });
    }
}

#[cfg(test)]
mod tests;
