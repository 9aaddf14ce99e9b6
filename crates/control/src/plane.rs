//! The control plane's shared state: what its tasks, its API and its sessions look at.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use veer_core::gateway::PathGateway;
use veer_identity::{EpochKeys, Identity};
use veer_source::Confirm;

use crate::config::ControlConfig;
use crate::issuer::Issuer;
use crate::peers::PeerBook;
use crate::proxies::Proxies;
use crate::published::Published;
use crate::state::{Incarnation, Settings, StateDir, StateError};

/// Everything that the parts of one control plane share.
#[derive(Debug)]
pub(crate) struct Plane {
    pub config: ControlConfig,
    /// Where xDS is served.
    pub listen: SocketAddr,
    /// Where the API is served.
    pub api: SocketAddr,
    pub issuer: Issuer,
    pub identity: Identity,
    pub book: PeerBook,
    pub proxies: Proxies,
    pub started: Instant,
    /// What was wrong with the state folder at start.
    pub state_faults: Vec<String>,
    /// The present generation; nothing until the manifests were read once, completely.
    pub published: watch::Sender<Option<Arc<Published>>>,
    /// The number of that generation: what sessions watch.
    pub generation: watch::Sender<u64>,
    /// What the source says about itself.
    pub source: watch::Sender<crate::api::SourceStatus>,
    /// Counts orders that change what is published (draining, rotation).
    pub orders: watch::Sender<u64>,
    /// Lets go what the source holds.
    pub confirm: OnceLock<Confirm>,
    state: Mutex<StateDir>,
}

impl Plane {
    pub(crate) fn new(
        config: ControlConfig,
        (listen, api): (SocketAddr, SocketAddr),
        state: StateDir,
        issuer: Issuer,
        identity: Identity,
        state_faults: Vec<String>,
    ) -> Arc<Self> {
        let book = PeerBook::new(state.peers());
        Arc::new(Self {
            config,
            listen,
            api,
            issuer,
            identity,
            book,
            proxies: Proxies::default(),
            started: Instant::now(),
            state_faults,
            published: watch::Sender::new(None),
            generation: watch::Sender::new(0),
            source: watch::Sender::new(crate::api::SourceStatus::waiting()),
            orders: watch::Sender::new(0),
            confirm: OnceLock::new(),
            state: Mutex::new(state),
        })
    }

    /// The present generation, once there is one.
    pub(crate) fn published(&self) -> Option<Arc<Published>> {
        self.published.borrow().clone()
    }

    /// The number of the next generation. Later starts count from higher up, so that a proxy which has seen an earlier life of
    /// this control plane is not taken for one that is ahead.
    pub(crate) fn next_generation(&self) -> u64 {
        const PER_START: u64 = 1_000_000;
        let first = self.incarnation().count.saturating_mul(PER_START);
        (*self.generation.borrow()).max(first) + 1
    }

    /// Where proxies, gateways and machines that join reach this control plane.
    pub(crate) fn advertised(&self) -> Vec<SocketAddr> {
        if self.config.advertise.is_empty() { vec![self.listen] } else { self.config.advertise.clone() }
    }

    /// The cluster's gateways with the operator's orders.
    pub(crate) fn gateways(&self) -> Vec<PathGateway> {
        let draining = self.settings().draining;
        let mut gateways = self.config.gateways.clone();
        for gateway in &mut gateways {
            gateway.draining |= draining.contains(&*gateway.name);
        }
        gateways
    }

    pub(crate) fn settings(&self) -> Settings {
        self.state().settings().clone()
    }

    /// Takes an order of the operator; it is on disk and on its way to everybody when this returns.
    pub(crate) fn order(&self, change: impl FnOnce(&mut Settings)) -> Result<Settings, StateError> {
        let mut state = self.state();
        state.change_settings(change)?;
        let settings = state.settings().clone();
        drop(state);
        self.orders.send_modify(|count| *count += 1);
        Ok(settings)
    }

    /// Who this control plane is.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.state().incarnation().clone()
    }

    /// Derives the keys of route tokens.
    pub(crate) fn keys(&self) -> EpochKeys {
        self.state().keys().clone()
    }

    /// Never handed out: a guard that lives to the end of a long expression is a deadlock.
    fn state(&self) -> MutexGuard<'_, StateDir> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
