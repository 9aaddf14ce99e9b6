//! A cluster's folder of manifests.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::spec::{ClusterSpec, Role, WorkloadSpec};

/// Port of a copy at which it is offered.
pub(crate) const PORT: u16 = 8080;
/// Port at which the application itself listens.
pub(crate) const APP_PORT: u16 = 9080;
/// Namespace of everything.
pub(crate) const NAMESPACE: &str = "shop";

/// Writes what does not depend on others: the namespace, which takes mutual TLS only, and the services, offered to all.
pub(crate) fn write_services(folder: &Path, cluster: &ClusterSpec) {
    let mut text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  annotations: {{ veer.dev/mtls: strict }}\n"
    );
    for service in cluster.services() {
        text += &format!(
            "---
apiVersion: v1
kind: Service
metadata: {{ name: {service}, namespace: {NAMESPACE} }}
spec:
  selector: {{ app: {service} }}
  ports: [{{ name: http, port: 80, targetPort: {PORT}, appProtocol: http }}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata:
  name: {service}
  namespace: {NAMESPACE}
  annotations: {{ veer.dev/audience: \"*\" }}
"
        );
    }
    write(&folder.join("services.yaml"), &text);
}

/// Writes a workload's file.
pub(crate) fn write_workload(folder: &Path, workload: &WorkloadSpec, address: IpAddr) {
    let (app, ports) = match &workload.role {
        Role::Copy(service) => {
            (service.as_str(), format!("[{{ name: http, port: {PORT}, appPort: {APP_PORT}, appProtocol: http }}]"))
        }
        Role::Caller(_) => ("caller", "[]".to_owned()),
    };
    let text = format!(
        "apiVersion: veer.dev/v1alpha1
kind: Workload
metadata:
  name: {name}
  namespace: {NAMESPACE}
  labels: {{ app: {app} }}
spec:
  address: {address}
  serviceAccount: {app}
  ports: {ports}
",
        name = workload.name
    );
    write(&folder.join(format!("{}.yaml", workload.name)), &text);
}

/// Writes the Link to a peer.
pub(crate) fn write_link(folder: &Path, peer: &str, bundle: &str, gateways: &[(String, IpAddr)], lease: Duration) {
    let indented: String = bundle.lines().map(|line| format!("    {line}\n")).collect();
    let gateways: String = gateways
        .iter()
        .map(|(name, address)| {
            format!("    - {{ name: {name}, address: \"{address}:{}\" }}\n", veer_proxy::gateway::PUBLIC_PORT)
        })
        .collect();
    let text = format!(
        "apiVersion: veer.dev/v1alpha1
kind: Link
metadata: {{ name: {peer} }}
spec:
  trustDomain: {peer}.example
  lease: {lease}ms
  provides: [\"{NAMESPACE}/*\"]
  gateways:
{gateways}  bundle: |
{indented}",
        lease = lease.as_millis()
    );
    write(&folder.join(format!("link-{peer}.yaml")), &text);
}

fn write(path: &Path, text: &str) {
    // Whole or not at all, as an editor does.
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text).expect("the temporary folder can be written to");
    std::fs::rename(&temporary, path).expect("a file can be renamed");
}
