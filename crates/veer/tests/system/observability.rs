//! What happens can be seen: metrics that say who called whom, an access log that says whose fault it was, traces that pass, pages of
//! every proxy, and tools for people and programs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use veer_telemetry::text::{self, Sample};
use veer_testkit::{Fleet, eventually};

use crate::support::{SOON, ask, fleet, listening, output, service, serving, tool_json, workload};

const CATALOG: &str = "catalog.shop.svc.clusterset.local";
const ITEMS: &str = "/items";
/// Labels of every traffic series.
const WHO: [&str; 7] = [
    "source_workload",
    "source_namespace",
    "source_cluster",
    "destination_service",
    "destination_workload",
    "destination_namespace",
    "destination_cluster",
];
const LOGGED: &str = "annotations: { veer.dev/access-log: \"true\" }";

/// A caller in `west`; `catalog` (two copies) and `app` in `east`; the caller and `app` write access logs.
async fn two_clusters() -> Fleet {
    let spec = fleet().cluster("west", 124, 1).cluster("east", 125, 1).peer("west", "east");
    let spec = spec.service("east", "catalog", 2, 21).manifest("east/app.yaml", &service("app", 80, "http"));
    let app = workload("app", 1, "127.125.0.31", "http", "app.py");
    let spec = spec.manifest("east/app-1.yaml", &app.replace("labels: {", &format!("{LOGGED}, labels: {{")));
    let spec = spec.manifest(
        "west/visitor.yaml",
        &format!(
            "apiVersion: veer.dev/v1alpha1\nkind: Workload\nmetadata: {{ name: visitor, namespace: shop, {LOGGED} }}\n\
             spec: {{ address: 127.124.0.10, serviceAccount: visitor }}\n"
        ),
    );
    let fleet = spec.start().await.expect("the fleet starts");
    for (last, port) in [(21, 9080), (22, 9080), (31, 9080)] {
        listening(&fleet, "east", last, port).await;
    }
    serving(&fleet, "west", CATALOG, ITEMS).await;
    serving(&fleet, "west", "app.shop.svc.clusterset.local", "/").await;
    fleet
}

fn traffic(sample: &Sample) -> bool {
    let families = ["veer_request", "veer_response", "veer_retries", "veer_reroutes", "veer_tcp_"];
    families.iter().any(|family| sample.name.starts_with(family))
}

fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let meant =
        samples.iter().filter(|s| s.name == name && labels.iter().all(|(label, value)| s.label(label) == *value));
    meant.map(|sample| sample.value).sum()
}

