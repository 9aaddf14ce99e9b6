//! `veer demo`: the example fleet, a load that does not wait, and a story of failures with promises that are checked.

mod record;
mod show;
mod stage;
mod story;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use tokio::time::Instant;
use veer_load::{Plan, Protocol, Request};

use self::record::{Recorder, Window};
use self::show::Show;
use self::stage::Stage;
use self::story::{Promise, STEPS};
use crate::supervise::fleet::RunningFleet;
use crate::supervise::plan::{ADMIN_PORT, ClusterPlan, FleetPlan, OUTBOUND_PORT};
use crate::{api, table};

/// Where visitors come in, and the address of the proxy that takes their requests.
pub const VISITORS: [(&str, IpAddr); 2] =
    [("west", IpAddr::V4(Ipv4Addr::new(127, 1, 0, 10))), ("edge", IpAddr::V4(Ipv4Addr::new(127, 3, 0, 10)))];

/// How long the fleet may take to come up.
const START: Duration = Duration::from_secs(60);
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The example, as it lies in `examples/shop`.
const EXAMPLE: &[(&str, &str)] = &[
    ("fleet.yaml", include_str!("../../../../examples/shop/fleet.yaml")),
    ("west/namespace.yaml", include_str!("../../../../examples/shop/west/namespace.yaml")),
    ("west/visitor.yaml", include_str!("../../../../examples/shop/west/visitor.yaml")),
    ("west/web.yaml", include_str!("../../../../examples/shop/west/web.yaml")),
    ("west/catalog.yaml", include_str!("../../../../examples/shop/west/catalog.yaml")),
    ("west/catalog-1.yaml", include_str!("../../../../examples/shop/west/catalog-1.yaml")),
    ("west/catalog-2.yaml", include_str!("../../../../examples/shop/west/catalog-2.yaml")),
    ("west/price.yaml", include_str!("../../../../examples/shop/west/price.yaml")),
    ("west/price-route.yaml", include_str!("../../../../examples/shop/west/price-route.yaml")),
    ("west/price-1.yaml", include_str!("../../../../examples/shop/west/price-1.yaml")),
    ("west/imports.yaml", include_str!("../../../../examples/shop/west/imports.yaml")),
    ("west/authorization.yaml", include_str!("../../../../examples/shop/west/authorization.yaml")),
    ("east/namespace.yaml", include_str!("../../../../examples/shop/east/namespace.yaml")),
    ("east/visitor.yaml", include_str!("../../../../examples/shop/east/visitor.yaml")),
    ("east/web.yaml", include_str!("../../../../examples/shop/east/web.yaml")),
    ("east/catalog.yaml", include_str!("../../../../examples/shop/east/catalog.yaml")),
    ("east/catalog-1.yaml", include_str!("../../../../examples/shop/east/catalog-1.yaml")),
    ("east/catalog-2.yaml", include_str!("../../../../examples/shop/east/catalog-2.yaml")),
    ("east/catalog-canary.yaml", include_str!("../../../../examples/shop/east/catalog-canary.yaml")),
    ("east/price.yaml", include_str!("../../../../examples/shop/east/price.yaml")),
    ("east/price-route.yaml", include_str!("../../../../examples/shop/east/price-route.yaml")),
    ("east/price-1.yaml", include_str!("../../../../examples/shop/east/price-1.yaml")),
    ("east/authorization.yaml", include_str!("../../../../examples/shop/east/authorization.yaml")),
    ("edge/namespace.yaml", include_str!("../../../../examples/shop/edge/namespace.yaml")),
    ("edge/visitor.yaml", include_str!("../../../../examples/shop/edge/visitor.yaml")),
    ("edge/web.yaml", include_str!("../../../../examples/shop/edge/web.yaml")),
    ("edge/price-route.yaml", include_str!("../../../../examples/shop/edge/price-route.yaml")),
    ("edge/remote.yaml", include_str!("../../../../examples/shop/edge/remote.yaml")),
];

/// How the demo is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Leave the fleet running at the end, until interrupted.
    pub keep: bool,
    /// Print the result as JSON and nothing else.
    pub json: bool,
    /// Requests per second of all visitors together.
    pub rate: f64,
    /// Folder for the fleet and its state; a new temporary one if absent.
    pub folder: Option<PathBuf>,
    /// Numbers of the steps to play, from 1; empty: all.
    pub steps: Vec<usize>,
}

/// The result of the demo.
#[derive(Debug, Serialize)]
struct Outcome {
    held: bool,
    requests: u64,
    failures: u64,
    steps: Vec<StepOutcome>,
}

#[derive(Debug, Serialize)]
struct StepOutcome {
    step: &'static str,
    requests: u64,
    failures: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    served: std::collections::BTreeMap<String, std::collections::BTreeMap<String, usize>>,
    promises: Vec<Promise>,
}

