//! What a proxy tells its control plane of itself: `veer.v1.Agent/Report`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use veer_core::{ClusterName, ObjectName};

use crate::Status;
use crate::grpc::Channel;
use crate::server::Subscriber;

/// Takes reports at the control plane.
pub trait Agents: 'static {
    /// A proxy reports. What it says is claimed, except the identity.
    ///
    /// # Errors
    /// What the proxy is told.
    fn report(&self, who: &Subscriber, report: Report) -> Result<(), Status>;
}

/// A proxy's report. Travels as JSON: unknown fields are ignored, absent ones take their default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// Its workload; `None` for a gateway.
    pub workload: Option<ObjectName>,
    /// Name of the process among those of its cluster.
    pub node: String,
    /// Version of the program.
    pub version: String,
    /// Where its metrics and dump are served.
    pub admin: Option<SocketAddr>,
    /// Generation of the configuration in force.
    pub generation: u64,
    /// Milliseconds since the last proof of the data path, per cluster.
    pub proofs: BTreeMap<ClusterName, u64>,
    /// Counters by name.
    pub counts: BTreeMap<String, u64>,
    /// Whatever a newer version says besides.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// Sends a report.
///
/// # Errors
/// What the control plane said, or why it could not be asked.
pub async fn report(channel: &Channel, report: &Report) -> Result<(), Status> {
    let json = serde_json::to_vec(report).map_err(|error| Status::internal(error.to_string()))?;
    let ReportResponse {} = channel.unary(REPORT, ReportRequest { json }).await?;
    Ok(())
}

pub(crate) const REPORT: &str = "/veer.v1.Agent/Report";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReportRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub json: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReportResponse {}
