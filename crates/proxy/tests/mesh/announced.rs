//! A Gateway behind load balancers that say by the PROXY protocol whose connection each is.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use veer_core::ingress::{AttachedHttp, AttachedStream, Ingress, IngressListener, IngressPort, PortKind, Serves};
use veer_core::names::ObjectName;
use veer_core::route::{Backend, HttpRoute, HttpRule, RouteKind, TcpRoute};

use crate::differential::peers::find;
use crate::harness::app::App;
use crate::harness::{APP_PORT, Control, PORT, Workload, address, host, run, until};

const HTTP: u16 = 10080;
const TCP: u16 = 10090;
const TLS: u16 = 10443;
const ASK: &str = "GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n";
/// 192.0.2.1:50000 to 198.51.100.7:443.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x07\xc3\x50\x01\xbb";

/// A Gateway before the service `cart` for requests, and an echo for bytes.
struct Gateway {
    /// Whom the Gateway takes for a load balancer.
    balancer: IpAddr,
    proxy: Workload,
    app: Rc<App>,
    _control: Control,
    _server: Workload,
}

impl Gateway {
    async fn new() -> Self {
        let control = Control::start().await;
        let server = Workload::new(&control, "cart").start(&control).await;
        let app = App::text("ok").listen(&server).await;
        control.service("cart").at([&server]).put();
        let echo = echo().await;
        let mut outside = server.endpoint();
        (outside.address, outside.identity, outside.mesh_port) = (echo.ip(), None, 0);
        outside.ports[0].target_port = echo.port();
        control.service("echo").endpoint(outside).put();

        let mut proxy = Workload::new(&control, "edge-gateway");
        proxy.config.ingress = true;
        let balancer = address();
        let ingress = ingress(proxy.address, &[balancer]);
        control.put(&proxy.name.to_string(), &ingress);
        let proxy = proxy.start(&control).await;
        let http = SocketAddr::new(proxy.address, HTTP);
        until("the Gateway listens", async || TcpStream::connect(http).await.is_ok()).await;
        Self { balancer, proxy, app, _control: control, _server: server }
    }