/// Plays the demo; `Ok(true)` when every promise held. Must be called within a `LocalSet`.
///
/// # Errors
/// When the fleet cannot be started or changed.
pub async fn run(options: Options) -> anyhow::Result<bool> {
    let mut show = Show::new(options.json);
    let folder = match options.folder.clone() {
        Some(folder) => folder,
        None => temporary_folder()?,
    };
    write_example(&folder)?;
    show.say("Three clusters, each its own network, trust domain and control plane, reached only through gateways.");
    show.say(&format!("The fleet's folder is {}: what the demo edits are ordinary manifests.", folder.display()));
    let fleet = RunningFleet::start(&folder, &FleetPlan::default_state(&folder))?;
    let recorder = Recorder::new();
    let mut stage = Stage { fleet, folder, recorder: recorder.clone(), show };
    let outcome = play(&options, &mut stage).await;
    if options.keep && outcome.is_ok() {
        keep(&stage).await;
    }
    let folder = stage.folder.clone();
    let logs: Vec<PathBuf> = stage.fleet.plan.clusters.iter().map(ClusterPlan::logs).collect();
    stage.fleet.stop().await;
    let mut outcome = outcome?;
    // A process outlives the panic of a task, and what the task carried is tried again: no other promise would break.
    let panics = panics(&logs);
    outcome.held &= panics.is_empty();
    for panic in panics {
        anstream::eprintln!("a process panicked: {panic}");
    }
    if options.json {
        anstream::println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        anstream::print!("{}", result_table(&outcome));
        let verdict = if outcome.held { "every promise held" } else { "A PROMISE WAS BROKEN" };
        anstream::println!("{} requests, {} failed: {verdict}", outcome.requests, outcome.failures);
    }
    if options.folder.is_none() && outcome.held {
        // A leftover in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(folder);
    } else {
        anstream::eprintln!("manifests, state and logs are in {}", folder.display());
    }
    Ok(outcome.held)
}

/// Panics that logs hold, each with its log.
fn panics(folders: &[PathBuf]) -> Vec<String> {
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let mut panics = Vec::new();
    for log in entries.map(|entry| entry.path()) {
        let text = std::fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter(|line| line.contains("panicked at"));
        panics.extend(lines.map(|line| format!("{}: {line}", log.display())));
    }
    panics
}

async fn play(options: &Options, stage: &mut Stage) -> anyhow::Result<Outcome> {
    wait_until_up(stage).await?;
    let load = start_load(options.rate, &stage.recorder);
    // The first requests find out about services, which takes a moment; the story begins when they are served.
    anyhow::ensure!(
        stage.until("visitors are served", 20, |seen| seen.len() > 20 && seen.failures() == 0).await.is_some(),
        "visitors are not served: {:?}",
        stage.since(Duration::ZERO).tally().reasons()
    );
    let begin = stage.now();
    let mut steps = Vec::new();
    for (n, (title, text)) in STEPS.into_iter().enumerate() {
        if !options.steps.is_empty() && !options.steps.contains(&(n + 1)) {
            continue;
        }
        stage.show.step(n + 1, title, text);
        let from = stage.now();
        let promises = story::play(n, stage).await.with_context(|| format!("step {}, {title}", n + 1))?;
        stage.show.promises(&promises);
        steps.push((title, from, stage.now(), promises));
    }
    let end = stage.now();
    load.abort();
    // Requests still under way when a step ended are counted now that they have ended.
    let steps: Vec<StepOutcome> = steps
        .into_iter()
        .map(|(title, from, to, promises)| step_outcome(title, &stage.between(from, to), promises))
        .collect();
    let window = stage.between(begin, end);
    let all = window.tally().summary();
    for (reason, count) in window.tally().reasons() {
        anstream::eprintln!("{count} requests failed: {reason}");
    }
    let kept = !steps.is_empty() && steps.iter().all(|step| step.promises.iter().all(|promise| promise.held));
    // A request may fail after the step in which it began was judged: every step promises that none does.
    let held = kept && all.failures == 0;
    Ok(Outcome { held, requests: all.requests, failures: all.failures, steps })
}

fn step_outcome(step: &'static str, seen: &Window, promises: Vec<Promise>) -> StepOutcome {
    let summary = seen.tally().summary();
    let millis = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    StepOutcome {
        step,
        requests: summary.requests,
        failures: summary.failures,
        p50_ms: millis(summary.p50),
        p99_ms: millis(summary.p99),
        max_ms: millis(summary.max),
        served: ["web", "catalog", "price"].map(|service| (service.to_owned(), seen.by_cluster(service))).into(),
        promises,
    }
}

