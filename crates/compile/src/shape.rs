//! The names that a service has, before anything is said about who serves: enough for routes to refer to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use veer_core::{AppProtocol, ClusterName, ObjectName, ServiceHost};
use veer_resources::{
    Audience, Diagnostic, Kind, KindName, Object, ServiceImportSpec, ServiceSpec, ServiceType, Transport,
};

use crate::faults;
use crate::links::age;
use crate::memo::Key;
use crate::view::View;

/// What names `namespace/name` has in this cluster, and for which ports.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Shape {
    /// `cluster.local`: the Service, when it is one that the mesh carries.
    pub local: Option<Local>,
    /// Whether there is a ServiceExport for [`Self::local`].
    pub exported: bool,
    /// Linked peers that it is offered to.
    pub audience: Vec<ClusterName>,
    /// Whether they may ask with safe methods only.
    pub safe_only: bool,
    /// `clusterset.local`.
    pub set: Option<Set>,
    /// `name-cluster`, per peer that offers it.
    pub peer_names: BTreeMap<ClusterName, ObjectName>,
    pub faults: Vec<Diagnostic>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Local {
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<Port>,
    /// Annotated to stand for the copies of all clusters.
    pub is_clusterset: bool,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Set {
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Port {
    pub port: u16,
    pub name: Option<Arc<str>>,
    pub protocol: AppProtocol,
}

/// Names and ports of `name`.
pub(crate) fn shape(view: View<'_>, name: &ObjectName) -> Shape {
    let mut shape = Shape::default();
    let service = view.service(name);
    if let Some((object, spec)) = service {
        shape.local = local(view, object, spec, &mut shape.faults);
    }
    if let Some(export) = view.object(KindName::ServiceExport, name) {
        match service {
            None => shape.faults.push(faults::export_of_nothing(export)),
            // What is wrong with the Service was said there.
            Some(_) => shape.exported = shape.local.is_some(),
        }
        shape.safe_only = !allows_unsafe_methods(view, export);
        shape.audience = audience(view, export, shape.exported, &mut shape.faults);
    }
    let import = view.object(KindName::ServiceImport, name).and_then(|object| match &object.kind {
        Kind::ServiceImport(spec) => Some((object, spec)),
        _ => None,
    });
    shape.set = set(view, name, &shape, import).map(|(set, faults)| {
        shape.faults.extend(faults);
        set
    });
    if let Some((object, _)) = import.filter(|(object, _)| object.meta.wants_per_cluster_names()) {
        peer_names(view, name, object, &mut shape);
    }
    shape
}

fn local(view: View<'_>, object: &Object, spec: &ServiceSpec, faults: &mut Vec<Diagnostic>) -> Option<Local> {
    if spec.service_type == ServiceType::ExternalName {
        return None;
    }
    ServiceHost::cluster_local(&object.name()).ok()?;
    let tcp = spec.ports.iter().filter(|port| port.protocol == Transport::Tcp);
    let mut ports: Vec<Port> =
        tcp.map(|port| Port { port: port.port, name: port.name.clone(), protocol: port.app() }).collect();
    if ports.is_empty() {
        if !spec.ports.iter().any(|port| port.protocol == Transport::Udp) {
            faults.push(faults::no_ports(object));
        }
        return None;
    }
    ports.sort_by_key(|port| port.port);
    ports.dedup_by_key(|port| port.port);
    let addresses = addresses(view, object, &spec.addresses(), faults);
    Some(Local { addresses, ports, is_clusterset: object.meta.is_clusterset_scoped() })
}

/// The virtual addresses that nobody older claims.
fn addresses(view: View<'_>, object: &Object, wanted: &[IpAddr], faults: &mut Vec<Diagnostic>) -> Vec<IpAddr> {
    let mut kept = Vec::new();
    for address in wanted {
        let claims = view.listed(Key::VirtualAddress(*address));
        match claims.min_by_key(|claim| (age(claim), claim.kind.name())) {
            Some(owner) if owner.key() != object.key() => faults.push(faults::address_taken(object, address, owner)),
            _ => kept.push(*address),
        }
    }
    kept
}

/// The export's word, else its namespace's, else yes. A word that could not be read is no.
fn allows_unsafe_methods(view: View<'_>, export: &Object) -> bool {
    let namespace = ObjectName { namespace: Arc::default(), name: Arc::clone(&export.meta.namespace) };
    let of = |object: &Object| if object.failed_closed { Some(false) } else { object.meta.allows_unsafe_methods() };
    of(export).or_else(|| of(view.object(KindName::Namespace, &namespace)?)).unwrap_or(true)
}

fn audience(view: View<'_>, export: &Object, exported: bool, faults: &mut Vec<Diagnostic>) -> Vec<ClusterName> {
    let audience = export.meta.audience();
    if let Audience::Clusters(named) = &audience {
        let own = &view.cluster().name;
        for name in named.iter().filter(|name| *name != own && view.peer(name).is_none()) {
            faults.push(faults::audience_unknown(export, name));
        }
    }
    match audience {
        Audience::Nobody => Vec::new(),
        _ if !exported => Vec::new(),
        Audience::Everybody => view.peers().cloned().collect(),
        Audience::Clusters(mut named) => {
            named.retain(|name| view.peer(name).is_some());
            named.sort();
            named.dedup();
            named
        }
    }
}

/// The `clusterset.local` name: there when the service is exported from here with an audience, or imported explicitly, or
/// offered by a peer. Ports are those that the import names, else this cluster's (when it exports), else the peers', the first
/// by cluster name deciding over a number that two use differently.
fn set(
    view: View<'_>,
    name: &ObjectName,
    shape: &Shape,
    import: Option<(&Object, &Arc<ServiceImportSpec>)>,
) -> Option<(Set, Vec<Diagnostic>)> {
    ServiceHost::clusterset(name).ok()?;
    let mut faults = Vec::new();
    let mut offered: BTreeMap<u16, Port> = BTreeMap::new();
    if let Some(local) = shape.local.as_ref().filter(|_| shape.exported) {
        offered.extend(local.ports.iter().map(|port| (port.port, port.clone())));
    }
    let mut peers = 0;
    for (_, import) in view.imports(name) {
        peers += 1;
        for port in &import.ports {
            let port = Port { port: port.port, name: port.name.clone(), protocol: port.protocol };
            offered.entry(port.port).or_insert(port);
        }
    }
    let has_audience = shape.exported
        && view.object(KindName::ServiceExport, name).is_some_and(|e| e.meta.audience() != Audience::Nobody);
    if !has_audience && peers == 0 && import.is_none() {
        return None;
    }
    let mut ports: Vec<Port> = offered.into_values().collect();
    let mut virtual_addresses = Vec::new();
    if let Some((object, spec)) = import {
        if peers == 0 && !shape.exported {
            faults.push(faults::import_of_nothing(object));
        }
        if !spec.ports.is_empty() {
            let written: Vec<(usize, &veer_resources::ImportPort)> =
                spec.ports.iter().enumerate().filter(|(_, port)| port.protocol == Transport::Tcp).collect();
            for (index, port) in &written {
                if !ports.is_empty() && !ports.iter().any(|p| p.port == port.port) {
                    faults.push(faults::import_port(object, *index, port.port));
                }
            }
            ports = written.iter().map(|(_, port)| import_port(port, &ports)).collect();
            ports.sort_by_key(|port| port.port);
            ports.dedup_by_key(|port| port.port);
        }
        virtual_addresses = addresses(view, object, &spec.ips, &mut faults);
    }
    Some((Set { addresses: virtual_addresses, ports }, faults))
}

/// What the import says about a port; what it leaves open is as offered.
fn import_port(port: &veer_resources::ImportPort, offered: &[Port]) -> Port {
    let as_offered = offered.iter().find(|p| p.port == port.port);
    let (protocol, _) = AppProtocol::from_kubernetes(port.app_protocol.as_deref(), port.name.as_deref());
    Port {
        port: port.port,
        name: port.name.clone().or_else(|| as_offered?.name.clone()),
        protocol: match protocol {
            AppProtocol::Detect => as_offered.map_or(AppProtocol::Detect, |p| p.protocol),
            said => said,
        },
    }
}

fn peer_names(view: View<'_>, name: &ObjectName, import: &Object, shape: &mut Shape) {
    for (cluster, _) in view.imports(name) {
        let alias = ObjectName::new(&name.namespace, &format!("{}-{cluster}", name.name));
        if ServiceHost::cluster_local(&alias).is_err() {
            shape.faults.push(faults::peer_name(import, &alias, "is no name that a service can have"));
        } else if view.object(KindName::Service, &alias).is_some() {
            shape.faults.push(faults::peer_name(import, &alias, "belongs to a Service of this cluster"));
        } else {
            shape.peer_names.insert(cluster.clone(), alias);
        }
    }
}
