//! What the HTTP API says: the types that the command line reads.
//!
//! | request | answer |
//! |---|---|
//! | `GET /live`, `GET /ready`, `GET /metrics` | text |
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/services` | list of [`ServiceSummary`] |
//! | `GET /v1/routes?host=` | list of [`veer_core::Service`]; without host all that have routes or a policy |
//! | `GET /v1/endpoints?host=` | list of [`veer_core::Endpoints`], tokens blanked |
//! | `GET /v1/proxies` | list of [`ProxyStatus`] |
//! | `GET /v1/dump` | everything, secrets blanked; for humans, no promise about its form |
//!
//! On the socket in the state folder also (privileged):
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/tokens` with [`TokenRequest`] | [`TokenAnswer`] |
//! | `GET /v1/link` | this cluster's own Link manifest, YAML |
//! | `POST /v1/rotate` | [`RotateAnswer`] |
//! | `POST /v1/confirm` | [`ConfirmAnswer`] |
//! | `POST /v1/gateways/<name>/drain`, `…/undrain` | [`GatewayStatus`] |
//!
//! An answer other than 2xx carries [`ApiError`].

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use veer_core::service::{AppProtocol, ServiceScope};
use veer_core::{ClusterName, ObjectName, ServiceHost, TrustDomain};
use veer_resources::Diagnostic;

use crate::lease::PeerState;
use crate::state::Incarnation;

/// One control plane, on one page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Version of the program.
    pub version: String,
    /// Who this control plane is.
    pub incarnation: Incarnation,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Whether it serves: its manifests were read once, completely.
    pub ready: bool,
    /// Generation of what it serves; grows with each change.
    pub generation: u64,
    /// Seconds since that generation came into force.
    pub generation_age_seconds: f64,
    /// Where the manifests are.
    pub source: SourceStatus,
    /// Services that workloads of this cluster can call.
    pub services: usize,
    /// Workloads of this cluster.
    pub workloads: usize,
    /// Services offered to at least one peer.
    pub exported: usize,
    /// The cluster's gateways.
    pub gateways: Vec<GatewayStatus>,
    /// Peers by name.
    pub peers: Vec<PeerStatus>,
    /// Every fault in manifests, with its place.
    pub faults: Vec<Fault>,
    /// Connected proxies and gateways.
    pub proxies: ProxyCounts,
    /// Seconds until this control plane's own certificate ends.
    pub certificate_seconds_left: f64,
    /// What went wrong with the state folder at start, when something did.
    #[serde(default)]
    pub state_faults: Vec<String>,
}

/// State of the manifests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `synced`, `waiting` (never read completely) or `stale` (a folder is silent; what it said last stays in force).
    pub state: String,
    /// Grows with each change of the manifests.
    pub generation: u64,
    /// Objects in force.
    pub objects: usize,
    /// A mass loss that waits for `veer confirm`: what would go.
    #[serde(default)]
    pub held: Vec<String>,
    /// Why it is not synced.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A gateway of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Its name.
    pub name: String,
    /// Where peers dial it.
    pub address: SocketAddr,
    /// Whether it gets no new connections.
    pub draining: bool,
}

/// A peer, as its Link and its session show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The peer.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// What is believed of it.
    pub state: PeerState,
    /// Whether a session stands now.
    pub connected: bool,
    /// Whether everything it offers has been read on this session.
    pub synced: bool,
    /// Seconds since it was heard last; nothing when it never was.
    pub age_seconds: Option<f64>,
    /// Length of the lease.
    pub lease_seconds: f64,
    /// Gateway of the peer in use, or dialled last.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// Who its control plane is, in its own words.
    #[serde(default)]
    pub incarnation: Option<String>,
    /// Services that it offers and this cluster takes.
    pub offers: usize,
    /// Endpoints behind them.
    pub endpoints: usize,
    /// Services that this cluster offers to it.
    pub offered: usize,
    /// What it offered beyond its Link, and why it is refused.
    #[serde(default)]
    pub refused: Vec<String>,
    /// Why it is not connected.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// A fault in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// `error` or `warning`.
    pub severity: String,
    /// Stable code, `V0012`.
    pub code: String,
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
    /// What to write instead.
    pub mend: String,
}

impl From<&Diagnostic> for Fault {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            severity: diagnostic.severity.to_string(),
            code: diagnostic.code.to_owned(),
            file: diagnostic.file.to_string(),
            line: diagnostic.line as usize,
            column: diagnostic.column as usize,
            reason: diagnostic.reason.clone(),
            mend: diagnostic.mend.clone(),
        }
    }
}

/// How many proxies there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyCounts {
    /// With a session now.
    pub connected: usize,
    /// Seen since the start, without a session now.
    pub lost: usize,
    /// Connected and refusing something of what they were sent.
    pub refusing: usize,
}

/// A service in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// Host.
    pub host: ServiceHost,
    /// Which copies it stands for.
    pub scope: ServiceScope,
    /// Virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePortSummary>,
    /// Copies by cluster.
    pub copies: Vec<Copies>,
}

/// A port of a service in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePortSummary {
    /// Number.
    pub port: u16,
    /// Name, when it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// What is spoken.
    pub protocol: AppProtocol,
    /// Routes attached.
    pub routes: usize,
}

/// Copies of a service in one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// The cluster.
    pub cluster: ClusterName,
    /// Ready ones.
    pub ready: usize,
    /// All.
    pub total: usize,
}

/// A proxy or gateway that is or was connected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// `namespace/name` of the workload, or the gateway's name.
    pub name: String,
    /// `workload` or `gateway`.
    pub kind: String,
    /// Where its own admin listener is, when it said so.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// Version of the program.
    #[serde(default)]
    pub version: String,
    /// Whether it has a session.
    pub connected: bool,
    /// Last generation with something new for it that it has acknowledged.
    pub generation: u64,
    /// What it refused of what it was sent last, and why.
    #[serde(default)]
    pub refused: Option<String>,
    /// Seconds since it was heard last.
    pub age_seconds: f64,
}

/// Asks for a join token: exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// For the proxy of this Workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<ObjectName>,
    /// For this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

/// A join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The token, `veer1.…`.
    pub token: String,
    /// Seconds that it lives.
    pub expires_in_seconds: u64,
}

/// An order to renew every certificate was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateAnswer {
    /// Count of such orders.
    pub rotate: u64,
}

/// A held mass loss was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmAnswer {
    /// Whether something was held.
    pub confirmed: bool,
}

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What is wrong, and what would be accepted.
    pub error: String,
}
