//! Routes: where they attach, where they lead, and how they fail.

use std::sync::Arc;

use veer_compile::{Meaning, explain_routes};
use veer_core::route::Filter;

use crate::support::*;

/// The effective rules of a host's port 80, one line each.
fn rules(meaning: &Meaning, host: &str) -> Vec<String> {
    let line = |line: veer_compile::RouteLine| {
        let callers = line.callers.map(|c| format!("[{c}] ")).unwrap_or_default();
        let by = line.by.map(|by| format!(" by {by}")).unwrap_or_default();
        let filters = if line.filters.is_empty() { String::new() } else { format!(" {{{}}}", line.filters.join("; ")) };
        format!("{callers}{}{filters} → {}{by}", line.when, line.to.join(" + "))
    };
    explain_routes(meaning, host).unwrap().into_iter().map(line).collect()
}

fn route(kind: &str, name: &str, parent: &str, rules: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let version = if kind == "TCPRoute" { "v1alpha2" } else { "v1" };
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  parentRefs: [{{{parent}}}]\n  rules:\n{rules}"
    )
}

const CART: &str = "group: \"\", kind: Service, name: cart";
const CART_IMPORT: &str = "group: multicluster.x-k8s.io, kind: ServiceImport, name: cart";
const LOCAL: &str = "cart.shop.svc.cluster.local";
const SET: &str = "cart.shop.svc.clusterset.local";

fn to(backends: &str) -> String {
    format!("  - backendRefs: [{backends}]\n")
}

#[test]
fn a_split_to_another_cluster_and_a_canary_are_one_route_each() {
    let base =
        documents(&[&service("shop/cart"), &link("east", 2, ""), &import("shop/cart", true), &service("shop/canary")]);
    let peers = [offering("east", 2, &["shop/cart"])];
    let split = route(
        "HTTPRoute",
        "shop/split",
        CART,
        &to("{name: cart, port: 80, weight: 90}, {name: cart-east, port: 80, weight: 10}"),
    );
    let meaning = mean(&documents(&[&base, &split]), &peers);
    assert_eq!(codes(&meaning.faults), [] as [&str; 0]);
    assert_eq!(
        rules(&meaning, LOCAL),
        [
            "always → cart.shop.svc.cluster.local:80 (weight 90) + cart-east.shop.svc.cluster.local:80 (weight 10) by HTTPRoute shop/split"
        ]
    );
    let canary = route(
        "HTTPRoute",
        "shop/canary",
        CART,
        "  - matches: [{headers: [{name: X-User, value: ada}]}]\n    backendRefs: [{name: canary, port: 80}]\n  - backendRefs: [{name: cart, port: 80}]\n",
    );
    assert_eq!(
        rules(&mean(&documents(&[&base, &canary]), &peers), LOCAL),
        [
            "header x-user = ada → canary.shop.svc.cluster.local:80 (weight 1) by HTTPRoute shop/canary",
            "always → cart.shop.svc.cluster.local:80 (weight 1) by HTTPRoute shop/canary",
        ]
    );
}

