//! One connection from its first byte to where it goes: read the ClientHello, decide, dial. What follows is in `pass`.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use veer_net::{Listener, Prefixed, Stream, set_keepalive};

use super::Shared;
use super::admission::Admitted;
use super::metrics::Meters;
use super::pass::{Passing, Unanswered, first_answer, pass};
use super::replica::{InUse, Replica, in_order};
use super::table::{Destination, Egress, Peer, PeerPermit, Refusal};
use crate::client_hello::{Alert, ClientHello, MAX_BYTES, Progress, parse};
use crate::tcp::{Cut, Direction};

/// Addresses that are tried for one connection. The caller's own patience is about a second, so more would be tried for
/// nobody.
const ATTEMPTS: usize = 3;

/// Which of the gateway's two doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Peers' callers come in.
    Public,
    /// This cluster's callers go out.
    Egress,
}

/// One thread's share of the gateway: what its connections have in common.
pub(crate) struct Worker {
    pub(super) shared: Arc<Shared>,
    /// Fired when the drain is over.
    pub(super) cut: Cut,
    peers: RefCell<Vec<(Weak<Peer>, Cut)>>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self { shared, cut: Cut::default(), peers: RefCell::default() })
    }

    /// Fired when the drain is over, or when nothing is offered to the peer any more. One task waits for that, not each
    /// connection.
    fn cut_of(self: &Rc<Self>, peer: &Arc<Peer>) -> Cut {
        let mut peers = self.peers.borrow_mut();
        if let Some((_, cut)) = peers.iter().find(|(known, _)| Weak::as_ptr(known) == Arc::as_ptr(peer)) {
            return cut.clone();
        }
        let cut = Cut::default();
        peers.retain(|(known, _)| known.strong_count() > 0);
        peers.push((Arc::downgrade(peer), cut.clone()));
        let (all, peer, firing) = (self.cut.clone(), Arc::clone(peer), cut.clone());
        tokio::task::spawn_local(async move {
            all.unless(pin!(peer.revoked())).await;
            firing.fire();
        });
        cut
    }
}

/// Accepts until the drain begins. Every connection holds a `busy` while it lives. Needs a [`tokio::task::LocalSet`]
/// or a [`tokio::runtime::LocalRuntime`] around it.
///
/// # Errors
/// When the listening socket breaks.
pub(crate) async fn accept_loop(
    worker: Rc<Worker>,
    listener: Listener,
    side: Side,
    busy: mpsc::Sender<()>,
) -> io::Result<()> {
    let mut rng = veer_net::rng();
    let shared = &worker.shared;
    let drained = shared.drain.started();
    let mut drained = pin!(drained);
    loop {
        let (stream, source) = tokio::select! {
            biased;
            _ = drained.as_mut() => return Ok(()),
            accepted = listener.accept() => accepted?,
        };
        match shared.admission(side).enter(source.ip()) {
            Ok(admitted) => {
                let connection = Connection { worker: Rc::clone(&worker), side, rng: rng.fork() };
                // In a place of its own: what finding the way takes is not held while bytes are relayed.
                let finding: Finding = Box::pin(connection.begin(stream, admitted));
                let busy = busy.clone();
                tokio::task::spawn_local(async move {
                    if let Some(passing) = finding.await {
                        pass(passing).await;
                    }
                    drop(busy);
                });
            }
            Err(full) => {
                shared.metrics.refused(side, full.reason());
                say_over_limit(stream);
            }
        }
    }
}

type Finding = Pin<Box<dyn Future<Output = Option<Passing>>>>;

/// Tells without waiting: over the limit nobody gets a task.
fn say_over_limit(stream: Stream) {
    if let Some(tcp) = stream.as_tcp() {
        // A fresh socket has room for seven bytes; what the caller sent unread may turn the close into a reset after
        // it.
        let _ = tcp.try_write(&Alert::AccessDenied.record());
    }
}

struct Connection {
    worker: Rc<Worker>,
    side: Side,
    rng: fastrand::Rng,
}

/// A way that was found.
struct Way {
    stream: Stream,
    meters: Arc<Meters>,
    cut: Cut,
    held: Held,
}

/// Everything that is held while a way is used; counts are kept by dropping it.
#[derive(Default)]
pub(super) struct Held {
    peer: Option<PeerPermit>,
    _in_use: Option<InUse>,
    _control: Option<tokio::sync::OwnedSemaphorePermit>,
    _admitted: Option<Admitted>,
}

