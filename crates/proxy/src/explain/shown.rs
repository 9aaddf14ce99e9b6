//! The answer to "what would become of this request?", as it travels and is shown.

use serde::{Deserialize, Serialize};
use veer_core::route::RouteKind;
use veer_core::{AppProtocol, ClusterName, ObjectName};

/// A request that nobody sends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Method, as it would be sent.
    pub method: String,
    /// Host, with a port when it is not 80.
    pub authority: String,
    /// Path, with the query if there is one.
    pub target: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
}

/// What would become of it, from the first step to the one that it fails at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    /// The service that is asked.
    pub service: Option<AskedService>,
    /// The rule that acts; `None`: no route is there, and requests go to the service itself.
    pub rule: Option<ActingRule>,
    /// The answer that the proxy gives by itself, and why. With [`Self::backends`] beside it, that of requests whose share leads to
    /// no usable backend.
    pub answer: Option<OwnAnswer>,
    /// Where it may go: one of these, by their shares.
    pub backends: Vec<ActingBackend>,
}

/// The service that a request names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskedService {
    /// Its host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What is spoken there.
    pub protocol: AppProtocol,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActingRule {
    /// Kind of the object that it was written in.
    pub kind: RouteKind,
    /// The object.
    pub route: ObjectName,
    /// Place in it, from 0.
    pub index: usize,
    /// Name, when it has one.
    pub name: Option<String>,
    /// When it acts: one of these; empty: always.
    pub matches: Vec<String>,
    /// What it does beside sending on.
    pub filters: Vec<String>,
    /// The peer whose export it came with.
    pub owner: Option<ClusterName>,
    /// The namespace whose callers alone it is for.
    pub callers: Option<String>,
}

/// An answer that the proxy makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnAnswer {
    /// HTTP status.
    pub status: u16,
    /// The flag in logs and metrics.
    pub flag: String,
    /// Why, in words.
    pub why: String,
}

/// A backend of the rule, or the service itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ActingBackend {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Percent of requests.
    pub share: f64,
    /// Why this share is answered by the proxy instead.
    pub answer: Option<OwnAnswer>,
    /// Method, authority and target as they go on; fields are told by [`Self::changes`].
    pub sent: Option<Question>,
    /// Header fields that were set or added (`name: value`) or removed (`-name`).
    pub changes: Vec<String>,
    /// What bounds and repeats it.
    pub limits: Vec<String>,
    /// Who wrote the policy for the service; empty: nobody, defaults act.
    pub policy_by: Vec<String>,
    /// What the policy says.
    pub policy: Vec<String>,
    /// The copy that the request's key leads to, where the policy leads by keys and the request has one.
    pub led_to: Option<ObjectName>,
    /// Who can serve.
    pub clusters: Vec<ServingCluster>,
}

/// The copies in one cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServingCluster {
    /// The cluster.
    pub cluster: ClusterName,
    /// Percent of requests.
    pub share: f64,
    /// Why this share.
    pub why: String,
    /// Its copies.
    pub endpoints: Vec<ServingEndpoint>,
}

/// One copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServingEndpoint {
    /// The workload.
    pub workload: ObjectName,
    /// Its address within its own network.
    pub address: String,
    /// Its port; `None`: it has none for the service's port.
    pub port: Option<u16>,
    /// Its zone, when one is written.
    pub zone: String,
    /// Percent of requests.
    pub share: f64,
    /// Why this share.
    pub why: String,
    /// What its own proxy says to the request, when that can be known.
    pub admits: Option<Admission>,
}

/// Whether a callee lets a request in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Admission {
    /// Whether it does.
    pub admitted: bool,
    /// The AuthorizationPolicy that said so, `namespace/name`, if one did.
    pub policy: Option<String>,
    /// Limits on how many requests it takes.
    #[serde(default)]
    pub limits: Vec<String>,
    /// In words.
    pub why: String,
}
