//! Clusters with real sockets on one thread: control planes, a relay in place of gateways, proxies as clients.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use veer_control::api::{Status, TokenAnswer, TokenRequest};
use veer_control::{ApiRequest, Control, ControlConfig, Handle};
use veer_core::gateway::PathGateway;
use veer_core::sni::Sni;
use veer_core::{ClusterName, SpiffeId, TrustDomain};
use veer_identity::{ALPN_XDS, Identity, JoinToken, KeyRequest, Svid};
use veer_net::{BoxedIo, Drain, Network};
use veer_xds::enroll::{self, Enrolled, Join};
use veer_xds::{Channel, Client, KeepAlive, NodeInfo};

/// Runs a test on a thread of its own kind: one runtime, one local task set.
pub fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// Polls until the condition gives something, at most ten seconds.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Stands in for a gateway: passes bytes to the control plane, and can be cut.
#[derive(Clone)]
pub struct Relay {
    pub address: SocketAddr,
    target: Rc<RefCell<Option<SocketAddr>>>,
    open: Rc<RefCell<JoinSet<()>>>,
}

impl Relay {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self { address: listener.local_addr().unwrap(), target: Rc::default(), open: Rc::default() };
        let serving = relay.clone();
        tokio::task::spawn_local(async move {
            loop {
                let (mut downstream, _) = listener.accept().await.unwrap();
                let Some(target) = *serving.target.borrow() else { continue };
                serving.open.borrow_mut().spawn_local(async move {
                    if let Ok(mut upstream) = tokio::net::TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await;
                    }
                });
            }
        });
        relay
    }

    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.borrow_mut() = Some(target);
    }

    pub fn cut(&self) {
        *self.target.borrow_mut() = None;
        self.open.borrow_mut().abort_all();
    }
}

/// A cluster's folders and its running control plane, if it runs.
pub struct Cluster {
    pub name: ClusterName,
    pub domain: TrustDomain,
    pub relay: Relay,
    dir: tempfile::TempDir,
    running: Option<(Handle, JoinHandle<()>)>,
}

impl Cluster {
    pub async fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("manifests")).unwrap();
        Self {
            name: ClusterName::new(name).unwrap(),
            domain: TrustDomain::new(&format!("{name}.example")).unwrap(),
            relay: Relay::start().await,
            dir,
            running: None,
        }
    }

    pub fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn write(&self, file: &str, text: &str) {
        write(&self.manifests().join(file), text);
    }

    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.manifests().join(file)).unwrap();
    }

    pub fn config(&self) -> ControlConfig {
        let any = "127.0.0.1:0".parse().unwrap();
        let gateway = PathGateway { name: "g1".into(), address: self.relay.address, weight: 1, draining: false };
        ControlConfig {
            api: any,
            manifests: vec![self.manifests()],
            gateways: vec![gateway],
            lease: Duration::from_secs(1),
            ..ControlConfig::new(self.name.clone(), self.domain.clone(), self.state(), any)
        }
    }

    /// Starts the control plane; does not wait until it is ready.
    pub async fn start(&mut self) -> Handle {
        let control = Control::bind(self.config()).await.unwrap();
        let handle = control.handle();
        self.relay.lead_to(handle.listen());
        let task = tokio::task::spawn_local(async move { control.run(Drain::never()).await.unwrap() });
        self.running = Some((handle.clone(), task));
        handle
    }

    pub async fn start_ready(&mut self) -> Handle {
        let handle = self.start().await;
        tokio::time::timeout(Duration::from_secs(10), handle.ready()).await.expect("ready");
        handle
    }

    /// Ends it as a crash would.
    pub async fn kill(&mut self) {
        self.relay.cut();
        let (_, task) = self.running.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub fn handle(&self) -> &Handle {
        &self.running.as_ref().unwrap().0
    }

    pub fn status(&self) -> Status {
        self.handle().status()
    }

    /// Makes the other cluster a peer here.
    pub fn link(&self, peer: &Cluster) {
        // One second's lease, so that silence is soon.
        self.write(&format!("link-{}.yaml", peer.name), &peer.handle().link());
    }

    pub fn token(&self, request: TokenRequest) -> JoinToken {
        let answer = self.handle().answer(&ApiRequest::post("/v1/tokens", &request));
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        serde_json::from_slice::<TokenAnswer>(&answer.body).unwrap().token.parse().unwrap()
    }

    pub fn workload_token(&self, workload: &str) -> JoinToken {
        self.token(TokenRequest { workload: Some(workload.parse().unwrap()), gateway: None })
    }

    /// Joins as a workload's proxy and follows the control plane.
    pub async fn proxy(&self, workload: &str) -> Proxy {
        Proxy::join(&self.workload_token(workload), workload).await
    }
}

