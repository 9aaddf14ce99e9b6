//! What the control plane said, ready for the request path.
//!
//! A worker subscribes to a service when its first request comes, and forgets it when none has come for long: memory follows
//! use. Views are compiled when they change, never when they are asked for.

mod backend;
mod entry;
mod path;
mod service;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use veer_balance::ServiceBalance;
use veer_core::{ClusterName, Endpoints, ObjectName, Path, Service, ServiceHost};

pub use self::backend::Backend;
pub use self::entry::{Entry, Missing};
pub use self::path::PathView;
pub use self::service::{PortView, ServiceView};
use crate::explain::Knows;
use crate::pool::Pools;
use crate::process::Process;
use crate::recent::Recent;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// A service that nobody asked for is forgotten after this.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// A name that does not exist is asked for again after this at the latest; until then the answer is at hand.
const FORGET_ABSENT_AFTER: Duration = Duration::from_secs(60);
/// Names known at once, so that an application that makes names up does not fill the memory.
const MAX_NAMES: usize = 16_384;

/// What one worker knows.
pub struct Knowledge {
    process: Arc<Process>,
    pools: Rc<Pools>,
    recent: Recent,
    /// What authorities mean, as they were written by callers; forgotten at every sweep.
    authorities: RefCell<Map<Box<[u8]>, (Rc<Entry<ServiceView>>, u16)>>,
    services: RefCell<Map<Box<str>, Rc<Entry<ServiceView>>>>,
    backends: RefCell<Map<ServiceHost, Rc<Entry<Backend>>>>,
    paths: Rc<RefCell<Map<ClusterName, Rc<Entry<PathView>>>>>,
}

impl Knowledge {
    /// Knows nothing yet.
    pub fn new(process: Arc<Process>, pools: Rc<Pools>, recent: Recent) -> Self {
        Self {
            process,
            pools,
            recent,
            authorities: RefCell::default(),
            services: RefCell::default(),
            backends: RefCell::default(),
            paths: Rc::default(),
        }
    }

    /// The service of this name (a host or a virtual address). Subscribes on first use.
    ///
    /// # Errors
    /// When there is none, or nothing is known of it yet.
    pub async fn service(&self, name: &str) -> Result<Rc<ServiceView>, Missing> {
        let entry = self.service_entry(name)?;
        self.view(&entry).await
    }

    /// The service and the port that an authority means, as `read` finds them in it; kept until the next sweep, so that the request
    /// path need not read the same authority again and again.
    ///
    /// # Errors
    /// Like [`Self::service`], or what `read` says.
    pub async fn by_authority<E: From<Missing>>(
        &self,
        authority: &[u8],
        read: impl FnOnce() -> Result<(String, u16), E>,
    ) -> Result<(Rc<ServiceView>, u16), E> {
        let kept = self.authorities.borrow().get(authority).cloned();
        let (entry, port) = match kept {
            Some(kept) => kept,
            None => {
                let (name, port) = read()?;
                let entry = self.service_entry(&name)?;
                let mut authorities = self.authorities.borrow_mut();
                if authorities.len() < MAX_NAMES {
                    authorities.insert(authority.into(), (Rc::clone(&entry), port));
                }
                (entry, port)
            }
        };
        Ok((self.view(&entry).await?, port))
    }

