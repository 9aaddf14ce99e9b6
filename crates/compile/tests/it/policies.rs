//! Policies: whom they are for.

use veer_compile::status::{AncestorStatus, Status, condition};
use veer_compile::{Meaning, explain_routes};
use veer_core::inbound::MtlsMode;
use veer_resources::KindName;

use crate::support::*;

fn traffic(name: &str, kind: &str, target: &str, failures: u32) -> String {
    format!(
        "apiVersion: veer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRef: {{kind: {kind}, name: {target}}}\n  outlier: {{consecutiveFailures: {failures}}}"
    )
}

#[test]
fn a_policy_is_for_its_target_and_the_first_of_two_wins() {
    let text = documents(&[
        &service("shop/cart"),
        &link("east", 2, ""),
        &export("shop/cart", "*"),
        &traffic("b", "Service", "cart", 2),
        &traffic("a", "Service", "cart", 1),
        &traffic("c", "Service", "none", 3),
    ]);
    let meaning = mean(&text, &[]);
    let failures = |host: &str| meaning.endpoints[host].policy.outlier.consecutive_failures;
    assert_eq!(failures("cart.shop.svc.cluster.local"), 1);
    assert_eq!(failures("cart.shop.svc.clusterset.local"), 1, "without a policy of its own, the Service's");
    assert_eq!(codes(&meaning.faults), ["V0361", "V0360"]);
    let meaning = mean(&documents(&[&text, &traffic("i", "ServiceImport", "cart", 9)]), &[]);
    assert_eq!(meaning.endpoints["cart.shop.svc.clusterset.local"].policy.outlier.consecutive_failures, 9);
}

/// A TrafficPolicy of namespace shop.
fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "apiVersion: veer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRef: {{{target}}}\n{spec}"
    )
}

fn http_route(name: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, name: cart}}]\n  rules: [{{backendRefs: [{{name: cart, port: 80}}]}}]"
    )
}

/// `kind name: status reason` of each ancestor of a policy.
fn accepted(meaning: &Meaning, kind: KindName, name: &str) -> Vec<String> {
    let Status::Policy(status) = &*meaning.statuses[&(kind, object(name))] else { panic!() };
    let told = |ancestor: &AncestorStatus| {
        let accepted = condition(&ancestor.conditions, "Accepted").unwrap();
        let (to, status, reason) = (&ancestor.ancestor_ref, accepted.status, accepted.reason);
        format!("{} {}: {status} {reason}", to.kind, to.name)
    };
    status.ancestors.iter().map(told).collect()
}

