//! One connection from its first byte to its last: read the ClientHello, decide, dial, wait for an answer, relay.
//!
//! Until the callee's first byte has come the gateway may still speak for itself, in TLS alerts; from then on it is
//! silent and blind.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use veer_net::{Listener, Prefixed, Stream, set_keepalive};

use super::Shared;
use super::admission::Admitted;
use super::metrics::Meters;
use super::replica::{InUse, Replica, in_order};
use super::table::{Destination, Egress, Peer, PeerPermit, Refusal};
use crate::client_hello::{Alert, ClientHello, MAX_BYTES, Progress, parse};
use crate::tcp::{Direction, End, RelayOptions, relay};

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

/// Accepts until the drain begins. Every connection holds a `busy` while it lives. Needs a [`tokio::task::LocalSet`]
/// around it.
///
/// # Errors
/// When the listening socket breaks.
pub(crate) async fn accept_loop(
    shared: Arc<Shared>,
    listener: Listener,
    side: Side,
    busy: mpsc::Sender<()>,
) -> io::Result<()> {
    let mut rng = veer_net::rng();
    loop {
        let (stream, source) = tokio::select! {
            biased;
            _ = shared.drain.started() => return Ok(()),
            accepted = listener.accept() => accepted?,
        };
        match shared.admission(side).enter(source.ip()) {
            Ok(admitted) => {
                let connection = Connection { shared: Arc::clone(&shared), side, rng: rng.fork() };
                let busy = busy.clone();
                tokio::task::spawn_local(async move {
                    connection.serve(stream, admitted).await;
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

/// Tells without waiting: over the limit nobody gets a task.
fn say_over_limit(stream: Stream) {
    if let Some(tcp) = stream.as_tcp() {
        // A fresh socket has room for seven bytes; what the caller sent unread may turn the close into a reset after
        // it.
        let _ = tcp.try_write(&Alert::AccessDenied.record());
    }
}

struct Connection {
    shared: Arc<Shared>,
    side: Side,
    rng: fastrand::Rng,
}

/// A way that was found, and everything that is held while it is used.
struct Way {
    stream: Stream,
    meters: Arc<Meters>,
    peer: Option<Arc<Peer>>,
    _permit: Option<PeerPermit>,
    _in_use: Option<InUse>,
    _control: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Connection {
    async fn serve(mut self, stream: Stream, mut admitted: Admitted) {
        let shared = Arc::clone(&self.shared);
        let mut client = Prefixed::new(stream);
        let hello = tokio::select! {
            biased;
            hello = read_hello(&mut client, shared.config.hello_time) => hello,
            () = shared.cut() => return,
        };
        let hello = match hello {
            Ok(hello) => hello,
            Err(Unread::Gone) => return,
            Err(Unread::Refused(refusal)) => return self.refuse(client, refusal).await,
        };
        admitted.understood();
        match self.find_way(&hello).await {
            Ok(way) => self.pass(client, way).await,
            Err(refusal) => self.refuse(client, refusal).await,
        }
    }

    /// Sends the alert and closes.
    async fn refuse(&self, client: Prefixed<Stream>, refusal: Refusal) {
        tracing::debug!(side = ?self.side, peer = ?client.get_ref().peer_addr().ok(), %refusal, "refused a connection");
        self.shared.metrics.refused(self.side, refusal.reason());
        close_with(client, refusal.alert()).await;
    }

    async fn find_way(&mut self, hello: &ClientHello) -> Result<Way, Refusal> {
        let table = self.shared.table.load_full().ok_or(Refusal::NotReady)?;
        if self.side == Side::Egress {
            let egress = table.egress(hello)?;
            return self.way_out(&egress).await;
        }
        match table.inbound(hello)? {
            Destination::Control => {
                let permits = Arc::clone(&self.shared.control_permits);
                let permit = permits.try_acquire_owned().map_err(|_| Refusal::ControlLimit)?;
                let (stream, _) = self.dial_any(&table.control, "/control").await?;
                let meters = self.shared.metrics.control();
                Ok(Way { stream, meters, peer: None, _permit: None, _in_use: None, _control: Some(permit) })
            }
            Destination::Endpoint { peer, endpoint } => self.way_in(peer, &[endpoint]).await,
            Destination::Service { peer, endpoints } => self.way_in(peer, &endpoints).await,
        }
    }

    /// To one of the endpoints, for a peer.
    async fn way_in(&mut self, peer: Arc<Peer>, endpoints: &[Arc<Replica>]) -> Result<Way, Refusal> {
        let meters = self.shared.metrics.of_peer(&peer.name);
        let entered = peer.enter();
        let found = match entered {
            Ok(permit) => {
                self.dial_any(endpoints, peer.name.as_str()).await.map(|(stream, in_use)| (stream, in_use, permit))
            }
            Err(refusal) => Err(refusal),
        };
        match found {
            Ok((stream, in_use, permit)) => Ok(Way {
                stream,
                meters,
                peer: Some(peer),
                _permit: Some(permit),
                _in_use: Some(in_use),
                _control: None,
            }),
            Err(refusal) => {
                self.shared.metrics.relay_failed(&peer.name, refusal.reason());
                Err(refusal)
            }
        }
    }

    /// To one of a peer's gateways: those in the rotation by weight, those that rest or drain only when there is no
    /// other.
    async fn way_out(&mut self, egress: &Egress) -> Result<Way, Refusal> {
        let meters = self.shared.metrics.of_peer(&egress.cluster);
        let now = Instant::now();
        let mut order = in_order(&egress.gateways, |g| &g.replica, |g| g.weight, now, &mut self.rng);
        order.sort_by_key(|index| egress.gateways[*index].draining);
        for index in order.into_iter().take(ATTEMPTS) {
            let gateway = &egress.gateways[index];
            let in_use = gateway.replica.take();
            let dialled = self.dial(&gateway.replica).await;
            let (cluster, name) = (egress.cluster.as_str(), &*gateway.name);
            self.shared.metrics.path_dialled(
                cluster,
                name,
                dialled.as_ref().map(|_| ()).map_err(|failed| failed.ejected),
            );
            if let Ok(stream) = dialled {
                return Ok(Way { stream, meters, peer: None, _permit: None, _in_use: Some(in_use), _control: None });
            }
        }
        self.shared.metrics.relay_failed(&egress.cluster, Refusal::Unreachable.reason());
        Err(Refusal::Unreachable)
    }

    async fn dial_any(&mut self, replicas: &[Arc<Replica>], what: &str) -> Result<(Stream, InUse), Refusal> {
        let order = in_order(replicas, |r| r, |_| 1, Instant::now(), &mut self.rng);
        for index in order.into_iter().take(ATTEMPTS) {
            let in_use = replicas[index].take();
            match self.dial(in_use.replica()).await {
                Ok(stream) => return Ok((stream, in_use)),
                Err(failed) => {
                    self.shared.metrics.dial_failed(what);
                    tracing::debug!(address = %replicas[index].address, error = %failed.error, "cannot reach");
                }
            }
        }
        Err(Refusal::Unreachable)
    }

    async fn dial(&self, replica: &Replica) -> Result<Stream, DialFailed> {
        let connecting = self.shared.config.network.connect_with(replica.address, self.shared.config.connect_options());
        let dialled = timeout(self.shared.config.dial_time, connecting)
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

    /// Hands the hello on, waits for the first answer, and relays from there.
    async fn pass(self, client: Prefixed<Stream>, way: Way) {
        let Way { stream: mut upstream, meters, peer, _permit, _in_use, _control } = way;
        for stream in [client.get_ref(), &upstream] {
            // The ends find out by themselves when the other is gone; this only frees what nobody uses any more.
            set_keepalive(stream, Duration::from_secs(60), Duration::from_secs(15), 4);
        }
        let (client, hello) = client.into_parts();
        let mut client = Prefixed::new(client);
        let _open = meters.open();
        let answered = tokio::select! {
            biased;
            answered = first_answer(&mut client, &mut upstream, &hello, self.shared.config.answer_time) => answered,
            () = self.shared.cut() => return,
        };
        let mut upstream = match answered {
            Ok(first) => {
                meters.moved(self.side, Direction::Up, hello.len() as u64);
                Prefixed::with_prefix(upstream, first)
            }
            Err(Unanswered::ClientGone) => return meters.ended("caller_gone"),
            Err(Unanswered::ByUpstream) => {
                meters.ended(Refusal::NoAnswer.reason());
                return self.refuse(client, Refusal::NoAnswer).await;
            }
        };
        let options = RelayOptions { idle: self.shared.config.idle, splice: true };
        let side = self.side;
        let mut meter = |direction: Direction, bytes: u64| meters.moved(side, direction, bytes);
        let revoked = async {
            match &peer {
                Some(peer) => peer.revoked().await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            report = relay(&mut client, &mut upstream, options, &mut meter) => match report.end {
                End::Closed => "ok",
                End::Idle => "idle",
                End::Failed { .. } => "broken",
            },
            () = revoked => "revoked",
            () = self.shared.cut() => "drained",
        };
        meters.ended(outcome);
        if matches!(outcome, "revoked" | "drained") {
            // What is cut must not look whole.
            client.into_parts().0.reset();
            upstream.into_parts().0.reset();
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

enum Unanswered {
    ClientGone,
    /// Closed, broke or stayed silent. Nothing came from there, so the caller can be told.
    ByUpstream,
}

/// Writes the hello and reads the first bytes of the answer.
async fn first_answer(
    client: &mut Prefixed<Stream>,
    upstream: &mut Stream,
    hello: &[u8],
    time: Duration,
) -> Result<Vec<u8>, Unanswered> {
    let deadline = Instant::now() + time;
    match timeout_at(deadline, upstream.write_all(hello)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(Unanswered::ByUpstream),
    }
    let mut answer = Prefixed::new(upstream);
    loop {
        let room = client.seen().len() < MAX_BYTES;
        tokio::select! {
            biased;
            read = timeout_at(deadline, answer.fill(MAX_BYTES)) => {
                return match read {
                    Ok(Ok(count)) if count > 0 => Ok(answer.into_parts().1),
                    _ => Err(Unanswered::ByUpstream),
                };
            }
            // A caller has nothing more to say before the answer, unless it gives up (or sends early data, which is
            // kept).
            read = client.fill(MAX_BYTES), if room => {
                if !matches!(read, Ok(count) if count > 0) {
                    return Err(Unanswered::ClientGone);
                }
            }
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
