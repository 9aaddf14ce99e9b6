//! `veer explain request`: what would become of a request, without anything running.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::lint::example;

/// What is said, and whether the request reaches somebody.
fn explain(folder: &Path, flags: &[&str]) -> (Value, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veer"));
    command.args(["explain", "request", "--fleet"]).arg(folder).args(flags).args(["-o", "json"]);
    let output = command.output().expect("veer explain runs");
    let told = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (told, output.status.success())
}

fn text(folder: &Path, flags: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veer"));
    let output = command.args(["explain", "request", "--fleet"]).arg(folder).args(flags).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: canary, namespace: shop }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: catalog }]
  rules:
  - matches:
    - headers: [{ name: user, value: david }]
    filters:
    - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-canary, value: \"1\" }] } }
    backendRefs:
    - { group: multicluster.x-k8s.io, kind: ServiceImport, name: catalog-east, port: 80 }
  - name: split
    backendRefs:
    - { name: catalog, port: 80, weight: 90 }
    - { name: nowhere, port: 80, weight: 10 }
    timeouts: { request: 2s, backendRequest: 500ms }
    retry: { codes: [503], attempts: 3 }
";

const POLICY: &str = "apiVersion: veer.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: chaos, namespace: shop }
spec:
  targetRef: { kind: Service, name: catalog }
  circuitBreaker: { maxRequestsPerEndpoint: 7 }
  consistentHash: { algorithm: RingHash, header: x-user }
  faults:
  - { headers: [{ name: x-test, value: a }], percent: 10, abort: { status: 503 } }
";

/// Where the rule and the policies stand, by the name of the file.
fn places(told: &Value) -> Vec<String> {
    let all = told["written"].as_array().expect("places").iter();
    let place = |written: &Value| {
        let at = written["at"].as_str().expect("a place");
        format!("{} {}", written["what"].as_str().expect("a name"), at.rsplit('/').next().expect("a file"))
    };
    all.map(place).collect()
}

#[test]
fn rule_backends_limits_and_policies_are_told_with_their_places() {
    let folder = example(&[("west/route.yaml", ROUTE), ("west/policy.yaml", POLICY)]);
    let from = ["--from", "west/shop/web-1", "--to", "http://catalog/items?page=2"];
    let (told, reaches) = explain(folder.path(), &from);
    assert!(reaches);
    assert_eq!(told["service"]["host"], "catalog.shop.svc.cluster.local");
    assert_eq!((&told["rule"]["name"], &told["rule"]["index"]), (&"split".into(), &1.into()));
    assert_eq!(places(&told), ["HTTPRoute shop/canary route.yaml:13", "TrafficPolicy shop/chaos policy.yaml:4"]);
    let backends = told["backends"].as_array().expect("backends");
    assert_eq!((&backends[0]["share"], &backends[1]["share"]), (&90.0.into(), &10.0.into()));
    assert_eq!(backends[1]["answer"]["status"], 500, "the share of a backend that is not there");
    assert_eq!(
        backends[0]["limits"],
        serde_json::json!([
            "all tries together within 2s",
            "each try within 500ms",
            "at most 3 retries, of lost connections and of [503], after 10ms at least"
        ])
    );
    let policy = backends[0]["policy"].to_string();
    assert!(policy.contains("at most 7 requests in flight to one copy"), "{policy}");
    assert!(!policy.contains("fault"), "the request has not the field: {policy}");
    assert_eq!(backends[0]["clusters"][0]["cluster"], "west");
    assert_eq!(backends[0]["clusters"][0]["share"], 100.0);
    assert_eq!(backends[0]["clusters"][0]["endpoints"][0]["share"], 50.0);
    assert_eq!(backends[0]["clusters"][1]["share"], 0.0, "held for spill-over");

    let (told, reaches) = explain(folder.path(), &[&from[..], &["-H", "user: david", "-H", "x-test: a"]].concat());
    assert!(reaches);
    assert_eq!(told["rule"]["index"], 0);
    assert_eq!(told["backends"][0]["host"], "catalog-east.shop.svc.cluster.local");
    assert_eq!(told["backends"][0]["changes"], serde_json::json!(["x-canary: 1"]));
    let (told, _) = explain(folder.path(), &[&from[..], &["-H", "x-test: a"]].concat());
    let policy = told["backends"][0]["policy"].to_string();
    assert!(policy.contains("fault for 10 of 100 requests, header x-test = a: abort with 503"), "{policy}");
    assert_eq!(told["backends"][0]["ledTo"], Value::Null, "without the key");
    let led =
        |user: &str| explain(folder.path(), &[&from[..], &["-H", user]].concat()).0["backends"][0]["ledTo"].clone();
    let users: Vec<Value> = (0..8).map(|user| led(&format!("x-user: {user}"))).collect();
    assert_eq!(users[0], led("x-user: 0"));
    assert!(users.contains(&"shop/catalog-1".into()) && users.contains(&"shop/catalog-2".into()), "{users:?}");
    let shown = text(folder.path(), &from);
    assert!(shown.contains("HTTPRoute shop/canary rule split"), "{shown}");
    assert!(shown.contains("90 % of requests") && shown.contains("route.yaml:13"), "{shown}");
}

const MORE: &str = "apiVersion: veer.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: defaults, namespace: shop }
spec:
  targetRef: { kind: Namespace, name: shop }
  outlier: { consecutiveFailures: 3 }
  circuitBreaker: { maxRequestsPerEndpoint: 9 }
