//! What peers have said, and how old it is. Kept on disk, so that a restart with dead peers loses nothing.
//!
//! Only two things take something away: the peer's own statement (an offer retracted on a synced session), and the
//! removal of its Link. Silence only ages.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use veer_core::offer::PeerGateways;
use veer_core::{ClusterName, Offer, TrustDomain};

use crate::files;
use crate::lease::{LeaseClock, PeerState};

/// Everything that one peer offers, by resource name.
pub type Offers = BTreeMap<String, Arc<Offer>>;

/// What is known of all peers. A cheap handle.
#[derive(Debug, Clone)]
pub struct PeerBook(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    peers: Mutex<BTreeMap<ClusterName, Peer>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Peer {
    said: Said,
    /// Offers and gateways as they are on disk are older than this.
    unsaved: bool,
    lease: LeaseClock,
    lease_duration: Duration,
    last_state: PeerState,
    session: Session,
}

/// What a peer said last; the content of its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Said {
    trust_domain: TrustDomain,
    #[serde(default)]
    heard: Option<SystemTime>,
    #[serde(default)]
    incarnation: Option<String>,
    #[serde(default)]
    gateways: Option<Arc<PeerGateways>>,
    #[serde(default)]
    offers: Arc<Offers>,
}

/// The session with a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// Whether it stands.
    pub connected: bool,
    /// Whether everything was read on it.
    pub synced: bool,
    /// Gateway in use, or dialled last.
    pub address: Option<SocketAddr>,
    /// Why it does not stand.
    pub last_error: Option<String>,
}

/// A peer, at one moment.
#[derive(Debug, Clone)]
pub struct PeerSnapshot {
    /// The peer.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// What is believed of it.
    pub state: PeerState,
    /// Its lease's length.
    pub lease: Duration,
    /// Wall time at which it was heard last.
    pub heard: Option<SystemTime>,
    /// Who its control plane was then.
    pub incarnation: Option<String>,
    /// Its gateways as it said.
    pub gateways: Option<Arc<PeerGateways>>,
    /// Its offers; empty once it is gone.
    pub offers: Arc<Offers>,
    /// The session with it.
    pub session: Session,
}

