//! Veer and the other proxies, each with a backend of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::net::TcpStream;
use veer_core::AppProtocol;

use super::origin::Origin;
use crate::harness::raw::{Ends, Log};
use crate::harness::{APP_PORT, address, until};

/// One proxy that serves.
pub struct Proxy {
    pub name: &'static str,
    pub listen: SocketAddr,
    /// Where it takes HTTP/2 in clear text, by prior knowledge.
    pub http2: SocketAddr,
    pub origin: Origin,
    /// Ends with it.
    _running: Box<dyn std::any::Any>,
}

/// A process, ended with its value; and its folder.
struct Foreign(Child, #[expect(dead_code, reason = "removed when dropped")] tempfile::TempDir);

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No log, time-outs beyond the test, nothing else said: what the programs do by themselves is what is compared.
const HAPROXY: &str = "global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen test
  bind @LISTEN@
  server origin @ORIGIN@
";

/// HTTP/1.1 to the backend, and the host as its documentation advises; requests are passed on as they come.
const NGINX: &str = "daemon off; master_process off;
pid @FOLDER@/nginx.pid;
error_log stderr crit;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path @FOLDER@/body; proxy_temp_path @FOLDER@/proxy; fastcgi_temp_path @FOLDER@/fastcgi;
  uwsgi_temp_path @FOLDER@/uwsgi; scgi_temp_path @FOLDER@/scgi;
  proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_request_buffering off;
  server { listen @LISTEN@; listen @HTTP2@ http2; location / { proxy_pass http://@ORIGIN@; } }
}
";

/// Without request ids and fields that tell of Envoy; `x-forwarded-proto` cannot be left out.
const ENVOY: &str = r#"static_resources:
  listeners:
    - address: { socket_address: { address: @LISTEN_ADDRESS@, port_value: @LISTEN_PORT@ } }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: test
                generate_request_id: false
                delayed_close_timeout: 0.05s
                upgrade_configs: [{ upgrade_type: websocket }]
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes: [{ match: { prefix: / }, route: { cluster: origin } }]
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                      suppress_envoy_headers: true
  clusters:
    - name: origin
      type: STATIC
      # An upstream connection for each request: whether Envoy hears in time that the backend has closed one is a matter of chance.
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          common_http_protocol_options: { max_requests_per_connection: 1 }
          explicit_http_config: { http_protocol_options: {} }
      load_assignment:
        cluster_name: origin
        endpoints:
          - lb_endpoints:
              - endpoint: { address: { socket_address: { address: @ORIGIN_ADDRESS@, port_value: @ORIGIN_PORT@ } } }
"#;

/// All of them, ready; Veer is the first.
pub async fn all() -> Vec<Proxy> {
    let origin = Origin::default();
    let serving = origin.clone();
    let ends = Ends::with(AppProtocol::Http1, Log::default(), move |stream| serving.clone().serve(stream)).await;
    let listen = ends.client.outbound();
    let veer = Proxy { name: "Veer", listen, http2: listen, origin, _running: Box::new(ends) };
    let haproxy = foreign("HAProxy", "haproxy", HAPROXY, &["-db", "-f"]).await;
    let nginx = foreign("nginx", "nginx", NGINX, &["-e", "stderr", "-c"]).await;
    let alone = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "off", "--config-path"];
    let envoy = foreign("Envoy", "envoy", ENVOY, &alone).await;
    vec![veer, envoy, haproxy, nginx]
}

async fn foreign(name: &'static str, program: &str, text: &str, arguments: &[&str]) -> Proxy {
    let (front, back) = (SocketAddr::new(address(), 8081), SocketAddr::new(address(), APP_PORT));
    // All but one tell HTTP/2 by its preface.
    let http2 = SocketAddr::new(front.ip(), if text.contains("@HTTP2@") { 8082 } else { front.port() });
    let origin = Origin::default();
    origin.listen(back).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("conf.yaml");
    let mut text = text.replace("@FOLDER@", &folder.path().display().to_string());
    for (name, address) in [("LISTEN", front), ("HTTP2", http2), ("ORIGIN", back)] {
        text = text.replace(&format!("@{name}@"), &address.to_string());
        text = text.replace(&format!("@{name}_ADDRESS@"), &address.ip().to_string());
        text = text.replace(&format!("@{name}_PORT@"), &address.port().to_string());
    }
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(find(program));
    let command = command.args(arguments).arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let running = Box::new(Foreign(child, folder));
    until(&format!("{program} listens"), async || TcpStream::connect(front).await.is_ok()).await;
    Proxy { name, listen: front, http2, origin, _running: running }
}

/// Where `benches/peers` puts it, on the search path, or where Debian puts it, which is not on everybody's.
pub fn find(program: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [own].into_iter().chain(std::env::split_paths(&path)).chain([Path::new("/usr/sbin").to_owned()]);
    let mut found = folders.map(|folder| folder.join(program)).filter(|file| file.is_file());
    found.next().unwrap_or_else(|| {
        panic!("{program} is neither in target/peers, nor on PATH, nor in /usr/sbin: `scripts/test tools` installs it")
    })
}