#[test]
fn backends_that_lead_nowhere_answer_500_for_their_share() {
    let base = documents(&[&service("shop/cart"), &service("bank/vault")]);
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: bank}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]\n  to: [{group: \"\", kind: Service}]";
    for (backend, manifests, expected) in [
        ("{name: none, port: 80}", &base, "Service shop/none does not exist"),
        ("{name: cart, port: 81}", &base, "Service shop/cart has no port 81"),
        ("{name: vault, namespace: bank, port: 80}", &base, "no ReferenceGrant"),
        ("{name: vault, namespace: bank, port: 80}", &documents(&[&base, grant]), ""),
        (
            "{name: cart, kind: ServiceImport, group: multicluster.x-k8s.io, port: 80}",
            &base,
            "ServiceImport shop/cart does not exist",
        ),
    ] {
        let meaning = mean(&documents(&[manifests, &route("HTTPRoute", "shop/r", CART, &to(backend))]), &[]);
        let invalid = meaning.services[LOCAL].ports[0].http_routes[0].rules[0].backends[0].invalid.clone();
        let invalid = invalid.unwrap_or_else(|| Arc::from(""));
        assert!(
            if expected.is_empty() { invalid.is_empty() } else { invalid.contains(expected) },
            "{backend}: {invalid}"
        );
        assert_eq!(codes(&meaning.faults).len(), usize::from(!expected.is_empty()), "{backend}");
    }
}

#[test]
fn parents_that_lead_nowhere_are_told() {
    for (parent, code) in [
        ("group: \"\", kind: Service, name: none", "V0350"),
        ("group: \"\", kind: Service, name: cart, port: 81", "V0351"),
        ("group: \"\", kind: Service, name: cart, sectionName: grpc", "V0351"),
    ] {
        let text =
            documents(&[&service("shop/cart"), &route("HTTPRoute", "shop/r", parent, &to("{name: cart, port: 80}"))]);
        assert_eq!(codes(&mean(&text, &[]).faults), [code], "{parent}");
    }
    let gateway = route("HTTPRoute", "shop/r", "name: ingress", &to("{name: none, port: 80}"));
    assert!(
        codes(&mean(&documents(&[&service("shop/cart"), &gateway]), &[]).faults).is_empty(),
        "a Gateway's route is its own affair"
    );
}

#[test]
fn what_is_not_understood_fails_closed() {
    for (rule, when) in [
        (
            "  - matches: [{path: {type: RegularExpression, value: \"/api/v[0-9+\"}}]\n    backendRefs: [{name: cart, port: 80}]\n",
            "path under /api",
        ),
        (
            "  - matches: [{path: {value: /a}, headers: [{type: RegularExpression, name: x, value: \"(\"}]}]\n    backendRefs: [{name: cart, port: 80}]\n",
            "path under /a",
        ),
        (
            "  - filters: [{type: ExtensionRef, extensionRef: {}}]\n    backendRefs: [{name: cart, port: 80}]\n",
            "always",
        ),
    ] {
        let meaning = mean(&documents(&[&service("shop/cart"), &route("HTTPRoute", "shop/r", CART, rule)]), &[]);
        assert_eq!(codes(&meaning.faults), ["V0353"], "{rule}");
        let compiled = &meaning.services[LOCAL].ports[0].http_routes[0].rules[0];
        assert!(matches!(compiled.filters[..], [Filter::Fail { status: 500, .. }]) && compiled.backends.is_empty());
        assert!(rules(&meaning, LOCAL)[0].starts_with(when), "{:?}", rules(&meaning, LOCAL));
    }
}

#[test]
fn a_route_of_another_namespace_is_for_that_namespace() {
    let parent = format!("{CART}, namespace: shop");
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: shop}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: bank}]\n  to: [{group: \"\", kind: Service, name: cart}]";
    let consumer = route("HTTPRoute", "bank/r", &parent, &to("{name: cart, namespace: shop, port: 80}"));
    let meaning = mean(&documents(&[&service("shop/cart"), grant, &consumer]), &[]);
    assert_eq!(
        rules(&meaning, LOCAL),
        [
            "always → cart.shop.svc.cluster.local:80",
            "[bank] always → cart.shop.svc.cluster.local:80 (weight 1) by HTTPRoute bank/r",
        ]
    );
}

#[test]
fn patterns_filters_of_backends_copies_and_origins_are_meant_as_written() {
    let rule = "  - matches:
      - path: {type: RegularExpression, value: \"/api/v[0-9]+\"}
        headers: [{type: RegularExpression, name: X-User, value: a.*}]
        queryParams: [{type: RegularExpression, name: v, value: \"[0-9]+\"}]
    filters:
    - {type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}, percent: 5}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: none, port: 80}}}
    - {type: CORS, cors: {allowOrigins: [\"https://*.example.com\"]}}
    backendRefs:
    - name: cart
      port: 80
      filters: [{type: URLRewrite, urlRewrite: {hostname: own.example}}]
    - name: shadow
      port: 80
      filters: [{type: ExtensionRef, extensionRef: {}}]
";
    let base = documents(&[&service("shop/cart"), &service("shop/shadow")]);
    let meaning = mean(&documents(&[&base, &route("HTTPRoute", "shop/r", CART, rule)]), &[]);
    let mut found = codes(&meaning.faults);
    found.sort_unstable();
    assert_eq!(found, ["V0353", "V0357"]);
    assert_eq!(
        rules(&meaning, LOCAL),
        [
            "path ~ /api/v[0-9]+ and header x-user ~ a.* and query v ~ [0-9]+ {copies 5 of 100 to shadow.shop.svc.cluster.local:80; \
            copies nothing: Service shop/none does not exist; shares with origins https://*.example.com} → \
            cart.shop.svc.cluster.local:80 (weight 1) {rewrites host to own.example} + \
            shadow.shop.svc.cluster.local:80 (weight 1) {answers 500: filter ExtensionRef is not supported} by HTTPRoute shop/r"
        ]
    );
    let grpc = "  - matches: [{method: {type: RegularExpression, service: \"shop[.].*\", method: \"\"}}]\n    backendRefs: [{name: cart, port: 80}]\n";
    let meaning = mean(&documents(&[&base, &route("GRPCRoute", "shop/g", CART, grpc)]), &[]);
    assert!(rules(&meaning, LOCAL)[0].starts_with("call ~ shop[.].*/.* →"), "{:?}", rules(&meaning, LOCAL));
}

#[test]
fn a_rule_is_told_by_its_name() {
    for kind in ["HTTPRoute", "GRPCRoute"] {
        let rule = "  - name: checkout\n    backendRefs: [{name: cart, port: 80}]\n";
        let meaning = mean(&documents(&[&service("shop/cart"), &route(kind, "shop/r", CART, rule)]), &[]);
        assert_eq!(codes(&meaning.faults), [] as [&str; 0]);
        let told = &rules(&meaning, LOCAL)[0];
        assert!(told.ends_with(&format!("by {kind} shop/r rule checkout")), "{told}");
    }
}

#[test]
fn sessions_have_a_name_and_unknown_ones_fail_the_rule() {
    let rule = |session: &str| {
        let rule = format!("  - backendRefs: [{{name: cart, port: 80}}]\n    sessionPersistence: {session}\n");
        mean(&documents(&[&service("shop/cart"), &route("HTTPRoute", "shop/r", CART, &rule)]), &[])
    };
    let session = |meaning: &Meaning| meaning.services[LOCAL].ports[0].http_routes[0].rules[0].session.clone();
    let first = session(&rule("{}")).unwrap();
    assert!(first.name.starts_with("veer-session-"), "{first}");
    let header = session(&rule("{type: Header, sessionName: X-Cart, absoluteTimeout: 90s}")).unwrap();
    assert_eq!(header.to_string(), "sessions by header x-cart for 90s");
    let meaning = rule("{type: Dice}");
    assert_eq!((codes(&meaning.faults), session(&meaning)), (vec!["V0353"], None));
    let answered = &meaning.services[LOCAL].ports[0].http_routes[0].rules[0].filters;
    assert!(matches!(answered[..], [Filter::Fail { status: 500, .. }]));
}

#[test]
fn leave_is_asked_of_what_is_there_or_nobody_passes() {
    let auth = |protocol: &str, backend: &str, more: &str| {
        let filter =
            format!("{{type: ExternalAuth, externalAuth: {{protocol: {protocol}, backendRef: {backend}{more}}}}}");
        let rule = format!("  - filters: [{filter}]\n    backendRefs: [{{name: cart, port: 80}}]\n");
        let base = documents(&[&service("shop/cart"), &service("shop/guard"), &service("bank/vault")]);
        mean(&documents(&[&base, &route("HTTPRoute", "shop/r", CART, &rule)]), &[])
    };
    let more = ", http: {path: /check, allowedHeaders: [X-Token], allowedResponseHeaders: [X-User]}, forwardBody: {maxSize: 10}";
    let meaning = auth("HTTP", "{name: guard, port: 80}", more);
    assert_eq!(codes(&meaning.faults), [] as [&str; 0]);
    assert!(rules(&meaning, LOCAL)[0].contains("{asks guard.shop.svc.cluster.local:80 for leave}"));
    let Filter::ExternalAuth(filter) = &meaning.services[LOCAL].ports[0].http_routes[0].rules[0].filters[0] else {
        panic!("nobody is asked")
    };
    assert_eq!((filter.path.as_deref(), filter.body_limit), (Some("/check"), 10));
    assert_eq!((&*filter.request_headers[0], &*filter.response_headers[0]), ("x-token", "x-user"));
    let meaning =
        auth("GRPC", "{name: guard, port: 80}", ", grpc: {allowedHeaders: [X-Token]}, forwardBody: {maxSize: 10}");
    assert_eq!(codes(&meaning.faults), [] as [&str; 0]);
    let Filter::ExternalAuth(filter) = &meaning.services[LOCAL].ports[0].http_routes[0].rules[0].filters[0] else {
        panic!("nobody is asked")
    };
    assert_eq!((filter.grpc, &*filter.request_headers[0], filter.body_limit), (true, "x-token", 10));
    for (protocol, backend) in [
        ("HTTP", "{name: none, port: 80}"),
        ("HTTP", "{name: guard, port: 81}"),
        ("HTTP", "{name: vault, namespace: bank, port: 80}"),
        ("GRPC", "{name: none, port: 80}"),
        ("DICE", "{name: guard, port: 80}"),
    ] {
        let meaning = auth(protocol, backend, "");
        assert_eq!(codes(&meaning.faults), ["V0353"], "{protocol} {backend}");
        let rule = &meaning.services[LOCAL].ports[0].http_routes[0].rules[0];
        assert!(
            matches!(rule.filters[..], [Filter::Fail { status: 500, .. }]) && rule.backends.is_empty(),
            "{backend}"
        );
    }
}

#[test]
fn copies_cross_namespaces_only_by_grant_and_clusters_only_by_offer() {
    let base = documents(&[&service("shop/cart"), &service("bank/vault")]);
    let mirror = "  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: vault, namespace: bank, port: 80}}}]\n    backendRefs: [{name: cart, port: 80}]\n";
    let meaning = mean(&documents(&[&base, &route("HTTPRoute", "shop/r", CART, mirror)]), &[]);
    assert_eq!(codes(&meaning.faults), ["V0357"]);
    assert!(rules(&meaning, LOCAL)[0].contains("copies nothing: no ReferenceGrant"), "{:?}", rules(&meaning, LOCAL));

    let exported = documents(&[
        &service("shop/cart"),
        &service("shop/shadow"),
        &link("east", 2, ""),
        &export("shop/cart", "east"),
        &route(
            "HTTPRoute",
            "shop/r",
            CART,
            "  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}}}]\n    backendRefs: [{name: cart, port: 80}]\n",
        ),
    ]);
    let meaning = mean(&exported, &[]);
    let offer = &meaning.offers[&cluster("east")][0];
    let Filter::Mirror(mirror) = &offer.http_routes[0].rules[0].filters[0] else { panic!("no copies") };
    assert!(mirror.to.invalid.as_ref().is_some_and(|why| why.contains("is not offered to east")), "{mirror:?}");
}

#[test]
fn grpc_routes_win_over_http_routes_and_those_over_tcp_routes() {
    let backend = "{name: cart, port: 80}";
    let http = route("HTTPRoute", "shop/a", CART, &to(backend));
    let grpc = route(
        "GRPCRoute",
        "shop/b",
        CART,
        &format!("  - matches: [{{method: {{service: shop.Cart}}}}]\n    backendRefs: [{backend}]\n"),
    );
    let tcp = |name: &str| route("TCPRoute", name, CART, &to(backend));
    let cart = service("shop/cart").replace("name: http", "name: any");
    let meaning = mean(&documents(&[&cart, &http, &grpc, &tcp("shop/c")]), &[]);
    assert_eq!(
        rules(&meaning, LOCAL),
        ["call of shop.Cart/* → cart.shop.svc.cluster.local:80 (weight 1) by GRPCRoute shop/b"]
    );
    assert_eq!(codes(&meaning.faults), ["V0354", "V0354"]);
    let old = tcp("shop/z").replace("name: z,", "name: z, creationTimestamp: \"2020-01-01T00:00:00Z\",");
    let meaning = mean(&documents(&[&cart, &tcp("shop/c"), &old]), &[]);
    assert_eq!(meaning.services[LOCAL].ports[0].tcp_route.as_ref().unwrap().name, object("shop/z"), "the older wins");
    assert_eq!(codes(&meaning.faults), ["V0354"]);
}

#[test]
fn the_owners_routes_travel_and_lead_only_to_what_is_offered_too() {
    let split = route(
        "HTTPRoute",
        "shop/split",
        CART,
        &to("{name: cart, port: 80, weight: 9}, {name: canary, port: 80}, {name: secret, port: 80}"),
    );
    let text = documents(&[
        &service("shop/cart"),
        &service("shop/canary"),
        &service("shop/secret"),
        &split,
        &link("east", 2, ""),
        &export("shop/cart", "*"),
        &export("shop/canary", "east"),
        &export("shop/secret", "nobody-else"),
    ]);
    let sent = mean(&text, &[]);
    let offer = sent.offers[&cluster("east")].iter().find(|o| o.service == object("shop/cart")).unwrap();
    let backends = &offer.http_routes[0].rules[0].backends;
    let told: Vec<_> = backends.iter().map(|b| (b.host.as_str(), b.invalid.is_some())).collect();
    assert_eq!(
        told,
        [
            ("cart.shop.svc.clusterset.local", false),
            ("canary.shop.svc.clusterset.local", false),
            ("secret.shop.svc.clusterset.local", true),
        ]
    );

    // The other side, where the peer may provide cart and not the canary.
    let mut east = offering("east", 2, &["shop/cart", "shop/canary"]);
    let mut with_routes = (*east.offers[0]).clone();
    with_routes.http_routes = offer.http_routes.clone();
    east.offers[0] = Arc::new(with_routes);
    let link = link("east", 2, "").replace("shop/*", "shop/cart");
    assert_eq!(
        rules(&mean(&link, &[east.clone()]), SET),
        [
            "always → cart.shop.svc.clusterset.local:80 (weight 9) + 500: east does not offer canary.shop.svc.clusterset.local here (weight 1) + 500: secret.shop.svc.clusterset.local is not offered to east (weight 1) by HTTPRoute shop/split of east"
        ]
    );
    let mine = route(
        "HTTPRoute",
        "shop/mine",
        CART_IMPORT,
        &to("{name: cart, kind: ServiceImport, group: multicluster.x-k8s.io, port: 80}"),
    );
    assert_eq!(
        rules(&mean(&documents(&[&link, &mine]), &[east]), SET),
        ["always → cart.shop.svc.clusterset.local:80 (weight 1) by HTTPRoute shop/mine"],
        "a consumer's own word for its ServiceImport comes first"
    );
}
