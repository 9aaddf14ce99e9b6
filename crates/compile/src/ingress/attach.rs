//! Which routes attach to which listeners, and what their status says of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use veer_core::ObjectName;
use veer_core::ingress::{AttachedHttp, AttachedStream};
use veer_core::route::{HttpRoute, RouteKind};
use veer_resources::{Kind, ListenerSpec, Object, ParentRef};

use super::hostname::{covers, effective};
use super::listeners::{Listener, chooses};
use super::{Front, listener_kind};
use crate::faults;
use crate::links::age;
use crate::memo::Key;
use crate::route_status::backend_refs;
use crate::routes::{Act, Route};
use crate::status::{No, ParentStatus};
use crate::view::View;

/// Routes at listeners, by the listener's place.
#[derive(Default)]
pub(super) struct Attachments {
    http_routes: Vec<HttpRoute>,
    http: BTreeMap<usize, Vec<AttachedHttp>>,
    streams: BTreeMap<usize, Vec<AttachedStream>>,
}

impl Attachments {
    pub fn http(&self, listener: usize) -> Vec<AttachedHttp> {
        self.http.get(&listener).cloned().unwrap_or_default()
    }

    pub fn streams(&self, listener: usize) -> Vec<AttachedStream> {
        self.streams.get(&listener).cloned().unwrap_or_default()
    }

    pub fn into_http_routes(self) -> Vec<HttpRoute> {
        self.http_routes
    }

    fn add(&mut self, listener: usize, hostnames: Vec<Arc<str>>, act: &Act) {
        match act {
            Act::Http(route) => {
                let known =
                    self.http_routes.iter().position(|known| known.name == route.name && known.kind == route.kind);
                let route = known.unwrap_or_else(|| {
                    self.http_routes.push((**route).clone());
                    self.http_routes.len() - 1
                });
                let here = self.http.entry(listener).or_default();
                // Two parentRefs of one route may name one listener.
                if !here.iter().any(|known| known.route == route) {
                    here.push(AttachedHttp { hostnames, route });
                }
            }
            Act::Tcp(route) => {
                let here = self.streams.entry(listener).or_default();
                if !here.iter().any(|known| known.route.name == route.name) {
                    here.push(AttachedStream { hostnames, route: (**route).clone() });
                }
            }
        }
    }
}

/// Attaches all routes that name one of the owners, the older first, then by name: that is also the order in which they act.
pub(super) fn attach(
    view: View<'_>,
    all: &mut [Listener<'_>],
    owners: &[(&Object, &[ListenerSpec])],
    refused: &[(&Object, No)],
    front: &mut Front,
) -> Attachments {
    let parents = owners.iter().map(|(owner, _)| *owner).chain(refused.iter().map(|(set, _)| *set));
    let parents: Vec<&Object> = parents.collect();
    let mut routes: Vec<&Object> =
        parents.iter().flat_map(|parent| view.listed(Key::RoutesOf(parent.kind.name(), parent.name()))).collect();
    routes.sort_by_key(|route| (age(route), route.kind.name()));
    routes.dedup_by_key(|route| route.key());
    let mut attached = Attachments::default();
    for object in routes {
        let Some(route) = view.route(&object.key()) else { continue };
        let mut counted = Vec::new();
        for (index, reference) in route.parent_refs.iter().enumerate() {
            let Some(parent) = parents.iter().find(|parent| names(reference, object, parent)) else { continue };
            let outcome = match refused.iter().find(|(set, _)| set.key() == parent.key()) {
                Some((_, no)) => Err(("NoMatchingParent", no.1.clone())),
                None => choose(view, all, parent, object, route, reference, &attached),
            };
            let no = match outcome {
                Ok(places) => {
                    for (at, hostnames) in places {
                        if !counted.contains(&at) {
                            counted.push(at);
                            all[at].attached += 1;
                        }
                        attached.add(at, hostnames, &route.act);
                    }
                    front.services.extend(backend_refs(object).map(|backend| {
                        let namespace = backend.namespace.as_ref().unwrap_or(&object.meta.namespace);
                        ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(&backend.name) }
                    }));
                    None
                }
                Err(no) => {
                    front.faults.push(faults::route_parent(object, index, no.0, &no.1));
                    Some(no)
                }
            };
            let status = ParentStatus::new(reference, route.conditions(object, no.as_ref()));
            front.parents.entry(object.key()).or_default().push((index, status));
        }
    }
    attached
}