#[test]
fn field_by_field_the_more_specific_policy_wins() {
    let namespace = policy(
        "all",
        "kind: Namespace, name: shop",
        "  slowStart: 1s\n  outlier: {consecutiveFailures: 1, failureRatio: 0.1, maxEjection: 8s}\n  tryTimeout: 9s\n  rateLimits: [{requests: 1}]\n  faults: [{delay: 1s}]",
    );
    let cart = policy(
        "cart",
        "kind: Service, name: cart",
        "  outlier: {consecutiveFailures: 2, baseEjection: 30s, maxEjection: 40s}\n  tryTimeout: 0s",
    );
    let import = policy(
        "import",
        "kind: ServiceImport, name: cart",
        "  outlier: {failureRatio: 0.3, baseEjection: 4s}\n  faults: [{delay: 2s}]",
    );
    let more = [service("shop/cart"), service("shop/pay"), service("bank/pay"), workload("shop/cart-1", "cart", 1)];
    let mut parts = vec![&*namespace, &*cart, &*import];
    parts.extend(more.iter().map(|text| &**text));
    let (link, export) = (link("east", 2, ""), export("shop/cart", "*"));
    parts.extend([&*link, &*export]);
    let meaning = mean(&documents(&parts), &[]);
    assert!(meaning.faults.iter().all(|fault| !fault.is_error()), "{:?}", meaning.faults);
    let of = |host: &str| &meaning.endpoints[host].policy;
    let by = |host: &str| of(host).by.iter().map(|by| by.to_string()).collect::<Vec<_>>().join(" ");

    let own = of("cart.shop.svc.cluster.local");
    assert_eq!((own.slow_start.as_secs(), own.outlier.consecutive_failures, own.outlier.failure_ratio), (1, 2, 0.1));
    assert_eq!((own.outlier.base_ejection.as_secs(), own.try_timeout), (30, None), "zero takes a limit away");
    assert_eq!(own.faults[0].to_string(), "fault for 1 of 1 requests: delay 1s");
    assert_eq!(&*own.faults[0].by, "TrafficPolicy shop/all");
    assert_eq!(by("cart.shop.svc.cluster.local"), "TrafficPolicy shop/all TrafficPolicy shop/cart");

    let set = of("cart.shop.svc.clusterset.local");
    assert_eq!((set.outlier.consecutive_failures, set.outlier.failure_ratio), (2, 0.3));
    assert_eq!((set.outlier.base_ejection.as_secs(), &*set.faults[0].by), (4, "TrafficPolicy shop/import"));

    assert_eq!(by("pay.shop.svc.cluster.local"), "TrafficPolicy shop/all", "a default for all services");
    assert_eq!(by("pay.bank.svc.cluster.local"), "");
    let limits = &meaning.inbound[&object("shop/cart-1")].ports[0].limits;
    assert_eq!(&*limits[0].by, "TrafficPolicy shop/all", "the Service's policy says nothing of rates");

    assert_eq!(accepted(&meaning, KindName::TrafficPolicy, "shop/all"), ["Namespace shop: True Accepted"]);
    assert_eq!(accepted(&meaning, KindName::TrafficPolicy, "shop/import"), ["ServiceImport cart: True Accepted"]);
}

#[test]
fn ejections_of_two_policies_fit_together() {
    let namespace = policy("all", "kind: Namespace, name: shop", "  outlier: {maxEjection: 8s}");
    let cart = policy("cart", "kind: Service, name: cart", "  outlier: {baseEjection: 30s}");
    let meaning = mean(&documents(&[&service("shop/cart"), &namespace, &cart]), &[]);
    let outlier = &meaning.endpoints["cart.shop.svc.cluster.local"].policy.outlier;
    assert_eq!((outlier.base_ejection.as_secs(), outlier.max_ejection.as_secs()), (8, 8));
}

#[test]
fn a_policy_for_a_route_stands_over_that_of_the_service() {
    let text = documents(&[
        &service("shop/cart"),
        &http_route("web"),
        &policy("cart", "kind: Service, name: cart", "  tryTimeout: 9s"),
        &policy(
            "web",
            "kind: HTTPRoute, name: web",
            "  tryTimeout: 1s\n  faults: [{percent: 5, abort: {status: 503}}]",
        ),
    ]);
    let meaning = mean(&text, &[]);
    assert_eq!(meaning.faults.len(), 1, "nobody serves: {:?}", meaning.faults);
    let lines = explain_routes(&meaning, "cart.shop.svc.cluster.local").unwrap();
    assert_eq!(
        lines[0].limits,
        [
            "each try's head within 1s by TrafficPolicy shop/web",
            "fault for 5 of 100 requests: abort with 503 by TrafficPolicy shop/web"
        ]
    );
    assert_eq!(accepted(&meaning, KindName::TrafficPolicy, "shop/web"), ["HTTPRoute web: True Accepted"]);
}

