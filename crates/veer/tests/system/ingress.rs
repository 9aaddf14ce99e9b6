//! A Gateway in one cluster in front of services in another: real curl through HTTP, HTTPS, TLS and TCP listeners.

use std::process::Command;

use serde_json::Value;
use veer_testkit::{Fleet, FleetSpec, eventually};

use crate::support::{Answer, SOON, answered, ask_gateway, fleet, listening, output, service, tool_json, workload};

/// Address of the Gateway within its cluster's network.
const GATEWAY: u8 = 60;
const HTTP: u16 = 10080;
const HTTPS: u16 = 10443;
const TLS: u16 = 10444;
const TCP: u16 = 10090;

/// A certificate for some names, and the Secret that holds it; the folder keeps the files.
fn secret(folder: &std::path::Path, name: &str, hosts: &[&str]) -> String {
    let (key, chain) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.crt")));
    let names: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName={}", names.join(","))]);
    output(openssl.arg("-keyout").arg(&key).arg("-out").arg(&chain));
    let indented = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).expect("openssl wrote it");
        text.lines().map(|line| format!("    {line}\n")).collect::<String>()
    };
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{ name: {name}, namespace: shop }}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{}  tls.key: |
{}",
        indented(&chain),
        indented(&key)
    )
}

fn gateway(address: &str) -> String {
    let certificate = |name: &str| format!("tls: {{ certificateRefs: [{{ name: {name} }}] }}");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: web, namespace: shop, generation: 1 }}
spec:
  gatewayClassName: veer
  addresses: [{{ value: {address} }}]
  listeners:
  - {{ name: http, port: {HTTP}, protocol: HTTP }}
  - {{ name: wild, port: {HTTPS}, protocol: HTTPS, hostname: \"*.example.com\", {} }}
  - {{ name: shop, port: {HTTPS}, protocol: HTTPS, hostname: shop.example.com, {} }}
  - {{ name: through, port: {TLS}, protocol: TLS, hostname: through.example.com, tls: {{ mode: Passthrough }} }}
  - {{ name: ends, port: {TLS}, protocol: TLS, hostname: ends.example.com, {} }}
  - {{ name: bytes, port: {TCP}, protocol: TCP }}
",
        certificate("wild"),
        certificate("shop"),
        certificate("wild"),
    )
}

const IMPORT: &str = "group: multicluster.x-k8s.io, kind: ServiceImport, port: 80";

fn routes() -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: page, namespace: shop }}
spec:
  parentRefs: [{{ name: web }}]
  hostnames: [shop.example.com, \"*.example.com\"]
  rules:
  - matches: [{{ path: {{ type: PathPrefix, value: /old }} }}]
    filters: [{{ type: RequestRedirect, requestRedirect: {{ path: {{ type: ReplaceFullPath, replaceFullPath: /new }} }} }}]
  - backendRefs: [{{ name: page, {IMPORT} }}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: specific, namespace: shop }}
spec:
  parentRefs: [{{ name: web, sectionName: http }}]
  hostnames: [shop.example.com]
  rules:
  - matches: [{{ path: {{ value: /specific }} }}]
    filters: [{{ type: ResponseHeaderModifier, responseHeaderModifier: {{ set: [{{ name: x-route, value: specific }}] }} }}]
    backendRefs: [{{ name: page, {IMPORT} }}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {{ name: ends, namespace: shop }}
spec:
  parentRefs: [{{ name: web, sectionName: ends }}]
  hostnames: [ends.example.com]
  rules: [{{ backendRefs: [{{ name: bytes, {IMPORT} }}] }}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {{ name: through, namespace: shop }}
spec:
  parentRefs: [{{ name: web, sectionName: through }}]
  hostnames: [through.example.com]
  rules: [{{ backendRefs: [{{ name: sealed, {IMPORT} }}] }}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{ name: bytes, namespace: shop }}
spec:
  parentRefs: [{{ name: web, sectionName: bytes }}]
  rules: [{{ backendRefs: [{{ name: bytes, {IMPORT} }}] }}]
"
    )
}

