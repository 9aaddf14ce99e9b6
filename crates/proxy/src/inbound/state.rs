//! What a worker knows of its own workload, and of who calls it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;
use veer_core::inbound::MtlsMode;
use veer_core::rate::RateLimit;
use veer_core::{Inbound, InboundPort, SpiffeId, TrustDomain};
use veer_identity::VerifiedPeer;
use veer_net::ConnectOptions;
use veer_route::{Asked, Authorizer, NormalPath};
use veer_telemetry::{Direction, Edge, EdgeLabels};

use super::rate::Limiter;
use crate::error::RequestError;
use crate::pool::{Dialer, Pools};
use crate::process::Process;
use crate::recent::Recent;

/// Edges kept at once; callers beyond are looked up each time.
const MAX_EDGES: usize = 4096;

/// Who is at the other end of a connection, and which port of the workload it came for.
pub struct Caller {
    /// As the handshake proved it; `None` for plaintext.
    pub peer: Option<VerifiedPeer>,
    /// Its identity as the application is told.
    pub client_id: Option<Box<str>>,
    /// Port of the workload.
    pub port: u16,
}

/// The workload as the control plane states it, with its policies compiled.
pub struct InboundView {
    /// As stated.
    pub inbound: Arc<Inbound>,
    authorizer: Authorizer,
    load: Vec<(u16, Arc<AtomicU32>)>,
    /// By port; only ports with limits are here.
    limiters: Vec<(u16, Arc<Limiter>)>,
    /// Whether any port takes safe methods only of anybody.
    restricted: bool,
}

/// The callee's side of one worker.
pub struct InboundState {
    process: Arc<Process>,
    stated: RefCell<watch::Receiver<Option<Arc<Inbound>>>>,
    view: RefCell<Option<Rc<InboundView>>>,
    /// Connections to the application.
    pub app: Pools,
    edges: RefCell<HashMap<(Option<SpiffeId>, u16), Edge, foldhash::fast::RandomState>>,
}

/// A request counts towards the workload's load until this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicU32>);

impl Caller {
    /// Somebody proven, or nobody in particular, at this port.
    pub fn new(peer: Option<VerifiedPeer>, port: u16) -> Self {
        let client_id = peer.as_ref().map(|peer| peer.id.to_string().into());
        Self { peer, client_id, port }
    }
}

impl InboundState {
    /// Begins with what the process knows.
    pub fn new(process: &Arc<Process>, rng: fastrand::Rng, recent: Recent) -> Self {
        let dialer = Dialer { options: ConnectOptions { source: None, mark: process.config.mark }, ..process.dialer() };
        Self {
            process: Arc::clone(process),
            stated: RefCell::new(process.inbound.clone()),
            view: RefCell::default(),
            app: Pools::new(dialer, Rc::new(|_, _| {}), rng, recent),
            edges: RefCell::default(),
        }
    }

    /// The present view. Looking costs an atomic load when nothing has changed.
    ///
    /// # Errors
    /// While the control plane has not said what the workload is.
    pub fn view(&self) -> Result<Rc<InboundView>, RequestError> {
        const NOT_READY: RequestError =
            RequestError::NotReady("the control plane has not said what this workload serves");
        let mut stated = self.stated.borrow_mut();
        if !stated.has_changed().unwrap_or(false)
            && let Some(view) = &*self.view.borrow()
        {
            return Ok(Rc::clone(view));
        }
        let Some(inbound) = stated.borrow_and_update().clone() else { return Err(NOT_READY) };
        let authorizer = Authorizer::new(&inbound.authorization, inbound.identity.trust_domain.clone());
        let load = inbound.ports.iter().map(|port| (port.port, self.process.in_flight(port.port))).collect();
        let restricted = inbound.offered_to.iter().any(|offered| !offered.safe_only.is_empty());
        let limiters = self.process.limiters(&inbound.ports, Instant::now());
        let view = Rc::new(InboundView { restricted, inbound, authorizer, load, limiters });
        *self.view.borrow_mut() = Some(Rc::clone(&view));
        self.edges.borrow_mut().clear();
        Ok(view)
    }

    /// Follows changes of the workload.
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Inbound>>> {
        self.stated.borrow().clone()
    }

    /// Where requests of the caller are counted.
    pub fn edge(&self, process: &Process, view: &InboundView, caller: &Caller) -> Edge {
        let at = (caller.peer.as_ref().map(|peer| peer.id.clone()), caller.port);
        if let Some(edge) = self.edges.borrow().get(&at) {
            return edge.clone();
        }
        let edge = process.telemetry.metrics.edge(&labels(view, caller));
        let mut edges = self.edges.borrow_mut();
        if edges.len() < MAX_EDGES {
            edges.insert(at, edge.clone());
        }
        edge
    }
}

/// The source is named by what its certificate proves: namespace, service account in the workload's place, and trust domain in
/// the cluster's place when it is not this cluster's own.
fn labels(view: &InboundView, caller: &Caller) -> EdgeLabels {
    let none: Arc<str> = "".into();
    let inbound = &view.inbound;
    let id = caller.peer.as_ref().map(|peer| &peer.id);
    let own_cluster: Arc<str> = inbound.cluster.as_str().into();
    let service = inbound.port(caller.port).and_then(|port| port.service.clone());
    EdgeLabels {
        direction: Direction::Inbound,
        source_workload: id.map_or_else(|| none.clone(), |id| Arc::clone(&id.service_account)),
        source_namespace: id.map_or_else(|| none.clone(), |id| Arc::clone(&id.namespace)),
        source_cluster: match id {
            Some(id) if id.trust_domain == inbound.identity.trust_domain => Arc::clone(&own_cluster),
            Some(id) => peer_cluster(inbound, &id.trust_domain),
            None => none.clone(),
        },
        destination_service: service.unwrap_or(none),
        destination_workload: Arc::clone(&inbound.workload.name),
        destination_namespace: Arc::clone(&inbound.workload.namespace),
        destination_cluster: own_cluster,
    }
}

