//! What TLS costs: `cargo run --release -p veer-identity --example tls_cost`.
//!
//! Our streams beside tokio-rustls' with the same certificates: heap per idle connection, processor time per message, and
//! handshakes per second of processor time. Everything runs on one thread over in-memory pipes and loopback sockets, both
//! sides together.

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rustls::crypto::aws_lc_rs as ring;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use veer_core::sni::Sni;
use veer_core::{ClusterName, SpiffeId, TrustDomain};
use veer_identity::ca::DEFAULT_TTL;
use veer_identity::{ALPN_TCP, Ca, ClientAuth, Identity, KeyRequest, Svid, clock};

struct Counting;
static HEAP: AtomicI64 = AtomicI64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[allow(unsafe_code)]
// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.fetch_add(layout.size() as i64, Ordering::Relaxed);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HEAP.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ALPN: &[&[u8]] = &[ALPN_TCP];

/// Two workloads of one cluster.
struct Pair {
    client: Identity,
    server: Identity,
    expected: [SpiffeId; 1],
    sni: Sni,
    plain: (Arc<rustls::ClientConfig>, Arc<rustls::ServerConfig>),
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let pair = Pair::new();
    let part = std::env::args().nth(1);
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    if wanted("idle") {
        all_idle(&pair).await;
    }
    if wanted("echo") {
        all_echo(&pair).await;
    }
    if wanted("shake") {
        all_shakes(&pair).await;
    }
    if wanted("resume") {
        resumed(&pair).await;
    }
}

async fn all_idle(pair: &Pair) {
    println!("heap of one idle connection, one end (mean of both), sockets included");
    row("no TLS", idle(async |near, far| (near, far)).await);
    row("tokio-rustls", idle(async |near, far| pair.theirs(near, far).await).await);
    row("veer", idle(async |near, far| pair.ours(near, far).await).await);
}

async fn all_echo(pair: &Pair) {
    for (what, size) in [("100 B", 100), ("1 KiB", 1024), ("16 KiB", 16 * 1024), ("64 KiB", 64 * 1024)] {
        println!("there and back, {what}, pipe: processor time of both ends, allocations");
        let pipe = || duplex(256 * 1024);
        let (near, far) = pipe();
        echo("no TLS", near, far, size).await;
        let (near, far) = pipe();
        let (near, far) = pair.theirs(near, far).await;
        echo("tokio-rustls", near, far, size).await;
        let (near, far) = pipe();
        let (near, far) = pair.ours(near, far).await;
        echo("veer", near, far, size).await;
    }
    for (what, size) in [("100 B", 100), ("16 KiB", 16 * 1024)] {
        println!("there and back, {what}, loopback sockets");
        let (near, far) = sockets().await;
        echo("no TLS", near, far, size).await;
        let (near, far) = sockets().await;
        let (near, far) = pair.theirs(near, far).await;
        echo("tokio-rustls", near, far, size).await;
        let (near, far) = sockets().await;
        let (near, far) = pair.ours(near, far).await;
        echo("veer", near, far, size).await;
    }
}

async fn all_shakes(pair: &Pair) {
    println!("handshakes, both ends together");
    shakes("tokio-rustls, chains checked every time", || async {
        let (near, far) = duplex(64 * 1024);
        pair.theirs(near, far).await;
    })
    .await;
    shakes("veer, full", || async {
        let (near, far) = duplex(64 * 1024);
        pair.ours(near, far).await;
    })
    .await;
}

async fn resumed(pair: &Pair) {
    shakes("veer, resumed", || async {
        let (near, far) = duplex(64 * 1024);
        let tls = pair.client.client_config(ALPN).toward("127.0.0.1:1".parse().unwrap()).holding_last_flight();
        let (near, far) = tokio::join!(
            async {
                let mut near = veer_identity::connect(near, tls, &pair.sni, &pair.expected).await.unwrap().0;
                near.write_all(b"x").await.unwrap();
                near.flush().await.unwrap();
                near.read_u8().await.unwrap();
                near
            },
            async {
                let config = pair.server.server_config(ALPN, ClientAuth::Workloads);
                let mut far = veer_identity::accept(far, config).await.unwrap().0;
                far.read_u8().await.unwrap();
                far.write_all(b"y").await.unwrap();
                far.flush().await.unwrap();
                far
            }
        );
        let _ = far;
        RESUMED.fetch_add(
            u64::from(near.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)),
            Ordering::Relaxed,
        );
    })
    .await;
    println!("  ({} resumed)", RESUMED.load(Ordering::Relaxed));
}

static RESUMED: AtomicU64 = AtomicU64::new(0);

