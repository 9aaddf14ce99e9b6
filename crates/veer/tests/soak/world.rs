//! What is soaked: three clusters on a network in user space, on one small disk, each with a clock of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, ensure};
use tokio::sync::watch;
use veer_testkit::{Fleet, FleetSpec, Wire};

use crate::callers::{Caller, Outcome};
use crate::ledger::{Book, Copy, Mood};

/// Where each cluster's clock stands, in its own view of the file system (`/etc/netns/NAME/…` is laid over `/etc/…` there).
const CLOCK: &str = "veer-soak-clock";
/// Debian's libfaketime, for this processor.
fn faketime() -> PathBuf {
    PathBuf::from(format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH))
}

/// Clusters with copies, and one without.
pub const REGIONS: [&str; 2] = ["west", "east"];
/// All of them.
pub const CLUSTERS: [&str; 3] = ["west", "east", "edge"];

/// Who calls from outside of the mesh, by the edge's Gateway.
pub const OUTSIDE: &str = "outside";
/// Address of the edge's Gateway within its cluster, and its port.
const FRONT: u8 = 60;
const FRONT_PORT: u16 = 10080;

/// Everything that runs.
pub struct World {
    pub fleet: Fleet,
    pub wire: Wire,
    pub copies: Vec<Arc<Copy>>,
    pub outcome: Arc<Outcome>,
    pub book: Arc<Book>,
    pub disk: Disk,
    clocks: Vec<(&'static str, Clock)>,
    stop: watch::Sender<bool>,
    callers: Vec<JoinHandle<()>>,
}

impl World {
    /// Starts it, callers included.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        let faketime = faketime();
        ensure!(faketime.exists(), "{} is missing: `scripts/test tools` installs faketime", faketime.display());
        let disk = Disk::new()?;
        let wire = Wire::new()?;
        let mut spec = FleetSpec::new_in(env!("CARGO_BIN_EXE_veer"), &disk.folder)?
            .environment("LD_PRELOAD", faketime.display().to_string())
            .environment("FAKETIME_TIMESTAMP_FILE", format!("/etc/{CLOCK}"))
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .environment("FAKETIME_CACHE_DURATION", "1");
        let mut clocks = Vec::new();
        for (n, cluster) in (1..).zip(CLUSTERS) {
            let (first, second) = (format!("192.0.2.{}", 10 * n), format!("192.0.2.{}", 10 * n + 1));
            let namespace = wire.attach(cluster, &first)?;
            namespace.add_public(&second)?;
            clocks.push((cluster, Clock::new(namespace.name())?));
            spec = spec.cluster_in(cluster, namespace, &[&first, &second])?;
            spec = manifests(spec, cluster);
        }
        spec = spec.peer("west", "east").peer("west", "edge").peer("east", "edge").visitor("west").visitor("edge");
        let fleet = spec.start().await?;

        let book = Arc::<Book>::default();
        let outcome = Arc::<Outcome>::default();
        let mut copies = Vec::new();
        for cluster in REGIONS {
            let mine: Vec<_> = COPIES.iter().map(|copy| Arc::new(copy.start(&fleet, cluster, &book))).collect();
            copies.extend(mine.iter().cloned());
            let namespace = fleet.cluster(cluster).namespace.as_ref().context("a cluster in a namespace")?;
            // They end with the test.
            namespace.spawn(move || async move {
                let all: tokio::task::JoinSet<()> = mine.into_iter().map(Copy::run).collect();
                all.join_all().await;
            })?;
        }
        let stop = watch::Sender::new(false);
        let mut callers = Vec::new();
        let beside = |cluster: &str| format!("{}:15001", fleet.address(cluster, 10));
        let before = format!("{}:{FRONT_PORT}", fleet.address("edge", FRONT));
        for (from, cluster, proxy) in
            [("west", "west", beside("west")), ("edge", "edge", beside("edge")), (OUTSIDE, "edge", before)]
        {
            let proxy: SocketAddr = proxy.parse()?;
            let caller = Caller { from, proxy, outcome: Arc::clone(&outcome), book: Arc::clone(&book) };
            let namespace = fleet.cluster(cluster).namespace.as_ref().context("a cluster in a namespace")?;
            let told = stop.subscribe();
            callers.push(namespace.spawn(move || caller.run(told))?);
        }
        Ok(Self { fleet, wire, copies, outcome, book, disk, clocks, stop, callers })
    }

    /// Sets a cluster's clock so many seconds off.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn clock(&self, cluster: &str, off: i64) -> anyhow::Result<()> {
        let clock = self.clocks.iter().find(|(name, _)| *name == cluster).context("no such cluster")?;
        clock.1.set(off)
    }

    /// Lets the callers end, and waits for the answers that are still out.
    pub fn hush(&mut self) {
        self.stop.send_replace(true);
        for caller in self.callers.drain(..) {
            caller.join().expect("callers do not panic");
        }
    }
}

