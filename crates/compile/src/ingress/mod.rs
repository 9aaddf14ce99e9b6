//! Gateways: listeners, the routes that attach to them, and what their proxies serve.
//!
//! One unit of work is one Gateway with its ListenerSets and routes; its results are the proxy's configuration and the status of
//! all objects that it looked at. A route's status is put together from all of its parents.

mod addresses;
mod attach;
mod datagrams;
mod features;
mod hostname;
mod listeners;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use veer_core::inbound::MtlsMode;
use veer_core::ingress::{IngressListener, IngressPort, PortKind, Serves, proxy_of};
use veer_core::{Cidr, Inbound, Ingress, ObjectName, SpiffeId};
use veer_resources::{
    Diagnostic, FromNamespaces, GatewaySpec, Kind, KindName, ListenerParent, ListenerSpec, Object, ParentRef,
};

pub use self::addresses::{IngressProxy, ingress_proxies};
pub(crate) use self::addresses::{serves_class, wanted};
use self::attach::{Attachments, attach};
use self::datagrams::datagrams;
use self::features::SUPPORTED;
use self::listeners::{Listener, chooses, client_certificate, listeners};
use crate::catalog::ObjectKey;
use crate::faults;
use crate::links::age;
use crate::memo::Key;
use crate::status::{AddressStatus, ClassStatus, Condition, FeatureStatus, ListenersStatus, No, ParentStatus, Status};
use crate::view::View;

/// All that comes of one Gateway.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Front {
    /// `None`: it is somebody else's, or has nothing to serve.
    pub ingress: Option<Arc<Ingress>>,
    /// Its proxy, as a member of the mesh.
    pub inbound: Option<Arc<Inbound>>,
    /// Of the Gateway and its ListenerSets.
    pub statuses: BTreeMap<ObjectKey, Status>,
    /// Of routes, by the place of the parent among their `parentRefs`.
    pub parents: BTreeMap<ObjectKey, Vec<(usize, ParentStatus)>>,
    /// Services that routes attached to it lead to.
    pub services: BTreeSet<ObjectName>,
    pub faults: Vec<Diagnostic>,
}

/// Compiles one Gateway; parts that are equal to the last result are the last result.
pub(crate) fn front(view: View<'_>, name: &ObjectName, last: Option<&Front>) -> Front {
    let mut front = compile(view, name);
    if let Some(last) = last {
        keep(&mut front.ingress, &last.ingress);
        keep(&mut front.inbound, &last.inbound);
    }
    front
}

fn keep<T: PartialEq>(now: &mut Option<Arc<T>>, last: &Option<Arc<T>>) {
    if now == last {
        now.clone_from(last);
    }
}

