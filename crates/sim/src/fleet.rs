//! A fleet that runs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use veer_control::api::Status;
use veer_control::lease::PeerState;
use veer_control::{ControlConfig, state};
use veer_core::gateway::PathGateway;
use veer_core::{ClusterName, Locality, ObjectName, TrustDomain};
use veer_identity::Ca;
use veer_identity::clock::{self, ClockGuard};
use veer_net::Network;
use veer_proxy::config::{ProxyConfig, Workers};
use veer_proxy::gateway::{GatewayProcessConfig, PUBLIC_PORT};

use crate::hosts::{self, Desk, Switches};
use crate::journal::Journal;
use crate::manifests::{self, NAMESPACE};
use crate::spec::{ClusterSpec, FleetSpec, Role, WorkloadSpec, control_address, gateway_address, workload_address};

/// Wall time at the start of every simulation: certificates and keys follow it.
const EPOCH: Duration = Duration::from_secs(1_790_000_000);
/// Long enough for any test.
const NO_END: Duration = Duration::from_secs(365 * 86_400);
/// Time for a fleet to start.
const START: Duration = Duration::from_secs(60);

/// A fleet on a simulated network. One at a time on a thread: clock and chance are the thread's.
pub struct Fleet {
    // First, so that what runs ends before its files and its clock go.
    sim: turmoil::Sim<'static>,
    spec: FleetSpec,
    hosts: BTreeMap<String, Host>,
    desks: Vec<Rc<Desk>>,
    journal: Journal,
    dir: TempDir,
    /// For what reads the clock outside of any host.
    elapsed: Rc<Cell<Duration>>,
    _clock: ClockGuard,
}

struct Host {
    address: IpAddr,
    cluster: usize,
    is_gateway: bool,
    switches: Rc<Switches>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        veer_net::clear_seed();
    }
}

impl Fleet {
    /// Writes the manifests, starts everything, and waits until all proxies and peers have found each other.
    pub fn start(spec: FleetSpec) -> Self {
        let mut fleet = Self::build(spec);
        fleet.until("all have found each other", START, Self::is_settled);
        fleet
    }

