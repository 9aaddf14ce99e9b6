//! A fleet folder becomes a running fleet: one process per cluster, and Links where the fleet file asks for peering.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use veer_core::ClusterName;
use veer_core::policy::DEFAULT_LEASE;
use veer_identity::Ca;
use veer_resources::types::{Fleet, FleetCluster, FleetPeering};

use super::child::{Command, Places, Restart};
use super::plan::{ClusterPlan, FleetPlan, GATEWAY_PORT, GatewayPlan};
use super::units::{Running, Unit, Units};
use super::{own_program, write_atomically};

/// Life of a workload certificate when the fleet file says nothing.
const CERTIFICATE_TTL: Duration = Duration::from_secs(24 * 3600);

/// A fleet under supervision.
pub struct RunningFleet {
    /// Where everything is.
    pub plan: FleetPlan,
    state: PathBuf,
    units: Units,
}

impl RunningFleet {
    /// Reads `fleet.yaml`, prepares identities and Links, and starts a process per cluster. Must be called within a
    /// `LocalSet`.
    ///
    /// # Errors
    /// When the fleet file has faults (all are told, with their places), or the state folder cannot be written to.
    pub fn start(folder: &Path, state: &Path) -> anyhow::Result<Self> {
        let fleet = read_fleet(folder)?;
        std::fs::create_dir_all(state.join("held")).with_context(|| format!("making {}", state.display()))?;
        let state = std::fs::canonicalize(state)?;
        let folder = std::fs::canonicalize(folder)?;
        let plan = plan_fleet(&folder, &state, &fleet);
        prepare(&fleet, &plan)?;
        write_atomically(&state.join("fleet.json"), &serde_json::to_vec_pretty(&plan)?)?;
        let places = Places { logs: state.clone(), held: state.join("held") };
        let mut units = Units::new(places, state.join("run.json"));
        let program = own_program()?.display().to_string();
        units.reconcile(plan.clusters.iter().map(|c| (c.name.to_string(), cluster_unit(&program, c))).collect());
        Ok(Self { plan, state, units })
    }

    /// Stops every cluster gently.
    pub async fn stop(self) {
        self.units.stop().await;
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }
}

fn cluster_unit(program: &str, cluster: &ClusterPlan) -> Unit {
    let file = cluster.file().display().to_string();
    let mut argv = Vec::new();
    if let Some(namespace) = &cluster.network_namespace {
        argv.extend(["ip", "netns", "exec", namespace].map(str::to_owned));
    }
    argv.extend([program, "cluster", "--file", &file].map(str::to_owned));
    Unit {
        commands: vec![Command {
            name: cluster.name.to_string(),
            argv,
            env: Vec::new(),
            dir: None,
            restart: Restart::Always,
            ready: None,
        }],
    }
}

/// Reads and checks the fleet file of a folder.
///
/// # Errors
/// When it cannot be read or has faults; the text names them all.
pub fn read_fleet(folder: &Path) -> anyhow::Result<Fleet> {
    let path = folder.join("fleet.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("reading {}: a fleet folder holds fleet.yaml and a folder of manifests per cluster", path.display())
    })?;
    let (fleet, diagnostics) = veer_resources::parse_fleet(&path.display().to_string(), &text);
    for diagnostic in &diagnostics {
        anstream::eprintln!("{diagnostic}");
    }
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    match fleet {
        Some(fleet) if errors == 0 => Ok(fleet),
        _ => anyhow::bail!("{}: {errors} fault(s), see above", path.display()),
    }
}

/// Where everything of a fleet is, or would be: makes nothing.
pub fn plan_fleet(folder: &Path, state: &Path, fleet: &Fleet) -> FleetPlan {
    FleetPlan { clusters: fleet.clusters.iter().map(|c| plan_cluster(folder, state, fleet, c)).collect() }
}

fn plan_cluster(folder: &Path, state: &Path, fleet: &Fleet, cluster: &FleetCluster) -> ClusterPlan {
    let state = state.join("clusters").join(cluster.name.as_str());
    let mut manifests = vec![folder.join(&*cluster.manifests)];
    // A folder without manifests says nothing: a cluster without peers would wait for it for ever.
    if fleet.peering.iter().any(|peering| peering.between.contains(&cluster.name)) {
        manifests.push(state.join("links"));
    }
    ClusterPlan {
        name: cluster.name.clone(),
        trust_domain: cluster.trust_domain.clone(),
        region: cluster.region.to_string(),
        zone: cluster.zone.to_string(),
        manifests,
        control: cluster.control.address,
        gateways: cluster
            .gateways
            .iter()
            .map(|gateway| GatewayPlan { name: gateway.name.to_string(), address: gateway.address })
            .collect(),
        lease: cluster.lease.unwrap_or(DEFAULT_LEASE),
        certificate_ttl: cluster.certificate_ttl.unwrap_or(CERTIFICATE_TTL),
        network_namespace: cluster.network_namespace.as_ref().map(ToString::to_string),
        state,
    }
}

