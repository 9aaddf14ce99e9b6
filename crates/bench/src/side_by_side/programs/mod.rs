//! The programs under test: where they stand, how they are started.

pub mod certificates;
mod floor;
mod foreign;
mod veer;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use self::certificates::{CALLEE, CALLER};
use self::foreign::{Level, Task};
use super::contenders::{Contender, Peer, Variant};
use super::machine::first_line;
use super::process::Process;
use super::works::{Kind, Row, Shape, Spoken, Work};

pub use self::floor::build as build_floor;

/// Where the origin is, and where it is the application of a workload of Veer, near and behind a gateway.
pub const ORIGINS: [SocketAddr; 3] = [address(PEERS, 0, 1, 9000), APPLICATION, FAR_APPLICATION];
/// The origin as the application of a workload.
const APPLICATION: SocketAddr = address(veer::NETWORK, 0, 20, 9000);
/// The same in another cluster.
const FAR_APPLICATION: SocketAddr = address(veer::FAR_NETWORK, 0, 20, 9000);
/// All others are in 127.77.0.0/16.
const PEERS: u8 = 77;

/// Bodies beyond this size are large.
const LARGE: usize = 32 * 1024;

const fn address(a: u8, b: u8, c: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, a, b, c)), port)
}

/// What programs need to start.
pub struct Stage {
    /// The veer to measure.
    pub veer: PathBuf,
    /// The Envoy to measure.
    pub envoy: PathBuf,
    /// The floor's program.
    pub floor: PathBuf,
    /// Core of the proxies.
    pub proxy_core: usize,
    /// Core of everything else.
    pub load_core: usize,
    /// Certificates of the other proxies' pairs.
    pub certificates: PathBuf,
}

/// A contender that runs. Ends when dropped.
pub struct Running {
    /// Where the load goes.
    pub target: SocketAddr,
    /// Which host it asks for.
    pub host: String,
    /// How the called proxy of a pair is met by a client of its own.
    pub tls: TlsTarget,
    /// The proxies, without their children.
    pub parts: Vec<(Part, u32)>,
    /// To see whether one ended early.
    pub processes: Vec<Process>,
    /// Veer's fleet, which ends when dropped.
    pub _fleet: Option<veer_testkit::Fleet>,
}

/// What a client of mutual TLS needs.
#[derive(Debug, Clone, Default)]
pub struct TlsTarget {
    /// Files with the client's certificate and key.
    pub files: [PathBuf; 2],
    /// Server name.
    pub name: String,
    /// Application protocol.
    pub protocol: Vec<u8>,
}

/// Which of the proxies in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The only one, or one of a pair.
    End,
    /// The relay between a pair.
    Hop,
}

impl Peer {
    /// What exactly is measured, or nothing for what this program itself is.
    pub fn version(self, stage: &Stage) -> Option<String> {
        match self {
            Self::Direct | Self::Floor => None,
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
            Self::Haproxy => Some(first_line(foreign::HAPROXY, &["-v"])),
            Self::Nginx => Some(first_line(foreign::NGINX, &["-v"])),
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
            Self::Envoy => &stage.envoy,
            Self::Haproxy => Path::new(foreign::HAPROXY),
            Self::Nginx => Path::new(foreign::NGINX),
        };
        ensure!(program.exists(), "{} is not there: benches/peers installs it", program.display());
        Ok(())
    }
}

