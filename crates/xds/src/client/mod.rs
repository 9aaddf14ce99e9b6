//! The following side: what is known, and the session that keeps it up to date.
//!
//! ```text
//!            dial                     first answers                connection lost
//! Connecting ────► AwaitFirst ───────────────────► Synced ───────────────────────► Stale
//!     ▲                │                              ▲            dial, answers      │
//!     └────────────────┘ (never synced before)        └───────── AwaitFirst ◄─────────┘
//! ```

mod cache;
mod session;
mod slot;
mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use veer_core::{Known, Resource};

use crate::grpc::{Channel, KeepAlive};
use crate::node::NodeInfo;
use cache::Received;
pub use cache::{Cache, CachedCollection, CachedResource};
pub use session::Session;
use store::Store;

/// A client and the session that feeds it, with default options.
pub fn client(node: NodeInfo, rng: fastrand::Rng) -> (Client, Session) {
    client_with(node, rng, SessionOptions::default())
}

/// A client and the session that feeds it.
pub fn client_with(node: NodeInfo, rng: fastrand::Rng, options: SessionOptions) -> (Client, Session) {
    let shared = Arc::new(Shared {
        store: Mutex::default(),
        wake: Notify::new(),
        progress: Mutex::new(Progress::new()),
        state: watch::Sender::new(SessionState::Connecting),
    });
    (Client { shared: Arc::clone(&shared) }, Session::new(shared, node, rng, options))
}

/// How a session behaves.
#[derive(Debug, Clone, Copy)]
pub struct SessionOptions {
    /// When a silent connection is given up.
    pub keep_alive: KeepAlive,
    /// Longest wait for a connection, TLS included. Default 3 s.
    pub dial_timeout: Duration,
    /// How long a resource that nobody uses is kept. Default 60 s: longer than a service's pause between two bursts.
    pub idle_grace: Duration,
    /// First wait after a lost connection. Default 100 ms.
    pub backoff_base: Duration,
    /// Longest wait between two attempts. Default 5 s.
    pub backoff_max: Duration,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            keep_alive: KeepAlive::default(),
            dial_timeout: Duration::from_secs(3),
            idle_grace: Duration::from_secs(60),
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// No control plane was ever heard; what is known comes from a cache, if from anywhere.
    Connecting,
    /// A stream is open; what was asked for at its beginning is not all answered.
    AwaitFirst,
    /// Everything asked for at the beginning was answered: what is known is what the control plane says now.
    Synced,
    /// The connection was lost; what was known is kept.
    Stale,
}

/// Facts about a session.
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// Where it stands.
    pub state: SessionState,
    /// Whether a stream is open.
    pub connected: bool,
    /// When it came to this state.
    pub since: Instant,
    /// When the last message came, if any did.
    pub last_message: Option<Instant>,
    /// Since when what is known may be out of date; `None` while synced.
    pub stale_since: Option<Instant>,
    /// Streams opened so far.
    pub connections: u64,
    /// Responses so far.
    pub responses: u64,
    /// Counts up with every response that changed something.
    pub generation: u64,
    /// Responses of which something was refused.
    pub nacks: u64,
    /// What was refused last, and why.
    pub last_nack: Option<String>,
    /// Why the last connection or attempt failed, or what the control plane could not serve.
    pub last_error: Option<String>,
    /// The control plane's own generation.
    pub server_generation: String,
    /// The control plane's name for itself.
    pub server: String,
    /// Names subscribed to.
    pub subscriptions: usize,
}

