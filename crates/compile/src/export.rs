//! What peers are offered of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use veer_core::endpoints::ServiceToken;
use veer_core::gateway::GatewayService;
use veer_core::offer::OfferPort;
use veer_core::route::{Backend, HttpRoute, TcpRoute};
use veer_core::{ClusterName, Endpoint, ObjectName, Offer, ServiceHost, ServicePort, SpiffeId};
use veer_resources::KindName;

use crate::faults;
use crate::memo::Key;
use crate::policies;
use crate::service::{Compiled, Own};
use crate::shape::Shape;
use crate::view::View;
use crate::world::TokenSealer;

/// Offers of one service, by peer, and what the gateway needs for them. `clusterset` are the ports of its `clusterset.local`
/// host, whose routes travel along.
pub(crate) fn offers(
    view: View<'_>,
    sealer: &dyn TokenSealer,
    name: &ObjectName,
    shape: &Shape,
    own: &Own,
    clusterset: &[ServicePort],
    compiled: &mut Compiled,
) -> BTreeMap<ClusterName, Arc<Offer>> {
    let (Some(local), Ok(host)) = (&shape.local, ServiceHost::clusterset(name)) else { return BTreeMap::new() };
    if shape.audience.is_empty() {
        return BTreeMap::new();
    }
    // Nothing crosses clusters in plaintext: what is not in the mesh stays at home.
    let meshed: Vec<&Endpoint> = own.endpoints.iter().filter(|endpoint| endpoint.identity.is_some()).collect();
    if let (count @ 1.., Some(export)) =
        (own.endpoints.len() - meshed.len(), view.object(KindName::ServiceExport, name))
    {
        compiled.faults.push(faults::export_unmeshed(export, count));
    }
    let id = view.service_id(name);
    compiled.gateway = id.map(|id| GatewayService {
        id,
        host,
        endpoints: meshed.iter().filter(|e| e.ready).map(|e| SocketAddr::new(e.address, e.mesh_port)).collect(),
    });
    let port = |p: &crate::shape::Port| OfferPort { port: p.port, name: p.name.clone(), protocol: p.protocol };
    let ports: Vec<OfferPort> = local.ports.iter().map(port).collect();
    let policy = policies::of_owner(view, name);
    let offer = |peer: &ClusterName| {
        view.reads.note(Key::Epoch(peer.clone()));
        let offer = Offer {
            service: name.clone(),
            ports: ports.clone(),
            endpoints: meshed.iter().map(|endpoint| sealed(sealer, peer, endpoint)).collect(),
            service_tokens: id.map(|id| service_tokens(sealer, peer, id, &ports, &meshed)).unwrap_or_default(),
            http_routes: routes(view, peer, clusterset),
            tcp_routes: tcp_routes(view, peer, clusterset),
            policy: policy.clone(),
        };
        (peer.clone(), Arc::new(offer))
    };
    shape.audience.iter().map(offer).collect()
}

fn sealed(sealer: &dyn TokenSealer, peer: &ClusterName, endpoint: &Endpoint) -> Endpoint {
    let mut endpoint = endpoint.clone();
    for port in &mut endpoint.ports {
        port.token = sealer.endpoint(peer, endpoint.address, port.target_port).unwrap_or_default();
    }
    endpoint
}

/// One token per service port. A port that leads to different numbers at different workloads gets none: the gateway picks
/// any of them, and could not know which number the caller meant.
fn service_tokens(
    sealer: &dyn TokenSealer,
    peer: &ClusterName,
    id: u32,
    ports: &[OfferPort],
    endpoints: &[&Endpoint],
) -> Vec<ServiceToken> {
    let token = |port: &OfferPort| {
        let targets: BTreeSet<Option<u16>> =
            endpoints.iter().map(|e| e.port(port.port).map(|p| p.target_port)).collect();
        let (1, Some(Some(target_port))) = (targets.len(), targets.first().copied()) else { return None };
        let identities: BTreeSet<&SpiffeId> = endpoints.iter().filter_map(|e| e.identity.as_ref()).collect();
        Some(ServiceToken {
            service_port: port.port,
            target_port,
            token: sealer.service(peer, id, target_port)?,
            identities: identities.into_iter().cloned().collect(),
        })
    };
    ports.iter().filter_map(token).collect()
}

/// The producer's routes as the peer may follow them: only to services that it is offered, too.
fn routes(view: View<'_>, peer: &ClusterName, ports: &[ServicePort]) -> Vec<HttpRoute> {
    let mut routes = Vec::new();
    for port in ports {
        let own = port.http_routes.iter().filter(|r| r.consumer_namespace.is_none() && r.owner.is_none());
        for route in own {
            let mut route = HttpRoute { parent_port: Some(port.port), ..route.clone() };
            route.rules.iter_mut().for_each(|rule| rule.each_backend(&mut |backend| judge(view, peer, backend)));
            routes.push(route);
        }
    }
    routes
}

fn tcp_routes(view: View<'_>, peer: &ClusterName, ports: &[ServicePort]) -> Vec<TcpRoute> {
    let own = ports.iter().filter_map(|port| Some((port, port.tcp_route.as_ref().filter(|r| r.owner.is_none())?)));
    let offered = |(port, route): (&ServicePort, &TcpRoute)| {
        let mut route = TcpRoute { parent_port: Some(port.port), ..route.clone() };
        route.backends.iter_mut().for_each(|backend| judge(view, peer, backend));
        route
    };
    own.map(offered).collect()
}

/// A backend that the peer is not offered is none for it.
fn judge(view: View<'_>, peer: &ClusterName, backend: &mut Backend) {
    let object = backend.host.object();
    let shape = object.as_ref().and_then(|object| view.shape(object));
    match (&object, shape) {
        (Some(object), Some(shape)) if shape.audience.contains(peer) => {
            backend.host = ServiceHost::clusterset(object).unwrap_or_else(|_| backend.host.clone());
        }
        _ => {
            backend.invalid.get_or_insert_with(|| format!("{} is not offered to {peer}", backend.host).into());
        }
    }
}
