//! What the owner of a service says travels with its export: a consumer may narrow it, and never widen it.

use std::sync::Arc;
use std::time::Duration;

use veer_compile::{Meaning, PeerView, explain_routes};
use veer_core::fault::{Abort, FaultRule};
use veer_core::names::ServiceHost;
use veer_core::policy::TrafficPolicy;
use veer_core::rate::{Per, RateLimit};
use veer_core::route::{Backend, HttpRoute, HttpRule, RouteKind, RulePolicy, SessionPersistence, TcpRoute, Timeouts};
use veer_core::written::Written;
use veer_core::{AppProtocol, Offer};

use crate::support::*;

const SET: &str = "cart.shop.svc.clusterset.local";

fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "apiVersion: veer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRef: {{{target}}}\n{spec}"
    )
}

/// A peer that offers `shop/cart` as changed.
fn owner(name: &str, net: u8, change: impl FnOnce(&mut Offer)) -> PeerView {
    let mut offer = offer(name, net, 10, "shop/cart");
    change(&mut offer);
    PeerView { offers: vec![Arc::new(offer)], ..peer(name) }
}

fn said(by: &str) -> Written {
    Written {
        max_requests: Some(100),
        try_timeout: Some(Duration::from_secs(2)),
        consecutive_failures: Some(3),
        by: vec![by.into()],
        ..Written::default()
    }
}

fn acts<'a>(meaning: &'a Meaning, host: &str) -> &'a TrafficPolicy {
    &meaning.endpoints[host].policy
}

