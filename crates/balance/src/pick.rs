//! A request's hold on an endpoint, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;
use veer_core::names::ClusterName;

use crate::clock::Micros;
use crate::service::ServiceBalance;
use crate::target::{EndpointKey, Target};

/// How a try ended, as far as the endpoint is to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An answer that is no server error.
    Success,
    /// 5xx made by the application.
    AppError5xx,
    /// An error made by the callee's proxy: the application did not answer.
    ProxyError,
    /// The connection broke under the request.
    ConnectionLost,
    /// No answer in time.
    Timeout,
    /// No connection: not reachable, or not who was expected.
    ConnectFailed,
    /// Says nothing about the endpoint: the caller went away, or the path (a gateway) is to blame.
    Cancelled,
}

/// Nobody to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no endpoint ({reason}): {known} known, {ejected} ejected, {unreachable} unreachable")]
pub struct NoEndpoint {
    /// Why.
    pub reason: NoEndpointReason,
    /// Endpoints known, in all clusters that may serve.
    pub known: usize,
    /// Of these, ejected for failures.
    pub ejected: usize,
    /// Of these, not reachable.
    pub unreachable: usize,
}

/// Why there was nobody to send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoEndpointReason {
    /// No endpoint is known that is ready.
    #[error("none known")]
    Empty,
    /// The circuit is open: a limit on requests in flight is reached.
    #[error("circuit open")]
    Overflow,
    /// All that could serve were excluded by the caller; one of them may be asked again.
    #[error("all tried")]
    Excluded,
}

/// A request's hold on an endpoint: it counts as in flight until this is dropped.
#[derive(Debug)]
#[must_use = "dropping a pick ends the request's hold on the endpoint"]
pub struct Pick {
    pub(crate) balance: Arc<ServiceBalance>,
    pub(crate) target: Arc<Target>,
    started: Micros,
    panic: bool,
}

impl Pick {
    /// Of a target that was entered.
    pub(crate) fn new(balance: Arc<ServiceBalance>, target: Arc<Target>, started: Micros, panic: bool) -> Self {
        target.stats.silence.asked(started);
        Self { balance, target, started, panic }
    }

    /// Where to.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The endpoint's key, to exclude it from the next pick.
    pub fn key(&self) -> &EndpointKey {
        &self.target.key
    }

    /// The endpoint's cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.target.key.cluster
    }

    /// Whether nothing fit was left, so that an unfit endpoint is tried rather than none.
    pub fn is_panic(&self) -> bool {
        self.panic
    }

    /// The application began to answer; how the try went is reported later.
    pub fn answered(&self) {
        self.target.stats.answered(&self.balance.events);
    }

    /// Says how the try went, and how long until the response's head. May be said again when the body breaks later; the pick stays
    /// held. Without a report the endpoint is not judged.
    pub fn report(&self, outcome: Outcome, latency: Duration, now: Instant) {
        self.balance.report(&self.target, self.started, outcome, latency, now);
    }

    /// Says how the try went and lets go.
    pub fn finish(self, outcome: Outcome, latency: Duration, now: Instant) {
        self.report(outcome, latency, now);
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.target.stats.silence.given_up(self.started);
        self.target.stats.in_flight.fetch_sub(1, Relaxed);
        self.balance.in_flight.fetch_sub(1, Relaxed);
    }
}
