//! What the tests stand on: a control plane that says what the test puts, applications, clients.

pub mod app;
pub mod client;
pub mod control;
pub mod frames;
pub mod raw;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic;
use std::rc::Rc;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;
use veer_core::inbound::{Inbound, InboundPort, MESH_PORT, MtlsMode};
use veer_core::names::{Locality, ObjectName, ServiceHost};
use veer_core::policy::TrafficPolicy;
use veer_core::route::HttpRoute;
use veer_core::service::{ServicePort, ServiceScope};
use veer_core::{AppProtocol, ClusterEndpoints, Endpoint, EndpointPort, Endpoints, Reach, Service};
use veer_net::DrainTrigger;
use veer_proxy::{ProxyConfig, ProxyError, Workers};

pub use app::App;
pub use client::Client;
pub use control::Control;

/// How long a test waits for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on a runtime of its own, within a limit. A panic of the program itself, in whichever task, ends all tests.
pub fn run(test: impl Future<Output = ()>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(die_of_panics);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test takes too long");
    });
}

/// A runtime keeps the panic of a task to itself, and what the task carried is tried again elsewhere: a test would pass.
fn die_of_panics() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        tell(info);
        if info.location().is_some_and(|at| at.file().contains("/src/") && at.file().starts_with("crates/")) {
            std::process::abort();
        }
    }));
}

/// An address of its own for everything that stands on a machine of its own.
pub fn address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    // The second number keeps test programs that run at once apart.
    let program = 100 + std::process::id() % 120;
    Ipv4Addr::new(127, program as u8, (n >> 8) as u8, n as u8).into()
}

/// Waits until the condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A workload: its proxy, and where its application listens.
pub struct Workload {
    pub name: ObjectName,
    pub address: IpAddr,
    pub inbound: Inbound,
    pub config: ProxyConfig,
    running: Option<(DrainTrigger, JoinHandle<Result<(), ProxyError>>)>,
}

/// Port of services and workloads in the tests; the application listens on [`APP_PORT`].
pub const PORT: u16 = 80;
/// Where applications listen.
pub const APP_PORT: u16 = 8080;
/// Port on which workloads take plaintext (unprivileged).
pub const TARGET_PORT: u16 = 7080;

impl Workload {
    /// A workload of the namespace `shop`, not started.
    pub fn new(control: &Control, name: &str) -> Self {
        let address = address();
        let name = ObjectName::new("shop", name);
        let inbound = Inbound {
            workload: name.clone(),
            cluster: control.cluster.clone(),
            identity: control.id("shop", &name.name),
            address,
            locality: Locality::default(),
            mesh_port: MESH_PORT,
            mtls: MtlsMode::Permissive,
            ports: vec![InboundPort {
                limits: vec![],
                port: TARGET_PORT,
                app: SocketAddr::new(address, APP_PORT),
                protocol: AppProtocol::Detect,
                service: Some("test".into()),
                capacity: None,
            }],
            authorization: vec![],
            offered_to: vec![],
            rotate: 0,
        };
        let config = ProxyConfig {
            control: vec![control.address],
            join: Some(control.token(&name)),
            workers: Workers::Local,
            ..ProxyConfig::new(name.clone(), address)
        };
        Self { name, address, inbound, config, running: None }
    }

    /// States the workload and starts its proxy; waits until it is ready.
    pub async fn start(mut self, control: &Control) -> Self {
        control.state(&self);
        self.launch();
        self.ready().await;
        self
    }

    /// Starts the proxy.
    pub fn launch(&mut self) {
        let (trigger, drain) = veer_net::drain();
        let config = self.config.clone();
        let task = tokio::task::spawn_local(veer_proxy::run(config, drain));
        self.running = Some((trigger, task));
    }

    pub async fn ready(&self) {
        until("a proxy is ready", async || self.admin("/ready").await.starts_with("ready")).await;
    }