/// `west` has the Gateway and no copy of anything; `east` has the services.
fn spec(west: u8, keys: &std::path::Path) -> FleetSpec {
    let east = west + 1;
    let sealed = workload("sealed", 1, &format!("127.{east}.0.33"), "tcp", "app.py");
    let run = sealed.find("    command:").expect("a command");
    let sealed = format!(
        "{}    command: [openssl, s_server, -quiet, -www, -accept, \"$(VEER_ADDRESS):9080\", -cert, {keys}/through.crt, -key, {keys}/through.key]\n",
        &sealed[..run],
        keys = keys.display(),
    );
    secret(keys, "through", &["through.example.com"]);
    fleet()
        .cluster("west", west, 1)
        .cluster("east", east, 1)
        .peer("west", "east")
        .manifest("east/page.yaml", &service("page", 80, "http"))
        .manifest("east/page-1.yaml", &workload("page", 1, &format!("127.{east}.0.31"), "http", "app.py"))
        .manifest("east/bytes.yaml", &service("bytes", 80, "tcp"))
        .manifest("east/bytes-1.yaml", &workload("bytes", 1, &format!("127.{east}.0.32"), "tcp", "app.py"))
        .manifest("east/sealed.yaml", &service("sealed", 80, "tcp"))
        .manifest("east/sealed-1.yaml", &sealed)
        .manifest("west/wild.yaml", &secret(keys, "wild", &["*.example.com"]))
        .manifest("west/shop.yaml", &secret(keys, "shop", &["shop.example.com"]))
        .manifest("west/gateway.yaml", &gateway(&format!("127.{west}.0.{GATEWAY}")))
        .manifest("west/routes.yaml", &routes())
}

/// Asks the Gateway as the host.
fn ask(fleet: &Fleet, scheme: &str, port: u16, host: &str, path: &str, more: &[&str]) -> Answer {
    ask_gateway(fleet, GATEWAY, (scheme, host, port, path), more)
}

fn conditions(object: &Value) -> Vec<(&str, &str, &str)> {
    let all = object["conditions"].as_array().expect("conditions");
    all.iter().map(|c| (str_of(c, "type"), str_of(c, "status"), str_of(c, "reason"))).collect()
}

