//! Route objects: what they attach to, and where their backends lead.

use std::collections::BTreeMap;
use std::sync::Arc;

use veer_core::route::{Backend, HttpRoute, TcpRoute};
use veer_core::{AppProtocol, ObjectName, ServiceHost};
use veer_resources::{
    BackendRef, Diagnostic, GATEWAY_GROUP, Kind, KindName, Location, MCS_GROUP, Object, ParentRef, TargetKind,
    TcpRouteRule, Transport,
};

use crate::external;
use crate::faults;
use crate::http::{grpc_rules, http_rules};
use crate::ingress;
use crate::links::age;
use crate::memo::{Key, Memo};
use crate::route_status::{backend_refs, partial};
use crate::shape::Port;
use crate::status::No;
use crate::view::View;

/// Something that routes and policies attach to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Parent {
    pub kind: TargetKind,
    pub name: ObjectName,
}

/// One route object, translated.
#[derive(Debug, PartialEq)]
pub(crate) struct Route {
    parents: Vec<(Parent, Option<Vec<u16>>)>,
    /// As written.
    pub parent_refs: Vec<ParentRef>,
    pub act: Act,
    /// What became of it at Services and ServiceImports, by the place of the parent.
    pub mesh: Vec<(usize, Option<No>)>,
    /// Why not all of its backends can serve.
    pub unresolved: Option<No>,
    /// Why not all of its rules are served as written.
    pub partial: Option<String>,
    /// Ties are broken by age, then name.
    age: (bool, Arc<str>, ObjectName),
    at: Location,
    pub faults: Vec<Diagnostic>,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    Http(Arc<HttpRoute>),
    Tcp(Arc<TcpRoute>),
}

/// A route at one of its parents.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attached {
    /// `None`: all ports.
    pub ports: Option<Vec<u16>>,
    /// Consumer routes name the namespace of the callers that they are for.
    pub act: Act,
    pub at: Location,
    age: (bool, Arc<str>, ObjectName),
}

/// Translates a route object.
pub(crate) fn route(view: View<'_>, key: &(KindName, ObjectName)) -> Option<Route> {
    let object = view.object(key.0, &key.1)?;
    let mut faults = Vec::new();
    let name = object.name();
    let created = object.meta.creation_timestamp.clone();
    let http = |kind, rules| {
        let route = HttpRoute {
            name: name.clone(),
            kind,
            created: created.clone(),
            consumer_namespace: None,
            owner: None,
            parent_port: None,
            rules,
        };
        Act::Http(Arc::new(route))
    };
    let (act, parents) = match &object.kind {
        Kind::HttpRoute(spec) => {
            let rules = http_rules(view, object, spec, &mut faults);
            (http(veer_core::route::RouteKind::Http, rules), &spec.parent_refs)
        }
        Kind::GrpcRoute(spec) => {
            let rules = grpc_rules(view, object, spec, &mut faults);
            (http(veer_core::route::RouteKind::Grpc, rules), &spec.parent_refs)
        }
        Kind::TcpRoute(spec) => (bytes(view, object, &spec.rules, &mut faults), &spec.parent_refs),
        Kind::TlsRoute(spec) => (bytes(view, object, &spec.rules, &mut faults), &spec.parent_refs),
        Kind::UdpRoute(spec) => (bytes(view, object, &spec.rules, &mut faults), &spec.parent_refs),
        _ => return None,
    };
    // A route that is meant for none of our kinds is someone else's: its backends are not ours to judge.
    if !parents.iter().any(|parent| parent.target().is_some() || ingress::serves(view, object, parent)) {
        return None;
    }
    let mut attached = Vec::new();
    let mut mesh = Vec::new();
    for (index, parent) in parents.iter().enumerate() {
        match parent.target().map(|kind| attach(view, object, index, kind, parent, &mut faults)) {
            Some(Ok(at)) => {
                attached.push(at);
                mesh.push((index, None));
            }
            Some(Err(no)) => mesh.push((index, Some(no))),
            None => {}
        }
    }
    let unresolved = backend_refs(object).find_map(|reference| {
        let namespace = reference.namespace.as_ref().unwrap_or(&object.meta.namespace);
        let name = ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(&reference.name) };
        resolve(view, object, reference, &name).err()
    });
    Some(Route {
        parents: attached,
        parent_refs: parents.clone(),
        mesh,
        unresolved: unresolved.filter(|no| no.0 != "UnsupportedValue"),
        partial: partial(&act),
        act,
        age: age(object),
        at: object.at.clone(),
        faults,
    })
}