impl Held {
    /// Whether nothing is offered any more to the peer whose connection it is.
    pub(super) fn is_revoked(&self) -> bool {
        self.peer.as_ref().is_some_and(PeerPermit::is_revoked)
    }
}

impl Connection {
    /// Finds the way and brings the first answer.
    async fn begin(mut self, stream: Stream, mut admitted: Admitted) -> Option<Passing> {
        let mut client = Prefixed::new(stream);
        let reading = read_hello(&mut client, self.worker.shared.config.hello_time);
        let read = self.worker.cut.unless(pin!(reading)).await?;
        let hello = match read {
            Ok(hello) => hello,
            Err(Unread::Gone) => return None,
            Err(Unread::Refused(refusal)) => {
                self.refuse(client, refusal).await;
                return None;
            }
        };
        admitted.understood();
        let mut way = match self.find_way(&hello).await {
            Ok(way) => way,
            Err(refusal) => {
                self.refuse(client, refusal).await;
                return None;
            }
        };
        way.held._admitted = Some(admitted);
        for stream in [client.get_ref(), &way.stream] {
            // The ends find out by themselves when the other is gone; this only frees what nobody uses any more.
            set_keepalive(stream, Duration::from_secs(60), Duration::from_secs(15), 4);
        }
        let (client, hello) = client.into_parts();
        let mut client = Prefixed::new(client);
        let open = way.meters.open();
        let answering = first_answer(&mut client, &mut way.stream, &hello, self.worker.shared.config.answer_time);
        let answered = way.cut.unless(pin!(answering)).await?;
        match answered {
            Ok(answer) => {
                way.meters.moved(self.side, Direction::Up, hello.len() as u64);
                Some(Passing {
                    client,
                    upstream: Prefixed::with_prefix(way.stream, answer),
                    idle: self.worker.shared.config.idle,
                    side: self.side,
                    cut: way.cut,
                    held: way.held,
                    open,
                })
            }
            Err(Unanswered::ClientGone) => {
                way.meters.ended("caller_gone");
                None
            }
            Err(Unanswered::ByUpstream) => {
                way.meters.ended(Refusal::NoAnswer.reason());
                self.refuse(client, Refusal::NoAnswer).await;
                None
            }
        }
    }

    /// Sends the alert and closes.
    async fn refuse(&self, client: Prefixed<Stream>, refusal: Refusal) {
        tracing::debug!(side = ?self.side, peer = ?client.get_ref().peer_addr().ok(), %refusal, "refused a connection");
        self.worker.shared.metrics.refused(self.side, refusal.reason());
        close_with(client, refusal.alert()).await;
    }

    async fn find_way(&mut self, hello: &ClientHello) -> Result<Way, Refusal> {
        let shared = Arc::clone(&self.worker.shared);
        let table = shared.table.load_full().ok_or(Refusal::NotReady)?;
        if self.side == Side::Egress {
            let egress = table.egress(hello)?;
            return self.way_out(&egress).await;
        }
        match table.inbound(hello)? {
            Destination::Control => {
                let permits = Arc::clone(&shared.control_permits);
                let permit = permits.try_acquire_owned().map_err(|_| Refusal::ControlLimit)?;
                let (stream, _) = self.dial_any(&table.control, "/control").await?;
                let held = Held { _control: Some(permit), ..Held::default() };
                Ok(Way { stream, meters: shared.metrics.control(), cut: self.worker.cut.clone(), held })
            }
            Destination::Endpoint { peer, endpoint } => self.way_in(peer, &[endpoint]).await,
            Destination::Service { peer, endpoints } => self.way_in(peer, &endpoints).await,
        }
    }

    /// To one of the endpoints, for a peer.
    async fn way_in(&mut self, peer: Arc<Peer>, endpoints: &[Arc<Replica>]) -> Result<Way, Refusal> {
        let meters = self.worker.shared.metrics.of_peer(&peer.name);
        let entered = peer.enter();
        let found = match entered {
            Ok(permit) => {
                self.dial_any(endpoints, peer.name.as_str()).await.map(|(stream, in_use)| (stream, in_use, permit))
            }
            Err(refusal) => Err(refusal),
        };
        match found {
            Ok((stream, in_use, permit)) => {
                let held = Held { peer: Some(permit), _in_use: Some(in_use), ..Held::default() };
                Ok(Way { stream, meters, cut: self.worker.cut_of(&peer), held })
            }
            Err(refusal) => {
                self.worker.shared.metrics.relay_failed(&peer.name, refusal.reason());
                Err(refusal)
            }
        }
    }