fn str_of<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_gateway_leads_to_services_of_another_cluster() {
    let keys = tempfile::tempdir().expect("a folder");
    let fleet = spec(97, keys.path()).start().await.expect("the fleet starts");
    for copy in 31..=33 {
        listening(&fleet, "east", copy, 9080).await;
    }
    listening(&fleet, "west", GATEWAY, HTTP).await;
    answered(&fleet, "HTTP leads on", 200, || ask(&fleet, "http", HTTP, "shop.example.com", "/", &[])).await;

    // HTTP: who asked, and for what, is told to the backend; a forged word of it is not believed.
    let forged = ["-H", "X-Forwarded-Proto: https", "-H", "X-Forwarded-Host: evil", "-H", "X-Forwarded-For: 10.9.9.9"];
    let answer = ask(&fleet, "http", HTTP, "shop.example.com", "/a?b=1", &forged);
    assert_eq!((answer.status, answer.field("x-served-by")), (200, "page-1"), "{answer:?}");
    assert_eq!(answer.json()["target"], "/a?b=1");
    assert_eq!(answer.seen("host"), [format!("shop.example.com:{HTTP}")]);
    assert_eq!(answer.seen("x-forwarded-proto"), ["http"]);
    assert_eq!(answer.seen("x-forwarded-host"), [format!("shop.example.com:{HTTP}")]);
    let hops = answer.seen("x-forwarded-for").join(",");
    assert!(hops.starts_with("10.9.9.9,") && hops.contains("127."), "{hops}");

    // Hosts: the most specific first, less specific where it has no rule, 404 where nothing is for the host.
    let answer = ask(&fleet, "http", HTTP, "shop.example.com", "/specific", &[]);
    assert_eq!((answer.status, answer.field("x-route")), (200, "specific"), "{answer:?}");
    assert_eq!(ask(&fleet, "http", HTTP, "other.example.com", "/specific", &[]).field("x-route"), "");
    assert_eq!(ask(&fleet, "http", HTTP, "other.example.com", "/", &[]).status, 200);
    assert_eq!(ask(&fleet, "http", HTTP, "other.example.org", "/", &[]).status, 404);

    // HTTPS: the certificate follows the server name, HTTP/2 and HTTP/1.1 by choice.
    let trusting = |name: &str| keys.path().join(format!("{name}.crt")).display().to_string();
    for (host, name) in [("shop.example.com", "shop"), ("other.example.com", "wild")] {
        for version in ["--http2", "--http1.1"] {
            let answer = ask(&fleet, "https", HTTPS, host, "/", &["--cacert", &trusting(name), version]);
            assert_eq!(answer.status, 200, "{host} {version}: {answer:?}");
            assert_eq!(answer.head.starts_with("HTTP/2"), version == "--http2", "{answer:?}");
            assert_eq!(answer.seen("x-forwarded-proto"), ["https"]);
        }
    }
    let wrong = ask(&fleet, "https", HTTPS, "other.example.com", "/", &["--cacert", &trusting("shop")]);
    assert_eq!(wrong.status, 0, "another listener's certificate: {wrong:?}");
    let answer = ask(&fleet, "https", HTTPS, "shop.example.com", "/old", &["-k"]);
    assert_eq!(answer.field("location"), format!("https://shop.example.com:{HTTPS}/new"), "{answer:?}");

    // A request for another listener's host by this connection is misdirected; one for nobody's host is not found.
    for (host, status) in [("other.example.com", 421), ("shop.example.com", 200), ("nobody.example.org", 404)] {
        let field = format!("Host: {host}");
        assert_eq!(
            ask(&fleet, "https", HTTPS, "shop.example.com", "/", &["-k", "-H", &field]).status,
            status,
            "{host}"
        );
    }
    assert_eq!(ask(&fleet, "https", HTTPS, "shop.example.org", "/", &["-k"]).status, 0, "no listener has this name");

    // TLS: passed through to the backend's own certificate, or ended here; TCP by the port.
    let answer =
        ask(&fleet, "https", TLS, "through.example.com", "/", &["--cacert", &trusting("through"), "--http1.1"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = ask(&fleet, "https", TLS, "ends.example.com", "/", &["--cacert", &trusting("wild"), "--http1.1"]);
    assert_eq!((answer.status, answer.field("x-served-by")), (200, "bytes-1"), "{answer:?}");
    assert_eq!(ask(&fleet, "https", TLS, "else.example.com", "/", &["-k"]).status, 0);
    let answer = ask(&fleet, "http", TCP, "whatever.example", "/", &[]);
    assert_eq!((answer.status, answer.field("x-served-by")), (200, "bytes-1"), "{answer:?}");

    // Status: as the specification words it.
    let objects = eventually("the Gateway is programmed", SOON, || {
        let objects = tool_json(&fleet, "west", &["get", "gateway", "shop/web", "--cluster", "west"])?;
        let programmed = objects[0]["status"]["conditions"][1]["status"] == "True";
        if programmed { Ok(objects) } else { Err(objects.to_string()) }
    })
    .await;
    let status = &objects[0]["status"];
    let told = conditions(status);
    assert_eq!(told, [("Accepted", "True", "Accepted"), ("Programmed", "True", "Programmed")]);
    assert_eq!(status["conditions"][0]["observedGeneration"], 1);
    assert!(status["conditions"][0]["lastTransitionTime"].as_str().is_some_and(|time| time.ends_with('Z')));
    let counts: Vec<_> =
        status["listeners"].as_array().expect("listeners").iter().map(|l| l["attachedRoutes"].clone()).collect();
    assert_eq!(counts, [2, 1, 1, 1, 1, 1]);
    let (yaml, _) =
        fleet.tool("west", &["get", "httproute", "specific", "--cluster", "west", "-o", "yaml"]).expect("get");
    assert!(
        yaml.contains("controllerName: veer.dev/gateway") && yaml.contains("  hostnames:\n  - shop.example.com\n"),
        "{yaml}"
    );
    let (table, _) = fleet.tool("west", &["get", "all", "--cluster", "west"]).expect("get");
    assert!(table.contains("shop/web") && !table.contains("Accepted"), "all is well: {table}");

    // Edited while it runs: a listener goes, a certificate is replaced.
    let other = secret(keys.path(), "wild", &["*.example.com"]);
    fleet.write("west/wild.yaml", &other).expect("written");
    answered(&fleet, "the new certificate is shown", 200, || {
        ask(&fleet, "https", HTTPS, "other.example.com", "/", &["--cacert", &trusting("wild")])
    })
    .await;
    let without = gateway(&fleet.address("west", GATEWAY)).replace("  - { name: bytes,", "#");
    fleet.write("west/gateway.yaml", &without).expect("written");
    answered(&fleet, "the TCP listener is gone", 0, || ask(&fleet, "http", TCP, "whatever.example", "/", &[])).await;
}
