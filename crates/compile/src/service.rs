//! One service: its hosts with ports and routes, who serves behind each, and what peers are offered of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use veer_core::backend_tls::BackendTls;
use veer_core::gateway::GatewayService;
use veer_core::policy::TrafficPolicy;
use veer_core::route::{Backend, HttpRoute, TcpRoute};
use veer_core::service::ServiceScope;
use veer_core::{
    ClusterEndpoints, ClusterName, Endpoint, Endpoints, ObjectName, Offer, Reach, Service, ServiceHost, ServicePort,
};
use veer_resources::{Diagnostic, KindName, TargetKind};

use crate::admit::Import;
use crate::backend_tls::backend_tls;
use crate::export;
use crate::members::members;
use crate::policies;
use crate::ports::{ports, with_routes};
use crate::shape::{Port, Shape};
use crate::view::View;
use crate::world::TokenSealer;

/// What policies for a `clusterset.local` name may be for, beside its namespace.
const KINDS: [KindName; 2] = [KindName::Service, KindName::ServiceImport];

/// All that comes of one `namespace/name`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Compiled {
    pub services: BTreeMap<ServiceHost, Arc<Service>>,
    pub endpoints: BTreeMap<ServiceHost, Arc<Endpoints>>,
    pub offers: BTreeMap<ClusterName, Arc<Offer>>,
    pub gateway: Option<GatewayService>,
    pub faults: Vec<Diagnostic>,
}

/// Compiles one service; parts that are equal to the last result are the last result.
pub(crate) fn service(
    view: View<'_>,
    sealer: &dyn TokenSealer,
    name: &ObjectName,
    last: Option<&Compiled>,
) -> Compiled {
    let mut compiled = Compiled::default();
    let Some(shape) = view.shape(name) else { return compiled };
    let own = own_copies(view, name, shape, &mut compiled.faults);
    let peers: Vec<(&ClusterName, &ClusterEndpoints)> =
        view.imports(name).map(|(c, import)| (c, &import.endpoints)).collect();
    let tls =
        if shape.local.is_some() { backend_tls(view, name).into_iter().map(Arc::new).collect() } else { Vec::new() };

    if let (Some(local), Ok(host)) = (&shape.local, ServiceHost::cluster_local(name)) {
        let scope = if local.is_clusterset { ServiceScope::ClusterSet } else { ServiceScope::Cluster };
        let routes = view.attached(TargetKind::Service, name);
        let service = Service {
            host: host.clone(),
            scope,
            addresses: local.addresses.clone(),
            ports: ports(&local.ports, routes, &mut compiled.faults),
        };
        let remote = if local.is_clusterset { &peers[..] } else { &[] };
        let copies = clusters(own.as_ref(), remote);
        let owners: Vec<&ClusterName> = remote.iter().map(|(peer, _)| *peer).collect();
        let policy = policies::of_service(view, name, &[KindName::Service], owns(&own), &owners);
        compiled.add(service, copies, policy, tls.clone());
    }
    if let (Some(set), Ok(host)) = (&shape.set, ServiceHost::clusterset(name)) {
        let ports = clusterset_ports(view, name, shape, &set.ports, &mut compiled.faults);
        compiled.offers = match &own {
            Some(own) => export::offers(view, sealer, name, shape, own, &ports, &mut compiled),
            None => BTreeMap::new(),
        };
        let service = Service { host, scope: ServiceScope::ClusterSet, addresses: set.addresses.clone(), ports };
        let counts = shape.exported || shape.local.as_ref().is_some_and(|local| local.is_clusterset);
        let copies = clusters(own.as_ref().filter(|_| counts), &peers);
        let owners: Vec<&ClusterName> = peers.iter().map(|(peer, _)| *peer).collect();
        let policy = policies::of_service(view, name, &KINDS, counts && owns(&own), &owners);
        compiled.add(service, copies, policy, tls);
    }
    for (peer, alias) in &shape.peer_names {
        // Two services may come to one such name, `a-b` of `c` and `a` of `b-c`: the first has it.
        if view.alias(alias).is_none_or(|(base, _)| base != name) {
            continue;
        }
        let (Ok(host), Some(import)) = (ServiceHost::cluster_local(alias), view.import(name, peer)) else { continue };
        let port = |p: &veer_core::offer::OfferPort| Port { port: p.port, name: p.name.clone(), protocol: p.protocol };
        let offered: Vec<Port> = import.ports.iter().map(port).collect();
        let mut routes = view.attached(TargetKind::Service, alias).to_vec();
        routes.extend_from_slice(view.attached(TargetKind::ServiceImport, alias));
        let mut ports = ports(&offered, &routes, &mut compiled.faults);
        if routes.iter().all(|route| route.act.consumer().is_some()) {
            let (http, tcp) = owner_routes(view, import, peer, Some((name, &host)));
            ports = with_routes(ports, &http, &tcp);
        }
        let service = Service { host, scope: ServiceScope::Peer(peer.clone()), addresses: Vec::new(), ports };
        let policy = policies::of_peer_name(view, name, alias, peer);
        // Whatever a peer offers is in its mesh.
        compiled.add(service, vec![import.endpoints.clone()], policy, Vec::new());
    }
    if let Some(last) = last {
        compiled.keep(last);
    }
    compiled
}

/// Whether this cluster has copies of its own.
fn owns(own: &Option<Own>) -> bool {
    own.as_ref().is_some_and(|own| !own.endpoints.is_empty())
}

/// This cluster's copies of a Service.
pub(crate) struct Own {
    pub cluster: ClusterName,
    pub endpoints: Vec<Endpoint>,
}

