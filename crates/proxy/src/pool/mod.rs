//! Connections to endpoints, per worker: nothing here is shared between threads.
//!
//! An [`Upstream`] is one endpoint as one worker sees it. Requests share few HTTP/2 connections to it; another is opened when
//! those are busy. HTTP/1.1 connections (upgrades, applications, endpoints outside of the mesh) serve one request at a time and
//! wait in a list in between.

pub mod dial;
mod h1;
mod h2;
mod lease;
mod named;
mod sealed;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use veer_balance::{Dial, Target};
use veer_core::backend_tls::BackendTls;
use veer_core::{ClusterName, SpiffeId, TrustDomain};
use veer_identity::{PublicCertificate, Spoken, TlsStream};
use veer_net::Stream;

pub use self::dial::{DialError, Dialed, Dialer, Hop, Recipe, Via};
pub use self::h1::H1Lease;
pub use self::h2::{H2Lease, Ready};
pub use self::lease::{Answer, Lease, SendError};
use self::sealed::{Outside, Sealed};
use crate::http::transport::Transport;
use crate::recent::Recent;

/// How long an endpoint is remembered as one over whose streams much is carried.
const MUCH_TIME: Duration = Duration::from_secs(600);

/// Which endpoint, as far as connections are concerned. The token of a gateway is not part of it: it changes while
/// connections made with an older one stay good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The endpoint's cluster.
    pub cluster: ClusterName,
    /// Its address in its own network; unspecified where the gateway picks.
    pub address: IpAddr,
    /// Port of the workload.
    pub port: u16,
    /// Who answers; `None` for plaintext.
    pub identity: Option<SpiffeId>,
    /// The service token, where the gateway picks: two services may share all the rest.
    pub service: Option<Arc<str>>,
    /// TLS toward an endpoint that is not in the mesh.
    pub tls: Option<Arc<BackendTls>>,
    /// The name outside of all clusters that is resolved in place of [`Self::address`].
    pub name: Option<Arc<str>>,
}

impl Key {
    /// The key of a target by the way it is dialled; TLS toward endpoints outside of the mesh is left open.
    pub fn of(target: &Target, dial: &Dial<'_>) -> Self {
        let (port, identity) = match dial {
            Dial::Plain { address } => (address.port(), None),
            Dial::Mesh { target_port, identities, .. } | Dial::Gateway { target_port, identities, .. } => {
                (*target_port, identities.first().cloned())
            }
        };
        let service = match dial {
            Dial::Gateway { token, .. } if target.endpoint().is_none() => Some(Arc::clone(token)),
            _ => None,
        };
        let (cluster, address) = (target.key.cluster.clone(), target.key.address);
        Self { cluster, address, port, identity, service, tls: None, name: None }
    }
}

/// How an upstream is reached: changes with every new word of the control plane, without a new [`Upstream`].
#[derive(Debug, Clone)]
pub enum Reach {
    /// An endpoint outside of the mesh, or an application: in clear text, or by the TLS of [`Key::tls`].
    Plain(SocketAddr),
    /// Mutual TLS.
    Mesh(Recipe),
}

/// What happened to an upstream outside of any request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A connection ended in disorder: reset, silence, no GOAWAY.
    Lost,
    /// The peer answered a handshake: proof of the data path, whose round trip took so long.
    Proven(std::time::Duration),
}

/// Hears [`Event`]s.
pub type Listener = Rc<dyn Fn(&Key, Event)>;

/// All upstreams of a worker.
pub struct Pools {
    dialer: Dialer,
    listener: Listener,
    /// In order: what is closed in turn must not depend on the keys of a hasher, or no simulation could be repeated.
    upstreams: RefCell<BTreeMap<Key, Rc<Upstream>>>,
    jitter: RefCell<fastrand::Rng>,
    recent: Recent,
    outside: Rc<Outside>,
}

/// One endpoint as one worker sees it.
pub struct Upstream {
    key: Key,
    dialer: Dialer,
    listener: Listener,
    h2: RefCell<Vec<Rc<h2::Connection>>>,
    dialing: RefCell<Option<Rc<h2::Dialing>>>,
    idle: RefCell<Vec<h1::Idle>>,
    recent: Recent,
    used: Cell<Instant>,
    /// Where in the jitter of lifetimes this upstream stands.
    jitter: Cell<f64>,
    retired: Cell<bool>,
    /// When much was last carried over one stream.
    carried_much: Cell<Option<Instant>>,
    tls: Option<Box<Sealed>>,
}

