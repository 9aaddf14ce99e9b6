//! The programs under test, each as its own documentation would have it for this purpose: one worker, connections to
//! upstreams kept open and shared, no access log, the same time-outs. Their configurations are in `configs/`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use serde::Serialize;

use super::certificates::{CALLEE, CALLER};
use super::floor;
use super::machine::first_line;
use super::process::Process;
use super::veer;
use super::works::{BACK, FRONT, Work};

const HAPROXY: &str = "/usr/sbin/haproxy";
const NGINX: &str = "/usr/sbin/nginx";

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// Nobody: load and origin alone, the limit of the measurement
    Direct,
    /// A relay that only reads and writes (two of them, without TLS, for a pair)
    Floor,
    /// This project
    Veer,
    /// Envoy
    Envoy,
    /// Envoy, HTTP/2 between the two of a pair
    EnvoyHttp2Hop,
    /// HAProxy
    Haproxy,
    /// HAProxy, HTTP/2 between the two of a pair
    HaproxyHttp2Hop,
    /// nginx
    Nginx,
}

/// What a peer needs to start.
pub struct Stage {
    /// The veer to measure.
    pub veer: PathBuf,
    /// The Envoy to measure.
    pub envoy: PathBuf,
    /// Core of the proxies.
    pub proxy_core: usize,
    /// Core of everything else.
    pub load_core: usize,
    /// The floor's program.
    pub floor: PathBuf,
    /// Certificates of the other proxies' pairs.
    pub certificates: PathBuf,
}

/// A peer that runs. Ends when dropped.
pub struct Running {
    /// Where the load goes.
    pub target: SocketAddr,
    /// Which host it asks for.
    pub host: String,
    /// The proxies, without their children.
    pub roots: Vec<u32>,
    /// To see whether one ended early.
    pub processes: Vec<Process>,
    /// Veer's fleet, which ends when dropped.
    pub _fleet: Option<veer_testkit::Fleet>,
}

