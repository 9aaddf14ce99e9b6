//! The story: what is done to the fleet, step by step, and what must hold while it is done.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;

use super::record::Window;
use super::stage::Stage;

/// What a step must keep, and what was measured.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Promise {
    /// What was promised.
    pub promise: String,
    /// Whether it held.
    pub held: bool,
    /// The figure behind it.
    pub measured: String,
}

impl Promise {
    fn new(promise: &str, held: bool, measured: String) -> Self {
        Self { promise: promise.to_owned(), held, measured }
    }

    fn no_failures(window: &Window) -> Self {
        let reasons = window.tally().reasons().clone();
        let mut measured = format!("{} of {} failed", window.failures(), window.len());
        if let Some((reason, count)) = reasons.iter().max_by_key(|(_, count)| **count) {
            measured = format!("{measured}; {count} × {reason}");
        }
        Self::new("no request fails", window.failures() == 0 && window.len() > 0, measured)
    }
}

/// Title and sentence of each step, in order; [`play`] runs them.
pub const STEPS: [(&str, &str); 8] = [
    (
        "all local",
        "Every visitor of west is served in west; the edge, which has no catalog, is served by both regions.",
    ),
    ("a 90/10 split", "An HTTPRoute sends 10 % of west's requests for the catalog to east."),
    ("a canary for one user", "Requests of user david go to version 2, which runs in east alone; nobody else's do."),
    ("a slow and a failing replica", "In west one copy of the catalog becomes slow, then fails every request."),
    ("scaled to nothing and back", "West's only copy of price goes away, and comes back."),
    ("a cluster killed", "Every process of east gets SIGKILL at once; later it comes back."),
    ("a control plane killed", "West's control plane is gone; proxies and gateways carry on with what they know."),
    ("certificates rotated", "Every certificate of every proxy and gateway is replaced, under load."),
];

/// Plays step `n` of [`STEPS`].
///
/// # Errors
/// When the fleet could not be changed as the step asks; that a promise was not kept is not an error.
pub async fn play(n: usize, stage: &mut Stage) -> anyhow::Result<Vec<Promise>> {
    match n {
        0 => all_local(stage).await,
        1 => split(stage).await,
        2 => canary(stage).await,
        3 => bad_replica(stage).await,
        4 => scaled_to_nothing(stage).await,
        5 => cluster_killed(stage).await,
        6 => control_plane_killed(stage).await,
        _ => certificates_rotated(stage).await,
    }
}

async fn all_local(stage: &mut Stage) -> anyhow::Result<Vec<Promise>> {
    let seen = stage.observe(6).await;
    let west = seen.from("west");
    let local = ["web", "catalog", "price"].map(|service| west.share(service, "west"));
    let edge = seen.from("edge").by_cluster("catalog");
    Ok(vec![
        Promise::no_failures(&seen),
        Promise::new(
            "west serves its own",
            local.iter().all(|share| *share == 1.0),
            shares(&west.by_cluster("catalog")),
        ),
        Promise::new(
            "both regions serve the edge",
            ["west", "east"].iter().all(|region| edge.get(*region).is_some_and(|n| *n > 0)),
            shares(&edge),
        ),
    ])
}

