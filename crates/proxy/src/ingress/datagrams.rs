//! Datagrams: a port's clients are led to endpoints, each client to one for as long as it is heard (UDPRoute).
//!
//! A session is one client's address. It has a socket of its own toward its endpoint, so that answers find their client, and one task
//! that waits for them. Nothing is buffered: a datagram that a socket cannot take at once is lost, as on any network, and counted.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use veer_core::ingress::{DatagramRoute, IngressPort, Serves};
use veer_core::route::Backend;
use veer_route::Deal;
use veer_telemetry::Metrics;
use veer_telemetry::family::{Counter, counters};

/// How much a port holds.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A session in which nobody said anything for so long is over.
    idle: Duration,
    /// Sessions of one port and worker; each is a descriptor and about a kilobyte. Datagrams of further clients are dropped.
    sessions: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), sessions: 1024 }
    }
}

/// Datagrams that one socket may hand over before others have their turn.
const TURN: usize = 64;
/// The largest datagram.
const LARGEST: usize = 65_535;

/// What a port leads to now.
pub struct Leads {
    listener: Arc<str>,
    route: Option<DatagramRoute>,
    deal: Deal,
    /// By backend: whose turn it is.
    turns: Vec<Cell<usize>>,
}

impl Leads {
    /// Of a port there is one listener, and of a listener one route.
    pub fn new(port: &IngressPort) -> Self {
        let listener = port.listeners.first();
        let route = listener.and_then(|listener| match &listener.serves {
            Serves::Datagrams(routes) => routes.first().cloned(),
            Serves::Http(_) | Serves::Bytes(_) => None,
        });
        let count = route.as_ref().map_or(0, |route| route.backends.len());
        let name = listener.map_or_else(Arc::default, |listener| Arc::clone(&listener.name));
        Self { listener: name, route, deal: Deal::default(), turns: vec![Cell::new(0); count] }
    }

    /// The endpoint of a new session: backends by weight, endpoints in turn.
    fn pick(&self) -> Result<SocketAddr, &'static str> {
        let route = self.route.as_ref().ok_or("no_route")?;
        let at = self.deal.pick_index(&route.backends).ok_or("no_backend")?;
        let Backend { invalid: None, .. } = &route.backends[at] else { return Err("no_backend") };
        let endpoints = route.endpoints.get(at).map_or(&[][..], Vec::as_slice);
        if endpoints.is_empty() {
            return Err("no_endpoint");
        }
        let turn = self.turns[at].get();
        self.turns[at].set(turn.wrapping_add(1));
        Ok(endpoints[turn % endpoints.len()])
    }

    fn has(&self, endpoint: SocketAddr) -> bool {
        self.route.as_ref().is_some_and(|route| route.endpoints.iter().flatten().any(|one| *one == endpoint))
    }
}

/// A bound port. Dropping it ends all of its sessions.
pub struct DatagramPort {
    shared: Rc<Shared>,
    receiving: JoinHandle<()>,
}

struct Shared {
    socket: UdpSocket,
    leads: RefCell<Rc<Leads>>,
    sessions: RefCell<HashMap<SocketAddr, Session, foldhash::fast::RandomState>>,
    bounds: Bounds,
    counted: Counted,
}

struct Session {
    to: Rc<UdpSocket>,
    endpoint: SocketAddr,
    heard: Rc<Cell<Instant>>,
    answering: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// `veer_datagrams_total` of the listener: made once, so that a datagram costs an addition.
struct Counted {
    up: Counter,
    down: Counter,
    lost: Counter,
    full: Counter,
    sessions: Counter,
}

impl DatagramPort {
    /// Binds the address and begins to serve.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn open(metrics: &Metrics, address: SocketAddr, leads: Leads, bounds: Bounds) -> io::Result<Self> {
        let count = |outcome: &str| metrics.counter(&counters::DATAGRAMS, &[&leads.listener, outcome]);
        let counted = Counted {
            up: count("to_backend"),
            down: count("to_client"),
            lost: count("lost"),
            full: count("too_many_sessions"),
            sessions: metrics.counter(&counters::DATAGRAM_SESSIONS, &[&leads.listener]),
        };
        let shared = Rc::new(Shared {
            socket: bind(address)?,
            leads: RefCell::new(Rc::new(leads)),
            sessions: RefCell::default(),
            bounds,
            counted,
        });
        let refused = {
            let metrics = metrics.clone();
            move |listener: &str, reason: &str| metrics.counter(&counters::DATAGRAMS, &[listener, reason]).inc()
        };
        let receiving = tokio::task::spawn_local(receive(Rc::clone(&shared), refused));
        Ok(Self { shared, receiving })
    }