---
apiVersion: veer.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: canary, namespace: shop }
spec:
  targetRef: { kind: HTTPRoute, name: canary }
  faults:
  - { headers: [{ name: x-test, value: a }], percent: 20, abort: { status: 500 } }
";

#[test]
fn policies_of_namespace_service_and_route_are_merged_and_told() {
    let folder = example(&[("west/route.yaml", ROUTE), ("west/policy.yaml", POLICY), ("west/more.yaml", MORE)]);
    let (told, _) =
        explain(folder.path(), &["--from", "west/shop/web-1", "--to", "http://catalog/items", "-H", "x-test: a"]);
    let by = &told["backends"][0]["policyBy"];
    let wanted = ["TrafficPolicy shop/defaults", "TrafficPolicy shop/chaos", "TrafficPolicy shop/canary"];
    assert_eq!(*by, serde_json::json!(wanted));
    assert!(places(&told).contains(&"TrafficPolicy shop/canary more.yaml:12".to_owned()), "{:?}", places(&told));
    let policy = told["backends"][0]["policy"].to_string();
    assert!(policy.contains("at most 7 requests in flight to one copy"), "the Service's stands over: {policy}");
    assert!(policy.contains("after 3 failures in a row"), "the namespace's is the default: {policy}");
    assert!(policy.contains("fault for 20 of 100") && !policy.contains("fault for 10 of"), "the route's: {policy}");
}

const PRICE: &str = "apiVersion: veer.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: price, namespace: shop }
spec:
  targetRef: { kind: Service, name: price }
  circuitBreaker: { maxRequests: 77 }
";

#[test]
fn the_owners_policies_are_told_in_other_clusters() {
    let flags = ["--from", "edge/shop/web-1", "--to", "http://price/shop.v1.Price/Quote", "-X", "POST"];
    let wider = PRICE.replace("77", "99").replace("name: price, namespace", "name: own, namespace");
    let folder = example(&[("west/p.yaml", PRICE), ("east/p.yaml", PRICE), ("edge/p.yaml", &wider)]);
    let told = text(folder.path(), &flags);
    assert!(told.contains("77 to all"), "{told}");
    for by in ["TrafficPolicy shop/price of west", "TrafficPolicy shop/price of east", "TrafficPolicy shop/own "] {
        assert!(told.contains(by), "{by} is not told: {told}");
    }
    assert!(told.contains("west/p.yaml:4") && told.contains("edge/p.yaml:4"), "{told}");
}

const DENY: &str = "apiVersion: veer.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: read-only, namespace: shop }
spec:
  selector: { matchLabels: { app: catalog } }
  action: DENY
  rules:
  - to: [{ methods: [DELETE] }]
";

#[test]
fn what_the_callee_refuses_is_told_before_anything_is_sent() {
    let folder = example(&[("west/deny.yaml", DENY), ("east/deny.yaml", DENY)]);
    let from = ["--from", "west/shop/web-1", "--to", "http://catalog/items"];
    let (told, reaches) = explain(folder.path(), &from);
    let admits = |told: &Value| told["backends"][0]["clusters"][0]["endpoints"][0]["admits"].clone();
    assert!(reaches && admits(&told)["admitted"] == true, "{told}");
    let (told, reaches) = explain(folder.path(), &[&from[..], &["-X", "DELETE"]].concat());
    assert!(!reaches);
    assert_eq!(admits(&told)["why"], "refused with 403 (RBAC): access denied: by policy shop/read-only");
}

#[test]
fn what_is_wrong_is_told_with_how_to_mend_it() {
    let folder = example(&[]);
    let ask = |flags: &[&str]| text(folder.path(), flags);
    let told = ask(&["--from", "web-1", "--to", "http://catalog/"]);
    assert!(told.contains("means several; write one of west/shop/web-1, east/shop/web-1"), "{told}");
    let told = ask(&["--from", "wbe-1", "--to", "http://catalog/"]);
    assert!(told.contains("no Workload \"wbe-1\"; there are "), "{told}");
    let told = ask(&["--from", "west/shop/web-1", "--to", "https://catalog/"]);
    assert!(told.contains("ask by http"), "{told}");
    let told = ask(&["--from", "west/shop/web-1", "--to", "http://ctalog/"]);
    assert!(told.contains("404") && told.contains("no such service: ctalog"), "{told}");
    assert!(told.contains("catalog.shop.svc.cluster.local"), "{told}");
    let told = ask(&["--from", "west/shop/web-1", "--to", "http://catalog:81/"]);
    assert!(told.contains("has no port 81") && told.contains("mend"), "{told}");
    let (told, reaches) = explain(folder.path(), &["--from", "west/shop/web-1", "--to", "http://catalog/../x%2"]);
    assert!(!reaches && told["answer"]["status"] == 400, "{told}");
}

#[test]
fn each_copy_is_told_with_the_policy_of_its_own_cluster() {
    let folder = example(&[]);
    let flags = ["--from", "edge/shop/web-1", "--to", "http://price/shop.v1.Price/Quote", "-X", "POST"];
    let told = text(folder.path(), &flags);
    for (copy, own, other) in [("127.1.0.31", "west/", "east/"), ("127.2.0.31", "east/", "west/")] {
        let line = told.lines().find(|line| line.contains(copy)).unwrap_or_else(|| panic!("no {copy} in {told}"));
        let (own, other) = (format!("{own}authorization.yaml"), format!("{other}authorization.yaml"));
        assert!(line.contains(&own) && !line.contains(&other), "{line}");
    }
}
