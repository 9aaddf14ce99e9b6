//! Commands and configurations of the other proxies, each as its own documentation would have it for this purpose: one worker,
//! connections to upstreams kept open and shared, no access log, the same time-outs. The templates are in `configs/`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::Stage;
use super::certificates::{CALLEE, CALLER};
use crate::side_by_side::contenders::Peer;

/// Where Debian puts it.
pub const HAPROXY: &str = "/usr/sbin/haproxy";
/// Where Debian puts it.
pub const NGINX: &str = "/usr/sbin/nginx";

/// What one process of a peer does.
#[derive(Debug, Clone)]
pub struct Task {
    /// Name of the side, for files.
    pub side: &'static str,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What stands behind it.
    pub upstream: SocketAddr,
    /// What it understands.
    pub level: Level,
    /// Bodies or messages are large.
    pub large: bool,
    /// Mutual TLS in front.
    pub tls_in: bool,
    /// Mutual TLS behind.
    pub tls_out: bool,
}

/// What a process looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// HTTP, in front and behind.
    Http {
        /// HTTP/2 in front.
        front: bool,
        /// HTTP/2 behind.
        back: bool,
        /// gRPC is carried.
        grpc: bool,
    },
    /// Nothing.
    Bytes,
    /// The server name of TLS.
    ServerName,
}

/// The command that does a task; its configuration is written to `folder`.
///
/// # Errors
/// When it cannot be written.
pub fn command(peer: Peer, task: &Task, stage: &Stage, folder: &Path) -> anyhow::Result<Command> {
    let mut text = match peer {
        Peer::Haproxy => haproxy(task),
        Peer::Nginx => nginx(task),
        _ => envoy(task),
    };
    let large = if task.large { large(peer, task.level) } else { "" };
    text = text.replace("@LARGE@", large);
    let (certificates, dir) = (stage.certificates.display().to_string(), folder.display().to_string());
    for (name, address) in [("LISTEN", task.listen), ("UPSTREAM", task.upstream)] {
        text = text.replace(&format!("@{name}@"), &address.to_string());
        text = text.replace(&format!("@{name}_ADDRESS@"), &address.ip().to_string());
        text = text.replace(&format!("@{name}_PORT@"), &address.port().to_string());
    }
    let names = [("CERTIFICATES", certificates.as_str()), ("DIR", &dir), ("SIDE", task.side)];
    for (name, value) in names.into_iter().chain([("CALLER", CALLER), ("CALLEE", CALLEE)]) {
        text = text.replace(&format!("@{name}@"), value);
    }
    // Envoy goes by the name of the file.
    let file = folder.join(format!("{}.{}", task.side, if peer == Peer::Envoy { "yaml" } else { "conf" }));
    std::fs::write(&file, text)?;
    let mut command = Command::new(match peer {
        Peer::Haproxy => Path::new(HAPROXY),
        Peer::Nginx => Path::new(NGINX),
        _ => &stage.envoy,
    });
    match peer {
        Peer::Haproxy => command.arg("-db").arg("-f").arg(file),
        Peer::Nginx => command.arg("-e").arg("stderr").arg("-p").arg(folder).arg("-c").arg(file),
        _ => command
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path"])
            .arg(file),
    };
    Ok(command)
}

/// What their documentation advises for large bodies: buffers that hold more of them.
fn large(peer: Peer, level: Level) -> &'static str {
    match (peer, level) {
        (Peer::Haproxy, _) => "tune.bufsize 65536",
        (Peer::Nginx, Level::Http { .. }) => {
            "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; grpc_buffer_size 64k; client_body_buffer_size 64k;"
        }
        (Peer::Nginx, _) => "proxy_buffer_size 64k;",
        _ => "",
    }
}

fn haproxy(task: &Task) -> String {
    let (mode, front, back) = match task.level {
        Level::ServerName => return include_str!("configs/haproxy-relay.cfg").to_owned(),
        Level::Bytes => ("tcp", None, None),
        Level::Http { front, back, .. } => ("http", Some(front), Some(back)),
    };
    let side = |tls: bool, http2: Option<bool>, server: &str| {
        let alpn = |http2| if http2 { "alpn h2" } else { "alpn http/1.1" };
        let proto = if http2 == Some(true) { "proto h2" } else { "" };
        match tls {
            false => proto.to_owned(),
            true => format!(
                "ssl ssl-min-ver TLSv1.3 {server} ca-file @CERTIFICATES@/ca.pem verify required {}",
                http2.map_or("", alpn)
            ),
        }
    };
    include_str!("configs/haproxy.cfg")
        .replace("@MODE@", mode)
        .replace("@TIMEOUT@", if task.level == Level::Bytes { "60s" } else { "15s" })
        .replace("@BIND@", &side(task.tls_in, front, "crt @CERTIFICATES@/@CALLEE@.both.pem"))
        .replace(
            "@SERVER@",
            &side(task.tls_out, back, "crt @CERTIFICATES@/@CALLER@.both.pem sni str(@CALLEE@) verifyhost @CALLEE@"),
        )
}

