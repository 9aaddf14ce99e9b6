//! Veer as in real life, everything on: a cluster's control plane with a folder of manifests, and proxies with identities
//! of their own, metrics, routing and balancing. The control planes stay on the load's core: they are idle.

use anyhow::Context as _;
use veer_testkit::{Fleet, FleetSpec};

use super::{APPLICATION, FAR_APPLICATION, ORIGINS, Part, Running, Stage, TlsTarget, address};
use crate::side_by_side::contenders::{Contender, Variant};
use crate::side_by_side::process::pin_all;
use crate::side_by_side::works::{Row, Shape, Spoken, Work};

/// Second part of the cluster's addresses.
pub const NETWORK: u8 = 78;
/// Of the other cluster, behind a gateway. The pair that it is compared with runs at the same time.
pub const FAR_NETWORK: u8 = 79;
/// Of the cluster that calls through the gateway.
const NEAR_NETWORK: u8 = 80;

const CLUSTER: &str = "bench";
/// Port at which captured connections arrive.
const CAPTURED: u16 = 15002;
/// Port of all workloads.
const PORT: u16 = 8080;

/// Starts the clusters for a work.
pub async fn start(contender: Contender, work: Work, stage: &Stage) -> anyhow::Result<Running> {
    let mut shape = work.shape();
    if contender.variant == Variant::Bytes {
        shape.spoken = Spoken::Tcp;
    }
    if contender.variant == Variant::Hop {
        return through_gateway(&shape, stage).await;
    }
    // Two ways of one work run at the same time.
    let (network, application) = match contender.variant {
        Variant::Classic | Variant::Bytes => (FAR_NETWORK, FAR_APPLICATION),
        _ => (NETWORK, APPLICATION),
    };
    let spec = FleetSpec::new(&stage.veer)?.cluster(CLUSTER, network, 1);
    let visitor = address(network, 0, 10, 15001);
    let callee = |spec: FleetSpec| spec.manifest("bench/callee.yaml", &workload(&shape, application.ip()));
    let (spec, proxies, target, host) = match (shape.row, shape.spoken) {
        // The callee's side, in plaintext: the application's port taken over by the proxy.
        (Row::Single, Spoken::Tcp) => {
            let target = (application.ip(), PORT).into();
            (callee(spec), vec!["shop.callee.proxy"], target, "")
        }
        (Row::Single, _) => {
            let spec = spec.visitor(CLUSTER).manifest("bench/origin.yaml", &unmeshed(&shape));
            (spec, vec!["shop.visitor.proxy"], visitor, "origin.shop.svc.cluster.local")
        }
        // As if packet-filter rules had led connections to a virtual address here; the rules' own cost is left out, as it is
        // for the others.
        (Row::Pair, Spoken::Tcp) => {
            let virtual_address = address(network, 0, 99, CAPTURED);
            let spec = callee(spec).manifest("bench/visitor.yaml", &capturing_visitor(visitor.ip())).manifest(
                "bench/virtual.yaml",
                &format!(
                    "apiVersion: v1\nkind: Service\nmetadata: {{ name: virtual, namespace: shop }}\n\
                     spec:\n  clusterIP: {}\n  selector: {{ app: callee }}\n  \
                     ports: [{{ name: main, port: {CAPTURED}, targetPort: {PORT}, appProtocol: tcp }}]\n",
                    virtual_address.ip()
                ),
            );
            (spec, vec!["shop.visitor.proxy", "shop.callee.proxy"], virtual_address, "")
        }
        (Row::Pair, _) => {
            let proxies = vec!["shop.visitor.proxy", "shop.callee.proxy"];
            (callee(spec).visitor(CLUSTER), proxies, visitor, "callee.shop.svc.cluster.local")
        }
        (Row::Callee, _) => {
            let mesh_port = (application.ip(), 15008).into();
            (callee(spec).visitor(CLUSTER), vec!["shop.callee.proxy"], mesh_port, "callee.shop.svc.cluster.local")
        }
    };
    let fleet = spec.start().await?;
    let parts = pinned(&fleet, CLUSTER, &proxies, Part::End, stage)?;
    let own = fleet.folder().join(format!(".veer/clusters/{CLUSTER}/processes/shop.visitor/svid.pem"));
    let name = format!("p{PORT}.{CLUSTER}");
    // The protocol for single exchanges over HTTP/1.1: what the others are asked in, too.
    let tls = TlsTarget { files: [own.clone(), own], name, protocol: b"veer-http/1".to_vec() };
    Ok(Running { target, host: host.to_owned(), tls, parts, processes: Vec::new(), _fleet: Some(fleet) })
}

