//! A control plane that says what the test puts: the real protocol, the real issuer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use veer_core::inbound::Inbound;
use veer_core::names::{ClusterName, ObjectName, SpiffeId, TrustDomain};
use veer_core::resource::Resource;
use veer_identity::{ALPN_H2_STANDARD, ALPN_XDS, Ca, ClientAuth, Identity, JoinToken, KeyRequest, Svid, accept, clock};
use veer_net::{BindOptions, Network};
use veer_xds::enroll::{Enroll, Enrolled, Join, Renew};
use veer_xds::{LocalFuture, Services, Source, Status, Subscriber, serve_connection, version_of};

use super::Workload;

/// A cluster's control plane.
pub struct Control {
    pub cluster: ClusterName,
    pub domain: TrustDomain,
    pub address: SocketAddr,
    pub ca: Arc<Issuer>,
    words: Arc<Words>,
    serving: RefCell<Option<JoinHandle<()>>>,
}

/// The cluster's issuer.
pub struct Issuer {
    pub ca: Ca,
    pub ttl: Duration,
}

/// What is said, by type and name.
struct Words {
    said: Mutex<HashMap<(String, String), (String, Bytes)>>,
    generation: watch::Sender<u64>,
}

impl Control {
    pub async fn start() -> Self {
        Self::of("west").await
    }

    pub async fn of(cluster: &str) -> Self {
        let domain = TrustDomain::new(&format!("{cluster}.example")).unwrap();
        let ca = Ca::create(&domain, clock::now()).unwrap();
        let control = Self {
            cluster: ClusterName::new(cluster).unwrap(),
            address: SocketAddr::new(super::address(), 15010),
            ca: Arc::new(Issuer { ca, ttl: Duration::from_secs(3600) }),
            words: Arc::new(Words { said: Mutex::default(), generation: watch::Sender::new(1) }),
            serving: RefCell::default(),
            domain,
        };
        control.put(control.domain.as_str(), &control.ca.ca.bundle());
        control.resume().await;
        control
    }

    /// States a resource.
    pub fn put<R: Resource>(&self, name: &str, resource: &R) {
        let json = serde_json::to_vec(resource).unwrap();
        let word = (version_of(&json), Bytes::from(json));
        self.words.said.lock().unwrap().insert((R::TYPE_URL.to_owned(), name.to_owned()), word);
        self.words.generation.send_modify(|generation| *generation += 1);
    }

    /// States that there is no such resource.
    pub fn remove<R: Resource>(&self, name: &str) {
        self.words.said.lock().unwrap().remove(&(R::TYPE_URL.to_owned(), name.to_owned()));
        self.words.generation.send_modify(|generation| *generation += 1);
    }

    /// States a workload.
    pub fn state(&self, workload: &Workload) {
        self.put::<Inbound>(&workload.name.to_string(), &workload.inbound);
    }

    /// An identity of this cluster.
    pub fn id(&self, namespace: &str, account: &str) -> SpiffeId {
        SpiffeId::new(self.domain.clone(), namespace, account)
    }

    /// A certificate as the issuer would make it.
    pub fn svid(&self, id: &SpiffeId) -> Svid {
        let request = KeyRequest::new().unwrap();
        let chain = self.ca.ca.sign(&request.csr_der, id, self.ca.ttl, clock::now()).unwrap();
        Svid::from_chain(request.key, chain).unwrap()
    }

    /// A join token; its secret is the workload's name.
    pub fn token(&self, workload: &ObjectName) -> JoinToken {
        JoinToken {
            control: vec![self.address],
            cluster: self.cluster.clone(),
            workload: workload.clone(),
            secret: workload.to_string(),
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000),
            ca_hash: self.ca.ca.root_hash(),
        }
    }

    /// The control plane is gone: its listener and all its sessions.
    pub async fn kill(&self) {
        if let Some(serving) = self.serving.borrow_mut().take() {
            serving.abort();
        }
    }

    /// It serves (again).
    pub async fn resume(&self) {
        let listener = Network::Tcp.bind(self.address, BindOptions::default()).await.unwrap();
        let identity =
            Identity::new(self.svid(&SpiffeId::control(self.domain.clone())), [self.ca.ca.bundle()]).unwrap();
        let source: Arc<dyn Source> = Arc::clone(&self.words) as Arc<dyn Source>;
        let enroll: Arc<dyn Enroll> = Arc::new(Enrolling(Arc::clone(&self.ca)));
        let services = Services { enroll: Some(enroll), ..Services::new("test/1", source) };
        let serving = tokio::task::spawn_local(async move {
            let mut sessions = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let tls = identity.server_config(&[ALPN_XDS, ALPN_H2_STANDARD], ClientAuth::Optional);
                let services = services.clone();
                sessions.spawn_local(async move {
                    let Ok((stream, peer)) = accept(stream, tls).await else { return };
                    serve_connection(stream, peer.map(|peer| Subscriber::verified(peer.id)), services).await;
                });
            }
        });
        *self.serving.borrow_mut() = Some(serving);
    }
}

impl Source for Words {
    fn get(&self, _: &Subscriber, type_url: &str, name: &str) -> Option<(String, Bytes)> {
        self.said.lock().unwrap().get(&(type_url.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, _: &Subscriber, type_url: &str) -> Vec<String> {
        self.said.lock().unwrap().keys().filter(|(kind, _)| kind == type_url).map(|(_, name)| name.clone()).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

struct Enrolling(Arc<Issuer>);

impl Enrolling {
    fn issue(&self, workload: &str, csr: &[u8]) -> Result<Enrolled, Status> {
        let name: ObjectName = workload.parse().map_err(|_| Status::invalid_argument("no workload"))?;
        let ca = &self.0.ca;
        let id = SpiffeId::new(ca.trust_domain().clone(), &name.namespace, &name.name);
        let ttl = self.0.ttl;
        let chain = ca.sign(csr, &id, ttl, clock::now()).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Enrolled { chain_der: chain.iter().map(|der| der.to_vec()).collect(), bundles: vec![ca.bundle()], id, ttl })
    }
}

impl Enroll for Enrolling {
    fn join(&self, request: Join) -> LocalFuture<'_, Result<Enrolled, Status>> {
        Box::pin(async move {
            if request.secret != request.workload {
                return Err(Status::permission_denied("no such token"));
            }
            self.issue(&request.workload, &request.csr_der)
        })
    }

    fn renew<'a>(&'a self, _: &'a Subscriber, request: Renew) -> LocalFuture<'a, Result<Enrolled, Status>> {
        Box::pin(async move { self.issue(&request.workload, &request.csr_der) })
    }
}
