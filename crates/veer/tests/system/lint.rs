//! `veer lint`: faults before anything runs.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The example fleet with files in the place of some of its own.
pub fn example(changes: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let shop = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/shop"));
    for cluster in ["west", "east", "edge"] {
        std::fs::create_dir(folder.path().join(cluster)).expect("a folder");
        for entry in std::fs::read_dir(shop.join(cluster)).expect("the example") {
            let entry = entry.expect("an entry");
            std::fs::copy(entry.path(), folder.path().join(cluster).join(entry.file_name())).expect("copied");
        }
    }
    std::fs::copy(shop.join("fleet.yaml"), folder.path().join("fleet.yaml")).expect("copied");
    for (file, text) in changes {
        std::fs::write(folder.path().join(file), text).expect("written");
    }
    folder
}

/// Codes with file and line of what `veer lint` finds, and whether it is content.
fn lint(folder: &Path, flags: &[&str]) -> (Vec<String>, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veer"));
    let output = command.arg("lint").arg(folder).args(flags).args(["-o", "json"]).output().expect("veer lint runs");
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let faults = report["faults"].as_array().expect("faults").iter().map(|fault| {
        let file = text(&fault["file"]);
        let file = Path::new(&file).strip_prefix(folder).expect("a file of the folder").display().to_string();
        format!("{} {file}:{}", text(&fault["code"]), fault["line"])
    });
    (faults.collect(), output.status.success())
}

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: catalog, namespace: shop }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: catalog }]
  rules:
  - backendRefs:
    - { group: multicluster.x-k8s.io, kind: ServiceImport, name: catalog-east, port: 80 }
    - { group: multicluster.x-k8s.io, kind: ServiceImport, name: catalog-nort, port: 80 }
";

#[test]
fn clusters_of_a_fleet_are_judged_together() {
    let sound = example(&[]);
    assert_eq!(lint(sound.path(), &["--strict"]), (vec![], true));
    assert!(!sound.path().join(".veer").exists(), "nothing is made");

    // What east exports is there for west; what nobody exports is not.
    let folder = example(&[("west/route.yaml", ROUTE)]);
    assert_eq!(lint(folder.path(), &[]), (vec!["V0352 west/route.yaml:9".to_owned()], false));

    // East takes its export back, and the same reference of west leads nowhere.
    let catalog = std::fs::read_to_string(folder.path().join("east/catalog.yaml")).expect("the example");
    let private = catalog.split("---").find(|text| text.contains("kind: Service\n")).expect("the Service");
    let folder = example(&[("west/route.yaml", ROUTE), ("east/catalog.yaml", private)]);
    let (faults, content) = lint(folder.path(), &[]);
    assert!(faults.contains(&"V0352 west/route.yaml:8".to_owned()) && !content, "{faults:?}");
}

#[test]
fn a_folder_of_one_cluster_is_judged_by_itself() {
    let folder = example(&[("west/route.yaml", &ROUTE.replace("name: catalog }", "name: catalg }"))]);
    let west = folder.path().join("west");
    let found = ["V0105 route.yaml:5", "V0104 route.yaml:8", "V0104 route.yaml:9"].map(str::to_owned).to_vec();
    assert_eq!(lint(&west, &[]), (found.clone(), true));
    assert_eq!(lint(&west, &["--strict"]), (found, false));
}

#[test]
fn a_folder_that_says_nothing_is_a_fault_of_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_veer")).arg("lint").arg(folder.path()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with(&format!("{}: error[V0202] ", folder.path().display())), "{text}");
    assert!(!output.status.success());
}
