//! Asking a running fleet: control planes' HTTP API, their privileged sockets, proxies' admin listeners.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use veer_control::api::{ApiError, ProxyStatus, TokenAnswer, TokenRequest};
use veer_load::{Client, Protocol, Request};
use veer_resources::Kind;
use veer_telemetry::text::{self, Sample};

use crate::supervise::plan::ClusterPlan;

/// For one answer; what is asked is on this machine or near.
const LIMIT: Duration = Duration::from_secs(2);

/// The answer's status and body.
///
/// # Errors
/// When there is no whole answer in time.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, Bytes)> {
    let client = Client::new(address, Protocol::Http1, 1);
    let request = Request::get("api", &address.to_string(), path);
    let answer = tokio::time::timeout(LIMIT, client.send(&request))
        .await
        .map_err(|_| anyhow::anyhow!("{address} does not answer within {LIMIT:?}"))?
        .map_err(|failure| anyhow::anyhow!("{address}: {failure}"))?;
    Ok((answer.status, answer.body))
}

/// Whether the answer is 200.
pub async fn get_ok(address: SocketAddr, path: &str) -> bool {
    matches!(get(address, path).await, Ok((200, _)))
}

/// The answer, decoded.
///
/// # Errors
/// When there is none, it is not 200, or not of this type.
pub async fn get_json<T: DeserializeOwned>(address: SocketAddr, path: &str) -> anyhow::Result<T> {
    let (status, body) = get(address, path).await?;
    decode(status, &body).with_context(|| format!("asking {address}{path}"))
}

/// The metrics of a proxy, gateway or control plane.
///
/// # Errors
/// When there is no answer.
pub async fn metrics(address: SocketAddr) -> anyhow::Result<Vec<Sample>> {
    let (status, body) = get(address, "/metrics").await?;
    anyhow::ensure!(status == 200, "{address}/metrics answered {status}");
    text::parse(&String::from_utf8_lossy(&body)).map_err(|error| anyhow::anyhow!("{address}/metrics: {error}"))
}

/// The serial number of the certificate that a proxy or gateway uses now.
///
/// # Errors
/// When there is no answer, or it names none.
pub async fn certificate_serial(admin: SocketAddr) -> anyhow::Result<String> {
    let dump: serde_json::Value = get_json(admin, "/dump").await?;
    dump["identity"]["serial"].as_str().map(str::to_owned).context("the dump names no certificate")
}

/// Every proxy and gateway that reported to the cluster's control plane, with its admin listener.
///
/// # Errors
/// When the control plane does not answer.
pub async fn admin_addresses(api: SocketAddr) -> anyhow::Result<Vec<(String, SocketAddr)>> {
    let proxies: Vec<ProxyStatus> = get_json(api, "/v1/proxies").await?;
    Ok(proxies.into_iter().filter(|p| p.connected).filter_map(|p| Some((p.name, p.admin?))).collect())
}

/// Workloads that the manifests say are up, with their addresses.
pub fn workload_addresses(plan: &ClusterPlan) -> Vec<(String, IpAddr)> {
    let objects = crate::tools::read_manifests(&plan.manifests).0;
    let up = objects.iter().filter_map(|object| match &object.kind {
        Kind::Workload(workload) if workload.is_up() => Some((object.name().to_string(), workload.address)),
        _ => None,
    });
    up.collect()
}

/// A privileged verb, on the control plane's socket.
///
/// # Errors
/// When the control plane of this machine does not run, or refuses.
pub async fn control_verb(plan: &ClusterPlan, method: Method, path: &str, body: &str) -> anyhow::Result<Bytes> {
    let socket = veer_control::state::socket_path(&plan.control_state());
    let ask = async {
        let stream = UnixStream::connect(&socket).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri(path).header(http::header::HOST, "control");
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    let (status, body) = tokio::time::timeout(LIMIT, ask)
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {LIMIT:?}"))
        .flatten()
        .with_context(|| format!("asking the control plane of {} on {}", plan.name, socket.display()))?;
    if status.is_success() { Ok(body) } else { Err(refusal(status.as_u16(), &body)) }
}

/// A join token for a workload or gateway of a cluster of this machine.
///
/// # Errors
/// As [`control_verb`].
pub async fn token(plan: &ClusterPlan, request: &TokenRequest) -> anyhow::Result<TokenAnswer> {
    let body = control_verb(plan, Method::POST, "/v1/tokens", &serde_json::to_string(request)?).await?;
    Ok(serde_json::from_slice(&body)?)
}

fn decode<T: DeserializeOwned>(status: u16, body: &[u8]) -> anyhow::Result<T> {
    if status != StatusCode::OK.as_u16() {
        return Err(refusal(status, body));
    }
    Ok(serde_json::from_slice(body)?)
}

fn refusal(status: u16, body: &[u8]) -> anyhow::Error {
    match serde_json::from_slice::<ApiError>(body) {
        Ok(refused) => anyhow::anyhow!(refused.error),
        Err(_) => anyhow::anyhow!("status {status}: {}", String::from_utf8_lossy(body).trim()),
    }
}
