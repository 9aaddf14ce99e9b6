//! Who may come is decided at the callee, by who the handshake proved.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use veer_core::inbound::{MtlsMode, OfferedTo};
use veer_core::policy::{AuthorizationAction, AuthorizationPolicy, AuthorizationRule, CallerMatch, RequestMatch};
use veer_core::rate::{Per, RateLimit};
use veer_core::{ClusterEndpoints, Endpoints, Path, Reach, Service};

use crate::harness::app::App;
use crate::harness::{Client, Control, Pair, TARGET_PORT, Workload, host, run, until};

fn policy(action: AuthorizationAction, from: &str, path: &str) -> AuthorizationPolicy {
    let from = CallerMatch { principals: vec![from.into()], ..CallerMatch::default() };
    let to = RequestMatch { paths: vec![path.into()], ..RequestMatch::default() };
    AuthorizationPolicy {
        name: "shop/test".into(),
        action,
        rules: vec![AuthorizationRule { from: vec![from], to: vec![to] }],
    }
}

#[test]
fn policies_act_on_the_next_request_of_an_open_connection() {
    run(async {
        let mut pair = Pair::new(App::text("in")).await;
        let mut client = Client::http2(pair.client.outbound()).await.unwrap();
        assert_eq!(client.get("cart", "/open").await.unwrap().text(), "in");

        pair.server.inbound.authorization =
            vec![policy(AuthorizationAction::Allow, "spiffe://west.example/ns/shop/sa/web", "/open")];
        pair.control.state(&pair.server);
        until("the policy acts", async || client.get("cart", "/other").await.unwrap().status == StatusCode::FORBIDDEN)
            .await;
        let answer = client.get("cart", "/other").await.unwrap();
        assert!(answer.text().starts_with("veer: RBAC access denied"), "{}", answer.text());
        assert_eq!(answer.header("veer-error"), "");
        assert_eq!(client.get("cart", "/open").await.unwrap().text(), "in");
        // A disguised path is not another one.
        assert_eq!(client.get("cart", "/open/../other").await.unwrap().status, StatusCode::FORBIDDEN);

        pair.server.inbound.authorization =
            vec![policy(AuthorizationAction::Deny, "spiffe://west.example/ns/shop/*", "*")];
        pair.control.state(&pair.server);
        until("the denial acts", async || client.get("cart", "/open").await.unwrap().status == StatusCode::FORBIDDEN)
            .await;
        let mut request = client.request(http::Method::POST, "cart", "/a.B/C", b"");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        assert_eq!(client.ask(request).await.unwrap().header("grpc-status"), "7");
        assert!(
            pair.server.metric("veer_requests_total", &["inbound", "flag=\"RBAC\"", "status=\"403\""]).await >= 2.0
        );
        assert!(pair.client.metric("veer_requests_total", &["outbound", "flag=\"RBAC\""]).await >= 2.0);
        // A refusal by policy is nobody's failure.
        assert_eq!(pair.client.metric("veer_retries_total", &[]).await, 0.0);
    });
}

