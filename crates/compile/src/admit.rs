//! Consent: what a peer offers is looked at by its Link before anything else sees it.
//!
//! A peer vouches only for itself. An offer that its Link does not provide for, or that hands out an address or an identity
//! that is not the peer's to hand out, is refused as a whole and shown; nothing of it is used.

use std::sync::Arc;

use veer_core::endpoints::ServiceToken;
use veer_core::names::SYSTEM_NAMESPACE;
use veer_core::offer::OfferPort;
use veer_core::route::{HttpRoute, TcpRoute};
use veer_core::written::Written;
use veer_core::{ClusterEndpoints, ClusterName, Endpoint, Offer, Reach, ServiceHost, SpiffeId, TrustDomain};

use crate::links::Peer;
use crate::said;

/// An offer after its Link consented.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Import {
    pub ports: Vec<OfferPort>,
    pub endpoints: ClusterEndpoints,
    /// The owner's routes; their backends are yet to be checked against what else the peer offers.
    pub routes: Vec<HttpRoute>,
    /// The owner's TCPRoutes, likewise.
    pub tcp_routes: Vec<TcpRoute>,
    /// The owner's policies for the service.
    pub policy: Written,
}

impl Import {
    /// Whether the owner sent any route.
    pub fn has_routes(&self) -> bool {
        !(self.routes.is_empty() && self.tcp_routes.is_empty())
    }
}

/// What one peer may make us hold for one service.
const MAX_ENDPOINTS: usize = 10_000;
const MAX_PORTS: usize = 64;
const MAX_ROUTES: usize = 64;
const MAX_RULES: usize = 256;
const MAX_FAULTS: usize = 64;
const MAX_AUTHORS: usize = 8;

/// Takes what the Link provides for.
///
/// # Errors
/// Why the offer is refused.
pub(crate) fn admit(own: &TrustDomain, name: &ClusterName, peer: &Peer, offer: &Offer) -> Result<Import, String> {
    let service = &offer.service;
    if !peer.link.provides(&service.namespace, &service.name) {
        return Err("its Link does not let the peer provide this service".into());
    }
    if &*service.namespace == SYSTEM_NAMESPACE {
        return Err(format!("the namespace {SYSTEM_NAMESPACE} is Veer's own"));
    }
    ServiceHost::clusterset(service).map_err(|fault| fault.to_string())?;
    let rules: usize = offer.http_routes.iter().map(|route| route.rules.len()).sum();
    for (what, count, most) in [
        ("endpoints", offer.endpoints.len(), MAX_ENDPOINTS),
        ("ports", offer.ports.len(), MAX_PORTS),
        ("tokens", offer.service_tokens.len(), MAX_PORTS),
        ("routes", offer.http_routes.len(), MAX_ROUTES),
        ("rules of routes", rules, MAX_RULES),
        ("TCPRoutes", offer.tcp_routes.len(), MAX_ROUTES),
        ("backends of TCPRoutes", offer.tcp_routes.iter().map(|route| route.backends.len()).sum(), MAX_RULES),
        ("faults", said::faults(offer), MAX_FAULTS),
        ("limits", offer.policy.limits.as_ref().map_or(0, Vec::len), MAX_FAULTS),
        ("authors", offer.policy.by.len(), MAX_AUTHORS),
    ] {
        if count > most {
            return Err(format!("{count} {what} are more than the {most} that are taken"));
        }
    }
    for identity in offer.service_tokens.iter().flat_map(|token| &token.identities) {
        check_identity(own, peer, identity)?;
    }
    let mut endpoints = Vec::with_capacity(offer.endpoints.len());
    for endpoint in &offer.endpoints {
        endpoints.extend(check_endpoint(own, peer, endpoint)?);
    }
    endpoints.sort_by(|a, b| (&a.workload, a.address).cmp(&(&b.workload, b.address)));
    let service_tokens = match peer.reach {
        Reach::Gateway => {
            offer.service_tokens.iter().filter(|t| is_token(&t.token)).cloned().collect::<Vec<ServiceToken>>()
        }
        Reach::Local | Reach::Flat => Vec::new(),
    };
    let mut ports: Vec<OfferPort> = offer.ports.iter().filter(|port| port.port != 0).cloned().collect();
    ports.sort_by_key(|port| port.port);
    ports.dedup_by_key(|port| port.port);
    let owned = |route: &HttpRoute| {
        let mut route = HttpRoute { owner: Some(name.clone()), ..route.clone() };
        said::bound_route(name, &mut route);
        route
    };
    let tcp = |route: &TcpRoute| TcpRoute { owner: Some(name.clone()), ..route.clone() };
    Ok(Import {
        ports,
        endpoints: ClusterEndpoints { cluster: name.clone(), reach: peer.reach, endpoints, service_tokens },
        // A consumer route is its writer's business at home.
        routes: offer.http_routes.iter().filter(|route| route.consumer_namespace.is_none()).map(owned).collect(),
        tcp_routes: offer.tcp_routes.iter().filter(|route| route.consumer_namespace.is_none()).map(tcp).collect(),
        policy: said::bounded(name, &offer.policy),
    })
}

/// The endpoint as it is dialled from here; `None` when there is no way to it (no token where one is needed).
fn check_endpoint(own: &TrustDomain, peer: &Peer, endpoint: &Endpoint) -> Result<Option<Endpoint>, String> {
    let who = &endpoint.workload;
    let identity = endpoint.identity.as_ref().ok_or_else(|| format!("endpoint {who} has no identity"))?;
    check_identity(own, peer, identity)?;
    if endpoint.mesh_port == 0 {
        return Err(format!("endpoint {who} has no port for mutual TLS"));
    }
    let mut endpoint = endpoint.clone();
    endpoint.ports.truncate(MAX_PORTS);
    match peer.reach {
        Reach::Gateway => endpoint.ports.retain(|port| is_token(&port.token)),
        Reach::Local | Reach::Flat => {
            if !peer.link.allows(endpoint.address) {
                let address = endpoint.address;
                return Err(format!(
                    "endpoint {who} has address {address}, which is outside those that its Link allows"
                ));
            }
            for port in &mut endpoint.ports {
                port.token = Arc::default();
            }
        }
    }
    Ok((!endpoint.ports.is_empty()).then_some(endpoint))
}

fn check_identity(own: &TrustDomain, peer: &Peer, identity: &SpiffeId) -> Result<(), String> {
    if identity.trust_domain == *own {
        return Err(format!("{identity} is an identity of this very cluster"));
    }
    if identity.trust_domain != peer.trust_domain {
        return Err(format!("{identity} is not of the peer's trust domain {}", peer.trust_domain));
    }
    if identity.is_system() {
        return Err(format!("{identity} is reserved for Veer itself"));
    }
    Ok(())
}

/// Whether a text can stand as one label of a server name.
fn is_token(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
