use proptest::prelude::*;
use veer_core::ServiceHost;
use veer_core::gateway::{GatewayService, Lease, PathGateway};

use super::*;
use crate::client_hello::Alpn;

const MESH: u16 = 15008;

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn key(id: u32, peer: &str, byte: u8) -> TokenKey {
    // 32 equal bytes in base64: 43 characters and padding.
    let secret = match byte {
        1 => "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        _ => "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
    };
    TokenKey { id, peer: cluster(peer), secret: secret.into(), max_connections: 2 }
}

fn config() -> GatewayConfig {
    GatewayConfig {
        cluster: cluster("west"),
        mesh_port: MESH,
        control: vec![],
        keys: vec![key(1, "east", 1)],
        services: vec![GatewayService {
            id: 5,
            host: ServiceHost::new("cart.shop.svc.cluster.local").unwrap(),
            endpoints: vec![at("127.2.0.1:15008"), at("127.2.0.2:15008"), at("127.2.0.3:22")],
        }],
        egress: vec![Path {
            cluster: cluster("east"),
            trust_domain: veer_core::TrustDomain::new("east.example").unwrap(),
            gateways: vec![PathGateway {
                name: "a".into(),
                address: at("127.1.0.9:15443"),
                weight: 1,
                draining: false,
            }],
            lease: Lease::Fresh,
            lease_duration: std::time::Duration::from_secs(10),
        }],
        rotate: 0,
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn table() -> Table {
    Table::next(Arc::new(config()), None).0
}

fn asks(name: &str) -> ClientHello {
    ClientHello { server_name: Some(name.into()), alpn: Alpn::default() }
}

fn token(key: &TokenKey, token: RouteToken) -> String {
    TokenCrypter::new(key).unwrap().seal(&token)
}

fn endpoint(port: u16) -> RouteToken {
    RouteToken::Endpoint { addr: [127, 2, 0, 1].into(), port }
}

#[test]
fn tokens_lead_to_what_was_offered() {
    let table = table();
    let name = token(&key(1, "east", 1), endpoint(80));
    let Ok(Destination::Endpoint { peer, endpoint }) = table.inbound(&asks(&format!("{name}.p80.west"))) else {
        panic!("not an endpoint")
    };
    assert_eq!((peer.name.as_str(), endpoint.address), ("east", at("127.2.0.1:15008")));

    let name = token(&key(1, "east", 1), RouteToken::Service { id: 5, port: 80 });
    let Ok(Destination::Service { endpoints, .. }) = table.inbound(&asks(&format!("{name}.p80.west"))) else {
        panic!("not a service")
    };
    let addresses: Vec<SocketAddr> = endpoints.iter().map(|e| e.address).collect();
    assert_eq!(addresses, [at("127.2.0.1:15008"), at("127.2.0.2:15008")], "only mesh ports");

    assert!(matches!(table.inbound(&asks("control.west")), Ok(Destination::Control)));
}

#[test]
fn everything_else_is_refused_with_its_reason() {
    let table = table();
    let good = key(1, "east", 1);
    let refused = |name: &str| table.inbound(&asks(name)).map(|_| ()).unwrap_err();
    let sealed = |key: &TokenKey, to| format!("{}.p80.west", token(key, to));

    assert_eq!(refused("p80.west"), Refusal::BadName);
    assert_eq!(refused("example.com"), Refusal::BadName);
    assert_eq!(refused("control.east"), Refusal::OtherCluster);
    assert_eq!(refused(&format!("{}.p80.north", token(&good, endpoint(80)))), Refusal::OtherCluster);
    assert_eq!(refused("notatoken!.p80.west"), Refusal::Token(TokenError::Malformed));
    assert_eq!(refused(&sealed(&key(2, "east", 1), endpoint(80))), Refusal::Token(TokenError::UnknownKey));
    assert_eq!(refused(&sealed(&key(1, "east", 2), endpoint(80))), Refusal::Token(TokenError::Forged));
    assert_eq!(refused(&sealed(&good, endpoint(22))), Refusal::Port);
    assert_eq!(refused(&sealed(&good, RouteToken::Service { id: 6, port: 80 })), Refusal::NoService);
    let nameless = ClientHello { server_name: None, alpn: Alpn::default() };
    assert_eq!(table.inbound(&nameless).map(|_| ()).unwrap_err(), Refusal::NoName);

    assert_eq!(table.egress(&asks("x.p80.west")).map(|_| ()).unwrap_err(), Refusal::OtherCluster);
    assert_eq!(table.egress(&asks("p80.east")).map(|_| ()).unwrap_err(), Refusal::BadName);
    assert_eq!(table.egress(&asks("x.p80.east")).unwrap().gateways.len(), 1);
    assert_eq!(table.egress(&asks("control.east")).unwrap().gateways.len(), 1);
}

#[test]
fn a_new_generation_keeps_the_counts_of_what_stays() {
    let first = table();
    let name = format!("{}.p80.west", token(&key(1, "east", 1), endpoint(80)));
    let Ok(Destination::Endpoint { peer, endpoint }) = first.inbound(&asks(&name)) else { panic!("refused") };
    let (_permit, _in_use) = (peer.enter().unwrap(), endpoint.take());

    let mut next = config();
    next.keys = vec![key(9, "east", 2), key(1, "east", 1)];
    next.keys[0].max_connections = 1;
    next.services[0].endpoints.remove(1);
    let (second, faults) = Table::next(Arc::new(next), Some(&first));
    assert!(faults.is_empty());
    let Ok(Destination::Endpoint { peer, endpoint }) = second.inbound(&asks(&name)) else { panic!("refused") };
    assert_eq!((peer.open(), endpoint.open()), (1, 1));
    let _second = peer.enter().expect("the larger limit of the peer's keys counts");
    assert_eq!(peer.enter().unwrap_err(), Refusal::PeerLimit);
    assert!(!*peer.revoked.borrow());
}

#[test]
fn a_peer_without_keys_is_revoked_and_a_bad_key_takes_no_other_down() {
    let first = table();
    let peer = Arc::clone(&first.peers[&cluster("east")]);
    let mut next = config();
    next.keys = vec![TokenKey { secret: "short".into(), ..key(3, "north", 1) }, key(4, "south", 2)];
    let (second, faults) = Table::next(Arc::new(next), Some(&first));
    assert!(*peer.revoked.borrow());
    assert!(faults.len() == 1 && faults[0].contains("key 3 of north"), "{faults:?}");
    let name = format!("{}.p80.west", token(&key(4, "south", 2), endpoint(80)));
    assert!(second.inbound(&asks(&name)).is_ok());
}

proptest! {
    #[test]
    fn no_invented_name_is_admitted(name in "([a-z2-7]{0,63}\\.)?p[0-9]{1,5}\\.west|\\PC{0,80}") {
        let table = table();
        prop_assert!(table.inbound(&asks(&name)).is_err() || name == "control.west");
        let _ = table.egress(&asks(&name));
    }
}
