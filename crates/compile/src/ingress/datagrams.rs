//! Where datagrams lead: endpoints of this cluster, in clear text, for nothing of the mesh carries them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use veer_core::ObjectName;
use veer_core::ingress::DatagramRoute;
use veer_core::route::TcpRoute;
use veer_resources::{AddressType, EndpointSlice, Kind, PortRef, ServicePort, Transport, WorkloadSpec};

use crate::memo::Key;
use crate::view::View;

/// A route with the endpoints of each of its backends.
pub(super) fn datagrams(view: View<'_>, route: &TcpRoute) -> DatagramRoute {
    let endpoints = route.backends.iter().map(|backend| match backend.host.object() {
        Some(service) if backend.invalid.is_none() => endpoints(view, &service, backend.port),
        _ => Vec::new(),
    });
    DatagramRoute { name: route.name.clone(), endpoints: endpoints.collect(), backends: route.backends.clone() }
}

/// The endpoints of a Service that take something new, ascending.
fn endpoints(view: View<'_>, name: &ObjectName, port: u16) -> Vec<SocketAddr> {
    let Some((object, spec)) = view.service(name) else { return Vec::new() };
    let Some(port) = spec.ports.iter().find(|one| one.port == port && one.protocol == Transport::Udp) else {
        return Vec::new();
    };
    let not_ready_too = spec.publish_not_ready_addresses;
    let mut found = BTreeSet::new();
    for (_, workload) in view.selected(&object.meta.namespace, &spec.selector) {
        if workload.is_up() && (workload.ready || not_ready_too) {
            found.extend(target(workload, port).map(|number| SocketAddr::new(workload.address, number)));
        }
    }
    for object in view.listed(Key::SlicesOf(name.clone())) {
        let Kind::EndpointSlice(slice) = &object.kind else { continue };
        if matches!(slice.address_type, AddressType::Fqdn | AddressType::Unknown(_)) {
            continue;
        }
        let Some(number) = slice_port(slice, port) else { continue };
        let ready = slice.endpoints.iter().filter(|member| member.conditions.is_ready() || not_ready_too);
        let addresses = ready.filter_map(|member| member.addresses.first()?.parse().ok());
        found.extend(addresses.map(|address| SocketAddr::new(address, number)));
    }
    found.into_iter().collect()
}

/// The application's own port: no proxy stands before it.
fn target(workload: &WorkloadSpec, port: &ServicePort) -> Option<u16> {
    let target = port.target();
    match (workload.port(&target), &target) {
        (Some(listed), _) => Some(listed.app_port()),
        (None, PortRef::Number(number)) => Some(*number),
        (None, PortRef::Name(_)) => None,
    }
}

fn slice_port(slice: &EndpointSlice, port: &ServicePort) -> Option<u16> {
    let named = |name: &Option<std::sync::Arc<str>>| name.clone().filter(|name| !name.is_empty());
    let same = slice.ports.iter().find(|one| one.protocol == Transport::Udp && named(&one.name) == named(&port.name));
    same?.port
}