/// What a strict reader of the exposition demands: a type before the first sample of each family, no series twice, histograms whose
/// buckets add up.
fn strict(exposition: &str, of: &str) {
    assert!(exposition.trim_end().ends_with("# EOF"), "{of} is cut off");
    let samples = text::parse(exposition).unwrap_or_else(|error| panic!("{of}: {error}"));
    let types: BTreeMap<&str, &str> =
        exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let helps: BTreeSet<&str> =
        exposition.lines().filter_map(|line| Some(line.strip_prefix("# HELP ")?.split_once(' ')?.0)).collect();
    let mut seen = BTreeSet::new();
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in &samples {
        let Sample { name, labels, value } = sample;
        assert!(seen.insert((name.clone(), labels.clone())), "{of}: twice: {sample:?}");
        assert!(value.is_finite() && (*value >= 0.0 || types.get(name.as_str()) == Some(&"gauge")), "{of}: {sample:?}");
        let family = ["_total", "_bucket", "_count", "_sum", "_info"].iter().find_map(|end| name.strip_suffix(end));
        let family = family.filter(|family| types.contains_key(family)).unwrap_or(name);
        let kind = types.get(family).unwrap_or_else(|| panic!("{of}: {name} has no type"));
        assert!(helps.contains(family), "{of}: {name} has no help");
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{of}: {name} is a {kind}");
        if name.ends_with("_bucket") || (name.ends_with("_count") && *kind == "histogram") {
            let le = labels.get("le").map_or(f64::INFINITY, |le| le.replace("+Inf", "inf").parse().expect("a number"));
            let mut rest = labels.clone();
            rest.remove("le");
            buckets.entry(format!("{family}{rest:?}")).or_default().push((le, *value));
        }
    }
    for (series, mut counts) in buckets {
        counts.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
        assert!(counts.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{of}: {series} falls: {counts:?}");
        let ends: Vec<_> = counts.iter().rev().take(2).collect();
        assert!(ends.len() == 2 && ends[0] == ends[1], "{of}: {series}: +Inf is not the count: {ends:?}");
    }
}

#[tokio::test]
async fn every_traffic_series_says_who_called_whom_and_everything_moves() {
    let fleet = two_clusters().await;
    let load = |seconds| fleet.load("west", CATALOG, ITEMS, 40, seconds).expect("load").finish().expect("load");
    let both = || (fleet.samples("west", 10).expect("metrics"), fleet.samples("east", 21).expect("metrics"));
    assert_eq!(load(1).failures, 0);
    let (caller_before, callee_before) = both();
    assert_eq!(load(1).failures, 0);
    for _ in 0..4 {
        ask(&fleet, "west", CATALOG, ITEMS, &["-X", "PUT", "-d", "four and twenty bytes..."]);
    }
    let (caller, callee) = both();

    for (side, samples) in [("outbound", &caller), ("inbound", &callee)] {
        let of_catalog: Vec<_> = samples
            .iter()
            .filter(|s| {
                traffic(s) && s.label("direction") == side && s.label("destination_workload").starts_with("catalog")
            })
            .collect();
        assert!(of_catalog.len() > 10, "{side}: only {} series", of_catalog.len());
        for sample in of_catalog {
            let missing: Vec<_> = WHO.iter().filter(|label| sample.label(label).is_empty()).collect();
            assert!(missing.is_empty(), "{side}: {missing:?} missing in {sample:?}");
            let who =
                [sample.label("source_workload"), sample.label("source_namespace"), sample.label("source_cluster")];
            assert_eq!(who, ["visitor", "shop", "west"], "{side}: {sample:?}");
            let whom = [sample.label("destination_namespace"), sample.label("destination_cluster")];
            assert_eq!(whom, ["shop", "east"], "{side}: {sample:?}");
        }
    }
    // Every series at all has the labels, even where nothing is known to fill them with.
    for sample in caller.iter().chain(&callee).filter(|sample| traffic(sample)) {
        let absent: Vec<_> = WHO.iter().filter(|label| !sample.labels.contains_key(**label)).collect();
        assert!(absent.is_empty(), "{absent:?} absent in {sample:?}");
    }

    let outbound = [("direction", "outbound"), ("destination_cluster", "east")];
    let inbound = [("direction", "inbound"), ("source_cluster", "west")];
    let handshakes_out = [("direction", "outbound"), ("outcome", "ok")];
    let handshakes_in = [("direction", "inbound"), ("outcome", "ok")];
    for (what, now, before, labels) in
        [("the caller", &caller, &caller_before, &outbound), ("the callee", &callee, &callee_before, &inbound)]
    {
        for name in [
            "veer_requests_total",
            "veer_request_duration_seconds_count",
            "veer_request_duration_seconds_sum",
            "veer_request_duration_seconds_bucket",
            "veer_request_bytes_total",
            "veer_response_bytes_total",
        ] {
            let (now, before) = (sum(now, name, labels), sum(before, name, labels));
            assert!(now > before, "{what}: {name} was {before} and is {now}");
        }
    }
    let counted =
        sum(&caller, "veer_requests_total", &outbound) - sum(&caller_before, "veer_requests_total", &outbound);
    assert!((counted - 44.0).abs() < 0.1, "{counted} requests counted between the scrapes, there were 44");
    assert!(sum(&caller, "veer_tls_handshakes_total", &handshakes_out) >= 1.0);
    assert!(sum(&callee, "veer_tls_handshakes_total", &handshakes_in) >= 1.0);

    // What is known, and how old it is.
    let known = [("destination_cluster", "east"), ("destination_service", CATALOG), ("state", "healthy")];
    assert!(sum(&caller, "veer_endpoints", &known) >= 1.0, "{:#?}", of(&caller, "veer_endpoints"));
    for name in [
        "veer_config_age_seconds",
        "veer_peer_age_seconds",
        "veer_certificate_expiry_timestamp_seconds",
        "veer_path_up",
    ] {
        assert!(caller.iter().any(|sample| sample.name == name), "{name} is missing at the caller");
    }
    let generation = sum(&caller, "veer_config_generation", &[]);
    assert!(generation >= 1.0);
    fleet.write("west/policy.yaml", POLICY).expect("written");
    eventually("the generation grows with an edit", SOON, || {
        let now = fleet.metric("west", 10, "veer_config_generation", &[]).map_err(|e| e.to_string())?;
        if now > generation { Ok(()) } else { Err(format!("{generation}, then {now}")) }
    })
    .await;

    // An application dies: requests are tried again elsewhere, and its copy is taken out.
    fleet.kill("east/shop.catalog-2").expect("killed");
    let loaded = load(3);
    assert_eq!(loaded.failures, 0, "{}", loaded.json);
    let caller = fleet.samples("west", 10).expect("metrics");
    let again = sum(&caller, "veer_retries_total", &[]) + sum(&caller, "veer_reroutes_total", &[]);
    assert!(again >= 1.0, "{:#?}", of(&caller, "veer_re"));
    let out = [("destination_service", CATALOG), ("destination_cluster", "east")];
    assert!(sum(&caller, "veer_endpoint_ejections_total", &out) >= 1.0, "{:#?}", of(&caller, "veer_endpoint"));

    // The gateway between them counts by peer.
    let gateway = fleet.samples("east", 2).expect("metrics");
    // (Connections are counted when they end, by how they ended.)
    for name in ["veer_relay_bytes_total", "veer_relay_connections_open"] {
        assert!(sum(&gateway, name, &[("peer", "west")]) >= 1.0, "{name}: {:#?}", of(&gateway, "veer_relay"));
    }
    assert!(sum(&gateway, "veer_config_generation", &[]) >= 1.0);
    for (cluster, last) in [("west", 10), ("west", 2), ("east", 2), ("east", 21), ("east", 31)] {
        strict(&fleet.page(cluster, last, "/metrics").expect("metrics"), &format!("{cluster} .{last}"));
    }
}

const POLICY: &str = "apiVersion: veer.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: everybody, namespace: shop }
spec: { action: ALLOW, rules: [{ from: [{ namespaces: [shop] }] }] }
";

fn of<'a>(samples: &'a [Sample], prefix: &str) -> Vec<&'a Sample> {
    samples.iter().filter(|sample| sample.name.starts_with(prefix)).collect()
}