impl PeerBook {
    /// A book that keeps its files in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self(Arc::new(Shared { dir, peers: Mutex::default(), changed: watch::Sender::new(0) }))
    }

    /// Counts changes of what `veer-compile` has to know: offers, gateways, states, links.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// A Link is there: begins to know the peer with what its file remembers, or adapts to the Link's durations. Another trust
    /// domain is another peer. Returns what is wrong with the file, when something is.
    pub fn link(
        &self,
        cluster: &ClusterName,
        trust_domain: &TrustDomain,
        lease: Duration,
        gone_after: Duration,
        wall: SystemTime,
    ) -> Option<io::Error> {
        let now = Instant::now();
        let mut peers = self.peers();
        if let Some(peer) = peers.get_mut(cluster).filter(|peer| peer.said.trust_domain == *trust_domain) {
            peer.lease.set_durations(lease, gone_after);
            if peer.lease_duration != lease {
                peer.lease_duration = lease;
                drop(peers);
                self.bump();
            }
            return None;
        }
        let (remembered, fault) = match files::read_json::<Said>(&self.file(cluster)) {
            Ok(said) => (said.filter(|said| said.trust_domain == *trust_domain), None),
            Err(error) => (None, Some(error)),
        };
        let (said, clock) = match remembered {
            Some(said) => {
                let age = said.heard.map_or(Duration::ZERO, |heard| wall.duration_since(heard).unwrap_or_default());
                (said, LeaseClock::remembered(lease, gone_after, age, now))
            }
            None => (Said::nothing(trust_domain), LeaseClock::new(lease, gone_after)),
        };
        let last_state = clock.state(now);
        let peer =
            Peer { said, unsaved: false, lease: clock, lease_duration: lease, last_state, session: Session::default() };
        peers.insert(cluster.clone(), peer);
        drop(peers);
        self.bump();
        fault
    }

    /// The Link was removed, which is a statement: everything the peer said is forgotten, also on disk.
    pub fn unlink(&self, cluster: &ClusterName) {
        if self.peers().remove(cluster).is_some() {
            match std::fs::remove_file(self.file(cluster)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(peer = %cluster, %error, "the file of an unlinked peer could not be removed");
                }
                _ => {}
            }
            self.bump();
        }
    }

    /// Peers with a Link.
    pub fn linked(&self) -> Vec<ClusterName> {
        self.peers().keys().cloned().collect()
    }

    /// The peer said this on a synced session: takes the place of everything it said before.
    pub fn said(&self, cluster: &ClusterName, offers: Offers, gateways: Option<Arc<PeerGateways>>, wall: SystemTime) {
        self.change(cluster, |peer| {
            peer.said.heard = Some(wall);
            peer.lease.heard(Instant::now());
            // A peer that says nothing about its gateways has not said that it has none.
            let gateways = gateways.or_else(|| peer.said.gateways.clone());
            let same = peer.said.gateways == gateways && *peer.said.offers == offers;
            if !same {
                peer.said.offers = Arc::new(offers);
                peer.said.gateways = gateways;
                peer.unsaved = true;
            }
            peer.state_changed() | !same
        });
    }

    /// A ping goes out to the peer. Returns the time to the next.
    pub fn ping_sent(&self, cluster: &ClusterName, nonce: u64) -> Duration {
        self.peers().get_mut(cluster).map_or(Duration::from_secs(1), |peer| {
            peer.lease.sent(nonce, Instant::now());
            peer.lease.ping_interval()
        })
    }

    /// The peer answered a ping, and so vouches for what it said. (One that has just started and has not read its manifests
    /// refuses to answer.)
    pub fn answered(&self, cluster: &ClusterName, nonce: u64, incarnation: String, wall: SystemTime) {
        self.change(cluster, |peer| {
            if peer.said.incarnation.as_ref() != Some(&incarnation) {
                tracing::info!(peer = %cluster, incarnation, "another incarnation of the peer answers");
                peer.said.incarnation = Some(incarnation);
                peer.unsaved = true;
            }
            if peer.lease.answered(nonce) {
                peer.said.heard = Some(wall);
            }
            peer.state_changed()
        });
    }

    /// The session came, went, or failed to come.
    pub fn session(&self, cluster: &ClusterName, change: impl FnOnce(&mut Session)) {
        self.change(cluster, |peer| {
            let before = peer.session.connected;
            change(&mut peer.session);
            if before && !peer.session.connected {
                peer.lease.disconnected();
                peer.session.synced = false;
            }
            false
        });
    }

    /// All peers now.
    pub fn snapshot(&self) -> Vec<PeerSnapshot> {
        let now = Instant::now();
        self.peers().iter().map(|(cluster, peer)| peer.snapshot(cluster, now)).collect()
    }

    /// Looks at the clock: notices leases that ran out, and says when to look again.
    pub fn tick(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut peers = self.peers();
        let changed = peers.values_mut().fold(false, |changed, peer| peer.state_changed() | changed);
        let next = peers.values().filter_map(|peer| peer.lease.next_change(now)).min();
        drop(peers);
        if changed {
            self.bump();
        }
        next
    }

    /// Writes what changed to disk; `all` also writes when only the age changed, as before an orderly end.
    pub fn save(&self, all: bool) -> Vec<(ClusterName, io::Error)> {
        let mut failed = Vec::new();
        for (cluster, peer) in
            self.peers().iter_mut().filter(|(_, peer)| peer.unsaved || (all && peer.said.heard.is_some()))
        {
            match files::write_json(&self.file(cluster), &peer.said) {
                Ok(()) => peer.unsaved = false,
                Err(error) => failed.push((cluster.clone(), error)),
            }
        }
        failed
    }

    fn change(&self, cluster: &ClusterName, change: impl FnOnce(&mut Peer) -> bool) {
        let changed = self.peers().get_mut(cluster).is_some_and(change);
        if changed {
            self.bump();
        }
    }

    fn bump(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Peer>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, cluster: &ClusterName) -> PathBuf {
        // A cluster's name is one DNS label: it cannot leave the folder.
        self.0.dir.join(format!("{cluster}.json"))
    }
}

impl Said {
    fn nothing(trust_domain: &TrustDomain) -> Self {
        Self {
            trust_domain: trust_domain.clone(),
            heard: None,
            incarnation: None,
            gateways: None,
            offers: Arc::default(),
        }
    }
}

