//! `veer link`, `veer token`, `veer rotate`, `veer confirm`, `veer drain`: privileged verbs, on the control plane's own socket.

use http::Method;
use veer_control::api::TokenRequest;

use super::{Format, Target};
use crate::api;

/// `veer link`: this cluster's own Link manifest, for the other side's folder.
///
/// # Errors
/// When the control plane does not run on this machine.
pub async fn link(target: &Target) -> anyhow::Result<()> {
    let body = api::control_verb(&target.one_cluster()?, Method::GET, "/v1/link", "").await?;
    anstream::print!("{}", String::from_utf8_lossy(&body));
    Ok(())
}

/// `veer token`: lets one workload or gateway join.
///
/// # Errors
/// When the control plane does not run on this machine, or knows no such workload.
pub async fn token(target: &Target, request: &TokenRequest, format: &Format) -> anyhow::Result<()> {
    let answer = api::token(&target.one_cluster()?, request).await?;
    format.print(&answer, |answer| format!("{}\n", answer.token))
}

/// A verb that every cluster of the target gets, with what it answers.
///
/// # Errors
/// When a control plane does not run on this machine, or refuses.
pub async fn verb(target: &Target, path: &str, format: &Format) -> anyhow::Result<()> {
    let mut answers = std::collections::BTreeMap::new();
    for plan in target.clusters()? {
        let body = api::control_verb(&plan, Method::POST, path, "").await?;
        answers.insert(plan.name.to_string(), serde_json::from_slice::<serde_json::Value>(&body)?);
    }
    format.print(&answers, |answers| answers.iter().map(|(cluster, answer)| format!("{cluster}: {answer}\n")).collect())
}
