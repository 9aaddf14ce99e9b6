//! Failures under load: three clusters in network namespaces of their own with the same addresses inside, callers in one of
//! them, copies in the two others.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::Instant;
use veer_testkit::fleet::workload_yaml;
use veer_testkit::{Fleet, FleetSpec, Wan};

use crate::print_table;

/// When the failure strikes, from the start of the load.
const STRIKE: Duration = Duration::from_secs(5);
/// Length of the load.
const SECONDS: u32 = 20;

struct Scenario {
    name: &'static str,
    what: &'static str,
    strike: fn(&Stage) -> anyhow::Result<()>,
}

struct Stage {
    fleet: Fleet,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "killed", what: "a cluster killed (SIGKILL)", strike: |stage| stage.fleet.kill("east") },
    Scenario {
        name: "cut",
        what: "a cluster silently cut off (packets dropped)",
        strike: |stage| stage.fleet.cluster("east").namespace.as_ref().context("namespace")?.cut(),
    },
    Scenario {
        name: "control",
        what: "every control plane killed",
        strike: |stage| {
            ["west", "east", "south"].iter().try_for_each(|cluster| stage.fleet.kill(&format!("{cluster}/control")))
        },
    },
    Scenario {
        name: "certificates",
        what: "all certificates rotated",
        strike: |stage| {
            let (text, ok) = stage.fleet.tool("west", &["rotate"])?;
            ensure!(ok, "{text}");
            Ok(())
        },
    },
    Scenario {
        name: "link",
        what: "control link cut, data path healthy, a rollout meanwhile",
        strike: |stage| stage.cut_control_and_roll_out(),
    },
    Scenario {
        name: "drained",
        what: "a gateway replica drained",
        strike: |stage| {
            let (text, ok) = stage.fleet.tool("east", &["drain", "gateway-1", "--cluster", "east"])?;
            ensure!(ok, "{text}");
            Ok(())
        },
    },
    Scenario { name: "gateway", what: "a gateway replica killed", strike: |stage| stage.fleet.kill("east/gateway-1") },
];

impl Stage {
    /// West's control plane loses its peers, whose gateways keep relaying everything else; then every copy in east is
    /// replaced by one at another address, of which west cannot hear.
    fn cut_control_and_roll_out(&self) -> anyhow::Result<()> {
        let west = self.fleet.cluster("west").namespace.as_ref().context("namespace")?;
        // New sessions: their ClientHello names the control plane. Old ones: their sockets belong to it.
        let rule =
            ["-p", "tcp", "--dport", "15443", "-m", "string", "--algo", "bm", "--string", "control.", "-j", "DROP"];
        west.run("iptables", &[&["-I", "OUTPUT"], &rule[..]].concat())?;
        let sockets = west.run("ss", &["-tnpH", "state", "established", "dport", "=", ":15443"])?;
        let run: serde_json::Value = serde_json::from_str(&self.fleet.read(".veer/clusters/west/run.json")?)?;
        let pid = format!("pid={},", run["processes"]["control"]);
        let mut cut = 0;
        for line in sockets.lines().filter(|line| line.contains(&pid)) {
            let port =
                line.split_whitespace().nth(2).and_then(|local| local.rsplit(':').next()).context("ss output")?;
            west.run("iptables", &["-I", "OUTPUT", "-p", "tcp", "--sport", port, "-j", "DROP"])?;
            cut += 1;
        }
        ensure!(cut > 0, "west's control plane has no sessions:\n{sockets}");
        let network = &self.fleet.cluster("east").network;
        for n in 1..=2u8 {
            self.fleet.write(
                &format!("east/catalog-{}.yaml", n + 2),
                &workload_yaml("catalog", n + 2, &format!("{network}.{}", 40 + n)),
            )?;
        }
        for n in 1..=2u8 {
            let file = format!("east/catalog-{n}.yaml");
            let down = self.fleet.read(&file)?.replace("spec:\n", "spec:\n  replicas: 0\n");
            self.fleet.write(&file, &down)?;
        }
        Ok(())
    }
}

