//! Why a request or a connection was answered by the proxy itself: whose fault, what the caller hears, what may be done next.

use veer_telemetry::Flag;

/// Why the proxy answers by itself. [`RequestError::verdict`] is the one place that maps it to what the caller hears.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// The request breaks HTTP's rules.
    #[error("{0}")]
    Malformed(&'static str),
    /// The request's fields or target are too large.
    #[error("the request's head is too large")]
    HeadTooLarge,
    /// No service has that name.
    #[error("no such service: {0}")]
    NoService(String),
    /// The service does not have that port.
    #[error("service {0} has no port {1}")]
    NoPort(String, u16),
    /// The control plane has not answered yet.
    #[error("nothing known of {0} yet: the control plane has not answered")]
    Unknown(String),
    /// This proxy is not ready.
    #[error("this proxy is not ready: {0}")]
    NotReady(&'static str),
    /// No rule matches.
    #[error("no route matches")]
    NoRoute,
    /// It came by a connection that was opened for another listener's hosts (RFC 9110 §15.5.20).
    #[error("the host is another listener's than that of the connection")]
    Misdirected,
    /// The rule that matches has no usable backend.
    #[error("the route has no usable backend: {0}")]
    NoBackend(String),
    /// The route says to fail.
    #[error("{1}")]
    RouteFails(u16, String),
    /// No endpoint can be used.
    #[error("no healthy endpoint: {0}")]
    NoEndpoint(String),
    /// The circuit breaker is open.
    #[error("too many requests in flight towards {0}")]
    Overflow(String),
    /// The retry budget is spent, and its policy says to tell so.
    #[error("the retry budget of {0} is spent")]
    BudgetSpent(String),
    /// No connection came to be.
    #[error("connecting failed: {0}")]
    Connect(String),
    /// The connection ended before the response's head.
    #[error("the upstream connection was lost: {0}")]
    Lost(String),
    /// The upstream broke the protocol.
    #[error("the upstream broke the protocol: {0}")]
    UpstreamProtocol(String),
    /// A time limit ran out.
    #[error("the upstream took too long")]
    Timeout,
    /// The request's body ended badly.
    #[error("the request's body ended early")]
    BodyIncomplete,
    /// A limit on requests refused it; so many milliseconds until it would pass.
    #[error("too many requests: {0}")]
    RateLimited(Box<str>, u32),
    /// Authorization refused it.
    #[error("access denied: {0}")]
    Denied(String),
}

/// What follows from a [`RequestError`].
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    /// HTTP status.
    pub status: u16,
    /// gRPC status code.
    pub grpc: u8,
    /// For log and metrics; says whose fault it is.
    pub flag: Flag,
}

impl RequestError {
    /// Status, flag and blame.
    pub fn verdict(&self) -> Verdict {
        const UNAVAILABLE: u8 = 14;
        let (status, grpc, flag) = match self {
            Self::Malformed(_) => (400, 13, Flag::DownstreamProtocol),
            Self::HeadTooLarge => (431, 8, Flag::DownstreamProtocol),
            Self::NoService(_) | Self::NoPort(..) => (404, 12, Flag::NoService),
            Self::Unknown(_) => (503, UNAVAILABLE, Flag::NoService),
            Self::NotReady(_) => (503, UNAVAILABLE, Flag::Internal),
            Self::NoRoute => (404, 12, Flag::NoRoute),
            Self::Misdirected => (421, UNAVAILABLE, Flag::NoRoute),
            Self::NoBackend(_) => (500, UNAVAILABLE, Flag::BadConfig),
            Self::RouteFails(status, _) => (*status, UNAVAILABLE, Flag::BadConfig),
            Self::NoEndpoint(_) => (503, UNAVAILABLE, Flag::NoHealthyUpstream),
            Self::Overflow(_) => (503, UNAVAILABLE, Flag::Overflow),
            Self::BudgetSpent(_) => (503, UNAVAILABLE, Flag::Overflow),
            Self::Connect(_) => (503, UNAVAILABLE, Flag::UpstreamConnectFailure),
            Self::Lost(_) => (503, UNAVAILABLE, Flag::UpstreamConnectionLost),
            Self::UpstreamProtocol(_) => (502, UNAVAILABLE, Flag::UpstreamProtocol),
            Self::Timeout => (504, 4, Flag::UpstreamTimeout),
            Self::BodyIncomplete => (400, 1, Flag::DownstreamClosed),
            Self::RateLimited(..) => (429, 8, Flag::RateLimited),
            Self::Denied(_) => (403, 7, Flag::Denied),
        };
        Verdict { status, grpc, flag }
    }
}

/// Why a proxy could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A listener could not be bound.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// A worker thread could not be started.
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
    /// There is neither a join token nor a persisted identity that still holds.
    #[error("no identity: {0}")]
    NoIdentity(String),
    /// Persisted state could not be used.
    #[error("state folder: {0}")]
    State(String),
}