fn nginx(task: &Task) -> String {
    let tls_in = "ssl_protocols TLSv1.3; ssl_certificate @CERTIFICATES@/@CALLEE@.pem; ssl_certificate_key @CERTIFICATES@/@CALLEE@.key; \
                  ssl_client_certificate @CERTIFICATES@/ca.pem; ssl_verify_client on;";
    let tls_out = |way: &str| {
        let own = "@CERTIFICATES@/@CALLER@";
        format!(
            "{way}_ssl_protocols TLSv1.3; {way}_ssl_certificate {own}.pem; {way}_ssl_certificate_key {own}.key; \
             {way}_ssl_trusted_certificate @CERTIFICATES@/ca.pem; {way}_ssl_verify on; {way}_ssl_name @CALLEE@; {way}_ssl_server_name on;"
        )
    };
    let ssl = if task.tls_in { "ssl" } else { "" };
    let (template, listen_as, tls, pass) = match task.level {
        Level::Http { front, grpc, .. } => {
            let (way, scheme) = match (grpc, task.tls_out) {
                (true, false) => ("grpc", "grpc"),
                (true, true) => ("grpc", "grpcs"),
                (false, false) => ("proxy", "http"),
                (false, true) => ("proxy", "https"),
            };
            let mut pass = format!("{way}_pass {scheme}://next; ");
            pass += if grpc {
                "grpc_set_header Host $host; "
            } else {
                "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; "
            };
            if task.tls_out {
                pass += &tls_out(way);
            }
            // Between the two of a pair nginx speaks HTTP/1.1, and HTTP/2 for gRPC.
            let http2 = if front && (!task.tls_in || grpc) { "http2" } else { "" };
            let tls = if task.tls_in { tls_in } else { "" };
            (include_str!("configs/nginx-http.conf"), format!("{ssl} {http2}"), tls.to_owned(), pass)
        }
        Level::Bytes => {
            let mut pass = "proxy_pass @UPSTREAM@; ".to_owned();
            if task.tls_out {
                pass += &format!("proxy_ssl on; {}", tls_out("proxy"));
            }
            let tls = if task.tls_in { tls_in } else { "" };
            (include_str!("configs/nginx-stream.conf"), ssl.to_owned(), tls.to_owned(), pass)
        }
        Level::ServerName => (
            include_str!("configs/nginx-stream.conf"),
            String::new(),
            "map $ssl_preread_server_name $next { @CALLEE@ @UPSTREAM@; }".to_owned(),
            "ssl_preread on; proxy_pass $next;".to_owned(),
        ),
    };
    template.replace("@LISTEN_AS@", &listen_as).replace("@TLS@", &tls).replace("@PASS@", &pass)
}

fn envoy(task: &Task) -> String {
    let protocol = |http2: bool| if http2 { "http2_protocol_options" } else { "http_protocol_options" };
    let alpn = |http2: Option<bool>| {
        http2.map_or(String::new(), |http2| format!("alpn_protocols: [{}],", if http2 { "h2" } else { "http/1.1" }))
    };
    let (template, front, back) = match task.level {
        Level::Http { front, back, .. } => (include_str!("configs/envoy-http.yaml"), Some(front), Some(back)),
        Level::Bytes | Level::ServerName => (include_str!("configs/envoy-tcp.yaml"), None, None),
    };
    let tls = |wanted: bool, part: &str, http2| {
        if wanted { part.trim_end().replace("@ALPN@", &alpn(http2)) } else { String::new() }
    };
    let (inspect, chain) = if task.level == Level::ServerName {
        let inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
        (
            format!("listener_filters: [{{ name: inspect, typed_config: {{ \"@type\": {inspector} }} }}]"),
            "filter_chain_match: { server_names: [@CALLEE@] }",
        )
    } else {
        (String::new(), "")
    };
    template
        .replace("@TLS_IN@", &tls(task.tls_in, include_str!("configs/envoy-tls-in.yaml"), front))
        .replace("@TLS_OUT@", &tls(task.tls_out, include_str!("configs/envoy-tls-out.yaml"), back))
        .replace("@UPSTREAM_PROTOCOL@", protocol(back == Some(true)))
        .replace("@INSPECT@", &inspect)
        .replace("@MATCH@", chain)
}