/// Starts a contender, the `place`th of its work; that it is ready shows when it serves.
///
/// # Errors
/// When something cannot be started.
pub async fn start(
    contender: Contender,
    work: Work,
    place: u8,
    stage: &Stage,
    folder: &Path,
) -> anyhow::Result<Running> {
    match contender.peer {
        Peer::Direct => return Ok(Running::at(ORIGINS[0])),
        Peer::Veer => return veer::start(contender, work, stage).await,
        _ => {}
    }
    let tasks = tasks(contender, work, place);
    let mut running = Running::at(tasks.last().context("no task")?.1.listen);
    for (part, task) in &tasks {
        let command = match contender.peer {
            Peer::Floor => {
                let splice = match part {
                    Part::Hop => work.shape().body > super::works::SMALL,
                    Part::End => contender.variant == Variant::Splice,
                };
                floor::command(&stage.floor, task.listen, task.upstream, splice)
            }
            peer => foreign::command(peer, task, stage, folder)?,
        };
        let log = folder.join(format!("{}.log", task.side));
        let process = Process::start(command, stage.proxy_core, &log)?;
        running.parts.push((*part, process.pid()));
        running.processes.push(process);
    }
    let own = |end: &str| stage.certificates.join(format!("{CALLER}.{end}"));
    running.tls =
        TlsTarget { files: [own("pem"), own("key")], name: CALLEE.to_owned(), protocol: b"http/1.1".to_vec() };
    Ok(running)
}

/// From the origin to the front.
fn tasks(contender: Contender, work: Work, place: u8) -> Vec<(Part, Task)> {
    let shape = work.shape();
    let at = |last, port| address(PEERS, 1 + place, last, port);
    let (front, relay, back) = (at(2, 8000), at(3, 8443), at(4, 8443));
    let level = level(contender, &shape, None);
    let large = shape.body * shape.messages + shape.upload > LARGE;
    let single =
        Task { side: "proxy", listen: front, upstream: ORIGINS[0], level, large, tls_in: false, tls_out: false };
    let callee_level = self::level(contender, &shape, Some(false));
    let callee = Task { side: "callee", listen: back, level: callee_level, tls_in: true, ..single.clone() };
    let next = if contender.variant == Variant::Hop { relay } else { back };
    let caller_level = self::level(contender, &shape, Some(true));
    let caller = Task { side: "caller", upstream: next, level: caller_level, tls_out: true, ..single.clone() };
    let hop = Task { side: "hop", listen: relay, upstream: back, level: Level::ServerName, ..single.clone() };
    match (shape.row, contender.variant) {
        (Row::Single, _) => vec![(Part::End, single)],
        (Row::Callee, _) => vec![(Part::End, callee)],
        (Row::Pair, Variant::Hop) => vec![(Part::End, callee), (Part::Hop, hop), (Part::End, caller)],
        (Row::Pair, _) => vec![(Part::End, callee), (Part::End, caller)],
    }
}

/// What a proxy looks at: the only one, or the caller's of a pair, or the callee's.
fn level(contender: Contender, shape: &Shape, is_caller: Option<bool>) -> Level {
    if shape.spoken == Spoken::Tcp || contender.variant == Variant::Bytes {
        return Level::Bytes;
    }
    let (http2, grpc) = (shape.spoken.is_http2(), shape.spoken == Spoken::Grpc);
    let hop = http2 || contender.variant == Variant::Http2Hop;
    match is_caller {
        None => Level::Http { front: http2, back: http2, grpc },
        Some(true) => Level::Http { front: http2, back: hop, grpc },
        Some(false) => Level::Http { front: hop, back: http2, grpc },
    }
}

impl Running {
    fn at(target: SocketAddr) -> Self {
        let tls = TlsTarget::default();
        Self { target, host: "origin.bench".to_owned(), tls, parts: Vec::new(), processes: Vec::new(), _fleet: None }
    }

    /// The proxies, without their children.
    pub fn roots(&self) -> Vec<u32> {
        self.parts.iter().map(|(_, pid)| *pid).collect()
    }

    /// The relay between a pair, when there is one.
    pub fn hop(&self) -> Vec<u32> {
        self.parts.iter().filter(|(part, _)| *part == Part::Hop).map(|(_, pid)| *pid).collect()
    }
}

/// Whether a work's proxies are met with TLS by the load.
pub fn is_met_with_tls(shape: &Shape) -> bool {
    matches!(shape.kind, Kind::Handshakes { .. } | Kind::Idle { tls: true })
}