pub fn write(path: &Path, text: &str) {
    // Whole or not at all, as an editor does.
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, path).unwrap();
}

/// A proxy as far as the control plane sees it.
pub struct Proxy {
    pub identity: Identity,
    pub client: Client,
    session: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.session.abort();
    }
}

/// Asks for a certificate with a token.
pub async fn enroll(token: &JoinToken, request: &KeyRequest) -> Result<Enrolled, veer_xds::Status> {
    let stream = Network::Tcp.connect(token.control[0]).await.unwrap();
    let (stream, _) = veer_identity::join::connect(stream, token, &[ALPN_XDS]).await.unwrap();
    let channel = Channel::connect(stream, KeepAlive::default()).await.unwrap();
    let ask = Join {
        secret: token.secret.clone(),
        csr_der: request.csr_der.clone(),
        workload: token.workload.to_string(),
        cluster: token.cluster.to_string(),
    };
    enroll::join(&channel, ask).await
}

pub fn identity(request: KeyRequest, enrolled: Enrolled) -> Identity {
    let chain = enrolled.chain_der.into_iter().map(Into::into).collect();
    Identity::new(Svid::from_chain(request.key, chain).unwrap(), enrolled.bundles).unwrap()
}

impl Proxy {
    pub async fn join(token: &JoinToken, workload: &str) -> Self {
        let request = KeyRequest::new().unwrap();
        let enrolled = enroll(token, &request).await.unwrap();
        Self::follow(identity(request, enrolled), token, workload)
    }

    /// Follows the control plane with an identity, calling itself what it likes.
    pub fn follow(identity: Identity, token: &JoinToken, claim: &str) -> Self {
        let node = NodeInfo {
            id: claim.to_owned(),
            cluster: token.cluster.to_string(),
            workload: claim.to_owned(),
            ..NodeInfo::default()
        };
        let (client, session) = veer_xds::client(node, veer_net::rng());
        let (address, cluster, tls) = (token.control[0], token.cluster.clone(), identity.clone());
        let dial = async move || {
            let stream = Network::Tcp.connect(address).await?;
            let sni = Sni::Control { cluster: cluster.clone() };
            let expected = [SpiffeId::control(tls.svid().id.trust_domain.clone())];
            let config = tls.client_config(&[ALPN_XDS]);
            let (stream, _) =
                veer_identity::connect(stream, config, &sni, &expected).await.map_err(std::io::Error::other)?;
            Ok(Box::new(stream) as BoxedIo)
        };
        let session = tokio::task::spawn_local(async move {
            session.run(dial).await;
        });
        Self { identity, client, session }
    }
}

/// Manifests of a Service with one Workload, `<name>-1`, at an address.
pub fn service(name: &str, address: &str, audience: Option<&str>) -> String {
    let export = audience.map_or(String::new(), |audience| {
        format!(
            "---\napiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {{name: {name}, namespace: shop, annotations: \
             {{veer.dev/audience: \"{audience}\"}}}}\n"
        )
    });
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{app: {name}}}\n  ports:\n  \
         - {{name: http, port: 80, targetPort: 8080}}\n---\napiVersion: veer.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}-1, \
         namespace: shop, labels: {{app: {name}}}}}\nspec:\n  address: {address}\n  serviceAccount: {name}\n  ports:\n  - {{name: http, port: \
         8080}}\n{export}"
    )
}