/// Runs every scenario, each on a fresh fleet, and prints a table; an error when a request failed.
pub async fn run(veer: &Path, rate: u32, only: &[String]) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut failed = 0;
    for scenario in SCENARIOS.iter().filter(|s| only.is_empty() || only.iter().any(|name| name == s.name)) {
        eprintln!("{} ...", scenario.what);
        let (row, failures) = measure(veer, rate, scenario).await.with_context(|| scenario.what.to_owned())?;
        failed += failures;
        rows.push(row);
    }
    print_table(
        &["what happens", "requests", "failed", "retries", "re-routes", "worst latency", "back at full rate"],
        &rows,
    );
    ensure!(failed == 0, "{failed} requests failed");
    Ok(())
}

async fn measure(veer: &Path, rate: u32, scenario: &Scenario) -> anyhow::Result<(Vec<String>, u64)> {
    let wan = Wan::new()?;
    let mut spec = FleetSpec::new(veer)?;
    for (n, cluster) in ["west", "east", "south"].into_iter().enumerate() {
        let namespace = wan.attach(cluster, &format!("192.0.2.{}", 10 * n + 11))?;
        namespace.add_public(&format!("192.0.2.{}", 10 * n + 12))?;
        let gateways = [format!("192.0.2.{}", 10 * n + 11), format!("192.0.2.{}", 10 * n + 12)];
        spec = spec.cluster_in(cluster, namespace, &[&gateways[0], &gateways[1]])?;
    }
    let fleet = spec
        .peer("west", "east")
        .peer("west", "south")
        .visitor("west")
        .service("east", "catalog", 2, 20)
        .service("south", "catalog", 2, 20)
        .start()
        .await?;
    let host = "catalog.shop.svc.clusterset.local";
    veer_testkit::eventually("west reaches both", Duration::from_secs(20), || {
        let warm = fleet
            .load("west", host, "/items", 100, 1)
            .and_then(veer_testkit::fleet::Load::finish)
            .map_err(|e| format!("{e:#}"))?;
        let by: Vec<String> =
            warm.json["served_by"].as_object().into_iter().flatten().map(|(by, _)| by.clone()).collect();
        let both = ["east", "south"].iter().all(|cluster| by.iter().any(|by| by.contains(&format!("={cluster}/"))));
        if warm.failures == 0 && both { Ok(()) } else { Err(format!("{} failures, by {by:?}", warm.failures)) }
    })
    .await;
    let count = |name: &str| fleet.metric("west", 10, name, &[]);
    let before = (count("veer_retries_total")?, count("veer_reroutes_total")?);
    let stage = Stage { fleet };
    let start = Instant::now();
    let load = stage.fleet.load_with("west", host, "/items", rate, SECONDS, &["--timeline"])?;
    tokio::time::sleep_until(start + STRIKE).await;
    (scenario.strike)(&stage)?;
    let loaded = tokio::task::spawn_blocking(move || load.finish()).await??;
    let count = |name: &str| stage.fleet.metric("west", 10, name, &[]);
    let after = (count("veer_retries_total")?, count("veer_reroutes_total")?);
    if loaded.failures > 0 {
        eprintln!("  {}", loaded.json["reasons"]);
    }
    let row = vec![
        scenario.what.to_owned(),
        loaded.requests.to_string(),
        loaded.failures.to_string(),
        format!("{:.0}", after.0 - before.0),
        format!("{:.0}", after.1 - before.1),
        format!("{:.0} ms", loaded.worst.as_secs_f64() * 1000.0),
        full_rate(&loaded.json),
    ];
    Ok((row, loaded.failures))
}

/// From the first tenth of a second at or after the strike whose requests were not all served within 100 ms, to the first
/// after which that is so for good.
fn full_rate(json: &serde_json::Value) -> String {
    let tenths = json["timeline"].as_array().cloned().unwrap_or_default();
    let slow = |tenth: &serde_json::Value| tenth["failed"] != 0 || tenth["worst_ms"].as_f64().unwrap_or(0.0) > 100.0;
    let after = (STRIKE.as_millis() / 100) as usize - 2;
    let disturbed: Vec<usize> = (after..tenths.len()).filter(|n| slow(&tenths[*n])).collect();
    match (disturbed.first(), disturbed.last()) {
        (Some(first), Some(last)) => format!("{:.1} s", (last - first + 1) as f64 / 10.0),
        _ => "undisturbed".to_owned(),
    }
}