    async fn view<V: 'static>(&self, entry: &Entry<V>) -> Result<Rc<V>, Missing> {
        entry.get(self.process.config.knowledge_wait, self.recent.now()).await
    }

    fn service_entry(&self, name: &str) -> Result<Rc<Entry<ServiceView>>, Missing> {
        let known = self.services.borrow().get(name).cloned();
        known.map_or_else(|| self.subscribe_service(name), Ok)
    }

    /// The endpoints behind a host. Subscribes on first use.
    ///
    /// # Errors
    /// When there are none stated, or nothing is known of them yet.
    pub async fn backend(&self, host: &ServiceHost) -> Result<Rc<Backend>, Missing> {
        let known = self.backends.borrow().get(host).cloned();
        let entry = known.unwrap_or_else(|| self.subscribe_backend(host));
        self.view(&entry).await
    }

    /// How a peer is reached.
    ///
    /// # Errors
    /// When it is no peer, or nothing is known of it yet.
    pub async fn path(&self, cluster: &ClusterName) -> Result<Rc<PathView>, Missing> {
        let entry = path::subscribe(&self.process, &self.pools, &self.paths, cluster);
        entry.get(self.process.config.knowledge_wait, self.recent.now()).await
    }

    /// Every backend known now.
    pub fn backends(&self) -> Vec<Rc<Backend>> {
        in_order(&self.backends.borrow())
    }

    /// Every path known now.
    pub fn paths(&self) -> Vec<Rc<PathView>> {
        in_order(&self.paths.borrow())
    }

    /// Forgets what was not used for long. Called from time to time.
    pub fn sweep(&self, now: Instant) {
        let unused = |used: Instant| now.saturating_duration_since(used);
        self.authorities.borrow_mut().clear();
        self.services.borrow_mut().retain(|_, entry| {
            let limit = if entry.now().is_ok() { FORGET_AFTER } else { FORGET_ABSENT_AFTER };
            unused(entry.used()) < limit
        });
        self.backends.borrow_mut().retain(|_, entry| unused(entry.used()) < FORGET_AFTER);
    }

    fn subscribe_service(&self, name: &str) -> Result<Rc<Entry<ServiceView>>, Missing> {
        if self.services.borrow().len() >= MAX_NAMES {
            self.sweep(Instant::now());
            if self.services.borrow().len() >= MAX_NAMES {
                return Err(Missing::Unknown);
            }
        }
        let namespace = Arc::clone(&self.process.namespace);
        let entry = Entry::follow(self.process.xds.subscribe::<Service>(name), self.recent.now(), move |service, _| {
            Rc::new(ServiceView::compile(service, &namespace))
        });
        self.services.borrow_mut().insert(name.into(), Rc::clone(&entry));
        Ok(entry)
    }

    fn subscribe_backend(&self, host: &ServiceHost) -> Rc<Entry<Backend>> {
        let (process, pools, paths) = (Arc::clone(&self.process), Rc::clone(&self.pools), Rc::clone(&self.paths));
        let subscription = self.process.xds.subscribe::<Endpoints>(host.as_str());
        let entry = Entry::follow(subscription, self.recent.now(), move |endpoints, before: Option<&Rc<Backend>>| {
            for cluster in endpoints.clusters.iter().filter(|c| c.cluster != *process.clusters.own()) {
                path::subscribe(&process, &pools, &paths, &cluster.cluster);
            }
            match before {
                Some(backend) => {
                    backend.update(endpoints, &pools);
                    Rc::clone(backend)
                }
                None => Rc::new(Backend::new(&process, endpoints)),
            }
        });
        self.backends.borrow_mut().insert(host.clone(), Rc::clone(&entry));
        entry
    }
}

impl Knows for Knowledge {
    fn workload(&self) -> &ObjectName {
        &self.process.config.workload
    }

    async fn service(&self, name: &str) -> Result<Rc<ServiceView>, Missing> {
        Knowledge::service(self, name).await
    }

    async fn endpoints(&self, host: &ServiceHost) -> Result<(Arc<Endpoints>, Arc<ServiceBalance>), Missing> {
        let backend = self.backend(host).await?;
        Ok((backend.endpoints(), Arc::clone(&backend.balance)))
    }
}

/// The views that there are, in the order of their names: what is dialled and closed in turn must not depend on the keys
/// of a hasher, or no simulation could be repeated.
fn in_order<K: Ord, V: 'static>(known: &Map<K, Rc<Entry<V>>>) -> Vec<Rc<V>> {
    let mut entries: Vec<_> = known.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries.into_iter().filter_map(|(_, entry)| entry.now().ok()).collect()
}

impl Process {
    fn subscribe_path(&self, cluster: &ClusterName) -> veer_xds::Subscription<Path> {
        self.xds.subscribe::<Path>(cluster.as_str())
    }
}
