//! Making a connection: TCP, then TLS to exactly the identity that is expected.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use veer_balance::{PathBalance, PathReplica};
use veer_core::sni::Sni;
use veer_core::{ClusterName, SpiffeId};
use veer_identity::{
    ALPN_H2, ALPN_HTTP1, ALPN_TCP, Blame, HandshakeError, Identity, RelayAlert, TlsStream, VerifiedPeer,
};
use veer_net::{ConnectOptions, Network, Stream};
use veer_telemetry::Metrics;
use veer_telemetry::family::counters;

/// TCP and TLS together. Far endpoints need three round trips; what takes longer is tried elsewhere.
pub const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Sent bytes that nobody acknowledges end the connection (RFC 5482): the kernel's part in noticing silence.
const USER_TIMEOUT: Duration = Duration::from_secs(2);

/// What is spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hop {
    /// Requests, multiplexed.
    H2,
    /// One HTTP/1.1 exchange at a time: upgrades.
    Http1,
    /// Bytes.
    Tcp,
}

impl Hop {
    fn alpn(self) -> &'static [u8] {
        match self {
            Hop::H2 => ALPN_H2,
            Hop::Http1 => ALPN_HTTP1,
            Hop::Tcp => ALPN_TCP,
        }
    }
}

/// Where to, and who must answer.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Address to connect to: the endpoint's mesh port, or a gateway replica.
    pub address: SocketAddr,
    /// The gateway replica, when there is one in between.
    pub via: Option<Via>,
    /// Server name.
    pub sni: Sni,
    /// Identities of which one must answer.
    pub expected: Arc<[SpiffeId]>,
}

/// A gateway replica, and where it is judged.
#[derive(Debug, Clone)]
pub struct Via {
    /// The peer.
    pub cluster: ClusterName,
    /// Its replicas.
    pub balance: Arc<PathBalance>,
    /// The one chosen.
    pub replica: Arc<PathReplica>,
    /// Whether it was draining when it was chosen, for want of a better one.
    pub draining: bool,
}

impl Via {
    /// Whether the replica began to drain after it was chosen.
    pub fn began_to_drain(&self) -> bool {
        !self.draining && self.replica.is_draining()
    }
}

/// Makes connections for this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// Sockets.
    pub network: Network,
    /// Source address and mark of connections to endpoints.
    pub options: ConnectOptions,
    /// Own certificate, and whom to believe.
    pub identity: Identity,
    /// Where handshakes are counted.
    pub metrics: Metrics,
    /// What is resolved for each connection in place of its address; `None`: addresses are what they are.
    pub name: Option<Arc<str>>,
}

/// A connection between two proxies.
pub struct Dialed {
    /// The encrypted stream.
    pub stream: TlsStream<Stream>,
    /// Who answered; one of those expected.
    pub peer: VerifiedPeer,
    /// Time that TCP's handshake took: one round trip.
    pub rtt: Duration,
    /// When the first of both certificates ends.
    pub ends: SystemTime,
}

/// Why there is no connection. Nothing of a request was sent in any of these cases.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// TCP failed.
    #[error("{address}: {error}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: Arc<std::io::Error>,
    },
    /// TCP did not answer in time.
    #[error("{0}: no answer within {CONNECT_TIME:?}")]
    ConnectTimeout(SocketAddr),
    /// TLS did not finish in time.
    #[error("{0}: no TLS handshake within {CONNECT_TIME:?}")]
    HandshakeTimeout(SocketAddr),
    /// TLS failed.
    #[error("{address}: {error}")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: Arc<HandshakeError>,
    },
    /// No replica of the gateways in between can be used.
    #[error("no usable gateway of cluster {0}")]
    NoGateway(String),
    /// How the backend is to be spoken to cannot be done.
    #[error("{0}")]
    Policy(Arc<str>),
    /// The task that dialled has ended.
    #[error("the dial was abandoned")]
    Abandoned,
}

impl DialError {
    /// Whom to avoid next time. `through` says whether a gateway was in between: then only TLS that failed for reasons of its
    /// own is the endpoint's fault.
    pub fn blame(&self, through: bool) -> Blame {
        match self {
            DialError::Connect { .. } | DialError::ConnectTimeout(_) if through => Blame::Path,
            DialError::Connect { .. } | DialError::ConnectTimeout(_) => Blame::Endpoint,
            // Behind a gateway that took the connection either may be silent: both are avoided ([`Dialer::dial`]).
            DialError::HandshakeTimeout(_) => Blame::Endpoint,
            DialError::Handshake { error, .. } => match error.blame() {
                Blame::Path if !through => Blame::Endpoint,
                blame => blame,
            },
            DialError::NoGateway(_) => Blame::Path,
            DialError::Policy(_) | DialError::Abandoned => Blame::Local,
        }
    }

