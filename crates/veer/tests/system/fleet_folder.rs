//! A fleet folder is a fleet: what is edited acts, what is killed is gone or comes back, and silence deletes nothing.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;
use veer_testkit::fleet::workload_yaml;
use veer_testkit::{Fleet, eventually, signal};

use crate::support::{SOON, ask, fleet, listening, serving, tool_json};

const CATALOG: &str = "catalog.shop";
const ITEMS: &str = "/items";

async fn shop(number: u8, copies: u8) -> Fleet {
    let spec = fleet().cluster("west", number, 1).visitor("west").service("west", "catalog", copies, 21);
    let fleet = spec.start().await.expect("the fleet starts");
    for last in 21..21 + copies {
        listening(&fleet, "west", last, 9080).await;
    }
    serving(&fleet, "west", CATALOG, ITEMS).await;
    fleet
}

/// A route whose answers say which edit they come from.
fn route(name: &str, edit: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {name}, namespace: shop }}
spec:
  parentRefs: [{{ group: \"\", kind: Service, name: catalog }}]
  rules:
  - matches: [{{ path: {{ type: PathPrefix, value: /{name} }} }}]
    filters:
    - {{ type: URLRewrite, urlRewrite: {{ path: {{ type: ReplaceFullPath, replaceFullPath: {ITEMS} }} }} }}
    - {{ type: ResponseHeaderModifier, responseHeaderModifier: {{ set: [{{ name: x-edit, value: {edit} }}] }} }}
    backendRefs: [{{ name: catalog, port: 80 }}]
"
    )
}

fn copies_that_serve(fleet: &Fleet, requests: usize) -> Vec<String> {
    let mut seen: Vec<String> = (0..requests)
        .map(|_| ask(fleet, "west", CATALOG, ITEMS, &[]).field("x-served-by").replace("catalog=west/", ""))
        .collect();
    seen.sort();
    seen.dedup();
    seen
}

#[tokio::test]
async fn an_edited_route_acts_within_a_second_and_drops_no_request() {
    let fleet = shop(100, 2).await;
    fleet.write("west/route.yaml", &route("edited", "first")).expect("written");
    serving(&fleet, "west", CATALOG, "/edited").await;

    let load = fleet.load("west", CATALOG, "/edited", 60, 8).expect("load");
    let mut took = Vec::new();
    for edit in ["second", "third", "fourth", "fifth", "sixth"] {
        fleet.write("west/route.yaml", &route("edited", edit)).expect("written");
        let begun = Instant::now();
        eventually(&format!("the {edit} edit acts"), SOON, || {
            let answer = ask(&fleet, "west", CATALOG, "/edited", &[]);
            if answer.field("x-edit") == edit { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
        took.push(begun.elapsed());
    }
    took.sort();
    assert!(took[2] < Duration::from_secs(1), "half of the edits took longer: {took:?}");
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
    assert!(loaded.requests >= 400, "{}", loaded.json);
}

#[tokio::test]
async fn killing_a_cluster_kills_all_of_it_and_nothing_else() {
    let spec = fleet().cluster("west", 101, 1).cluster("east", 102, 1).peer("west", "east").visitor("west");
    let mut fleet = spec.service("east", "catalog", 2, 21).start().await.expect("the fleet starts");
    serving(&fleet, "west", CATALOG_OF_ALL, ITEMS).await;
    let (east, west) = (fleet.processes("east").expect("run.json"), fleet.processes("west").expect("run.json"));
    // Its own process, control plane, gateway, and two applications with their proxies.
    assert_eq!(east.len(), 7, "{east:?}");
    let traces = fleet.traces("east");
    assert!(east.values().all(|pid| traces.contains_key(pid)), "{east:?} are not all among {traces:#?}");

    fleet.kill("east").expect("killed");
    eventually("nothing of east is left", Duration::from_secs(5), || {
        let left = fleet.traces("east");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    })
    .await;
    assert_eq!(fleet.processes("west").expect("run.json"), west, "west was harmed");

    fleet.revive("east").expect("started");
    serving(&fleet, "west", CATALOG_OF_ALL, ITEMS).await;
    let now = fleet.processes("east").expect("run.json");
    assert!(now.values().all(|pid| !east.values().any(|old| old == pid)), "{east:?}, then {now:?}");

    // The whole fleet dies with `veer run`, however that dies.
    signal(fleet.supervisor(), Signal::KILL).expect("killed");
    eventually("nothing of the fleet is left", Duration::from_secs(5), || {
        let (west, east) = (fleet.traces("west"), fleet.traces("east"));
        if west.is_empty() && east.is_empty() { Ok(()) } else { Err(format!("{west:#?}{east:#?}")) }
    })
    .await;
    assert_eq!(fleet.ended().expect("its end"), Some(false));
}

const CATALOG_OF_ALL: &str = "catalog.shop.svc.clusterset.local";

#[tokio::test]
async fn what_is_told_to_end_ends_gently_and_what_ends_by_itself_starts_again() {
    let mut fleet = shop(103, 2).await;
    let load = fleet.load("west", CATALOG, ITEMS, 40, 5).expect("load");
    let (mut apps, mut proxies) = (Vec::new(), Vec::new());
    apps.push(fleet.crash("west", "shop.catalog-1").expect("killed"));
    restarted(&fleet, "shop.catalog-1", &apps).await;
    listening(&fleet, "west", 21, 9080).await;
    proxies.push(fleet.crash("west", "shop.catalog-2.proxy").expect("killed"));
    restarted(&fleet, "shop.catalog-2.proxy", &proxies).await;
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
    eventually("both copies serve again", SOON, || {
        let seen = copies_that_serve(&fleet, 10);
        if seen.len() == 2 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;

    signal(fleet.supervisor(), Signal::TERM).expect("told");
    let fleet = std::cell::RefCell::new(&mut fleet);
    let well = eventually("the fleet ends", SOON, || {
        fleet.borrow_mut().ended().map_err(|e| e.to_string())?.ok_or_else(|| "it runs".to_owned())
    })
    .await;
    assert!(well, "veer run must say that it ended as told");
    let left = fleet.borrow().traces("west");
    assert!(left.is_empty(), "{left:#?}");
}

async fn restarted(fleet: &Fleet, process: &str, before: &[u32]) {
    eventually(&format!("{process} starts again"), SOON, || {
        let running = fleet.processes("west").map_err(|e| e.to_string())?;
        let new = running.get(process).is_some_and(|pid| !before.contains(pid));
        if new { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await;
}

/// A process of the test's own. Ends when dropped.
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        // Gone already when it ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_machine_joins_with_a_token_and_stays_through_its_restart() {
    const BINARY: &str = env!("CARGO_BIN_EXE_veer");
    let machine = workload_yaml("catalog", 1, "127.104.0.41")
        .replace("labels: {", "annotations: { veer.dev/proxy: external }, labels: {");
    let machine = machine.split("  run:").next().expect("a manifest").to_owned();
    let spec = fleet().cluster("west", 104, 1).visitor("west").service("west", "catalog", 0, 41);
    let fleet = spec.manifest("west/machine.yaml", &machine).start().await.expect("the fleet starts");
    let processes = fleet.processes("west").expect("run.json");
    assert!(!processes.keys().any(|name| name.contains("catalog-1")), "not Veer's to start: {processes:?}");
    let answer = ask(&fleet, "west", CATALOG, ITEMS, &[]);
    assert_eq!(answer.status, 503, "nothing serves yet: {answer:?}");

    let folder = fleet.folder().to_owned();
    let start = |arguments: &[&str], state: &str| {
        let state = folder.join(state);
        std::fs::create_dir_all(&state).expect("a folder");
        let log = std::fs::File::create(state.join("log")).expect("a file");
        let mut command = Command::new(BINARY);
        command.arg("proxy").args(["--address", "127.104.0.41", "--state"]).arg(&state).args(arguments);
        let spawned = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log).spawn();
        Own(spawned.expect("the proxy starts"))
    };
    let mut application = Command::new(BINARY);
    application.args(["shop", "catalog", "--listen", "127.104.0.41:9080", "--outbound", "127.104.0.41:15001"]);
    application.args(["--cluster", "west", "--workload", "catalog-1"]).stdout(Stdio::null());
    let _application = Own(application.spawn().expect("the application starts"));

    let (token, ok) = fleet.tool("west", &["token", "shop/catalog-1"]).expect("a token");
    assert!(ok && token.starts_with("veer1."), "{token}");
    let (refused, ok) = fleet.tool("west", &["token", "shop/nobody"]).expect("a refusal");
    assert!(!ok && refused.contains("nobody"), "a token for what no manifest names: {refused}");

    let first = start(&["--token", token.trim()], "machine");
    serving(&fleet, "west", CATALOG, ITEMS).await;
    // From here on it needs nobody.
    eventually("the machine keeps what it knows", SOON, || {
        let kept = std::fs::read_to_string(folder.join("machine/config.json")).map_err(|e| e.to_string())?;
        if kept.contains("127.104.0.41:9080") { Ok(()) } else { Err(kept) }
    })
    .await;
    let who = fleet.dump("west", 41).expect("a dump")["identity"]["id"].clone();
    assert_eq!(who, "spiffe://west.test/ns/shop/sa/catalog");

    // Whoever steals the token comes too late, and the machine is not disturbed.
    drop(first);
    let thief = start(&["--token", token.trim()], "thief");
    eventually("the second use of the token is refused", SOON, || {
        let log = std::fs::read_to_string(folder.join("thief/log")).map_err(|e| e.to_string())?;
        if log.contains("already") || log.contains("used") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(!folder.join("thief/svid.pem").exists(), "the thief got a certificate");
    assert!(fleet.page("west", 41, "/ready").is_err(), "the thief's proxy says that it is ready");
    drop(thief);

    // Its own restart needs neither a token nor the control plane.
    fleet.kill("west/control").expect("killed");
    let again = ["--workload", "shop/catalog-1", "--control", "127.104.0.1:15010"];
    let _again = start(&again, "machine");
    serving(&fleet, "west", CATALOG, ITEMS).await;
    fleet.revive("west/control").expect("started");
    eventually("the machine finds the control plane again", SOON, || {
        let connected = fleet.metric("west", 41, "veer_control_connected", &[]).map_err(|e| e.to_string())?;
        if connected > 0.5 { Ok(()) } else { Err(format!("{connected}")) }
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_is_silent_deletes_nothing() {
    let fleet = shop(105, 2).await;
    let before = fleet.processes("west").expect("run.json");
    let (manifests, away) = (fleet.folder().join("west"), fleet.folder().join("away"));
    let load = fleet.load("west", CATALOG, ITEMS, 40, 10).expect("load");
    let told = async |what: &str, word: &str| {
        eventually(&format!("{what}: status tells"), SOON, || {
            let (text, _) = fleet.tool("west", &["status"]).map_err(|e| e.to_string())?;
            let json = tool_json(&fleet, "west", &["status"])?;
            let source = &json[0]["answer"]["source"];
            let state = source["state"] == word && text.contains(word);
            let reason = word == "synced" || source["reason"].as_str().is_some_and(|reason| !reason.is_empty());
            if state && reason { Ok(()) } else { Err(format!("{text}{source}")) }
        })
        .await;
        let answer = ask(&fleet, "west", CATALOG, ITEMS, &[]);
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        assert_eq!(fleet.processes("west").expect("run.json"), before, "{what}: processes were touched");
    };

    std::fs::rename(&manifests, &away).expect("renamed");
    told("the folder is gone", "stale").await;
    std::fs::write(&manifests, "no folder").expect("written");
    told("there is a file in its place", "stale").await;
    std::fs::remove_file(&manifests).expect("removed");
    std::fs::create_dir(&manifests).expect("made");
    told("the folder is empty", "stale").await;
    std::fs::remove_dir(&manifests).expect("removed");
    std::fs::rename(&away, &manifests).expect("renamed");
    told("it is back", "synced").await;
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);

    // A file that is deleted is a statement, when others are still there.
    let load = fleet.load("west", CATALOG, ITEMS, 40, 4).expect("load");
    std::fs::remove_file(manifests.join("catalog-2.yaml")).expect("removed");
    eventually("catalog-2 goes", SOON, || {
        let running = fleet.processes("west").map_err(|e| e.to_string())?;
        if running.contains_key("shop.catalog-2") { Err(format!("{running:?}")) } else { Ok(()) }
    })
    .await;
    assert_eq!(copies_that_serve(&fleet, 8), ["catalog-1"]);
    let loaded = load.finish().expect("load");
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
}

#[tokio::test]
async fn a_mass_loss_of_intent_waits_for_a_word() {
    let names = ["one", "two", "three", "four"];
    let mut spec = fleet().cluster("west", 106, 1).visitor("west").service("west", "catalog", 1, 21);
    for name in names {
        spec = spec.manifest(&format!("west/route-{name}.yaml"), &route(name, name));
    }
    let fleet = spec.start().await.expect("the fleet starts");
    for name in names {
        serving(&fleet, "west", CATALOG, &format!("/{name}")).await;
    }
    for name in names {
        std::fs::remove_file(fleet.folder().join(format!("west/route-{name}.yaml"))).expect("removed");
    }
    std::fs::remove_file(fleet.folder().join("west/catalog.yaml")).expect("removed");
    eventually("the loss is held and told", SOON, || {
        let (text, _) = fleet.tool("west", &["status"]).map_err(|e| e.to_string())?;
        let told = text.contains("veer confirm") && names.iter().all(|name| text.contains(&format!("shop/{name}")));
        if told { Ok(()) } else { Err(text) }
    })
    .await;
    // `catalog.yaml` also held the Service: without it nothing could be asked any more.
    fleet.write("west/catalog.yaml", &veer_testkit::fleet::service_yaml("catalog")).expect("written");
    serving(&fleet, "west", CATALOG, "/one").await;
    for name in names {
        let answer = ask(&fleet, "west", CATALOG, &format!("/{name}"), &[]);
        assert_eq!((answer.status, answer.field("x-edit")), (200, name), "held, yet gone: {answer:?}");
    }
    let (text, ok) = fleet.tool("west", &["confirm"]).expect("confirm");
    assert!(ok, "{text}");
    eventually("the routes are gone", SOON, || {
        let answer = ask(&fleet, "west", CATALOG, "/one", &[]);
        if answer.field("x-edit").is_empty() { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    let (text, _) = fleet.tool("west", &["status"]).expect("status");
    assert!(!text.contains("veer confirm"), "{text}");
    serving(&fleet, "west", CATALOG, ITEMS).await;
}
