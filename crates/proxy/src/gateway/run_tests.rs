//! A gateway process against a control plane that is played by this test, over real sockets.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use veer_core::names::SpiffeId;
use veer_core::{GatewayConfig, ObjectName, Resource, TrustDomain};
use veer_identity::{ALPN_XDS, Ca, ClientAuth, Identity, JoinToken, KeyRequest, Svid, accept, clock};
use veer_net::{Drain, DrainTrigger, Network, drain};
use veer_xds::enroll::{Enroll, Enrolled, Join, Renew};
use veer_xds::{LocalFuture, Services, Source, Status, Subscriber, serve_connection};

use super::tests::{Identities, SECRET, cluster, key, knows, localhost, name, ping, run_local, to};
use super::{GatewayProcessConfig, run};
use crate::config::Workers;
use crate::error::ProxyError;

const HOUR: Duration = Duration::from_secs(3600);

/// Issues identities and tells one configuration.
struct Control {
    ca: Ca,
    config: RefCell<GatewayConfig>,
    generation: watch::Sender<u64>,
    renewals: Cell<u32>,
}

impl Control {
    fn new(config: GatewayConfig) -> Rc<Self> {
        let domain = TrustDomain::new("west.example").unwrap();
        let ca = Ca::create(&domain, clock::now()).unwrap();
        Rc::new(Self { ca, config: config.into(), generation: watch::Sender::new(1), renewals: Cell::default() })
    }

    fn tell(&self, change: impl FnOnce(&mut GatewayConfig)) {
        change(&mut self.config.borrow_mut());
        self.generation.send_modify(|generation| *generation += 1);
    }

    fn issue(&self, csr_der: &[u8], id: &SpiffeId) -> Enrolled {
        let chain = self.ca.sign(csr_der, id, HOUR, clock::now()).unwrap();
        let chain_der = chain.into_iter().map(|certificate| certificate.to_vec()).collect();
        Enrolled { chain_der, bundles: vec![self.ca.bundle()], id: id.clone(), ttl: HOUR }
    }

    fn gateway_id(&self) -> SpiffeId {
        SpiffeId::gateway(self.ca.trust_domain().clone())
    }

    /// Serves until the task is aborted, which takes every connection with it.
    async fn serve(self: &Rc<Self>) -> (SocketAddr, JoinHandle<()>) {
        let request = KeyRequest::new().unwrap();
        let id = SpiffeId::control(self.ca.trust_domain().clone());
        let chain = self.ca.sign(&request.csr_der, &id, HOUR, clock::now()).unwrap();
        let identity = Identity::new(Svid::from_chain(request.key, chain).unwrap(), [self.ca.bundle()]).unwrap();
        let listener = TcpListener::bind(localhost()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Rc::clone(self);
        let serving = tokio::task::spawn_local(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let config = identity.server_config(&[ALPN_XDS], ClientAuth::Optional);
                #[allow(clippy::arc_with_non_send_sync, reason = "everything runs on this thread")]
                let hooks = Arc::new(Hooks(Rc::clone(&control)));
                let mut services = Services::new("west", hooks.clone());
                services.enroll = Some(hooks);
                connections.spawn_local(async move {
                    let Ok((stream, peer)) = accept(stream, config).await else { return };
                    serve_connection(stream, peer.map(|peer| Subscriber::verified(peer.id)), services).await;
                });
            }
        });
        (address, serving)
    }

    fn token(&self, control: SocketAddr) -> JoinToken {
        JoinToken {
            control: vec![control],
            cluster: cluster("west"),
            workload: ObjectName::new("veer-system", "g1"),
            secret: "once".to_owned(),
            expires: clock::now() + HOUR,
            ca_hash: self.ca.root_hash(),
        }
    }
}

struct Hooks(Rc<Control>);

impl Source for Hooks {
    fn get(&self, who: &Subscriber, type_url: &str, name: &str) -> Option<(String, bytes::Bytes)> {
        let asked = who.id == self.0.gateway_id() && type_url == GatewayConfig::TYPE_URL && name == "west";
        let json = asked.then(|| serde_json::to_vec(&*self.0.config.borrow()).unwrap())?;
        Some((veer_xds::version_of(&json), json.into()))
    }
    fn list(&self, _: &Subscriber, _: &str) -> Vec<String> {
        Vec::new()
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }
}

impl Enroll for Hooks {
    fn join(&self, request: Join) -> LocalFuture<'_, Result<Enrolled, Status>> {
        let good = request.secret == "once" && request.workload == "veer-system/g1" && request.cluster == "west";
        let answer = if good {
            Ok(self.0.issue(&request.csr_der, &self.0.gateway_id()))
        } else {
            Err(Status::permission_denied("unknown token"))
        };
        Box::pin(async { answer })
    }
    fn renew<'a>(&'a self, who: &'a Subscriber, request: Renew) -> LocalFuture<'a, Result<Enrolled, Status>> {
        self.0.renewals.set(self.0.renewals.get() + 1);
        Box::pin(async move { Ok(self.0.issue(&request.csr_der, &who.id)) })
    }
}

