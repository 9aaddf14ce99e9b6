//! Why a request or a connection was answered by the proxy itself: whose fault, what the caller hears, what may be done next.

use std::fmt;

use http::StatusCode;

/// What ended an exchange, in Envoy's words where it has one. The text is a contract of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flag {
    /// Nothing happened that needs a flag.
    None,
    /// No endpoint can be used.
    NoHealthyUpstream,
    /// Connecting failed.
    UpstreamConnectFailure,
    /// The connection was lost after something was sent.
    UpstreamConnectionLost,
    /// The upstream took too long.
    UpstreamTimeout,
    /// A limit towards the upstream is reached.
    UpstreamOverflow,
    /// No route matched.
    NoRoute,
    /// The route leads to nothing that could answer.
    NoBackend,
    /// The downstream went away.
    DownstreamClosed,
    /// A rate limit refused it.
    RateLimited,
    /// Authorization refused it.
    Denied,
    /// No such service.
    NoService,
    /// The downstream did not speak the protocol.
    DownstreamProtocol,
    /// The upstream did not speak the protocol.
    UpstreamProtocol,
}

impl Flag {
    /// As in the access log, metrics and the `veer-error` field; `-` for none.
    pub const fn as_str(self) -> &'static str {
        match self {
            Flag::None => "-",
            Flag::NoHealthyUpstream => "UH",
            Flag::UpstreamConnectFailure => "UF",
            Flag::UpstreamConnectionLost => "UC",
            Flag::UpstreamTimeout => "UT",
            Flag::UpstreamOverflow => "UO",
            Flag::NoRoute => "NR",
            Flag::NoBackend => "NB",
            Flag::DownstreamClosed => "DC",
            Flag::RateLimited => "RL",
            Flag::Denied => "RBAC",
            Flag::NoService => "NC",
            Flag::DownstreamProtocol => "DPE",
            Flag::UpstreamProtocol => "UPE",
        }
    }

    /// Reads [`Self::as_str`].
    pub fn from_text(text: &str) -> Option<Self> {
        use Flag::*;
        [
            NoHealthyUpstream,
            UpstreamConnectFailure,
            UpstreamConnectionLost,
            UpstreamTimeout,
            UpstreamOverflow,
            NoRoute,
            NoBackend,
            DownstreamClosed,
            RateLimited,
            Denied,
            NoService,
            DownstreamProtocol,
            UpstreamProtocol,
        ]
        .into_iter()
        .find(|flag| flag.as_str() == text)
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// Nobody's.
    None,
    /// The caller's.
    Downstream,
    /// The callee's, or the way to it.
    Upstream,
    /// This proxy's or its configuration's.
    Local,
    /// The control plane's: it did not say what was needed.
    ControlPlane,
}

impl Blame {
    /// As in the access log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Blame::None => "none",
            Blame::Downstream => "downstream",
            Blame::Upstream => "upstream",
            Blame::Local => "local",
            Blame::ControlPlane => "control-plane",
        }
    }
}

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
    /// The rule that matches has no usable backend.
    #[error("the route has no usable backend: {0}")]
    NoBackend(String),
    /// The route says to fail.
    #[error("{1}")]
    RouteFails(StatusCode, String),
    /// No endpoint can be used.
    #[error("no healthy endpoint: {0}")]
    NoEndpoint(String),
    /// The circuit breaker is open.
    #[error("too many requests in flight towards {0}")]
    Overflow(String),
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
    /// Authorization refused it.
    #[error("access denied: {0}")]
    Denied(String),
}

/// What follows from a [`RequestError`].
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    /// HTTP status.
    pub status: StatusCode,
    /// gRPC status code.
    pub grpc: u8,
    /// For log and metrics.
    pub flag: Flag,
    /// Whose fault.
    pub blame: Blame,
}

impl RequestError {
    /// Status, flag and blame.
    pub fn verdict(&self) -> Verdict {
        const UNAVAILABLE: u8 = 14;
        let (status, grpc, flag, blame) = match self {
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, 13, Flag::DownstreamProtocol, Blame::Downstream),
            Self::HeadTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, 8, Flag::DownstreamProtocol, Blame::Downstream)
            }
            Self::NoService(_) | Self::NoPort(..) => (StatusCode::NOT_FOUND, 12, Flag::NoService, Blame::Downstream),
            Self::Unknown(_) => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Flag::NoService, Blame::ControlPlane),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Flag::NoHealthyUpstream, Blame::Local),
            Self::NoRoute => (StatusCode::NOT_FOUND, 12, Flag::NoRoute, Blame::Local),
            Self::NoBackend(_) => (StatusCode::INTERNAL_SERVER_ERROR, UNAVAILABLE, Flag::NoBackend, Blame::Local),
            Self::RouteFails(status, _) => (*status, UNAVAILABLE, Flag::NoRoute, Blame::Local),
            Self::NoEndpoint(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Flag::NoHealthyUpstream, Blame::Upstream)
            }
            Self::Overflow(_) => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Flag::UpstreamOverflow, Blame::Upstream),
            Self::Connect(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Flag::UpstreamConnectFailure, Blame::Upstream)
            }
            Self::Lost(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, Flag::UpstreamConnectionLost, Blame::Upstream)
            }
            Self::UpstreamProtocol(_) => {
                (StatusCode::BAD_GATEWAY, UNAVAILABLE, Flag::UpstreamProtocol, Blame::Upstream)
            }
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, 4, Flag::UpstreamTimeout, Blame::Upstream),
            Self::BodyIncomplete => (StatusCode::BAD_REQUEST, 1, Flag::DownstreamClosed, Blame::Downstream),
            Self::Denied(_) => (StatusCode::FORBIDDEN, 7, Flag::Denied, Blame::Downstream),
        };
        Verdict { status, grpc, flag, blame }
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