/// Two clusters; the callee is behind the gateway of the other.
async fn through_gateway(shape: &Shape, stage: &Stage) -> anyhow::Result<Running> {
    let export = "---\napiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\n\
                  metadata:\n  name: callee\n  namespace: shop\n  annotations: { veer.dev/audience: \"*\" }\n";
    let fleet = FleetSpec::new(&stage.veer)?
        .cluster("near", NEAR_NETWORK, 1)
        .cluster("far", FAR_NETWORK, 1)
        .peer("near", "far")
        .visitor("near")
        .manifest("far/callee.yaml", &(workload(shape, FAR_APPLICATION.ip()) + export))
        .start()
        .await?;
    let mut parts = pinned(&fleet, "near", &["shop.visitor.proxy"], Part::End, stage)?;
    parts.extend(pinned(&fleet, "far", &["shop.callee.proxy"], Part::End, stage)?);
    parts.extend(pinned(&fleet, "far", &["gateway-1"], Part::Hop, stage)?);
    let host = "callee.shop.svc.clusterset.local".to_owned();
    let (target, tls) = (address(NEAR_NETWORK, 0, 10, 15001), TlsTarget::default());
    Ok(Running { target, host, tls, parts, processes: Vec::new(), _fleet: Some(fleet) })
}

/// The processes of a cluster with these names, now on the proxies' core.
fn pinned(fleet: &Fleet, cluster: &str, names: &[&str], part: Part, stage: &Stage) -> anyhow::Result<Vec<(Part, u32)>> {
    let run: serde_json::Value = serde_json::from_str(&fleet.read(&format!(".veer/clusters/{cluster}/run.json"))?)?;
    let mut parts = Vec::new();
    for name in names {
        let pid = run["processes"][name].as_u64().with_context(|| format!("no process {name} in {run}"))? as u32;
        pin_all(pid, stage.proxy_core)?;
        parts.push((part, pid));
    }
    Ok(parts)
}

fn capturing_visitor(address: std::net::IpAddr) -> String {
    format!(
        "apiVersion: veer.dev/v1alpha1
kind: Workload
metadata: {{ name: visitor, namespace: shop, annotations: {{ veer.dev/capture: \"true\" }} }}
spec: {{ address: {address}, serviceAccount: visitor }}
"
    )
}

fn protocol(shape: &Shape) -> &'static str {
    match shape.spoken {
        Spoken::Http1 => "http",
        Spoken::Http2 => "kubernetes.io/h2c",
        Spoken::Grpc => "grpc",
        Spoken::Tcp => "tcp",
    }
}

/// A Service in front of the origin, which is no part of the mesh.
fn unmeshed(shape: &Shape) -> String {
    let (protocol, origin) = (protocol(shape), ORIGINS[0]);
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: origin, namespace: shop }}
spec:
  ports: [{{ name: main, port: 80, appProtocol: {protocol} }}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: origin-1, namespace: shop, labels: {{ kubernetes.io/service-name: origin }} }}
addressType: IPv4
ports: [{{ name: main, port: {} }}]
endpoints: [{{ addresses: [{}], conditions: {{ ready: true }} }}]
",
        origin.port(),
        origin.ip()
    )
}

/// A Service and its one workload, whose application is the origin.
fn workload(shape: &Shape, address: std::net::IpAddr) -> String {
    let (protocol, application) = (protocol(shape), APPLICATION.port());
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: callee, namespace: shop }}
spec:
  selector: {{ app: callee }}
  ports: [{{ name: main, port: 80, targetPort: {PORT}, appProtocol: {protocol} }}]
---
apiVersion: veer.dev/v1alpha1
kind: Workload
metadata: {{ name: callee, namespace: shop, labels: {{ app: callee }} }}
spec:
  address: {address}
  serviceAccount: callee
  ports: [{{ name: main, port: {PORT}, appPort: {application}, appProtocol: {protocol} }}]
"
    )
}
