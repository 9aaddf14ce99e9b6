//! What foreign clients bring to a Gateway beside requests and answers: gRPC, WebSockets, tunnels.

use std::process::Command;

use serde_json::{Value, json};
use veer_testkit::{Fleet, eventually};

use crate::support::{SOON, ask_gateway, fleet, foreign, output, python, service, workload};

/// The Gateway's address within its cluster's network, and its port.
const GATEWAY: &str = "127.66.0.60:10080";

const MANIFESTS: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: web, namespace: shop }
spec:
  gatewayClassName: veer
  addresses: [{ value: 127.66.0.60 }]
  listeners: [{ name: http, port: 10080, protocol: HTTP }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: { name: echo, namespace: shop }
spec:
  parentRefs: [{ name: web }]
  hostnames: [grpc.example.com]
  rules:
  - backendRefs: [{ name: echo, port: 80 }]
  - matches: [{ method: { service: veer.test.Echo, method: Canary } }]
    backendRefs: [{ name: canary, port: 80 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: page, namespace: shop }
spec:
  parentRefs: [{ name: web }]
  hostnames: [ws.example.com]
  rules: [{ backendRefs: [{ name: page, port: 80 }] }]
";

async fn start() -> Fleet {
    let mut spec = fleet().cluster("west", 66, 1).manifest("west/gateway.yaml", MANIFESTS);
    for (name, protocol, program, last) in [
        ("echo", "grpc", "grpc_server.py", 31),
        ("canary", "grpc", "grpc_server.py", 32),
        ("page", "http", "app.py", 33),
    ] {
        let copy = workload(name, 1, &format!("127.66.0.{last}"), protocol, program);
        spec = spec.manifest(&format!("west/{name}.yaml"), &service(name, 80, protocol));
        spec = spec.manifest(&format!("west/{name}-1.yaml"), &copy);
    }
    spec.start().await.expect("the fleet starts")
}

/// Runs cases of `grpc_client.py` against the Gateway.
fn call(cases: &[&str]) -> Value {
    let mut command = Command::new(python());
    let text = output(command.arg(foreign("grpc_client.py")).args([GATEWAY, "grpc.example.com"]).args(cases));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

#[tokio::test]
async fn grpc_and_websockets_come_in_by_a_gateway() {
    let fleet = start().await;
    let what = format!("the Gateway leads to all three (logs in {})", fleet.folder().display());
    eventually(&what, SOON, || {
        let who = call(&["canary"])["canary"].clone();
        let page = ask_gateway(&fleet, 60, ("http", "ws.example.com", 10080, "/"), &[]);
        if who["exception"].is_null() && page.status == 200 { Ok(()) } else { Err(format!("{who} {page:?}")) }
    })
    .await;

    let who = call(&["canary"])["canary"].clone();
    assert_eq!(
        (&who["Unary"], &who["Canary"]),
        (&json!("echo-1"), &json!("canary-1")),
        "methods have rules of their own"
    );
    let results = call(&["unary", "server_streaming", "client_streaming", "bidi", "fail", "cancel"]);
    for (case, expected) in [
        ("unary", json!("hello")),
        ("server_streaming", json!({ "count": 100, "in_order": true })),
        ("client_streaming", json!("a,b,c")),
        ("bidi", json!(true)),
        ("fail", json!({ "code": "FAILED_PRECONDITION", "details": "100 % wrong: grüße", "why": "asked to" })),
        ("cancel", json!({ "code": "CANCELLED", "server_heard": true })),
    ] {
        assert_eq!(results[case], expected, "{case}; all: {results:#}");
    }

    let mut client = Command::new("python3");
    let greeting = output(client.args([&foreign("websocket_client.py"), GATEWAY, "ws.example.com", "/ws"]));
    assert_eq!(greeting.trim(), "hello from page-1");

    // A Gateway is no way out of the mesh: it opens no tunnels to where a client pleases.
    let proxy = format!("http://{GATEWAY}");
    let tunnelled = ask_gateway(&fleet, 33, ("http", "127.66.0.33", 9080, "/"), &["-p", "-x", &proxy]);
    assert_eq!(tunnelled.status, 0, "a tunnel was opened: {tunnelled:?}");
    let stranger = ask_gateway(&fleet, 60, ("http", "nobody.example.com", 10080, "/"), &[]);
    assert_eq!(stranger.status, 404, "{stranger:?}");
}