fn compile(view: View<'_>, name: &ObjectName) -> Front {
    let mut front = Front::default();
    let Some((object, spec)) = view.object(KindName::Gateway, name).and_then(gateway) else { return front };
    if !serves_class(view, &spec.gateway_class_name) {
        return front;
    }
    let sets = ListenerSets::of(view, object, spec);
    let mut owners: Vec<(&Object, &[ListenerSpec])> = vec![(object, &spec.listeners)];
    owners.extend(sets.allowed.iter().copied());
    let mut all = listeners(view, (object, spec), &owners);
    let attached = attach(view, &mut all, &owners, &sets.refused, &mut front);

    let shown = spec.tls.backend.as_ref().and_then(|backend| backend.client_certificate_ref.as_ref());
    let shown = shown.map(|reference| client_certificate(view, object, reference));
    let (addresses, unusable) = addresses::usable(view, object, spec);
    let unaccepted = unaccepted(view, spec, &all, object);
    let is_refused = unaccepted.as_ref().is_some_and(|no| no.0 != "ListenersNotValid");
    let unprogrammed = unprogrammed(&unaccepted, &unusable, &all);
    for (object, specs) in &owners {
        let own: Vec<&Listener<'_>> = all.iter().filter(|listener| listener.owner.key() == object.key()).collect();
        debug_assert_eq!(own.len(), specs.len());
        own.iter().for_each(|listener| listener.faults(&mut front.faults));
        let status = match object.kind.name() {
            KindName::Gateway => {
                let sets = attached_sets(&sets, &all);
                let mut status = gateway_status(object, &own, sets, &addresses, &unaccepted, &unprogrammed);
                if let Some(shown) = &shown {
                    status.conditions.push(Condition::unless(object, "ResolvedRefs", shown.as_ref().err()));
                }
                status
            }
            _ => set_status(object, &own, unprogrammed.as_ref()),
        };
        front.statuses.insert(object.key(), Status::Listeners(status));
    }
    for (set, no) in &sets.refused {
        front.faults.push(faults::listener_set(set, &no.1));
        let conditions =
            vec![Condition::unless(set, "Accepted", Some(no)), Condition::unless(set, "Programmed", Some(no))];
        let status = ListenersStatus { conditions, ..ListenersStatus::default() };
        front.statuses.insert(set.key(), Status::Listeners(status));
    }
    for no in unaccepted.iter().filter(|no| no.0 != "ListenersNotValid").chain(&unusable) {
        front.faults.push(faults::gateway(object, no.0, &no.1));
    }
    let (client_certificate, unshown) = match shown {
        Some(Ok(certificate)) => (Some(certificate), None),
        Some(Err(no)) => (None, Some(no)),
        None => (None, None),
    };
    front.faults.extend(unshown.map(|no| faults::gateway(object, no.0, &no.1)));
    if is_refused || addresses.is_empty() {
        return front;
    }
    front.inbound = Some(Arc::new(member(view, name, addresses[0])));
    let ports = ports(view, &all, &attached, object.meta.proxy_protocol().as_ref());
    front.ingress = Some(Arc::new(Ingress {
        gateway: name.clone(),
        addresses,
        ports,
        http_routes: attached.into_http_routes(),
        client_certificate,
    }));
    front
}

fn gateway(object: &Object) -> Option<(&Object, &GatewaySpec)> {
    match &object.kind {
        Kind::Gateway(spec) => Some((object, spec)),
        _ => None,
    }
}

/// The status of a GatewayClass; `None`: it is somebody else's.
pub(crate) fn class_status(object: &Object) -> Option<Status> {
    let Kind::GatewayClass(spec) = &object.kind else { return None };
    if &*spec.controller_name != veer_resources::CONTROLLER_NAME {
        return None;
    }
    let no = spec.parameters_ref.map(|_| ("InvalidParameters", "spec.parametersRef is not supported".to_owned()));
    let conditions = vec![
        Condition::unless(object, "Accepted", no.as_ref()),
        Condition::yes(object, "SupportedVersion", "SupportedVersion"),
    ];
    // What is not accepted serves nothing.
    let supported = if no.is_some() { &[][..] } else { SUPPORTED };
    let supported_features = supported.iter().map(|name| FeatureStatus { name }).collect();
    Some(Status::Class(ClassStatus { conditions, supported_features }))
}

/// The ListenerSets that name a Gateway, in the order of precedence.
struct ListenerSets<'a> {
    allowed: Vec<(&'a Object, &'a [ListenerSpec])>,
    refused: Vec<(&'a Object, No)>,
}

impl<'a> ListenerSets<'a> {
    fn of(view: View<'a>, gateway: &Object, spec: &GatewaySpec) -> Self {
        let mut sets = Self { allowed: Vec::new(), refused: Vec::new() };
        let mut named: Vec<&Object> = view.listed(Key::ListenerSetsOf(gateway.name())).collect();
        named.sort_by_key(|set| age(set));
        let namespaces = &spec.allowed_listeners.namespaces;
        let from = namespaces.from.as_ref().unwrap_or(&FromNamespaces::Nobody);
        for set in named {
            let Kind::ListenerSet(its) = &set.kind else { continue };
            if chooses(view, from, &namespaces.selector, &gateway.meta.namespace, &set.meta.namespace) {
                sets.allowed.push((set, &its.listeners));
            } else {
                let message = format!("spec.allowedListeners of Gateway {} does not allow it", gateway.name());
                sets.refused.push((set, ("NotAllowed", message)));
            }
        }
        sets
    }
}

