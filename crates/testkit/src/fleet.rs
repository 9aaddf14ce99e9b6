//! A fleet folder, the process that runs it, and questions to it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::netns::Namespace;
use crate::wait::eventually;

/// How long a fleet may take to come up, also where several run on two cores.
const START: Duration = Duration::from_secs(60);

/// A fleet to be.
pub struct FleetSpec {
    binary: PathBuf,
    folder: TempDir,
    clusters: Vec<Cluster>,
    peering: String,
    extra: String,
    environment: Vec<(String, String)>,
}

/// A cluster and its network.
#[derive(Debug)]
pub struct Cluster {
    /// Name.
    pub name: String,
    /// First three parts of its addresses: `127.11.0`, or `10.0.0` in a namespace.
    pub network: String,
    /// Addresses of its gateways.
    pub gateways: Vec<String>,
    /// Where it runs, when not in the namespace of the test.
    pub namespace: Option<Namespace>,
}

impl FleetSpec {
    /// An empty fleet for this `veer`.
    ///
    /// # Errors
    /// When there is no temporary folder.
    pub fn new(binary: impl Into<PathBuf>) -> anyhow::Result<Self> {
        Self::new_in(binary, std::env::temp_dir())
    }

    /// The same with its folder, state and logs within another folder, which may be a small disk of its own.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new_in(binary: impl Into<PathBuf>, parent: impl AsRef<Path>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("veer-fleet-").tempdir_in(parent)?;
        let binary = binary.into();
        Ok(Self { binary, folder, clusters: vec![], peering: String::new(), extra: String::new(), environment: vec![] })
    }

    /// Gives every process of the fleet an environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Fields that every cluster of the fleet file gets, such as `lease: 2s`, one a line.
    #[must_use]
    pub fn with(mut self, fields: &str) -> Self {
        for line in fields.lines() {
            let _ = writeln!(self.extra, "      {line}");
        }
        self
    }

    /// Adds a cluster on loopback; `number` keeps the fleets of different tests apart.
    #[must_use]
    pub fn cluster(self, name: &str, number: u8, gateways: u8) -> Self {
        let network = format!("127.{number}.0");
        let gateways = (2..2 + gateways).map(|n| format!("{network}.{n}")).collect();
        self.add(Cluster { name: name.to_owned(), network, gateways, namespace: None })
    }

    /// Adds a cluster in a namespace; all of them use the same private addresses, 10.0.0.0/24.
    ///
    /// # Errors
    /// When addresses cannot be added.
    pub fn cluster_in(self, name: &str, namespace: Namespace, gateways: &[&str]) -> anyhow::Result<Self> {
        for last in 1..100 {
            namespace.add_private(&format!("10.0.0.{last}"))?;
        }
        let gateways = gateways.iter().map(|gateway| (*gateway).to_owned()).collect();
        let network = "10.0.0".to_owned();
        Ok(self.add(Cluster { name: name.to_owned(), network, gateways, namespace: Some(namespace) }))
    }

    /// Adds a cluster in a namespace that has addresses of its own, all within `network` (`192.0.2`): others, such as a machine
    /// that joins, reach its control plane at 1.
    #[must_use]
    pub fn cluster_on(self, name: &str, namespace: Namespace, network: &str, gateways: &[&str]) -> Self {
        let gateways = gateways.iter().map(|gateway| (*gateway).to_owned()).collect();
        self.add(Cluster { name: name.to_owned(), network: network.to_owned(), gateways, namespace: Some(namespace) })
    }

    fn add(mut self, cluster: Cluster) -> Self {
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: { name: shop }\n";
        self.clusters.push(cluster);
        let name = self.clusters[self.clusters.len() - 1].name.clone();
        self.manifest(&format!("{name}/namespace.yaml"), namespace)
    }

    /// Peers two clusters, each providing everything.
    #[must_use]
    pub fn peer(mut self, a: &str, b: &str) -> Self {
        let _ = writeln!(self.peering, "    - {{ between: [{a}, {b}] }}");
        self
    }

    /// Peers two clusters, each of which takes only this from the other (`shop/cart`, `shop/*`).
    #[must_use]
    pub fn peer_providing(mut self, a: &str, b: &str, provides: &[&str]) -> Self {
        let _ = writeln!(self.peering, "    - {{ between: [{a}, {b}], provides: {provides:?} }}");
        self
    }

    /// Adds a manifest.
    ///
    /// # Panics
    /// When the temporary folder cannot be written to.
    #[must_use]
    pub fn manifest(self, file: &str, text: &str) -> Self {
        let path = self.folder.path().join(file);
        path.parent().map(std::fs::create_dir_all).transpose().expect("folder");
        std::fs::write(path, text).expect("manifest");
        self
    }

    /// Adds a service of the example shop with `copies` workloads (`name-1`…) from address `first` on, exported to all.
    #[must_use]
    pub fn service(mut self, cluster: &str, service: &str, copies: u8, first: u8) -> Self {
        let network = self.clusters.iter().find(|c| c.name == cluster).expect("a cluster of the fleet").network.clone();
        self = self.manifest(&format!("{cluster}/{service}.yaml"), &service_yaml(service));
        for n in 1..=copies {
            let file = format!("{cluster}/{service}-{n}.yaml");
            self = self.manifest(&file, &workload_yaml(service, n, &format!("{network}.{}", first + n - 1)));
        }
        self
    }

    /// Adds a proxy without an application, `visitor`, at address 10 of the cluster's network.
    #[must_use]
    pub fn visitor(self, cluster: &str) -> Self {
        self.caller(cluster, "visitor", 10)
    }

    /// Adds a proxy without an application; its service account has its name.
    #[must_use]
    pub fn caller(self, cluster: &str, name: &str, last: u8) -> Self {
        let network = self.clusters.iter().find(|c| c.name == cluster).expect("a cluster of the fleet").network.clone();
        let text = format!(
            "apiVersion: veer.dev/v1alpha1\nkind: Workload\nmetadata: {{ name: {name}, namespace: shop }}\n\
             spec: {{ address: {network}.{last}, serviceAccount: {name} }}\n"
        );
        self.manifest(&format!("{cluster}/{name}.yaml"), &text)
    }

    /// Writes `fleet.yaml`, starts `veer run`, and waits until every proxy and gateway is ready.
    ///
    /// # Errors
    /// When the fleet does not come up.
    pub async fn start(self) -> anyhow::Result<Fleet> {
        let mut text =
            "apiVersion: veer.dev/v1alpha1\nkind: Fleet\nmetadata: { name: test }\nspec:\n  clusters:\n".to_owned();
        for cluster in &self.clusters {
            let Cluster { name, network, gateways, namespace } = cluster;
            let gateways: Vec<String> = gateways
                .iter()
                .enumerate()
                .map(|(n, a)| format!("{{ name: gateway-{}, address: {a} }}", n + 1))
                .collect();
            let namespace =
                namespace.as_ref().map_or_else(String::new, |n| format!("      networkNamespace: {}\n", n.name()));
            write!(
                text,
                "    - name: {name}\n      trustDomain: {name}.test\n      region: {name}\n      manifests: {name}\n{namespace}\
                 \x20     control: {{ address: {network}.1 }}\n      gateways: [{}]\n{}",
                gateways.join(", "),
                self.extra
            )?;
        }
        if !self.peering.is_empty() {
            write!(text, "  peering:\n{}", self.peering)?;
        }
        std::fs::write(self.folder.path().join("fleet.yaml"), text)?;
        let log = std::fs::File::create(self.folder.path().join("run.log"))?;
        let process = Command::new(&self.binary)
            .arg("run")
            .arg(self.folder.path())
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        let fleet = Fleet { binary: self.binary, folder: Some(self.folder), clusters: self.clusters, process };
        fleet.until_ready().await;
        Ok(fleet)
    }
}