    /// A connection from an address.
    async fn connect(&self, from: IpAddr, port: u16) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let stream = socket.connect(SocketAddr::new(self.proxy.address, port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// What comes of bytes from the balancer, until the end.
    async fn sent(&self, port: u16, pieces: &[&[u8]]) -> Vec<u8> {
        let mut stream = self.connect(self.balancer, port).await;
        for piece in pieces {
            // Whoever refuses may have closed already.
            let _ = stream.write_all(piece).await;
            let _ = stream.flush().await;
            tokio::task::yield_now().await;
        }
        rest(&mut stream).await
    }

    /// For whom the application was last asked.
    fn asked_for(&self) -> String {
        let seen = self.app.seen.borrow();
        let fields = seen.last().unwrap().headers().get_all("x-forwarded-for");
        fields.iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join(", ")
    }

    async fn refused(&self, reason: &str) -> f64 {
        self.proxy.metric("veer_refused_connections_total", &["ingress", &format!("\"{reason}\"")]).await
    }
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset ends it, too.
    let reading = stream.read_to_end(&mut all);
    let _ = tokio::time::timeout(Duration::from_secs(20), reading).await.expect("the connection ends");
    all
}

/// Bytes come back, until the first end.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((address(), APP_PORT)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    at
}

fn ingress(address: IpAddr, balancers: &[IpAddr]) -> Ingress {
    let backend = |name: &str| Backend {
        host: host(name),
        port: PORT,
        weight: 1,
        invalid: None,
        filters: vec![],
        protocol: None,
    };
    let route = HttpRoute {
        name: ObjectName::new("shop", "cart"),
        kind: RouteKind::Http,
        created: None,
        rules: vec![HttpRule { backends: vec![backend("cart")], ..HttpRule::default() }],
        consumer_namespace: None,
        owner: None,
        parent_port: None,
    };
    let bytes = || {
        let route = TcpRoute {
            name: ObjectName::new("shop", "echo"),
            consumer_namespace: None,
            owner: None,
            parent_port: None,
            backends: vec![backend("echo")],
        };
        Serves::Bytes(vec![AttachedStream { hostnames: vec![], route }])
    };
    let trusted: Arc<[_]> = balancers.iter().map(|balancer| (*balancer).into()).collect();
    let port = |port, kind, serves| {
        let listener =
            IngressListener { name: "one".into(), hostname: None, certificates: vec![], clients: None, serves };
        IngressPort { port, kind, proxy_protocol: Some(Arc::clone(&trusted)), listeners: vec![listener] }
    };
    let requests = Serves::Http(vec![AttachedHttp { hostnames: vec![], route: 0 }]);
    Ingress {
        gateway: ObjectName::new("shop", "edge"),
        addresses: vec![address],
        ports: vec![
            port(HTTP, PortKind::Http, requests),
            port(TCP, PortKind::Tcp, bytes()),
            port(TLS, PortKind::Tls, bytes()),
        ],
        http_routes: vec![route],
        client_certificate: None,
    }
}

#[test]
fn the_clients_address_is_the_one_that_the_balancer_says() {
    run(async {
        let gateway = Gateway::new().await;
        let own = gateway.balancer.to_string();
        let mut ipv6 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0d\xb8".to_vec();
        ipv6.resize(16 + 36, 1);
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        let mut unix = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8".to_vec();
        unix.resize(16 + 216, b'/');
        for (header, client) in [
            (&b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n"[..], "192.0.2.1"),
            (b"PROXY TCP6 2001:db8::1 ::1 50000 443\r\n", "2001:db8::1"),
            (b"PROXY UNKNOWN\r\n", &own),
            (V2, "192.0.2.1"),
            (&ipv6, "2001:db8:101:101:101:101:101:101"),
            (local, &own),
            (&unix, &own),
        ] {
            let whole = [header, ASK.as_bytes()].concat();
            for pieces in [vec![&whole[..]], vec![header, ASK.as_bytes()], whole.chunks(1).collect()] {
                let answer = gateway.sent(HTTP, &pieces).await;
                assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
                assert_eq!(gateway.asked_for(), client, "{}", header.escape_ascii());
            }
        }
        // What a client claims stays before it, as without a balancer.
        let claims = ASK.replace("\r\n\r\n", "\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
        gateway.sent(HTTP, &[V2, claims.as_bytes()]).await;
        assert_eq!(gateway.asked_for(), "203.0.113.9, 192.0.2.1");
    });
}

#[test]
fn bytes_and_tls_begin_behind_the_header() {
    run(async {
        let gateway = Gateway::new().await;
        let mut stream = gateway.connect(gateway.balancer, TCP).await;
        stream.write_all(&[V2, b"first"].concat()).await.unwrap();
        let mut came = [0; 5];
        stream.read_exact(&mut came).await.unwrap();
        stream.write_all(b"again").await.unwrap();
        let mut came_again = [0; 5];
        stream.read_exact(&mut came_again).await.unwrap();
        assert_eq!((&came, &came_again), (b"first", b"again"));

        // The server name is read, and the hello passed on as it came.
        let hello =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/client_hello/whole")).unwrap();
        for pieces in [vec![&[V2, &hello].concat()[..]], [V2, &hello].concat().chunks(1).collect()] {
            let mut stream = gateway.connect(gateway.balancer, TLS).await;
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
            }
            let mut came = vec![0; hello.len()];
            stream.read_exact(&mut came).await.unwrap();
            assert_eq!(came, hello);
        }
    });
}

#[test]
fn whoever_says_it_wrongly_is_closed_and_nobody_else() {
    run(async {
        let gateway = Gateway::new().await;
        let good = [V2, ASK.as_bytes()].concat();
        let is_served = async || gateway.sent(HTTP, &[&good]).await.starts_with(b"HTTP/1.1 200 ");
        assert!(is_served().await);

        let mut slow = gateway.connect(gateway.balancer, HTTP).await;
        slow.write_all(&V2[..20]).await.unwrap();
        let begun = tokio::time::Instant::now();

        let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 5000]].concat();
        for (reason, bytes) in [
            ("proxy_missing", ASK.as_bytes()),
            ("proxy_missing", b"\x16\x03\x01\0\x05hello"),
            ("proxy_missing", b"\0\0\0\0"),
            ("proxy_malformed", b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\nGET / HTTP/1.1\r\n\r\n"),
            ("proxy_malformed", b"PROXY TCP4 192.0.2.1,10.0.0.1 198.51.100.7 1 2\r\n"),
            ("proxy_malformed", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"),
            ("proxy_too_long", &long),
        ] {
            for port in [HTTP, TCP, TLS] {
                let before = gateway.refused(reason).await;
                let answer = gateway.sent(port, &[bytes]).await;
                assert!(answer.is_empty(), "{}: {}", bytes.escape_ascii(), answer.escape_ascii());
                assert_eq!(gateway.refused(reason).await, before + 1.0, "{reason}");
            }
        }
        // Who is no balancer may say nothing, be it well said.
        let (asked, stranger) = (gateway.app.count(), address());
        let mut stream = gateway.connect(stranger, HTTP).await;
        let _ = stream.write_all(&good).await;
        assert!(rest(&mut stream).await.is_empty());
        assert_eq!((gateway.refused("proxy_untrusted").await >= 1.0, gateway.app.count()), (true, asked));

        assert!(rest(&mut slow).await.is_empty());
        let waited = begun.elapsed();
        assert!((Duration::from_secs(9)..Duration::from_secs(13)).contains(&waited), "{waited:?}");
        assert_eq!(gateway.refused("proxy_slow").await, 1.0);
        assert!(is_served().await);
    });
}

/// HAProxy, from one port as version 1 and from another as version 2 with a checksum.
const HAPROXY: &str = "global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen one
  bind @BALANCER@:8081
  server gateway @GATEWAY@ source @BALANCER@ send-proxy
listen two
  bind @BALANCER@:8082
  server gateway @GATEWAY@ source @BALANCER@ send-proxy-v2 proxy-v2-options crc32c,unique-id
";

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn haproxy_and_curl_are_understood() {
    run(async {
        let gateway = Gateway::new().await;
        let folder = tempfile::tempdir().unwrap();
        let (file, to) = (folder.path().join("conf"), SocketAddr::new(gateway.proxy.address, HTTP));
        let text = HAPROXY.replace("@BALANCER@", &gateway.balancer.to_string()).replace("@GATEWAY@", &to.to_string());
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(find("haproxy"));
        let command = command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let _running = Ended(command.spawn().unwrap());
        for port in [8081, 8082] {
            let balancer = SocketAddr::new(gateway.balancer, port);
            until("HAProxy listens", async || TcpStream::connect(balancer).await.is_ok()).await;
            let client = address();
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(client, 0)).unwrap();
            let mut stream = socket.connect(balancer).await.unwrap();
            stream.write_all(ASK.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
            assert_eq!(gateway.asked_for(), client.to_string());
        }

        let asking = tokio::process::Command::new("curl")
            .args(["-sS", "--haproxy-protocol", "-H", "Host: cart", "--interface"])
            .args([gateway.balancer.to_string(), format!("http://{to}/curl")])
            .output();
        let asked = asking.await.unwrap();
        assert_eq!(asked.stdout, b"ok", "{}", asked.stderr.escape_ascii());
        assert_eq!(gateway.asked_for(), gateway.balancer.to_string());
    });
}