/// Why the Gateway is not accepted. Of its own listeners one that is valid is enough.
fn unaccepted(view: View<'_>, spec: &GatewaySpec, all: &[Listener<'_>], object: &Object) -> Option<No> {
    let class = view.object(KindName::GatewayClass, &ObjectName::new("", &spec.gateway_class_name));
    let class_refused = class.is_some_and(|class| match &class.kind {
        Kind::GatewayClass(spec) => spec.parameters_ref.is_some(),
        _ => false,
    });
    if class_refused {
        return Some(("InvalidParameters", "its GatewayClass is not accepted".to_owned()));
    }
    if spec.infrastructure.parameters_ref.is_some() {
        let message = "spec.infrastructure.parametersRef is not supported".to_owned();
        return Some(("InvalidParameters", message));
    }
    addresses::unsupported(spec).or_else(|| {
        let valid = all.iter().any(|listener| listener.owner.key() == object.key() && listener.is_served());
        (!valid).then(|| ("ListenersNotValid", "none of its listeners can be served".to_owned()))
    })
}

fn unprogrammed(unaccepted: &Option<No>, unusable: &Option<No>, all: &[Listener<'_>]) -> Option<No> {
    if let Some(no) = unaccepted.as_ref().filter(|no| no.0 != "ListenersNotValid") {
        return Some(("Invalid", no.1.clone()));
    }
    let nothing = || {
        (!all.iter().any(Listener::is_served)).then(|| ("Invalid", "none of its listeners can be served".to_owned()))
    };
    unusable.clone().or_else(nothing)
}

/// ListenerSets that are accepted: one of their listeners is served.
fn attached_sets(sets: &ListenerSets<'_>, all: &[Listener<'_>]) -> u32 {
    let serves = |set: &Object| all.iter().any(|listener| listener.owner.key() == set.key() && listener.is_served());
    u32::try_from(sets.allowed.iter().filter(|(set, _)| serves(set)).count()).unwrap_or(u32::MAX)
}