/// What is known, and how to ask for more. Cheap to clone; may be used from any thread.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Follows one resource. Another call for the same name shares what is known. The control plane is asked at once, or as soon as
    /// there is a connection; when the last handle is dropped, the name is given back after a while.
    ///
    /// # Panics
    /// When two different types claim one `TYPE_URL`.
    pub fn subscribe<R: Resource>(&self, name: &str) -> Subscription<R> {
        let (receiver, fresh) = self.shared.store().subscribe_one::<R>(name);
        let guard = Arc::new(Guard { shared: Arc::clone(&self.shared), type_url: R::TYPE_URL, name: name.into() });
        if fresh {
            self.shared.wake.notify_one();
        }
        Subscription { receiver, guard }
    }

    /// Follows all resources of a type that the control plane has for this client (the wildcard `*`).
    ///
    /// # Panics
    /// When two different types claim one `TYPE_URL`.
    pub fn subscribe_all<R: Resource>(&self) -> Collection<R> {
        let (receiver, fresh) = self.shared.store().subscribe_all::<R>();
        let name = crate::server::WILDCARD.into();
        let guard = Arc::new(Guard { shared: Arc::clone(&self.shared), type_url: R::TYPE_URL, name });
        if fresh {
            self.shared.wake.notify_one();
        }
        Collection { receiver, guard }
    }

    /// Where the session stands, and how it fared.
    pub fn status(&self) -> SessionStatus {
        let (subscriptions, generation) = {
            let store = self.shared.store();
            (store.len(), store.generation)
        };
        let state = *self.shared.state.borrow();
        let progress = self.shared.progress();
        SessionStatus {
            state,
            connected: progress.connected,
            since: progress.since,
            last_message: progress.last_message,
            stale_since: progress.stale_since,
            connections: progress.connections,
            responses: progress.responses,
            generation,
            nacks: progress.nacks,
            last_nack: progress.last_nack.clone(),
            last_error: progress.last_error.clone(),
            server_generation: progress.server_generation.clone(),
            server: progress.server.clone(),
            subscriptions,
        }
    }

    /// Follows the session's state.
    pub fn states(&self) -> watch::Receiver<SessionState> {
        self.shared.state.subscribe()
    }

    /// Whether the control plane is there and has told everything: its word is worth more than silence.
    pub fn is_synced(&self) -> bool {
        *self.shared.state.borrow() == SessionState::Synced
    }

    /// The present connection, for calls beside the stream ([`enroll::renew`](crate::enroll::renew), [`lease::ask`](crate::lease::ask),
    /// [`agent::report`](crate::agent::report)). To be used on the session's thread.
    pub fn channel(&self) -> Option<Channel> {
        self.shared.progress().channel.clone().filter(|channel| !channel.is_closed())
    }

    /// Everything that is known, for people.
    pub fn dump(&self) -> serde_json::Value {
        let status = self.status();
        serde_json::json!({
            "session": {
                "state": status.state,
                "connected": status.connected,
                "stateSeconds": status.since.elapsed().as_secs(),
                "lastMessageSeconds": status.last_message.map(|at| at.elapsed().as_secs()),
                "staleSeconds": status.stale_since.map(|at| at.elapsed().as_secs()),
                "connections": status.connections,
                "responses": status.responses,
                "generation": status.generation,
                "nacks": status.nacks,
                "lastNack": status.last_nack,
                "lastError": status.last_error,
                "server": status.server,
                "serverGeneration": status.server_generation,
            },
            "resources": self.shared.store().dump(),
        })
    }

    /// What to keep for a restart without a control plane: all subscriptions and what they were told. `now` is the wall time.
    pub fn export_cache(&self, now: SystemTime) -> Cache {
        let confirmed = Received { at: Instant::now(), before: self.unconfirmed_for().unwrap_or_default() };
        Cache { confirmed: confirmed.to_wall(now), ..self.shared.store().export(now) }
    }

    /// Takes back what an earlier process kept. A resource from a cache counts as present until the control plane says otherwise;
    /// what nobody asks for within a while after the control plane is back is forgotten.
    pub fn import_cache(&self, cache: Cache, now: SystemTime) {
        if cache.confirmed > 0 {
            self.shared.progress().confirmed = Some(Received::from_wall(cache.confirmed, now));
        }
        self.shared.store().import(cache, now);
    }

    /// How old what is known is: since when nobody has confirmed it; `None` while the control plane does. In a process that has
    /// not heard of the control plane yet, what came from the cache is as old as the cache says it is.
    pub fn unconfirmed_for(&self) -> Option<Duration> {
        let (stale_since, responses, confirmed) = {
            let progress = self.shared.progress();
            (progress.stale_since?, progress.responses, progress.confirmed)
        };
        let silent = stale_since.elapsed();
        let kept = || confirmed.map(Received::age).or_else(|| self.shared.store().oldest());
        let cached = if responses == 0 { kept() } else { None };
        Some(cached.map_or(silent, |cached| cached.max(silent)))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", *self.shared.state.borrow())
    }
}

