//! What a proxy costs in a small fleet and in a large one of which it uses the same ten services.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::Instant;
use veer_load::{ClosedLoad, ClosedPlan, Exchange};
use veer_testkit::{Fleet, FleetSpec};

use super::closed::mib;
use super::{Effort, START};
use crate::side_by_side::figures::{Figure, Run};
use crate::side_by_side::origin::Origin;
use crate::side_by_side::process::{Memory, cpu_time, pin_all};
use crate::side_by_side::programs::Stage;
use crate::side_by_side::works::Work;

/// Second part of the cluster's addresses.
const NETWORK: u8 = 81;
const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 10;
const USED: usize = 10;
const CONNECTIONS: usize = 6;
/// For the control plane to take them all in.
const KNOWN: Duration = Duration::from_secs(180);

pub(super) async fn run(stage: &Stage, effort: Effort) -> anyhow::Result<Run> {
    let endpoints: Vec<_> = (1..=ENDPOINTS).map(|n| format!("127.77.200.{n}")).collect();
    let listen = endpoints.iter().map(|ip| Ok(format!("{ip}:9000").parse()?)).collect::<anyhow::Result<Vec<_>>>()?;
    let _origin = Origin::start(&Work::Growth.shape(), &listen).await?;
    let mut spec = FleetSpec::new(&stage.veer)?.cluster("bench", NETWORK, 1).visitor("bench");
    for n in 0..USED {
        spec = spec.manifest(&format!("bench/used-{n}.yaml"), &service(&format!("used-{n}"), &endpoints));
    }
    let fleet = spec.start().await?;
    let run: serde_json::Value = serde_json::from_str(&fleet.read(".veer/clusters/bench/run.json")?)?;
    let pid = |name: &str| run["processes"][name].as_u64().map(|pid| pid as u32).context("no such process");
    let (proxy, control) = (pid("shop.visitor.proxy")?, pid("control")?);
    pin_all(proxy, stage.proxy_core)?;
    // The first round finds what the proxy keeps from then on.
    load(proxy, effort).await?;
    let small = median(proxy, effort).await?;
    let before = Memory::of(&[proxy])?;
    enlarge(&fleet, control).await?;
    load(proxy, effort).await?;
    let large = median(proxy, effort).await?;
    let after = Memory::of(&[proxy])?;
    Ok(Run::of([
        (Figure::GrowthMib, mib(after.private) - mib(before.private)),
        (Figure::SmallCpuUs, small),
        (Figure::Slowdown, large / small),
        (Figure::ResidentMib, mib(after.resident)),
    ]))
}

async fn median(proxy: u32, effort: Effort) -> anyhow::Result<f64> {
    let mut all = Vec::new();
    for _ in 0..effort.rounds {
        all.push(load(proxy, effort).await?);
    }
    all.sort_by(f64::total_cmp);
    Ok(all[all.len() / 2])
}

/// CPU time per request in µs, all services being used at once.
async fn load(proxy: u32, effort: Effort) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut loads = Vec::new();
    for n in 0..USED {
        let host = format!("used-{n}.shop.svc.cluster.local");
        let exchange = Exchange::Http1 { host, path: "/items".to_owned(), upload: 0 };
        let target = (std::net::Ipv4Addr::new(127, NETWORK, 0, 10), 15001).into();
        let plan = ClosedPlan { target, connections: CONNECTIONS, exchange, reconnect: false };
        // Until every service is known, requests for it fail.
        loop {
            let load = ClosedLoad::start(plan.clone()).await?;
            let seen = load.measure(effort.warm_up).await;
            if seen.summary.failures == 0 && seen.summary.requests > 0 {
                loads.push(load);
                break;
            }
            ensure!(begun.elapsed() < START, "is not served: {:?}", seen.reasons);
        }
    }
    let before = cpu_time(&[proxy])?;
    loads.iter().for_each(|load| drop(load.take()));
    tokio::time::sleep(effort.span).await;
    let measured: Vec<_> = loads.iter().map(ClosedLoad::take).collect();
    let spent = cpu_time(&[proxy])? - before;
    let served: u64 = measured.iter().map(|(summary, _)| summary.requests - summary.failures).sum();
    ensure!(served > 0, "nothing was served");
    Ok(1e6 * spent.as_secs_f64() / served as f64)
}

/// Adds all other services, and waits until the control plane has taken them in and is quiet again.
async fn enlarge(fleet: &Fleet, control: u32) -> anyhow::Result<()> {
    for part in 0..SERVICES / 1000 {
        let mut text = String::new();
        for n in (part * 1000..(part + 1) * 1000).take(SERVICES - USED) {
            let endpoints: Vec<_> = (1..=ENDPOINTS).map(|last| format!("10.{}.{}.{last}", n / 250, n % 250)).collect();
            write!(text, "---\n{}", service(&format!("unused-{n}"), &endpoints))?;
        }
        fleet.write(&format!("bench/unused-{part}.yaml"), &text)?;
    }
    let begun = Instant::now();
    loop {
        let known = known(fleet);
        if matches!(known, Ok(known) if known >= SERVICES) {
            break;
        }
        ensure!(begun.elapsed() < KNOWN, "the control plane knows {known:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    loop {
        let before = cpu_time(&[control])?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if cpu_time(&[control])? - before < Duration::from_millis(50) {
            return Ok(());
        }
        ensure!(begun.elapsed() < KNOWN, "the control plane does not come to rest");
    }
}

/// Services that the control plane knows.
fn known(fleet: &Fleet) -> anyhow::Result<usize> {
    let (text, _) = fleet.tool("bench", &["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_str(&text)?;
    Ok(status[0]["answer"]["services"].as_u64().context("no number of services")? as usize)
}

/// A service that is no part of the mesh.
fn service(name: &str, endpoints: &[String]) -> String {
    let endpoints: Vec<_> =
        endpoints.iter().map(|ip| format!("{{ addresses: [{ip}], conditions: {{ ready: true }} }}")).collect();
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  ports: [{{ name: main, port: 80, appProtocol: http }}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {name}-1, namespace: shop, labels: {{ kubernetes.io/service-name: {name} }} }}
addressType: IPv4
ports: [{{ name: main, port: 9000 }}]
endpoints: [{}]
",
        endpoints.join(", ")
    )
}
