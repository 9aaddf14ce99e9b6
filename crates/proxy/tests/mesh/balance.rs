//! Requests are balanced one by one, and routes decide where.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use veer_core::hashing::{ConsistentHash, HashKey, HashTable};
use veer_core::names::ObjectName;
use veer_core::policy::Adaptive;
use veer_core::route::{
    Backend, Filter, HeaderChange, HeaderField, HttpMatch, HttpRoute, HttpRule, PathMatch, RouteKind, ValueMatch,
};

use crate::failure::Several;
use crate::harness::app::{App, answer};
use crate::harness::{Client, PORT, Workload, host, run, until};

#[test]
fn one_connection_spreads_evenly_over_all_endpoints() {
    run(async {
        let several = Several::new([App::text("a"), App::text("b"), App::text("c")]).await;
        let mut client = Client::http2(several.client.outbound()).await.unwrap();
        // On a machine that is busy with other tests one of them may really be slower for a while.
        until("shares are equal", async || {
            several.apps.iter().for_each(|app| app.seen.borrow_mut().clear());
            for _ in 0..300 {
                client.get("cart", "/").await.unwrap();
            }
            let counts = several.apps.iter().map(|app| app.count());
            counts.clone().max().unwrap() * 10 <= counts.min().unwrap() * 11
        })
        .await;
        assert_eq!(several.client.metric("veer_tls_handshakes_total", &["outbound", "ok"]).await, 3.0);
    });
}

#[test]
fn many_at_once_share_the_dial() {
    run(async {
        let several = Several::new([App::new(|_| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer("ok")
        })])
        .await;
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let outbound = several.client.outbound();
            asking.spawn_local(async move {
                let mut client = Client::http1(outbound).await.unwrap();
                assert_eq!(client.get("cart", "/").await.unwrap().text(), "ok");
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
        assert_eq!(several.client.metric("veer_tls_handshakes_total", &["outbound", "ok"]).await, 1.0);
    });
}

#[test]
fn routes_choose_by_header_weight_and_path() {
    run(async {
        let several = Several::new([App::text("stable")]).await;
        let canary = Workload::new(&several.control, "canary").start(&several.control).await;
        let app = App::text("canary").listen(&canary).await;
        several.control.service("canary").at([&canary]).put();

        let backend = |name: &str, weight| Backend {
            host: host(name),
            port: PORT,
            weight,
            invalid: None,
            filters: vec![],
            protocol: None,
        };
        let user = ValueMatch::exact("x-user", "ann");
        let path = |path: &str| HttpMatch { path: Some(PathMatch::Prefix(path.into())), ..HttpMatch::default() };
        let tag = HeaderChange {
            set: vec![HeaderField { name: "x-tag".into(), value: "1".into() }],
            ..HeaderChange::default()
        };
        let rules = vec![
            HttpRule {
                matches: vec![HttpMatch { headers: vec![user], ..HttpMatch::default() }],
                filters: vec![Filter::RequestHeaders(tag.clone()), Filter::ResponseHeaders(tag)],
                backends: vec![backend("canary", 1)],
                ..HttpRule::default()
            },
            HttpRule {
                matches: vec![path("/old")],
                filters: vec![Filter::Redirect { scheme: None, host: None, port: None, path: None, status: 301 }],
                ..HttpRule::default()
            },
            HttpRule {
                matches: vec![path("/split")],
                backends: vec![backend("cart", 90), backend("canary", 10)],
                ..HttpRule::default()
            },
        ];
        let route = HttpRoute {
            name: ObjectName::new("shop", "cart"),
            kind: RouteKind::Http,
            created: None,
            rules,
            consumer_namespace: None,
            owner: None,
            parent_port: None,
        };
        several.control.service("cart").at(&several.servers).route(route).put();

        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        let mut request = client.request(Method::GET, "cart", "/", b"");
        request.headers_mut().insert("x-user", "ann".parse().unwrap());
        let answer = client.ask(request).await.unwrap();
        assert_eq!((answer.text().as_str(), answer.header("x-tag")), ("canary", "1"));
        assert_eq!(app.seen.borrow()[0].headers()["x-tag"], "1");
        let answer = client.get("cart", "/old/way").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.header("location")), (301, "http://cart/old/way"));
        let answer = client.get("cart", "/nowhere").await.unwrap();
        assert!(answer.status.as_u16() == 404 && answer.text().starts_with("veer: NR"), "{}", answer.text());
        let mut shares = HashMap::new();
        for _ in 0..400 {
            *shares.entry(client.get("cart", "/split").await.unwrap().text()).or_insert(0) += 1;
        }
        assert!((15..=75).contains(&shares["canary"]), "{shares:?}");
    });
}

#[test]
fn requests_with_one_key_go_to_one_endpoint_and_to_the_next_while_it_is_gone() {
    run(async {
        let mut several = Several::new([App::text("a"), App::text("b"), App::text("c")]).await;
        let hash = ConsistentHash { table: HashTable::Maglev, key: HashKey::Header("x-user".into()) };
        several.control.service("cart").at(&several.servers).policy(|policy| policy.hash = Some(hash.into())).put();
        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        async fn ask(client: &mut Client, user: &str) -> String {
            let mut request = client.request(Method::GET, "cart", "/", b"");
            request.headers_mut().insert("x-user", user.parse().unwrap());
            client.ask(request).await.unwrap().text()
        }
        until("keys lead", async || {
            let first = ask(&mut client, "ada").await;
            let mut same = true;
            for _ in 0..6 {
                same &= ask(&mut client, "ada").await == first;
            }
            same
        })
        .await;
        let mut before = HashMap::new();
        for user in 0..30 {
            let user = format!("user-{user}");
            before.insert(user.clone(), ask(&mut client, &user).await);
        }
        let used: std::collections::HashSet<_> = before.values().collect();
        assert_eq!(used.len(), 3, "{before:?}");
        let mut plain = std::collections::HashSet::new();
        for _ in 0..9 {
            plain.insert(client.get("cart", "/").await.unwrap().text());
        }
        assert_eq!(plain.len(), 3, "requests without the key are balanced as ever");

        several.servers[1].kill().await;
        until("the others serve all", async || {
            let mut settled = true;
            for (user, first) in &before {
                let now = ask(&mut client, user).await;
                settled &= if first == "b" { now != "b" } else { now == *first };
            }
            settled
        })
        .await;
    });
}

#[test]
fn the_limit_in_flight_follows_the_latency() {
    run(async {
        let slow = App::new(|_| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer("slow")
        });
        let several = Several::new([slow]).await;
        let adaptive = Adaptive { latency: Duration::from_millis(5), min_requests: 2 };
        let put = several.control.service("cart").at(&several.servers);
        put.policy(|policy| policy.circuit_breaker.adaptive = Some(adaptive)).put();
        until("too slow for the policy: only the least is let in", async || {
            let mut asking = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let outbound = several.client.outbound();
                asking.spawn_local(async move {
                    let mut client = Client::http1(outbound).await.unwrap();
                    for _ in 0..4 {
                        client.get("cart", "/").await.unwrap();
                    }
                });
            }
            while let Some(asked) = asking.join_next().await {
                asked.unwrap();
            }
            several.client.metric("veer_concurrency_limit", &["cart.shop"]).await == 2.0
        })
        .await;
        let mut client = Client::http2(several.client.outbound()).await.unwrap();
        assert_eq!(client.get("cart", "/").await.unwrap().text(), "slow", "the least is always let in");
        assert!(several.client.metric("veer_requests_total", &["flag=\"UO\""]).await >= 1.0);
    });
}
