//! A service as callers of one namespace see it.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use veer_core::route::TcpRoute;
use veer_core::{AppProtocol, Service, ServiceHost};
use veer_route::{Deal, Headers, Matched, Matcher, RequestView};
use veer_telemetry::Edge;

/// A service with its routes compiled.
pub struct ServiceView {
    /// Canonical host.
    pub host: ServiceHost,
    /// Ports in ascending order.
    pub ports: Vec<PortView>,
    /// Where requests are counted that reach none of its endpoints.
    pub edge: OnceCell<Edge>,
}

/// A port with its routes compiled.
pub struct PortView {
    /// Number.
    pub port: u16,
    /// What is spoken.
    pub protocol: AppProtocol,
    /// HTTPRoutes or GRPCRoutes that act for this caller.
    pub matcher: Matcher,
    /// The TCPRoute that acts for this caller.
    pub tcp_route: Option<TcpRoute>,
    /// Deals connections to that route's backends.
    pub tcp_deal: Deal,
    /// What the callers of this port speak of: `http`, or `https` where TLS ended before.
    pub scheme: &'static str,
    /// At a Gateway: the routes for less specific hosts, which act where none of these does.
    pub less_specific: Option<Rc<ServiceView>>,
}

impl PortView {
    /// The rule that acts on a request.
    #[inline]
    pub fn find<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> Option<Matched<'_>> {
        let found = self.matcher.find(request);
        if found.is_some() || self.less_specific.is_none() {
            return found;
        }
        let less_specific = self.less_specific.as_ref()?.ports.first()?;
        less_specific.find(request)
    }

    /// Whether there are any rules.
    pub fn has_rules(&self) -> bool {
        !self.matcher.is_empty()
            || self.less_specific.as_ref().and_then(|view| view.ports.first()).is_some_and(PortView::has_rules)
    }
}

impl ServiceView {
    /// Compiles for callers of the namespace.
    pub fn compile(service: &Arc<Service>, namespace: &str) -> Self {
        let ports = service
            .ports
            .iter()
            .map(|port| {
                let consumer = |route: &&TcpRoute| route.consumer_namespace.as_deref() == Some(namespace);
                let tcp_route = port.consumer_tcp_routes.iter().find(consumer).or(port.tcp_route.as_ref()).cloned();
                PortView {
                    port: port.port,
                    protocol: port.protocol,
                    matcher: Matcher::new(&port.http_routes, namespace),
                    tcp_route,
                    tcp_deal: Deal::default(),
                    scheme: "http",
                    less_specific: None,
                }
            })
            .collect();
        Self { host: service.host.clone(), ports, edge: OnceCell::new() }
    }

    /// The port by its number.
    pub fn port(&self, port: u16) -> Option<&PortView> {
        self.ports.iter().find(|p| p.port == port)
    }
}
