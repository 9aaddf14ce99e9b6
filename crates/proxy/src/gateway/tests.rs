use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use veer_core::gateway::{GatewayService, Lease, Path, PathGateway, TokenKey};
use veer_core::names::SpiffeId;
use veer_core::sni::Sni;
use veer_core::{ClusterName, ServiceHost, TrustDomain};
use veer_identity::handshake::RelayAlert;
use veer_identity::{
    ALPN_TCP, Ca, ClientAuth, HandshakeError, Identity, KeyRequest, RouteToken, Svid, TokenCrypter, accept, connect,
};
use veer_net::{DrainTrigger, drain};
use veer_telemetry::family::counters;

use super::*;

pub(super) const SECRET: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const OTHER_SECRET: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

pub(super) fn run_local<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async { timeout(Duration::from_secs(30), future).await.expect("ended in time") })
}

pub(super) fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

pub(super) fn localhost() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Two trust domains that believe each other, and nobody else: the gateway has neither key.
pub(super) struct Identities {
    caller: Identity,
    callee: Identity,
    callee_id: SpiffeId,
}

impl Identities {
    pub(super) fn new() -> Self {
        let now = veer_identity::clock::now();
        let make = |domain: &str, account: &str| {
            let domain = TrustDomain::new(domain).unwrap();
            let ca = Ca::create(&domain, now).unwrap();
            let id = SpiffeId::new(domain, "shop", account);
            let request = KeyRequest::new().unwrap();
            let chain = ca.sign(&request.csr_der, &id, Duration::from_secs(3600), now).unwrap();
            (ca.bundle(), Svid::from_chain(request.key, chain).unwrap(), id)
        };
        let (east, caller, _) = make("east.example", "web");
        let (west, callee, callee_id) = make("west.example", "cart");
        let bundles = [east, west];
        Self {
            caller: Identity::new(caller, bundles.clone()).unwrap(),
            callee: Identity::new(callee, bundles).unwrap(),
            callee_id,
        }
    }