/// A route whose only rule leads bytes.
fn bytes(view: View<'_>, object: &Object, rules: &[TcpRouteRule], faults: &mut Vec<Diagnostic>) -> Act {
    let refs = rules.first().map_or(&[][..], |rule| &rule.backend_refs);
    let backends = backends(view, object, "spec.rules[0].backendRefs", refs, faults);
    Act::Tcp(Arc::new(TcpRoute {
        name: object.name(),
        consumer_namespace: None,
        owner: None,
        parent_port: None,
        backends,
    }))
}

/// Every route at every parent, the older first, then by name.
pub(crate) fn attachments(routes: &Memo<(KindName, ObjectName), Option<Route>>) -> BTreeMap<Parent, Vec<Attached>> {
    let mut all: BTreeMap<Parent, Vec<Attached>> = BTreeMap::new();
    for route in routes.iter().filter_map(|(_, route)| route.as_ref().as_ref()) {
        for (parent, ports) in &route.parents {
            let act = route.act.clone();
            let consumer = (act.name().namespace != parent.name.namespace).then(|| Arc::clone(&act.name().namespace));
            let act = if consumer.is_some() { act.for_callers_in(consumer) } else { act };
            let attached = Attached { ports: ports.clone(), act, at: route.at.clone(), age: route.age.clone() };
            all.entry(parent.clone()).or_default().push(attached);
        }
    }
    for attached in all.values_mut() {
        attached.sort_by(|a, b| a.age.cmp(&b.age));
    }
    all
}

impl Act {
    pub fn name(&self) -> &ObjectName {
        match self {
            Act::Http(route) => &route.name,
            Act::Tcp(route) => &route.name,
        }
    }

    pub fn consumer(&self) -> Option<&Arc<str>> {
        match self {
            Act::Http(route) => route.consumer_namespace.as_ref(),
            Act::Tcp(route) => route.consumer_namespace.as_ref(),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Act::Http(route) if route.kind == veer_core::route::RouteKind::Grpc => "GRPCRoute",
            Act::Http(_) => "HTTPRoute",
            Act::Tcp(_) => "TCPRoute",
        }
    }

    fn for_callers_in(&self, consumer_namespace: Option<Arc<str>>) -> Act {
        match self {
            Act::Http(route) => Act::Http(Arc::new(HttpRoute { consumer_namespace, ..(**route).clone() })),
            Act::Tcp(route) => Act::Tcp(Arc::new(TcpRoute { consumer_namespace, ..(**route).clone() })),
        }
    }
}

fn attach(
    view: View<'_>,
    object: &Object,
    index: usize,
    kind: TargetKind,
    parent: &ParentRef,
    faults: &mut Vec<Diagnostic>,
) -> Result<(Parent, Option<Vec<u16>>), No> {
    let namespace = parent.namespace.as_ref().unwrap_or(&object.meta.namespace);
    let name = ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(&parent.name) };
    let Some((_, ports)) = target(view, kind, &name) else {
        let what = format!("{} {name}", kind_name(kind));
        faults.push(faults::parent_nowhere(object, index, &what));
        return Err(("NoMatchingParent", format!("{what} does not exist")));
    };
    if matches!(object.kind.name(), KindName::TlsRoute | KindName::UdpRoute) {
        let reason = format!("a {} acts at Gateways only", object.kind.name());
        faults.push(faults::parent_port(object, index, &reason));
        return Err(("UnsupportedValue", reason));
    }
    let chosen = if parent.port.is_none() && parent.section_name.is_none() {
        None
    } else {
        let wanted = |port: &&Port| {
            parent.port.is_none_or(|number| number == port.port)
                && parent.section_name.as_ref().is_none_or(|section| Some(section) == port.name.as_ref())
        };
        let chosen: Vec<u16> = ports.iter().filter(wanted).map(|port| port.port).collect();
        if chosen.is_empty() {
            let which = match (&parent.port, &parent.section_name) {
                (Some(port), _) => format!("{} {name} has no such port {port}", kind_name(kind)),
                (None, section) => {
                    format!("{} {name} has no port named {:?}", kind_name(kind), section.as_deref().unwrap_or(""))
                }
            };
            faults.push(faults::parent_port(object, index, &which));
            return Err(("NoMatchingParent", which));
        }
        Some(chosen)
    };
    // A route of requests acts where requests can be seen.
    let visible =
        |port: &&Port| chosen.as_ref().is_none_or(|c| c.contains(&port.port)) && acts_on(object.kind.name(), port);
    if !ports.is_empty() && !ports.iter().any(|port| visible(&port)) {
        let reason =
            format!("none of these ports of {} {name} speaks what a {} acts on", kind_name(kind), object.kind.name());
        faults.push(faults::parent_port(object, index, &reason));
        return Err(("NotAllowedByListeners", reason));
    }
    Ok((Parent { kind, name }, chosen))
}

