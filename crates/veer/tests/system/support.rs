//! What the tests share: manifests of Python applications, answers of curl, waiting for applications.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use veer_testkit::{Fleet, FleetSpec, eventually};

/// For what follows a change by itself, also on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(20);

/// An empty fleet for the binary under test.
pub fn fleet() -> FleetSpec {
    FleetSpec::new(env!("CARGO_BIN_EXE_veer")).expect("a temporary folder")
}

/// The Python that has grpcio.
pub fn python() -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-venv/bin/python"));
    assert!(path.exists(), "{} is missing: `scripts/test tools` makes it", path.display());
    path.display().to_string()
}

/// One of the programs in `tests/foreign`.
pub fn foreign(name: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/foreign")).join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path.display().to_string()
}

/// A Service, exported to all, whose copies are the workloads labelled `app: NAME` on their port 8080.
pub fn service(name: &str, port: u16, protocol: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  selector: {{ app: {name} }}
  ports: [{{ name: main, port: {port}, targetPort: 8080, appProtocol: {protocol} }}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata:
  name: {name}
  namespace: shop
  annotations: {{ veer.dev/audience: \"*\" }}
"
    )
}

/// A Workload `NAME-n` of a service that runs one of the Python servers (usage: `PROGRAM ADDRESS:PORT NAME`).
pub fn workload(service: &str, n: u8, address: &str, protocol: &str, program: &str) -> String {
    format!(
        "apiVersion: veer.dev/v1alpha1
kind: Workload
metadata: {{ name: {service}-{n}, namespace: shop, labels: {{ app: {service} }} }}
spec:
  address: {address}
  serviceAccount: {service}
  ports: [{{ name: main, port: 8080, appPort: 9080, appProtocol: {protocol} }}]
  run:
    command: [\"{}\", \"{}\", \"$(VEER_ADDRESS):9080\", \"$(VEER_WORKLOAD)\"]
",
        python(),
        foreign(program)
    )
}

/// Waits until something listens: a proxy is ready before the application beside it is.
pub async fn listening(fleet: &Fleet, cluster: &str, last: u8, port: u16) {
    let address = fleet.address(cluster, last);
    let connect = "import socket,sys\nsocket.create_connection((sys.argv[1],int(sys.argv[2])),timeout=1)";
    eventually(&format!("{address}:{port} listens (logs in {})", fleet.folder().display()), SOON, || {
        let mut command = fleet.command(cluster, "python3");
        let output = command.args(["-c", connect, &address, &port.to_string()]).output().map_err(|e| e.to_string())?;
        if output.status.success() { Ok(()) } else { Err(last_line(&output.stderr)) }
    })
    .await;
}

fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim().lines().last().unwrap_or_default().to_owned()
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Status line and fields, as curl wrote them.
    pub head: String,
    /// Body and, after it, trailers.
    pub body: String,
}

impl Answer {
    /// The first field of this name (lower case), or nothing.
    pub fn field(&self, name: &str) -> &str {
        self.fields(name).next().unwrap_or_default()
    }

    /// All fields of this name (lower case).
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.head.lines().filter_map(|line| line.split_once(':'));
        pairs.filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// A field of the request as the application `app.py` saw it; nothing when it did not.
    pub fn seen(&self, name: &str) -> Vec<String> {
        let json = self.json();
        let fields = json["fields"].as_array().unwrap_or_else(|| panic!("no fields in {self:?}"));
        fields.iter().filter(|f| f[0] == name).map(|f| f[1].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// Sends a request with curl from a cluster's visitor.
pub fn ask(fleet: &Fleet, cluster: &str, host: &str, path: &str, more: &[&str]) -> Answer {
    let all = [&["-i"], more].concat();
    let (status, text) = fleet.curl(cluster, host, path, &all).expect("curl runs");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Waits until a request is answered with 200: routes and copies have arrived.
pub async fn serving(fleet: &Fleet, cluster: &str, host: &str, path: &str) {
    let what = format!("{cluster} reaches {host} (logs in {})", fleet.folder().display());
    eventually(&what, SOON, || {
        let answer = ask(fleet, cluster, host, path, &[]);
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// Runs a command to its end and returns what it printed; panics with everything that it said when it fails.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// What a tool says with `-o json`.
///
/// # Errors
/// When that is not JSON.
pub fn tool_json(fleet: &Fleet, cluster: &str, arguments: &[&str]) -> Result<Value, String> {
    let all = [arguments, &["-o", "json"]].concat();
    let (text, _) = fleet.tool(cluster, &all).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
}

/// Asks a Gateway at this address of `west` as a host of its own.
pub fn ask_gateway(fleet: &Fleet, last: u8, url: (&str, &str, u16, &str), more: &[&str]) -> Answer {
    let (scheme, host, port, path) = url;
    let resolve = format!("{host}:{port}:{}", fleet.address("west", last));
    let mut curl = Command::new("curl");
    curl.args(["-s", "-i", "-m", "10", "-w", "\n%{http_code}", "--resolve", &resolve]).args(more);
    let output = curl.arg(format!("{scheme}://{host}:{port}{path}")).output().expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (text, status) = text.rsplit_once('\n').expect("curl prints the status");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    Answer { status: status.parse().expect("a status"), head: head.to_owned(), body: body.to_owned() }
}

/// Waits until what is asked is answered with this status; 0 is no answer at all.
pub async fn answered(fleet: &Fleet, what: &str, status: u16, asking: impl Fn() -> Answer) {
    eventually(&format!("{what} (logs in {})", fleet.folder().display()), SOON, || {
        let answer = asking();
        if answer.status == status { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}