impl Peer {
    /// In the order of the report.
    pub const ALL: [Self; 8] = [
        Self::Direct,
        Self::Floor,
        Self::Veer,
        Self::Haproxy,
        Self::HaproxyHttp2Hop,
        Self::Nginx,
        Self::Envoy,
        Self::EnvoyHttp2Hop,
    ];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::Veer => "Veer",
            Self::Envoy => "Envoy",
            Self::EnvoyHttp2Hop => "Envoy, HTTP/2 hop",
            Self::Haproxy => "HAProxy",
            Self::HaproxyHttp2Hop => "HAProxy, HTTP/2 hop",
            Self::Nginx => "nginx",
        }
    }

    /// Another proxy, to compare with.
    pub fn is_foreign(self) -> bool {
        !matches!(self, Self::Direct | Self::Floor | Self::Veer)
    }

    /// Whether the peer has an entry for a work.
    pub fn does(self, work: Work) -> bool {
        !matches!(self, Self::EnvoyHttp2Hop | Self::HaproxyHttp2Hop) || work == Work::PairHttp1
    }

    /// What exactly is measured, or nothing for what this program itself is.
    pub fn version(self, stage: &Stage) -> Option<String> {
        match self {
            Self::Direct | Self::Floor | Self::EnvoyHttp2Hop | Self::HaproxyHttp2Hop => None,
            Self::Veer => {
                let commit = first_line("git", &["describe", "--always", "--dirty"]);
                Some(format!("{} ({commit})", first_line(&stage.veer, &["--version"])))
            }
            Self::Envoy => {
                let line = first_line(&stage.envoy, &["--version"]);
                let (_, build) = line.rsplit_once("version: ").unwrap_or_default();
                let parts: Vec<&str> = build.split('/').collect();
                Some(format!("Envoy {} ({})", parts.get(1).unwrap_or(&"?"), parts.last().unwrap_or(&"?")))
            }
            Self::Haproxy => Some(first_line(HAPROXY, &["-v"])),
            Self::Nginx => Some(first_line(NGINX, &["-v"])),
        }
    }

    /// An error naming what must be installed or built first.
    pub fn check(self, stage: &Stage) -> anyhow::Result<()> {
        let program = match self {
            Self::Direct | Self::Floor => return Ok(()),
            Self::Veer => {
                ensure!(stage.veer.exists(), "{} is not there: cargo build --release", stage.veer.display());
                return Ok(());
            }
            Self::Envoy | Self::EnvoyHttp2Hop => &stage.envoy,
            Self::Haproxy | Self::HaproxyHttp2Hop => Path::new(HAPROXY),
            Self::Nginx => Path::new(NGINX),
        };
        ensure!(program.exists(), "{} is not there: benches/peers installs it", program.display());
        Ok(())
    }

    /// Starts it; that it is ready shows when it serves.
    pub async fn start(self, work: Work, stage: &Stage, folder: &Path) -> anyhow::Result<Running> {
        let processes = match self {
            Self::Direct => return Ok(Running::at(work.origin(), Vec::new())),
            Self::Veer => return veer::start(work, stage).await,
            _ if work.is_pair() => {
                let callee = self.command(Side::Callee, work, stage, folder)?;
                let caller = self.command(Side::Caller, work, stage, folder)?;
                vec![
                    Process::start(callee, stage.proxy_core, &folder.join("callee.log"))?,
                    Process::start(caller, stage.proxy_core, &folder.join("caller.log"))?,
                ]
            }
            _ => {
                let command = self.command(Side::Single, work, stage, folder)?;
                vec![Process::start(command, stage.proxy_core, &folder.join("proxy.log"))?]
            }
        };
        Ok(Running::at(FRONT, processes))
    }

    fn command(self, side: Side, work: Work, stage: &Stage, folder: &Path) -> anyhow::Result<Command> {
        let (listen, upstream) = match side {
            Side::Single => (FRONT, work.origin()),
            Side::Caller => (FRONT, BACK),
            Side::Callee => (BACK, work.origin()),
        };
        let file = folder.join(match side {
            Side::Single => "proxy.config",
            Side::Caller => "caller.config",
            Side::Callee => "callee.config",
        });
        let fill = |template: &str, more: &[(&str, &str)]| {
            let mut text = template.to_owned();
            for (name, value) in more {
                text = text.replace(&format!("@{name}@"), value);
            }
            for (name, address) in [("LISTEN", listen), ("UPSTREAM", upstream)] {
                text = text.replace(&format!("@{name}@"), &address.to_string());
                text = text.replace(&format!("@{name}_ADDRESS@"), &address.ip().to_string());
                text = text.replace(&format!("@{name}_PORT@"), &address.port().to_string());
            }
            let (certificates, folder) = (stage.certificates.display().to_string(), folder.display().to_string());
            for (name, value) in
                [("CERTIFICATES", certificates.as_str()), ("DIR", &folder), ("CALLER", CALLER), ("CALLEE", CALLEE)]
            {
                text = text.replace(&format!("@{name}@"), value);
            }
            std::fs::write(&file, text)
        };
        let http2 = work.speaks_http2();
        // HTTP/2 in front is HTTP/2 between the two as well, where a proxy can.
        let http2_hop = http2 || matches!(self, Self::EnvoyHttp2Hop | Self::HaproxyHttp2Hop);
        let alpn = ("ALPN", if http2_hop { "h2" } else { "http/1.1" });
        Ok(match self {
            // What runs in this process, or as a fleet.
            Self::Direct | Self::Veer => unreachable!("started elsewhere"),
            Self::Floor => floor::command(&stage.floor, listen, upstream, false),
            Self::Envoy | Self::EnvoyHttp2Hop => {
                let protocol = |http2: bool| if http2 { "http2_protocol_options" } else { "http_protocol_options" };
                let template = match (side, work) {
                    (Side::Caller, _) => include_str!("configs/envoy-pair-caller.yaml"),
                    (Side::Callee, _) => include_str!("configs/envoy-pair-callee.yaml"),
                    (Side::Single, Work::Tcp) => include_str!("configs/envoy-tcp.yaml"),
                    (Side::Single, _) => include_str!("configs/envoy-http.yaml"),
                };
                fill(template, &[("UPSTREAM_PROTOCOL", protocol(http2)), ("HOP_PROTOCOL", protocol(http2_hop)), alpn])?;
                let mut command = Command::new(&stage.envoy);
                command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]);
                // It goes by the name of the file.
                let yaml = file.with_extension("yaml");
                std::fs::rename(&file, &yaml)?;
                command.arg("--config-path").arg(yaml);
                command
            }
            Self::Haproxy | Self::HaproxyHttp2Hop => {
                let part = match (side, work) {
                    (Side::Caller, _) => include_str!("configs/haproxy-pair-caller.cfg"),
                    (Side::Callee, _) => include_str!("configs/haproxy-pair-callee.cfg"),
                    (Side::Single, Work::Tcp) => include_str!("configs/haproxy-tcp.cfg"),
                    (Side::Single, _) => include_str!("configs/haproxy-http.cfg"),
                };
                let template = [include_str!("configs/haproxy-head.cfg"), part].concat();
                fill(&template, &[("PROTO", if http2 { "proto h2" } else { "" }), alpn])?;
                let mut command = Command::new(HAPROXY);
                command.arg("-db").arg("-f").arg(file);
                command
            }
            Self::Nginx => {
                let template = match (side, work) {
                    (Side::Caller, _) => include_str!("configs/nginx-pair-caller.conf"),
                    (Side::Callee, _) => include_str!("configs/nginx-pair-callee.conf"),
                    (Side::Single, Work::Tcp) => include_str!("configs/nginx-tcp.conf"),
                    (Side::Single, _) => include_str!("configs/nginx-http.conf"),
                };
                fill(template, &[("HTTP2", if http2 { "http2" } else { "" })])?;
                let mut command = Command::new(NGINX);
                command.arg("-e").arg("stderr").arg("-p").arg(folder).arg("-c").arg(file);
                command
            }
        })
    }
}

#[derive(Clone, Copy)]
enum Side {
    Single,
    Caller,
    Callee,
}

impl Running {
    fn at(target: SocketAddr, processes: Vec<Process>) -> Self {
        let roots = processes.iter().map(Process::pid).collect();
        Self { target, host: "origin.bench".to_owned(), roots, processes, _fleet: None }
    }
}
