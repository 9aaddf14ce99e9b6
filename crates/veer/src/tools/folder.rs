//! Folders of manifests, compiled as control planes would compile them. Nothing runs for it, and nothing is written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use veer_compile::{ClusterConfig, Meaning, PeerView, TokenSealer, World, compile};
use veer_core::gateway::Lease;
use veer_core::inbound::MESH_PORT;
use veer_core::{ClusterName, Locality, TrustDomain};
use veer_identity::Ca;
use veer_resources::{Diagnostic, Object};

use super::read_manifests;
use crate::supervise::fleet::{links_of, plan_fleet, read_fleet};
use crate::supervise::plan::FleetPlan;

/// A cluster of a folder: what it would be told at its start, what it would read, and what that means.
pub struct Cluster {
    /// As its control plane would be told.
    pub config: ClusterConfig,
    /// What it would read, Links made of `fleet.yaml` included.
    pub objects: Vec<Object>,
    /// What is wrong with single objects.
    pub faults: Vec<Diagnostic>,
    /// What it means, with faults of its own.
    pub meaning: Meaning,
}

/// A cluster before it is compiled.
type Read = (ClusterConfig, Vec<Object>, Vec<Diagnostic>);

/// The clusters of a fleet folder, compiled together: what one exports is what the others are offered. A folder without
/// `fleet.yaml` is one cluster, named like the folder.
///
/// # Errors
/// When `fleet.yaml` cannot be used (its faults are told).
pub fn read_clusters(folder: &Path) -> anyhow::Result<Vec<Cluster>> {
    let read = if folder.join("fleet.yaml").is_file() { fleet(folder)? } else { vec![alone(folder)?] };
    let meanings = meanings(&read);
    let cluster = |((config, objects, faults), meaning): (Read, Meaning)| Cluster { config, objects, faults, meaning };
    Ok(read.into_iter().zip(meanings).map(cluster).collect())
}

fn alone(folder: &Path) -> anyhow::Result<Read> {
    let (mut objects, mut faults) = read_manifests(&[folder.to_owned()]);
    faults.extend(veer_resources::remove_duplicates(&mut objects));
    let named = folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = match named.map(|name| ClusterName::new(&name)) {
        Some(Ok(name)) => name,
        _ => ClusterName::new("local")?,
    };
    let trust_domain = TrustDomain::new(&format!("{name}.example"))?;
    let config = config(name, trust_domain, Locality::default(), Vec::new())?;
    Ok((config, objects, faults))
}

fn config(
    name: ClusterName,
    trust_domain: TrustDomain,
    locality: Locality,
    control: Vec<std::net::SocketAddr>,
) -> anyhow::Result<ClusterConfig> {
    // A Link holds its peer's roots; any do, as nobody is going to show a certificate.
    let ca = Ca::create(&trust_domain, veer_identity::clock::now())
        .with_context(|| format!("roots to judge links with {name} by"))?;
    Ok(ClusterConfig {
        name,
        trust_domain,
        locality,
        mesh_port: MESH_PORT,
        control,
        keys: Vec::new(),
        bundle: ca.bundle(),
        rotate: 0,
    })
}

fn fleet(folder: &Path) -> anyhow::Result<Vec<Read>> {
    let fleet = read_fleet(folder)?;
    // No state folder is made: the plan only says where things would be.
    let plan = plan_fleet(folder, &FleetPlan::default_state(folder), &fleet);
    let mut configs = Vec::new();
    for cluster in &plan.clusters {
        let locality = Locality { region: cluster.region.as_str().into(), zone: cluster.zone.as_str().into() };
        configs.push(config(cluster.name.clone(), cluster.trust_domain.clone(), locality, vec![cluster.xds()])?);
    }
    let roots: BTreeMap<_, _> =
        configs.iter().map(|config| (config.name.clone(), config.bundle.roots_pem.clone())).collect();
    let mut clusters = Vec::new();
    for (cluster, config) in plan.clusters.iter().zip(configs) {
        let own: Vec<PathBuf> = cluster.manifests.iter().filter(|path| **path != cluster.links()).cloned().collect();
        let (mut objects, mut faults) = read_manifests(&own);
        for text in links_of(&fleet, &plan, cluster, &roots)?.values() {
            let (links, wrong) = veer_resources::parse(&folder.join("fleet.yaml").display().to_string(), text);
            objects.extend(links);
            faults.extend(wrong);
        }
        faults.extend(veer_resources::remove_duplicates(&mut objects));
        clusters.push((config, objects, faults));
    }
    Ok(clusters)
}

/// What each cluster's manifests mean once it knows what the others offer. Offers come of a cluster's own objects alone, so that
/// two rounds are all.
fn meanings(clusters: &[Read]) -> Vec<Meaning> {
    let round = |offers: &[Meaning]| -> Vec<Meaning> {
        let of = |(config, objects, _): &Read| {
            let name = &config.name;
            let offering = clusters.iter().zip(offers).filter(|((peer, ..), _)| peer.name != *name);
            let peers: Vec<PeerView> = offering
                .map(|((peer, ..), meaning)| PeerView {
                    cluster: peer.name.clone(),
                    lease: Lease::Fresh,
                    gateways: None,
                    offers: meaning.offers.get(name).cloned().unwrap_or_default(),
                })
                .collect();
            compile(&World { cluster: config, objects, peers: &peers, sealer: &AnyToken })
        };
        clusters.iter().map(of).collect()
    };
    round(&round(&[]))
}

/// Tokens of the right form: nobody is going to open them.
struct AnyToken;

impl TokenSealer for AnyToken {
    fn epoch(&self, _: &ClusterName) -> u64 {
        0
    }

    fn endpoint(&self, _: &ClusterName, _: IpAddr, _: u16) -> Option<Arc<str>> {
        Some("lint".into())
    }

    fn service(&self, _: &ClusterName, _: u32, _: u16) -> Option<Arc<str>> {
        Some("lint".into())
    }
}
