//! The API's answers. Pure functions of the shared state, the same for sockets, the command line and the simulation.

use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;
use veer_core::{Endpoints, Service, ServiceHost};
use veer_identity::{JoinToken, clock};

use crate::api::{
    ConfirmAnswer, Copies, Fault, GatewayStatus, PeerStatus, RotateAnswer, ServicePortSummary, ServiceSummary,
    SourceStatus, Status, TokenAnswer, TokenRequest,
};
use crate::http::{ApiRequest, ApiResponse};
use crate::issuer::{self, IssueError};
use crate::metrics;
use crate::objects;
use crate::peers::PeerSnapshot;
use crate::plane::Plane;
use crate::published::Published;
use crate::tokens::Subject;

/// Answers a request. `privileged`: it came by the socket in the state folder.
pub(crate) fn answer(plane: &Plane, request: &ApiRequest, privileged: bool) -> ApiResponse {
    let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    match (&request.method, &path[..]) {
        (&Method::GET, ["live"]) => ApiResponse::text(StatusCode::OK, "live\n"),
        (&Method::GET, ["ready"]) => ready(plane),
        (&Method::GET, ["metrics"]) => metrics::render(plane),
        (&Method::GET, ["v1", "status"]) => ApiResponse::json(&status(plane)),
        (&Method::GET, ["v1", "services"]) => with_published(plane, |p| ApiResponse::json(&services(p))),
        (&Method::GET, ["v1", "routes"]) => {
            with_published(plane, |p| ApiResponse::json(&routes(p, request.parameter("host"))))
        }
        (&Method::GET, ["v1", "endpoints"]) => {
            with_published(plane, |p| ApiResponse::json(&endpoints(p, request.parameter("host"))))
        }
        (&Method::GET, ["v1", "objects"]) => with_published(plane, |p| {
            let kind = request.parameter("kind").unwrap_or("all");
            ApiResponse::json(&objects::list(
                &p.objects,
                kind,
                request.parameter("namespace"),
                request.parameter("name"),
            ))
        }),
        (&Method::GET, ["v1", "proxies"]) => ApiResponse::json(&plane.proxies.list()),
        (&Method::GET, ["v1", "dump"]) => ApiResponse::json(&dump(plane)),
        (_, ["v1", "tokens" | "link" | "rotate" | "confirm" | "gateways", ..]) if !privileged => ApiResponse::error(
            StatusCode::FORBIDDEN,
            "this is answered only on the socket in the control plane's state folder (control.sock)",
        ),
        (&Method::POST, ["v1", "tokens"]) => token(plane, &request.body),
        (&Method::GET, ["v1", "link"]) => ApiResponse::text(StatusCode::OK, own_link(plane)),
        (&Method::POST, ["v1", "rotate"]) => rotate(plane),
        (&Method::POST, ["v1", "confirm"]) => confirm(plane),
        (&Method::POST, ["v1", "gateways", name, verb @ ("drain" | "undrain")]) => drain(plane, name, *verb == "drain"),
        (_, ["live" | "ready" | "metrics"] | ["v1", ..]) => ApiResponse::error(
            StatusCode::NOT_FOUND,
            format!("{} {} is not part of the API", request.method, request.path),
        ),
        _ => {
            ApiResponse::error(StatusCode::NOT_FOUND, "the API is below /v1/; /live, /ready and /metrics are beside it")
        }
    }
}

/// One control plane on one page.
pub(crate) fn status(plane: &Plane) -> Status {
    let published = plane.published();
    let source = plane.source.borrow().clone();
    let generation = published.as_ref().map_or(0, |p| p.generation);
    let now = Instant::now();
    let faults = published.as_ref().map(|p| p.faults.iter().map(Fault::from).collect()).unwrap_or_default();
    let certificate = plane.identity.svid().not_after.duration_since(clock::now()).unwrap_or_default();
    Status {
        cluster: plane.config.cluster.clone(),
        trust_domain: plane.config.trust_domain.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        incarnation: plane.incarnation(),
        uptime_seconds: (now - plane.started).as_secs_f64(),
        ready: published.is_some(),
        generation,
        generation_age_seconds: published.as_ref().map_or(0.0, |p| (now - p.since).as_secs_f64()),
        source,
        services: published.as_ref().map_or(0, |p| hosts(p).count()),
        workloads: published
            .as_ref()
            .map_or(0, |p| p.directory.keys().filter(|subject| matches!(subject, Subject::Workload(_))).count()),
        exported: published.as_ref().map_or(0, |p| {
            p.offers.values().flat_map(|offers| offers.keys()).collect::<std::collections::BTreeSet<_>>().len()
        }),
        gateways: plane.gateways().iter().map(gateway_status).collect(),
        peers: plane.book.snapshot().iter().map(|peer| peer_status(peer, published.as_deref())).collect(),
        faults,
        proxies: plane.proxies.counts(),
        certificate_seconds_left: certificate.as_secs_f64(),
        state_faults: plane.state_faults.clone(),
    }
}