fn gateway_status(
    object: &Object,
    own: &[&Listener<'_>],
    attached_sets: u32,
    addresses: &[std::net::IpAddr],
    unaccepted: &Option<No>,
    unprogrammed: &Option<No>,
) -> ListenersStatus {
    let accepted = match unaccepted {
        None if !own.iter().all(|listener| listener.is_accepted()) => {
            let message = "not all of its listeners are valid".to_owned();
            Condition::new(object, "Accepted", true, "ListenersNotValid", message)
        }
        no => Condition::unless(object, "Accepted", no.as_ref()),
    };
    let mut conditions = vec![accepted, Condition::unless(object, "Programmed", unprogrammed.as_ref())];
    if own.iter().any(|listener| listener.clients.as_ref().is_some_and(|asked| asked.optional)) {
        let message = "clients without a valid certificate are let in".to_owned();
        let condition = "InsecureFrontendValidationMode";
        conditions.push(Condition::new(object, condition, true, "ConfigurationChanged", message));
    }
    let address = |address: &std::net::IpAddr| AddressStatus { address_type: "IPAddress", value: address.to_string() };
    ListenersStatus {
        addresses: addresses.iter().map(address).collect(),
        attached_listener_sets: Some(attached_sets),
        conditions,
        listeners: own.iter().map(|listener| listener.status(unprogrammed.as_ref())).collect(),
    }
}

fn set_status(object: &Object, own: &[&Listener<'_>], unprogrammed: Option<&No>) -> ListenersStatus {
    let valid = own.iter().any(|listener| listener.is_served());
    let accepted = match (valid, own.iter().all(|listener| listener.is_accepted())) {
        (true, true) => Condition::yes(object, "Accepted", "Accepted"),
        (valid, _) => {
            let message =
                if valid { "not all of its listeners are valid" } else { "none of its listeners can be served" };
            Condition::new(object, "Accepted", valid, "ListenersNotValid", message.to_owned())
        }
    };
    let nothing = (!valid).then(|| ("ListenersNotValid", "none of its listeners can be served".to_owned()));
    ListenersStatus {
        conditions: vec![accepted, Condition::unless(object, "Programmed", nothing.as_ref().or(unprogrammed))],
        listeners: own.iter().map(|listener| listener.status(unprogrammed)).collect(),
        ..ListenersStatus::default()
    }
}

/// The proxy as a member of the mesh: it has an identity, and nobody calls it.
fn member(view: View<'_>, gateway: &ObjectName, address: std::net::IpAddr) -> Inbound {
    let (cluster, proxy) = (view.cluster(), proxy_of(gateway));
    Inbound {
        identity: SpiffeId::new(cluster.trust_domain.clone(), &proxy.namespace, &proxy.name),
        workload: proxy,
        cluster: cluster.name.clone(),
        address,
        locality: cluster.locality.clone(),
        mesh_port: cluster.mesh_port,
        mtls: MtlsMode::Strict,
        ports: Vec::new(),
        authorization: Vec::new(),
        offered_to: Vec::new(),
        rotate: cluster.rotate,
    }
}

fn ports(
    view: View<'_>,
    all: &[Listener<'_>],
    attached: &Attachments,
    balancers: Option<&Arc<[Cidr]>>,
) -> Vec<IngressPort> {
    let mut ports: BTreeMap<(u16, PortKind), Vec<IngressListener>> = BTreeMap::new();
    for (at, listener) in all.iter().enumerate().filter(|(_, listener)| listener.is_served()) {
        let Some(kind) = listener.port_kind() else { continue };
        let is_http = listener.kinds.iter().any(|kind| matches!(*kind, "HTTPRoute" | "GRPCRoute"));
        let serves = match kind {
            PortKind::Udp => {
                let routes = attached.streams(at);
                Serves::Datagrams(routes.iter().map(|attached| datagrams(view, &attached.route)).collect())
            }
            _ if is_http => Serves::Http(attached.http(at)),
            _ => Serves::Bytes(attached.streams(at)),
        };
        ports.entry((listener.spec.port, kind)).or_default().push(IngressListener {
            name: listener.name(),
            hostname: listener.hostname.clone(),
            certificates: listener.certificates.clone(),
            clients: listener.clients.clone(),
            serves,
        });
    }
    // Datagrams have no beginning that a header could stand at.
    let announced = |kind| balancers.filter(|_| kind != PortKind::Udp).cloned();
    let port = |((port, kind), listeners)| IngressPort { port, kind, proxy_protocol: announced(kind), listeners };
    ports.into_iter().map(port).collect()
}

/// What a parent with listeners is called in keys: the Gateway, or the ListenerSet.
pub(crate) fn listener_kind(parent: ListenerParent) -> KindName {
    match parent {
        ListenerParent::Gateway => KindName::Gateway,
        ListenerParent::ListenerSet => KindName::ListenerSet,
    }
}

/// Whether a parent is a Gateway that Veer serves, or adds listeners to one.
pub(crate) fn serves(view: View<'_>, object: &Object, parent: &ParentRef) -> bool {
    let Some(kind) = parent.listeners() else { return false };
    let namespace = parent.namespace.as_ref().unwrap_or(&object.meta.namespace);
    let name = ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(&parent.name) };
    match view.object(listener_kind(kind), &name).map(|object| (object, &object.kind)) {
        Some((_, Kind::Gateway(spec))) => serves_class(view, &spec.gateway_class_name),
        Some((set, Kind::ListenerSet(spec))) => {
            let gateway = &spec.parent_ref;
            let namespace = gateway.namespace.as_ref().unwrap_or(&set.meta.namespace);
            let gateway = ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(&gateway.name) };
            match view.object(KindName::Gateway, &gateway).map(|object| &object.kind) {
                Some(Kind::Gateway(spec)) => serves_class(view, &spec.gateway_class_name),
                _ => false,
            }
        }
        _ => false,
    }
}
