//! One request and its answer, from the first byte to the last: counted and logged exactly once, however it ends.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use veer_balance::{Outcome, Pick};
use veer_http::{Fields, Name, RequestHead};
use veer_identity::clock;
use veer_telemetry::edge::RequestDone;
use veer_telemetry::{AccessEntry, Direction, Edge, EdgeLabels, Flag};

use crate::error::RequestError;
use crate::http::Protocol;
use crate::http::body::BodyError;
use crate::http::fields::TraceId;
use crate::http::replay::Replay;
use crate::inbound::InFlight;
use crate::knowledge::ServiceView;
use crate::pool::Lease;
use crate::worker::{OpenGuard, Worker};

/// The record of one exchange. Dropping it before [`Self::finish`] means that the downstream went away.
pub struct Exchange {
    worker: Rc<Worker>,
    begun: Instant,
    direction: Direction,
    protocol: Protocol,
    /// Made only when the access log is on.
    line: Option<Box<AccessEntry>>,
    edge: Option<Edge>,
    service: Option<Rc<ServiceView>>,
    status: u16,
    flag: Flag,
    request: Replay,
    sent: u64,
    hold: Option<Hold>,
    /// Whether either side was left in the middle of a message.
    broken: bool,
    ended: bool,
}

/// What an answer holds until its last byte.
pub struct Hold {
    /// The endpoint's place.
    pub pick: Option<Pick>,
    /// The connection's place.
    pub lease: Option<Lease>,
    /// Time to the response's head.
    pub latency: Duration,
    /// What to report at the end: gRPC's outcome comes last.
    pub pending: Option<Outcome>,
    /// The workload's load.
    pub load: Option<InFlight>,
}

impl Exchange {
    /// Begins.
    pub fn begin(worker: &Rc<Worker>, direction: Direction, protocol: Protocol, head: &RequestHead) -> Box<Self> {
        let line = worker.process.telemetry.log.is_on().then(|| {
            let mut line = AccessEntry::new(clock::now(), direction, protocol.label());
            line.method = head.method_str().to_owned();
            line.path = head.path().to_owned();
            Box::new(line)
        });
        Box::new(Self {
            worker: Rc::clone(worker),
            begun: Instant::now(),
            direction,
            protocol,
            line,
            edge: None,
            service: None,
            status: 0,
            flag: Flag::None,
            request: Replay::default(),
            sent: 0,
            hold: None,
            broken: false,
            ended: false,
        })
    }

    /// When it began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// What the caller speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Adds to the access log's line, when there is one.
    pub fn note(&mut self, add: impl FnOnce(&mut AccessEntry)) {
        if let Some(line) = &mut self.line {
            add(line);
        }
    }

    /// The trace it belongs to.
    pub fn traced(&mut self, trace: TraceId) {
        self.note(|line| line.trace_id = trace.to_string());
    }

    /// The host that the caller named.
    pub fn host(&mut self, head: &RequestHead) {
        self.note(|line| line.host = String::from_utf8_lossy(head.authority().unwrap_or_default()).into_owned());
    }

    /// Where it is counted: the latest wins.
    pub fn edge(&mut self, edge: Edge) {
        self.edge = Some(edge);
    }

    /// Whom it is for: where it is counted when it reaches none of its endpoints.
    pub fn asked(&mut self, service: &Rc<ServiceView>) {
        self.service = Some(Rc::clone(service));
    }

    /// The body whose bytes are the request's.
    pub fn request_body(&mut self, body: Replay) {
        self.request = body;
    }

    /// Another try begins.
    pub fn attempt(&mut self, number: u32) {
        self.note(|line| line.attempts = number);
    }

    /// The answer's status.
    pub fn status(&mut self, status: u16) {
        self.status = status;
    }

    /// What an answer of the other proxy said of itself.
    pub fn flagged(&mut self, flag: Flag) {
        self.flag = flag;
    }

    /// The proxy answers by itself.
    pub fn failed(&mut self, error: &RequestError) {
        self.flag = error.verdict().flag;
        self.note(|line| line.reason = Arc::from(error.to_string()));
    }

