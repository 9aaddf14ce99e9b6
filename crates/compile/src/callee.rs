//! The callee's side of a workload: its ports, who may call it, and whom it was offered to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use veer_core::inbound::{MtlsMode, OfferedTo};
use veer_core::{AppProtocol, ClusterName, Inbound, InboundPort, ObjectName};
use veer_resources::{Diagnostic, Kind, KindName, Object, ServiceSpec, WorkloadSpec, selects};

use crate::faults;
use crate::members::{identity, locality, slice_ports, target_ports};
use crate::memo::Key;
use crate::policies::rate_limits;
use crate::view::{View, is_system, workload};

/// What comes of one Workload.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Callee {
    /// `None`: the workload is ignored.
    pub inbound: Option<Arc<Inbound>>,
    pub faults: Vec<Diagnostic>,
}

/// Compiles one workload.
pub(crate) fn callee(view: View<'_>, name: &ObjectName) -> Callee {
    let mut callee = Callee::default();
    let Some((object, spec)) = view.object(KindName::Workload, name).and_then(workload) else { return callee };
    if is_system(object) {
        callee.faults.push(faults::system_namespace(object));
    } else if let Some(owner) = view.owner_of(spec.address).filter(|owner| owner.name() != *name) {
        callee.faults.push(faults::workload_address(object, owner));
    } else {
        callee.inbound = Some(Arc::new(inbound(view, object, spec)));
    }
    callee
}

fn inbound(view: View<'_>, object: &Object, spec: &WorkloadSpec) -> Inbound {
    let cluster = view.cluster();
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    for port in &spec.ports {
        let app = SocketAddr::new(spec.address, port.app_port());
        let inbound = InboundPort {
            port: port.port,
            app,
            protocol: port.app(),
            service: None,
            capacity: spec.capacity,
            limits: Vec::new(),
        };
        ports.entry(port.port).or_insert(inbound);
    }
    // By peer the ports that it is offered, and whether every offer of a port is for safe methods only.
    let mut offered: BTreeMap<ClusterName, BTreeMap<u16, bool>> = BTreeMap::new();
    for (service, its) in services_of(view, object, spec) {
        let name = service.name();
        let Some(shape) = view.shape(&name) else { continue };
        let limits = rate_limits(view, &name);
        for (target, protocol) in targets(view, service, its, spec) {
            let port = ports.entry(target).or_insert_with(|| InboundPort {
                port: target,
                app: SocketAddr::new(spec.address, target),
                protocol: AppProtocol::Detect,
                service: None,
                capacity: spec.capacity,
                limits: Vec::new(),
            });
            if port.protocol == AppProtocol::Detect {
                port.protocol = protocol;
            }
            port.service.get_or_insert_with(|| Arc::clone(&name.name));
            port.limits.extend(limits.iter().cloned());
            for peer in &shape.audience {
                *offered.entry(peer.clone()).or_default().entry(target).or_insert(true) &= shape.safe_only;
            }
        }
    }
    let offered_to = offered.into_iter().filter_map(|(peer, ports)| {
        let trust_domain = view.peer(&peer)?.trust_domain.clone();
        let safe_only = ports.iter().filter(|(_, safe)| **safe).map(|(port, _)| *port).collect();
        Some(OfferedTo { trust_domain, cluster: Some(peer), ports: ports.into_keys().collect(), safe_only })
    });
    Inbound {
        workload: object.name(),
        cluster: cluster.name.clone(),
        identity: identity(view, object, spec),
        address: spec.address,
        locality: locality(view, &spec.locality),
        mesh_port: cluster.mesh_port,
        mtls: mtls(view, object),
        ports: ports.into_values().collect(),
        authorization: authorization(view, object),
        offered_to: offered_to.collect(),
        rotate: cluster.rotate,
    }
}

/// Services that the workload serves, by name: those whose selector selects it, and those with it in an EndpointSlice.
fn services_of<'a>(view: View<'a>, object: &Object, spec: &WorkloadSpec) -> Vec<(&'a Object, &'a ServiceSpec)> {
    let namespace = &object.meta.namespace;
    let mut found: BTreeMap<ObjectName, (&Object, &ServiceSpec)> = BTreeMap::new();
    for (key, value) in &object.meta.labels {
        for service in view.listed(Key::Selector(Arc::clone(namespace), Arc::clone(key), Arc::clone(value))) {
            if let Kind::Service(its) = &service.kind
                && selects(&its.selector, &object.meta.labels)
            {
                found.insert(service.name(), (service, its));
            }
        }
    }
    for slice in view.listed(Key::SlicesAt(spec.address)) {
        let Some(name) = slice.meta.labels.get(veer_resources::SERVICE_NAME_LABEL) else { continue };
        let name = ObjectName { namespace: Arc::clone(&slice.meta.namespace), name: Arc::clone(name) };
        if let Some((service, its)) = view.service(&name) {
            found.insert(name, (service, its));
        }
    }
    found.into_values().collect()
}

/// Ports of the workload that a service leads to, and what the service says is spoken there.
fn targets(view: View<'_>, service: &Object, its: &ServiceSpec, workload: &WorkloadSpec) -> BTreeMap<u16, AppProtocol> {
    let mut targets = BTreeMap::new();
    let mut lead = |target: u16, service_port: u16| {
        let protocol = its.ports.iter().find(|p| p.port == service_port).map(|p| p.app()).unwrap_or_default();
        let said = targets.entry(target).or_insert(protocol);
        if *said == AppProtocol::Detect {
            *said = protocol;
        }
    };
    if !its.selector.is_empty() {
        for (_, service_port, target) in target_ports(its, workload) {
            if let Ok(target) = target {
                lead(target, service_port);
            }
        }
    }
    for slice in view.listed(Key::SlicesOf(service.name())) {
        let Kind::EndpointSlice(slice) = &slice.kind else { continue };
        let holds = |e: &veer_resources::SliceEndpoint| {
            e.addresses.first().and_then(|a| a.parse().ok()) == Some(workload.address)
        };
        if slice.endpoints.iter().any(holds) {
            for port in slice_ports(its, slice) {
                lead(port.target_port, port.service_port);
            }
        }
    }
    targets
}

/// The workload's word, else its namespace's, else permissive. A word that could not be read is strict.
fn mtls(view: View<'_>, object: &Object) -> MtlsMode {
    let namespace = ObjectName { namespace: Arc::default(), name: Arc::clone(&object.meta.namespace) };
    let of = |object: &Object| if object.failed_closed { Some(MtlsMode::Strict) } else { object.meta.mtls() };
    of(object).or_else(|| of(view.object(KindName::Namespace, &namespace)?)).unwrap_or_default()
}

/// Policies of the workload's namespace that select it, by name.
fn authorization(view: View<'_>, object: &Object) -> Vec<veer_core::policy::AuthorizationPolicy> {
    let listed = view.listed(Key::Authorization(Arc::clone(&object.meta.namespace)));
    let policy = |policy: &Object| match &policy.kind {
        Kind::AuthorizationPolicy(spec) if spec.selects(&object.meta.labels) => Some(spec.policy(&policy.name())),
        _ => None,
    };
    listed.filter_map(policy).collect()
}