async fn free_address() -> SocketAddr {
    TcpListener::bind(localhost()).await.unwrap().local_addr().unwrap()
}

struct Process {
    public: SocketAddr,
    admin: SocketAddr,
    drain: DrainTrigger,
    ended: JoinHandle<Result<(), ProxyError>>,
}

async fn start(state: &Path, control: SocketAddr, join: Option<JoinToken>, workers: Workers) -> Process {
    let mut config = GatewayProcessConfig::new("g1", cluster("west"), localhost().ip());
    let (public, admin) = (free_address().await, free_address().await);
    (config.public, config.admin, config.egress) = (public, Some(admin), None);
    (config.control, config.join, config.workers) = (vec![control], join, workers);
    config.state_dir = Some(state.to_owned());
    let (trigger, watch): (_, Drain) = drain();
    Process { public, admin, drain: trigger, ended: tokio::task::spawn_local(run(config, watch)) }
}

impl Process {
    async fn page(&self, path: &str) -> String {
        let Ok(mut stream) = Network::Tcp.connect(self.admin).await else { return String::new() };
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        if stream.write_all(head.as_bytes()).await.is_ok() {
            let _ = stream.read_to_string(&mut answer).await;
        }
        answer
    }

    async fn until_ready(&self) {
        until("the gateway is ready", async || self.page("/ready").await.starts_with("HTTP/1.1 200")).await;
        until("the door is open", async || Network::Tcp.connect(self.public).await.is_ok()).await;
    }

    async fn end(self) {
        self.drain.start(Duration::from_millis(200));
        self.ended.await.unwrap().unwrap();
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[test]
fn a_gateway_joins_learns_renews_and_outlives_its_control_plane() {
    run_local(async {
        let state = tempfile::tempdir().unwrap();
        let identities = Identities::new();
        let callee = identities.echo().await;
        let control = Control::new(knows(callee.port()));
        let (address, serving) = control.serve().await;
        let name = name(&key(1, SECRET), to(callee));

        let first = start(state.path(), address, Some(control.token(address)), Workers::Local).await;
        first.until_ready().await;
        ping(&mut identities.call(first.public, &name).await.unwrap()).await.unwrap();
        let dump = first.page("/dump").await;
        assert!(dump.contains("/ns/veer-system/sa/gateway") && dump.contains("\"serial\""), "{dump}");
        assert!(!dump.contains(SECRET), "no key is shown: {dump}");
        assert!(first.page("/metrics").await.contains("veer_relay_bytes_total{peer=\"east\""));

        // An order to renew is obeyed at once, though the certificate is young.
        assert_eq!(control.renewals.get(), 0);
        control.tell(|config| config.rotate = 1);
        until("the certificate is renewed", async || control.renewals.get() == 1).await;

        // The control plane dies; traffic goes on, also through a restart.
        serving.abort();
        let _ = serving.await;
        ping(&mut identities.call(first.public, &name).await.unwrap()).await.unwrap();
        first.end().await;
        for entry in std::fs::read_dir(state.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?} is private", entry.path());
        }
        let second = start(state.path(), address, None, Workers::Threads(2)).await;
        second.until_ready().await;
        ping(&mut identities.call(second.public, &name).await.unwrap()).await.unwrap();
        second.end().await;

        // It comes back elsewhere with news: the peer is unlinked.
        control.tell(|config| config.keys.clear());
        let (address, _serving) = control.serve().await;
        let third = start(state.path(), address, None, Workers::Local).await;
        third.until_ready().await;
        until("the news is in force", async || identities.call(third.public, &name).await.is_err()).await;
        third.end().await;
    });
}

#[test]
fn without_identity_and_configuration_it_says_so() {
    run_local(async {
        let state = tempfile::tempdir().unwrap();
        let process = start(state.path(), free_address().await, None, Workers::Local).await;
        let error = process.ended.await.unwrap().unwrap_err();
        assert!(matches!(error, ProxyError::NoIdentity(_)), "{error}");
    });
}

#[test]
fn an_address_that_is_taken_is_named() {
    run_local(async {
        let state = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind(localhost()).await.unwrap();
        let mut config = GatewayProcessConfig::new("g1", cluster("west"), localhost().ip());
        config.public = taken.local_addr().unwrap();
        (config.admin, config.workers, config.state_dir) = (None, Workers::Local, Some(state.path().to_owned()));
        let (_trigger, watch) = drain();
        let error = run(config, watch).await.unwrap_err().to_string();
        assert!(error.contains(&taken.local_addr().unwrap().to_string()), "{error}");
    });
}