/// Whether a reference of the route names the object.
fn names(reference: &ParentRef, route: &Object, parent: &Object) -> bool {
    let namespace = reference.namespace.as_ref().unwrap_or(&route.meta.namespace);
    reference.listeners().map(listener_kind) == Some(parent.kind.name())
        && reference.name == parent.meta.name
        && *namespace == parent.meta.namespace
}

/// The listeners of the parent that take the route, with the hosts for which it acts there. Each step leaves fewer; the one that
/// leaves none says why.
fn choose(
    view: View<'_>,
    all: &[Listener<'_>],
    parent: &Object,
    object: &Object,
    route: &Route,
    reference: &ParentRef,
    attached: &Attachments,
) -> Result<Vec<(usize, Vec<Arc<str>>)>, No> {
    let of_parent = all.iter().enumerate().filter(|(_, listener)| listener.owner.key() == parent.key());
    let named: Vec<(usize, &Listener<'_>)> = of_parent
        .filter(|(_, listener)| reference.section_name.as_ref().is_none_or(|name| *name == listener.spec.name))
        .filter(|(_, listener)| reference.port.is_none_or(|port| port == listener.spec.port))
        .collect();
    let who = || format!("{} {}", parent.kind.name(), parent.name());
    if named.is_empty() {
        return Err(("NoMatchingParent", format!("{} has no such listener", who())));
    }
    let kind = object.kind.name().as_str();
    let allowed = named.into_iter().filter(|(_, listener)| {
        let namespaces = &listener.spec.allowed_routes.namespaces;
        listener.kinds.contains(&kind)
            && chooses(view, &namespaces.from, &namespaces.selector, &parent.meta.namespace, &object.meta.namespace)
    });
    let allowed: Vec<(usize, &Listener<'_>)> = allowed.collect();
    if allowed.is_empty() {
        let message = format!("no listener of {} allows a {kind} of namespace {}", who(), object.meta.namespace);
        return Err(("NotAllowedByListeners", message));
    }
    let hosts = |listener: &Listener<'_>| effective(listener.hostname.as_ref(), hostnames(object));
    let meeting: Vec<(usize, Vec<Arc<str>>)> =
        allowed.into_iter().filter_map(|(at, listener)| Some((at, hosts(listener)?))).collect();
    if meeting.is_empty() {
        let message = format!("no listener of {} is for a host of spec.hostnames", who());
        return Err(("NoMatchingListenerHostname", message));
    }
    let free: Vec<(usize, Vec<Arc<str>>)> =
        meeting.into_iter().filter(|(at, hosts)| !attached.is_taken(*at, hosts, &route.act)).collect();
    if free.is_empty() {
        let message = "an older route of another kind has its hosts, or its port, at every listener".to_owned();
        return Err(("HostnameConflict", message));
    }
    Ok(free)
}

/// Hosts that a route is written for.
fn hostnames(route: &Object) -> &[Arc<str>] {
    match &route.kind {
        Kind::HttpRoute(spec) => &spec.hostnames,
        Kind::GrpcRoute(spec) => &spec.hostnames,
        Kind::TlsRoute(spec) => &spec.hostnames,
        _ => &[],
    }
}

impl Attachments {
    /// Whether an older route stands in the way: an HTTPRoute and a GRPCRoute cannot share a host at one listener, and bytes for one
    /// name can be led by one route only.
    fn is_taken(&self, listener: usize, hosts: &[Arc<str>], act: &Act) -> bool {
        let meet = |others: &[Arc<str>]| {
            others.is_empty()
                || hosts.is_empty()
                || hosts.iter().any(|one| others.iter().any(|other| covers(one, other) || covers(other, one)))
        };
        match act {
            Act::Http(route) => self.http.get(&listener).into_iter().flatten().any(|known| {
                let other: RouteKind = self.http_routes[known.route].kind;
                other != route.kind && meet(&known.hostnames)
            }),
            Act::Tcp(route) => self.streams.get(&listener).into_iter().flatten().any(|known| {
                let same = known.hostnames.is_empty() && hosts.is_empty()
                    || known.hostnames.iter().any(|other| hosts.contains(other));
                same && known.route.name != route.name
            }),
        }
    }
}