/// The Service and its export.
pub fn service_yaml(service: &str) -> String {
    let protocol = if service == "price" { "grpc" } else { "http" };
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: {service}
  namespace: shop
  annotations: {{ veer.dev/scope: clusterset }}
spec:
  selector: {{ app: {service} }}
  ports: [{{ name: {protocol}, port: 80, targetPort: 8080, appProtocol: {protocol} }}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata:
  name: {service}
  namespace: shop
  annotations: {{ veer.dev/audience: \"*\" }}
"
    )
}

/// One copy of a shop service.
pub fn workload_yaml(service: &str, n: u8, address: &str) -> String {
    let protocol = if service == "price" { "grpc" } else { "http" };
    format!(
        "apiVersion: veer.dev/v1alpha1
kind: Workload
metadata: {{ name: {service}-{n}, namespace: shop, labels: {{ app: {service} }} }}
spec:
  address: {address}
  serviceAccount: {service}
  ports: [{{ name: {protocol}, port: 8080, appPort: 9080, appProtocol: {protocol} }}]
  run:
    command: [\"$(VEER_BIN)\", shop, {service}, --listen, \"$(VEER_ADDRESS):9080\"]
"
    )
}

/// A fleet that runs. Ends, with everything in it, when dropped; its folder stays when the test fails. The test fails, too, when
/// a process of the fleet panicked.
pub struct Fleet {
    binary: PathBuf,
    folder: Option<TempDir>,
    clusters: Vec<Cluster>,
    process: Child,
}

impl Fleet {
    /// The fleet's folder.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// Process id of `veer run`.
    pub fn supervisor(&self) -> u32 {
        self.process.id()
    }

    /// The end of `veer run`, when it has ended: whether it says that all went well.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<bool>> {
        Ok(self.process.try_wait()?.map(|status| status.success()))
    }

    /// A cluster.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn cluster(&self, name: &str) -> &Cluster {
        self.clusters.iter().find(|cluster| cluster.name == name).expect("a cluster of the fleet")
    }

    /// An address in a cluster's network.
    pub fn address(&self, cluster: &str, last: u8) -> String {
        format!("{}.{last}", self.cluster(cluster).network)
    }

    /// A command in a cluster's network.
    pub fn command(&self, cluster: &str, program: impl AsRef<Path>) -> Command {
        match &self.cluster(cluster).namespace {
            Some(namespace) => namespace.command(&program.as_ref().to_string_lossy()),
            None => Command::new(program.as_ref()),
        }
    }

    /// Runs `veer` with arguments in a cluster's network; what it printed, whether it succeeded.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn veer(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<(String, bool)> {
        let output = self.command(cluster, &self.binary).args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Ok((text.into_owned(), output.status.success()))
    }

    /// Runs one of the tools on this fleet (`veer VERB --fleet …`).
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn tool(&self, cluster: &str, arguments: &[&str]) -> anyhow::Result<(String, bool)> {
        let folder = self.folder().display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--fleet", &folder]);
        self.veer(cluster, &all)
    }

    /// Sends a request with curl from a cluster's visitor; status and body.
    ///
    /// # Errors
    /// When curl is missing.
    pub fn curl(&self, cluster: &str, host: &str, path: &str, more: &[&str]) -> anyhow::Result<(u16, String)> {
        self.curl_from(cluster, 10, host, path, more)
    }

    /// [`Fleet::curl`] from the proxy at another address of the cluster's network.
    ///
    /// # Errors
    /// When curl is missing.
    pub fn curl_from(
        &self,
        cluster: &str,
        last: u8,
        host: &str,
        path: &str,
        more: &[&str],
    ) -> anyhow::Result<(u16, String)> {
        let url = format!("http://{}:15001{path}", self.address(cluster, last));
        let host = format!("Host: {host}");
        let output = self
            .command(cluster, "curl")
            .args(["-s", "-m", "10", "-w", "\n%{http_code}", "-H", &host])
            .args(more)
            .arg(url)
            .output()
            .context("running curl: it is in the Debian package curl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').context("curl printed no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// Starts a load of GET requests from a cluster's visitor, in the background.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn load(&self, cluster: &str, host: &str, path: &str, rate: u32, seconds: u32) -> anyhow::Result<Load> {
        self.load_with(cluster, host, path, rate, seconds, &[])
    }

    /// [`Fleet::load`] with more flags of `veer load`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn load_with(
        &self,
        cluster: &str,
        host: &str,
        path: &str,
        rate: u32,
        seconds: u32,
        more: &[&str],
    ) -> anyhow::Result<Load> {
        let target = format!("{}:15001", self.address(cluster, 10));
        let process = self
            .command(cluster, &self.binary)
            .args(["load", &target, "--host", host, "--path", path, "-o", "json"])
            .args(["--rate", &rate.to_string(), "--duration", &format!("{seconds}s")])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        Ok(Load { process })
    }

    /// Writes a manifest as an editor would.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.folder().join(file);
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, text)?;
        Ok(std::fs::rename(temporary, path)?)
    }

    /// A manifest's text.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(&self, file: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.folder().join(file))?)
    }

    /// `veer stop`: `SIGKILL` to `CLUSTER` or `CLUSTER/PROCESS`, which stays dead.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, what: &str) -> anyhow::Result<()> {
        self.must(&["stop", what])
    }

    /// `veer start`
    ///
    /// # Errors
    /// When there is no such process.
    pub fn revive(&self, what: &str) -> anyhow::Result<()> {
        self.must(&["start", what])
    }

    fn must(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let first = self.clusters[0].name.clone();
        let (text, ok) = self.tool(&first, arguments)?;
        ensure!(ok, "veer {}: {text}", arguments.join(" "));
        Ok(())
    }

    /// A metric of a proxy or gateway, all series of the name added up whose labels contain all of `labels`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metric(&self, cluster: &str, last: u8, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        let url = format!("http://{}:15020/metrics", self.address(cluster, last));
        let output = self.command(cluster, "curl").args(["-s", "-m", "5", &url]).output()?;
        let samples =
            veer_telemetry::text::parse(&String::from_utf8_lossy(&output.stdout)).map_err(anyhow::Error::msg)?;
        let meant = samples.iter().filter(|s| s.name == name && labels.iter().all(|(l, v)| s.label(l) == *v));
        Ok(meant.map(|sample| sample.value).sum())
    }

    /// Waits until every workload's proxy and every gateway says that it is ready.
    pub async fn until_ready(&self) {
        for cluster in &self.clusters {
            let mut addresses: Vec<String> = cluster.gateways.clone();
            addresses.extend(self.workload_addresses(&cluster.name));
            for address in addresses {
                let what = format!("{} {address} ready (logs in {})", cluster.name, self.folder().display());
                eventually(&what, START, || self.ready(&cluster.name, &address)).await;
            }
        }
    }

    fn ready(&self, cluster: &str, address: &str) -> Result<(), String> {
        let url = format!("http://{address}:15020/ready");
        let arguments = ["-s", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", &url];
        let output = self.command(cluster, "curl").args(arguments).output().map_err(|e| e.to_string())?;
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        if status == "200" {
            return Ok(());
        }
        let log = self.read("run.log").unwrap_or_default();
        Err(format!("status {status}; veer run says: {}", log.lines().last().unwrap_or("nothing")))
    }

    fn workload_addresses(&self, cluster: &str) -> Vec<String> {
        let mut addresses = Vec::new();
        let entries = std::fs::read_dir(self.folder().join(cluster)).into_iter().flatten().flatten();
        for text in entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()) {
            for document in text.split("\n---").filter(|d| started_by_veer(d)) {
                let address =
                    document.split("address: ").nth(1).and_then(|rest| rest.split([',', '\n', ' ', '}']).next());
                addresses.extend(address.map(str::to_owned));
            }
        }
        addresses
    }
}