struct CopySpec {
    service: &'static str,
    workload: &'static str,
    last: u8,
}

const COPIES: [CopySpec; 3] = [
    CopySpec { service: "ledger", workload: "ledger-1", last: 21 },
    CopySpec { service: "ledger", workload: "ledger-2", last: 22 },
    CopySpec { service: "canary", workload: "canary-1", last: 31 },
];

impl CopySpec {
    fn start(&self, fleet: &Fleet, cluster: &str, book: &Arc<Book>) -> Copy {
        Copy {
            service: self.service,
            name: format!("{cluster}/{}", self.workload),
            address: format!("{}:9080", fleet.address(cluster, self.last)).parse().expect("an address"),
            mood: watch::Sender::new(Mood::Fine),
            book: Arc::clone(book),
        }
    }
}

/// What routes of services and of the Gateway say alike.
const RULES: &str = "  rules:
  - matches: [{ headers: [{ name: canary, value: \"yes\" }] }]
    timeouts: { request: 6s }
    backendRefs: [{ name: canary, port: 80 }]
  - timeouts: { request: 6s }
    backendRefs: [{ name: ledger, port: 80 }]
";

fn manifests(mut spec: FleetSpec, cluster: &str) -> FleetSpec {
    for service in ["ledger", "canary"] {
        spec = spec.manifest(&format!("{cluster}/{service}.yaml"), &veer_testkit::fleet::service_yaml(service));
    }
    let route = |name: &str, parent: &str| {
        format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {name}, namespace: shop }}
spec:
  parentRefs: [{{ {parent} }}]
{RULES}"
        )
    };
    let rules_of_service = route("ledger", "group: \"\", kind: Service, name: ledger");
    spec = spec.manifest(&format!("{cluster}/route.yaml"), &rules_of_service);
    if cluster == "edge" {
        let gateway = format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: front, namespace: shop }}
spec:
  gatewayClassName: veer
  addresses: [{{ value: 10.0.0.{FRONT} }}]
  listeners: [{{ name: http, port: {FRONT_PORT}, protocol: HTTP }}]
---
{}",
            route("front", "name: front")
        );
        spec = spec.manifest("edge/front.yaml", &gateway);
    }
    if !REGIONS.contains(&cluster) {
        return spec;
    }
    for CopySpec { service, workload, last } in COPIES {
        let text = format!(
            "apiVersion: veer.dev/v1alpha1
kind: Workload
metadata: {{ name: {workload}, namespace: shop, labels: {{ app: {service} }} }}
spec:
  address: 10.0.0.{last}
  serviceAccount: {service}
  ports: [{{ name: http, port: 8080, appPort: 9080, appProtocol: http }}]
"
        );
        spec = spec.manifest(&format!("{cluster}/{workload}.yaml"), &text);
    }
    spec
}

/// A disk of 64 MiB that holds the fleet's folder: manifests, state, logs.
pub struct Disk {
    pub folder: PathBuf,
}

impl Disk {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("veer-soak-").tempdir()?.keep();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "veer-soak"]).arg(&folder).status()?;
        ensure!(mounted.success(), "mounting a small disk on {}", folder.display());
        Ok(Self { folder })
    }

    /// Leaves no byte free.
    ///
    /// # Errors
    /// When not even that can be written.
    pub fn fill(&self) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.folder.join("filler"))?;
        let piece = [0; 4096];
        while file.write_all(&piece).is_ok() {}
        Ok(())
    }

    /// Gives the room back, if it was taken.
    ///
    /// # Errors
    /// When it cannot be had back.
    pub fn clear(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.folder.join("filler")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The logs of a test that failed stay, on the disk in memory.
        if !std::thread::panicking() {
            let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

/// The clock of one namespace.
struct Clock {
    folder: PathBuf,
}

impl Clock {
    fn new(namespace: &str) -> anyhow::Result<Self> {
        // What is laid over must exist; where nobody asks for it, it says that the time is right.
        std::fs::write(Path::new("/etc").join(CLOCK), "+0\n")?;
        let clock = Self { folder: Path::new("/etc/netns").join(namespace) };
        std::fs::create_dir_all(&clock.folder)?;
        clock.set(0)?;
        Ok(clock)
    }

    fn set(&self, off: i64) -> anyhow::Result<()> {
        // Written in place: the file itself is what is laid over.
        Ok(std::fs::write(self.folder.join(CLOCK), format!("{off:+}\n"))?)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_file(Path::new("/etc").join(CLOCK));
    }
}
