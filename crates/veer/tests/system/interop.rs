//! The interoperability cases of gRPC between foreign stacks, by every way that a call takes through Veer: `docs/interop.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use veer_testkit::{Fleet, FleetSpec, eventually};

use crate::support::{SOON, fleet, foreign, listening, output, python, service};

/// A stack of gRPC: what its server and its client are started with, before their arguments.
struct Stack {
    name: &'static str,
    server: Vec<String>,
    client: Vec<String>,
}

/// Where a call begins, and whose name it bears.
struct Way {
    name: &'static str,
    cluster: &'static str,
    /// Last part of the address that the client connects to, and the port; nothing: that of the server.
    at: (Option<u8>, u16),
}

/// The first shows that it is not the programs when a case fails on one of the others.
const WAYS: [Way; 4] = [
    Way { name: "directly", cluster: "west", at: (None, 9080) },
    Way { name: "one proxy", cluster: "west", at: (None, 8080) },
    Way { name: "a pair of proxies over mutual TLS", cluster: "west", at: (Some(10), 15001) },
    Way { name: "a pair of proxies and the gateway of another cluster", cluster: "east", at: (Some(10), 15001) },
];

const CASES: usize = 15;
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/interop.md");
const BEGIN: &str = "<!-- matrix: written by the test -->\n";
const END: &str = "<!-- end of the matrix -->";

fn stacks() -> [Stack; 3] {
    let script = |interpreter: &str, file: &str| vec![interpreter.to_owned(), foreign(&format!("interop/{file}"))];
    let python = python();
    let tonic = Path::new(env!("CARGO_BIN_EXE_veer")).with_file_name("veer-interop");
    assert!(tonic.exists(), "{} is missing: `cargo build -p veer-interop` makes it", tonic.display());
    let tonic = |role: &str| vec![tonic.display().to_string(), role.to_owned()];
    [
        Stack { name: "grpcio", server: script(&python, "server.py"), client: script(&python, "client.py") },
        Stack { name: "grpc-js", server: script("node", "server.js"), client: script("node", "client.js") },
        Stack { name: "tonic", server: tonic("server"), client: tonic("client") },
    ]
}

/// The name of a stack's service in a cluster.
fn name(stack: &Stack, cluster: &str) -> String {
    format!("{}-{cluster}", stack.name)
}

/// Adds a server of each stack in a cluster, from address 31 on.
fn servers(mut spec: FleetSpec, cluster: &str, network: u8) -> FleetSpec {
    for (stack, last) in stacks().iter().zip(31..) {
        let name = name(stack, cluster);
        let workload = format!(
            "apiVersion: veer.dev/v1alpha1
kind: Workload
metadata: {{ name: {name}-1, namespace: shop, labels: {{ app: {name} }} }}
spec:
  address: 127.{network}.0.{last}
  serviceAccount: {name}
  ports: [{{ name: main, port: 8080, appPort: 9080, appProtocol: grpc }}]
  run:
    command: {:?}
",
            [&stack.server[..], &["$(VEER_ADDRESS):9080".to_owned()]].concat()
        );
        spec = spec.manifest(&format!("{cluster}/{name}.yaml"), &service(&name, 80, "grpc"));
        spec = spec.manifest(&format!("{cluster}/{name}-1.yaml"), &workload);
    }
    spec
}

/// Callers and servers in `west`, servers in `east`, which `west` imports.
async fn both(west: u8, east: u8) -> Fleet {
    let mut spec = fleet().cluster("west", west, 1).cluster("east", east, 1).peer("west", "east").visitor("west");
    spec = servers(servers(spec, "west", west), "east", east);
    for stack in stacks() {
        let name = name(&stack, "east");
        let import = format!(
            "apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop, annotations: {{ veer.dev/scope: clusterset }} }}
spec: {{ ports: [{{ name: main, port: 80, appProtocol: grpc }}] }}
"
        );
        spec = spec.manifest(&format!("west/{name}.yaml"), &import);
    }
    let fleet = spec.start().await.expect("the fleet starts");
    for cluster in ["west", "east"] {
        for (_, last) in stacks().iter().zip(31..) {
            listening(&fleet, cluster, last, 9080).await;
        }
    }
    fleet
}