impl SourceStatus {
    pub(crate) fn waiting() -> Self {
        Self { state: "waiting".to_owned(), generation: 0, objects: 0, held: Vec::new(), reason: None }
    }
}

fn ready(plane: &Plane) -> ApiResponse {
    match plane.published() {
        Some(published) => ApiResponse::text(StatusCode::OK, format!("ready: generation {}\n", published.generation)),
        None => {
            let source = plane.source.borrow();
            let reason = source.reason.as_deref().unwrap_or("its manifests were not read completely yet");
            ApiResponse::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"))
        }
    }
}

fn with_published(plane: &Plane, answer: impl FnOnce(&Published) -> ApiResponse) -> ApiResponse {
    match plane.published() {
        Some(published) => answer(&published),
        None => ApiResponse::error(StatusCode::SERVICE_UNAVAILABLE, "the manifests were not read completely yet"),
    }
}

/// Services by canonical host; the table also has them by virtual address.
fn hosts(published: &Published) -> impl Iterator<Item = &Service> {
    published
        .services
        .iter()
        .filter(|(name, entry)| entry.value().host.as_str() == name.as_str())
        .map(|(_, entry)| &**entry.value())
}

fn services(published: &Published) -> Vec<ServiceSummary> {
    let port = |port: &veer_core::ServicePort| ServicePortSummary {
        port: port.port,
        name: port.name.as_deref().map(str::to_owned),
        protocol: port.protocol,
        routes: port.http_routes.len() + usize::from(port.tcp_route.is_some()),
    };
    let copies = |host: &ServiceHost| {
        let endpoints = published.endpoints.get(host.as_str());
        let clusters = endpoints.iter().flat_map(|entry| &entry.value().clusters);
        clusters
            .map(|cluster| Copies {
                cluster: cluster.cluster.clone(),
                ready: cluster.endpoints.iter().filter(|endpoint| endpoint.ready).count(),
                total: cluster.endpoints.len(),
            })
            .collect()
    };
    hosts(published)
        .map(|service| ServiceSummary {
            host: service.host.clone(),
            scope: service.scope.clone(),
            addresses: service.addresses.clone(),
            ports: service.ports.iter().map(port).collect(),
            copies: copies(&service.host),
        })
        .collect()
}

/// Services by a host as a human writes it (`cart.shop` will do); without host those that have routes.
fn routes(published: &Published, host: Option<&str>) -> Vec<Service> {
    let policed = |service: &Service| {
        let endpoints = published.endpoints.get(service.host.as_str());
        endpoints.is_some_and(|entry| !entry.value().policy.by.is_empty())
    };
    let has_routes = |service: &Service| {
        policed(service)
            || service.ports.iter().any(|port| {
                !port.http_routes.is_empty() || port.tcp_route.is_some() || !port.consumer_tcp_routes.is_empty()
            })
    };
    hosts(published)
        .filter(|service| host.map_or_else(|| has_routes(service), |text| is_meant(&service.host, text)))
        .cloned()
        .collect()
}

fn endpoints(published: &Published, host: Option<&str>) -> Vec<Endpoints> {
    published
        .endpoints
        .values()
        .map(|entry| entry.value())
        .filter(|endpoints| host.is_none_or(|text| is_meant(&endpoints.host, text)))
        .map(|endpoints| without_tokens(endpoints))
        .collect()
}