    /// The gateway's refusal, when it is one.
    pub fn relay_alert(&self) -> Option<RelayAlert> {
        match self {
            DialError::Handshake { error, .. } => error.relay_alert(),
            _ => None,
        }
    }

    /// A short word for metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            DialError::Connect { .. } => "connect",
            DialError::ConnectTimeout(_) | DialError::HandshakeTimeout(_) => "timeout",
            DialError::Handshake { error, .. } => error.outcome(),
            DialError::NoGateway(_) => "no_gateway",
            DialError::Policy(_) => "policy",
            DialError::Abandoned => "abandoned",
        }
    }
}

impl Dialer {
    /// TCP alone, within [`CONNECT_TIME`].
    ///
    /// # Errors
    /// [`DialError::Connect`] or [`DialError::ConnectTimeout`].
    pub async fn tcp(&self, address: SocketAddr) -> Result<Stream, DialError> {
        if let Some(name) = &self.name {
            return Box::pin(self.tcp_by_name(name, address)).await;
        }
        self.tcp_to(address).await
    }

    pub(super) async fn tcp_to(&self, address: SocketAddr) -> Result<Stream, DialError> {
        let connecting = self.network.connect_with(address, self.options);
        let stream = tokio::time::timeout(CONNECT_TIME, connecting)
            .await
            .map_err(|_| DialError::ConnectTimeout(address))?
            .map_err(|error| DialError::Connect { address, error: Arc::new(error) })?;
        veer_net::set_user_timeout(&stream, USER_TIMEOUT);
        Ok(stream)
    }

    /// TCP and TLS, within [`CONNECT_TIME`] together. Not a byte of a request goes to anybody but the identities expected. The
    /// gateway in between, if there is one, is judged here; the endpoint by the caller.
    ///
    /// # Errors
    /// Why not; see [`DialError::blame`].
    pub async fn dial(&self, recipe: &Recipe, hop: Hop) -> Result<Dialed, DialError> {
        let result = self.shake_hands(recipe, hop).await;
        let outcome = result.as_ref().err().map_or("ok", DialError::outcome);
        self.metrics.counter(&counters::TLS_HANDSHAKES, &["outbound", outcome]).inc();
        if let Some(Via { cluster, balance, replica, .. }) = &recipe.via {
            self.metrics.counter(&counters::PATH_CONNECTIONS, &[cluster.as_str(), &replica.name, outcome]).inc();
            match &result {
                Ok(_) => balance.reachable(replica),
                Err(error) if error.blame(true) == Blame::Path || matches!(error, DialError::HandshakeTimeout(_)) => {
                    if replica.is_reachable() {
                        self.metrics
                            .counter(&counters::PATH_EJECTIONS, &[cluster.as_str(), &replica.name, outcome])
                            .inc();
                    }
                    balance.failed(replica, Instant::now());
                }
                // It relayed, or said why not: it is alive.
                Err(_) => balance.reachable(replica),
            }
        }
        result
    }

    async fn shake_hands(&self, recipe: &Recipe, hop: Hop) -> Result<Dialed, DialError> {
        let address = recipe.address;
        let begun = Instant::now();
        let stream = self.tcp(address).await?;
        let rtt = begun.elapsed();
        let tls = self.identity.client_config(&[hop.alpn()]).toward(address);
        let shaking = veer_identity::connect(stream, tls, &recipe.sni, &recipe.expected);
        let (stream, peer) = tokio::time::timeout_at(begun + CONNECT_TIME, shaking)
            .await
            .map_err(|_| DialError::HandshakeTimeout(address))?
            .map_err(|error| DialError::Handshake { address, error: Arc::new(error) })?;
        if stream.get_ref().1.alpn_protocol() != Some(hop.alpn()) {
            let error = HandshakeError::Protocol("the peer agreed to none of the mesh's protocols".to_owned());
            return Err(DialError::Handshake { address, error: Arc::new(error) });
        }
        let ends = peer.not_after.min(self.identity.svid().not_after);
        Ok(Dialed { stream, peer, rtt, ends })
    }
}

impl Recipe {
    /// Name of the gateway replica in between.
    pub fn gateway(&self) -> Option<Arc<str>> {
        self.via.as_ref().map(|via| Arc::clone(&via.replica.name))
    }
}
