//! Faults injected on purpose, and what a spent retry budget answers.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;
use veer_core::fault::{Abort, FaultRule};
use veer_core::names::ObjectName;
use veer_core::policy::RetryBudget;
use veer_core::route::{Backend, HttpRoute, HttpRule, Retry, RouteKind, RulePolicy, Timeouts, ValueMatch};

use crate::failure::Several;
use crate::harness::app::{App, answer};
use crate::harness::{Client, PORT, host, run, until};

fn fault(percent: u32, headers: Vec<ValueMatch>) -> FaultRule {
    FaultRule { headers, numerator: percent, denominator: 100, delay: None, abort: None, by: Arc::default() }
}

fn abort(status: Option<u16>, grpc: Option<u8>) -> Option<Abort> {
    Some(Abort { status, grpc })
}

fn route(rule: HttpRule) -> HttpRoute {
    let backend = Backend { host: host("cart"), port: PORT, weight: 1, invalid: None, filters: vec![], protocol: None };
    HttpRoute {
        name: ObjectName::new("shop", "cart"),
        kind: RouteKind::Http,
        created: None,
        rules: vec![HttpRule { backends: vec![backend], ..rule }],
        consumer_namespace: None,
        owner: None,
        parent_port: None,
    }
}

/// States the faults.
fn state(several: &Several, faults: Vec<FaultRule>, route: Option<HttpRoute>) {
    let by = |policy: &mut veer_core::policy::TrafficPolicy| {
        policy.faults = faults;
        policy.by = vec!["TrafficPolicy shop/cart".into()];
    };
    let stated = several.control.service("cart").at(&several.servers).policy(by);
    match route {
        Some(route) => stated.route(route).put(),
        None => stated.put(),
    }
}

#[test]
fn requests_with_the_field_are_aborted_told_and_counted() {
    run(async {
        let several = Several::new([App::text("cart")]).await;
        let rule = FaultRule { abort: abort(Some(429), None), ..fault(100, vec![ValueMatch::exact("x-test", "a")]) };
        state(&several, vec![rule], None);
        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        let ask = async |client: &mut Client, kind: &str| {
            let mut request = client.request(Method::POST, "cart", "/", b"");
            request.headers_mut().insert("x-test", "a".parse().unwrap());
            request.headers_mut().insert("content-type", kind.parse().unwrap());
            client.ask(request).await.unwrap()
        };
        until("the fault acts", async || ask(&mut client, "text/plain").await.status == 429).await;
        let answer = ask(&mut client, "text/plain").await;
        assert_eq!(answer.header("x-veer-fault"), "abort");
        assert_eq!(answer.text(), "veer: FI a fault was injected on purpose by TrafficPolicy shop/cart\n");
        let seen = several.apps[0].count();
        let mut grpc = Client::http2(several.client.outbound()).await.unwrap();
        let answer = ask(&mut grpc, "application/grpc").await;
        assert_eq!((answer.status.as_u16(), answer.header("grpc-status")), (200, "14"), "as a client maps 429");
        assert_eq!(answer.header("x-veer-fault"), "abort");
        assert_eq!(several.apps[0].count(), seen, "nothing of it reached the application");
        let answer = client.get("cart", "/").await.unwrap();
        assert_eq!((answer.text().as_str(), answer.header("x-veer-fault")), ("cart", ""), "without the field");
        assert!(several.client.metric("veer_injected_faults_total", &["cart.shop", "abort"]).await >= 3.0);
        assert!(several.client.metric("veer_requests_total", &["flag=\"FI\""]).await >= 3.0);
    });
}

#[test]
fn a_share_of_requests_is_aborted_and_an_abort_for_grpc_alone_lets_others_pass() {
    run(async {
        let several = Several::new([App::text("cart")]).await;
        state(&several, vec![FaultRule { abort: abort(Some(503), Some(8)), ..fault(20, vec![]) }], None);
        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        until("the fault acts", async || client.get("cart", "/").await.unwrap().status == 503).await;
        let mut aborted = 0;
        for _ in 0..200 {
            aborted += u32::from(client.get("cart", "/").await.unwrap().status == 503);
        }
        assert!((38..=42).contains(&aborted), "{aborted} of 200");

        state(&several, vec![FaultRule { abort: abort(None, Some(8)), ..fault(100, vec![]) }], None);
        let mut grpc = Client::http2(several.client.outbound()).await.unwrap();
        until("the other acts", async || {
            let mut request = grpc.request(Method::POST, "cart", "/", b"");
            request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            grpc.ask(request).await.unwrap().header("grpc-status") == "8"
        })
        .await;
        assert_eq!(client.get("cart", "/").await.unwrap().text(), "cart");
    });
}