    /// Ends the proxy in order.
    pub async fn stop(&mut self) {
        let (trigger, task) = self.running.take().unwrap();
        trigger.start(Duration::from_secs(5));
        task.await.unwrap().unwrap();
    }

    /// Ends the proxy as if it had been killed.
    pub async fn kill(&mut self) {
        let (_trigger, task) = self.running.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    /// Where the application sends requests to.
    pub fn outbound(&self) -> SocketAddr {
        self.config.outbound.unwrap()
    }

    /// Asks the admin server; empty when it does not answer.
    pub async fn admin(&self, path: &str) -> String {
        match Client::http1(self.config.admin.unwrap()).await {
            Ok(mut client) => client.get("admin", path).await.map_or_else(|_| String::new(), |answer| answer.text()),
            Err(_) => String::new(),
        }
    }

    /// The sum of all samples of a metric whose labels hold the texts.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin("/metrics").await;
        text.lines()
            .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// As an endpoint of a service.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            workload: self.name.clone(),
            address: self.address,
            ports: vec![EndpointPort { service_port: PORT, target_port: TARGET_PORT, token: "".into() }],
            identity: Some(self.inbound.identity.clone()),
            mesh_port: MESH_PORT,
            locality: Locality::default(),
            ready: true,
            capacity: None,
        }
    }
}

/// States a service of the namespace `shop` on [`PORT`] with these endpoints.
pub struct Stated<'a> {
    control: &'a Control,
    host: ServiceHost,
    routes: Vec<HttpRoute>,
    policy: TrafficPolicy,
    endpoints: Vec<Endpoint>,
}

impl Control {
    /// Begins to state a service.
    pub fn service(&self, name: &str) -> Stated<'_> {
        // Slow start would hide what most tests look at.
        let policy = TrafficPolicy { slow_start: Duration::ZERO, ..TrafficPolicy::default() };
        Stated { control: self, host: host(name), routes: vec![], policy, endpoints: vec![] }
    }
}

/// The host of a service of the namespace `shop`.
pub fn host(name: &str) -> ServiceHost {
    ServiceHost::new(&format!("{name}.shop.svc.cluster.local")).unwrap()
}

impl Stated<'_> {
    pub fn route(mut self, route: HttpRoute) -> Self {
        self.routes.push(route);
        self
    }

    pub fn at<'w>(mut self, workloads: impl IntoIterator<Item = &'w Workload>) -> Self {
        self.endpoints.extend(workloads.into_iter().map(Workload::endpoint));
        self
    }

    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    pub fn policy(mut self, change: impl FnOnce(&mut TrafficPolicy)) -> Self {
        change(&mut self.policy);
        self
    }

    /// Says it.
    pub fn put(self) {
        let port = ServicePort {
            port: PORT,
            name: None,
            protocol: AppProtocol::Detect,
            http_routes: self.routes,
            tcp_route: None,
            consumer_tcp_routes: vec![],
        };
        let service =
            Service { host: self.host.clone(), scope: ServiceScope::Cluster, addresses: vec![], ports: vec![port] };
        let cluster = ClusterEndpoints {
            cluster: self.control.cluster.clone(),
            reach: Reach::Local,
            endpoints: self.endpoints,
            service_tokens: vec![],
        };
        let endpoints = Endpoints {
            host: self.host.clone(),
            policy: self.policy,
            clusters: vec![cluster],
            tls: vec![],
            external: None,
        };
        self.control.put(self.host.as_str(), &endpoints);
        self.control.put(self.host.as_str(), &service);
    }
}

/// A client and a server with its application, and the service `cart` that leads to it.
pub struct Pair {
    pub control: Control,
    pub client: Workload,
    pub server: Workload,
    pub app: Rc<App>,
}

impl Pair {
    pub async fn new(app: App) -> Self {
        let control = Control::start().await;
        let client = Workload::new(&control, "web").start(&control).await;
        let server = Workload::new(&control, "cart").start(&control).await;
        let app = app.listen(&server).await;
        control.service("cart").at([&server]).put();
        Self { control, client, server, app }
    }
}