fn started_by_veer(document: &str) -> bool {
    let elsewhere = ["replicas: 0", "veer.dev/proxy: external"];
    document.contains("kind: Workload") && !elsewhere.iter().any(|word| document.contains(word))
}

impl Fleet {
    /// Tells all processes to end, and waits until they have: the supervisor kills those that take more than ten seconds.
    fn end(&mut self) {
        let supervisor = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        // Fails only when it has ended.
        let _ = supervisor.map(|pid| kill_process(pid, Signal::TERM));
        let _ = self.process.wait();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::env::var_os("LLVM_PROFILE_FILE").is_some() {
            // Programs that were built to count what they do write it down when they end by themselves (scripts/dist).
            self.end();
        }
        // The kernel kills every process of the fleet with its supervisor.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let panics = panics(self.folder());
        if (std::thread::panicking() || !panics.is_empty())
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the fleet's folder is kept: {}", folder.keep().display());
        }
        // A process outlives the panic of a task, and what the task carried is tried again elsewhere: nobody else would tell.
        assert!(
            std::thread::panicking() || panics.is_empty(),
            "processes of the fleet panicked:\n{}",
            panics.join("\n")
        );
    }
}

/// Panics that the logs of a fleet's processes hold, each with its log.
fn panics(folder: &Path) -> Vec<String> {
    let mut logs = vec![folder.join("run.log")];
    let clusters = std::fs::read_dir(folder.join(".veer/clusters")).into_iter().flatten().flatten();
    for cluster in clusters {
        let entries = std::fs::read_dir(cluster.path().join("logs")).into_iter().flatten().flatten();
        logs.extend(entries.map(|entry| entry.path()));
    }
    let mut panics = Vec::new();
    for log in logs {
        let text = std::fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        panics.extend(
            text.lines().filter(|line| line.contains("panicked at")).map(|line| format!("{}: {line}", log.display())),
        );
    }
    panics
}

/// A load that runs.
pub struct Load {
    process: Child,
}

/// What became of a load.
#[derive(Debug)]
pub struct Loaded {
    /// Requests sent.
    pub requests: u64,
    /// Requests not served.
    pub failures: u64,
    /// Worst latency, from when a request was due.
    pub worst: Duration,
    /// Everything that `veer load` said.
    pub json: serde_json::Value,
}

impl Load {
    /// Waits for its end.
    ///
    /// # Errors
    /// When it did not run to its end.
    pub fn finish(self) -> anyhow::Result<Loaded> {
        let output = self.process.wait_with_output()?;
        let json: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("veer load printed {:?}", String::from_utf8_lossy(&output.stdout)))?;
        let number = |name: &str| json[name].as_u64().with_context(|| format!("no {name} in {json}"));
        Ok(Loaded {
            requests: number("requests")?,
            failures: number("failures")?,
            worst: Duration::from_secs_f64(json["max_ms"].as_f64().unwrap_or(f64::MAX) / 1000.0),
            json,
        })
    }
}