    /// Serves TLS on a port of its own: sends back what comes, and ends when the caller does.
    pub(super) async fn echo(&self) -> SocketAddr {
        let listener = TcpListener::bind(localhost()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity = self.callee.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = identity.server_config(&[ALPN_TCP], ClientAuth::Required);
                tokio::task::spawn_local(async move {
                    let Ok((stream, _)) = accept(stream, config).await else { return };
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
        address
    }

    pub(super) async fn call(
        &self,
        gateway: SocketAddr,
        name: &str,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, HandshakeError> {
        let stream = TcpStream::connect(gateway).await.unwrap();
        let sni: Sni = name.parse().unwrap();
        let tls = self.caller.client_config(&[ALPN_TCP]);
        connect(stream, tls, &sni, std::slice::from_ref(&self.callee_id)).await.map(|(stream, _)| stream)
    }
}

pub(super) async fn ping(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(b"ping").await?;
    stream.flush().await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

pub(super) fn key(id: u32, secret: &str) -> TokenKey {
    TokenKey { id, peer: cluster("east"), secret: secret.into(), max_connections: 100 }
}

pub(super) fn name(key: &TokenKey, token: RouteToken) -> String {
    format!("{}.p80.west", TokenCrypter::new(key).unwrap().seal(&token))
}

pub(super) fn to(address: SocketAddr) -> RouteToken {
    RouteToken::Endpoint { addr: address.ip(), port: 80 }
}

pub(super) fn knows(mesh_port: u16) -> veer_core::GatewayConfig {
    veer_core::GatewayConfig {
        cluster: cluster("west"),
        mesh_port,
        control: vec![],
        keys: vec![key(1, SECRET)],
        services: vec![],
        egress: vec![],
        rotate: 0,
    }
}

/// A gateway that runs.
struct Running {
    gateway: Gateway,
    metrics: Metrics,
    public: SocketAddr,
    egress: SocketAddr,
    drain: DrainTrigger,
    serving: tokio::task::JoinHandle<io::Result<()>>,
}

async fn start(of: &str, change: impl FnOnce(&mut GatewayProcessConfig)) -> Running {
    let mut config = GatewayProcessConfig::new("g", cluster(of), localhost().ip());
    (config.public, config.egress, config.admin) = (localhost(), Some(localhost()), None);
    change(&mut config);
    let (trigger, watch) = drain();
    let metrics = Metrics::new();
    let gateway = Gateway::new(config, metrics.clone(), watch);
    let doors = gateway.bind(false).await.unwrap();
    let public = doors.public.local_addr().unwrap();
    let egress = doors.egress.as_ref().unwrap().local_addr().unwrap();
    let serving = tokio::task::spawn_local({
        let gateway = gateway.clone();
        async move { gateway.serve(doors).await }
    });
    Running { gateway, metrics, public, egress, drain: trigger, serving }
}

impl Running {
    fn learn(&self, config: veer_core::GatewayConfig) {
        assert_eq!(self.gateway.learn(Arc::new(config)), Vec::<String>::new());
    }

    fn refused(&self, reason: &str) -> u64 {
        self.metrics.counter(&counters::REFUSED_CONNECTIONS, &["gateway", reason]).get()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("{what}"));
    }
}

async fn alert_of(identities: &Identities, gateway: SocketAddr, name: &str) -> RelayAlert {
    let error = identities.call(gateway, name).await.map(|_| ()).unwrap_err();
    error.relay_alert().unwrap_or_else(|| panic!("{name}: {error}"))
}

#[test]
fn tls_runs_end_to_end_through_a_gateway_that_has_no_key() {
    run_local(async {
        let identities = Identities::new();
        let callee = identities.echo().await;
        let gateway = start("west", |_| {}).await;
        gateway.learn(knows(callee.port()));
        let name = name(&key(1, SECRET), to(callee));
        let stream = identities.call(gateway.public, &name).await.unwrap();

        // Bulk both ways at once, then the end of the stream both ways.
        let (mut read, mut write) = tokio::io::split(stream);
        let size = 6 << 20;
        let sent: Vec<u8> = (0..size).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let sending = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(sending, read.read_to_end(&mut got));
        read.unwrap();
        assert!(got == sent, "what came back is what was sent");
        gateway
            .until("the relay is counted", |g| {
                g.metrics.counter(&counters::RELAY_CONNECTIONS, &["east", "ok"]).get() == 1
            })
            .await;
        for direction in ["from_peer", "to_peer"] {
            assert!(gateway.metrics.counter(&counters::RELAY_BYTES, &["east", direction]).get() > u64::from(size));
        }
        gateway.until("nothing is left open", |g| g.gateway.open_connections() == 0).await;
    });
}

#[test]
fn tokens_that_are_not_ours_are_refused_as_stale_names() {
    run_local(async {
        let identities = Identities::new();
        let callee = identities.echo().await;
        let gateway = start("west", |_| {}).await;
        let early = name(&key(1, SECRET), to(callee));
        assert_eq!(alert_of(&identities, gateway.public, &early).await, RelayAlert::Draining, "nothing is known yet");
        gateway.learn(knows(callee.port()));

        for (name, reason) in [
            (name(&key(2, SECRET), to(callee)), "unknown_key"),
            (name(&key(1, OTHER_SECRET), to(callee)), "forged_token"),
            (name(&key(1, SECRET), RouteToken::Endpoint { addr: callee.ip(), port: 81 }), "other_port"),
            (name(&key(1, SECRET), RouteToken::Service { id: 1, port: 80 }), "no_service"),
            ("p80.west".to_owned(), "bad_name"),
            ("p80.east".to_owned(), "other_cluster"),
        ] {
            assert_eq!(alert_of(&identities, gateway.public, &name).await, RelayAlert::StaleName, "{name}");
            assert_eq!(gateway.refused(reason), 1, "{reason}");
        }

        // A key that has gone, as an epoch does.
        let mut next = knows(callee.port());
        next.keys = vec![key(7, OTHER_SECRET)];
        gateway.learn(next);
        assert_eq!(alert_of(&identities, gateway.public, &early).await, RelayAlert::StaleName);
        assert!(identities.call(gateway.public, &name(&key(7, OTHER_SECRET), to(callee))).await.is_ok());

        let mut foreign = knows(callee.port());
        foreign.cluster = cluster("north");
        assert_eq!(gateway.gateway.learn(Arc::new(foreign)).len(), 1, "another cluster's configuration is refused");
        assert!(identities.call(gateway.public, &name(&key(7, OTHER_SECRET), to(callee))).await.is_ok());
    });
}

/// A port on which nobody listens.
async fn dead_port() -> SocketAddr {
    TcpListener::bind(localhost()).await.unwrap().local_addr().unwrap()
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_told_apart() {
    run_local(async {
        let identities = Identities::new();
        let gateway = start("west", |_| {}).await;
        let dead = dead_port().await;
        gateway.learn(knows(dead.port()));
        let name_of = |address| name(&key(1, SECRET), to(address));
        assert_eq!(alert_of(&identities, gateway.public, &name_of(dead)).await, RelayAlert::Unreachable);
        assert_eq!(gateway.refused("unreachable"), 1);

        // Takes the connection and closes it without a byte.
        let mute = TcpListener::bind(localhost()).await.unwrap();
        let address = mute.local_addr().unwrap();
        tokio::task::spawn_local(async move { while mute.accept().await.is_ok() {} });
        gateway.learn(knows(address.port()));
        assert_eq!(alert_of(&identities, gateway.public, &name_of(address)).await, RelayAlert::Unreachable);
        assert_eq!(gateway.refused("no_answer"), 1);
    });
}

#[test]
fn a_service_token_finds_an_endpoint_that_lives() {
    run_local(async {
        let identities = Identities::new();
        let callee = identities.echo().await;
        let gateway = start("west", |_| {}).await;
        let mut config = knows(callee.port());
        // Same port on other loopback addresses: nobody listens there.
        let dead = |last| SocketAddr::from(([127, 0, 9, last], callee.port()));
        config.services = vec![GatewayService {
            id: 3,
            host: ServiceHost::new("cart.shop.svc.cluster.local").unwrap(),
            endpoints: vec![dead(1), callee, dead(2)],
        }];
        gateway.learn(config);
        let name = name(&key(1, SECRET), RouteToken::Service { id: 3, port: 80 });
        for _ in 0..10 {
            ping(&mut identities.call(gateway.public, &name).await.unwrap()).await.unwrap();
        }
        let failed = gateway.metrics.counter(&counters::RELAY_CONNECTIONS, &["east", "dial_failed"]).get();
        assert!((1..=6).contains(&failed), "the dead ones are left alone for a while: {failed} attempts");
    });
}

#[test]
fn limits_hold_per_peer_and_per_source() {
    run_local(async {
        let identities = Identities::new();
        let callee = identities.echo().await;
        let gateway = start("west", |config| config.limits.per_source = 3).await;
        let mut config = knows(callee.port());
        config.keys[0].max_connections = 2;
        gateway.learn(config);
        let name = name(&key(1, SECRET), to(callee));
        let first = identities.call(gateway.public, &name).await.unwrap();
        let second = identities.call(gateway.public, &name).await.unwrap();
        assert_eq!(alert_of(&identities, gateway.public, &name).await, RelayAlert::OverLimit);
        assert_eq!(gateway.refused("peer_limit"), 1);
        drop(first);
        gateway.until("room is made", |g| g.gateway.open_connections() == 1).await;
        let third = identities.call(gateway.public, &name).await.unwrap();

        let _silent = TcpStream::connect(gateway.public).await.unwrap();
        gateway.until("the silent one counts", |g| g.gateway.open_connections() == 3).await;
        let mut refused = TcpStream::connect(gateway.public).await.unwrap();
        let mut said = Vec::new();
        refused.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, RelayAlert::OverLimit.record());
        assert_eq!(gateway.refused("source_limit"), 1);
        drop((second, third));
    });
}

#[test]
fn draining_lets_relays_end_and_cuts_them_at_the_deadline() {
    run_local(async {
        let identities = Identities::new();
        let callee = identities.echo().await;
        let gateway = start("west", |_| {}).await;
        gateway.learn(knows(callee.port()));
        assert!(gateway.gateway.is_ready());
        let name = name(&key(1, SECRET), to(callee));
        let mut ends = identities.call(gateway.public, &name).await.unwrap();
        let mut stays = identities.call(gateway.public, &name).await.unwrap();

        gateway.drain.start(Duration::from_secs(2));
        assert!(!gateway.gateway.is_ready());
        gateway.until("the door is closed", |g| std::net::TcpStream::connect(g.public).is_err()).await;
        ping(&mut ends).await.unwrap();
        ends.shutdown().await.unwrap();
        assert_eq!(ends.read(&mut [0; 1]).await.unwrap(), 0, "ended in order");
        ping(&mut stays).await.unwrap();
        assert!(stays.read(&mut [0; 1]).await.is_err(), "cut, and not mistaken for an end");
        gateway.serving.await.unwrap().unwrap();
        assert_eq!(gateway.metrics.counter(&counters::RELAY_CONNECTIONS, &["east", "drained"]).get(), 1);
    });
}

#[test]
fn a_peer_that_is_unlinked_loses_what_it_has_open() {
    run_local(async {
        let identities = Identities::new();
        let callee = identities.echo().await;
        let gateway = start("west", |_| {}).await;
        gateway.learn(knows(callee.port()));
        let mut stream = identities.call(gateway.public, &name(&key(1, SECRET), to(callee))).await.unwrap();
        ping(&mut stream).await.unwrap();
        let mut without = knows(callee.port());
        without.keys.clear();
        gateway.learn(without);
        assert!(stream.read(&mut [0; 1]).await.is_err());
    });
}

fn path(gateways: &[SocketAddr]) -> Path {
    let gateways = gateways.iter().enumerate().map(|(number, address)| PathGateway {
        name: format!("g{number}").into(),
        address: *address,
        weight: 1,
        draining: false,
    });
    Path {
        cluster: cluster("west"),
        trust_domain: TrustDomain::new("west.example").unwrap(),
        gateways: gateways.collect(),
        lease: Lease::Fresh,
        lease_duration: Duration::from_secs(10),
    }
}

#[test]
fn callers_go_out_through_their_own_gateway() {
    run_local(async {
        let identities = Identities::new();
        let callee = identities.echo().await;
        let west = start("west", |_| {}).await;
        west.learn(knows(callee.port()));
        let east = start("east", |_| {}).await;
        let mut config = knows(15008);
        config.cluster = cluster("east");
        config.egress = vec![path(&[dead_port().await, west.public])];
        east.learn(config);
        let good = name(&key(1, SECRET), to(callee));
        for _ in 0..6 {
            ping(&mut identities.call(east.egress, &good).await.unwrap()).await.unwrap();
        }
        let ejections = east.metrics.counter(&counters::PATH_EJECTIONS, &["west", "g0", "connect"]).get();
        assert!(ejections <= 1, "a dead gateway is one ejection, not one per connection: {ejections}");

        // The peer's own words come through; names of nobody are refused at once.
        let stale = name(&key(1, OTHER_SECRET), to(callee));
        assert_eq!(alert_of(&identities, east.egress, &stale).await, RelayAlert::StaleName);
        assert_eq!(west.refused("forged_token"), 1);
        assert_eq!(alert_of(&identities, east.egress, "abc.p80.north").await, RelayAlert::StaleName);
        // What is an egress name is nothing at the public door.
        assert_eq!(alert_of(&identities, east.public, &good).await, RelayAlert::StaleName);
    });
}

#[test]
fn the_control_plane_is_reached_by_its_name_and_within_its_limit() {
    run_local(async {
        let identities = Identities::new();
        let control = identities.echo().await;
        let gateway = start("west", |config| config.max_control_connections = 1).await;
        let mut config = knows(15008);
        config.control = vec![dead_port().await, control];
        gateway.learn(config);
        let mut stream = identities.call(gateway.public, "control.west").await.unwrap();
        ping(&mut stream).await.unwrap();
        assert_eq!(alert_of(&identities, gateway.public, "control.west").await, RelayAlert::OverLimit);
        drop(stream);
        gateway.until("room is made", |g| g.gateway.open_connections() == 0).await;
        ping(&mut identities.call(gateway.public, "control.west").await.unwrap()).await.unwrap();
    });
}

#[test]
fn slow_and_silent_callers_are_bounded_in_time() {
    run_local(async {
        let gateway = start("west", |config| config.hello_time = Duration::from_millis(100)).await;
        gateway.learn(knows(15008));
        let mut drips = TcpStream::connect(gateway.public).await.unwrap();
        drips.write_all(&[22, 3, 1, 2]).await.unwrap();
        let mut said = Vec::new();
        drips.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, [21, 3, 3, 0, 2, 2, 50]);
        assert_eq!(gateway.refused("slow_hello"), 1);
    });
}

#[test]
fn garbage_is_refused_and_harms_nobody() {
    run_local(async {
        let identities = Identities::new();
        let callee = identities.echo().await;
        let gateway = start("west", |config| config.hello_time = Duration::from_millis(300)).await;
        gateway.learn(knows(callee.port()));
        let mut rng = fastrand::Rng::with_seed(11);
        let mut senders = tokio::task::JoinSet::new();
        for round in 0..150 {
            let mut bytes: Vec<u8> = (0..rng.usize(0..3000)).map(|_| rng.u8(..)).collect();
            if round % 3 == 0 {
                // Looks like a handshake for a while.
                let head = [22, 3, 1, rng.u8(0..0x40), rng.u8(..), 1, 0, rng.u8(0..0x30), rng.u8(..), 3, 3];
                bytes.splice(0..0, head);
            }
            let step = rng.usize(1..400);
            let public = gateway.public;
            senders.spawn_local(async move {
                let mut stream = TcpStream::connect(public).await.unwrap();
                for chunk in bytes.chunks(step) {
                    if stream.write_all(chunk).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                let _ = stream.shutdown().await;
                let mut said = Vec::new();
                let _ = stream.read_to_end(&mut said).await;
                assert!(said.is_empty() || (said.len() == 7 && said[0] == 21), "nothing but one alert: {said:?}");
            });
        }
        while let Some(sent) = senders.join_next().await {
            sent.unwrap();
        }
        gateway.until("all have gone", |g| g.gateway.open_connections() == 0).await;
        ping(&mut identities.call(gateway.public, &name(&key(1, SECRET), to(callee))).await.unwrap()).await.unwrap();
    });
}

#[test]
fn a_hello_may_come_in_any_pieces() {
    /// Writes in pieces of one size only.
    async fn dribble(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, piece: usize) {
        let mut buffer = vec![0; piece];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            to.write_all(&buffer[..count]).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    run_local(async {
        let identities = Identities::new();
        let callee = identities.echo().await;
        let gateway = start("west", |_| {}).await;
        gateway.learn(knows(callee.port()));
        let name: Sni = name(&key(1, SECRET), to(callee)).parse().unwrap();
        for piece in [1, 2, 7, 100, 1999] {
            let (near, far) = tokio::io::duplex(1 << 16);
            let (from_gateway, to_gateway) = TcpStream::connect(gateway.public).await.unwrap().into_split();
            let (from_caller, to_caller) = tokio::io::split(far);
            tokio::task::spawn_local(dribble(from_caller, to_gateway, piece));
            tokio::task::spawn_local(dribble(from_gateway, to_caller, 4096));
            let tls = identities.caller.client_config(&[ALPN_TCP]);
            let (mut stream, _) = connect(near, tls, &name, std::slice::from_ref(&identities.callee_id)).await.unwrap();
            ping(&mut stream).await.unwrap();
        }
    });
}

#[test]
fn the_dump_shows_no_secret() {
    run_local(async {
        let gateway = start("west", |_| {}).await;
        gateway.learn(knows(15008));
        let dump = gateway.gateway.dump().to_string();
        assert!(dump.contains("east") && !dump.contains(SECRET), "{dump}");
        assert!(!format!("{:?}", gateway.gateway).contains(SECRET));
    });
}
