//! Following peers: one session per Link, through the peer's gateways, with a lease on its life.
//!
//! The session brings what the peer offers; pings on the same connection prove that its control plane lives. Both end with the
//! Link. Nothing that happens here takes an offer away but the peer's own word on a complete answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use veer_core::offer::PeerGateways;
use veer_core::sni::Sni;
use veer_core::{ClusterName, Known, Offer, SpiffeId};
use veer_identity::{ALPN_H2_STANDARD, ALPN_XDS, clock};
use veer_net::BoxedIo;
use veer_xds::lease::LeaseAsk;
use veer_xds::{Client, NodeInfo, SessionState};

use crate::links::Link;
use crate::peers::Offers;
use crate::plane::Plane;

/// Time for one gateway: TCP, then TLS through it.
const DIAL: Duration = Duration::from_millis(1000);
/// Offers of one peer that are looked at; more is no honest peer.
const MAX_OFFERS: usize = 20_000;

/// Follows every peer that has a Link, for ever.
pub(crate) async fn run(plane: Arc<Plane>) {
    let mut published = plane.published.subscribe();
    let mut followed: BTreeMap<ClusterName, (Link, AbortHandle)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut seeds = fastrand::Rng::with_seed(plane.config.seed);
    loop {
        let links = published.borrow_and_update().as_ref().map(|published| published.links.clone()).unwrap_or_default();
        followed.retain(|peer, (link, task)| {
            // An edited Link is another trust or another way: the session begins anew, what is known stays.
            let stays = links.get(peer) == Some(link);
            if !stays {
                task.abort();
            }
            stays
        });
        for (peer, link) in links {
            followed.entry(peer).or_insert_with(|| {
                let rng = fastrand::Rng::with_seed(seeds.u64(..));
                let task = tasks.spawn_local(follow(Arc::clone(&plane), link.clone(), rng));
                (link, task)
            });
        }
        tokio::select! {
            biased;
            changed = published.changed() => if changed.is_err() { return },
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn follow(plane: Arc<Plane>, link: Link, mut rng: fastrand::Rng) -> Infallible {
    let node = NodeInfo {
        id: format!("control/{}", plane.config.cluster),
        cluster: plane.config.cluster.to_string(),
        ..NodeInfo::default()
    };
    let (client, session) = veer_xds::client(node, rng.fork());
    let dialler = Rc::new(Dialler {
        plane: Arc::clone(&plane),
        link: link.clone(),
        next: Cell::new(0),
        last: RefCell::default(),
    });
    let dialling = Rc::clone(&dialler);
    tokio::select! {
        biased;
        never = session.run(async move || dialling.dial().await) => never,
        never = listen(&plane, &link, &client) => never,
        never = ping(&plane, &link, &client, rng) => never,
        never = watch(&plane, &link, &client, &dialler) => never,
    }
}

/// Takes what the peer says.
async fn listen(plane: &Plane, link: &Link, client: &Client) -> Infallible {
    let mut offers = client.subscribe_all::<Offer>();
    let mut gateways = client.subscribe_all::<PeerGateways>();
    loop {
        // Nothing is taken before a complete answer has come on a session of this process.
        if let Known::Present(offers) = offers.borrow() {
            let gateways = gateways.borrow();
            let own = gateways.present().and_then(|all| all.get(link.cluster.as_str())).cloned();
            plane.book.said(&link.cluster, honest(link, &offers), own, clock::now());
        }
        tokio::select! {
            biased;
            _ = offers.changed() => {}
            _ = gateways.changed() => {}
        }
    }
}

/// The offers that are what their names say.
fn honest(link: &Link, said: &Offers) -> Offers {
    let (honest, other): (Offers, Offers) = said
        .iter()
        .map(|(k, v)| (k.clone(), Arc::clone(v)))
        .partition(|(name, offer)| *name == offer.service.to_string());
    if !other.is_empty() || honest.len() > MAX_OFFERS {
        let beyond = honest.len().saturating_sub(MAX_OFFERS);
        tracing::warn!(peer = %link.cluster, misnamed = other.len(), beyond, "offers were not looked at");
    }
    honest.into_iter().take(MAX_OFFERS).collect()
}

/// Renews the lease.
async fn ping(plane: &Plane, link: &Link, client: &Client, mut rng: fastrand::Rng) -> Infallible {
    let ask =
        LeaseAsk { consumer_cluster: plane.config.cluster.to_string(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let mut states = client.states();
    loop {
        let Some(channel) = client.channel() else {
            // At once when there is a connection again: the lease may have run out meanwhile.
            if states.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            continue;
        };
        let nonce = rng.u64(..);
        let interval = plane.book.ping_sent(&link.cluster, nonce);
        let sent = tokio::time::Instant::now();
        // Longer than the interval, so that a slow answer still counts; it counts from the sending.
        match timeout(interval * 2, veer_xds::lease::ask(&channel, nonce, &ask)).await {
            Ok(Ok(grant)) => plane.book.answered(&link.cluster, nonce, grant.incarnation, clock::now()),
            Ok(Err(status)) => {
                let reason = format!("lease: {}", status.message());
                tracing::debug!(peer = %link.cluster, reason, "the peer does not vouch for what it said");
                plane.book.session(&link.cluster, |session| session.last_error = Some(reason));
            }
            Err(_) => tracing::debug!(peer = %link.cluster, "a ping was not answered in time"),
        }
        tokio::time::sleep_until(sent + interval).await;
    }
}

/// Notes how the session stands.
async fn watch(plane: &Plane, link: &Link, client: &Client, dialler: &Dialler) -> Infallible {
    let mut states = client.states();
    loop {
        let state = *states.borrow_and_update();
        let error = client.status().last_error;
        plane.book.session(&link.cluster, |session| {
            session.connected = matches!(state, SessionState::AwaitFirst | SessionState::Synced);
            session.synced = state == SessionState::Synced;
            session.address = *dialler.last.borrow();
            session.last_error = if session.connected { None } else { error };
        });
        // The reason of a failed attempt changes without the state.
        tokio::select! {
            biased;
            changed = states.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = tokio::time::sleep(Duration::from_secs(1)), if !matches!(state, SessionState::Synced) => {}
        }
    }
}

struct Dialler {
    plane: Arc<Plane>,
    link: Link,
    /// Where among the gateways to begin: at the one that worked last, past one that did not.
    next: Cell<usize>,
    last: RefCell<Option<SocketAddr>>,
}

impl Dialler {
    /// Tries every gateway once, the one that worked last first.
    async fn dial(&self) -> io::Result<BoxedIo> {
        let peer = self.plane.book.snapshot().into_iter().find(|peer| peer.cluster == self.link.cluster);
        let addresses = self.link.dial(peer.as_ref().and_then(|peer| peer.gateways.as_deref()));
        let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the Link names no gateway");
        for _ in 0..addresses.len() {
            let address = addresses[self.next.get() % addresses.len()];
            *self.last.borrow_mut() = Some(address);
            match self.dial_one(address).await {
                Ok(io) => return Ok(io),
                Err(error) => {
                    failure = io::Error::new(error.kind(), format!("gateway {address}: {error}"));
                    self.next.set(self.next.get().wrapping_add(1));
                }
            }
        }
        Err(failure)
    }

    async fn dial_one(&self, address: SocketAddr) -> io::Result<BoxedIo> {
        let late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, format!("{what} exceeded {DIAL:?}"));
        let connecting = self.plane.config.network.connect(address);
        let stream = timeout(DIAL, connecting).await.map_err(|_| late("connecting"))??;
        let tls = self.plane.identity.client_config(&[ALPN_XDS, ALPN_H2_STANDARD]);
        let sni = Sni::Control { cluster: self.link.cluster.clone() };
        // The peer's control plane and nobody else, proven by the Link's bundle before a byte is sent.
        let expected = [SpiffeId::control(self.link.spec.trust_domain.clone())];
        let handshake = timeout(DIAL, veer_identity::connect(stream, tls, &sni, &expected));
        let (stream, _) = handshake.await.map_err(|_| late("the TLS handshake"))?.map_err(io::Error::other)?;
        Ok(Box::new(stream))
    }
}
