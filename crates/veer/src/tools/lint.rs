//! `veer lint`: faults in manifests before anybody applies them. Nothing runs for it, and nothing is written.
//!
//! A fleet folder is compiled as its control planes would compile it, all clusters together: what one exports is what the
//! others are offered, so that routes to, and imports of, other clusters are judged too. Of a folder that is not a fleet's
//! only the references within it can be judged.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use veer_compile::{ClusterConfig, Meaning, PeerView, TokenSealer, World, compile};
use veer_control::api::Fault;
use veer_core::gateway::Lease;
use veer_core::inbound::MESH_PORT;
use veer_core::{ClusterName, Locality};
use veer_identity::Ca;
use veer_resources::{Diagnostic, Object, check_set};

use super::look::fault_text;
use super::{Format, read_manifests};
use crate::supervise::fleet::{links_of, plan_fleet, read_fleet};
use crate::supervise::plan::FleetPlan;

/// `veer lint`
#[derive(Debug, Args)]
pub struct Lint {
    /// Fleet folder (with fleet.yaml), or a folder of one cluster's manifests
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Warnings count as errors
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: Format,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    /// Objects that were read.
    objects: usize,
    /// By cluster of the fleet, then by place.
    faults: Vec<Fault>,
    errors: usize,
    warnings: usize,
}

impl Lint {
    /// Looks; `Ok(true)` when there is nothing to mend.
    ///
    /// # Errors
    /// When there is no such folder, or `fleet.yaml` cannot be used (its faults are told).
    pub fn run(&self) -> anyhow::Result<bool> {
        let folder = &self.folder;
        anyhow::ensure!(
            folder.is_dir(),
            "{} is not a folder: name the one that the manifests are in",
            folder.display()
        );
        let fleet = folder.join("fleet.yaml").is_file();
        let (objects, faults) = if fleet { lint_fleet(folder)? } else { lint_alone(folder) };
        let errors = faults.iter().filter(|fault| fault.is_error()).count();
        let warnings = faults.len() - errors;
        let report = Report { objects, faults: faults.iter().map(Fault::from).collect(), errors, warnings };
        self.format.print(&report, text)?;
        Ok(errors == 0 && (warnings == 0 || !self.strict))
    }
}

fn lint_alone(folder: &Path) -> (usize, Vec<Diagnostic>) {
    let (objects, mut faults) = read_manifests(&[folder.to_owned()]);
    faults.extend(check_set(&objects));
    faults.sort_by_key(Diagnostic::location);
    (objects.len(), faults)
}

/// A cluster of the fleet: what it would be told at its start, and what it would read.
struct Cluster {
    config: ClusterConfig,
    objects: Vec<Object>,
    faults: Vec<Diagnostic>,
}

fn lint_fleet(folder: &Path) -> anyhow::Result<(usize, Vec<Diagnostic>)> {
    let fleet = read_fleet(folder)?;
    // No state folder is made: the plan only says where things would be.
    let plan = plan_fleet(folder, &FleetPlan::default_state(folder), &fleet);
    let mut bundles = BTreeMap::new();
    for cluster in &plan.clusters {
        // A Link holds its peer's roots; any do, as nobody is going to show a certificate.
        let ca = Ca::create(&cluster.trust_domain, veer_identity::clock::now())
            .with_context(|| format!("roots to judge links with {} by", cluster.name))?;
        bundles.insert(cluster.name.clone(), ca.bundle());
    }
    let roots = bundles.iter().map(|(name, bundle)| (name.clone(), bundle.roots_pem.clone())).collect();
    let mut clusters = Vec::new();
    for cluster in &plan.clusters {
        let own: Vec<PathBuf> = cluster.manifests.iter().filter(|path| **path != cluster.links()).cloned().collect();
        let (mut objects, mut faults) = read_manifests(&own);
        for text in links_of(&fleet, &plan, cluster, &roots)?.values() {
            let (links, wrong) = veer_resources::parse(&folder.join("fleet.yaml").display().to_string(), text);
            objects.extend(links);
            faults.extend(wrong);
        }
        faults.extend(veer_resources::remove_duplicates(&mut objects));
        let config = ClusterConfig {
            name: cluster.name.clone(),
            trust_domain: cluster.trust_domain.clone(),
            locality: Locality { region: cluster.region.as_str().into(), zone: cluster.zone.as_str().into() },
            mesh_port: MESH_PORT,
            control: vec![cluster.xds()],
            keys: Vec::new(),
            bundle: bundles[&cluster.name].clone(),
            rotate: 0,
        };
        clusters.push(Cluster { config, objects, faults });
    }
    let meanings = meanings(&clusters);
    let objects = clusters.iter().map(|cluster| cluster.objects.len()).sum();
    let mut all = Vec::new();
    for (mut cluster, meaning) in clusters.into_iter().zip(meanings) {
        cluster.faults.extend(meaning.faults);
        cluster.faults.sort_by_key(Diagnostic::location);
        all.extend(cluster.faults);
    }
    Ok((objects, all))
}

/// What each cluster's manifests mean once it knows what the others offer. Offers come of a cluster's own objects alone, so that
/// two rounds are all.
fn meanings(clusters: &[Cluster]) -> Vec<Meaning> {
    let round = |offers: &[Meaning]| -> Vec<Meaning> {
        let of = |cluster: &Cluster| {
            let name = &cluster.config.name;
            let offering = clusters.iter().zip(offers).filter(|(peer, _)| peer.config.name != *name);
            let peers: Vec<PeerView> = offering
                .map(|(peer, meaning)| PeerView {
                    cluster: peer.config.name.clone(),
                    lease: Lease::Fresh,
                    gateways: None,
                    offers: meaning.offers.get(name).cloned().unwrap_or_default(),
                })
                .collect();
            compile(&World { cluster: &cluster.config, objects: &cluster.objects, peers: &peers, sealer: &AnyToken })
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

fn text(report: &Report) -> String {
    let Report { objects, faults, errors, warnings } = report;
    let faults: String = faults.iter().map(fault_text).collect();
    faults + &format!("{objects} objects, {errors} errors, {warnings} warnings\n")
}