impl Pools {
    /// Empty pools.
    pub fn new(dialer: Dialer, listener: Listener, rng: fastrand::Rng, recent: Recent) -> Self {
        Self {
            dialer,
            listener,
            upstreams: RefCell::default(),
            jitter: RefCell::new(rng),
            recent,
            outside: Rc::default(),
        }
    }

    /// What makes connections.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The upstream of the key, made on first use.
    pub fn upstream(&self, key: &Key) -> Rc<Upstream> {
        if let Some(upstream) = self.upstreams.borrow().get(key) {
            return Rc::clone(upstream);
        }
        let upstream = Rc::new(Upstream {
            key: key.clone(),
            dialer: Dialer { name: key.name.clone(), ..self.dialer.clone() },
            listener: Rc::clone(&self.listener),
            h2: RefCell::default(),
            dialing: RefCell::default(),
            idle: RefCell::default(),
            recent: self.recent.clone(),
            used: Cell::new(self.recent.now()),
            jitter: Cell::new(self.jitter.borrow_mut().f64()),
            retired: Cell::new(false),
            carried_much: Cell::new(None),
            tls: key.tls.as_ref().map(|policy| Box::new(Sealed::new(Arc::clone(policy), Rc::clone(&self.outside)))),
        });
        self.upstreams.borrow_mut().insert(key.clone(), Rc::clone(&upstream));
        upstream
    }

    /// The endpoint has gone: its connections end after what they carry.
    pub fn retire(&self, cluster: &ClusterName, address: IpAddr, identity: Option<&SpiffeId>) {
        self.upstreams.borrow_mut().retain(|key, upstream| {
            let gone = key.address == address && key.cluster == *cluster && key.identity.as_ref() == identity;
            if gone {
                upstream.retire();
            }
            !gone
        });
    }

    /// Ends connections through a gateway replica after what they carry.
    pub fn retire_gateway(&self, cluster: &ClusterName, gateway: &str) {
        for upstream in self.upstreams.borrow().values().filter(|u| u.key.cluster == *cluster) {
            upstream.retire_where(|through| through == Some(gateway));
        }
    }

    /// The own certificate was replaced: connections made with the former one end after what they carry, spread over time
    /// by their own timers. Peers of trust domains that `trusted` denies are cut at once.
    pub fn identity_changed(&self, rotated: bool, trusted: impl Fn(&TrustDomain) -> bool) {
        for upstream in self.upstreams.borrow().values() {
            let refused = upstream.key.identity.as_ref().is_some_and(|id| !trusted(&id.trust_domain));
            if refused {
                upstream.cut();
            } else if rotated {
                upstream.renew();
            }
        }
    }

    /// The certificate that is shown to backends outside of the mesh (GEP-3155). Connections made with another end after what they
    /// carry.
    pub fn show_outside(&self, certificate: Option<PublicCertificate>) {
        self.outside.show(certificate);
        for upstream in self.upstreams.borrow().values().filter(|upstream| upstream.tls.is_some()) {
            upstream.retire_where(|_| true);
            upstream.idle.borrow_mut().clear();
        }
    }

    /// Drops what was not used for long. Called from time to time.
    pub fn sweep(&self, now: Instant) {
        self.upstreams.borrow_mut().retain(|_, upstream| !upstream.sweep(now));
    }

    /// For the readable dump.
    pub fn dump(&self) -> serde_json::Value {
        let upstreams = self.upstreams.borrow();
        let mut all: Vec<_> = upstreams.values().map(|upstream| upstream.dump()).collect();
        all.sort_by_key(|value| value["endpoint"].as_str().unwrap_or_default().to_owned());
        serde_json::Value::Array(all)
    }
}

impl Upstream {
    /// Which endpoint.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// A place on an HTTP/2 connection, without waiting.
    pub fn h2_ready(&self) -> Ready {
        self.used.set(self.recent.now());
        h2::ready(self)
    }

    /// Opens a connection beside busy ones.
    pub fn open_another(self: &Rc<Self>, reach: &Reach) {
        h2::open_another(self, reach);
    }

    /// A place on an HTTP/2 connection, made if there is none. [`Reach::Plain`]: without TLS (h2c).
    ///
    /// # Errors
    /// When no connection is there and none can be made. Nothing was sent.
    pub async fn h2(self: &Rc<Self>, reach: &Reach) -> Result<Lease, DialError> {
        self.used.set(self.recent.now());
        h2::lease(self, reach).await.map(Lease::H2)
    }

