//! What a proxy costs in a small fleet and, in turn, in a large one of which it uses the same ten services.

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

/// Second part of the addresses of the fleet that stays small, and of the other.
const SMALL: u8 = 81;
const LARGE: u8 = 82;
const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 10;
const USED: usize = 10;
/// Runs of each, in turn; no fewer.
const ROUNDS: usize = 5;
const CONNECTIONS: usize = 6;
/// For the control plane to take them all in.
const KNOWN: Duration = Duration::from_secs(180);
/// Until each service is asked to have been served.
const FIRST: Duration = Duration::from_millis(50);

pub(super) async fn run(stage: &Stage, effort: Effort) -> anyhow::Result<Run> {
    let endpoints: Vec<_> = (1..=ENDPOINTS).map(|n| format!("127.77.200.{n}")).collect();
    let listen = endpoints.iter().map(|ip| Ok(format!("{ip}:9000").parse()?)).collect::<anyhow::Result<Vec<_>>>()?;
    let _origin = Origin::start(&Work::Growth.shape(), &listen).await?;
    let small = Side::start(SMALL, &endpoints, stage).await?;
    let large = Side::start(LARGE, &endpoints, stage).await?;
    // The first round finds what a proxy keeps from then on.
    small.load(effort).await?;
    large.load(effort).await?;
    let before = Memory::of(&[large.proxy])?;
    enlarge(&large.fleet, large.control).await?;
    let (mut in_small, mut in_large) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds.max(ROUNDS) {
        in_small.push(small.load(effort).await?);
        in_large.push(large.load(effort).await?);
    }
    let after = Memory::of(&[large.proxy])?;
    let (in_small, in_large) = (median(in_small), median(in_large));
    Ok(Run::of([
        (Figure::GrowthMib, mib(after.private) - mib(before.private)),
        (Figure::SmallCpuUs, in_small),
        (Figure::Slowdown, in_large / in_small),
        (Figure::ResidentMib, mib(after.resident)),
    ]))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A fleet and its one proxy.
struct Side {
    network: u8,
    fleet: Fleet,
    proxy: u32,
    control: u32,
}

impl Side {
    async fn start(network: u8, endpoints: &[String], stage: &Stage) -> anyhow::Result<Self> {
        let mut spec = FleetSpec::new(&stage.veer)?.cluster("bench", network, 1).visitor("bench");
        for n in 0..USED {
            spec = spec.manifest(&format!("bench/used-{n}.yaml"), &service(&format!("used-{n}"), endpoints));
        }
        let fleet = spec.start().await?;
        let run: serde_json::Value = serde_json::from_str(&fleet.read(".veer/clusters/bench/run.json")?)?;
        let pid = |name: &str| run["processes"][name].as_u64().map(|pid| pid as u32).context("no such process");
        let (proxy, control) = (pid("shop.visitor.proxy")?, pid("control")?);
        pin_all(proxy, stage.proxy_core)?;
        Ok(Self { network, fleet, proxy, control })
    }

    /// CPU time per request in µs, all services being used at once.
    async fn load(&self, effort: Effort) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let mut loads = Vec::new();
        for n in 0..USED {
            let host = format!("used-{n}.shop.svc.cluster.local");
            let exchange = Exchange::Http1 { host, path: "/items".to_owned(), upload: 0 };
            let target = (std::net::Ipv4Addr::new(127, self.network, 0, 10), 15001).into();
            let plan = ClosedPlan { target, connections: CONNECTIONS, exchange, reconnect: false };
            // Until every service is known, requests for it fail.
            loop {
                let load = ClosedLoad::start(plan.clone()).await?;
                let seen = load.measure(FIRST).await;
                if seen.summary.failures == 0 && seen.summary.requests > 0 {
                    loads.push(load);
                    break;
                }
                ensure!(begun.elapsed() < START, "is not served: {:?}", seen.reasons);
            }
        }
        let before = cpu_time(&[self.proxy])?;
        loads.iter().for_each(|load| drop(load.take()));
        tokio::time::sleep(effort.span).await;
        let measured: Vec<_> = loads.iter().map(ClosedLoad::take).collect();
        let spent = cpu_time(&[self.proxy])? - before;
        let served: u64 = measured.iter().map(|(summary, _)| summary.requests - summary.failures).sum();
        ensure!(served > 0, "nothing was served");
        Ok(1e6 * spent.as_secs_f64() / served as f64)
    }
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