#[test]
fn a_delay_is_waited_told_and_counts_toward_the_time_of_the_request() {
    run(async {
        let several = Several::new([App::text("cart")]).await;
        let delay = Duration::from_millis(120);
        let rule = FaultRule { delay: Some(delay), ..fault(100, vec![]) };
        state(&several, vec![rule], None);
        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        until("the fault acts", async || client.get("cart", "/").await.unwrap().header("x-veer-fault") == "delay")
            .await;
        let begun = Instant::now();
        assert_eq!(client.get("cart", "/").await.unwrap().text(), "cart");
        assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
        assert!(several.client.metric("veer_injected_faults_total", &["cart.shop", "delay"]).await >= 2.0);

        let long = FaultRule { delay: Some(Duration::from_secs(600)), ..fault(100, vec![]) };
        let timeouts = Timeouts { request: Some(Duration::from_millis(200)), backend_request: None };
        state(&several, vec![long], Some(route(HttpRule { timeouts, ..HttpRule::default() })));
        until("the time is over before the delay is", async || {
            tokio::time::timeout(Duration::from_secs(5), client.get("cart", "/")).await.unwrap().unwrap().status == 504
        })
        .await;
    });
}

#[test]
fn what_a_policy_for_the_route_says_stands_over_the_services() {
    run(async {
        let slow = App::new(|_| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            answer("late")
        });
        let several = Several::new([slow]).await;
        let by = || "TrafficPolicy shop/web".into();
        let faults = vec![FaultRule { abort: abort(Some(418), None), by: by(), ..fault(100, vec![]) }];
        let policy =
            |policy: RulePolicy| Some(route(HttpRule { policy: Some(Arc::new(policy)), ..HttpRule::default() }));
        let of_service = || vec![FaultRule { abort: abort(Some(503), None), ..fault(100, vec![]) }];
        state(&several, of_service(), policy(RulePolicy { faults, by: by(), ..RulePolicy::default() }));
        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        until("the route's fault acts", async || client.get("cart", "/").await.unwrap().status == 418).await;
        let answer = client.get("cart", "/").await.unwrap();
        assert_eq!(answer.text(), "veer: FI a fault was injected on purpose by TrafficPolicy shop/web\n");

        let silent = RulePolicy { by: by(), ..RulePolicy::default() };
        state(&several, of_service(), policy(silent));
        until("the service's fault acts", async || client.get("cart", "/").await.unwrap().status == 503).await;
        let answer = client.get("cart", "/").await.unwrap();
        assert_eq!(answer.text(), "veer: FI a fault was injected on purpose by TrafficPolicy shop/cart\n");

        let short = RulePolicy { try_timeout: Some(Duration::from_millis(50)), by: by(), ..RulePolicy::default() };
        state(&several, vec![], policy(short));
        until("the try ends in time", async || {
            let begun = Instant::now();
            client.get("cart", "/").await.unwrap().status == 504 && begun.elapsed() < Duration::from_secs(1)
        })
        .await;
    });
}

#[test]
fn a_spent_budget_answers_503_when_its_policy_says_so() {
    run(async {
        let failing = App::new(|_| async {
            let mut failed = answer("down");
            *failed.status_mut() = http::StatusCode::BAD_GATEWAY;
            failed
        });
        let several = Several::new([failing]).await;
        let budget = |answers| RetryBudget { ratio: 0.0, min_per_second: 0.0, answers, ..RetryBudget::default() };
        let retry = || Some(Retry { codes: vec![502], attempts: Some(2), backoff: None });
        let put = |answers| {
            several
                .control
                .service("cart")
                .at(&several.servers)
                .policy(|policy| {
                    policy.retry_budget = budget(answers);
                    policy.outlier.consecutive_failures = 0;
                    policy.outlier.failure_ratio = 1.1;
                })
                .route(route(HttpRule { retry: retry(), ..HttpRule::default() }))
                .put();
        };
        put(false);
        let mut client = Client::http1(several.client.outbound()).await.unwrap();
        let answer = client.get("cart", "/").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (502, "down"), "what the last try brought");
        put(true);
        until("the policy acts", async || client.get("cart", "/").await.unwrap().status == 503).await;
        let answer = client.get("cart", "/").await.unwrap();
        assert_eq!(answer.text(), "veer: UO the retry budget of cart.shop.svc.cluster.local is spent\n");
    });
}
