//! One choice of an endpoint, as a request makes it: 1,000 endpoints in three clusters with weights.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;
use veer_balance::{Clusters, Outcome, Picker, ServiceBalance};
use veer_core::endpoints::{ClusterEndpoints, Endpoint, EndpointPort, Endpoints, Reach};
use veer_core::gateway::{Lease, Path};
use veer_core::names::{ClusterName, ObjectName};
use veer_core::policy::{ClusterWeight, TrafficPolicy};

use crate::allocations;
use crate::side_by_side::figures::{Figure, Run};

/// Clusters with their weights and endpoints; the first is the caller's own.
const CLUSTERS: [(&str, u32, usize); 3] = [("here", 50, 400), ("east", 30, 300), ("south", 20, 300)];
/// Requests in flight.
const IN_FLIGHT: usize = 64;
const BATCHES: usize = 20_000;
/// Between one batch and the next, so that plans are made anew as often as at 100,000 requests/s.
const STEP: Duration = Duration::from_micros(640);

pub(super) fn run() -> anyhow::Result<Run> {
    let begun = Instant::now();
    let clusters = Clusters::new(&name("here")?, begun);
    for (cluster, ..) in &CLUSTERS[1..] {
        clusters.set_path(&Path {
            cluster: name(cluster)?,
            trust_domain: format!("{cluster}.example").parse().context("trust domain")?,
            gateways: Vec::new(),
            lease: Lease::Fresh,
            lease_duration: Duration::from_secs(3600),
        });
    }
    let balance = ServiceBalance::new(&endpoints()?, &clusters, begun);
    let mut picker = Picker::new(Arc::clone(&balance));
    let (mut rng, mut now) = (fastrand::Rng::with_seed(7), begun);
    let (mut spent, mut allocated) = (Duration::ZERO, Vec::with_capacity(BATCHES));
    let mut counts: BTreeMap<ClusterName, usize> = BTreeMap::new();
    let mut held = Vec::with_capacity(IN_FLIGHT);
    for batch in 0..BATCHES {
        now += STEP;
        // The first batches grow what is then kept.
        let counted = batch >= BATCHES / 10;
        let (before, begun) = (allocations::count(), Instant::now());
        for _ in 0..IN_FLIGHT {
            held.push(picker.pick(now, &mut rng, &[])?);
        }
        if counted {
            spent += begun.elapsed();
            allocated.push(allocations::count() - before);
        }
        for pick in held.drain(..) {
            *counts.entry(pick.cluster().clone()).or_default() += 1;
            pick.finish(Outcome::Success, Duration::from_millis(1), now);
        }
    }
    allocated.sort_unstable();
    let picks = (BATCHES - BATCHES / 10) * IN_FLIGHT;
    for (cluster, weight, _) in CLUSTERS {
        let share = counts.get(&name(cluster)?).copied().unwrap_or(0) as f64 / (BATCHES * IN_FLIGHT) as f64;
        anyhow::ensure!((share - f64::from(weight) / 100.0).abs() < 0.01, "{cluster} got {share} of all requests");
    }
    Ok(Run::of([
        (Figure::PickNs, spent.as_nanos() as f64 / picks as f64),
        // Most batches only choose; the others also meet a new plan, every 100 ms.
        (Figure::Allocations, allocated[allocated.len() / 2] as f64 / IN_FLIGHT as f64),
    ]))
}

fn name(cluster: &str) -> anyhow::Result<ClusterName> {
    Ok(ClusterName::new(cluster)?)
}

fn endpoints() -> anyhow::Result<Endpoints> {
    let mut policy = TrafficPolicy::default();
    let mut clusters = Vec::new();
    for (n, (cluster, weight, count)) in CLUSTERS.into_iter().enumerate() {
        policy.locality.weights.push(ClusterWeight { cluster: name(cluster)?, weight });
        let reach = if n == 0 { Reach::Local } else { Reach::Gateway };
        let endpoint = |index: usize| {
            Ok(Endpoint {
                workload: ObjectName::new("shop", &format!("cart-{index}")),
                address: std::net::Ipv4Addr::new(10, n as u8, (index / 256) as u8, (index % 256) as u8).into(),
                ports: vec![EndpointPort { service_port: 80, target_port: 8080, token: "token".into() }],
                identity: Some(format!("spiffe://{cluster}.example/ns/shop/sa/cart").parse()?),
                mesh_port: 15008,
                locality: Default::default(),
                ready: true,
                capacity: None,
            })
        };
        let endpoints = (0..count).map(endpoint).collect::<anyhow::Result<_>>()?;
        clusters.push(ClusterEndpoints { cluster: name(cluster)?, reach, endpoints, service_tokens: Vec::new() });
    }
    Ok(Endpoints { host: "cart.shop.svc.clusterset.local".parse()?, policy, clusters })
}
