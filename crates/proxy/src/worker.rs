//! One thread's share of the proxy: its pools, its view of the world, its listeners.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use veer_core::rate::RateLimit;
use veer_core::{ClusterName, InboundPort, ServiceHost};
use veer_net::{BindOptions, Drain, Listener, Stream};
use veer_telemetry::family::counters;
use veer_telemetry::{Direction, Edge, EdgeLabels};

use crate::error::ProxyError;
use crate::explain::{self, Explanation, Question};
use crate::http::serve::End;
use crate::http::watch::Connections;
use crate::inbound::{self, InboundState};
use crate::ingress;
use crate::knowledge::{Knowledge, ServiceView};
use crate::outbound;
use crate::pool::{Event, Key, Pools};
use crate::process::Process;
use crate::recent::Recent;
use crate::tcp::{Cut, Unless};
use crate::upkeep;

/// What a worker is asked from outside its thread.
pub enum Command {
    /// Its pools, for people.
    Dump(oneshot::Sender<serde_json::Value>),
    /// What would become of a request.
    Explain(Question, oneshot::Sender<Explanation>),
}

/// Everything that a request of this thread needs.
pub struct Worker {
    /// Shared by all workers.
    pub process: Arc<Process>,
    /// Connections to endpoints.
    pub pools: Rc<Pools>,
    /// What the control plane said.
    pub knowledge: Knowledge,
    /// The callee's side.
    pub inbound: InboundState,
    /// Randomness of this worker.
    pub rng: RefCell<fastrand::Rng>,
    /// The end.
    pub drain: Drain,
    /// The time, nearly.
    pub recent: Recent,
    /// Connections of downstreams that speak HTTP.
    pub connections: Rc<Connections>,
    /// Copies of requests under way.
    pub copies: Cell<usize>,
    /// Where requests and connections are counted that are for no service.
    no_service: OnceCell<Edge>,
    open: Rc<Open>,
    /// Fired at the end of the drain.
    cut: Cut,
}

impl Worker {
    /// A worker of the process. Its tasks run on the current [`tokio::task::LocalSet`].
    pub fn new(process: Arc<Process>, mut rng: fastrand::Rng, drain: Drain) -> Rc<Self> {
        Rc::new_cyclic(|worker: &std::rc::Weak<Worker>| {
            let worker = worker.clone();
            let listener = Rc::new(move |key: &Key, event| {
                if let Some(worker) = worker.upgrade() {
                    worker.pool_event(key, event);
                }
            });
            let recent = Recent::default();
            let pools = Rc::new(Pools::new(process.dialer(), listener, rng.fork(), recent.clone()));
            Worker {
                knowledge: Knowledge::new(Arc::clone(&process), Rc::clone(&pools), recent.clone()),
                inbound: InboundState::new(&process, rng.fork(), recent.clone()),
                pools,
                rng: RefCell::new(rng),
                drain,
                connections: Rc::new(Connections::new(recent.clone())),
                copies: Cell::new(0),
                recent,
                no_service: OnceCell::new(),
                open: Rc::default(),
                cut: Cut::default(),
                process,
            }
        })
    }

    /// Where requests are counted of which only the service is known, or not even that.
    pub fn service_edge(&self, service: Option<&ServiceView>) -> Edge {
        match service {
            Some(view) => view.edge.get_or_init(|| self.process.outbound_edge(Some(&view.host), None)).clone(),
            None => self.no_service.get_or_init(|| self.process.outbound_edge(None, None)).clone(),
        }
    }