/// Makes every cluster's folders and CA, and writes the Links that tie them. What a control plane would do at its first
/// start is done here, because a Link needs the other side's roots before either side runs.
fn prepare(fleet: &Fleet, plan: &FleetPlan) -> anyhow::Result<()> {
    let mut bundles = BTreeMap::new();
    for cluster in &plan.clusters {
        cluster.make_folders().with_context(|| format!("making folders in {}", cluster.state.display()))?;
        let ca = Ca::load_or_create(
            &veer_control::state::ca_path(&cluster.control_state()),
            &cluster.trust_domain,
            veer_identity::clock::now(),
        )
        .with_context(|| format!("certificate authority of {}", cluster.name))?;
        bundles.insert(cluster.name.clone(), ca.bundle().roots_pem);
        write_atomically(&cluster.file(), &serde_json::to_vec_pretty(cluster)?)?;
    }
    for cluster in &plan.clusters {
        let wanted = links_of(fleet, plan, cluster, &bundles)?;
        for (file, text) in &wanted {
            write_atomically(&cluster.links().join(file), text.as_bytes())?;
        }
        for entry in std::fs::read_dir(cluster.links())? {
            let entry = entry?;
            if !wanted.contains_key(&*entry.file_name().to_string_lossy()) {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// The Links of a cluster that the fleet file asks for, by file name; `bundles` holds every cluster's roots as PEM.
///
/// # Errors
/// When a peering names a cluster that is not there.
pub fn links_of(
    fleet: &Fleet,
    plan: &FleetPlan,
    cluster: &ClusterPlan,
    bundles: &BTreeMap<ClusterName, String>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut links = BTreeMap::new();
    for peering in fleet.peering.iter().filter(|peering| peering.between.contains(&cluster.name)) {
        for peer in peering.between.iter().filter(|peer| **peer != cluster.name) {
            let peer = plan.cluster(peer.as_str()).with_context(|| format!("peering names unknown cluster {peer}"))?;
            let flat = shares_network(fleet, cluster, peer);
            links.insert(format!("{}.yaml", peer.name), link(peer, &bundles[&peer.name], peering, flat));
        }
    }
    Ok(links)
}

/// Clusters that name the same network reach each other's workloads directly.
fn shares_network(fleet: &Fleet, a: &ClusterPlan, b: &ClusterPlan) -> bool {
    let network = |plan: &ClusterPlan| fleet.cluster(plan.name.as_str()).and_then(|cluster| cluster.network.clone());
    network(a).is_some() && network(a) == network(b)
}

fn link(peer: &ClusterPlan, bundle: &str, peering: &FleetPeering, flat: bool) -> String {
    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let gateways: String = peer
        .gateways
        .iter()
        .map(|gateway| format!("    - {{ name: {}, address: \"{}:{GATEWAY_PORT}\" }}\n", gateway.name, gateway.address))
        .collect();
    let provides: String = peering.provides.iter().map(|pattern| format!("    - \"{pattern}\"\n")).collect();
    let network = if flat { "  network: flat\n  addresses: [\"0.0.0.0/0\", \"::/0\"]\n" } else { "" };
    format!(
        "# Written from fleet.yaml at every start.
apiVersion: veer.dev/v1alpha1
kind: Link
metadata:
  name: {name}
spec:
  trustDomain: {trust_domain}
  lease: {lease}ms
{network}  gateways:
{gateways}  provides:
{provides}  bundle: |
{bundle}",
        name = peer.name,
        trust_domain = peer.trust_domain,
        lease = peer.lease.as_millis(),
        bundle = indented(bundle),
    )
}

/// What a supervisor of this state folder runs now.
pub fn running(run_file: &Path) -> Running {
    std::fs::read(run_file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Kills a process at once and keeps it from being started again until [`release`].
///
/// # Errors
/// When it does not run.
pub fn kill_and_hold(held: &Path, run_file: &Path, name: &str) -> anyhow::Result<()> {
    std::fs::write(held.join(name), b"")?;
    let running = running(run_file);
    let pid = running.processes.get(name).with_context(|| {
        format!("{name} does not run; running: {}", running.processes.keys().cloned().collect::<Vec<_>>().join(", "))
    })?;
    let pid = Pid::from_raw(pid.cast_signed()).context("process id 0")?;
    kill_process(pid, Signal::KILL).with_context(|| format!("killing {name}"))
}

/// Lets a held process start again.
///
/// # Errors
/// When the state folder cannot be written to.
pub fn release(held: &Path, name: &str) -> std::io::Result<()> {
    match std::fs::remove_file(held.join(name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
