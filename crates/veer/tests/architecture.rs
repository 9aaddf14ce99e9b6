//! The arrows between crates, held by `cargo metadata`: pure crates know no sockets, everything points toward `veer-core`,
//! the proxy and the control plane meet only in the binary, and what we decided not to depend on stays out.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Which of our crates each of our crates may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("veer-core", &[]),
    ("veer-net", &[]),
    ("veer-http", &[]),
    ("veer-load", &[]),
    ("veer-shop", &["veer-core", "veer-load"]),
    // Tests only: a foreign stack.
    ("veer-interop", &[]),
    ("veer-testkit", &["veer-load", "veer-telemetry"]),
    ("veer-bench", &["veer-balance", "veer-core", "veer-load", "veer-testkit"]),
    // Tests only.
    ("veer-fuzz", &["veer-core", "veer-http", "veer-identity", "veer-proxy", "veer-resources", "veer-xds"]),
    ("veer-instructions", &["veer-balance", "veer-core", "veer-http", "veer-route"]),
    // Tests only: there, too, everything runs together.
    ("veer-sim", &["veer-core", "veer-net", "veer-control", "veer-proxy", "veer-identity", "veer-telemetry"]),
    ("veer-route", &["veer-core", "veer-http"]),
    ("veer-balance", &["veer-core"]),
    ("veer-resources", &["veer-core"]),
    ("veer-compile", &["veer-core", "veer-resources"]),
    ("veer-source", &["veer-core", "veer-resources"]),
    ("veer-identity", &["veer-core"]),
    ("veer-telemetry", &["veer-core"]),
    ("veer-xds", &["veer-core", "veer-identity", "veer-net"]),
    (
        "veer-proxy",
        &[
            "veer-core",
            "veer-http",
            "veer-net",
            "veer-route",
            "veer-balance",
            "veer-identity",
            "veer-telemetry",
            "veer-xds",
        ],
    ),
    (
        "veer-control",
        &[
            "veer-core",
            "veer-net",
            "veer-resources",
            "veer-source",
            "veer-compile",
            "veer-identity",
            "veer-telemetry",
            "veer-xds",
        ],
    ),
];

/// Crates that decide and never do: not even transitively may they reach an async runtime's I/O.
const PURE: &[&str] = &["veer-core", "veer-http", "veer-route", "veer-resources", "veer-compile"];

/// One TLS, one crypto library, one HTTP stack (`docs/decisions`).
const BANNED: &[&str] = &["ring", "openssl-sys", "native-tls", "reqwest", "axum", "serde_yaml", "kube", "k8s-openapi"];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

/// Normal (not dev, not build) dependencies by package name.
fn arrows(metadata: &serde_json::Value) -> BTreeMap<String, BTreeSet<String>> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let names: BTreeMap<String, String> =
        metadata["packages"].as_array().unwrap().iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
    let normal =
        |dep: &&serde_json::Value| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
    metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let deps = node["deps"].as_array().unwrap().iter().filter(normal);
            (names[&text(&node["id"])].clone(), deps.map(|dep| names[&text(&dep["pkg"])].clone()).collect())
        })
        .collect()
}

#[test]
fn arrows_point_toward_core() {
    let all = arrows(&metadata());
    let ours = all.keys().filter(|name| name.starts_with("veer")).cloned().collect::<BTreeSet<_>>();
    let stated: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for name in &ours {
        if name == "veer" {
            continue;
        }
        let allowed = stated.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not in the table of arrows"));
        for dep in all[name].iter().filter(|dep| dep.starts_with("veer")) {
            assert!(allowed.contains(&dep.as_str()), "{name} must not depend on {dep}");
        }
    }
    for name in stated.keys() {
        assert!(ours.contains(*name), "{name} is in the table of arrows but not in the workspace");
    }
}

#[test]
fn pure_crates_reach_no_sockets() {
    let all = arrows(&metadata());
    for pure in PURE {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![(*pure).to_owned()]);
        while let Some(name) = todo.pop() {
            assert!(!["tokio", "mio", "hyper", "rustls", "socket2"].contains(&name.as_str()), "{pure} reaches {name}");
            todo.extend(all[&name].iter().filter(|dep| seen.insert((*dep).clone())).cloned());
        }
    }
}

#[test]
fn banned_crates_are_not_built() {
    // `cargo metadata` also names optional dependencies that no feature selects; `cargo tree` names what is built.
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "veer", "--edges", "normal,build", "--prefix", "none", "--locked", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&output.stdout);
    let built: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(built.contains("rustls"), "cargo tree printed {tree:?} {}", String::from_utf8_lossy(&output.stderr));
    for name in BANNED {
        assert!(!built.contains(name), "{name} is banned");
    }
}