#[test]
fn what_means_nothing_at_a_route_fails_closed() {
    let unfit = policy(
        "web",
        "group: gateway.networking.k8s.io, kind: HTTPRoute, name: web",
        "  slowStart: 1s\n  rateLimits: [{requests: 5}]",
    );
    let meaning = mean(&documents(&[&service("shop/cart"), &http_route("web"), &unfit]), &[]);
    let lines = explain_routes(&meaning, "cart.shop.svc.cluster.local").unwrap();
    let reason = "slowStart, rateLimits cannot be written for a HTTPRoute; its requests are answered with 500";
    assert_eq!(lines[0].filters, [format!("answers 500: TrafficPolicy shop/web: {reason}")]);
    assert!(lines[0].to.is_empty());
    assert!(codes(&meaning.faults).contains(&"V0363"), "{:?}", meaning.faults);
    assert_eq!(accepted(&meaning, KindName::TrafficPolicy, "shop/web"), ["HTTPRoute web: False Invalid"]);
}

#[test]
fn a_policy_without_its_target_or_its_turn_says_so() {
    let text = documents(&[
        &service("shop/cart"),
        &http_route("web"),
        &policy("a", "kind: HTTPRoute, name: web", "  tryTimeout: 1s"),
        &policy("b", "kind: HTTPRoute, name: web", "  tryTimeout: 2s"),
        &policy("c", "kind: GRPCRoute, name: web", "  tryTimeout: 2s"),
        &policy("d", "kind: Service, name: none", "  tryTimeout: 2s"),
    ]);
    let meaning = mean(&text, &[]);
    let of = |name: &str| accepted(&meaning, KindName::TrafficPolicy, name);
    assert_eq!(of("shop/a"), ["HTTPRoute web: True Accepted"]);
    assert_eq!(of("shop/b"), ["HTTPRoute web: False Conflicted"]);
    assert_eq!(of("shop/c"), ["GRPCRoute web: False TargetNotFound"]);
    assert_eq!(of("shop/d"), ["Service none: False TargetNotFound"]);
    let told: Vec<_> = codes(&meaning.faults).into_iter().filter(|code| code.starts_with("V036")).collect();
    assert_eq!(told, ["V0361", "V0360", "V0360"]);
}

#[test]
fn retry_budgets_and_sessions_of_the_standard_policy_stand_over_our_own() {
    let standard = |name: &str, spec: &str| {
        format!(
            "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRefs: [{{group: \"\", kind: Service, name: cart}}]\n{spec}"
        )
    };
    let text = documents(&[&service("shop/cart"), &traffic("own", "Service", "cart", 7)]);
    let constraint =
        "  retryConstraint: {budget: {percent: 5, interval: 30s}, minRetryRate: {count: 3, interval: 2s}}\n";
    let session =
        "  sessionPersistence: {sessionName: cart, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}\n";
    let meaning =
        mean(&documents(&[&text, &standard("a", &format!("{constraint}{session}")), &standard("b", "")]), &[]);
    let policy = &meaning.endpoints["cart.shop.svc.cluster.local"].policy;
    assert_eq!((policy.outlier.consecutive_failures, policy.retry_budget.ratio), (7, 0.05));
    assert_eq!((policy.retry_budget.interval.as_secs(), policy.retry_budget.min_per_second), (30, 1.5));
    assert!(policy.retry_budget.answers, "a spent budget is told, as the standard has it");
    let by: Vec<&str> = policy.by.iter().map(AsRef::as_ref).collect();
    assert_eq!(by, ["TrafficPolicy shop/own", "XBackendTrafficPolicy shop/a"]);
    assert_eq!(policy.session.as_ref().unwrap().to_string(), "sessions by cookie cart for 3600s");
    assert_eq!(codes(&meaning.faults), ["V0361"], "the second of two is not used");

    let meaning = mean(&documents(&[&service("shop/cart"), &standard("a", "  retryConstraint: {}\n")]), &[]);
    let policy = &meaning.endpoints["cart.shop.svc.cluster.local"].policy;
    assert_eq!((policy.retry_budget.ratio, policy.retry_budget.min_per_second), (0.2, 10.0), "the standard's defaults");
}

