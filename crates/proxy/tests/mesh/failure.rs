//! What goes wrong is led elsewhere, repeated where that is safe, and told as it is.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use veer_core::names::ObjectName;
use veer_core::route::{Backend, HttpRoute, HttpRule, Retry, RouteKind, Timeouts};

use crate::harness::app::{App, answer};
use crate::harness::{Client, Control, PORT, Pair, Workload, host, run, until};

/// A client and servers of the service `cart`, each with its own application.
pub struct Several {
    pub control: Control,
    pub client: Workload,
    pub servers: Vec<Workload>,
    pub apps: Vec<Rc<App>>,
}

impl Several {
    pub async fn new(apps: impl IntoIterator<Item = App>) -> Self {
        let control = Control::start().await;
        let client = Workload::new(&control, "web").start(&control).await;
        let (mut servers, mut listening) = (Vec::new(), Vec::new());
        for (number, app) in apps.into_iter().enumerate() {
            let server = Workload::new(&control, &format!("cart-{number}")).start(&control).await;
            listening.push(app.listen(&server).await);
            servers.push(server);
        }
        control.service("cart").at(&servers).put();
        Self { control, client, servers, apps: listening }
    }
}

fn rule(change: impl FnOnce(&mut HttpRule)) -> HttpRoute {
    let backend = Backend { host: host("cart"), port: PORT, weight: 1, invalid: None, filters: vec![], protocol: None };
    let mut rule = HttpRule { backends: vec![backend], ..HttpRule::default() };
    change(&mut rule);
    HttpRoute {
        name: ObjectName::new("shop", "cart"),
        kind: RouteKind::Http,
        created: None,
        rules: vec![rule],
        consumer_namespace: None,
        owner: None,
        parent_port: None,
    }
}

#[test]
fn a_lost_connection_is_repeated_for_get_and_told_for_post() {
    run(async {
        let several = Several::new([App::echo(), App::echo()]).await;
        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        let cut_all = |times| several.apps.iter().for_each(|app| app.cuts.set(times));

        several.apps[0].cuts.set(1);
        for _ in 0..4 {
            assert_eq!(client.get("cart", "/a").await.unwrap().text(), "GET /a ");
        }
        assert_eq!(several.apps[0].cuts.get(), 0);
        assert_eq!(several.client.metric("veer_retries_total", &["connection_lost"]).await, 1.0);

        cut_all(1);
        let answer = client.post("cart", "/a", b"once").await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.text().starts_with("veer: UC"), "{}", answer.text());
        assert_eq!(answer.header("veer-error"), "");
        // Exactly one of them has seen it.
        assert_eq!(several.apps.iter().map(|app| app.cuts.get()).sum::<u32>(), 1);
        cut_all(0);

        // A rule that says so repeats POST as well, with its body.
        let retry = rule(|rule| rule.retry = Some(Retry { codes: vec![], attempts: Some(2), backoff: None }));
        several.control.service("cart").at(&several.servers).route(retry).put();
        several.apps[0].cuts.set(1);
        until("the rule repeats a POST", async || {
            let mut client = Client::http1(several.client.outbound()).await.unwrap();
            let answer = client.post("cart", "/b", b"twice").await.unwrap();
            answer.text() == "POST /b twice" && several.apps[0].cuts.get() == 0
        })
        .await;
    });
}

#[test]
fn a_post_that_reached_nobody_is_led_elsewhere() {
    run(async {
        let several = Several::new([App::echo()]).await;
        // Stated, but nobody is there.
        let absent = Workload::new(&several.control, "gone");
        several.control.service("cart").at(&several.servers).at([&absent]).put();
        let mut client = Client::http2(several.client.outbound()).await.unwrap();
        for number in 0..20 {
            let body = vec![number; 100_000];
            let answer = client.post("cart", "/", &body).await.unwrap();
            assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 100_007));
        }
        assert!(several.client.metric("veer_reroutes_total", &["gone"]).await >= 1.0);
        assert_eq!(several.client.metric("veer_retries_total", &[]).await, 0.0);
        let dump: serde_json::Value = serde_json::from_str(&several.client.admin("/dump").await).unwrap();
        let endpoints = dump["services"][0]["clusters"][0]["endpoints"].as_array().unwrap();
        let gone = endpoints.iter().find(|e| e["workload"] == "shop/gone").unwrap();
        assert_eq!(gone["state"], "unreachable", "{gone}");

        // It comes, and is found by dialling in the background.
        let app = App::echo().listen(&absent).await;
        let _absent = absent.start(&several.control).await;
        until("the endpoint is back", async || {
            client.get("cart", "/").await.unwrap();
            app.count() > 0
        })
        .await;
    });
}

#[test]
fn a_proxy_killed_under_load_costs_no_request() {
    run(async {
        let mut several = Several::new([App::text("a"), App::text("b"), App::text("c")]).await;
        let mut client = Client::http2(several.client.outbound()).await.unwrap();
        for _ in 0..30 {
            assert_eq!(client.get("cart", "/").await.unwrap().status, StatusCode::OK);
        }
        several.servers[1].kill().await;
        for number in 0..200 {
            let answer = client.get("cart", "/").await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "request {number}: {}", answer.text());
        }
    });
}

