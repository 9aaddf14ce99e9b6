//! Which routes act on which port, after the Gateway API's rules of conflict.

use std::collections::BTreeSet;
use std::sync::Arc;

use veer_core::ServicePort;
use veer_core::route::{HttpRoute, RouteKind, TcpRoute};
use veer_resources::Diagnostic;

use crate::faults;
use crate::routes::{Act, Attached};
use crate::shape::Port;

/// The ports of a host with the routes that act on each.
///
/// Among the routes for one group of callers (everybody, or one consumer namespace) on one port the most specific kind wins,
/// GRPCRoute over HTTPRoute over TCPRoute, as GAMMA has it; HTTPRoutes and GRPCRoutes of one kind act together, of TCPRoutes
/// only the oldest. `attached` is ordered by age, then name.
pub(crate) fn ports(ports: &[Port], attached: &[Attached], faults: &mut Vec<Diagnostic>) -> Vec<ServicePort> {
    let groups: BTreeSet<Option<&Arc<str>>> = attached.iter().map(|a| a.act.consumer()).collect();
    let compile = |port: &Port| {
        let mut compiled = ServicePort {
            port: port.port,
            name: port.name.clone(),
            protocol: port.protocol,
            http_routes: Vec::new(),
            tcp_route: None,
            consumer_tcp_routes: Vec::new(),
        };
        for group in &groups {
            let here = attached.iter().filter(|a| {
                a.act.consumer() == *group
                    && a.ports.as_ref().is_none_or(|chosen| chosen.contains(&port.port))
                    && (a.ports.is_some() || speaks(&a.act, port))
            });
            add(&mut compiled, here, faults);
        }
        compiled
    };
    ports.iter().map(compile).collect()
}

/// Adds routes that came with a peer's export, where no producer route acts already.
pub(crate) fn with_routes(mut ports: Vec<ServicePort>, routes: &[HttpRoute], tcp: &[TcpRoute]) -> Vec<ServicePort> {
    for port in &mut ports {
        if port.http_routes.iter().any(|route| route.consumer_namespace.is_none()) || port.tcp_route.is_some() {
            continue;
        }
        let here = routes.iter().filter(|route| route.parent_port.is_none_or(|number| number == port.port));
        let here: Vec<HttpRoute> = here.map(|route| HttpRoute { parent_port: None, ..route.clone() }).collect();
        if here.is_empty() {
            let tcp = tcp.iter().find(|route| route.parent_port.is_none_or(|number| number == port.port));
            port.tcp_route = tcp.map(|route| TcpRoute { parent_port: None, ..route.clone() });
        }
        port.http_routes.splice(0..0, here);
    }
    ports
}

/// Whether a route that names no port is meant for this one.
fn speaks(act: &Act, port: &Port) -> bool {
    match act {
        Act::Tcp(_) => !port.protocol.is_http(),
        Act::Http(_) => port.protocol != veer_core::AppProtocol::Tcp,
    }
}

fn rank(act: &Act) -> u8 {
    match act {
        Act::Http(route) if route.kind == RouteKind::Grpc => 0,
        Act::Http(_) => 1,
        Act::Tcp(_) => 2,
    }
}

fn add<'a>(port: &mut ServicePort, routes: impl Iterator<Item = &'a Attached> + Clone, faults: &mut Vec<Diagnostic>) {
    let Some(winner) = routes.clone().min_by_key(|a| rank(&a.act)) else { return };
    let mut has_tcp = false;
    for attached in routes {
        let loses = rank(&attached.act) != rank(&winner.act) || has_tcp;
        if loses {
            let (kind, name, number) = (attached.act.kind(), attached.act.name(), port.port);
            let (winner_kind, winner_name) = (winner.act.kind(), winner.act.name());
            let reason = format!("{kind} {name} does not act on port {number}: {winner_kind} {winner_name} does");
            faults.push(faults::route_loses(&attached.at, reason));
            continue;
        }
        match &attached.act {
            Act::Http(route) => port.http_routes.push((**route).clone()),
            Act::Tcp(route) => {
                has_tcp = true;
                match &route.consumer_namespace {
                    None => port.tcp_route = Some((**route).clone()),
                    Some(_) => port.consumer_tcp_routes.push((**route).clone()),
                }
            }
        }
    }
}
