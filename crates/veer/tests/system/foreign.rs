//! Python's grpcio on both sides, in another cluster than its servers.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use veer_testkit::{Fleet, eventually};

use crate::support::{SOON, fleet, foreign, listening, output, python, service, workload};

const REPLICAS: u8 = 3;

/// Calls in `west`, servers in `east`.
async fn echo(west: u8, route: bool) -> Fleet {
    let east = west + 1;
    let mut spec = fleet().cluster("west", west, 1).cluster("east", east, 1).peer("west", "east").visitor("west");
    let import = "
apiVersion: v1
kind: Service
metadata:
  name: echo
  namespace: shop
  annotations: { veer.dev/scope: clusterset }
spec:
  ports: [{ name: grpc, port: 80, appProtocol: grpc }]
";
    spec = spec.manifest("west/echo.yaml", import).manifest("east/echo.yaml", &service("echo", 80, "grpc"));
    let mut copies: Vec<(&str, u8, u8)> = (1..=REPLICAS).map(|n| ("echo", n, 30 + n)).collect();
    if route {
        copies.push(("canary", 1, 41));
        spec = spec.manifest("east/canary.yaml", &service("canary", 80, "grpc"));
        spec = spec.manifest("west/canary.yaml", &import.replace("echo", "canary"));
        spec = spec.manifest(
            "west/route.yaml",
            "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: { name: echo, namespace: shop }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: echo }]
  rules:
  - backendRefs: [{ name: echo, port: 80 }]
  - matches: [{ method: { service: veer.test.Echo, method: Canary } }]
    backendRefs: [{ name: canary, port: 80 }]
",
        );
    }
    for (name, n, last) in &copies {
        let text = workload(name, *n, &format!("127.{east}.0.{last}"), "grpc", "grpc_server.py");
        spec = spec.manifest(&format!("east/{name}-{n}.yaml"), &text);
    }
    let fleet = spec.start().await.expect("the fleet starts");
    for (_, _, last) in copies {
        listening(&fleet, "east", last, 9080).await;
    }
    fleet
}

/// Runs cases of `grpc_client.py`; none: all.
fn call(fleet: &Fleet, cases: &[&str]) -> Value {
    let target = format!("{}:15001", fleet.address("west", 10));
    let mut command = fleet.command("west", python());
    let text = output(command.arg(foreign("grpc_client.py")).args([&target, "echo.shop"]).args(cases));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

async fn reached(fleet: &Fleet) {
    let what = format!("west calls echo (logs in {})", fleet.folder().display());
    eventually(&what, SOON, || {
        let answer = call(fleet, &["unary"]);
        if answer["unary"] == "hello" { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn grpc_works_in_every_way_that_it_has() {
    let fleet = echo(87, false).await;
    reached(&fleet).await;
    let results = call(&fleet, &[]);
    let spread: BTreeMap<String, u64> =
        serde_json::from_value(results["spread"].clone()).unwrap_or_else(|error| panic!("{error} in {results:#}"));
    for (case, expected) in [
        ("unary", json!("hello")),
        (
            "metadata",
            json!({ "plain": "plain", "binary": true, "trailer": "last", "caller": "spiffe://west.test/ns/shop/sa/visitor" }),
        ),
        ("large", json!(true)),
        ("server_streaming", json!({ "count": 100, "in_order": true })),
        ("client_streaming", json!("a,b,c")),
        ("bidi", json!(true)),
        ("fail", json!({ "code": "FAILED_PRECONDITION", "details": "100 % wrong: grüße", "why": "asked to" })),
        ("fail_late", json!({ "code": "DATA_LOSS", "details": "after one", "why": null, "before": 1 })),
        ("cancel", json!({ "code": "CANCELLED", "server_heard": true })),
    ] {
        assert_eq!(results[case], expected, "{case}; all: {results:#}");
    }
    assert_eq!(results["unimplemented"]["code"], "UNIMPLEMENTED", "{results:#}");
    let deadline = &results["deadline"];
    assert_eq!(deadline["code"], "DEADLINE_EXCEEDED", "{results:#}");
    for knew in ["in_time", "server_knew", "server_heard"] {
        assert_eq!(deadline[knew], true, "{knew}: {results:#}");
    }

    // One channel is one connection, and yet every request found its own server, evenly.
    assert_eq!(spread.len(), usize::from(REPLICAS), "one channel reached only {spread:?}");
    assert!(spread.values().all(|count| (70..=130).contains(count)), "300 calls over one channel: {spread:?}");

    // gRPC's own outcomes are what is counted, by protocol.
    let labels = [("protocol", "grpc"), ("destination_cluster", "east")];
    let counted = fleet.metric("west", 10, "veer_requests_total", &labels).expect("metrics");
    assert!(counted > 300.0, "{counted} calls counted");
}

#[tokio::test]
async fn a_grpc_route_matches_methods() {
    let fleet = echo(89, true).await;
    reached(&fleet).await;
    let what = "both methods find their servers";
    let who = eventually(what, SOON, || {
        let who = call(&fleet, &["canary"])["canary"].clone();
        if who["exception"].is_null() { Ok(who) } else { Err(who.to_string()) }
    })
    .await;
    assert!(who["Unary"].as_str().is_some_and(|name| name.starts_with("echo-")), "{who}");
    assert_eq!(who["Canary"], "canary-1", "{who}");
}