    /// To one of a peer's gateways: those in the rotation by weight, those that rest or drain only when there is no
    /// other.
    async fn way_out(&mut self, egress: &Egress) -> Result<Way, Refusal> {
        let meters = self.worker.shared.metrics.of_peer(&egress.cluster);
        let now = Instant::now();
        let mut order = in_order(&egress.gateways, |g| &g.replica, |g| g.weight, now, &mut self.rng);
        order.sort_by_key(|index| egress.gateways[*index].draining);
        for index in order.into_iter().take(ATTEMPTS) {
            let gateway = &egress.gateways[index];
            let in_use = gateway.replica.take();
            let dialled = self.dial(&gateway.replica).await;
            let (cluster, name) = (egress.cluster.as_str(), &*gateway.name);
            self.worker.shared.metrics.path_dialled(
                cluster,
                name,
                dialled.as_ref().map(|_| ()).map_err(|failed| failed.ejected),
            );
            if let Ok(stream) = dialled {
                let held = Held { _in_use: Some(in_use), ..Held::default() };
                return Ok(Way { stream, meters, cut: self.worker.cut.clone(), held });
            }
        }
        self.worker.shared.metrics.relay_failed(&egress.cluster, Refusal::Unreachable.reason());
        Err(Refusal::Unreachable)
    }

    async fn dial_any(&mut self, replicas: &[Arc<Replica>], what: &str) -> Result<(Stream, InUse), Refusal> {
        let order = in_order(replicas, |r| r, |_| 1, Instant::now(), &mut self.rng);
        for index in order.into_iter().take(ATTEMPTS) {
            let in_use = replicas[index].take();
            match self.dial(in_use.replica()).await {
                Ok(stream) => return Ok((stream, in_use)),
                Err(failed) => {
                    self.worker.shared.metrics.dial_failed(what);
                    tracing::debug!(address = %replicas[index].address, error = %failed.error, "cannot reach");
                }
            }
        }
        Err(Refusal::Unreachable)
    }

    async fn dial(&self, replica: &Replica) -> Result<Stream, DialFailed> {
        let connecting = self
            .worker
            .shared
            .config
            .network
            .connect_with(replica.address, self.worker.shared.config.connect_options());
        let dialled = timeout(self.worker.shared.config.dial_time, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match dialled {
            Ok(stream) => {
                replica.succeeded();
                Ok(stream)
            }
            Err(error) => Err(DialFailed { error, ejected: replica.failed(Instant::now()) }),
        }
    }
}

struct DialFailed {
    error: io::Error,
    /// It was in the rotation until now.
    ejected: bool,
}

enum Unread {
    Gone,
    Refused(Refusal),
}

async fn read_hello(client: &mut Prefixed<Stream>, time: Duration) -> Result<ClientHello, Unread> {
    let deadline = Instant::now() + time;
    loop {
        match parse(client.seen()) {
            Progress::Found(hello) => return Ok(hello),
            Progress::NotTls => return Err(Unread::Refused(Refusal::NotTls)),
            Progress::Malformed(fault) => return Err(Unread::Refused(Refusal::Hello(fault))),
            Progress::NeedMore => {}
        }
        match timeout_at(deadline, client.fill(MAX_BYTES)).await {
            Ok(Ok(0) | Err(_)) => return Err(Unread::Gone),
            Ok(Ok(_)) => {}
            Err(_) => return Err(Unread::Refused(Refusal::Slow)),
        }
    }
}

/// Sends the alert, ends our side, and takes what still comes for a moment: closing with unread bytes would turn into a
/// reset that can overtake the alert.
async fn close_with(client: Prefixed<Stream>, alert: Option<Alert>) {
    /// A round trip between continents, so that the alert arrives.
    const LINGER: Duration = Duration::from_secs(1);
    const MOST: usize = 64 * 1024;
    let Some(alert) = alert else { return };
    let (mut stream, _) = client.into_parts();
    let _ = timeout(LINGER, async {
        stream.write_all(&alert.record()).await?;
        stream.shutdown().await?;
        let mut rest = Prefixed::new(stream);
        while rest.fill(MOST).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}
