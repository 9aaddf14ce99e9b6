//! Real sockets: clients, a port, endpoints that say who they are.

use std::net::UdpSocket as Plain;

use tokio::task::LocalSet;
use tokio::time::timeout;
use veer_core::ObjectName;
use veer_core::ingress::{IngressListener, PortKind};

use super::*;

/// An endpoint that answers every datagram with its own port and what was said.
async fn endpoint() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = [address.port().to_string().as_bytes(), b" ", &buffer[..length]].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

fn leads(backends: &[(u32, &[SocketAddr])]) -> Leads {
    let backend = |(weight, _): &(u32, &[SocketAddr])| Backend {
        host: "dns.shop.svc.cluster.local".parse().unwrap(),
        port: 53,
        weight: *weight,
        invalid: None,
        filters: Vec::new(),
        protocol: None,
    };
    let route = DatagramRoute {
        name: ObjectName::new("shop", "dns"),
        backends: backends.iter().map(backend).collect(),
        endpoints: backends.iter().map(|(_, endpoints)| endpoints.to_vec()).collect(),
    };
    let listener = IngressListener {
        name: "dns".into(),
        hostname: None,
        certificates: Vec::new(),
        clients: None,
        serves: Serves::Datagrams(vec![route]),
    };
    Leads::new(&IngressPort { port: 53, kind: PortKind::Udp, proxy_protocol: None, listeners: vec![listener] })
}

struct Served {
    port: DatagramPort,
    address: SocketAddr,
    metrics: Metrics,
}

fn serve(leads: Leads, bounds: Bounds) -> Served {
    let metrics = Metrics::default();
    let address = Plain::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = DatagramPort::open(&metrics, address, leads, bounds).unwrap();
    Served { port, address, metrics }
}

impl Served {
    async fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(self.address).await.unwrap();
        client
    }

    fn counted(&self, outcome: &str) -> u64 {
        self.metrics.counter(&counters::DATAGRAMS, &["dns", outcome]).get()
    }

    fn sessions(&self) -> usize {
        self.port.shared.sessions.borrow().len()
    }
}

/// Says something and returns which endpoint answered, if one did.
async fn ask(client: &UdpSocket, what: &str) -> Option<String> {
    client.send(what.as_bytes()).await.unwrap();
    let mut buffer = [0; 2048];
    let length = timeout(Duration::from_millis(500), client.recv(&mut buffer)).await.ok()?.ok()?;
    let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
    let (endpoint, said) = text.split_once(' ').unwrap();
    assert_eq!(said, what);
    Some(endpoint.to_owned())
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

async fn locally(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_client_stays_with_its_endpoint_and_clients_are_shared_by_weight() {
    locally(async {
        let (one, two, other) = (endpoint().await, endpoint().await, endpoint().await);
        let served = serve(leads(&[(3, &[one, two]), (1, &[other]), (0, &[])]), Bounds::default());
        let mut counts: HashMap<String, usize> = HashMap::new();
        for _ in 0..40 {
            let client = served.client().await;
            let first = ask(&client, "a").await.expect("an answer");
            assert_eq!(ask(&client, "b").await.as_ref(), Some(&first), "the session stays");
            *counts.entry(first).or_default() += 1;
        }
        let of = |address: SocketAddr| counts.get(&address.port().to_string()).copied().unwrap_or_default();
        assert!((9..=11).contains(&of(other)), "{counts:?}");
        assert!(of(one).abs_diff(of(two)) <= 1, "{counts:?}");
        assert_eq!((served.counted("to_backend"), served.counted("to_client")), (80, 80));
    })
    .await;
}

#[tokio::test]
async fn sessions_are_bounded_and_end_when_nobody_speaks() {
    locally(async {
        let bounds = Bounds { idle: Duration::from_millis(200), sessions: 2 };
        let served = serve(leads(&[(1, &[endpoint().await])]), bounds);
        let clients = [served.client().await, served.client().await, served.client().await];
        assert!(ask(&clients[0], "a").await.is_some() && ask(&clients[1], "b").await.is_some());
        clients[2].send(b"c").await.unwrap();
        until("the third is one too many", || served.counted("too_many_sessions") == 1).await;
        until("those that are silent end", || served.sessions() == 0).await;
        assert!(ask(&clients[2], "c").await.is_some(), "there is room again");
        let Served { port, .. } = served;
        let shared = Rc::downgrade(&port.shared);
        drop(port);
        until("nothing stays behind", || shared.upgrade().is_none()).await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_left() {
    locally(async {
        let (one, two) = (endpoint().await, endpoint().await);
        let served = serve(leads(&[(1, &[one])]), Bounds::default());
        let client = served.client().await;
        assert_eq!(ask(&client, "a").await, Some(one.port().to_string()));
        served.port.lead(leads(&[(1, &[one, two])]));
        assert_eq!(ask(&client, "b").await, Some(one.port().to_string()), "it is still there");
        served.port.lead(leads(&[(1, &[two])]));
        assert_eq!(ask(&client, "c").await, Some(two.port().to_string()));
        served.port.lead(leads(&[(1, &[])]));
        assert_eq!(ask(&client, "d").await, None);
        until("it is counted", || served.counted("no_endpoint") == 1).await;

        // Nobody listens at the first: the kernel says so, and the next datagram goes to the second.
        let deaf = Plain::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        served.port.lead(leads(&[(1, &[deaf, two])]));
        assert_eq!(ask(&client, "e").await, None);
        until("the session ends", || served.sessions() == 0).await;
        assert_eq!(ask(&client, "f").await, Some(two.port().to_string()));
    })
    .await;
}