impl Pair {
    fn new() -> Self {
        let domain = TrustDomain::new("west.example").unwrap();
        let ca = Ca::create(&domain, clock::now()).unwrap();
        let id = SpiffeId::new(domain, "shop", "web");
        let svid = || {
            let request = KeyRequest::new().unwrap();
            let chain = ca.sign(&request.csr_der, &id, DEFAULT_TTL, clock::now()).unwrap();
            Svid::from_chain(request.key, chain).unwrap()
        };
        let (one, two) = (svid(), svid());
        let mut roots = rustls::RootCertStore::empty();
        use rustls_pki_types::pem::PemObject;
        for der in rustls_pki_types::CertificateDer::pem_slice_iter(ca.bundle().roots_pem.as_bytes()) {
            roots.add(der.unwrap()).unwrap();
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(ring::default_provider());
        // The names in our certificates are URIs: chain and signature are checked as always, the name is not.
        let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName(
                rustls::client::WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                    .build()
                    .unwrap(),
            )))
            .with_client_auth_cert(one.chain.clone(), one.key.der().clone_key())
            .unwrap();
        client.resumption = rustls::client::Resumption::disabled();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().unwrap();
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(two.chain.clone(), two.key.der().clone_key())
            .unwrap();
        server.send_tls13_tickets = 0;
        Self {
            client: Identity::new(one, [ca.bundle()]).unwrap(),
            server: Identity::new(two, [ca.bundle()]).unwrap(),
            expected: [id],
            sni: Sni::Direct { port: 80, cluster: ClusterName::new("west").unwrap() },
            plain: (Arc::new(client), Arc::new(server)),
        }
    }

    async fn ours<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        near: S,
        far: S,
    ) -> (veer_identity::TlsStream<S>, veer_identity::TlsStream<S>) {
        let (near, far) = tokio::join!(
            veer_identity::connect(near, self.client.client_config(ALPN), &self.sni, &self.expected),
            veer_identity::accept(far, self.server.server_config(ALPN, ClientAuth::Workloads)),
        );
        (near.unwrap().0, far.unwrap().0)
    }

    async fn theirs<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        near: S,
        far: S,
    ) -> (tokio_rustls::client::TlsStream<S>, tokio_rustls::server::TlsStream<S>) {
        let (near, far) = tokio::join!(
            tokio_rustls::TlsConnector::from(self.plain.0.clone())
                .connect(ServerName::try_from("p80.west").unwrap(), near),
            tokio_rustls::TlsAcceptor::from(self.plain.1.clone()).accept(far),
        );
        (near.unwrap(), far.unwrap())
    }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// Heap of a connection that has been used: streams on the heap as in a task, and what belongs to them.
async fn idle<A, B>(make: impl AsyncFn(TcpStream, TcpStream) -> (A, B)) -> f64
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    const COUNT: usize = 200;
    let mut all = Vec::with_capacity(COUNT + 20);
    let mut before = 0;
    for n in 0..COUNT + 20 {
        if n == 20 {
            before = HEAP.load(Ordering::Relaxed);
        }
        let (near, far) = sockets().await;
        let (mut near, mut far) = make(near, far).await;
        let mut buffer = vec![0; 4096];
        for _ in 0..3 {
            near.write_all(&buffer).await.unwrap();
            near.flush().await.unwrap();
            far.read_exact(&mut buffer).await.unwrap();
            far.write_all(&buffer).await.unwrap();
            far.flush().await.unwrap();
            near.read_exact(&mut buffer).await.unwrap();
        }
        drop(buffer);
        all.push((Box::new(near), Box::new(far)));
    }
    (HEAP.load(Ordering::Relaxed) - before) as f64 / COUNT as f64 / 2.0
}

async fn echo(
    name: &str,
    mut near: impl AsyncRead + AsyncWrite + Unpin,
    mut far: impl AsyncRead + AsyncWrite + Unpin,
    size: usize,
) {
    let rounds = (200_000_000 / (size + 4000)).min(20_000);
    let (message, mut there, mut back) = (vec![7; size], vec![0; size], vec![0; size]);
    let mut best = Duration::MAX;
    let mut allocations = 0;
    for _ in 0..5 {
        let (began, allocated) = (processor_time(), ALLOCATIONS.load(Ordering::Relaxed));
        for _ in 0..rounds {
            let ask = async {
                near.write_all(&message).await.unwrap();
                near.flush().await.unwrap();
                near.read_exact(&mut back).await.unwrap();
            };
            let answer = async {
                far.read_exact(&mut there).await.unwrap();
                far.write_all(&there).await.unwrap();
                far.flush().await.unwrap();
            };
            tokio::join!(ask, answer);
        }
        allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocated;
        best = best.min(processor_time() - began);
    }
    println!(
        "  {name:<14} {:8.2} µs {:6.1}",
        best.as_secs_f64() * 1e6 / rounds as f64,
        allocations as f64 / rounds as f64
    );
}

async fn shakes<F: Future>(name: &str, shake: impl Fn() -> F) {
    const COUNT: u32 = 400;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = processor_time();
        for _ in 0..COUNT {
            shake().await;
        }
        best = best.min(processor_time() - began);
    }
    println!(
        "  {name:<40} {:8.1} µs {:8.0} /s",
        best.as_secs_f64() * 1e6 / f64::from(COUNT),
        f64::from(COUNT) / best.as_secs_f64()
    );
}

fn row(name: &str, value: f64) {
    println!("  {name:<14} {value:8.0} B");
}

/// Of this process, user and system.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

#[derive(Debug)]
struct AnyName(Arc<rustls::client::WebPkiServerVerifier>);

impl rustls::client::danger::ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &rustls_pki_types::CertificateDer<'_>,
        intermediates: &[rustls_pki_types::CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        use rustls::client::danger::ServerCertVerified;
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