impl Peer {
    fn state_changed(&mut self) -> bool {
        let state = self.lease.state(Instant::now());
        std::mem::replace(&mut self.last_state, state) != state
    }

    fn snapshot(&self, cluster: &ClusterName, now: Instant) -> PeerSnapshot {
        let state = self.lease.state(now);
        PeerSnapshot {
            cluster: cluster.clone(),
            trust_domain: self.said.trust_domain.clone(),
            state,
            lease: self.lease_duration,
            heard: self.said.heard,
            incarnation: self.said.incarnation.clone(),
            gateways: self.said.gateways.clone(),
            offers: if state == PeerState::Gone { Arc::default() } else { Arc::clone(&self.said.offers) },
            session: self.session.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use veer_core::ObjectName;

    use super::*;

    const LEASE: Duration = Duration::from_secs(10);
    const DAY: Duration = Duration::from_secs(86_400);

    fn cart() -> Offers {
        let service = ObjectName::new("shop", "cart");
        let offer = Offer {
            service: service.clone(),
            ports: vec![],
            endpoints: vec![],
            service_tokens: vec![],
            http_routes: vec![],
            tcp_routes: vec![],
            policy: Default::default(),
        };
        BTreeMap::from([(service.to_string(), Arc::new(offer))])
    }

    fn names() -> (ClusterName, TrustDomain, String) {
        let incarnation = "u.1".to_owned();
        (ClusterName::new("east").unwrap(), TrustDomain::new("east.example").unwrap(), incarnation)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ages_and_a_restart_keeps_offers_and_age() {
        let dir = tempfile::tempdir().unwrap();
        let wall = SystemTime::UNIX_EPOCH + DAY * 1000;
        let (east, domain, incarnation) = names();
        let book = PeerBook::new(dir.path().into());
        book.link(&east, &domain, LEASE, DAY, wall);
        assert_eq!(book.snapshot()[0].state, PeerState::Unknown);
        book.said(&east, cart(), None, SystemTime::UNIX_EPOCH);
        book.ping_sent(&east, 1);
        book.answered(&east, 1, incarnation, wall);
        assert_eq!(book.snapshot()[0].state, PeerState::Fresh);
        let changes = book.changes();
        tokio::time::advance(LEASE).await;
        assert!(book.tick().is_some());
        assert!(changes.has_changed().unwrap(), "the end of a lease is a change");
        assert_eq!(book.snapshot()[0].state, PeerState::Silent);
        assert_eq!(*book.snapshot()[0].offers, cart());
        assert!(book.save(false).is_empty());

        let book = PeerBook::new(dir.path().into());
        book.link(&east, &domain, LEASE, DAY, wall + DAY / 2);
        assert_eq!(book.snapshot()[0].state, PeerState::Silent);
        assert_eq!(*book.snapshot()[0].offers, cart());
        tokio::time::advance(DAY / 2).await;
        assert_eq!(book.snapshot()[0].state, PeerState::Gone);
        assert!(book.snapshot()[0].offers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn removing_the_link_forgets_also_on_disk_and_another_trust_domain_is_another_peer() {
        let dir = tempfile::tempdir().unwrap();
        let (east, domain, _) = names();
        let book = PeerBook::new(dir.path().into());
        book.link(&east, &domain, LEASE, DAY, SystemTime::UNIX_EPOCH);
        book.said(&east, cart(), None, SystemTime::UNIX_EPOCH);
        book.save(false);
        assert!(dir.path().join("east.json").exists());

        let other = TrustDomain::new("mallory.example").unwrap();
        let restarted = PeerBook::new(dir.path().into());
        restarted.link(&east, &other, LEASE, DAY, SystemTime::UNIX_EPOCH);
        assert!(restarted.snapshot()[0].offers.is_empty());

        book.unlink(&east);
        assert!(book.snapshot().is_empty());
        assert!(!dir.path().join("east.json").exists());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_file_is_reported_and_not_fatal() {
        let dir = tempfile::tempdir().unwrap();
        let (east, domain, _) = names();
        std::fs::write(dir.path().join("east.json"), "{").unwrap();
        let book = PeerBook::new(dir.path().into());
        assert!(book.link(&east, &domain, LEASE, DAY, SystemTime::UNIX_EPOCH).is_some());
        assert_eq!(book.snapshot()[0].state, PeerState::Unknown);
    }
}