const CATALOG_ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: catalog, namespace: shop }
spec:
  parentRefs:
    - { group: \"\", kind: Service, name: catalog, port: 80 }
  rules:
";

async fn split(stage: &mut Stage) -> anyhow::Result<Vec<Promise>> {
    let before = stage.now();
    stage.write(
        "west/catalog-route.yaml",
        &format!(
            "{CATALOG_ROUTE}    - backendRefs:
        - {{ name: catalog, port: 80, weight: 90 }}
        - {{ name: catalog-east, port: 80, weight: 10 }}
"
        ),
    )?;
    let effect = stage
        .until("the split acts", 5, |seen| seen.from("west").kind("items").by_cluster("catalog").contains_key("east"))
        .await;
    let seen = stage.observe(8).await;
    let all = stage.since(before);
    let east = seen.from("west").kind("items").share("catalog", "east");
    Ok(vec![
        Promise::no_failures(&all),
        Promise::new(
            "the edit acts within a second",
            effect.is_some_and(|t| t <= Duration::from_secs(1)),
            took(effect),
        ),
        Promise::new("east gets 10 %", (0.08..=0.12).contains(&east), percent(east)),
    ])
}

async fn canary(stage: &mut Stage) -> anyhow::Result<Vec<Promise>> {
    let before = stage.now();
    stage.write(
        "west/catalog-route.yaml",
        &format!(
            "{CATALOG_ROUTE}    - matches:
        - headers: [{{ name: user, value: david }}]
      backendRefs:
        - {{ group: multicluster.x-k8s.io, kind: ServiceImport, name: catalog-canary, port: 80 }}
    - backendRefs:
        - {{ name: catalog, port: 80 }}
"
        ),
    )?;
    const CANARY: &str = "east/catalog-canary";
    let effect = stage
        .until("david sees version 2", 5, |seen| seen.kind("david").by_workload("catalog").contains_key(CANARY))
        .await;
    let seen = stage.observe(6).await.from("west");
    let david = seen.kind("david").workload_share("catalog", CANARY);
    let others = seen.without("david").by_workload("catalog");
    Ok(vec![
        Promise::no_failures(&stage.since(before)),
        Promise::new("david always sees version 2", effect.is_some() && david == 1.0, percent(david)),
        Promise::new("nobody else does", !others.contains_key(CANARY), shares(&others)),
    ])
}

async fn bad_replica(stage: &mut Stage) -> anyhow::Result<Vec<Promise>> {
    let before = stage.now();
    let retried = format!(
        "{CATALOG_ROUTE}    - backendRefs:
        - {{ name: catalog, port: 80 }}
      retry: {{ codes: [500], attempts: 2 }}
"
    );
    // Each cluster's own Service is what its callers name, so that each has its own rule.
    for cluster in ["west", "edge"] {
        stage.write(&format!("{cluster}/catalog-route.yaml"), &retried)?;
    }
    let bad = "west/catalog-1";
    stage.observe(1).await;
    stage.fault("127.1.0.21:9080", "delay=150ms").await?;
    stage.observe(3).await;
    let slow = stage.observe(4).await.from("west").kind("items").workload_share("catalog", bad);
    stage.fault("127.1.0.21:9080", "fail=1").await?;
    stage.observe(2).await;
    let failing = stage.observe(4).await.from("west").kind("items").workload_share("catalog", bad);
    stage.fault("127.1.0.21:9080", "").await?;
    let seen = stage.since(before);
    let back = stage
        .until("the healed copy serves again", 20, |seen| {
            seen.from("west").kind("items").workload_share("catalog", bad) > 0.2
        })
        .await;
    for cluster in ["west", "edge"] {
        stage.remove(&format!("{cluster}/catalog-route.yaml"))?;
    }
    Ok(vec![
        Promise::no_failures(&seen),
        Promise::new("the slow copy gets less, but is not starved", slow > 0.0 && slow < 0.3, percent(slow)),
        Promise::new("the failing copy is ejected", failing < 0.05, percent(failing)),
        Promise::new("the healed copy returns", back.is_some(), took(back)),
    ])
}

async fn scaled_to_nothing(stage: &mut Stage) -> anyhow::Result<Vec<Promise>> {
    let before = stage.now();
    let file = "west/price-1.yaml";
    let running = stage.read(file)?;
    stage.write(file, &running.replacen("spec:\n", "spec:\n  replicas: 0\n", 1))?;
    let gone = stage
        .until("east serves west's prices", 5, |seen| seen.from("west").kind("quote").share("price", "east") > 0.0)
        .await;
    stage.observe(2).await;
    let away = stage.observe(3).await.from("west").kind("quote").share("price", "east");
    stage.write(file, &running)?;
    let back = stage
        .until("west serves its own prices again", 20, |seen| {
            seen.from("west").kind("quote").share("price", "west") > 0.95
        })
        .await;
    stage.observe(2).await;
    Ok(vec![
        Promise::no_failures(&stage.since(before)),
        Promise::new("east serves all of it", gone.is_some() && away == 1.0, percent(away)),
        Promise::new("west takes it back", back.is_some(), took(back)),
    ])
}

async fn cluster_killed(stage: &mut Stage) -> anyhow::Result<Vec<Promise>> {
    stage.observe(2).await;
    let before = stage.now();
    let served = |seen: &Window| seen.from("edge").kind("items").by_cluster("catalog");
    stage.kill_cluster("east").await.context("killing east")?;
    let killed = stage.now();
    stage.observe(8).await;
    let without = stage.between(killed + Duration::from_secs(3), stage.now());
    stage.start_cluster("east")?;
    let back = stage.until("east serves again", 30, |seen| served(seen).get("east").is_some_and(|n| *n > 0)).await;
    stage.observe(4).await;
    let all = stage.since(before);
    let worst = all.tally().summary().max;
    Ok(vec![
        Promise::no_failures(&all),
        Promise::new("west serves the edge alone", served(&without).keys().eq(["west"]), shares(&served(&without))),
        Promise::new(
            "nobody waits longer than 2 s",
            worst <= Duration::from_secs(2),
            format!("worst {}", millis(worst)),
        ),
        Promise::new("east is back in the rotation", back.is_some(), took(back)),
    ])
}

async fn control_plane_killed(stage: &mut Stage) -> anyhow::Result<Vec<Promise>> {
    let before = stage.now();
    stage.kill_process("west", "control").await?;
    stage.observe(6).await;
    let age = stage.config_age("west").await;
    stage.start_process("west", "control")?;
    let back = stage.until_control_is_back("west", 20).await;
    stage.observe(2).await;
    let seen = stage.since(before);
    Ok(vec![
        Promise::no_failures(&seen),
        Promise::new(
            "proxies say how old their configuration is",
            age.is_some_and(|age| (Duration::from_secs(3)..Duration::from_secs(10)).contains(&age)),
            age.map_or("not told".to_owned(), |age| format!("{:.1} s old", age.as_secs_f64())),
        ),
        Promise::new("the control plane returns", back.is_some(), took(back)),
    ])
}

async fn certificates_rotated(stage: &mut Stage) -> anyhow::Result<Vec<Promise>> {
    let before = stage.now();
    stage.until_all_report(20).await;
    let old = stage.certificates().await;
    stage.rotate_certificates().await?;
    let changed = stage.until_certificates_changed(&old, 20).await;
    stage.observe(4).await;
    Ok(vec![
        Promise::no_failures(&stage.since(before)),
        Promise::new(
            "every certificate is new",
            changed.is_some() && old.len() == stage.processes(),
            format!("{} of {} processes, {}", old.len(), stage.processes(), took(changed)),
        ),
    ])
}

fn took(time: Option<Duration>) -> String {
    time.map_or("not in time".to_owned(), |time| format!("after {:.1} s", time.as_secs_f64()))
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `west 90 %, east 10 %`
pub fn shares(counts: &BTreeMap<String, usize>) -> String {
    let total: usize = counts.values().sum();
    let part = |(name, count): (&String, &usize)| format!("{name} {:.0} %", *count as f64 * 100.0 / total as f64);
    counts.iter().map(part).collect::<Vec<_>>().join(", ")
}
