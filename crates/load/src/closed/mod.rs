//! A closed loop: connections that send the next request as soon as an answer is there.
//!
//! The generator must cost less than what it measures, so it speaks to sockets directly: requests are bytes that were
//! written once, answers are read only as far as their status and their end.

mod echo;
mod http1;
mod http2;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

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
    },
    /// GETs over HTTP/2 with prior knowledge.
    Http2 {
        /// `:authority`
        host: String,
        /// Path and query.
        path: String,
        /// Requests in flight per connection.
        streams: usize,
    },
    /// So many bytes, which must all come back.
    Echo {
        /// Length of a message.
        bytes: usize,
    },
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
        for stream in streams {
            tasks.spawn(drive(Arc::clone(&plan), stream, Counter(Arc::clone(&tally))));
        }
        Ok(Self { tally, _tasks: tasks })
    }

    /// What ends from now on, for so long. Call it once before for the warm-up.
    pub async fn measure(&self, span: Duration) -> ClosedReport {
        let take = || std::mem::take(&mut *self.tally.lock().unwrap_or_else(|e| e.into_inner()));
        take();
        let begun = Instant::now();
        tokio::time::sleep(span).await;
        let elapsed = begun.elapsed();
        let tally = take();
        ClosedReport { elapsed, summary: tally.summary(), reasons: tally.reasons().clone() }
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

async fn drive(plan: Arc<ClosedPlan>, mut stream: TcpStream, counter: Counter) {
    loop {
        match &plan.exchange {
            Exchange::Http1 { host, path } => http1::run(&mut stream, host, path, &counter).await,
            Exchange::Http2 { host, path, streams } => http2::run(&mut stream, host, path, *streams, &counter).await,
            Exchange::Echo { bytes } => echo::run(&mut stream, *bytes, &counter).await,
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

async fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The end of a connection as a reason.
fn broken(read: std::io::Result<usize>) -> String {
    match read {
        Ok(_) => Failure::Broken("connection closed".to_owned()).to_string(),
        Err(error) => Failure::Broken(error.to_string()).to_string(),
    }
}