fn told(policy: &TrafficPolicy) -> String {
    policy.by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[test]
fn policies_of_service_and_namespace_and_tcp_routes_go_out_with_the_export() {
    let bytes = service("shop/cart").replace("name: http, port: 80", "name: db, port: 80, appProtocol: tcp");
    let tcp = "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: db, namespace: shop}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: cart}]\n  rules: [{backendRefs: [{name: cart, port: 80}, {name: pay, port: 80}]}]";
    let text = documents(&[
        &bytes,
        &service("shop/pay"),
        &workload("shop/cart-1", "cart", 1),
        &workload("shop/pay-1", "pay", 2),
        &link("east", 2, ""),
        &export("shop/cart", "*"),
        tcp,
        &policy("all", "kind: Namespace, name: shop", "  slowStart: 4s\n  rateLimits: [{requests: 9}]"),
        &policy(
            "cart",
            "kind: Service, name: cart",
            "  circuitBreaker: {maxRequests: 7}\n  locality: {localFirst: false}\n  faults: [{percent: 1, delay: 1s}]",
        ),
        &policy("import", "kind: ServiceImport, name: cart", "  circuitBreaker: {maxRequests: 5}"),
    ]);
    let meaning = mean(&text, &[peer("east")]);
    let offer = &meaning.offers[&cluster("east")][0];
    let out = &offer.policy;
    assert_eq!((out.max_requests, out.slow_start), (Some(7), Some(Duration::from_secs(4))), "as its owner calls it");
    assert_eq!((out.local_first, out.faults.as_ref().map(Vec::len)), (None, Some(1)));
    assert_eq!(out.limits.as_ref().unwrap()[0].requests, 9);
    assert_eq!(
        out.by.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        ["TrafficPolicy shop/all", "TrafficPolicy shop/cart"]
    );
    let [route] = &offer.tcp_routes[..] else { panic!("{:?}", offer.tcp_routes) };
    assert_eq!((route.parent_port, route.name.to_string()), (Some(80), "shop/db".to_owned()));
    assert_eq!(route.backends[0].host.as_str(), SET);
    assert_eq!(route.backends[1].invalid.as_deref(), Some("pay.shop.svc.cluster.local is not offered to east"));
}

#[test]
fn a_consumer_narrows_the_owners_policy_and_never_widens_it() {
    let base = documents(&[&link("east", 2, ""), &import("shop/cart", true)]);
    let from = || [owner("east", 2, |offer| offer.policy = said("TrafficPolicy shop/cart"))];
    let with =
        |spec: &str| mean(&documents(&[&base, &policy("own", "kind: ServiceImport, name: cart", spec)]), &from());

    let meaning = mean(&base, &from());
    for host in [SET, "cart-east.shop.svc.cluster.local"] {
        let policy = acts(&meaning, host);
        assert_eq!((policy.circuit_breaker.max_requests, policy.outlier.consecutive_failures), (100, 3), "{host}");
        assert_eq!(
            (policy.try_timeout, told(policy).as_str()),
            (Some(Duration::from_secs(2)), "TrafficPolicy shop/cart of east")
        );
    }
    let wider = with("  circuitBreaker: {maxRequests: 9000}\n  tryTimeout: 0s\n  outlier: {consecutiveFailures: 50}");
    assert_eq!(acts(&wider, SET).circuit_breaker, acts(&meaning, SET).circuit_breaker);
    assert_eq!(acts(&wider, SET).try_timeout, Some(Duration::from_secs(2)), "no limit would be wider");
    assert_eq!(acts(&wider, SET).outlier.consecutive_failures, 3, "what cannot be ordered is the owner's");
    assert_eq!(told(acts(&wider, SET)), "TrafficPolicy shop/cart of east, TrafficPolicy shop/own");
    let narrower = with("  circuitBreaker: {maxRequests: 9}\n  tryTimeout: 1s\n  outlier: {minimumRequests: 50}");
    let policy = acts(&narrower, SET);
    assert_eq!((policy.circuit_breaker.max_requests, policy.try_timeout), (9, Some(Duration::from_secs(1))));
    assert_eq!(policy.outlier.minimum_requests, 50, "the owner says nothing of it");
}

#[test]
fn of_several_owners_none_throttles_the_copies_of_another() {
    let links = documents(&[&link("east", 2, ""), &link("edge", 3, ""), &import("shop/cart", true)]);
    let captured = || {
        let faults = vec![FaultRule {
            numerator: 1,
            denominator: 1,
            abort: Some(Abort { status: Some(503), grpc: None }),
            ..FaultRule::default()
        }];
        let word = Written { max_requests: Some(0), faults: Some(faults), ..said("TrafficPolicy shop/cart") };
        owner("east", 2, |offer| offer.policy = word)
    };
    let meaning = mean(&links, &[captured(), owner("edge", 3, |offer| offer.policy = said("TrafficPolicy shop/cart"))]);
    let both = acts(&meaning, SET);
    assert_eq!((both.circuit_breaker.max_requests, both.faults.len()), (100, 0), "the widest, and what all agree in");
    assert_eq!(both.outlier.consecutive_failures, 3);
    assert_eq!(
        acts(&meaning, "cart-east.shop.svc.cluster.local").circuit_breaker.max_requests,
        0,
        "for its own copies"
    );
    assert_eq!(acts(&meaning, "cart-edge.shop.svc.cluster.local").circuit_breaker.max_requests, 100);

    // This cluster is an owner, too, and says nothing.
    let own =
        documents(&[&links, &service("shop/cart"), &workload("shop/cart-1", "cart", 1), &export("shop/cart", "*")]);
    let meaning = mean(&own, &[captured()]);
    assert_eq!(acts(&meaning, SET).circuit_breaker, TrafficPolicy::default().circuit_breaker);
    assert!(acts(&meaning, SET).faults.is_empty());
    assert_eq!(told(acts(&meaning, "cart.shop.svc.cluster.local")), "", "its own name is its own");
}

#[test]
fn the_owners_tcp_routes_act_and_lead_only_to_what_it_offers() {
    let backend = |host: &str| Backend {
        host: ServiceHost::new(host).unwrap(),
        port: 80,
        weight: 1,
        invalid: None,
        filters: vec![],
        protocol: None,
    };
    let route = TcpRoute {
        name: object("shop/db"),
        consumer_namespace: None,
        owner: None,
        parent_port: Some(80),
        backends: vec![backend(SET), backend("pay.shop.svc.clusterset.local")],
    };
    let foreign = TcpRoute { consumer_namespace: Some("bank".into()), ..route.clone() };
    let from = owner("east", 2, |offer| {
        offer.ports[0].protocol = AppProtocol::Tcp;
        offer.tcp_routes = vec![foreign, route];
    });
    let meaning = mean(&documents(&[&link("east", 2, ""), &import("shop/cart", true)]), &[from]);
    for (host, own) in [(SET, SET), ("cart-east.shop.svc.cluster.local", "cart-east.shop.svc.cluster.local")] {
        let lines = explain_routes(&meaning, host).unwrap();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0].by.as_deref(), Some("TCPRoute shop/db of east"));
        let refused = "500: east does not offer pay.shop.svc.clusterset.local here (weight 1)";
        assert_eq!(lines[0].to, [format!("{own}:80 (weight 1)"), refused.to_owned()]);
    }
}

