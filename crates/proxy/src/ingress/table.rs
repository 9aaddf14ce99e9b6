//! A port's listeners and routes, ready for connections and requests.
//!
//! A host's routes become a [`ServiceView`] that no name of the mesh leads to, so that a request goes on as one for a service
//! does: rule, backend, cluster, endpoint, connection.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::FixedState;
use veer_core::ingress::{AttachedHttp, AttachedStream, Ingress, IngressListener, IngressPort, PortKind, Serves};
use veer_core::route::HttpRoute;
use veer_core::{AppProtocol, Cidr, ServiceHost};
use veer_identity::{ALPN_H2_STANDARD, ALPN_HTTP1_STANDARD, PublicCertificate, PublicClients, ServerTls};
use veer_route::{Deal, Matcher};

use super::hosts::Hosts;
use crate::knowledge::{PortView, ServiceView};

/// What a port serves.
pub struct PortTable {
    /// How listeners are told apart.
    pub kind: PortKind,
    /// Who says by the PROXY protocol whose connection it is; `None`: nobody.
    pub proxy_protocol: Option<Arc<[Cidr]>>,
    /// By host name.
    pub listeners: Hosts<Rc<ListenerView>>,
}

/// A listener, ready to serve.
pub struct ListenerView {
    /// For the log.
    pub name: Arc<str>,
    /// What is shown to clients, where TLS ends here.
    pub tls: Option<Arc<ServerTls>>,
    /// Stands for what is asked of clients; 0: nothing. A connection that was let in by other terms is not served.
    pub asks: u64,
    /// Whether requests are served, or bytes.
    pub is_http: bool,
    /// By host: routes of requests, or of bytes.
    pub hosts: Hosts<Rc<ServiceView>>,
}

impl PortTable {
    /// A port without listeners: what becomes of it for connections that are open when it is taken away.
    pub fn empty() -> Self {
        Self { kind: PortKind::Http, proxy_protocol: None, listeners: Hosts::default() }
    }

    /// Makes a port ready. A listener whose certificates are of no use is left out, and logged: its clients are refused.
    pub fn new(ingress: &Ingress, port: &IngressPort) -> Self {
        let mut listeners = Hosts::default();
        let host = stand_in(ingress);
        for listener in &port.listeners {
            match view(ingress, port, listener, &host) {
                Ok(view) => listeners.add(listener.hostname.as_deref(), Rc::new(view)),
                Err(error) => {
                    tracing::error!(gateway = %ingress.gateway, listener = %listener.name, %error, "a listener is not served")
                }
            }
        }
        Self { kind: port.kind, proxy_protocol: port.proxy_protocol.clone(), listeners }
    }
}

fn view(
    ingress: &Ingress,
    port: &IngressPort,
    listener: &IngressListener,
    host: &ServiceHost,
) -> Result<ListenerView, veer_identity::Error> {
    let certificates: Vec<PublicCertificate> = listener
        .certificates
        .iter()
        .map(|one| PublicCertificate::from_pem(&one.chain_pem, &one.key_pem))
        .collect::<Result<_, _>>()?;
    let is_http = matches!(listener.serves, Serves::Http(_));
    let alpn: &[&[u8]] = if is_http { &[ALPN_H2_STANDARD, ALPN_HTTP1_STANDARD] } else { &[] };
    let clients = match &listener.clients {
        None => None,
        Some(asked) if asked.optional => Some(PublicClients::anybody()),
        Some(asked) => Some(PublicClients::of_authorities(&asked.authorities_pem)?),
    };
    let tls = (!certificates.is_empty()).then(|| Arc::new(ServerTls::public(certificates, alpn, clients)));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let hosts = match &listener.serves {
        Serves::Http(attached) => requests(&ingress.http_routes, attached, port.port, scheme, host),
        Serves::Bytes(attached) => bytes(attached, port.port, host),
        // Served elsewhere ([`super::datagrams`]).
        Serves::Datagrams(_) => Hosts::default(),
    };
    let asks = listener.clients.as_ref().map_or(0, |asked| FixedState::default().hash_one(asked) | 1);
    Ok(ListenerView { name: Arc::clone(&listener.name), tls, asks, is_http, hosts })
}

/// Each host with the routes that are for it, and behind it the less specific hosts that stand for it, too.
fn requests(
    routes: &[HttpRoute],
    attached: &[AttachedHttp],
    port: u16,
    scheme: &'static str,
    host: &ServiceHost,
) -> Hosts<Rc<ServiceView>> {
    // The least specific first: every host, wildcards by length, exact names.
    let named = attached.iter().flat_map(|attached| {
        let any = attached.hostnames.is_empty().then_some("");
        attached.hostnames.iter().map(|name| &**name).chain(any)
    });
    let names: BTreeSet<(bool, usize, &str)> =
        named.map(|name| (!name.is_empty() && !name.starts_with('*'), name.len(), name)).collect();
    let mut made: Vec<(&str, Rc<ServiceView>)> = Vec::new();
    for (_, _, name) in names {
        let is_for = |attached: &&AttachedHttp| match name {
            "" => attached.hostnames.is_empty(),
            name => attached.hostnames.iter().any(|host| &**host == name),
        };
        let here: Vec<HttpRoute> =
            attached.iter().filter(is_for).filter_map(|attached| routes.get(attached.route).cloned()).collect();
        let less_specific =
            made.iter().rev().find(|(other, _)| stands_for(other, name)).map(|(_, view)| Rc::clone(view));
        let view = PortView {
            port,
            protocol: AppProtocol::Detect,
            matcher: Matcher::new(&here, ""),
            tcp_route: None,
            tcp_deal: Deal::default(),
            scheme,
            less_specific,
        };
        made.push((name, Rc::new(ServiceView { host: host.clone(), ports: vec![view], edge: OnceCell::new() })));
    }
    let mut hosts = Hosts::default();
    for (name, view) in made {
        hosts.add((!name.is_empty()).then_some(name), view);
    }
    hosts
}

/// Whether the name stands for every host that the other one stands for.
fn stands_for(name: &str, other: &str) -> bool {
    match name.strip_prefix('*') {
        Some(suffix) => other.strip_prefix('*').unwrap_or(other).ends_with(suffix) && other.len() > suffix.len(),
        None => name.is_empty(),
    }
}

fn bytes(attached: &[AttachedStream], port: u16, host: &ServiceHost) -> Hosts<Rc<ServiceView>> {
    let mut hosts = Hosts::default();
    for AttachedStream { hostnames, route } in attached {
        let view = PortView {
            port,
            protocol: AppProtocol::Tcp,
            matcher: Matcher::new(&[], ""),
            tcp_route: Some(route.clone()),
            tcp_deal: Deal::default(),
            scheme: "http",
            less_specific: None,
        };
        let view = Rc::new(ServiceView { host: host.clone(), ports: vec![view], edge: OnceCell::new() });
        if hostnames.is_empty() {
            hosts.add(None, Rc::clone(&view));
        }
        hostnames.iter().for_each(|name| hosts.add(Some(name), Rc::clone(&view)));
    }
    hosts
}

/// What logs and metrics show where no backend was found: no name of the mesh (RFC 6761 reserves `invalid`).
fn stand_in(ingress: &Ingress) -> ServiceHost {
    let name = format!("{}.{}.gateway.invalid", ingress.gateway.name, ingress.gateway.namespace);
    ServiceHost::new(&name)
        .or_else(|_| ServiceHost::new("gateway.invalid"))
        .unwrap_or_else(|_| unreachable!("a valid host"))
}