    /// Much was carried over one stream: bytes like these are better off on a connection of their own, and so is who shares.
    pub fn carried_much(&self) {
        self.carried_much.set(Some(self.recent.now()));
    }

    /// Whether streams of bytes should have connections of their own.
    pub fn carries_much(&self) -> bool {
        self.carried_much.get().is_some_and(|at| self.recent.now().saturating_duration_since(at) < MUCH_TIME)
    }

    /// An HTTP/1.1 connection that waited, if there is one.
    pub fn h1_idle(self: &Rc<Self>) -> Option<Lease> {
        self.used.set(self.recent.now());
        h1::idle(self).map(Lease::H1)
    }

    /// An HTTP/1.1 connection of its own: one that waited, unless it is to be `fresh`, or a new one.
    ///
    /// # Errors
    /// When no connection is there and none can be made. Nothing was sent.
    pub async fn h1(self: &Rc<Self>, reach: &Reach, fresh: bool) -> Result<Lease, DialError> {
        self.used.set(self.recent.now());
        h1::lease(self, reach, fresh).await.map(Lease::H1)
    }

    /// Opens a connection if there is none, to learn whether the endpoint can be reached.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn probe(self: &Rc<Self>, reach: &Reach) -> Result<(), DialError> {
        match reach {
            Reach::Plain(address) => self.outside(*address, Spoken::Bytes).await.map(drop),
            Reach::Mesh(_) => h2::probe(self, reach).await,
        }
    }

    /// A connection to an endpoint outside of the mesh: as it is, or by TLS.
    ///
    /// # Errors
    /// When it cannot be made, or the policy for it is broken. Nothing was sent.
    pub async fn outside(&self, address: SocketAddr, spoken: Spoken) -> Result<Transport, DialError> {
        match &self.tls {
            None => Ok(self.dialer.tcp(address).await?.into()),
            // In a place of its own: most connections have no handshake.
            Some(sealed) => Ok(Box::pin(sealed.dial(&self.dialer, address, spoken)).await?.into()),
        }
    }

    /// A connection for bytes to an endpoint outside of the mesh by TLS; `None`: it is spoken to in clear text.
    ///
    /// # Errors
    /// As [`Self::outside`].
    pub async fn sealed_bytes(&self, address: SocketAddr) -> Result<Option<TlsStream<Stream>>, DialError> {
        match &self.tls {
            None => Ok(None),
            Some(sealed) => Box::pin(sealed.dial(&self.dialer, address, Spoken::Bytes)).await.map(Some),
        }
    }

    /// The same in clear text.
    ///
    /// # Errors
    /// As [`Self::outside`].
    pub async fn plain_bytes(&self, address: SocketAddr) -> Result<Stream, DialError> {
        self.dialer.tcp(address).await
    }

    /// Whether TLS is spoken with an endpoint outside of the mesh.
    pub fn is_sealed(&self) -> bool {
        self.tls.is_some()
    }

    fn event(&self, event: Event) {
        (self.listener)(&self.key, event);
    }

    fn retire(&self) {
        self.retired.set(true);
        self.retire_where(|_| true);
    }

    fn retire_where(&self, which: impl Fn(Option<&str>) -> bool) {
        self.h2.borrow_mut().retain(|connection| !which(connection.gateway()));
        let retired = self.retired.get();
        self.idle.borrow_mut().retain(|idle| !retired && !which(idle.gateway()));
    }

    fn cut(&self) {
        for connection in self.h2.borrow_mut().drain(..) {
            connection.cut();
        }
        self.idle.borrow_mut().clear();
    }

    fn renew(&self) {
        self.h2.borrow().iter().for_each(|connection| connection.renew());
        self.idle.borrow_mut().retain(|idle| !idle.is_mesh());
    }

    /// Whether nothing is left of it.
    fn sweep(&self, now: Instant) -> bool {
        h1::sweep(self, now);
        h2::sweep(self, now);
        self.h2.borrow().is_empty()
            && self.idle.borrow().is_empty()
            && self.dialing.borrow().is_none()
            && now.saturating_duration_since(self.used.get()) > h2::IDLE_TIME
    }

    fn dump(&self) -> serde_json::Value {
        serde_json::json!({
            "endpoint": format!("{}/{}:{}", self.key.cluster, self.key.address, self.key.port),
            "identity": self.key.identity.as_ref().map(ToString::to_string),
            "http2": self.h2.borrow().iter().map(|c| serde_json::json!({
                "streams": c.streams(),
                "gateway": c.gateway(),
            })).collect::<Vec<_>>(),
            "http1_idle": self.idle.borrow().len(),
        })
    }
}
