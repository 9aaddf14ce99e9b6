//! A closed loop: connections that send the next request as soon as an answer is there.
//!
//! The generator must cost less than what it measures, so it speaks to sockets directly: requests are bytes that were
//! written once, answers are read only as far as their status and their end.

mod http2;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::turn::{Fault, Message, ending};
use crate::{Failure, Summary, Tally};

/// Between attempts to open a connection anew.
const RECONNECT: Duration = Duration::from_millis(20);

/// What is asked, where, and how much of it at once.
#[derive(Debug, Clone)]
pub struct ClosedPlan {
    /// Where connections are opened.
    pub target: SocketAddr,
    /// Connections.
    pub connections: usize,
    /// What happens on each.
    pub exchange: Exchange,
    /// A new connection for every request; opening it counts as part of the request. Not over HTTP/2.
    pub reconnect: bool,
}

/// What happens on a connection, again and again.
#[derive(Debug, Clone)]
pub enum Exchange {
    /// A GET over HTTP/1.1, one at a time.
    Http1 {
        /// `Host`
        host: String,
        /// Path and query.
        path: String,
        /// Length of the body of a POST; 0: a GET.
        upload: usize,
    },
    /// GETs, or calls, over HTTP/2 with prior knowledge.
    Http2 {
        /// `:authority`
        host: String,
        /// Path and query.
        path: String,
        /// Requests in flight per connection.
        streams: usize,
        /// gRPC calls with a message of so many bytes, whose answers must end with trailers.
        grpc: Option<usize>,
    },
    /// So many bytes, which must all come back.
    Echo {
        /// Length of a message.
        bytes: usize,
    },
}

impl Exchange {
    /// What is sent one at a time; nothing for HTTP/2. `last`: the connection ends after each.
    pub(crate) fn message(&self, last: bool) -> Option<Message> {
        match self {
            Self::Http1 { host, path, upload } => Some(Message::http1(host, path, *upload, last)),
            Self::Http2 { .. } => None,
            Self::Echo { bytes } => Some(Message::echo(*bytes)),
        }
    }
}

/// A load that runs until dropped.
#[derive(Debug)]
pub struct ClosedLoad {
    tally: Arc<Mutex<Tally>>,
    _tasks: JoinSet<()>,
}

/// What became of the requests that ended within a span of time.
#[derive(Debug, Clone, PartialEq)]
pub struct ClosedReport {
    /// The span.
    pub elapsed: Duration,
    /// Counts and latencies.
    pub summary: Summary,
    /// Why requests failed, and how many each.
    pub reasons: BTreeMap<String, u64>,
}

impl ClosedReport {
    /// Served requests per second.
    pub fn rate(&self) -> f64 {
        (self.summary.requests - self.summary.failures) as f64 / self.elapsed.as_secs_f64()
    }
}

impl ClosedLoad {
    /// Opens all connections and starts. A connection that breaks later is a failed request, and opened anew.
    ///
    /// # Errors
    /// When a connection is refused.
    pub async fn start(plan: ClosedPlan) -> Result<Self, Failure> {
        let plan = Arc::new(plan);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut streams = Vec::with_capacity(plan.connections);
        for _ in 0..plan.connections {
            streams.push(connect(plan.target).await.map_err(|error| Failure::Connect(error.to_string()))?);
        }
        let mut tasks = JoinSet::new();
        let message = plan.exchange.message(plan.reconnect);
        for stream in streams {
            tasks.spawn(drive(Arc::clone(&plan), message.clone(), stream, Counter(Arc::clone(&tally))));
        }
        Ok(Self { tally, _tasks: tasks })
    }

    /// What ends from now on, for so long. Call it once before for the warm-up.
    pub async fn measure(&self, span: Duration) -> ClosedReport {
        self.take();
        let begun = Instant::now();
        tokio::time::sleep(span).await;
        let elapsed = begun.elapsed();
        let (summary, reasons) = self.take();
        ClosedReport { elapsed, summary, reasons }
    }

    /// What has ended since this was last asked, and why requests failed.
    pub fn take(&self) -> (Summary, BTreeMap<String, u64>) {
        let tally = std::mem::take(&mut *self.tally.lock().unwrap_or_else(|e| e.into_inner()));
        (tally.summary(), tally.reasons().clone())
    }
}

/// Where a connection's requests are counted. The load runs on one thread, so that the lock is never waited for.
#[derive(Clone)]
struct Counter(Arc<Mutex<Tally>>);

impl Counter {
    fn served(&self, begun: Instant) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).record(begun.elapsed());
    }

    fn failed(&self, begun: Instant, reason: String) {
        let mut tally = self.0.lock().unwrap_or_else(|e| e.into_inner());
        tally.record(begun.elapsed());
        tally.blame(reason);
    }
}

async fn drive(plan: Arc<ClosedPlan>, message: Option<Message>, mut stream: TcpStream, counter: Counter) {
    loop {
        match (&message, &plan.exchange) {
            (Some(message), _) if plan.reconnect => reconnecting(&plan, message, stream, &counter).await,
            (Some(message), _) => keeping(message, &mut stream, &counter).await,
            (None, exchange) => http2::run(&mut stream, exchange, &counter).await,
        }
        stream = loop {
            let begun = Instant::now();
            tokio::time::sleep(RECONNECT).await;
            match connect(plan.target).await {
                Ok(stream) => break stream,
                Err(error) => counter.failed(begun, Failure::Connect(error.to_string()).to_string()),
            }
        };
    }
}

/// Until the connection breaks.
async fn keeping(message: &Message, stream: &mut TcpStream, counter: &Counter) {
    let mut turn = message.turn();
    loop {
        let begun = Instant::now();
        match turn.take(stream).await {
            Ok(()) => counter.served(begun),
            Err(Fault::Refused(reason)) => counter.failed(begun, reason),
            Err(Fault::Broken(reason)) => return counter.failed(begun, reason),
        }
    }
}

/// Until a connection breaks or is refused.
async fn reconnecting(plan: &ClosedPlan, message: &Message, first: TcpStream, counter: &Counter) {
    let (mut turn, mut first) = (message.turn(), Some(first));
    loop {
        let begun = Instant::now();
        let opened = match first.take() {
            Some(stream) => Ok(stream),
            None => connect(plan.target).await,
        };
        let taken = match opened {
            Ok(mut stream) => turn.take(&mut stream).await,
            Err(error) => Err(Fault::Broken(Failure::Connect(error.to_string()).to_string())),
        };
        match taken {
            Ok(()) => counter.served(begun),
            Err(Fault::Refused(reason)) => counter.failed(begun, reason),
            Err(Fault::Broken(reason)) => return counter.failed(begun, reason),
        }
    }
}

pub(crate) async fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