#[test]
fn faults_are_compiled_as_written() {
    let policy = traffic("chaos", "Service", "cart", 5)
        + "\n  faults:\n    - {headers: [{name: X-Test, value: a}], percent: 10, delay: 2s}\n    - {fraction: {numerator: 1, denominator: 1000}, abort: {status: 503, grpcStatus: UNAVAILABLE}}";
    let meaning = mean(&documents(&[&service("shop/cart"), &policy]), &[]);
    let faults = &meaning.endpoints["cart.shop.svc.cluster.local"].policy.faults;
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "fault for 10 of 100 requests, header x-test = a: delay 2s",
            "fault for 1 of 1000 requests: abort with 503 with gRPC UNAVAILABLE"
        ]
    );
    assert!(meaning.endpoints["cart.shop.svc.cluster.local"].policy.by.len() == 1);
}

#[test]
fn rate_limits_go_to_the_workloads_of_the_service() {
    let policy = traffic("limits", "Service", "cart", 5)
        + "\n  rateLimits: [{per: Caller, requests: 10}, {requests: 100, interval: 10s, burst: 5}]";
    let meaning = mean(&documents(&[&service("shop/cart"), &workload("shop/cart-1", "cart", 1), &policy]), &[]);
    let inbound = &meaning.inbound[&object("shop/cart-1")];
    let told: Vec<String> =
        inbound.ports.iter().flat_map(|port| &port.limits).map(|limit| format!("{limit} {}", limit.by)).collect();
    assert_eq!(
        told,
        [
            "10 requests per 1s of each caller, 10 at once TrafficPolicy shop/limits",
            "100 requests per 10s of all callers together, 5 at once TrafficPolicy shop/limits"
        ]
    );
}

#[test]
fn authorization_is_by_namespace_and_labels() {
    let policy = |name: &str, selector: &str| {
        format!(
            "apiVersion: veer.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{selector}  action: ALLOW\n  rules: [{{from: [{{namespaces: [shop]}}]}}]"
        )
    };
    let text = documents(&[
        &workload("shop/cart-1", "cart", 11),
        &workload("shop/web-1", "web", 12),
        &workload("bank/cart-1", "cart", 13),
        &policy("all", ""),
        &policy("cart", "  selector: {matchLabels: {app: cart}}\n"),
        &policy("lost", "  selector: {matchLabels: {app: none}}\n"),
    ]);
    let meaning = mean(&text, &[]);
    let names = |workload: &str| {
        meaning.inbound[&object(workload)]
            .authorization
            .iter()
            .map(|p| p.name.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(names("shop/cart-1"), "shop/all shop/cart");
    assert_eq!(names("shop/web-1"), "shop/all");
    assert_eq!(names("bank/cart-1"), "");
    assert_eq!(codes(&meaning.faults), ["V0362"]);
}

#[test]
fn a_workloads_word_on_mtls_is_over_its_namespaces() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {veer.dev/mtls: strict}}";
    let own = workload("shop/b", "b", 12).replace("labels:", "annotations: {veer.dev/mtls: permissive}, labels:");
    let meaning = mean(&documents(&[namespace, &workload("shop/a", "a", 11), &own, &workload("bank/c", "c", 13)]), &[]);
    let mode = |name: &str| meaning.inbound[&object(name)].mtls;
    assert_eq!(mode("shop/a"), MtlsMode::Strict);
    assert_eq!(mode("shop/b"), MtlsMode::Permissive);
    assert_eq!(mode("bank/c"), MtlsMode::Permissive);
}

#[test]
fn workloads_do_not_take_each_others_place() {
    let text = documents(&[
        &service("shop/cart"),
        &workload("shop/cart-1", "cart", 11),
        &workload("shop/cart-2", "cart", 11),
        &workload("shop/cart-1", "cart", 14),
    ]);
    let meaning = mean(&text, &[]);
    assert_eq!(serving(&meaning, "cart.shop.svc.cluster.local"), "west: cart-1");
    assert_eq!(meaning.inbound.len(), 1);
    assert_eq!(codes(&meaning.faults), ["V0371", "V0301"]);
}