#[test]
fn strict_takes_no_plaintext() {
    run(async {
        let mut pair = Pair::new(App::text("in")).await;
        let door = (pair.server.address, TARGET_PORT).into();
        until("the workload's port is open", async || Client::http1(door).await.is_ok()).await;
        let mut plain = Client::http1(door).await.unwrap();
        let mut request = plain.request(http::Method::GET, "cart", "/", b"");
        request.headers_mut().insert("x-veer-client-id", "spiffe://west.example/ns/shop/sa/admin".parse().unwrap());
        assert_eq!(plain.ask(request).await.unwrap().text(), "in");
        assert!(!pair.app.seen.borrow()[0].headers().contains_key("x-veer-client-id"));

        pair.server.inbound.mtls = MtlsMode::Strict;
        pair.control.state(&pair.server);
        until("strict acts", async || plain.get("cart", "/").await.unwrap().status == StatusCode::FORBIDDEN).await;
        assert!(plain.get("cart", "/").await.unwrap().text().contains("mutual TLS only"));
        assert!(pair.server.metric("veer_requests_total", &["flag=\"RBAC\""]).await >= 1.0);
        // Bytes that are no HTTP are closed.
        let mut raw = tokio::net::TcpStream::connect(door).await.unwrap();
        raw.write_all(&[0, 1, 2, 3]).await.unwrap();
        assert_eq!(raw.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert!(pair.server.metric("veer_refused_connections_total", &["RBAC"]).await >= 1.0);
        // The mesh still comes in.
        let mut client = Client::http1(pair.client.outbound()).await.unwrap();
        assert_eq!(client.get("cart", "/").await.unwrap().text(), "in");
    });
}

#[test]
fn a_foreign_cluster_comes_only_to_what_was_offered() {
    run(async {
        let (west, east) = (Control::start().await, Control::of("east").await);
        let mut server = Workload::new(&west, "cart").start(&west).await;
        let app = App::text("offered").listen(&server).await;
        let caller = Workload::new(&east, "web").start(&east).await;

        // East knows west: a flat path, its roots, an endpoint.
        let path = Path {
            cluster: west.cluster.clone(),
            trust_domain: west.domain.clone(),
            gateways: vec![],
            lease: veer_core::gateway::Lease::Fresh,
            lease_duration: veer_core::policy::DEFAULT_LEASE,
        };
        east.put(west.cluster.as_str(), &path);
        east.put(west.domain.as_str(), &west.ca.ca.bundle());
        west.service("cart").at([&server]).put();
        east.service("cart").put();
        let cluster = ClusterEndpoints {
            cluster: west.cluster.clone(),
            reach: Reach::Flat,
            endpoints: vec![server.endpoint()],
            service_tokens: vec![],
        };
        east.put(
            host("cart").as_str(),
            &Endpoints {
                host: host("cart"),
                policy: Default::default(),
                clusters: vec![cluster],
                tls: Vec::new(),
                external: None,
            },
        );

        // West does not know east: no handshake.
        let mut client = Client::http1(caller.outbound()).await.unwrap();
        assert_eq!(client.get("cart", "/").await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);

        // West knows east, but has offered it nothing.
        west.put(east.domain.as_str(), &east.ca.ca.bundle());
        server.inbound.offered_to =
            vec![OfferedTo { trust_domain: east.domain.clone(), cluster: None, ports: vec![], safe_only: vec![] }];
        west.state(&server);
        until("the handshake succeeds", async || {
            client.get("cart", "/").await.unwrap().status == StatusCode::FORBIDDEN
        })
        .await;
        assert_eq!(app.count(), 0);

        server.inbound.offered_to[0].ports = vec![TARGET_PORT];
        west.state(&server);
        until("it is offered", async || client.get("cart", "/").await.unwrap().text() == "offered").await;
        assert_eq!(app.seen.borrow()[0].headers()["x-veer-client-id"], "spiffe://east.example/ns/shop/sa/web");

        // Only safe methods: others, and streams whose requests nobody sees, are refused; the own cluster's callers are not.
        server.inbound.offered_to[0].safe_only = vec![TARGET_PORT];
        west.state(&server);
        until("unsafe methods are refused", async || {
            client.post("cart", "/", b"x").await.unwrap().status == StatusCode::FORBIDDEN
        })
        .await;
        let refused = client.post("cart", "/", b"x").await.unwrap();
        assert!(refused.text().contains("for GET, HEAD and OPTIONS only"), "{}", refused.text());
        let seen = app.count();
        for (method, passes) in
            [(Method::GET, true), (Method::HEAD, true), (Method::OPTIONS, true), (Method::DELETE, false)]
        {
            let answer = client.ask(client.request(method.clone(), "cart", "/", b"")).await.unwrap();
            assert_eq!(answer.status == StatusCode::OK, passes, "{method}");
        }
        let mut upgrade = client.request(Method::GET, "cart", "/", b"");
        upgrade.headers_mut().insert("connection", "upgrade".parse().unwrap());
        upgrade.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        assert_eq!(client.ask(upgrade).await.unwrap().status, StatusCode::FORBIDDEN);
        assert_eq!(app.count(), seen + 3, "nothing of it reached the application");
        let own = Workload::new(&west, "own").start(&west).await;
        let mut neighbour = Client::http1(own.outbound()).await.unwrap();
        assert_eq!(neighbour.post("cart", "/", b"x").await.unwrap().text(), "offered");

        // The peer is unlinked: what is open is cut.
        west.remove::<veer_core::inbound::TrustBundle>(east.domain.as_str());
        until("the peer is distrusted", async || {
            client.get("cart", "/").await.unwrap().status == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        east.remove::<Service>(host("cart").as_str());
    });
}

#[test]
fn what_is_more_than_the_limit_is_told_when_to_come_back() {
    run(async {
        let control = Control::start().await;
        let limit = |per, requests| RateLimit {
            per,
            requests,
            interval: Duration::from_secs(600),
            burst: requests,
            by: "TrafficPolicy shop/cart".into(),
        };
        let mut server = Workload::new(&control, "cart-0");
        server.inbound.ports[0].limits = vec![limit(Per::Caller, 2), limit(Per::All, 3)];
        let server = server.start(&control).await;
        let app = App::text("cart").listen(&server).await;
        control.service("cart").at([&server]).put();
        let web = Workload::new(&control, "web").start(&control).await;
        let other = Workload::new(&control, "other").start(&control).await;
        let mut client = Client::http1(web.outbound()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(client.get("cart", "/").await.unwrap().text(), "cart");
        }
        let refused = client.get("cart", "/").await.unwrap();
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert!((299..=300).contains(&refused.header("retry-after").parse::<u32>().unwrap()), "{refused:?}");
        assert!(refused.text().contains("2 requests per 600s of each caller"), "{}", refused.text());

        // The other has a bucket of its own, and all have one together, which the refused request took nothing of.
        let mut second = Client::http2(other.outbound()).await.unwrap();
        assert_eq!(second.get("cart", "/").await.unwrap().text(), "cart");
        let mut request = second.request(Method::POST, "cart", "/", b"");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let refused = second.ask(request).await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.header("grpc-status")), (200, "8"), "{refused:?}");
        assert!(refused.header("grpc-retry-pushback-ms").parse::<u64>().unwrap() > 100_000, "{refused:?}");
        assert_eq!(app.count(), 3, "what is refused does not reach the application");
        assert_eq!(server.metric("veer_rate_limited_requests_total", &["per=\"caller\""]).await, 1.0);
        assert_eq!(server.metric("veer_rate_limited_requests_total", &["per=\"all\""]).await, 1.0);
        assert!(server.metric("veer_requests_total", &["flag=\"RL\""]).await >= 2.0);
        assert_eq!(web.metric("veer_retries_total", &[]).await, 0.0);
    });
}