impl InboundView {
    /// The port that was asked for, if the caller may come to it at all: it exists, plaintext is taken or TLS was proven, and the
    /// port was offered to the caller's trust domain.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, caller: &Caller) -> Result<&InboundPort, RequestError> {
        admit(&self.inbound, caller.peer.as_ref().map(|peer| &peer.id), caller.port)
    }

    /// Whether the caller may change the protocol, after which nobody sees what it asks.
    ///
    /// # Errors
    /// [`RequestError::Denied`] where it was offered safe methods only.
    pub fn may_upgrade(&self, caller: &Caller) -> Result<(), RequestError> {
        exposed(&self.inbound, caller.peer.as_ref().map(|peer| &peer.id), caller.port, None)
    }

    /// Takes the request's token from each limit of the port. Nothing is looked at where no port has any.
    ///
    /// # Errors
    /// [`RequestError::RateLimited`]; then no limit counts the request.
    pub fn limit(&self, caller: &Caller) -> Result<(), (RequestError, &RateLimit)> {
        if self.limiters.is_empty() {
            return Ok(());
        }
        let (id, now) = (caller.peer.as_ref().map(|peer| &peer.id), Instant::now());
        let own = || self.limiters.iter().filter(|(port, _)| *port == caller.port).map(|(_, limiter)| limiter);
        for (index, limiter) in own().enumerate() {
            if let Err(wait) = limiter.take(id, now) {
                own().take(index).for_each(|taken| taken.give_back(id));
                let told = format!("{} ({})", limiter.limit, limiter.limit.by);
                let wait = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
                return Err((RequestError::RateLimited(told.into(), wait), &limiter.limit));
            }
        }
        Ok(())
    }

    /// One more request to the port.
    pub fn load(&self, port: u16) -> InFlight {
        match self.load.iter().find(|(number, _)| *number == port) {
            Some((_, counter)) => InFlight::new(counter),
            None => InFlight::new(&Arc::default()),
        }
    }

    /// Asks the policies. `request` is `None` where requests are not seen.
    ///
    /// # Errors
    /// [`RequestError::Denied`], with the policy that said so.
    pub fn authorize(&self, caller: &Caller, request: Option<(&str, &NormalPath<'_>)>) -> Result<(), RequestError> {
        let asked =
            Asked { port: caller.port, method: request.map(|(method, _)| method), path: request.map(|(_, path)| path) };
        if self.restricted {
            exposed(&self.inbound, caller.peer.as_ref().map(|peer| &peer.id), caller.port, asked.method)?;
        }
        authorize(&self.authorizer, caller.peer.as_ref().map(|peer| &peer.id), &asked).map(drop)
    }
}

/// See [`InboundView::admit`].
///
/// # Errors
/// Why not.
pub fn admit<'i>(inbound: &'i Inbound, caller: Option<&SpiffeId>, port: u16) -> Result<&'i InboundPort, RequestError> {
    let Some(found) = inbound.port(port) else {
        return Err(RequestError::NoPort(inbound.workload.to_string(), port));
    };
    match caller {
        None if inbound.mtls == MtlsMode::Strict => {
            Err(RequestError::Denied("this workload takes mutual TLS only (strict)".to_owned()))
        }
        Some(id) if !inbound.admits(&id.trust_domain, port) => {
            Err(RequestError::Denied(format!("port {port} was not offered to {}", id.trust_domain)))
        }
        None | Some(_) => Ok(found),
    }
}

/// Whether the port was offered for this method; `None` where requests are not seen, or change the protocol: nobody could tell what
/// they ask then.
///
/// # Errors
/// [`RequestError::Denied`]: the caller's cluster was offered safe methods only (RFC 9110 §9.2.1).
pub fn exposed(
    inbound: &Inbound,
    caller: Option<&SpiffeId>,
    port: u16,
    method: Option<&str>,
) -> Result<(), RequestError> {
    match caller {
        Some(id)
            if inbound.safe_only(&id.trust_domain, port) && !matches!(method, Some("GET" | "HEAD" | "OPTIONS")) =>
        {
            Err(RequestError::Denied(format!(
                "port {port} was offered to {} for GET, HEAD and OPTIONS only",
                id.trust_domain
            )))
        }
        _ => Ok(()),
    }
}

/// See [`InboundView::authorize`]; says which policy lets it pass, if one does.
///
/// # Errors
/// [`RequestError::Denied`], with the policy that said so.
pub fn authorize(
    authorizer: &Authorizer,
    caller: Option<&SpiffeId>,
    asked: &Asked<'_>,
) -> Result<Option<Arc<str>>, RequestError> {
    let verdict = authorizer.check(caller, asked);
    if verdict.allowed {
        return Ok(verdict.by);
    }
    Err(RequestError::Denied(match verdict.by {
        Some(policy) => format!("by policy {policy}"),
        None => "no policy allows it".to_owned(),
    }))
}

impl InFlight {
    /// One more request.
    pub fn new(counter: &Arc<AtomicU32>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }

    /// Requests now, this one included.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The cluster that a foreign trust domain stands for; the trust domain itself when nobody said.
fn peer_cluster(inbound: &Inbound, trust_domain: &TrustDomain) -> Arc<str> {
    let offered = inbound.offered_to.iter().find(|offered| offered.trust_domain == *trust_domain);
    let cluster = offered.and_then(|offered| offered.cluster.as_ref());
    cluster.map_or_else(|| trust_domain.as_str().into(), |cluster| cluster.as_str().into())
}