impl Compiled {
    fn add(
        &mut self,
        service: Service,
        clusters: Vec<ClusterEndpoints>,
        policy: TrafficPolicy,
        tls: Vec<Arc<BackendTls>>,
    ) {
        let host = service.host.clone();
        let endpoints = Endpoints { host: host.clone(), policy, clusters, tls, external: None };
        self.services.insert(host.clone(), Arc::new(service));
        self.endpoints.insert(host, Arc::new(endpoints));
    }

    fn keep(&mut self, last: &Compiled) {
        keep(&mut self.services, &last.services);
        keep(&mut self.endpoints, &last.endpoints);
        keep(&mut self.offers, &last.offers);
    }
}

/// Equal values become the same value.
fn keep<K: Ord, V: PartialEq>(now: &mut BTreeMap<K, Arc<V>>, last: &BTreeMap<K, Arc<V>>) {
    for (key, value) in now {
        if let Some(old) = last.get(key).filter(|old| ***old == **value) {
            *value = Arc::clone(old);
        }
    }
}

fn own_copies(view: View<'_>, name: &ObjectName, shape: &Shape, faults: &mut Vec<Diagnostic>) -> Option<Own> {
    shape.local.as_ref()?;
    let (object, spec) = view.service(name)?;
    Some(Own { cluster: view.cluster().name.clone(), endpoints: members(view, object, spec, faults) })
}

/// This cluster first, then peers by name.
fn clusters(own: Option<&Own>, peers: &[(&ClusterName, &ClusterEndpoints)]) -> Vec<ClusterEndpoints> {
    let own = own.map(|own| ClusterEndpoints {
        cluster: own.cluster.clone(),
        reach: Reach::Local,
        endpoints: own.endpoints.clone(),
        service_tokens: Vec::new(),
    });
    own.into_iter().chain(peers.iter().map(|(_, endpoints)| (*endpoints).clone())).collect()
}

/// Ports of the `clusterset.local` host with their routes: those attached to the ServiceImport; else, when this cluster exports
/// the service, those of the Service itself, for that is what peers get too; else those of the first peer by name that sent any.
fn clusterset_ports(
    view: View<'_>,
    name: &ObjectName,
    shape: &Shape,
    set: &[Port],
    faults: &mut Vec<Diagnostic>,
) -> Vec<ServicePort> {
    let attached = view.attached(TargetKind::ServiceImport, name);
    let ports = ports(set, attached, faults);
    if attached.iter().any(|route| route.act.consumer().is_none()) {
        return ports;
    }
    if shape.exported {
        // The conflicts among these were told at the Service's own host.
        let mut again = Vec::new();
        let own: Vec<_> =
            view.attached(TargetKind::Service, name).iter().filter(|r| r.act.consumer().is_none()).cloned().collect();
        let own = crate::ports::ports(set, &own, &mut again);
        return ports
            .into_iter()
            .zip(own)
            .map(|(mut port, own)| {
                port.http_routes.splice(0..0, own.http_routes.iter().map(|route| to_clusterset(view, route)));
                port.tcp_route = own.tcp_route.map(|mut route| {
                    route.backends.iter_mut().for_each(|backend| widen(view, backend));
                    route
                });
                port
            })
            .collect();
    }
    let Some((peer, import)) = view.imports(name).find(|(_, import)| import.has_routes()) else { return ports };
    let (http, tcp) = owner_routes(view, import, peer, None);
    with_routes(ports, &http, &tcp)
}

/// A route of this cluster's Service as it acts for the `clusterset.local` host.
fn to_clusterset(view: View<'_>, route: &HttpRoute) -> HttpRoute {
    let mut route = route.clone();
    route.rules.iter_mut().for_each(|rule| rule.each_backend(&mut |backend| widen(view, backend)));
    route
}

/// A backend that is exported stands for the copies of all clusters.
fn widen(view: View<'_>, backend: &mut Backend) {
    if backend.invalid.is_some() || backend.host.is_clusterset() {
        return;
    }
    let Some(object) = backend.host.object() else { return };
    let exported = view.shape(&object).is_some_and(|shape| shape.exported && shape.set.is_some());
    if let (true, Ok(host)) = (exported, ServiceHost::clusterset(&object)) {
        backend.host = host;
    }
}

/// The routes that came with a peer's export. They may lead only to what the same peer offers here with consent; anything else
/// is invalid. For a per-cluster name (`only`) they stay in that cluster as far as names for it exist.
fn owner_routes(
    view: View<'_>,
    import: &Import,
    peer: &ClusterName,
    only: Option<(&ObjectName, &ServiceHost)>,
) -> (Vec<HttpRoute>, Vec<TcpRoute>) {
    let (mut http, mut tcp) = (import.routes.clone(), import.tcp_routes.clone());
    let mut judge = |backend: &mut Backend| {
        let object = backend.host.object().filter(|_| backend.host.is_clusterset());
        let import = object.as_ref().and_then(|object| view.import(object, peer));
        let (Some(object), Some(import)) = (object, import) else {
            backend.invalid.get_or_insert_with(|| format!("{peer} does not offer {} here", backend.host).into());
            return;
        };
        if !import.ports.iter().any(|port| port.port == backend.port) {
            backend
                .invalid
                .get_or_insert_with(|| format!("{peer} offers {object} without port {}", backend.port).into());
        }
        if let Some((name, host)) = only {
            if object == *name {
                backend.host = host.clone();
            } else if let Some(alias) = view.shape(&object).and_then(|shape| shape.peer_names.get(peer)) {
                backend.host = ServiceHost::cluster_local(alias).unwrap_or_else(|_| backend.host.clone());
            }
        }
    };
    http.iter_mut().flat_map(|route| &mut route.rules).for_each(|rule| rule.each_backend(&mut judge));
    tcp.iter_mut().flat_map(|route| &mut route.backends).for_each(judge);
    (http, tcp)
}