#[test]
fn what_a_captured_owner_says_stays_within_bounds() {
    let endless = Duration::from_secs(u64::MAX);
    let fault = FaultRule {
        numerator: 1,
        denominator: 1,
        delay: Some(endless),
        abort: Some(Abort { status: Some(99), grpc: Some(200) }),
        ..FaultRule::default()
    };
    let word = Written {
        slow_start: Some(endless),
        failure_ratio: Some(-7.0),
        retry_ratio: Some(1e300),
        retry_min_per_second: Some(1e300),
        outlier_interval: Some(Duration::ZERO),
        retry_interval: Some(endless),
        base_ejection: Some(endless),
        max_ejection: Some(endless),
        try_timeout: Some(endless),
        local_first: Some(false),
        session: Some(Arc::new(SessionPersistence {
            name: "a\r\nset-cookie: b".into(),
            carrier: Default::default(),
            absolute_timeout: Some(endless),
        })),
        faults: Some(vec![fault.clone()]),
        limits: Some(vec![RateLimit {
            per: Per::All,
            requests: 1,
            interval: endless,
            burst: 1,
            by: "\u{1b}[2J".into(),
        }]),
        by: vec!["x".repeat(100_000).into()],
        ..Written::default()
    };
    let rule = HttpRule {
        timeouts: Timeouts { request: Some(endless), backend_request: Some(endless) },
        policy: Some(Arc::new(RulePolicy { try_timeout: Some(endless), faults: vec![fault.clone()], by: "y".into() })),
        ..HttpRule::default()
    };
    let route = HttpRoute {
        name: object("shop/r"),
        kind: RouteKind::Http,
        created: None,
        consumer_namespace: None,
        owner: None,
        parent_port: None,
        rules: vec![rule],
    };
    let text = link("east", 2, "");
    let meaning = mean(
        &text,
        &[owner("east", 2, |offer| (offer.policy, offer.http_routes) = (word.clone(), vec![route.clone()]))],
    );
    assert!(meaning.refused.is_empty(), "{:?}", meaning.refused);
    let year = Duration::from_secs(365 * 86_400);
    let policy = acts(&meaning, SET);
    assert_eq!((policy.slow_start, policy.try_timeout, policy.outlier.max_ejection), (year, Some(year), year));
    assert_eq!(
        (policy.outlier.failure_ratio, policy.retry_budget.ratio, policy.retry_budget.min_per_second),
        (0.0, 1.0, 1e6)
    );
    assert_eq!((policy.outlier.interval, policy.retry_budget.interval), (Duration::from_millis(1), year));
    assert!(policy.locality.local_first && policy.session.is_none());
    assert_eq!(policy.faults[0].delay, Some(Duration::from_secs(3600)));
    assert_eq!(policy.faults[0].abort, Some(Abort { status: Some(400), grpc: None }));
    assert_eq!(&*policy.limits[0].by, "[2J of east");
    assert!(policy.by[0].len() < 600);
    let rule = &meaning.services[SET].ports[0].http_routes[0].rules[0];
    assert_eq!((rule.timeouts.request, rule.timeouts.backend_request), (Some(year), Some(year)));
    let of_rule = rule.policy.as_ref().unwrap();
    assert_eq!(
        (of_rule.try_timeout, of_rule.faults[0].delay, &*of_rule.by),
        (Some(year), Some(Duration::from_secs(3600)), "y of east")
    );

    for (what, change) in [
        ("faults", (|offer| offer.policy.faults = Some(vec![FaultRule::default(); 65])) as fn(&mut Offer)),
        ("limits", |offer| {
            let limit =
                RateLimit { per: Per::All, requests: 1, interval: Duration::from_secs(1), burst: 1, by: "".into() };
            offer.policy.limits = Some(vec![limit; 65]);
        }),
        ("authors", |offer| offer.policy.by = vec!["a".into(); 9]),
        ("TCPRoutes", |offer| {
            let route = TcpRoute {
                name: object("shop/t"),
                consumer_namespace: None,
                owner: None,
                parent_port: None,
                backends: vec![],
            };
            offer.tcp_routes = vec![route; 65];
        }),
    ] {
        let meaning = mean(&text, &[owner("east", 2, change)]);
        let reason = &meaning.refused[0].reason;
        assert!(reason.contains(what) && reason.contains("more than"), "{what}: {reason}");
    }
}