fn result_table(outcome: &Outcome) -> String {
    let mut rows = table::Table::new(&["step", "requests", "failed", "p50 ms", "p99 ms", "max ms", "catalog", "price"]);
    for step in &outcome.steps {
        rows.row([
            step.step.to_owned(),
            step.requests.to_string(),
            step.failures.to_string(),
            format!("{:.1}", step.p50_ms),
            format!("{:.1}", step.p99_ms),
            format!("{:.1}", step.max_ms),
            story::shares(&step.served["catalog"]),
            story::shares(&step.served["price"]),
        ]);
    }
    format!("\n{rows}\n")
}

/// Waits until every proxy and gateway of the example is ready.
async fn wait_until_up(stage: &mut Stage) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    loop {
        let mut missing = Vec::new();
        for plan in &stage.fleet.plan.clusters {
            let workloads = api::workload_addresses(plan);
            let gateways = plan.gateways.iter().map(|gateway| (gateway.name.clone(), gateway.address));
            for (name, address) in workloads.into_iter().chain(gateways) {
                if !api::get_ok((address, ADMIN_PORT).into(), "/ready").await {
                    missing.push(format!("{}/{name}", plan.name));
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "not ready after {START:?}: {}; see the logs in {}",
            missing.join(", "),
            stage.fleet.state().join("clusters").display()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Visitors of west and of the edge, at fixed rates whatever the answers do.
fn start_load(rate: f64, recorder: &Recorder) -> tokio::task::JoinHandle<()> {
    let david = HeaderValue::from_static("david");
    let page = Request::get("page", "web", "/");
    let items = Request::get("items", "catalog", "/items");
    let quote = || {
        use prost::Message as _;
        let message = veer_shop::price::QuoteRequest { item: "rope".to_owned() }.encode_to_vec();
        Request::grpc("quote", "price", veer_shop::price::QUOTE, &message)
    };
    let mut loads = Vec::new();
    for (cluster, address) in VISITORS {
        let (http, grpc) = match cluster {
            "west" => (0.6, 0.2),
            _ => (0.2, 0.0),
        };
        let user = HeaderName::from_static("user");
        let mut requests = vec![items.clone(), page.clone(), items.clone(), page.clone(), items.clone()];
        if cluster == "west" {
            let mut davids = items.clone().with_header(user, david.clone());
            davids.kind = "david".into();
            requests.push(davids);
        }
        let plan = |protocol, share: f64, requests| Plan {
            target: (address, OUTBOUND_PORT).into(),
            protocol,
            connections: if protocol == Protocol::Http2 { 1 } else { 512 },
            rate: rate * share,
            duration: Duration::from_secs(24 * 3600),
            timeout: TIMEOUT,
            requests,
        };
        loads.push((cluster, plan(Protocol::Http1, http, requests)));
        if grpc > 0.0 {
            loads.push((cluster, plan(Protocol::Http2, grpc, vec![quote()])));
        }
    }
    let recorder = recorder.clone();
    tokio::task::spawn_local(async move {
        let runs = loads.into_iter().map(|(cluster, plan)| {
            let (recorder, cluster, began) = (recorder.clone(), Arc::<str>::from(cluster), recorder.now());
            tokio::task::spawn_local(veer_load::run(plan, move |sample| recorder.add(&cluster, began, sample)))
        });
        let mut runs = AbortAll(runs.collect());
        for run in &mut runs.0 {
            // Ends when the plan does, long after the demo.
            let _ = run.await;
        }
    })
}

/// Tasks that end with their owner.
struct AbortAll(Vec<tokio::task::JoinHandle<()>>);

impl Drop for AbortAll {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn keep(stage: &Stage) {
    let folder = stage.folder.display();
    let west = VISITORS[0].1;
    anstream::println!(
        "
The fleet keeps running; Ctrl-C ends it. Try, in another terminal:
  curl -H 'Host: web' http://{west}:{OUTBOUND_PORT}/
  veer status    --fleet {folder}
  veer stat      --fleet {folder}
  veer routes    --fleet {folder} --cluster west catalog.shop
  veer endpoints --fleet {folder} --cluster west catalog.shop
  veer stop      --fleet {folder} east      (and: veer start --fleet {folder} east)
  $EDITOR {folder}/west/catalog.yaml
"
    );
    // Without signals there is nothing to wait for.
    let _ = tokio::signal::ctrl_c().await;
}

fn temporary_folder() -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("veer-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// Writes the example where nothing else is in its way.
fn write_example(folder: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !folder.join("fleet.yaml").exists(),
        "{} holds a fleet already; the demo needs a folder of its own",
        folder.display()
    );
    for (file, text) in EXAMPLE {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_demo_carries_the_whole_example() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
        let mut found = BTreeSet::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    if !path.ends_with(".veer") {
                        folders.push(path);
                    }
                } else {
                    found.insert(path.strip_prefix(&root).unwrap().display().to_string());
                }
            }
        }
        assert_eq!(found, EXAMPLE.iter().map(|(file, _)| (*file).to_owned()).collect());
    }
}
