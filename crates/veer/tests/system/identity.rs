//! Who may call whom is decided at the callee, by what the caller's certificate proves; certificates change while traffic flows.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use veer_core::SpiffeId;
use veer_core::sni::Sni;
use veer_identity::{ALPN_HTTP1, Identity, Svid, TrustBundle};
use veer_net::Network;
use veer_testkit::{Fleet, eventually};

use crate::support::{SOON, fleet, listening, output, serving};

const CATALOG: &str = "catalog.shop";
const OF_ALL: &str = "catalog.shop.svc.clusterset.local";
const ITEMS: &str = "/items";
const VISITOR: u8 = 10;
const STRANGER: u8 = 11;

fn namespace(mode: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{ name: shop, annotations: {{ veer.dev/mtls: {mode} }} }}\n")
}

/// A request without the mesh, to the port where applications are asked.
fn plaintext(fleet: &Fleet, last: u8) -> Result<(u16, String), String> {
    let url = format!("http://{}:8080{ITEMS}", fleet.address("west", last));
    let text = output(fleet.command("west", "curl").args(["-s", "-m", "5", "-w", "\n%{http_code}", &url]));
    let (body, status) = text.rsplit_once('\n').ok_or_else(|| text.clone())?;
    Ok((status.parse().map_err(|_| text.clone())?, body.to_owned()))
}

async fn plaintext_gives(fleet: &Fleet, last: u8, wanted: u16) -> String {
    eventually(&format!("plaintext to .{last} gives {wanted}"), SOON, || {
        let (status, body) = plaintext(fleet, last)?;
        if status == wanted { Ok(body) } else { Err(format!("{status}: {body}")) }
    })
    .await
}

#[tokio::test]
async fn strict_refuses_plaintext_and_permissive_takes_it() {
    let spec = fleet().cluster("west", 119, 1).visitor("west").service("west", "catalog", 2, 21);
    let fleet = spec.start().await.expect("the fleet starts");
    for last in [21, 22] {
        listening(&fleet, "west", last, 9080).await;
        plaintext_gives(&fleet, last, 200).await;
    }
    serving(&fleet, "west", CATALOG, ITEMS).await;

    let load = fleet.load("west", CATALOG, ITEMS, 30, 3).expect("load");
    fleet.write("west/namespace.yaml", &namespace("strict")).expect("written");
    for last in [21, 22] {
        let body = plaintext_gives(&fleet, last, 403).await;
        assert!(body.contains("veer: RBAC") && body.contains("strict"), "{body}");
    }
    // Callers in the mesh do not notice.
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
    let labels = [("direction", "inbound"), ("flag", "RBAC"), ("status", "403"), ("source_workload", "")];
    let refused = fleet.metric("west", 21, "veer_requests_total", &labels).expect("metrics");
    assert!(refused >= 1.0, "{refused} refusals counted");

    // What a workload says counts more than what its namespace says.
    let workload = fleet.read("west/catalog-2.yaml").expect("manifest");
    let permissive = workload.replace("labels: {", "annotations: { veer.dev/mtls: permissive }, labels: {");
    fleet.write("west/catalog-2.yaml", &permissive).expect("written");
    plaintext_gives(&fleet, 22, 200).await;
    plaintext_gives(&fleet, 21, 403).await;
}

fn policy(name: &str, selector: &str, action: &str, from: &str) -> String {
    format!(
        "apiVersion: veer.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {{ name: {name}, namespace: shop }}
spec:
{selector}  action: {action}
  rules: [{{ from: [{from}] }}]
"
    )
}

const ON_CATALOG: &str = "  selector: { matchLabels: { app: catalog } }\n";

