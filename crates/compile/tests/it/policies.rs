//! Policies: whom they are for.

use veer_core::inbound::MtlsMode;

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
