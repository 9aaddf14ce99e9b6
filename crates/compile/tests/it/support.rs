//! A cluster named west, read from YAML text, and its peers.

use std::net::IpAddr;
use std::sync::Arc;

use veer_compile::{ClusterConfig, Meaning, PeerView, TokenSealer, World, compile};
use veer_core::gateway::Lease;
use veer_core::inbound::TrustBundle;
use veer_core::offer::OfferPort;
use veer_core::{AppProtocol, ClusterName, Endpoint, EndpointPort, Locality, ObjectName, Offer};
use veer_resources::{Diagnostic, Object};

/// Seals by writing down what it was asked, so that tests can read it.
pub struct PlainSealer {
    pub epoch: u64,
}

impl TokenSealer for PlainSealer {
    fn epoch(&self, _: &ClusterName) -> u64 {
        self.epoch
    }
    fn endpoint(&self, peer: &ClusterName, address: IpAddr, port: u16) -> Option<Arc<str>> {
        let address = address.to_string().replace(['.', ':'], "-");
        Some(format!("{peer}-e{}-{address}-{port}", self.epoch).into())
    }
    fn service(&self, peer: &ClusterName, service: u32, port: u16) -> Option<Arc<str>> {
        Some(format!("{peer}-e{}-s{service}-{port}", self.epoch).into())
    }
}

pub fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

pub fn object(text: &str) -> ObjectName {
    text.parse().unwrap()
}

pub fn west() -> ClusterConfig {
    ClusterConfig {
        name: cluster("west"),
        trust_domain: "west.example".parse().unwrap(),
        locality: Locality { region: "eu".into(), zone: "eu-1".into() },
        mesh_port: 15008,
        control: vec!["127.1.0.2:15010".parse().unwrap()],
        keys: Vec::new(),
        bundle: TrustBundle { trust_domain: "west.example".parse().unwrap(), roots_pem: "own".into() },
        rotate: 0,
    }
}

/// Reads manifests that must be right one by one.
pub fn read(text: &str) -> Vec<Object> {
    let (objects, faults) = veer_resources::parse("west.yaml", text);
    let errors: Vec<String> = faults.iter().filter(|fault| fault.is_error()).map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    objects
}

pub fn mean(text: &str, peers: &[PeerView]) -> Meaning {
    compile(&World { cluster: &west(), objects: &read(text), peers, sealer: &PlainSealer { epoch: 1 } })
}

pub fn documents(parts: &[&str]) -> String {
    parts.join("\n---\n")
}

pub fn service(name: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  selector: {{app: {name}}}\n  ports: [{{name: http, port: 80, targetPort: 8080}}]"
    )
}

/// A workload that serves `app`, at 127.1.0.<last>.
pub fn workload(name: &str, app: &str, last: u8) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: veer.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}}}}}\nspec:\n  address: 127.1.0.{last}\n  serviceAccount: {app}\n  ports: [{{name: web, port: 8080, appPort: 9080}}]"
    )
}

pub fn export(name: &str, audience: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {{name: {name}, namespace: {namespace}, annotations: {{veer.dev/audience: \"{audience}\"}}}}"
    )
}

pub fn import(name: &str, per_cluster_names: bool) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceImport\nmetadata: {{name: {name}, namespace: {namespace}, annotations: {{veer.dev/per-cluster-names: \"{per_cluster_names}\"}}}}\nspec: {{type: ClusterSetIP}}"
    )
}

/// A Link to a peer whose gateways are at 127.<net>.0.3.
pub fn link(name: &str, net: u8, more: &str) -> String {
    format!(
        "apiVersion: veer.dev/v1alpha1\nkind: Link\nmetadata: {{name: {name}}}\nspec:\n  trustDomain: {name}.example\n  bundle: |\n{PEM}  gateways: [{{name: g1, address: 127.{net}.0.3}}]\n  provides: [\"shop/*\"]\n{more}"
    )
}

pub const PEM: &str = "    -----BEGIN CERTIFICATE-----\n    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\n    -----END CERTIFICATE-----\n";

/// A peer that was just heard and offers nothing yet.
pub fn peer(name: &str) -> PeerView {
    PeerView { cluster: cluster(name), lease: Lease::Fresh, gateways: None, offers: Vec::new() }
}

/// A peer that offers services, one endpoint each at 127.<net>.0.<10 + n>.
pub fn offering(name: &str, net: u8, services: &[&str]) -> PeerView {
    let offers = services.iter().enumerate().map(|(n, service)| Arc::new(offer(name, net, 10 + n as u8, service)));
    PeerView { offers: offers.collect(), ..peer(name) }
}

pub fn offer(from: &str, net: u8, last: u8, service: &str) -> Offer {
    let name = object(service);
    let endpoint = Endpoint {
        workload: object(&format!("{service}-1")),
        address: format!("127.{net}.0.{last}").parse().unwrap(),
        ports: vec![EndpointPort { service_port: 80, target_port: 8080, token: format!("token{net}{last}").into() }],
        identity: Some(format!("spiffe://{from}.example/ns/{}/sa/{}", name.namespace, name.name).parse().unwrap()),
        mesh_port: 15008,
        locality: Locality { region: "us".into(), zone: "us-1".into() },
        ready: true,
        capacity: None,
    };
    Offer {
        service: name,
        ports: vec![OfferPort { port: 80, name: Some("http".into()), protocol: AppProtocol::Http1 }],
        endpoints: vec![endpoint],
        service_tokens: Vec::new(),
        http_routes: Vec::new(),
        tcp_routes: Vec::new(),
        policy: Default::default(),
    }
}

/// Who serves a host, as `cluster: workload, workload; cluster: …`.
pub fn serving(meaning: &Meaning, host: &str) -> String {
    let Some(endpoints) = meaning.endpoints.get(host) else { return "no such host".into() };
    let cluster = |c: &veer_core::ClusterEndpoints| {
        let names = c.endpoints.iter().map(|e| {
            let state = if e.ready { "" } else { " (not ready)" };
            let mesh = if e.identity.is_some() { "" } else { " (plaintext)" };
            format!("{}{state}{mesh}", e.workload.name)
        });
        format!("{}: {}", c.cluster, names.collect::<Vec<_>>().join(", "))
    };
    endpoints.clusters.iter().map(cluster).collect::<Vec<_>>().join("; ")
}

/// Codes of the faults, without that of services that nobody serves: most tests need no workloads.
pub fn codes(faults: &[Diagnostic]) -> Vec<&'static str> {
    faults.iter().map(|fault| fault.code).filter(|code| *code != "V0315").collect()
}