/// Every caller with what it must get.
async fn rights(fleet: &Fleet, what: &str, host: &str, wanted: &[(&str, u8, u16)]) {
    for (cluster, last, wanted) in wanted {
        eventually(&format!("{what}: {cluster}'s .{last} gets {wanted} of {host}"), SOON, || {
            let (status, body) = fleet.curl_from(cluster, *last, host, ITEMS, &[]).map_err(|e| e.to_string())?;
            let says_why = *wanted == 200 || body.contains("RBAC");
            if status == *wanted && says_why { Ok(()) } else { Err(format!("{status}: {body}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn policies_decide_by_service_account_per_workload_per_namespace_and_across_clusters() {
    let mut spec = fleet().cluster("west", 119, 1).cluster("east", 120, 1).peer("west", "east");
    for cluster in ["west", "east"] {
        spec = spec.visitor(cluster).caller(cluster, "stranger", STRANGER);
    }
    // `ledger` stands before copies of its own; policies select by label.
    let ledger = |text: String| text.replace("name: catalog", "name: ledger").replace("app: catalog", "app: ledger");
    let copy = veer_testkit::fleet::workload_yaml("catalog", 1, "127.120.0.31");
    let spec = spec
        .service("east", "catalog", 1, 21)
        .manifest("east/ledger.yaml", &ledger(veer_testkit::fleet::service_yaml("catalog")))
        .manifest("east/ledger-1.yaml", &ledger(copy));
    let fleet = spec.start().await.expect("the fleet starts");
    listening(&fleet, "east", 21, 9080).await;
    listening(&fleet, "east", 31, 9080).await;
    const LEDGER: &str = "ledger.shop.svc.clusterset.local";
    let all = |host: &'static str, of: [u16; 4]| {
        let who = [("east", VISITOR), ("east", STRANGER), ("west", VISITOR), ("west", STRANGER)];
        (host, [0, 1, 2, 3].map(|n: usize| (who[n].0, who[n].1, of[n])))
    };
    let check = async |what: &str, catalog: [u16; 4], ledger: [u16; 4]| {
        for (host, wanted) in [all(OF_ALL, catalog), all(LEDGER, ledger)] {
            rights(&fleet, what, host, &wanted).await;
        }
    };
    check("no policy", [200; 4], [200; 4]).await;

    let own = policy("catalog", ON_CATALOG, "ALLOW", "{ principals: [spiffe://east.test/ns/shop/sa/visitor] }");
    fleet.write("east/policy.yaml", &own).expect("written");
    check("one account of one cluster, one workload", [200, 403, 403, 403], [200; 4]).await;

    let both = "{ principals: [spiffe://east.test/ns/shop/sa/visitor, spiffe://west.test/ns/shop/sa/visitor] }";
    fleet.write("east/policy.yaml", &policy("catalog", ON_CATALOG, "ALLOW", both)).expect("written");
    check("the same account of both clusters", [200, 403, 200, 403], [200; 4]).await;

    fleet.write("east/policy.yaml", &policy("shop", "", "ALLOW", both)).expect("written");
    check("the whole namespace", [200, 403, 200, 403], [200, 403, 200, 403]).await;

    let strangers = "{ principals: [spiffe://west.test/ns/shop/sa/stranger] }";
    fleet.write("east/policy.yaml", &policy("catalog", ON_CATALOG, "DENY", strangers)).expect("written");
    check("all but one", [200, 200, 200, 403], [200; 4]).await;

    let foreign = "{ trustDomains: [west.test] }";
    fleet.write("east/policy.yaml", &policy("shop", "", "DENY", foreign)).expect("written");
    check("nobody of the other cluster", [200, 200, 403, 403], [200, 200, 403, 403]).await;

    let labels =
        [("direction", "inbound"), ("flag", "RBAC"), ("source_workload", "stranger"), ("source_cluster", "west")];
    let denied = fleet.metric("east", 21, "veer_requests_total", &labels).expect("metrics");
    assert!(denied >= 4.0, "{denied} denials of west's stranger counted");

    // A policy that is broken while it is edited stays as it was; one that never was whole lets nobody in.
    let broken = policy("shop", "", "ALLOW", "{ principals: [\"no spiffe id\"] }");
    fleet.write("east/policy.yaml", &broken).expect("written");
    eventually("the fault is told", SOON, || {
        let (text, ok) = fleet.tool("east", &["status", "--cluster", "east"]).map_err(|e| e.to_string())?;
        if !ok && text.contains("no spiffe id") { Ok(()) } else { Err(text) }
    })
    .await;
    check("a policy broken by an edit", [200, 200, 403, 403], [200, 200, 403, 403]).await;
    fleet.write("east/another.yaml", &broken.replace("name: shop,", "name: another,")).expect("written");
    rights(&fleet, "a broken policy", OF_ALL, &[("east", VISITOR, 403), ("west", VISITOR, 403)]).await;
}

/// The serial number of every certificate in use, by who uses it.
fn serials(fleet: &Fleet, at: &[(&'static str, u8)]) -> Result<BTreeMap<(&'static str, u8), String>, String> {
    let serial = |(cluster, last): &(&'static str, u8)| {
        let dump = fleet.dump(cluster, *last).map_err(|error| error.to_string())?;
        let serial = dump["identity"]["serial"].as_str().ok_or_else(|| dump["identity"].to_string())?;
        Ok(((*cluster, *last), serial.to_owned()))
    };
    at.iter().map(serial).collect()
}

async fn all_changed(fleet: &Fleet, what: &str, before: &BTreeMap<(&'static str, u8), String>) {
    let at: Vec<_> = before.keys().copied().collect();
    eventually(what, SOON, || {
        let now = serials(fleet, &at)?;
        let same: Vec<_> = now.iter().filter(|(who, serial)| before[*who] == **serial).collect();
        if same.is_empty() { Ok(()) } else { Err(format!("the same as before: {same:?}")) }
    })
    .await;
}

/// Callers in `west`, copies in both; proxies and gateways.
const ALL: [(&str, u8); 6] = [("west", 2), ("west", 10), ("west", 21), ("east", 2), ("east", 21), ("east", 22)];

async fn two_clusters(number: u8, fields: &str) -> Fleet {
    let spec = fleet().with(fields).cluster("west", number, 1).cluster("east", number + 1, 1).peer("west", "east");
    let spec = spec.visitor("west").service("west", "catalog", 1, 21).service("east", "catalog", 2, 21);
    // Half of the requests go through the gateways.
    let spec = spec.manifest(
        "west/route.yaml",
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: catalog, namespace: shop }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: catalog }]
  rules:
  - backendRefs: [{ name: catalog, port: 80 }, { name: catalog-east, port: 80 }]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: { name: catalog, namespace: shop, annotations: { veer.dev/per-cluster-names: \"true\" } }
spec: { type: ClusterSetIP, ports: [{ name: http, port: 80, appProtocol: http }] }
",
    );
    let fleet = spec.start().await.expect("the fleet starts");
    for (cluster, last) in [("west", 21), ("east", 21), ("east", 22)] {
        listening(&fleet, cluster, last, 9080).await;
    }
    eventually("both clusters serve", SOON, || {
        let loaded = fleet.load("west", CATALOG, ITEMS, 40, 1).and_then(|l| l.finish()).map_err(|e| e.to_string())?;
        let from = |cluster: &str| loaded.json["served_by"].to_string().contains(&format!("={cluster}/"));
        if loaded.failures == 0 && from("west") && from("east") { Ok(()) } else { Err(loaded.json.to_string()) }
    })
    .await;
    fleet
}

#[tokio::test]
async fn every_certificate_is_rotated_under_load_without_a_failure() {
    let fleet = two_clusters(121, "").await;
    let before = serials(&fleet, &ALL).expect("serials");
    let load = fleet.load("west", CATALOG, ITEMS, 50, 6).expect("load");
    let (text, ok) = fleet.tool("west", &["rotate"]).expect("rotate");
    assert!(ok, "{text}");
    all_changed(&fleet, "every certificate is another", &before).await;
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
    assert!(loaded.json["served_by"].to_string().contains("=east/"), "{}", loaded.json);
    for (cluster, last) in ALL {
        let rotated = fleet.metric(cluster, last, "veer_certificate_rotations_total", &[("outcome", "ok")]);
        assert!(rotated.expect("metrics") >= 1.0, "{cluster} .{last} counted no rotation");
    }
}

#[tokio::test]
async fn short_lived_certificates_are_renewed_in_place_under_load() {
    let fleet = two_clusters(123, "certificateTtl: 20s").await;
    // Twice the life of a certificate: whoever kept its first one has failed by then.
    let load = fleet.load("west", CATALOG, ITEMS, 30, 40).expect("load");
    for round in ["first", "second", "third"] {
        let before = serials(&fleet, &ALL).expect("serials");
        all_changed(&fleet, &format!("the {round} renewal"), &before).await;
    }
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
    let now = veer_identity::clock::unix_seconds(veer_identity::clock::now());
    for (cluster, last) in ALL {
        let dump = fleet.dump(cluster, last).expect("a dump");
        let left = dump["identity"]["not_after"].as_u64().expect("an end").saturating_sub(now);
        // The clocks are read one after the other, in whole seconds.
        assert!((1..=22).contains(&left), "{cluster} .{last}: {left} s left");
    }
}

/// The identity of a cluster's visitor, as its proxy keeps it, believing everybody that it believes.
fn visitor(fleet: &Fleet, cluster: &str, trust: &[&str]) -> Identity {
    let svid = Svid::load(&fleet.state(cluster).join("processes/shop.visitor/svid.pem")).expect("a certificate");
    let bundles = trust.iter().flat_map(|cluster| {
        let file = fleet.state(cluster).join("processes/shop.visitor/trust.json");
        let kept: Value = serde_json::from_slice(&std::fs::read(file).expect("trust")).expect("JSON");
        serde_json::from_value::<Vec<TrustBundle>>(kept["bundles"].clone()).expect("bundles")
    });
    Identity::new(svid, bundles.collect::<Vec<_>>()).expect("an identity")
}

/// A request under an identity and a server name; the answer, or why there is none.
async fn request(identity: &Identity, address: &str, sni: &Sni) -> Result<String, String> {
    let expected: SpiffeId = "spiffe://east.test/ns/shop/sa/catalog".parse().expect("an id");
    let exchange = async {
        let stream = Network::Tcp.connect(address.parse().expect("an address")).await.map_err(|e| e.to_string())?;
        let tls = identity.client_config(&[ALPN_HTTP1]);
        let (mut stream, _) =
            veer_identity::connect(stream, tls, sni, &[expected]).await.map_err(|error| error.to_string())?;
        let head = format!("GET {ITEMS} HTTP/1.1\r\nhost: {CATALOG}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.map_err(|e| e.to_string())?;
        let mut answer = Vec::new();
        // What came before the connection broke counts.
        let ended = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        if text.is_empty() { Err(format!("{ended:?}")) } else { Ok(text) }
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

/// Every token in what a proxy keeps.
fn tokens(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("token").and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned));
            fields.values().for_each(|value| tokens(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| tokens(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn a_stolen_token_opens_nothing_for_whom_the_service_was_not_offered() {
    let spec = fleet().cluster("west", 119, 1).cluster("east", 120, 1).cluster("edge", 121, 1).cluster("north", 122, 1);
    let mut spec = spec.peer("west", "east").peer("edge", "east").service("east", "catalog", 1, 21);
    for cluster in ["west", "edge", "north"] {
        spec = spec.visitor(cluster);
    }
    let only_west = veer_testkit::fleet::service_yaml("catalog").replace("audience: \"*\"", "audience: west");
    let fleet = spec.manifest("east/catalog.yaml", &only_west).start().await.expect("the fleet starts");
    listening(&fleet, "east", 21, 9080).await;
    serving(&fleet, "west", OF_ALL, ITEMS).await;
    let (status, body) = fleet.curl("edge", OF_ALL, ITEMS, &[]).expect("curl");
    assert_eq!(status, 404, "edge must not even know it: {body}");

    let token = eventually("west's proxy keeps a token", SOON, || {
        let file = fleet.state("west").join("processes/shop.visitor/config.json");
        let kept: Value =
            serde_json::from_slice(&std::fs::read(file).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        let mut found = Vec::new();
        tokens(&kept, &mut found);
        found.into_iter().next().ok_or_else(|| kept.to_string())
    })
    .await;
    let cluster = || "east".parse().expect("a name");
    let through = Sni::Gateway { token, port: 8080, cluster: cluster() };
    let direct = Sni::Direct { port: 8080, cluster: cluster() };
    let (gateway, mesh) = ("127.120.0.2:15443", "127.120.0.21:15008");

    let west = visitor(&fleet, "west", &["west"]);
    let answer = request(&west, gateway, &through).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("anchor"), "it was offered to west: {answer}");

    let edge = visitor(&fleet, "edge", &["edge"]);
    for (address, sni) in [(gateway, &through), (mesh, &direct)] {
        let answer = request(&edge, address, sni).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("RBAC"), "not offered to edge: {answer}");
        assert!(!answer.contains("anchor"), "{answer}");
    }
    let labels = [("direction", "inbound"), ("flag", "RBAC"), ("status", "403"), ("source_workload", "visitor")];
    let denied = fleet.metric("east", 21, "veer_requests_total", &labels).expect("metrics");
    assert!((denied - 2.0).abs() < 0.1, "{denied} denials counted, there were 2");

    // A cluster that east has no Link with is not even heard, even where it knows all of west's roots.
    let north = visitor(&fleet, "north", &["north", "west"]);
    for (address, sni) in [(gateway, &through), (mesh, &direct)] {
        let refused = request(&north, address, sni).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    let failed = fleet.samples("east", 21).expect("metrics").into_iter().filter(|sample| {
        sample.name == "veer_tls_handshakes_total"
            && sample.label("direction") == "inbound"
            && sample.label("outcome") != "ok"
    });
    let failed: f64 = failed.map(|sample| sample.value).sum();
    assert!(failed >= 2.0, "{failed} refused handshakes counted, there were 2");
}
