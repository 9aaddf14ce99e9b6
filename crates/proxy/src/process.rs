//! What all workers of the process share.

use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use veer_balance::{Clusters, PathBalance, ServiceBalance};
use veer_core::{ClusterName, Endpoints, Inbound, InboundPort, Path, ServiceHost, TrustDomain};
use veer_identity::Identity;

use crate::config::ProxyConfig;
use crate::inbound::rate::Limiter;
use crate::pool::Dialer;
use crate::telemetry::Telemetry;

/// Shared by all workers; made once identity is held.
pub struct Process {
    /// As started.
    pub config: ProxyConfig,
    /// Own certificate, and whom to believe.
    pub identity: Identity,
    /// The session with the control plane.
    pub xds: veer_xds::Client,
    /// How much each cluster is believed.
    pub clusters: Arc<Clusters>,
    /// Namespace of the workload.
    pub namespace: Arc<str>,
    /// Metrics and access log.
    pub telemetry: Telemetry,
    /// The own workload, as the control plane says.
    pub inbound: watch::Receiver<Option<Arc<Inbound>>>,
    /// Asks for a trust domain's bundle.
    trust: mpsc::UnboundedSender<TrustDomain>,
    /// Balances live as long as a worker uses them.
    services: Mutex<HashMap<ServiceHost, Weak<ServiceBalance>>>,
    paths: Mutex<HashMap<ClusterName, Arc<PathBalance>>>,
    /// Requests at the application, by port.
    in_flight: Mutex<HashMap<u16, Arc<AtomicU32>>>,
    /// Rate limits in force, by port.
    limiters: Mutex<Vec<(u16, Weak<Limiter>)>>,
}

impl Process {
    /// Joins the parts.
    pub fn new(
        config: ProxyConfig,
        identity: Identity,
        xds: veer_xds::Client,
        own: &ClusterName,
        telemetry: Telemetry,
        inbound: watch::Receiver<Option<Arc<Inbound>>>,
        trust: mpsc::UnboundedSender<TrustDomain>,
    ) -> Arc<Self> {
        let namespace = Arc::clone(&config.workload.namespace);
        Arc::new(Self {
            config,
            identity,
            xds,
            clusters: Clusters::new(own, Instant::now()),
            namespace,
            telemetry,
            inbound,
            trust,
            services: Mutex::default(),
            paths: Mutex::default(),
            in_flight: Mutex::default(),
            limiters: Mutex::default(),
        })
    }

    /// The bundle of this trust domain is needed.
    pub fn want_trust(&self, trust_domain: &TrustDomain) {
        // Fails only when the process ends.
        let _ = self.trust.send(trust_domain.clone());
    }

    /// The balance of the service, shared by all workers that use it; takes the newest endpoints.
    pub fn service_balance(&self, endpoints: &Endpoints, now: Instant) -> Arc<ServiceBalance> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.retain(|_, balance| balance.strong_count() > 0);
        if let Some(balance) = services.get(&endpoints.host).and_then(Weak::upgrade) {
            balance.update(endpoints, now);
            return balance;
        }
        let balance = ServiceBalance::new(endpoints, &self.clusters, now);
        services.insert(endpoints.host.clone(), Arc::downgrade(&balance));
        balance
    }

    /// The gateways of a peer, shared by all workers; takes the newest replicas.
    pub fn path_balance(&self, path: &Path, now: Instant) -> Arc<PathBalance> {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(balance) = paths.get(&path.cluster) {
            balance.update(path);
            return Arc::clone(balance);
        }
        let balance = PathBalance::new(path, now);
        paths.insert(path.cluster.clone(), Arc::clone(&balance));
        balance
    }

    /// Requests at the application's port, over all workers.
    pub fn in_flight(&self, port: u16) -> Arc<AtomicU32> {
        let mut ports = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(ports.entry(port).or_default())
    }

    /// The limits of these ports, over all workers; one that stays as it is keeps what it counted.
    pub fn limiters(&self, ports: &[InboundPort], now: Instant) -> Vec<(u16, Arc<Limiter>)> {
        let mut known = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, limiter)| limiter.strong_count() > 0);
        let mut all: Vec<(u16, Arc<Limiter>)> = Vec::new();
        for (port, limit) in ports.iter().flat_map(|port| port.limits.iter().map(|limit| (port.port, limit))) {
            let same = |(at, limiter): &(u16, Weak<Limiter>)| {
                limiter.upgrade().filter(|limiter| *at == port && limiter.limit == *limit)
            };
            // The same limit twice is one limit: it would count each request twice.
            let limiter = known.iter().find_map(same).unwrap_or_else(|| {
                let limiter = Arc::new(Limiter::new(limit, now));
                known.push((port, Arc::downgrade(&limiter)));
                limiter
            });
            if !all.iter().any(|(_, other)| Arc::ptr_eq(other, &limiter)) {
                all.push((port, limiter));
            }
        }
        all
    }

    /// Balances in use, for metrics and the dump.
    pub fn services(&self) -> Vec<Arc<ServiceBalance>> {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.values().filter_map(Weak::upgrade).collect()
    }

    /// Paths known, for metrics and the dump.
    pub fn paths(&self) -> Vec<(ClusterName, Arc<PathBalance>)> {
        let paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.iter().map(|(cluster, balance)| (cluster.clone(), Arc::clone(balance))).collect()
    }
}

impl Process {
    /// What makes connections to endpoints.
    pub fn dialer(&self) -> Dialer {
        Dialer {
            network: self.config.network,
            options: self.config.connect_options(),
            identity: self.identity.clone(),
            metrics: self.telemetry.metrics.clone(),
            name: None,
        }
    }
}
