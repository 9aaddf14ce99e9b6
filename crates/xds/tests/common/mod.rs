//! A control plane made of a map, and clients on pipes.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use veer_core::{Resource, SpiffeId, TrustDomain};
use veer_net::BoxedIo;
use veer_xds::{Client, NodeInfo, Services, SessionOptions, SessionState, Source, Subscriber, client_with, version_of};

/// A resource of the tests, under the URL of a real type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thing {
    pub size: u32,
}

impl Resource for Thing {
    const TYPE_URL: &'static str = "veer.dev/v1.Service";
}

/// Something that things refer to: sent before them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub size: u32,
}

impl Resource for Part {
    const TYPE_URL: &'static str = "veer.dev/v1.Endpoints";
}

/// A type of a newer version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Novelty {}

impl Resource for Novelty {
    const TYPE_URL: &'static str = "veer.dev/v9.Novelty";
}

type Bodies = BTreeMap<(String, String), Bytes>;

pub struct Fake {
    pub bodies: RefCell<Bodies>,
    pub generation: watch::Sender<u64>,
    pub rejections: RefCell<Vec<String>>,
    pub accepted: Cell<u64>,
    pub caught_up: Cell<u64>,
    pub unknown: RefCell<Vec<String>>,
}

impl Fake {
    pub fn unready() -> Arc<Self> {
        #[allow(clippy::arc_with_non_send_sync, reason = "one thread; the trait object is shared as an Arc")]
        Arc::new(Self {
            bodies: RefCell::default(),
            generation: watch::Sender::new(0),
            rejections: RefCell::default(),
            accepted: Cell::new(0),
            caught_up: Cell::new(0),
            unknown: RefCell::default(),
        })
    }

    pub fn ready() -> Arc<Self> {
        let fake = Self::unready();
        fake.publish();
        fake
    }

    /// Makes what was put visible.
    pub fn publish(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    pub fn put<R: Resource>(&self, name: &str, resource: &R) {
        self.put_raw::<R>(name, serde_json::to_vec(resource).unwrap());
    }

    pub fn put_raw<R: Resource>(&self, name: &str, body: impl Into<Bytes>) {
        self.bodies.borrow_mut().insert((R::TYPE_URL.into(), name.into()), body.into());
    }

    pub fn remove<R: Resource>(&self, name: &str) {
        self.bodies.borrow_mut().remove(&(R::TYPE_URL.into(), name.into()));
    }
}

impl Source for Fake {
    fn get(&self, _: &Subscriber, type_url: &str, name: &str) -> Option<(String, Bytes)> {
        let bodies = self.bodies.borrow();
        let body = bodies.get(&(type_url.to_owned(), name.to_owned()))?;
        Some((version_of(body), body.clone()))
    }

    fn list(&self, _: &Subscriber, type_url: &str) -> Vec<String> {
        self.bodies.borrow().keys().filter(|(url, _)| url == type_url).map(|(_, name)| name.clone()).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    fn knows(&self, _: &Subscriber, _: &str, name: &str) -> bool {
        !self.unknown.borrow().iter().any(|unknown| unknown == name)
    }

    fn accepted(&self, _: &Subscriber, _: &str, _: u64) {
        self.accepted.set(self.accepted.get() + 1);
    }

    fn caught_up(&self, _: &Subscriber, generation: u64) {
        self.caught_up.set(generation);
    }

    fn rejected(&self, _: &Subscriber, type_url: &str, _: u64, reason: &str) {
        self.rejections.borrow_mut().push(format!("{type_url}: {reason}"));
    }
}

pub fn somebody() -> Subscriber {
    Subscriber::verified(SpiffeId::new(TrustDomain::new("west.example").unwrap(), "shop", "web"))
}

pub fn node() -> NodeInfo {
    NodeInfo { id: "web-1".into(), cluster: "west".into(), workload: "shop/web-1".into(), ..NodeInfo::default() }
}

/// A line to a control plane that can be cut and answers again.
pub struct Line {
    pub services: Services,
    pub peer: Option<Subscriber>,
    pub open: RefCell<Vec<JoinHandle<()>>>,
    pub down: Cell<bool>,
}

impl Line {
    pub fn to(source: &Arc<Fake>) -> Rc<Self> {
        Self::with(Services::new("west/1", Arc::clone(source) as Arc<dyn Source>), Some(somebody()))
    }

    pub fn with(services: Services, peer: Option<Subscriber>) -> Rc<Self> {
        Rc::new(Self { services, peer, open: RefCell::default(), down: Cell::new(false) })
    }

    pub fn dial(&self) -> std::io::Result<BoxedIo> {
        if self.down.get() {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        let (client, server) = tokio::io::duplex(64 << 10);
        let serving = veer_xds::serve_connection(server, self.peer.clone(), self.services.clone());
        self.open.borrow_mut().push(spawn_local(serving));
        Ok(Box::new(client))
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.open.borrow_mut().drain(..).for_each(|serving| serving.abort());
    }

    /// A client whose session runs.
    pub fn client(self: &Rc<Self>, options: SessionOptions) -> Client {
        let (client, session) = client_with(node(), fastrand::Rng::with_seed(1), options);
        self.run(session);
        client
    }

    pub fn run(self: &Rc<Self>, session: veer_xds::Session) {
        let line = Rc::clone(self);
        spawn_local(session.run(async move || line.dial()));
    }
}

/// Runs a test on a virtual clock; fails when it takes longer than a minute of it.
pub fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let limited = async { tokio::time::timeout(Duration::from_secs(600), test).await };
    LocalSet::new().block_on(&runtime, limited).expect("the test came to no end");
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..40_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came: {what}");
}

pub async fn synced(client: &Client) {
    let mut states = client.states();
    states.wait_for(|state| *state == SessionState::Synced).await.unwrap();
}