/// Whether the text names the host: whole, or as a Kubernetes name that both its `cluster.local` and its `clusterset.local`
/// form complete.
fn is_meant(host: &ServiceHost, text: &str) -> bool {
    let text = text.trim_end_matches('.').to_ascii_lowercase();
    host.as_str() == text
        || host.object().is_some_and(|object| {
            let short = format!("{}.{}", object.name, object.namespace);
            text == short || text == *object.name || text == object.to_string() || text == format!("{short}.svc")
        })
}

/// A token is a hint and authenticates nobody, but there is no need to show it around.
fn without_tokens(endpoints: &Endpoints) -> Endpoints {
    let mut endpoints = endpoints.clone();
    for cluster in &mut endpoints.clusters {
        let ports = cluster.endpoints.iter_mut().flat_map(|endpoint| &mut endpoint.ports).map(|port| &mut port.token);
        let tokens = ports.chain(cluster.service_tokens.iter_mut().map(|service| &mut service.token));
        for token in tokens.filter(|token| !token.is_empty()) {
            *token = "…".into();
        }
    }
    endpoints
}

fn dump(plane: &Plane) -> serde_json::Value {
    let Some(published) = plane.published() else { return json!({ "status": status(plane) }) };
    let peers: serde_json::Map<_, _> =
        published.links.keys().map(|peer| (peer.to_string(), json!(published.offers.get(peer).map(offered)))).collect();
    let gateway = published.gateway.values().next().map(|entry| {
        let mut config = (**entry.value()).clone();
        config.keys.iter_mut().for_each(|key| key.secret = "…".to_owned());
        config
    });
    json!({
        "status": status(plane),
        "services": hosts(&published).collect::<Vec<_>>(),
        "endpoints": endpoints(&published, None),
        "inbound": published.inbound.values().map(|entry| entry.value()).collect::<Vec<_>>(),
        "paths": published.paths.values().map(|entry| entry.value()).collect::<Vec<_>>(),
        "bundles": published.bundles.keys().collect::<Vec<_>>(),
        "gateway": gateway,
        "offered": peers,
        "proxies": plane.proxies.list(),
    })
}

fn offered(offers: &crate::encoded::Table<veer_core::Offer>) -> serde_json::Value {
    offers.iter().map(|(name, entry)| (name.clone(), json!({ "endpoints": entry.value().endpoints.len() }))).collect()
}

fn gateway_status(gateway: &veer_core::PathGateway) -> GatewayStatus {
    GatewayStatus { name: gateway.name.to_string(), address: gateway.address, draining: gateway.draining }
}

fn peer_status(peer: &PeerSnapshot, published: Option<&Published>) -> PeerStatus {
    let link = published.and_then(|p| p.links.get(&peer.cluster));
    let taken = |name: &str| {
        link.is_some_and(|link| {
            name.parse::<veer_core::ObjectName>().is_ok_and(|o| link.spec.provides(&o.namespace, &o.name))
        })
    };
    let offers: Vec<_> = peer.offers.iter().filter(|(name, _)| taken(name)).map(|(_, offer)| offer).collect();
    let refused = published.iter().flat_map(|p| &p.refused).filter(|refused| refused.cluster == peer.cluster);
    let refused = refused.map(|refused| match &refused.service {
        Some(service) => format!("{service}: {}", refused.reason),
        None => refused.reason.clone(),
    });
    PeerStatus {
        cluster: peer.cluster.clone(),
        trust_domain: peer.trust_domain.clone(),
        state: peer.state,
        connected: peer.session.connected,
        synced: peer.session.synced,
        age_seconds: peer.heard.map(|heard| clock::now().duration_since(heard).unwrap_or_default().as_secs_f64()),
        lease_seconds: peer.lease.as_secs_f64(),
        address: peer.session.address,
        incarnation: peer.incarnation.clone(),
        offers: offers.len(),
        endpoints: offers.iter().map(|offer| offer.endpoints.len()).sum(),
        offered: published.and_then(|p| p.offers.get(&peer.cluster)).map_or(0, |offers| offers.len()),
        refused: refused.collect(),
        last_error: peer.session.last_error.clone(),
    }
}

