//! What a running proxy says would become of a request is what becomes of it.

use std::collections::BTreeMap;

use http::Method;
use veer_core::names::ObjectName;
use veer_core::route::{Backend, HttpMatch, HttpRoute, HttpRule, RouteKind, ValueMatch};
use veer_proxy::explain::{Explanation, Question};

use crate::failure::Several;
use crate::harness::app::App;
use crate::harness::{Client, PORT, Workload, host, run, until};

fn backend(name: &str, weight: u32) -> Backend {
    Backend { host: host(name), port: PORT, weight, invalid: None, filters: vec![], protocol: None }
}

async fn ask(proxy: &Workload, question: &Question) -> Explanation {
    let told = proxy.admin(&format!("/explain?{}", question.to_query())).await;
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
}

#[test]
fn a_running_proxy_tells_what_it_then_does() {
    run(async {
        let several = Several::new([App::text("a"), App::text("b")]).await;
        let canary = Workload::new(&several.control, "canary").start(&several.control).await;
        let _app = App::text("canary").listen(&canary).await;
        several.control.service("canary").at([&canary]).put();
        let user = HttpMatch { headers: vec![ValueMatch::exact("x-user", "ada")], ..HttpMatch::default() };
        let rules = vec![
            HttpRule { matches: vec![user], backends: vec![backend("canary", 1)], ..HttpRule::default() },
            HttpRule { backends: vec![backend("cart", 3), backend("canary", 1)], ..HttpRule::default() },
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

        let question = |headers: &[(&str, &str)]| Question {
            method: "GET".into(),
            authority: "cart".into(),
            target: "/items".into(),
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        until("the route acts", async || {
            let mut request = client.request(Method::GET, "cart", "/items", b"");
            request.headers_mut().insert("x-user", "ada".parse().unwrap());
            client.ask(request).await.unwrap().text() == "canary"
        })
        .await;
        let told = ask(&several.client, &question(&[("X-User", "ada")])).await;
        assert_eq!(told.rule.unwrap().index, 0);
        assert_eq!(told.backends.len(), 1);
        assert_eq!((told.backends[0].host.as_str(), told.backends[0].share), (host("canary").as_str(), 100.0));

        let told = ask(&several.client, &question(&[])).await;
        assert_eq!(told.rule.unwrap().index, 1);
        let mut shares = BTreeMap::new();
        for _ in 0..80 {
            *shares.entry(client.get("cart", "/items").await.unwrap().text()).or_insert(0.0) += 1.0 / 0.8;
        }
        for copy in &told.backends[0].clusters[0].endpoints {
            let text = if &*copy.workload.name == "cart-0" { "a" } else { "b" };
            let said = told.backends[0].share * copy.share / 100.0;
            assert!((shares[text] - said).abs() < 12.0, "{text}: said {said}, did {}", shares[text]);
        }
        assert!((shares["canary"] - told.backends[1].share).abs() < 3.0, "{shares:?}");
    });
}

#[test]
fn a_copy_that_cannot_be_reached_is_told() {
    run(async {
        let mut several = Several::new([App::text("a"), App::text("b")]).await;
        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        for _ in 0..4 {
            client.get("cart", "/").await.unwrap();
        }
        several.servers[1].kill().await;
        let question = Question { method: "GET".into(), authority: "cart".into(), target: "/".into(), headers: vec![] };
        until("the dead one is told", async || {
            client.get("cart", "/").await.unwrap();
            let told = ask(&several.client, &question).await;
            let copies = &told.backends[0].clusters[0].endpoints;
            let of = |name: &str| copies.iter().find(|copy| &*copy.workload.name == name).unwrap();
            of("cart-1").why.starts_with("cannot be reached")
                && of("cart-1").share == 0.0
                && of("cart-0").share == 100.0
        })
        .await;
    });
}