/// Lines of a proxy's access log whose path is this.
fn logged(fleet: &Fleet, cluster: &str, process: &str, path: &str) -> Result<Vec<Value>, String> {
    let file = fleet.state(cluster).join("logs").join(format!("{process}.log"));
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
    let found: Vec<_> = lines.into_iter().filter(|line| line["path"] == path).collect();
    if found.is_empty() { Err(format!("no line with {path} in the access log of {process}")) } else { Ok(found) }
}

#[tokio::test]
async fn the_access_log_says_whose_fault_it_was_and_traces_pass_unchanged() {
    let fleet = two_clusters().await;
    const APP: &str = "app.shop.svc.clusterset.local";
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = ["-H", &format!("traceparent: {TRACE}"), "-H", "tracestate: congo=t61rcWkgMzE"];
    let answer = ask(&fleet, "west", APP, "/traced?secret=1", &traced);
    assert_eq!(answer.seen("traceparent"), [TRACE], "{answer:?}");
    assert_eq!(answer.seen("tracestate"), ["congo=t61rcWkgMzE"], "{answer:?}");
    // Whoever starts no trace gets one, so that both proxies' lines can be joined.
    let untraced = ask(&fleet, "west", APP, "/untraced", &[]).seen("traceparent");
    assert!(untraced.len() == 1 && untraced[0].len() == 55, "{untraced:?}");

    let line = async |cluster: &'static str, process: &'static str, path: &'static str| {
        let mut lines = eventually("the line is written", SOON, || logged(&fleet, cluster, process, path)).await;
        lines.pop().expect("a line")
    };
    let caller = line("west", "shop.visitor.proxy", "/traced").await;
    for (key, value) in [
        ("direction", "outbound"),
        ("method", "GET"),
        ("host", APP),
        ("path", "/traced"),
        ("flag", "-"),
        ("blame", "none"),
        ("source_workload", "visitor"),
        ("source_namespace", "shop"),
        ("source_cluster", "west"),
        ("destination_service", APP),
        ("destination_workload", "app-1"),
        ("destination_namespace", "shop"),
        ("destination_cluster", "east"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ] {
        assert_eq!(caller[key], value, "{key} of {caller}");
    }
    assert_eq!((&caller["status"], &caller["attempts"]), (&200.into(), &1.into()), "{caller}");
    assert!(caller["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{caller}");
    assert!(caller["response_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{caller}");
    let time = caller["time"].as_str().expect("a time");
    assert!(time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    assert!(!caller.to_string().contains("secret"), "queries stay out of logs: {caller}");

    let callee = line("east", "shop.app-1.proxy", "/traced").await;
    for (key, value) in [
        ("direction", "inbound"),
        ("source_identity", "spiffe://west.test/ns/shop/sa/visitor"),
        ("source_cluster", "west"),
        ("destination_workload", "app-1"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ] {
        assert_eq!(callee[key], value, "{key} of {callee}");
    }
    let (one, other) =
        (line("west", "shop.visitor.proxy", "/untraced").await, line("east", "shop.app-1.proxy", "/untraced").await);
    assert!(
        one["trace_id"] == other["trace_id"] && untraced[0].contains(one["trace_id"].as_str().expect("an id")),
        "{one} {other}"
    );

    // Failures: whose fault?
    fleet.write("west/empty.yaml", &service("empty", 80, "http")).expect("written");
    eventually("the service without copies is known", SOON, || {
        let answer = ask(&fleet, "west", "empty.shop", "/not-yet", &[]);
        if answer.status == 503 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    fleet.kill("east/shop.app-1").expect("killed");
    for (host, path, status, flag, blame) in [
        ("nosuch.shop", "/no-service", 404, &["NC"][..], "control-plane"),
        ("empty.shop", "/no-copy", 503, &["UH"], "upstream"),
        (APP, "/dead-application", 503, &["UF", "UC", "UH"], "upstream"),
    ] {
        let answer = ask(&fleet, "west", host, path, &[]);
        assert_eq!(answer.status, status, "{answer:?}");
        let line = line("west", "shop.visitor.proxy", path).await;
        assert_eq!(line["status"], status, "{line}");
        assert!(flag.iter().any(|flag| line["flag"] == *flag), "{path}: {line}");
        assert_eq!(line["blame"], blame, "{path}: {line}");
        let reason = line["reason"].as_str().unwrap_or_default();
        assert!(!reason.is_empty() || path == "/dead-application", "{path}: {line}");
    }
}

const TOOLS: [&[&str]; 5] = [&["status"], &["stat", "--interval", "1s"], &["routes"], &["endpoints"], &["check"]];

#[tokio::test]
async fn tools_speak_to_people_and_to_programs_and_pages_to_both() {
    let fleet = two_clusters().await;
    for (cluster, last) in [("west", 10), ("west", 2), ("east", 21)] {
        assert_eq!(fleet.page(cluster, last, "/ready").expect("ready").trim(), "ready");
        assert_eq!(fleet.page(cluster, last, "/live").expect("live").trim(), "live");
        let dump = fleet.dump(cluster, last).expect("a dump");
        assert!(dump["identity"]["id"].as_str().is_some_and(|id| id.starts_with("spiffe://")), "{dump}");
        assert!(!dump.to_string().contains("PRIVATE KEY"), "{cluster} .{last} shows its key");
    }
    let dump = fleet.dump("west", 10).expect("a dump");
    assert_eq!(
        (&dump["workload"], &dump["cluster"], &dump["ready"]),
        (&"shop/visitor".into(), &"west".into(), &true.into())
    );
    assert!(
        dump["services"].to_string().contains("catalog-1") && dump["paths"].to_string().contains("gateway-1"),
        "{dump:#}"
    );

    let load = fleet.load("west", CATALOG, ITEMS, 20, 12).expect("load");
    eventually("the proxies have reported where they can be asked", SOON, || {
        let rows = tool_json(&fleet, "west", &["stat", "--interval", "200ms"])?;
        if rows.to_string().contains("catalog") { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
    for tool in TOOLS {
        let json = tool_json(&fleet, "west", tool).unwrap_or_else(|error| panic!("veer {tool:?}: {error}"));
        assert!(json.as_array().is_some_and(|rows| !rows.is_empty()), "veer {tool:?}: {json}");
        for columns in ["80", "120"] {
            let folder = fleet.folder().display().to_string();
            let mut command = fleet.command("west", env!("CARGO_BIN_EXE_veer"));
            let text = output(command.args(tool).args(["--fleet", &folder]).env("COLUMNS", columns));
            assert!(!text.contains('\u{1b}'), "veer {tool:?} colours what is no terminal: {text:?}");
            let width: usize = columns.parse().expect("a number");
            // What `check` found is a sentence, not a table.
            let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > width && tool[0] != "check").collect();
            assert!(wide.is_empty(), "veer {tool:?} is wider than {columns}: {wide:#?}");
        }
    }
    let stat = tool_json(&fleet, "west", TOOLS[1]).expect("JSON");
    let row = stat
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["to"] == "east"))
        .unwrap_or_else(|| panic!("{stat}"));
    let rate = row["requests_per_second"].as_f64().expect("a rate");
    assert!((15.0..25.0).contains(&rate), "20 requests a second were sent: {row}");
    assert!(row["success"] == 1.0 && row["p99_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{row}");
    let edges = tool_json(&fleet, "west", &["stat", "--interval", "1s", "--edges"]).expect("JSON").to_string();
    assert!(edges.contains("shop/visitor@west") && edges.contains("shop/catalog-1@east"), "{edges}");
    let (text, _) = fleet.tool("west", &["status"]).expect("status");
    for word in ["west", "east", "fresh", "synced", "no faults"] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
    let (text, _) = fleet
        .tool("west", &["endpoints", "catalog.shop.svc.clusterset.local", "--cluster", "west"])
        .expect("endpoints");
    assert!(text.contains("spiffe://east.test/ns/shop/sa/catalog"), "{text}");
    load.finish().expect("load");

    // All is well; then it is not, and there is something to be done about it.
    let (text, ok) = fleet.tool("west", &["check"]).expect("check");
    assert!(ok && !text.contains("FAIL"), "{text}");
    fleet.kill("east/control").expect("killed");
    let (text, ok) = fleet.tool("west", &["check"]).expect("check");
    assert!(!ok && text.contains("FAIL") && text.contains("the control plane answers"), "{text}");
    let json = tool_json(&fleet, "west", &["check"]).expect("JSON");
    let bad: Vec<_> = json.as_array().into_iter().flatten().filter(|check| check["verdict"] == "bad").collect();
    let dead = bad.iter().find(|check| check["on"] == "east" && check["what"] == "the control plane answers");
    assert!(
        dead.is_some_and(|check| check["mend"].as_str().is_some_and(|mend| mend.contains("control.log"))),
        "{bad:#?}"
    );
    let (text, ok) = fleet.tool("west", &["status"]).expect("status");
    assert!(!ok && text.contains("no answer"), "{text}");
}