#[test]
fn a_proxy_that_ends_in_order_costs_no_request_not_even_a_post() {
    run(async {
        let mut several = Several::new([App::echo(), App::echo()]).await;
        let outbound = several.client.outbound();
        let load = tokio::task::spawn_local(async move {
            let mut client = Client::http2(outbound).await.unwrap();
            for number in 0..300 {
                let answer = client.post("cart", "/", b"x").await.unwrap();
                assert_eq!(answer.status, StatusCode::OK, "request {number}: {}", answer.text());
                tokio::task::yield_now().await;
            }
        });
        several.servers[0].stop().await;
        load.await.unwrap();
    });
}

#[test]
fn time_limits_hold() {
    run(async {
        let pair = Pair::new(App::new(|request| async move {
            if request.uri().path() == "/slow" {
                std::future::pending::<()>().await;
            }
            answer("quick")
        }))
        .await;
        let limits = |request, one| rule(|rule| rule.timeouts = Timeouts { request, backend_request: one });
        let state = |request, one| pair.control.service("cart").at([&pair.server]).route(limits(request, one)).put();
        state(Some(Duration::from_millis(150)), None);
        let mut client = Client::http1(pair.client.outbound()).await.unwrap();
        let answer = client.get("cart", "/slow").await.unwrap();
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert!(answer.text().starts_with("veer: UT"), "{}", answer.text());
        assert_eq!(pair.client.metric("veer_retries_total", &[]).await, 0.0);
        assert_eq!(client.get("cart", "/").await.unwrap().text(), "quick");

        // A limit on one try leaves room for others.
        state(None, Some(Duration::from_millis(50)));
        until("tries are limited and repeated", async || {
            assert_eq!(client.get("cart", "/slow").await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
            pair.client.metric("veer_retries_total", &["timeout"]).await >= 2.0
        })
        .await;
        assert_eq!(client.get("cart", "/").await.unwrap().text(), "quick");
        assert!(pair.client.metric("veer_requests_total", &["flag=\"UT\"", "status=\"504\""]).await >= 2.0);
    });
}

#[test]
fn an_endpoint_that_fails_is_ejected_for_all_to_see() {
    run(async {
        let failing = App::new(|_| async {
            let mut response = answer("no");
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        });
        let several = Several::new([failing, App::text("yes"), App::text("yes")]).await;
        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        let mut failures = 0;
        for _ in 0..60 {
            failures += u32::from(client.get("cart", "/").await.unwrap().status == StatusCode::INTERNAL_SERVER_ERROR);
        }
        // Five in a row, never repeated: an application's own 5xx is its answer.
        assert_eq!(failures, 5);
        assert_eq!(several.client.metric("veer_endpoints", &["state=\"ejected\""]).await, 1.0);
        assert_eq!(several.client.metric("veer_endpoint_ejections_total", &["consecutive"]).await, 1.0);
        let dump = several.client.admin("/dump").await;
        assert!(dump.contains("\"state\": \"ejected\""), "{dump}");
    });
}

#[test]
fn a_body_that_breaks_off_is_never_taken_for_whole() {
    run(async {
        let broken = App::new(|_| async {
            let frames = stream::unfold(0, |count| async move {
                if count == 3 {
                    // The application's connection is cut by its end below.
                    std::future::pending::<()>().await;
                }
                Some((Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"part"))), count + 1))
            });
            http::Response::new(StreamBody::new(frames).boxed_unsync())
        });
        let pair = Pair::new(broken).await;
        let mut client = Client::http1(pair.client.outbound()).await.unwrap();
        let request = client.request(Method::GET, "cart", "/", b"");
        let mut body = client.send(request).await.unwrap().into_body();
        let mut read = 0;
        while read < 12 {
            read += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        pair.app.kill();
        assert!(body.frame().await.unwrap().is_err());
        until("it is counted", async || {
            pair.client.metric("veer_requests_total", &["outbound", "flag=\"UC\"", "status=\"200\""]).await == 1.0
        })
        .await;
    });
}

#[test]
fn a_caller_that_goes_away_is_counted_once_on_both_sides() {
    run(async {
        let pair = Pair::new(App::new(|_| std::future::pending())).await;
        let mut client = Client::http1(pair.client.outbound()).await.unwrap();
        {
            let request = client.request(Method::GET, "cart", "/", b"");
            let asking = client.send(request);
            assert!(tokio::time::timeout(Duration::from_millis(300), asking).await.is_err());
        }
        until("the application has seen it", async || pair.app.count() == 1).await;
        drop(client);
        for workload in [&pair.client, &pair.server] {
            until("it is counted", async || workload.metric("veer_requests_total", &["flag=\"DC\""]).await == 1.0)
                .await;
        }
    });
}