/// Whether a route of the kind can act on a port of this protocol.
fn acts_on(kind: KindName, port: &Port) -> bool {
    match kind {
        KindName::TcpRoute => !port.protocol.is_http(),
        _ => port.protocol != veer_core::AppProtocol::Tcp,
    }
}

/// The host that a Service or ServiceImport by this name stands for, and its ports. Per-cluster names count as either kind.
pub(crate) fn target(view: View<'_>, kind: TargetKind, name: &ObjectName) -> Option<(ServiceHost, Vec<Port>)> {
    let shape = view.shape(name);
    let own = match kind {
        TargetKind::Service => shape
            .and_then(|s| s.local.as_ref())
            .and_then(|l| Some((ServiceHost::cluster_local(name).ok()?, l.ports.clone()))),
        TargetKind::ServiceImport => shape
            .and_then(|s| s.set.as_ref())
            .and_then(|s| Some((ServiceHost::clusterset(name).ok()?, s.ports.clone()))),
    };
    own.or_else(|| {
        let (base, peer) = view.alias(name)?;
        let import = view.import(base, peer)?;
        let port = |p: &veer_core::offer::OfferPort| Port { port: p.port, name: p.name.clone(), protocol: p.protocol };
        Some((ServiceHost::cluster_local(name).ok()?, import.ports.iter().map(port).collect()))
    })
}

/// Where backends lead; what is wrong with one is said at its place and makes it `invalid`.
pub(crate) fn backends(
    view: View<'_>,
    route: &Object,
    path: &str,
    refs: &[BackendRef],
    faults: &mut Vec<Diagnostic>,
) -> Vec<Backend> {
    let mut backends = Vec::with_capacity(refs.len());
    for (index, reference) in refs.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let backend = backend(view, route, reference);
        // A kind that cannot be a backend was told when the object was read.
        let known = reference.target().is_some() || reference.is_xbackend();
        if let (Some(reason), true) = (&backend.invalid, known) {
            faults.push(faults::backend(route, &path, reason));
        }
        backends.push(backend);
    }
    backends
}

/// Where one reference leads, without its filters.
pub(crate) fn backend(view: View<'_>, route: &Object, reference: &BackendRef) -> Backend {
    let namespace = reference.namespace.as_ref().unwrap_or(&route.meta.namespace);
    let name = ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(&reference.name) };
    let outcome = resolve(view, route, reference, &name);
    let (host, port, protocol, invalid) = match outcome {
        Ok((host, port, protocol)) => (host, port, protocol, None),
        Err((_, reason)) => {
            let host = match reference.target() {
                None if reference.is_xbackend() => ServiceHost::external(&name),
                Some(TargetKind::ServiceImport) => ServiceHost::clusterset(&name),
                _ => ServiceHost::cluster_local(&name),
            };
            (host.unwrap_or_else(|_| nowhere()), reference.port.unwrap_or(0), None, Some(Arc::from(reason)))
        }
    };
    Backend { host, port, weight: reference.weight, invalid, filters: Vec::new(), protocol }
}

fn resolve(
    view: View<'_>,
    route: &Object,
    reference: &BackendRef,
    name: &ObjectName,
) -> Result<(ServiceHost, u16, Option<AppProtocol>), No> {
    if reference.is_xbackend() {
        return outside(view, route, reference, name);
    }
    let kind = reference.target().ok_or_else(|| {
        let (kind, group) = (&reference.kind, &reference.group);
        ("InvalidKind", format!("there is no kind {kind} in the group {group:?} to lead to"))
    })?;
    let group = if kind == TargetKind::ServiceImport { MCS_GROUP } else { "" };
    if name.namespace != route.meta.namespace && !granted(view, route, group, kind_name(kind), name) {
        let from = format!("{} of namespace {}", route.kind.name(), route.meta.namespace);
        let (namespace, kind) = (&name.namespace, kind_name(kind));
        let message = format!("no ReferenceGrant in namespace {namespace} lets a {from} lead to {kind} {name}");
        return Err(("RefNotPermitted", message));
    }
    let missing = |message: String| ("BackendNotFound", message);
    if let Kind::UdpRoute(_) = route.kind {
        return datagram_port(view, kind, name, reference);
    }
    let (host, ports) =
        target(view, kind, name).ok_or_else(|| missing(format!("{} {name} does not exist", kind_name(kind))))?;
    let leads_bytes = matches!(route.kind, Kind::TcpRoute(_) | Kind::TlsRoute(_) | Kind::UdpRoute(_));
    if !reference.filters.is_empty() && leads_bytes {
        return Err(("UnsupportedValue", format!("a {} has no filters", route.kind.name())));
    }
    let port = match (reference.port, &ports[..]) {
        (Some(port), _) => port,
        (None, [only]) if kind == TargetKind::ServiceImport => only.port,
        (None, _) => return Err(missing(format!("the reference to {} {name} names no port", kind_name(kind)))),
    };
    let found = ports.iter().find(|p| p.port == port);
    let no_port = || missing(format!("{} {name} has no port {port}", kind_name(kind)));
    Ok((host, port, Some(found.map(|p| p.protocol).ok_or_else(no_port)?)))
}

