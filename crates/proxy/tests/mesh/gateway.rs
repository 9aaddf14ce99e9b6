//! Another cluster, reached only through its gateways: real ones, two of them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use veer_core::endpoints::ServiceToken;
use veer_core::gateway::{GatewayConfig, GatewayService, Lease, TokenKey};
use veer_core::inbound::{MESH_PORT, OfferedTo};
use veer_core::policy::TrafficPolicy;
use veer_core::{ClusterEndpoints, Endpoints, Path, PathGateway, Reach};
use veer_identity::{RouteToken, TokenCrypter};
use veer_net::DrainTrigger;
use veer_proxy::gateway::{Gateway, GatewayProcessConfig};
use veer_telemetry::Metrics;

use crate::harness::app::App;
use crate::harness::{Client, Control, PORT, TARGET_PORT, Workload, address, host, run, until};

/// West serves, east calls.
struct Two {
    west: Control,
    east: Control,
    caller: Workload,
    servers: Vec<Workload>,
    apps: Vec<Rc<App>>,
    gateways: Vec<(Gateway, SocketAddr, DrainTrigger)>,
    path: Path,
}

fn key(id: u32) -> TokenKey {
    let east = veer_core::ClusterName::new("east").unwrap();
    TokenKey { id, peer: east, secret: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into(), max_connections: 1000 }
}

fn seal(id: u32, token: RouteToken) -> Arc<str> {
    TokenCrypter::new(&key(id)).unwrap().seal(&token).into()
}

impl Two {
    async fn new() -> Self {
        let (west, east) = (Control::start().await, Control::of("east").await);
        west.put(east.domain.as_str(), &east.ca.ca.bundle());
        east.put(west.domain.as_str(), &west.ca.ca.bundle());
        let (mut servers, mut apps) = (Vec::new(), Vec::new());
        for name in ["cart-0", "cart-1"] {
            let mut server = Workload::new(&west, name);
            server.inbound.offered_to = vec![OfferedTo {
                trust_domain: east.domain.clone(),
                cluster: None,
                ports: vec![TARGET_PORT],
                safe_only: vec![],
            }];
            let server = server.start(&west).await;
            apps.push(App::echo().listen(&server).await);
            servers.push(server);
        }
        let caller = Workload::new(&east, "web").start(&east).await;

        let mut gateways = Vec::new();
        for name in ["g0", "g1"] {
            let mut config = GatewayProcessConfig::new(name, west.cluster.clone(), address());
            config.admin = None;
            let public = config.public;
            let (trigger, drain) = veer_net::drain();
            let gateway = Gateway::new(config, Metrics::new(), drain);
            let doors = gateway.bind(false).await.unwrap();
            let serving = gateway.clone();
            tokio::task::spawn_local(async move { serving.serve(doors).await });
            gateways.push((gateway, public, trigger));
        }
        let replicas = gateways.iter().zip(["g0", "g1"]);
        let path = Path {
            cluster: west.cluster.clone(),
            trust_domain: west.domain.clone(),
            gateways: replicas
                .map(|((_, public, _), name)| PathGateway {
                    name: name.into(),
                    address: *public,
                    weight: 1,
                    draining: false,
                })
                .collect(),
            lease: Lease::Fresh,
            lease_duration: veer_core::policy::DEFAULT_LEASE,
        };
        let two = Self { west, east, caller, servers, apps, gateways, path };
        two.learn(1);
        two.east.service("cart").put();
        two.state(1);
        two
    }

    /// The gateways open tokens of this key only.
    fn learn(&self, id: u32) {
        let service = GatewayService {
            id: 7,
            host: host("cart"),
            endpoints: self.servers.iter().map(|server| SocketAddr::new(server.address, MESH_PORT)).collect(),
        };
        let config = GatewayConfig {
            cluster: self.west.cluster.clone(),
            mesh_port: MESH_PORT,
            control: vec![],
            keys: vec![key(id)],
            services: vec![service],
            egress: vec![],
            rotate: 0,
        };
        for (gateway, ..) in &self.gateways {
            assert_eq!(gateway.learn(Arc::new(config.clone())), Vec::<String>::new());
        }
    }

