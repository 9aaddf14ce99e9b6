//! Who serves a Service in this cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use veer_core::{Endpoint, EndpointPort, Locality, ObjectName, SpiffeId};
use veer_resources::{
    AddressType, Diagnostic, EndpointSlice, Kind, Object, PortRef, ServiceSpec, SliceEndpoint, Transport, WorkloadSpec,
};

use crate::faults;
use crate::memo::Key;
use crate::view::View;

/// Endpoints of a Service in this cluster, by workload: workloads that its selector selects, and members of its
/// EndpointSlices. A member whose address belongs to a Workload *is* that workload; any other is not in the mesh.
pub(crate) fn members(
    view: View<'_>,
    object: &Object,
    spec: &ServiceSpec,
    faults: &mut Vec<Diagnostic>,
) -> Vec<Endpoint> {
    let mut found: BTreeMap<IpAddr, Endpoint> = BTreeMap::new();
    let selected = view.selected(&object.meta.namespace, &spec.selector);
    let slices: Vec<&Object> = view.listed(Key::SlicesOf(object.name())).collect();
    if selected.is_empty() && slices.is_empty() && !object.meta.is_clusterset_scoped() {
        faults.push(faults::nobody_serves(object));
    }
    for (workload, its) in selected {
        if its.is_up() {
            let mut endpoint = meshed(view, workload, its);
            endpoint.ports = ports(object, spec, workload, its, faults);
            endpoint.ready |= spec.publish_not_ready_addresses;
            found.insert(its.address, endpoint);
        }
    }
    for slice_object in slices {
        let Kind::EndpointSlice(slice) = &slice_object.kind else { continue };
        if matches!(slice.address_type, AddressType::Fqdn | AddressType::Unknown(_)) {
            continue;
        }
        let ports = slice_ports(spec, slice);
        for member in &slice.endpoints {
            let Some(address) = member.addresses.first().and_then(|a| a.parse().ok()) else { continue };
            add_member(view, object, spec, member, address, &ports, &mut found);
        }
    }
    let mut endpoints: Vec<Endpoint> = found.into_values().filter(|endpoint| !endpoint.ports.is_empty()).collect();
    endpoints.sort_by(|a, b| (&a.workload, a.address).cmp(&(&b.workload, b.address)));
    endpoints
}

/// The ports of a workload that a Service leads to: service port, workload port. Also used by the callee's side.
pub(crate) fn target_ports<'a>(
    spec: &'a ServiceSpec,
    workload: &'a WorkloadSpec,
) -> impl Iterator<Item = (usize, u16, Result<u16, Arc<str>>)> + 'a {
    let tcp = spec.ports.iter().enumerate().filter(|(_, port)| port.protocol == Transport::Tcp);
    tcp.map(|(index, port)| {
        let target = match port.target() {
            // A number counts also when the workload does not list it, as with a Pod's containerPort.
            PortRef::Number(number) => Ok(number),
            PortRef::Name(name) => workload.port(&PortRef::Name(Arc::clone(&name))).map(|port| port.port).ok_or(name),
        };
        (index, port.port, target)
    })
}

/// Where a Service's ports lead at the members of a slice: by the port's name.
pub(crate) fn slice_ports(spec: &ServiceSpec, slice: &EndpointSlice) -> Vec<EndpointPort> {
    let named = |name: &Option<Arc<str>>| name.clone().filter(|name| !name.is_empty());
    let lead = |port: &veer_resources::ServicePort| {
        let at = slice.ports.iter().find(|p| p.protocol == Transport::Tcp && named(&p.name) == named(&port.name))?;
        Some(EndpointPort { service_port: port.port, target_port: at.port?, token: Arc::default() })
    };
    spec.ports.iter().filter(|port| port.protocol == Transport::Tcp).filter_map(lead).collect()
}

/// The identity of a workload of this cluster.
pub(crate) fn identity(view: View<'_>, object: &Object, spec: &WorkloadSpec) -> SpiffeId {
    SpiffeId::new(view.cluster().trust_domain.clone(), &object.meta.namespace, &spec.service_account)
}

/// Where a workload runs: as it says, else as its cluster.
pub(crate) fn locality(view: View<'_>, said: &Locality) -> Locality {
    let own = &view.cluster().locality;
    let or = |said: &Arc<str>, own: &Arc<str>| if said.is_empty() { Arc::clone(own) } else { Arc::clone(said) };
    // A workload that names another region does not stand in this cluster's zone.
    let zone = if said.region.is_empty() || said.region == own.region {
        or(&said.zone, &own.zone)
    } else {
        Arc::clone(&said.zone)
    };
    Locality { region: or(&said.region, &own.region), zone }
}

fn meshed(view: View<'_>, object: &Object, spec: &WorkloadSpec) -> Endpoint {
    Endpoint {
        workload: object.name(),
        address: spec.address,
        ports: Vec::new(),
        identity: Some(identity(view, object, spec)),
        mesh_port: view.cluster().mesh_port,
        locality: locality(view, &spec.locality),
        ready: spec.ready,
        capacity: spec.capacity,
    }
}

fn ports(
    service: &Object,
    spec: &ServiceSpec,
    workload: &Object,
    its: &WorkloadSpec,
    faults: &mut Vec<Diagnostic>,
) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = Vec::new();
    for (index, service_port, target) in target_ports(spec, its) {
        match target {
            Ok(target_port) if ports.iter().all(|p| p.service_port != service_port) => {
                ports.push(EndpointPort { service_port, target_port, token: Arc::default() });
            }
            Ok(_) => {}
            Err(name) => faults.push(faults::target_port(service, index, &name, &workload.name())),
        }
    }
    ports.sort_by_key(|port| port.service_port);
    ports
}

fn add_member(
    view: View<'_>,
    service: &Object,
    spec: &ServiceSpec,
    member: &SliceEndpoint,
    address: IpAddr,
    ports: &[EndpointPort],
    found: &mut BTreeMap<IpAddr, Endpoint>,
) {
    let ready = member.conditions.is_ready() || spec.publish_not_ready_addresses;
    if let Some(known) = found.get_mut(&address) {
        known.ready &= ready;
        let new = ports.iter().filter(|p| known.ports.iter().all(|k| k.service_port != p.service_port)).cloned();
        let new: Vec<EndpointPort> = new.collect();
        known.ports.extend(new);
        known.ports.sort_by_key(|port| port.service_port);
        return;
    }
    let mut endpoint = match view.workload_at(address) {
        Some((_, its)) if !its.is_up() => return,
        Some((workload, its)) => {
            let mut endpoint = meshed(view, workload, its);
            endpoint.ready &= ready;
            endpoint
        }
        None => {
            let named = member.target_ref.as_ref().and_then(|target| {
                let namespace = target.namespace.as_ref().unwrap_or(&service.meta.namespace);
                Some(ObjectName { namespace: Arc::clone(namespace), name: target.name.clone()? })
            });
            let zone = member.zone.clone().unwrap_or_default();
            Endpoint {
                workload: named.unwrap_or_else(|| ObjectName::new(&service.meta.namespace, &address.to_string())),
                address,
                ports: Vec::new(),
                identity: None,
                mesh_port: 0,
                locality: locality(view, &Locality { region: Arc::default(), zone }),
                ready,
                capacity: None,
            }
        }
    };
    endpoint.ports = ports.to_vec();
    endpoint.ports.sort_by_key(|port| port.service_port);
    found.insert(address, endpoint);
}