/// An XBackend has one port of its own; a reference need not name it.
fn outside(
    view: View<'_>,
    route: &Object,
    reference: &BackendRef,
    name: &ObjectName,
) -> Result<(ServiceHost, u16, Option<AppProtocol>), No> {
    let kind = KindName::XBackend;
    if name.namespace != route.meta.namespace && !granted(view, route, kind.group(), kind.as_str(), name) {
        let from = format!("{} of namespace {}", route.kind.name(), route.meta.namespace);
        let message = format!("no ReferenceGrant in namespace {} lets a {from} lead to {kind} {name}", name.namespace);
        return Err(("RefNotPermitted", message));
    }
    if let Kind::UdpRoute(_) = route.kind {
        return Err(("InvalidKind", "datagrams do not leave the cluster: a Service must be named".to_owned()));
    }
    let (host, port, protocol) = external::target(view, name)?;
    if let Some(other) = reference.port.filter(|other| *other != port) {
        return Err(("BackendNotFound", format!("XBackend {name} has port {port}, and no port {other}")));
    }
    let of_requests = matches!(route.kind, Kind::HttpRoute(_) | Kind::GrpcRoute(_));
    if of_requests && protocol == Some(AppProtocol::Tcp) {
        let message = format!("XBackend {name} takes bytes, and a {} leads requests", route.kind.name());
        return Err(("UnsupportedProtocol", message));
    }
    Ok((host, port, protocol))
}

/// Datagrams lead to ports for them, of this cluster's Services.
fn datagram_port(
    view: View<'_>,
    kind: TargetKind,
    name: &ObjectName,
    reference: &BackendRef,
) -> Result<(ServiceHost, u16, Option<AppProtocol>), No> {
    let missing = |message: String| ("BackendNotFound", message);
    if kind != TargetKind::Service {
        return Err(("InvalidKind", format!("datagrams do not cross clusters: {name} must be a Service")));
    }
    let (_, service) = view.service(name).ok_or_else(|| missing(format!("Service {name} does not exist")))?;
    let port = reference.port.ok_or_else(|| missing(format!("the reference to Service {name} names no port")))?;
    if !service.ports.iter().any(|one| one.port == port && one.protocol == Transport::Udp) {
        return Err(missing(format!("Service {name} has no UDP port {port}")));
    }
    let host = ServiceHost::cluster_local(name).map_err(|error| missing(error.to_string()))?;
    Ok((host, port, Some(AppProtocol::Tcp)))
}

/// Whether a ReferenceGrant lets an object of the Gateway API refer to this.
pub(crate) fn granted(view: View<'_>, from: &Object, group: &str, kind: &str, to: &ObjectName) -> bool {
    view.listed(Key::Grants(Arc::clone(&to.namespace))).any(|grant| {
        let Kind::ReferenceGrant(spec) = &grant.kind else { return false };
        let from = spec.from.iter().any(|allowed| {
            &*allowed.group == GATEWAY_GROUP
                && &*allowed.kind == from.kind.name().as_str()
                && allowed.namespace == from.meta.namespace
        });
        let to = spec.to.iter().any(|grant| {
            &*grant.group == group && &*grant.kind == kind && grant.name.as_ref().is_none_or(|name| *name == to.name)
        });
        from && to
    })
}

pub(crate) fn kind_name(kind: TargetKind) -> &'static str {
    match kind {
        TargetKind::Service => "Service",
        TargetKind::ServiceImport => "ServiceImport",
    }
}

/// Stands in for a name that no service can have; RFC 6761 reserves `invalid`.
fn nowhere() -> ServiceHost {
    ServiceHost::new("nowhere.invalid").unwrap_or_else(|_| unreachable!("a valid host"))
}