    /// Leads elsewhere from now on. Sessions whose endpoint stays are kept.
    pub fn lead(&self, leads: Leads) {
        self.shared.sessions.borrow_mut().retain(|_, session| leads.has(session.endpoint));
        self.shared.leads.replace(Rc::new(leads));
    }
}

impl Drop for DatagramPort {
    fn drop(&mut self) {
        self.receiving.abort();
        self.shared.sessions.borrow_mut().clear();
    }
}

/// One socket per worker: the kernel keeps a client with one of them.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(endpoint), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    let any: IpAddr = match endpoint {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    socket.bind(&SocketAddr::new(any, 0).into())?;
    // A datagram from anybody else is not an answer: the kernel drops it.
    socket.connect(&endpoint.into())?;
    UdpSocket::from_std(socket.into())
}

/// What clients say.
async fn receive(shared: Rc<Shared>, refused: impl Fn(&str, &str)) {
    let mut buffer = vec![0; LARGEST].into_boxed_slice();
    loop {
        if shared.socket.readable().await.is_err() {
            return;
        }
        for _ in 0..TURN {
            // An error is of an earlier answer's making (ICMP), and says nothing about the next datagram.
            let (length, client) = match shared.socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            if let Err(reason) = forward(&shared, client, &buffer[..length]) {
                match reason {
                    "too_many_sessions" => shared.counted.full.inc(),
                    "lost" => shared.counted.lost.inc(),
                    reason => refused(&shared.leads.borrow().listener, reason),
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

fn forward(shared: &Rc<Shared>, client: SocketAddr, datagram: &[u8]) -> Result<(), &'static str> {
    let now = Instant::now();
    let mut sessions = shared.sessions.borrow_mut();
    let session = match sessions.get(&client) {
        Some(session) => session,
        None => {
            if sessions.len() >= shared.bounds.sessions {
                return Err("too_many_sessions");
            }
            let endpoint = shared.leads.borrow().pick()?;
            let to = Rc::new(connect(endpoint).map_err(|_| "no_socket")?);
            let heard = Rc::new(Cell::new(now));
            let weak = Rc::downgrade(shared);
            let idle = shared.bounds.idle;
            let answering = tokio::task::spawn_local(answer(weak, client, Rc::clone(&to), Rc::clone(&heard), idle));
            shared.counted.sessions.inc();
            sessions.entry(client).or_insert(Session { to, endpoint, heard, answering })
        }
    };
    session.heard.set(now);
    // Past the reactor, which has not looked at a new socket yet: it does not block, and there is no later.
    match SockRef::from(&*session.to).send(datagram) {
        Ok(_) => {
            shared.counted.up.inc();
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err("lost"),
        Err(_) => {
            // Nobody listens there any more: the client's next datagram finds another endpoint.
            sessions.remove(&client);
            Err("lost")
        }
    }
}

thread_local! {
    /// Answers are read into it and leave it at once, so that a session that is silent holds no buffer.
    static ANSWER: RefCell<Box<[u8]>> = RefCell::new(vec![0; LARGEST].into_boxed_slice());
}

/// What one endpoint says to one client, until both have been silent for long.
async fn answer(
    shared: Weak<Shared>,
    client: SocketAddr,
    from: Rc<UdpSocket>,
    heard: Rc<Cell<Instant>>,
    idle: Duration,
) {
    loop {
        let ready = from.ready(Interest::READABLE | Interest::ERROR);
        let ready = tokio::time::timeout_at(heard.get() + idle, ready).await;
        let Some(shared) = shared.upgrade() else { return };
        let is_over = match ready {
            Ok(Ok(ready)) if ready.is_error() && !is_well(&from) => true,
            Ok(Ok(_)) => !hand_over(&shared, client, &from, &heard),
            Ok(Err(_)) => true,
            Err(_) => heard.get().elapsed() >= idle,
        };
        if is_over {
            shared.sessions.borrow_mut().remove(&client);
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Whether the kernel has no word against the endpoint (an ICMP error: nobody listens there).
fn is_well(socket: &UdpSocket) -> bool {
    if !matches!(socket.take_error(), Ok(None)) {
        return false;
    }
    // It was taken before: the reactor is told so, else it would say it for ever.
    let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    true
}

/// Hands over what is there; whether the endpoint still listens.
fn hand_over(shared: &Shared, client: SocketAddr, from: &UdpSocket, heard: &Cell<Instant>) -> bool {
    ANSWER.with_borrow_mut(|buffer| {
        for _ in 0..TURN {
            let length = match from.try_recv(buffer) {
                Ok(length) => length,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            };
            heard.set(Instant::now());
            match SockRef::from(&shared.socket).send_to(&buffer[..length], &client.into()) {
                Ok(_) => shared.counted.down.inc(),
                Err(_) => shared.counted.lost.inc(),
            }
        }
        true
    })
}

#[cfg(test)]
#[path = "datagrams_tests.rs"]
mod tests;