/// A handle on one resource. Clones share the subscription; each sees changes for itself.
#[derive(Clone)]
pub struct Subscription<R> {
    receiver: watch::Receiver<Known<R>>,
    guard: Arc<Guard>,
}

impl<R: Resource> Subscription<R> {
    /// What is known now.
    pub fn borrow(&self) -> Known<R> {
        self.receiver.borrow().clone()
    }

    /// What is known now; a later [`changed`](Self::changed) waits for something else.
    pub fn borrow_and_update(&mut self) -> Known<R> {
        self.receiver.borrow_and_update().clone()
    }

    /// Waits until something else is known, and returns it. Never returns again when the whole client is gone. Cancel safe.
    pub async fn changed(&mut self) -> Known<R> {
        changed(&mut self.receiver).await
    }

    /// Whether something else is known since the last look.
    pub fn has_changed(&self) -> bool {
        self.receiver.has_changed().unwrap_or(false)
    }

    /// Waits for the first answer: whatever is known, once anything is. Callers put their own time-out around it. Cancel safe.
    pub async fn answer(&mut self) -> Known<R> {
        answer(&mut self.receiver).await
    }

    /// The resource's name.
    pub fn name(&self) -> &str {
        &self.guard.name
    }
}

impl<R> std::fmt::Debug for Subscription<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subscription({} {})", self.guard.type_url, self.guard.name)
    }
}

/// A handle on all resources of a type.
#[derive(Clone)]
pub struct Collection<R> {
    receiver: watch::Receiver<Known<BTreeMap<String, Arc<R>>>>,
    guard: Arc<Guard>,
}

impl<R: Resource> Collection<R> {
    /// What is known now, by name. [`Known::Absent`] does not occur: an empty collection is empty.
    pub fn borrow(&self) -> Known<BTreeMap<String, Arc<R>>> {
        self.receiver.borrow().clone()
    }

    /// Waits until something else is known, and returns it. A change of the control plane is seen as a whole. Cancel safe.
    pub async fn changed(&mut self) -> Known<BTreeMap<String, Arc<R>>> {
        changed(&mut self.receiver).await
    }

    /// Waits for the first complete answer. Cancel safe.
    pub async fn answer(&mut self) -> Known<BTreeMap<String, Arc<R>>> {
        answer(&mut self.receiver).await
    }
}

impl<R> std::fmt::Debug for Collection<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Collection({})", self.guard.type_url)
    }
}

async fn changed<T>(receiver: &mut watch::Receiver<Known<T>>) -> Known<T> {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    receiver.borrow_and_update().clone()
}

async fn answer<T>(receiver: &mut watch::Receiver<Known<T>>) -> Known<T> {
    match receiver.wait_for(|known| !matches!(known, Known::Unknown)).await {
        Ok(known) => known.clone(),
        Err(_) => std::future::pending().await,
    }
}

/// Holds a subscription; the last one that goes starts its idle time.
struct Guard {
    shared: Arc<Shared>,
    type_url: &'static str,
    name: Arc<str>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.store().release(self.type_url, &self.name);
    }
}

/// What the client's threads and the session share. Locks are held for moments, never across decoding or waiting.
struct Shared {
    store: Mutex<Store>,
    /// Wakes the session when there is something to ask for.
    wake: Notify,
    progress: Mutex<Progress>,
    state: watch::Sender<SessionState>,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        // Nothing in here is left half done by a panic that the types would not survive.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Facts about a session, as it gathers them.
struct Progress {
    connected: bool,
    since: Instant,
    last_message: Option<Instant>,
    stale_since: Option<Instant>,
    /// When what a former process kept was last confirmed.
    confirmed: Option<Received>,
    connections: u64,
    responses: u64,
    nacks: u64,
    last_nack: Option<String>,
    last_error: Option<String>,
    server_generation: String,
    server: String,
    channel: Option<Channel>,
}

impl Progress {
    fn new() -> Self {
        Self {
            connected: false,
            since: Instant::now(),
            last_message: None,
            stale_since: Some(Instant::now()),
            confirmed: None,
            connections: 0,
            responses: 0,
            nacks: 0,
            last_nack: None,
            last_error: None,
            server_generation: String::new(),
            server: String::new(),
            channel: None,
        }
    }
}