fn token(plane: &Plane, body: &[u8]) -> ApiResponse {
    let request: TokenRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => {
            let form = r#"write {"workload": "namespace/name"} or {"gateway": "name"}"#;
            return ApiResponse::error(StatusCode::BAD_REQUEST, format!("{error}; {form}"));
        }
    };
    let subject = match (request.workload, request.gateway) {
        (Some(workload), None) => Subject::Workload(workload),
        (None, Some(gateway)) => Subject::Gateway(gateway),
        _ => return ApiResponse::error(StatusCode::BAD_REQUEST, "name a workload or a gateway, exactly one of them"),
    };
    let Some(published) = plane.published() else {
        return ApiResponse::error(StatusCode::SERVICE_UNAVAILABLE, "the manifests were not read completely yet");
    };
    match plane.issuer.token(subject.clone(), &published.directory) {
        Ok((secret, expires)) => {
            let token = JoinToken {
                control: plane.advertised(),
                cluster: plane.config.cluster.clone(),
                workload: issuer::node_name(&subject),
                secret,
                expires,
                ca_hash: plane.issuer.root_hash(),
            };
            let lifetime = expires.duration_since(clock::now()).unwrap_or_default();
            ApiResponse::json(&TokenAnswer { token: token.to_string(), expires_in_seconds: lifetime.as_secs() })
        }
        Err(error @ IssueError::NoSuch(_)) => ApiResponse::error(StatusCode::NOT_FOUND, error.to_string()),
        Err(error) => ApiResponse::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// This cluster as its peers pin it. What it may provide is theirs to say, so that is left for them to write.
pub(crate) fn own_link(plane: &Plane) -> String {
    use std::fmt::Write as _;
    let bundle = plane.issuer.bundle();
    let mut text = format!(
        "# The cluster {name} as a peer. Put this among the manifests of the other cluster, and say there what it may provide.\n\
         apiVersion: veer.dev/v1alpha1\nkind: Link\nmetadata:\n  name: {name}\nspec:\n  trustDomain: {domain}\n  bundle: |\n",
        name = plane.config.cluster,
        domain = plane.config.trust_domain,
    );
    for line in bundle.roots_pem.lines() {
        let _ = writeln!(text, "    {line}");
    }
    text.push_str("  gateways:\n");
    for gateway in &plane.config.gateways {
        let _ = writeln!(
            text,
            "    - name: {}\n      address: \"{}\"\n      weight: {}",
            gateway.name, gateway.address, gateway.weight
        );
    }
    text.push_str("  provides: [\"*/*\"]\n");
    // GEP-2257 has at most five digits for a unit.
    let lease = match plane.config.lease.as_millis() {
        millis @ ..=99_999 => format!("{millis}ms"),
        millis => format!("{}s", (millis / 1000).min(99_999)),
    };
    let _ = writeln!(text, "  lease: {lease}");
    text
}

fn rotate(plane: &Plane) -> ApiResponse {
    match plane.order(|settings| settings.rotate += 1) {
        Ok(settings) => ApiResponse::json(&RotateAnswer { rotate: settings.rotate }),
        Err(error) => ApiResponse::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn confirm(plane: &Plane) -> ApiResponse {
    let confirmed = !plane.source.borrow().held.is_empty();
    if let Some(confirm) = plane.confirm.get() {
        confirm.confirm();
    }
    ApiResponse::json(&ConfirmAnswer { confirmed })
}

fn drain(plane: &Plane, name: &str, drain: bool) -> ApiResponse {
    if !plane.config.gateways.iter().any(|gateway| &*gateway.name == name) {
        let names: Vec<&str> = plane.config.gateways.iter().map(|gateway| &*gateway.name).collect();
        let error = format!("there is no gateway {name:?} in this cluster; there are: {}", names.join(", "));
        return ApiResponse::error(StatusCode::NOT_FOUND, error);
    }
    let changed = plane.order(|settings| {
        if drain {
            settings.draining.insert(name.to_owned());
        } else {
            settings.draining.remove(name);
        }
    });
    match changed {
        Ok(_) => match plane.gateways().iter().find(|gateway| &*gateway.name == name) {
            Some(gateway) => ApiResponse::json(&gateway_status(gateway)),
            None => ApiResponse::error(StatusCode::NOT_FOUND, "the gateway is gone"),
        },
        Err(error) => ApiResponse::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