/// What came of each case, in the order of the cases.
fn run(fleet: &Fleet, client: &Stack, server: &Stack, last: u8, way: &Way) -> Vec<(String, String)> {
    let address = fleet.address("west", way.at.0.unwrap_or(last));
    let target = format!("{address}:{}", way.at.1);
    let authority = format!("{}.shop", name(server, way.cluster));
    let mut command = Command::new("timeout");
    command.arg("120").args(&client.client).args([&target, &authority]);
    let lines = output(&mut command);
    lines.lines().filter_map(|line| line.split_once(' ')).map(|(case, what)| (case.into(), what.into())).collect()
}

#[tokio::test]
async fn grpc_stacks_understand_each_other_by_every_way() {
    let fleet = both(99, 126).await;
    let stacks = stacks();
    let (mut tables, mut failures) = (String::new(), Vec::new());
    for way in &WAYS {
        let before = counted(&fleet, way.cluster);
        let mut columns = Vec::new();
        let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (server, last) in stacks.iter().zip(31..) {
            for client in &stacks {
                let pair = format!("{} → {}", client.name, server.name);
                let what = format!("{pair}, {} (logs in {})", way.name, fleet.folder().display());
                // The way is open when one call gets through; then every case has one chance.
                if columns.len().is_multiple_of(stacks.len()) {
                    eventually(&what, SOON, || open(&fleet, server, last, way)).await;
                }
                let results = run(&fleet, client, server, last, way);
                assert_eq!(results.len(), CASES, "{what}: {results:#?}");
                for (case, result) in results {
                    if result != "pass" {
                        failures.push(format!("{what}: {case} {result}"));
                    }
                    rows.entry(case).or_default().push(result.split(' ').next().unwrap_or_default().to_owned());
                }
                columns.push(pair);
            }
        }
        let after = counted(&fleet, way.cluster);
        // The clusters also talk about themselves there, but not in megabytes.
        let passed = (after.0 - before.0 > 20.0, after.1 - before.1 > 1e6);
        assert_eq!(passed, (way.name != "directly", way.cluster == "east"), "{}: {before:?}, {after:?}", way.name);
        let _ = writeln!(tables, "\n### {}{}\n", way.name[..1].to_uppercase(), &way.name[1..]);
        let _ = writeln!(tables, "| case | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
        for (case, results) in rows {
            let _ = writeln!(tables, "| {case} | {} |", results.join(" | "));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    documented(&tables);
}

/// Calls that the proxy of a cluster's first server let in, and bytes that the cluster's gateway relayed.
fn counted(fleet: &Fleet, cluster: &str) -> (f64, f64) {
    let labels = [("protocol", "grpc"), ("direction", "inbound")];
    let calls = fleet.metric(cluster, 31, "veer_requests_total", &labels).expect("metrics");
    (calls, fleet.metric(cluster, 2, "veer_relay_bytes_total", &[]).expect("metrics"))
}

/// Whether a call of `grpc_client.py` by this way reaches the server, which does not know it.
fn open(fleet: &Fleet, server: &Stack, last: u8, way: &Way) -> Result<(), String> {
    let target = format!("{}:{}", fleet.address("west", way.at.0.unwrap_or(last)), way.at.1);
    let authority = format!("{}.shop", name(server, way.cluster));
    let text = output(Command::new(python()).args([&foreign("grpc_client.py"), &target, &authority, "unimplemented"]));
    if text.contains("UNIMPLEMENTED") { Ok(()) } else { Err(text) }
}

/// The document holds these tables; with `VEER_BLESS=1`: henceforth.
fn documented(tables: &str) {
    let path = Path::new(DOCUMENT);
    let text = std::fs::read_to_string(path).expect("docs/interop.md");
    let (before, rest) = text.split_once(BEGIN).expect("the beginning of the matrix");
    let (found, after) = rest.split_once(END).expect("the end of the matrix");
    if std::env::var_os("VEER_BLESS").is_some() {
        std::fs::write(path, [before, BEGIN, tables, "\n", END, after].concat()).expect("docs/interop.md is written");
    } else {
        assert_eq!(found.trim(), tables.trim(), "docs/interop.md is of yesterday: run this test with VEER_BLESS=1");
    }
}
