//! Veer as in real life, everything on: a cluster's control plane with a folder of manifests, and proxies with identities
//! of their own, metrics, routing and balancing. The control plane stays on the load's core: it is idle.

use anyhow::Context as _;
use veer_testkit::FleetSpec;

use super::peers::{Running, Stage};
use super::process::pin_all;
use super::works::{APPLICATION, ECHO_APPLICATION, NETWORK, ORIGIN, Work};

const CLUSTER: &str = "bench";

/// Starts the cluster for a work.
pub async fn start(work: Work, stage: &Stage) -> anyhow::Result<Running> {
    let spec = FleetSpec::new(&stage.veer)?.cluster(CLUSTER, NETWORK, 1);
    let visitor = format!("127.{NETWORK}.0.10:15001").parse()?;
    let (spec, proxies, target, host) = match work {
        Work::Http1 | Work::Http2 => {
            let protocol = if work == Work::Http2 { "kubernetes.io/h2c" } else { "http" };
            let spec = spec.visitor(CLUSTER).manifest("bench/origin.yaml", &unmeshed(protocol));
            (spec, vec!["shop.visitor.proxy"], visitor, "origin.shop.svc.cluster.local")
        }
        // The callee's side, in plaintext: the application's port taken over by the proxy. The caller's side carries bytes
        // only of captured connections, for which the benchmark would need network namespaces and root.
        Work::Tcp => {
            let spec = spec.manifest("bench/echo.yaml", &workload("echo", "tcp", ECHO_APPLICATION));
            (spec, vec!["shop.echo.proxy"], (ECHO_APPLICATION.ip(), 8080).into(), "")
        }
        Work::PairHttp1 | Work::PairHttp2 => {
            let protocol = if work == Work::PairHttp2 { "kubernetes.io/h2c" } else { "http" };
            let callee = workload("callee", protocol, APPLICATION);
            let spec = spec.visitor(CLUSTER).manifest("bench/callee.yaml", &callee);
            (spec, vec!["shop.visitor.proxy", "shop.callee.proxy"], visitor, "callee.shop.svc.cluster.local")
        }
    };
    let fleet = spec.start().await?;
    let run: serde_json::Value = serde_json::from_str(&fleet.read(&format!(".veer/clusters/{CLUSTER}/run.json"))?)?;
    let mut roots = Vec::new();
    for name in proxies {
        let pid = run["processes"][name].as_u64().with_context(|| format!("no process {name} in {run}"))? as u32;
        pin_all(pid, stage.proxy_core)?;
        roots.push(pid);
    }
    Ok(Running { target, host: host.to_owned(), roots, processes: Vec::new(), _fleet: Some(fleet) })
}

/// A Service in front of the origin, which is no part of the mesh.
fn unmeshed(protocol: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: origin, namespace: shop }}
spec:
  ports: [{{ name: http, port: 80, appProtocol: {protocol} }}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: origin-1, namespace: shop, labels: {{ kubernetes.io/service-name: origin }} }}
addressType: IPv4
ports: [{{ name: http, port: {} }}]
endpoints: [{{ addresses: [{}], conditions: {{ ready: true }} }}]
",
        ORIGIN.port(),
        ORIGIN.ip()
    )
}

/// A Service and its one workload, whose application is the origin.
fn workload(name: &str, protocol: &str, application: std::net::SocketAddr) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  selector: {{ app: {name} }}
  ports: [{{ name: main, port: 80, targetPort: 8080, appProtocol: {protocol} }}]
---
apiVersion: veer.dev/v1alpha1
kind: Workload
metadata: {{ name: {name}, namespace: shop, labels: {{ app: {name} }} }}
spec:
  address: {}
  serviceAccount: {name}
  ports: [{{ name: main, port: 8080, appPort: {}, appProtocol: {protocol} }}]
",
        application.ip(),
        application.port()
    )
}