    /// What is held until the last byte.
    pub fn hold(&mut self, hold: Hold) {
        self.hold = Some(hold);
    }

    /// Hands on what is held, to something that outlives the exchange.
    pub fn take_hold(&mut self) -> Option<Hold> {
        self.hold.take()
    }

    /// Keeps the worker from ending while something lives on that began with this exchange.
    pub fn open(&self) -> OpenGuard {
        self.worker.open()
    }

    /// So many bytes of the answer went out.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The answer's trailers: gRPC's outcome.
    pub fn trailers(&mut self, fields: &Fields) {
        if let Some(hold) = &mut self.hold
            && let Some(pending) = &mut hold.pending
        {
            *pending = grpc_outcome(fields).unwrap_or(*pending);
        }
    }

    /// The answer's body broke off.
    pub fn broke_off(&mut self, error: &BodyError) {
        self.flag = Flag::UpstreamConnectionLost;
        self.broken = true;
        let reason = error.to_string();
        self.note(|line| line.reason = Arc::from(reason));
        if let Some(hold) = &mut self.hold {
            hold.pending = Some(Outcome::ConnectionLost);
        }
    }

    /// The time was over while the body was under way.
    pub fn timed_out(&mut self) {
        self.flag = Flag::UpstreamTimeout;
        self.broken = true;
        if let Some(hold) = &mut self.hold {
            hold.pending = Some(Outcome::Timeout);
        }
    }

    /// The last byte is out.
    pub fn finish(&mut self) {
        self.end();
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(Hold { pick, lease, latency, pending, load: _load }) = self.hold.take() {
            if let (Some(pick), Some(outcome)) = (&pick, pending) {
                pick.report(outcome, latency, Instant::now());
            }
            if let Some(lease) = lease.filter(|_| !self.broken && self.request.ended()) {
                lease.done();
            }
        }
        let duration = self.begun.elapsed();
        if self.edge.is_none() && self.direction == Direction::Outbound {
            self.edge = Some(self.worker.service_edge(self.service.as_deref()));
        }
        if let Some(edge) = &self.edge {
            edge.request(&RequestDone {
                protocol: self.protocol.label(),
                status: self.status,
                flag: self.flag,
                duration,
                request_bytes: self.request.bytes(),
                response_bytes: self.sent,
            });
        }
        if let Some(mut line) = self.line.take() {
            line.status = self.status;
            line.flag = self.flag;
            line.blame = self.flag.blame();
            line.duration = duration;
            line.request_bytes = self.request.bytes();
            line.response_bytes = self.sent;
            if let Some(edge) = &self.edge {
                label(&mut line, edge.labels());
            }
            self.worker.process.telemetry.log.log(*line);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.broken = true;
        if self.flag == Flag::None {
            self.flag = Flag::DownstreamClosed;
            if let Some(hold) = &mut self.hold {
                // The endpoint is not to blame.
                hold.pending = None;
            }
        }
        self.end();
    }
}

/// Takes source and destination from an edge.
pub fn label(line: &mut AccessEntry, labels: &EdgeLabels) {
    line.source_workload = Arc::clone(&labels.source_workload);
    line.source_namespace = Arc::clone(&labels.source_namespace);
    line.source_cluster = Arc::clone(&labels.source_cluster);
    line.destination_service = Arc::clone(&labels.destination_service);
    line.destination_workload = Arc::clone(&labels.destination_workload);
    line.destination_namespace = Arc::clone(&labels.destination_namespace);
    line.destination_cluster = Arc::clone(&labels.destination_cluster);
}

/// How a gRPC answer is judged, from its trailers or from a head that is all there is.
pub fn grpc_outcome(fields: &Fields) -> Option<Outcome> {
    Some(match fields.get(Name::GrpcStatus)? {
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS: the server's own failures.
        b"2" | b"4" | b"13" | b"14" | b"15" => Outcome::AppError5xx,
        _ => Outcome::Success,
    })
}
