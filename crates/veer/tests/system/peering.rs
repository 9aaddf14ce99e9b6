//! Clusters peer: each sees what it was offered and agreed to take, silence is outlived, death is routed around, and the gateways
//! between them read nothing.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use veer_testkit::{Fleet, FleetSpec, eventually};

use crate::support::{SOON, ask, fleet, listening, output, serving, tool_json};

const CATALOG: &str = "catalog.shop.svc.clusterset.local";
const ITEMS: &str = "/items";

/// A Service in front of the same copies as `catalog`, exported to an audience.
fn exported(name: &str, audience: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  selector: {{ app: catalog }}
  ports: [{{ name: http, port: 80, targetPort: 8080, appProtocol: http }}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {{ name: {name}, namespace: shop, annotations: {{ veer.dev/audience: \"{audience}\" }} }}
"
    )
}

/// Names of services of which a cluster knows copies in another.
fn known(fleet: &Fleet, cluster: &str, of: &str) -> Result<BTreeSet<String>, String> {
    let json = tool_json(fleet, cluster, &["endpoints", "--cluster", cluster])?;
    let services = json[0]["answer"].as_array().ok_or_else(|| json.to_string())?;
    let has =
        |service: &Value| service["clusters"].as_array().is_some_and(|all| all.iter().any(|c| c["cluster"] == of));
    let names = services.iter().filter(|service| has(service)).filter_map(|service| service["host"].as_str());
    Ok(names.filter_map(|host| host.split('.').next()).map(str::to_owned).collect())
}

async fn knows(fleet: &Fleet, cluster: &str, of: &str, what: &[&str]) {
    let wanted: BTreeSet<String> = what.iter().map(|name| (*name).to_owned()).collect();
    eventually(&format!("{cluster} knows {what:?} of {of}"), SOON, || {
        let known = known(fleet, cluster, of)?;
        if known == wanted { Ok(()) } else { Err(format!("{known:?}")) }
    })
    .await;
}

#[tokio::test]
async fn each_side_sees_exactly_what_it_was_offered_and_agreed_to_take() {
    let spec = fleet().cluster("west", 107, 1).cluster("east", 108, 1).cluster("edge", 109, 1);
    let spec = spec
        .peer("west", "east")
        .peer_providing("edge", "east", &["shop/catalog", "shop/coins"])
        .visitor("west")
        .visitor("edge");
    let spec = spec.service("east", "catalog", 1, 21).service("west", "catalog", 1, 21);
    let spec = spec
        .manifest("east/ledger.yaml", &exported("ledger", "west"))
        .manifest("east/coins.yaml", &exported("coins", "edge"))
        .manifest("east/stock.yaml", &exported("stock", "*"))
        .manifest("east/diary.yaml", &exported("diary", "*").replace("ServiceExport", "ServiceExported"));
    let spec = spec.manifest(
        "west/imports.yaml",
        "apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: { name: catalog, namespace: shop, annotations: { veer.dev/per-cluster-names: \"true\" } }
spec: { type: ClusterSetIP, ports: [{ name: http, port: 80, appProtocol: http }] }
",
    );
    let fleet = spec.start().await.expect("the fleet starts");

    // `stock` is offered to edge, which agreed to take two others; it is told.
    knows(&fleet, "edge", "east", &["catalog", "coins"]).await;
    knows(&fleet, "west", "east", &["catalog", "catalog-east", "ledger", "stock"]).await;
    knows(&fleet, "west", "edge", &[]).await;
    let status = tool_json(&fleet, "edge", &["status", "--cluster", "edge"]).expect("status");
    let refused = status[0]["answer"]["peers"][0]["refused"].to_string();
    assert!(refused.contains("stock") && !refused.contains("ledger"), "{status:#}");

    for (from, service, status) in [
        ("west", "ledger", 200),
        ("west", "stock", 200),
        ("west", "coins", 404),
        ("west", "diary", 404),
        ("edge", "coins", 200),
        ("edge", "ledger", 404),
        ("edge", "stock", 404),
    ] {
        let host = format!("{service}.shop.svc.clusterset.local");
        if status == 200 {
            serving(&fleet, from, &host, ITEMS).await;
        }
        let answer = ask(&fleet, from, &host, ITEMS, &[]);
        assert_eq!(answer.status, status, "{service} from {from}: {answer:?}");
    }

    // By its own name, a cluster's copies are meant and no others.
    serving(&fleet, "west", "catalog-east.shop", ITEMS).await;
    for _ in 0..10 {
        let answer = ask(&fleet, "west", "catalog-east.shop", ITEMS, &[]);
        assert_eq!(answer.field("x-served-by"), "catalog=east/catalog-1", "{answer:?}");
    }

    // An offer that is withdrawn is gone, one that is widened is there.
    fleet.write("east/ledger.yaml", &exported("ledger", "edge")).expect("written");
    fleet.write("east/coins.yaml", &exported("coins", "*")).expect("written");
    knows(&fleet, "west", "east", &["catalog", "catalog-east", "coins", "stock"]).await;
    knows(&fleet, "edge", "east", &["catalog", "coins"]).await;
    serving(&fleet, "west", "coins.shop.svc.clusterset.local", ITEMS).await;
}

/// Callers in `west`, copies in `east` and, where it is there, `edge`.
async fn regions(numbers: &[u8], gateways: u8, fields: &str) -> Fleet {
    let names = ["west", "east", "edge"];
    let mut spec: FleetSpec = fleet().with(fields);
    for (name, number) in names.iter().zip(numbers) {
        spec = spec.cluster(name, *number, gateways);
    }
    for name in &names[1..numbers.len()] {
        spec = spec.peer("west", name).service(name, "catalog", 2, 21);
    }
    let spec = spec.service("west", "catalog", 0, 21).visitor("west").manifest("west/policy.yaml", POLICY);
    let fleet = spec.start().await.expect("the fleet starts");
    for name in &names[1..numbers.len()] {
        listening(&fleet, name, 21, 9080).await;
        listening(&fleet, name, 22, 9080).await;
        let wanted = |fleet: &Fleet| known(fleet, "west", name).map(|known| known.contains("catalog"));
        eventually(&format!("west knows {name}"), SOON, || {
            wanted(&fleet).and_then(|k| k.then_some(()).ok_or(String::new()))
        })
        .await;
    }
    serving(&fleet, "west", CATALOG, ITEMS).await;
    fleet
}

const POLICY: &str = "apiVersion: veer.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: catalog, namespace: shop }
spec: { targetRef: { kind: Service, name: catalog }, slowStart: 6s }
";

/// What the visitor in `west` makes of a peer, and through which gateways it goes there.
fn path(fleet: &Fleet, peer: &str) -> Result<Value, String> {
    let dump = fleet.dump("west", 10).map_err(|error| error.to_string())?;
    let paths = dump["paths"].as_array().ok_or_else(|| dump.to_string())?;
    paths.iter().find(|path| path["cluster"] == peer).cloned().ok_or_else(|| dump["paths"].to_string())
}

async fn stands(fleet: &Fleet, peer: &str, standing: &str, limit: Duration) {
    eventually(&format!("west takes {peer} for {standing}"), limit, || {
        let path = path(fleet, peer)?;
        if path["standing"] == standing { Ok(()) } else { Err(path.to_string()) }
    })
    .await;
}

/// Requests that the visitor sent to a cluster and were answered with 200.
fn served(fleet: &Fleet, cluster: &str) -> Result<f64, String> {
    let labels = [("direction", "outbound"), ("destination_cluster", cluster), ("status", "200")];
    fleet.metric("west", 10, "veer_requests_total", &labels).map_err(|error| error.to_string())
}

/// The share of a cluster among the next requests.
async fn share(fleet: &Fleet, of: &str, other: &str, requests: f64) -> f64 {
    let before = (served(fleet, of).expect("metrics"), served(fleet, other).expect("metrics"));
    let (of, all) = eventually("requests flow", SOON, || {
        let (one, two) = (served(fleet, of)? - before.0, served(fleet, other)? - before.1);
        if one + two >= requests { Ok((one, one + two)) } else { Err(format!("{one} and {two}")) }
    })
    .await;
    of / all
}

#[tokio::test]
async fn a_killed_cluster_costs_no_request_and_comes_back_slowly() {
    const LEASE: Duration = Duration::from_secs(2);
    let fleet = regions(&[110, 111, 112], 1, "lease: 2s").await;
    let load = fleet.load("west", CATALOG, ITEMS, 40, 35).expect("load");
    let even = share(&fleet, "east", "edge", 80.0).await;
    assert!(even > 0.35 && even < 0.65, "east's share while all is well: {even}");

    fleet.kill("east").expect("killed");
    let killed = Instant::now();
    stands(&fleet, "east", "expired", LEASE + Duration::from_secs(1)).await;
    let (out, none) = (killed.elapsed(), share(&fleet, "east", "edge", 40.0).await);
    assert!(none < 0.01, "east is dead, was expired after {out:?}, and served {none}");
    eventually("status tells", SOON, || {
        let json = tool_json(&fleet, "west", &["status", "--cluster", "west"])?;
        let peers = json[0]["answer"]["peers"].as_array().cloned().unwrap_or_default();
        let east = peers.iter().find(|peer| peer["cluster"] == "east");
        if east.is_some_and(|east| east["state"] == "silent" && east["connected"] == false) {
            Ok(())
        } else {
            Err(json.to_string())
        }
    })
    .await;

    let gone = served(&fleet, "east").expect("metrics");
    fleet.revive("east").expect("started");
    eventually("east serves again", SOON, || {
        let now = served(&fleet, "east")?;
        if now > gone { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
    let first = share(&fleet, "east", "edge", 40.0).await;
    stands(&fleet, "east", "fresh", SOON).await;
    let mut last = first;
    let begun = Instant::now();
    while last < 0.38 {
        assert!(begun.elapsed() < SOON, "east's share stays at {last}");
        last = share(&fleet, "east", "edge", 40.0).await;
    }
    assert!(first < 0.3, "east came back at once: {first} of the first requests, {last} in the end");
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
}

/// Copies all bytes between those who connect and a target, and keeps them.
fn record(listen: &str, target: &str) -> Arc<Mutex<Vec<u8>>> {
    let listener = TcpListener::bind(listen).expect("an address of the test's own");
    let target: SocketAddr = target.parse().expect("an address");
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let record = Arc::clone(&seen);
    std::thread::spawn(move || {
        for inside in listener.incoming().flatten() {
            let Ok(outside) = TcpStream::connect(target) else { continue };
            let (Ok(inside_too), Ok(outside_too)) = (inside.try_clone(), outside.try_clone()) else { continue };
            for (from, to) in [(inside, outside_too), (outside, inside_too)] {
                let record = Arc::clone(&record);
                std::thread::spawn(move || copy(from, to, &record));
            }
        }
    });
    seen
}

fn copy(mut from: TcpStream, mut to: TcpStream, record: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        record.lock().expect("no thread panics with it").extend_from_slice(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn holds(record: &Mutex<Vec<u8>>, word: &str) -> bool {
    record
        .lock()
        .expect("no thread panics with it")
        .windows(word.len())
        .any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

#[tokio::test]
async fn links_put_by_hand_peer_two_fleets_and_nothing_in_between_can_be_read() {
    let west = fleet().cluster("west", 113, 1).service("west", "catalog", 0, 21).visitor("west");
    let west = west.start().await.expect("the fleet starts");
    let east = fleet().cluster("east", 114, 1).service("east", "catalog", 1, 21);
    let east = east.start().await.expect("the other fleet starts");
    listening(&east, "east", 21, 9080).await;
    assert_eq!(ask(&west, "west", CATALOG, ITEMS, &[]).status, 503, "nobody serves yet");

    let link = |fleet: &Fleet, cluster: &str| {
        let (text, ok) = fleet.tool(cluster, &["link"]).expect("veer link");
        assert!(ok && text.contains("kind: Link") && text.contains("BEGIN CERTIFICATE"), "{text}");
        assert!(!text.contains("PRIVATE KEY"), "{text}");
        text
    };
    let (of_west, of_east) = (link(&west, "west"), link(&east, "east"));
    // West dials east through a listener of the test that keeps every byte.
    let gateway = "127.114.0.2:15443";
    assert!(of_east.contains(gateway), "{of_east}");
    let passed = record("127.113.0.60:15443", gateway);
    west.write("west/link-east.yaml", &of_east.replace(gateway, "127.113.0.60:15443")).expect("written");
    east.write("east/link-west.yaml", &of_west).expect("written");
    serving(&west, "west", CATALOG, ITEMS).await;

    let before = passed.lock().expect("no thread panics with it").len();
    let secrets = ["-H", "x-secret: tulip-in-the-request", "-X", "PUT", "-d", "tulip-in-the-body"];
    for _ in 0..5 {
        let answer = ask(&west, "west", CATALOG, ITEMS, &secrets);
        assert_eq!(answer.field("x-served-by"), "catalog=east/catalog-1", "{answer:?}");
        assert!(answer.body.contains("anchor"), "{answer:?}");
    }
    let length = passed.lock().expect("no thread panics with it").len();
    assert!(length > before + 1000, "{before}, then {length} bytes passed: the requests went another way");
    for word in ["tulip", "anchor", "x-secret", "x-served-by", "catalog", "/items", "shop", "spiffe://"] {
        assert!(!holds(&passed, word), "{word:?} can be read between the clusters");
    }

    // The same eye sees everything where nothing is encrypted: between the application and its own proxy.
    let plain = record("127.113.0.61:15001", "127.113.0.10:15001");
    let url = format!("http://127.113.0.61:15001{ITEMS}");
    output(
        west.command("west", "curl")
            .args(["-sf", "-m", "10", "-H", &format!("Host: {CATALOG}")])
            .args(secrets)
            .arg(url),
    );
    for word in ["tulip-in-the-request", "tulip-in-the-body", "anchor", "/items"] {
        assert!(holds(&plain, word), "the record is broken: {word:?} is missing");
    }
}

async fn serves_alone(fleet: &Fleet, process: &str, before: u32) {
    eventually(&format!("{process} starts again"), SOON, || {
        let running = fleet.processes("east").map_err(|e| e.to_string())?;
        if running.get(process).is_some_and(|pid| *pid != before) { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await;
}

#[tokio::test]
async fn without_any_control_plane_traffic_goes_on_and_restarts_are_survived() {
    let fleet = regions(&[115, 116], 1, "lease: 2s").await;
    eventually("what is known is kept", SOON, || {
        let kept = fleet.state("west").join("processes/shop.visitor/config.json");
        let kept = std::fs::read_to_string(kept).map_err(|e| e.to_string())?;
        if kept.contains("catalog-1") { Ok(()) } else { Err(kept) }
    })
    .await;
    fleet.kill("west/control").expect("killed");
    fleet.kill("east/control").expect("killed");
    let killed = Instant::now();
    let load = fleet.load("west", CATALOG, ITEMS, 40, 8).expect("load");

    // Callees restart one after the other; the data path is proven all the time, so the lease does not matter.
    for (copy, last) in [("shop.catalog-1", 21), ("shop.catalog-2", 22)] {
        let before = fleet.crash("east", &format!("{copy}.proxy")).expect("killed");
        serves_alone(&fleet, &format!("{copy}.proxy"), before).await;
        eventually(&format!("{copy} is ready"), SOON, || fleet.page("east", last, "/ready").map_err(|e| e.to_string()))
            .await;
        let labels = [("direction", "inbound")];
        eventually(&format!("{copy} serves again"), SOON, || {
            let served = fleet.metric("east", last, "veer_requests_total", &labels).map_err(|e| e.to_string())?;
            if served > 0.0 { Ok(()) } else { Err(format!("{served}")) }
        })
        .await;
    }
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
    stands(&fleet, "east", "proven", SOON).await;

    // The only gateway between them, and the caller's proxy itself.
    let before = fleet.crash("east", "gateway-1").expect("killed");
    serves_alone(&fleet, "gateway-1", before).await;
    serving(&fleet, "west", CATALOG, ITEMS).await;
    fleet.crash("west", "shop.visitor.proxy").expect("killed");
    serving(&fleet, "west", CATALOG, ITEMS).await;
    let load = fleet.load("west", CATALOG, ITEMS, 40, 3).expect("load").finish().expect("load");
    assert_eq!(load.failures, 0, "{}", load.json);

    // They say how old their knowledge is.
    let age = fleet.metric("west", 10, "veer_config_age_seconds", &[]).expect("metrics");
    let real = killed.elapsed().as_secs_f64();
    // One that was killed knows only when it last wrote down that it was confirmed: never too young.
    assert!(
        age + 2.0 >= real && age <= real + 17.0,
        "{age} s old by its own word; the control plane died {real} s ago"
    );
    assert_eq!(fleet.metric("west", 10, "veer_control_connected", &[]).expect("metrics"), 0.0);

    for control in ["west/control", "east/control"] {
        fleet.revive(control).expect("started");
    }
    stands(&fleet, "east", "fresh", SOON).await;
    serving(&fleet, "west", CATALOG, ITEMS).await;
}

#[tokio::test]
async fn a_gateway_drained_and_one_killed_cost_no_request() {
    let fleet = regions(&[117, 118], 2, "").await;
    let load = fleet.load("west", CATALOG, ITEMS, 40, 20).expect("load");
    let gateway = |name: &str| -> Result<Value, String> {
        let path = path(&fleet, "east")?;
        let gateways = path["gateways"].as_array().or(path["gateways"]["replicas"].as_array());
        let found = gateways.into_iter().flatten().find(|gateway| gateway["name"] == name);
        found.cloned().ok_or_else(|| path.to_string())
    };
    let draining = async |name: &str, wanted: bool| {
        eventually(&format!("{name} draining: {wanted}"), SOON, || {
            let found = gateway(name)?;
            if found["draining"] == wanted { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    };
    let through = |last: u8| fleet.metric("east", last, "veer_relay_connections_open", &[]).map_err(|e| e.to_string());

    // Taken out by a word: nothing goes through it any more, then it can go.
    let (text, ok) = fleet.tool("east", &["drain", "gateway-1", "--cluster", "east"]).expect("drain");
    assert!(ok, "{text}");
    draining("gateway-1", true).await;
    share(&fleet, "east", "nowhere", 40.0).await;
    fleet.kill("east/gateway-1").expect("killed");
    share(&fleet, "east", "nowhere", 80.0).await;
    assert!(through(3).expect("metrics") > 0.0, "all goes through gateway-2");

    // Back, and the other one dies without a word.
    fleet.revive("east/gateway-1").expect("started");
    let (text, ok) = fleet.tool("east", &["drain", "--undo", "gateway-1", "--cluster", "east"]).expect("undrain");
    assert!(ok, "{text}");
    draining("gateway-1", false).await;
    eventually("gateway-1 is ready", SOON, || fleet.page("east", 2, "/ready").map_err(|e| e.to_string())).await;
    eventually("gateway-1 is taken for reachable", SOON, || {
        let found = gateway("gateway-1")?;
        if found["unreachable_for"].is_null() { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    fleet.kill("east/gateway-2").expect("killed");
    share(&fleet, "east", "nowhere", 80.0).await;
    assert!(through(2).expect("metrics") > 0.0, "all goes through gateway-1");
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
}