    /// East hears of the path and of the endpoints, with tokens of this key; service tokens are always of the second.
    fn state(&self, id: u32) {
        let endpoints = self.servers.iter().map(|server| {
            let mut endpoint = server.endpoint();
            let token = RouteToken::Endpoint { addr: server.address, port: TARGET_PORT };
            endpoint.ports[0].token = seal(id, token);
            endpoint
        });
        let any = ServiceToken {
            service_port: PORT,
            target_port: TARGET_PORT,
            token: seal(2, RouteToken::Service { id: 7, port: TARGET_PORT }),
            identities: self.servers.iter().map(|server| server.inbound.identity.clone()).collect(),
        };
        let cluster = ClusterEndpoints {
            cluster: self.west.cluster.clone(),
            reach: Reach::Gateway,
            endpoints: endpoints.collect(),
            service_tokens: vec![any],
        };
        let policy = TrafficPolicy { slow_start: Duration::ZERO, ..TrafficPolicy::default() };
        self.east.put(self.west.cluster.as_str(), &self.path);
        self.east.put(
            host("cart").as_str(),
            &Endpoints { host: host("cart"), policy, clusters: vec![cluster], tls: Vec::new(), external: None },
        );
    }

    async fn client(&self) -> Client {
        Client::http2(self.caller.outbound()).await.unwrap()
    }
}

#[test]
fn every_request_is_balanced_through_a_blind_gateway() {
    run(async {
        let two = Two::new().await;
        let mut client = two.client().await;
        for number in 0..100 {
            let answer = client.post("cart", "/", b"x").await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "request {number}: {}", answer.text());
        }
        let counts: Vec<usize> = two.apps.iter().map(|app| app.count()).collect();
        // Not halves: on a busy machine one may really be the slower one, and gets less.
        assert!(counts.iter().all(|count| *count >= 10), "{counts:?}");
        // Whom the gateway cannot be: the application sees the caller itself.
        let seen = two.apps[0].seen.borrow()[0].headers()["x-veer-client-id"].clone();
        assert_eq!(seen, "spiffe://east.example/ns/shop/sa/web");
        assert_eq!(two.caller.metric("veer_path_connections_total", &["west", "ok"]).await, 2.0);
    });
}

#[test]
fn a_gateway_that_dies_costs_no_get_and_one_that_drains_not_even_a_post() {
    run(async {
        let mut two = Two::new().await;
        let mut client = two.client().await;
        for _ in 0..20 {
            assert_eq!(client.get("cart", "/").await.unwrap().status, StatusCode::OK);
        }
        // Dropping the trigger ends it at once, with all that it relays.
        let (_, _, trigger) = two.gateways.remove(0);
        drop(trigger);
        for number in 0..100 {
            let answer = client.get("cart", "/").await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "request {number}: {}", answer.text());
        }
        assert_eq!(two.caller.metric("veer_path_up", &["g1"]).await, 1.0);

        let mut two = Two::new().await;
        let mut client = two.client().await;
        let load = async {
            for number in 0..200 {
                let answer = client.post("cart", "/", b"x").await.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "request {number}: {}", answer.text());
            }
        };
        let drain = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            two.path.gateways[0].draining = true;
            two.state(1);
        };
        tokio::join!(load, drain);
        until("no connection is left at the gateway that drains", async || {
            client.post("cart", "/", b"x").await.unwrap();
            two.gateways[0].0.open_connections() == 0
        })
        .await;
    });
}

#[test]
fn in_silence_stale_tokens_are_replaced_by_the_services_own() {
    run(async {
        let mut two = Two::new().await;
        let mut client = two.client().await;
        assert_eq!(client.get("cart", "/").await.unwrap().status, StatusCode::OK);
        two.path.lease = Lease::Silent;
        // A rollout behind the silence: tokens of the first key are of no use any more.
        two.state(1);
        two.learn(2);
        for server in &two.servers {
            let mut gone = server.inbound.clone();
            gone.ports.clear();
            two.west.put(&server.name.to_string(), &gone);
        }
        until("the ports are gone", async || client.get("cart", "/").await.unwrap().status != StatusCode::OK).await;
        for server in &two.servers {
            two.west.state(server);
        }
        until("the service token serves", async || client.get("cart", "/").await.unwrap().status == StatusCode::OK)
            .await;
    });
}
