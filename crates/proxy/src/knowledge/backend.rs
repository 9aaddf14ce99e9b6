//! A service's endpoints: balanced for the whole process, picked and connected per worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use veer_balance::{Dial, EndpointKey, NoEndpoint, Pick, Picker, ServiceBalance, Target};
use veer_core::backend_tls::BackendTls;
use veer_core::hashing::ConsistentHash;
use veer_core::route::SessionPersistence;
use veer_core::{Endpoints, ServiceHost};
use veer_route::Faults;
use veer_telemetry::Edge;

use super::Map;
use crate::pool::{Key, Pools, Upstream};
use crate::process::Process;

/// The endpoints behind one host, as one worker uses them.
pub struct Backend {
    /// The host.
    pub host: ServiceHost,
    /// State shared by all workers.
    pub balance: Arc<ServiceBalance>,
    picker: RefCell<Picker>,
    endpoints: RefCell<Arc<Endpoints>>,
    /// Injected on purpose; nearly always none.
    faults: RefCell<Option<Rc<Faults>>>,
    /// By target and service port, so that a request does not build a key. The target is kept: its address stays its own.
    upstreams: RefCell<Map<(usize, u16), (Arc<Target>, Rc<Upstream>)>>,
    edges: RefCell<Map<usize, (Arc<Target>, Edge)>>,
}

impl Backend {
    /// Joins the balance of this process.
    pub(super) fn new(process: &Process, endpoints: &Arc<Endpoints>) -> Self {
        let balance = process.service_balance(endpoints, Instant::now());
        Self {
            host: endpoints.host.clone(),
            picker: RefCell::new(Picker::new(Arc::clone(&balance))),
            balance,
            endpoints: RefCell::new(Arc::clone(endpoints)),
            faults: RefCell::new(compiled(endpoints)),
            upstreams: RefCell::default(),
            edges: RefCell::default(),
        }
    }

    /// Takes a new word of the control plane. Connections to endpoints that have gone end after what they carry.
    pub(super) fn update(&self, endpoints: &Arc<Endpoints>, pools: &Pools) {
        self.balance.update(endpoints, Instant::now());
        let before = self.endpoints.replace(Arc::clone(endpoints));
        if before.policy.faults != endpoints.policy.faults {
            *self.faults.borrow_mut() = compiled(endpoints);
        }
        let stays = |cluster: &veer_core::ClusterEndpoints, endpoint: &veer_core::Endpoint| {
            endpoints.clusters.iter().any(|c| {
                c.cluster == cluster.cluster
                    && c.endpoints.iter().any(|e| e.address == endpoint.address && e.identity == endpoint.identity)
            })
        };
        for cluster in &before.clusters {
            for endpoint in cluster.endpoints.iter().filter(|e| !stays(cluster, e)) {
                pools.retire(&cluster.cluster, endpoint.address, endpoint.identity.as_ref());
            }
        }
        self.upstreams.borrow_mut().clear();
        self.edges.borrow_mut().clear();
    }

    /// Chooses an endpoint for one try.
    ///
    /// # Errors
    /// When there is none that could be tried.
    pub fn pick(&self, rng: &mut fastrand::Rng, exclude: &[EndpointKey], now: Instant) -> Result<Pick, NoEndpoint> {
        self.picker.borrow_mut().pick(now, rng, exclude)
    }

    /// The endpoint that a session is bound to, when it can serve.
    pub fn pick_bound(&self, id: u64, exclude: &[EndpointKey], now: Instant) -> Option<Pick> {
        self.picker.borrow_mut().pick_bound(id, now, exclude)
    }

    /// Sessions of the service, when its policy says so.
    pub fn session(&self) -> Option<Arc<SessionPersistence>> {
        self.endpoints.borrow().policy.session.clone()
    }

    /// Faults to inject into requests for the service.
    #[inline]
    pub fn faults(&self) -> Option<Rc<Faults>> {
        self.faults.borrow().clone()
    }

    /// How requests are led by a key, if they are.
    #[inline]
    pub fn hash(&self) -> Option<Arc<ConsistentHash>> {
        self.endpoints.borrow().policy.hash.clone()
    }

    /// Chooses the endpoint that a key leads to.
    ///
    /// # Errors
    /// As [`Self::pick`].
    pub fn pick_hashed(
        &self,
        hash: u64,
        rng: &mut fastrand::Rng,
        exclude: &[EndpointKey],
        now: Instant,
    ) -> Result<Pick, NoEndpoint> {
        self.picker.borrow_mut().pick_hashed(hash, now, rng, exclude)
    }

    /// As the control plane stated them.
    pub fn endpoints(&self) -> Arc<Endpoints> {
        Arc::clone(&self.endpoints.borrow())
    }

    /// Who wrote the service's policy.
    pub fn policy_by(&self) -> String {
        self.endpoints.borrow().policy.by.join(" and ")
    }

    /// TLS toward endpoints outside of the mesh; those in it have mutual TLS of their own.
    fn tls(&self, service_port: u16, dial: &Dial<'_>) -> Option<Arc<BackendTls>> {
        if !matches!(dial, Dial::Plain { .. }) {
            return None;
        }
        let endpoints = self.endpoints.borrow();
        endpoints.tls.iter().find(|tls| tls.service_port == service_port).cloned()
    }

    /// The connections to a target for a service port.
    pub fn upstream(&self, pools: &Pools, target: &Arc<Target>, service_port: u16, dial: &Dial<'_>) -> Rc<Upstream> {
        let at = (Arc::as_ptr(target) as usize, service_port);
        if let Some((_, upstream)) = self.upstreams.borrow().get(&at) {
            return Rc::clone(upstream);
        }
        let mut key = Key::of(target, dial);
        key.tls = self.tls(service_port, dial);
        key.name = self.endpoints.borrow().external.clone();
        let upstream = pools.upstream(&key);
        self.upstreams.borrow_mut().insert(at, (Arc::clone(target), Rc::clone(&upstream)));
        upstream
    }
}

fn compiled(endpoints: &Endpoints) -> Option<Rc<Faults>> {
    Faults::new(&endpoints.policy.faults).map(Rc::new)
}

impl Backend {
    /// Where requests to the target are counted.
    pub fn edge(&self, process: &Process, target: &Arc<Target>) -> Edge {
        let at = Arc::as_ptr(target) as usize;
        if let Some((_, edge)) = self.edges.borrow().get(&at) {
            return edge.clone();
        }
        let edge = process.outbound_edge(Some(&self.host), Some(&target.key));
        self.edges.borrow_mut().insert(at, (Arc::clone(target), edge.clone()));
        edge
    }

    /// A connection to one of the targets was lost in disorder.
    pub fn lost(&self, key: &Key) {
        for (target, upstream) in self.upstreams.borrow().values() {
            if upstream.key() == key {
                self.balance.unreachable(target, Instant::now());
            }
        }
    }
}