    /// Takes connections until the drain begins or the listener breaks; each is served as a task of this worker. Beyond the
    /// limit they wait in the kernel's queue.
    pub async fn accept<F>(&self, listener: Listener, direction: &'static str, serve: impl Fn(Stream, Place) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let places = Arc::new(Semaphore::new(self.process.config.max_connections));
        let drained = self.drain.started();
        let mut drained = std::pin::pin!(drained);
        loop {
            let accepted = async {
                // Never closed.
                let place = Arc::clone(&places).acquire_owned().await;
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                biased;
                _ = drained.as_mut() => return,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let place = Place { _permit: place.ok(), _open: self.open() };
                    // Boxed: the runtime moves what it spawns several times.
                    tokio::task::spawn_local(Box::pin(serve(stream, place)));
                }
                Err(error) => {
                    tracing::error!(direction, %error, "a listener is of no more use");
                    return;
                }
            }
        }
    }

    /// Keeps the worker from ending before the drain's limit while it is held.
    pub fn open(&self) -> OpenGuard {
        self.open.count.set(self.open.count.get() + 1);
        OpenGuard(Rc::clone(&self.open))
    }

    /// Waits until nothing is open.
    async fn all_closed(&self) {
        loop {
            let closed = self.open.closed.notified();
            if self.open.count.get() == 0 {
                return;
            }
            closed.await;
        }
    }

    /// Runs a relay to its end, but not beyond the drain's. `None` when it was cut.
    pub fn until_drained<F: Future + Unpin>(&self, relaying: F) -> Unless<F> {
        self.cut.unless(relaying)
    }

    /// A connection was refused before anything is known of its edge.
    pub fn refused(&self, direction: &'static str, reason: &str) {
        self.process.telemetry.metrics.counter(&counters::REFUSED_CONNECTIONS, &[direction, reason]).inc();
    }

    /// Counts a request that a rate limit of the port refused.
    pub fn rate_limited(&self, port: &InboundPort, limit: &RateLimit) {
        let labels = [port.service.as_deref().unwrap_or_default(), limit.per.as_str()];
        self.process.telemetry.metrics.counter(&counters::RATE_LIMITED, &labels).inc();
    }

    /// Counts a connection that was ended for what its other side did.
    pub fn ended(&self, direction: &'static str, end: End) {
        if let Some(reason) = end.reason() {
            self.refused(direction, reason);
        }
    }

    /// Opens the listeners and serves until the drain is over.
    ///
    /// # Errors
    /// When a listener cannot be bound.
    pub async fn run(
        self: Rc<Self>,
        mut commands: mpsc::UnboundedReceiver<Command>,
        ready: impl FnOnce(),
    ) -> Result<(), ProxyError> {
        let config = &self.process.config;
        let mut tasks = Vec::new();
        if config.ingress {
            tasks.push(tokio::task::spawn_local(ingress::listen(Rc::clone(&self))));
        }
        if let Some(address) = config.outbound.filter(|_| !config.ingress) {
            let listener = self.bind(address, false).await?;
            tasks.push(tokio::task::spawn_local(outbound::listen(Rc::clone(&self), listener)));
        }
        if let Some(address) = config.mesh.filter(|_| !config.ingress) {
            let listener = self.bind(address, false).await?;
            tasks.push(tokio::task::spawn_local(inbound::listen_mesh(Rc::clone(&self), listener)));
        }
        if let Some(capture) = config.capture {
            let listener = self.bind(capture.outbound, capture.transparent).await?;
            tasks.push(tokio::task::spawn_local(outbound::listen_captured(Rc::clone(&self), listener)));
            let listener = self.bind(capture.inbound, capture.transparent).await?;
            tasks.push(tokio::task::spawn_local(inbound::listen_captured(Rc::clone(&self), listener)));
        } else if !config.ingress {
            tasks.push(tokio::task::spawn_local(inbound::listen_ports(Rc::clone(&self))));
        }
        tasks.push(tokio::task::spawn_local(upkeep::run(Rc::clone(&self))));
        ready();

        let deadline = loop {
            tokio::select! {
                biased;
                deadline = self.drain.started() => break deadline,
                command = commands.recv() => match command {
                    Some(Command::Dump(answer)) => drop(answer.send(self.pools.dump())),
                    Some(Command::Explain(question, answer)) => {
                        let worker = Rc::clone(&self);
                        tokio::task::spawn_local(async move {
                            let told = explain::explain(&worker.knowledge, &question).await;
                            drop(answer.send(told));
                        });
                    }
                    None => break self.drain.started().await,
                },
            }
        };
        // Nothing new; what is open is told to end, and has until the deadline.
        self.connections.drain();
        let _ = tokio::time::timeout_at(deadline, self.all_closed()).await;
        self.cut.fire();
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        Ok(())
    }

    async fn bind(&self, address: SocketAddr, transparent: bool) -> Result<Listener, ProxyError> {
        let options = BindOptions { reuse_port: true, transparent, ..BindOptions::default() };
        self.process.config.network.bind(address, options).await.map_err(|error| ProxyError::Bind { address, error })
    }

    fn pool_event(&self, key: &Key, event: Event) {
        match event {
            Event::Proven(rtt) => {
                let health = self.process.clusters.get(&key.cluster);
                health.prove(Instant::now());
                health.observe_rtt(rtt);
            }
            Event::Lost => {
                for backend in self.knowledge.backends() {
                    backend.lost(key);
                }
            }
        }
    }
}

/// What must be given time before the worker ends.
#[derive(Default)]
struct Open {
    count: Cell<usize>,
    closed: Notify,
}

/// A connection's place among those that may be open at once; held to its end.
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
    _open: OpenGuard,
}

impl Place {
    /// Goes on with a connection in a task of its own: once it is known what is spoken, the room that finding out took is free again,
    /// and an idle connection is as small as what it waits for.
    pub fn go_on(self, serving: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(Held { serving, _place: self });
    }
}

pin_project_lite::pin_project! {
    /// An `async` block around `serving` would hold it twice.
    struct Held<F> {
        #[pin]
        serving: F,
        _place: Place,
    }
}

impl<F: Future> Future for Held<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().serving.poll(cx)
    }
}

/// Held by something that is open.
pub struct OpenGuard(Rc<Open>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.closed.notify_waiters();
    }
}

impl Process {
    /// The edge from this workload to a service, or to one of its endpoints.
    pub fn outbound_edge(&self, service: Option<&ServiceHost>, target: Option<&veer_balance::EndpointKey>) -> Edge {
        let none: Arc<str> = "".into();
        let object = service.and_then(ServiceHost::object);
        self.telemetry.metrics.edge(&EdgeLabels {
            direction: Direction::Outbound,
            source_workload: Arc::clone(&self.config.workload.name),
            source_namespace: Arc::clone(&self.namespace),
            source_cluster: self.own_cluster().as_str().into(),
            destination_service: service.map_or_else(|| Arc::clone(&none), |host| host.as_str().into()),
            destination_workload: target.map_or_else(|| Arc::clone(&none), |key| Arc::clone(&key.workload.name)),
            destination_namespace: match (target, object) {
                (Some(key), _) => Arc::clone(&key.workload.namespace),
                (None, Some(object)) => object.namespace,
                (None, None) => Arc::clone(&none),
            },
            destination_cluster: target.map_or(none, |key| key.cluster.as_str().into()),
        })
    }

    /// The cluster that this proxy belongs to.
    pub fn own_cluster(&self) -> &ClusterName {
        self.clusters.own()
    }
}