    fn build(spec: FleetSpec) -> Self {
        if let Ok(filter) = std::env::var(veer_telemetry::logging::FILTER_VARIABLE) {
            // Fails only when it was done before.
            let _ = veer_telemetry::logging::init(Some(&filter), "off", veer_telemetry::logging::LogFormat::Text);
        }
        veer_net::set_seed(spec.seed);
        let elapsed = Rc::new(Cell::new(Duration::ZERO));
        let outside = Rc::clone(&elapsed);
        let clock = clock::set(move || {
            let elapsed = turmoil::sim_elapsed().unwrap_or_else(|| outside.get());
            SystemTime::UNIX_EPOCH + EPOCH + elapsed
        });
        let sim = turmoil::Builder::new()
            .rng_seed(spec.seed)
            .epoch(SystemTime::UNIX_EPOCH + EPOCH)
            .simulation_duration(NO_END)
            .tick_duration(spec.tick)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(12))
            .tcp_capacity(4096)
            .build();
        let desks = spec.clusters.iter().map(|_| Rc::default()).collect();
        let dir = TempDir::new().expect("a temporary folder");
        let journal = Journal::default();
        let mut fleet =
            Self { sim, spec: spec.clone(), hosts: BTreeMap::new(), desks, journal, dir, elapsed, _clock: clock };
        for (index, cluster) in spec.clusters.iter().enumerate() {
            fleet.write_manifests(index, cluster);
        }
        for (index, cluster) in spec.clusters.iter().enumerate() {
            fleet.add_cluster(index, cluster);
        }
        fleet.apart();
        fleet
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.now() < end {
            self.step();
        }
    }

    /// Lets time pass until the condition holds, and says how much it was.
    ///
    /// # Panics
    /// When it does not hold within the limit.
    pub fn until(&mut self, what: &str, limit: Duration, mut holds: impl FnMut(&Self) -> bool) -> Duration {
        let start = self.now();
        while !holds(self) {
            assert!(self.now() < start + limit, "not within {limit:?}: {what}\n{}", self.tail());
            self.step();
        }
        self.now() - start
    }

    /// What happened so far.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What the control plane of a cluster said of itself last.
    ///
    /// # Panics
    /// When it never ran.
    pub fn status(&self, cluster: &str) -> Status {
        self.desks[self.cluster(cluster)].status.borrow().clone().expect("it has run")
    }

    /// What a control plane believes of a peer.
    pub fn believes(&self, cluster: &str, peer: &str) -> Option<PeerState> {
        let status = self.desks[self.cluster(cluster)].status.borrow();
        status.as_ref()?.peers.iter().find(|known| known.cluster.as_str() == peer).map(|known| known.state)
    }

    /// Sum over all series of a metric of a caller's proxy, as it was seen last.
    pub fn metric(&self, host: &str, name: &str) -> f64 {
        let metrics = self.host(host).switches.metrics.borrow();
        metrics.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    /// From now on this caller sends a request every so often; `None`: no more.
    pub fn call(&self, host: &str, every: Option<Duration>) {
        self.host(host).switches.every.set(every);
    }

    /// The application of this copy answers with errors, or no longer.
    pub fn fail(&self, host: &str, failing: bool) {
        self.host(host).switches.failing.set(failing);
    }

    /// Cuts a whole cluster off: nothing passes between it and any other, without a word to anybody.
    pub fn cut_off(&self, cluster: &str) {
        let cluster = self.cluster(cluster);
        self.pairs(|a, b| a.cluster == cluster || b.cluster == cluster, |sim, a, b| sim.partition(a, b));
    }

    /// Mends what [`Self::cut_off`] and [`Self::cut_control`] cut.
    pub fn mend(&self) {
        self.pairs(|_, _| true, |sim, a, b| sim.repair(a, b));
    }

    /// Cuts control planes off from all other clusters; what gateways relay for proxies passes.
    pub fn cut_control(&self) {
        let controls: Vec<_> = (0..self.spec.clusters.len()).map(control_address).collect();
        let is_control = |host: &Host| controls.contains(&host.address);
        self.pairs(|a, b| is_control(a) || is_control(b), |sim, a, b| sim.partition(a, b));
    }

    /// Ends what runs on a host at once.
    pub fn crash(&mut self, host: &str) {
        let address = self.host(host).address;
        self.sim.crash(address);
    }

    /// Starts what runs on a host anew, with what is on its disk.
    pub fn bounce(&mut self, host: &str) {
        let address = self.host(host).address;
        self.sim.bounce(address);
    }

    /// Writes the manifest of a workload that was not present, and starts it.
    pub fn add(&self, host: &str) {
        let (cluster, index, workload) = self.workload(host);
        let name = &self.spec.clusters[cluster].name;
        manifests::write_workload(&self.manifests(name), workload, workload_address(cluster, index));
        self.host(host).switches.on.set(true);
    }

    /// Removes the manifest of a workload and tells its proxy to end.
    pub fn remove(&self, host: &str) {
        let (cluster, _, workload) = self.workload(host);
        let folder = self.manifests(&self.spec.clusters[cluster].name);
        std::fs::remove_file(folder.join(format!("{}.yaml", workload.name))).expect("the manifest is there");
        self.host(host).switches.draining.set(true);
    }

    /// A cluster's folder of manifests.
    pub fn manifests(&self, cluster: &str) -> PathBuf {
        self.dir.path().join(cluster).join("manifests")
    }

    /// Where a host keeps what survives its restart.
    pub fn state(&self, host: &str) -> PathBuf {
        let (cluster, name) = host.split_once('/').expect("written cluster/host");
        self.dir.path().join(cluster).join("state").join(name)
    }

    /// Whether all hosts run, all proxies are connected and all peers fresh with everything they offer.
    pub fn is_settled(&self) -> bool {
        let peers = self.spec.clusters.len() - 1;
        self.spec.clusters.iter().zip(&self.desks).all(|(cluster, desk)| {
            let present = cluster.workloads.iter().filter(|workload| {
                let switches = &self.host(&format!("{}/{}", cluster.name, workload.name)).switches;
                switches.on.get() && !switches.draining.get()
            });
            let members = present.count() + usize::from(cluster.gateways);
            desk.status.borrow().as_ref().is_some_and(|status| {
                let synced = status.peers.iter().filter(|peer| peer.state == PeerState::Fresh && peer.synced);
                status.proxies.connected >= members && synced.count() == peers
            })
        })
    }

    /// The last events, for messages.
    pub fn tail(&self) -> String {
        let events = self.journal.events();
        let from = events.len().saturating_sub(40);
        let mut text: String = events[from..].iter().map(|event| format!("{event}\n")).collect();
        for desk in &self.desks {
            if let Some(status) = desk.status.borrow().as_ref() {
                text += &format!("{}: proxies {:?}, faults {:?}\n", status.cluster, status.proxies, status.faults);
                status.peers.iter().for_each(|peer| text += &format!("  {peer:?}\n"));
            }
        }
        text
    }

    fn step(&mut self) {
        self.elapsed.set(self.sim.elapsed());
        if let Err(error) = self.sim.step() {
            panic!("a host failed: {error}\n{}", self.tail());
        }
    }

    fn write_manifests(&self, index: usize, cluster: &ClusterSpec) {
        let folder = self.manifests(&cluster.name);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        manifests::write_services(&folder, cluster);
        for (number, workload) in cluster.workloads.iter().enumerate().filter(|(_, workload)| workload.present) {
            manifests::write_workload(&folder, workload, workload_address(index, number));
        }
        for (number, peer) in self.spec.clusters.iter().enumerate().filter(|(number, _)| *number != index) {
            let state = self.state(&format!("{}/control", peer.name));
            let ca = Ca::load_or_create(&state::ca_path(&state), &trust_domain(peer), clock::now());
            let bundle = ca.expect("a certificate authority can be made").bundle().roots_pem;
            let gateways: Vec<_> = (0..peer.gateways).map(|g| (gateway_name(g), gateway_address(number, g))).collect();
            manifests::write_link(&folder, &peer.name, &bundle, &gateways, self.spec.lease);
        }
    }

    fn add_cluster(&mut self, index: usize, cluster: &ClusterSpec) {
        let name = ClusterName::new(&cluster.name).expect("a good name");
        let desk = Rc::clone(&self.desks[index]);
        let xds = SocketAddr::new(control_address(index), veer_control::config::XDS_PORT);
        let gateways = 0..cluster.gateways;
        let path = |g| PathGateway {
            name: gateway_name(g).into(),
            address: SocketAddr::new(gateway_address(index, g), PUBLIC_PORT),
            weight: 1,
            draining: false,
        };
        let config = ControlConfig {
            locality: Locality { region: cluster.name.as_str().into(), zone: "".into() },
            manifests: vec![self.manifests(&cluster.name)],
            gateways: gateways.clone().map(path).collect(),
            lease: self.spec.lease,
            certificate_ttl: self.spec.certificate_ttl,
            network: Network::Sim,
            seed: self.spec.seed.wrapping_add(index as u64),
            ..ControlConfig::new(name.clone(), trust_domain(cluster), self.state(&format!("{name}/control")), xds)
        };
        let (host, journal) = (self.register(&cluster.name, "control", index, xds.ip(), false), self.journal.clone());
        let at_desk = Rc::clone(&desk);
        self.sim.host(xds.ip(), move || {
            hosts::control(config.clone(), Rc::clone(&host), Rc::clone(&at_desk), journal.clone())
        });
        for g in gateways {
            let (gateway, address) = (gateway_name(g), gateway_address(index, g));
            let host = self.register(&cluster.name, &gateway, index, address, true);
            let mut config = GatewayProcessConfig::new(&gateway, name.clone(), address);
            config.control = vec![xds];
            config.state_dir = Some(self.state(&host));
            config.egress = None;
            config.workers = Workers::Local;
            config.network = Network::Sim;
            let at_desk = Rc::clone(&desk);
            self.sim.host(address, move || hosts::gateway(config.clone(), Rc::clone(&at_desk)));
        }
        for (number, workload) in cluster.workloads.iter().enumerate() {
            let address = workload_address(index, number);
            let host = self.register(&cluster.name, &workload.name, index, address, false);
            let mut config = ProxyConfig::new(ObjectName::new(NAMESPACE, &workload.name), address);
            config.control = vec![xds];
            config.state_dir = Some(self.state(&host));
            config.workers = Workers::Local;
            config.network = Network::Sim;
            let switches = Rc::clone(&self.host(&host).switches);
            switches.on.set(workload.present);
            let (role, desk, journal, look) =
                (workload.role.clone(), Rc::clone(&desk), self.journal.clone(), self.spec.look);
            self.sim.host(address, move || {
                let (host, switches, desk) = (Rc::clone(&host), Rc::clone(&switches), Rc::clone(&desk));
                hosts::workload(config.clone(), role.clone(), host, switches, desk, journal.clone(), look)
            });
        }
    }

    fn register(&mut self, cluster: &str, name: &str, index: usize, address: IpAddr, is_gateway: bool) -> Rc<str> {
        let host = format!("{cluster}/{name}");
        let entry = Host { address, cluster: index, is_gateway, switches: Rc::default() };
        self.hosts.insert(host.clone(), entry);
        host.into()
    }

    /// Networks of their own: only gateways are reached from other clusters.
    fn apart(&self) {
        for a in self.hosts.values().filter(|a| !a.is_gateway) {
            for b in self.hosts.values().filter(|b| a.cluster < b.cluster && !b.is_gateway) {
                self.sim.partition(a.address, b.address);
            }
        }
    }

    /// Does something to every pair of hosts of two clusters that reach each other.
    fn pairs(&self, which: impl Fn(&Host, &Host) -> bool, act: impl Fn(&turmoil::Sim<'static>, IpAddr, IpAddr)) {
        for a in self.hosts.values() {
            for b in self.hosts.values().filter(|b| a.cluster < b.cluster && (a.is_gateway || b.is_gateway)) {
                if which(a, b) {
                    act(&self.sim, a.address, b.address);
                }
            }
        }
    }

    fn cluster(&self, name: &str) -> usize {
        self.spec.clusters.iter().position(|cluster| cluster.name == name).expect("there is such a cluster")
    }

    fn host(&self, name: &str) -> &Host {
        self.hosts.get(name).unwrap_or_else(|| panic!("there is no host {name}"))
    }

    fn workload(&self, host: &str) -> (usize, usize, &WorkloadSpec) {
        let (cluster, name) = host.split_once('/').expect("written cluster/host");
        let cluster = self.cluster(cluster);
        let mut workloads = self.spec.clusters[cluster].workloads.iter().enumerate();
        let (index, workload) =
            workloads.find(|(_, workload)| workload.name == name).expect("there is such a workload");
        assert!(matches!(workload.role, Role::Copy(_)), "callers stay");
        (cluster, index, workload)
    }
}

fn trust_domain(cluster: &ClusterSpec) -> TrustDomain {
    TrustDomain::new(&format!("{}.example", cluster.name)).expect("a good name")
}

fn gateway_name(number: u8) -> String {
    format!("gateway-{}", number + 1)
}
