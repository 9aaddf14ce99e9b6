//! A balancer to measure: 1,000 endpoints in three clusters with weights, as a caller with two peers has them.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::time::Instant;
use veer_balance::{Clusters, Picker, ServiceBalance};
use veer_core::endpoints::{ClusterEndpoints, Endpoint, EndpointPort, Endpoints, Reach};
use veer_core::gateway::{Lease, Path};
use veer_core::names::{ClusterName, ObjectName};
use veer_core::policy::{ClusterWeight, TrafficPolicy};

/// Clusters with their weights and endpoints; the first is the caller's own.
pub const CLUSTERS: [(&str, u32, usize); 3] = [("here", 50, 400), ("east", 30, 300), ("south", 20, 300)];

/// A worker's picker of that service.
///
/// # Errors
/// When the names above are none.
pub fn picker(now: Instant) -> anyhow::Result<Picker> {
    let clusters = Clusters::new(&ClusterName::new(CLUSTERS[0].0)?, now);
    for (cluster, ..) in &CLUSTERS[1..] {
        clusters.set_path(&Path {
            cluster: ClusterName::new(cluster)?,
            trust_domain: format!("{cluster}.example").parse().context("trust domain")?,
            gateways: Vec::new(),
            lease: Lease::Fresh,
            lease_duration: std::time::Duration::from_secs(3600),
        });
    }
    Ok(Picker::new(Arc::clone(&ServiceBalance::new(&endpoints()?, &clusters, now))))
}

fn endpoints() -> anyhow::Result<Endpoints> {
    let mut policy = TrafficPolicy::default();
    let mut clusters = Vec::new();
    for (n, (name, weight, count)) in CLUSTERS.into_iter().enumerate() {
        let cluster = ClusterName::new(name)?;
        policy.locality.weights.push(ClusterWeight { cluster: cluster.clone(), weight });
        let reach = if n == 0 { Reach::Local } else { Reach::Gateway };
        let endpoint = |index: usize| {
            Ok(Endpoint {
                workload: ObjectName::new("shop", &format!("cart-{index}")),
                address: std::net::Ipv4Addr::new(10, n as u8, (index / 256) as u8, (index % 256) as u8).into(),
                ports: vec![EndpointPort { service_port: 80, target_port: 8080, token: "token".into() }],
                identity: Some(format!("spiffe://{name}.example/ns/shop/sa/cart").parse()?),
                mesh_port: 15008,
                locality: Default::default(),
                ready: true,
                capacity: None,
            })
        };
        let endpoints = (0..count).map(endpoint).collect::<anyhow::Result<_>>()?;
        clusters.push(ClusterEndpoints { cluster, reach, endpoints, service_tokens: Vec::new() });
    }
    Ok(Endpoints { host: "cart.shop.svc.clusterset.local".parse()?, policy, clusters, tls: Vec::new(), external: None })
}
