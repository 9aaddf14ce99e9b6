//! `veer status`, `veer endpoints`: what the control planes know.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use veer_control::api::{Fault, Status};
use veer_control::lease::PeerState;
use veer_core::Endpoints;

use super::{Asked, Format, Target};
use crate::api;
use crate::table::{Table, age};

const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();

/// One cluster's answer, or why there is none.
#[derive(Debug, Serialize)]
pub struct Answer<T> {
    /// The cluster asked.
    pub cluster: String,
    /// What it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<T>,
    /// Why it said nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Asks every control plane of the target the same.
///
/// # Errors
/// When the target names none; one that does not answer is part of the result.
pub async fn ask_all<T: serde::de::DeserializeOwned>(target: &Target, path: &str) -> anyhow::Result<Vec<Answer<T>>> {
    let mut answers = Vec::new();
    for Asked { name, api, .. } in target.asked()? {
        let (answer, error) = match api::get_json::<T>(api, path).await {
            Ok(answer) => (Some(answer), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        answers.push(Answer { cluster: name, answer, error });
    }
    Ok(answers)
}

/// `veer status`: `Ok(true)` when every cluster answers, is ready and has no faults.
///
/// # Errors
/// When the fleet was never started.
pub async fn status(target: &Target, format: &Format) -> anyhow::Result<bool> {
    let answers = ask_all::<Status>(target, "/v1/status").await?;
    let well = |a: &Answer<Status>| {
        a.answer.as_ref().is_some_and(|s| s.ready && s.faults.iter().all(|fault| fault.severity != "error"))
    };
    let all_well = answers.iter().all(well);
    format.print(&answers, |answers| status_text(answers))?;
    Ok(all_well)
}

/// A fault with its place, as far as it has one, and its mend.
pub fn fault_text(fault: &Fault) -> String {
    let Fault { severity, code, file, line, column, reason, mend } = fault;
    let style = if severity == "error" { BAD } else { WARN };
    let place = match (file.as_str(), line) {
        ("", _) => String::new(),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}:{column}: "),
    };
    format!("{place}{style}{severity}[{code}]{style:#} {reason}\n  mend: {mend}\n")
}

fn status_text(answers: &[Answer<Status>]) -> String {
    let mut clusters =
        Table::new(&["cluster", "ready", "generation", "age", "manifests", "services", "workloads", "proxies", "ca"]);
    let mut peers = Table::new(&["cluster", "peer", "state", "heard", "lease", "takes", "copies", "offers", "through"]);
    let mut notes = String::new();
    for Answer { cluster, answer, error } in answers {
        let Some(status) = answer else {
            clusters.row([cluster.clone(), "no answer".to_owned()]);
            let _ = writeln!(notes, "{BAD}{cluster}{BAD:#}: {}", error.as_deref().unwrap_or("no answer"));
            continue;
        };
        let lost = if status.proxies.lost > 0 { format!(" ({} lost)", status.proxies.lost) } else { String::new() };
        clusters.row([
            cluster.clone(),
            if status.ready { "yes" } else { "no" }.to_owned(),
            status.generation.to_string(),
            age(status.generation_age_seconds),
            status.source.state.clone(),
            status.services.to_string(),
            status.workloads.to_string(),
            format!("{}{lost}", status.proxies.connected),
            age(status.certificate_seconds_left),
        ]);
        for peer in &status.peers {
            peers.row([
                cluster.clone(),
                peer.cluster.to_string(),
                state(peer.state).to_owned(),
                peer.age_seconds.map_or("never".to_owned(), |s| format!("{} ago", age(s))),
                age(peer.lease_seconds),
                peer.offers.to_string(),
                peer.endpoints.to_string(),
                peer.offered.to_string(),
                peer.address.map_or_else(String::new, |address| address.to_string()),
            ]);
            for refused in &peer.refused {
                let _ = writeln!(notes, "{WARN}{cluster}{WARN:#}: refused from {}: {refused}", peer.cluster);
            }
            if let (false, Some(error)) = (peer.connected, &peer.last_error) {
                let _ = writeln!(notes, "{WARN}{cluster}{WARN:#}: no session with {}: {error}", peer.cluster);
            }
        }
        for gateway in status.gateways.iter().filter(|gateway| gateway.draining) {
            let _ = writeln!(notes, "{WARN}{cluster}{WARN:#}: {} is draining", gateway.name);
        }
        if !status.source.held.is_empty() {
            let _ = writeln!(
                notes,
                "{BAD}{cluster}{BAD:#}: {} objects vanished at once and are kept; `veer confirm --cluster {cluster}` lets them go: {}",
                status.source.held.len(),
                status.source.held.join(", ")
            );
        }
        for fault in &status.faults {
            notes += &fault_text(fault);
        }
    }
    let mut text = clusters.to_string();
    if !peers.is_empty() {
        let _ = write!(text, "\n{peers}");
    }
    if notes.is_empty() {
        let _ = write!(text, "\n{GOOD}no faults{GOOD:#}\n");
    } else {
        let _ = write!(text, "\n{notes}");
    }
    text
}

fn state(state: PeerState) -> &'static str {
    match state {
        PeerState::Unknown => "unknown",
        PeerState::Fresh => "fresh",
        PeerState::Silent => "silent",
        PeerState::Gone => "gone",
    }
}

/// `veer endpoints`: who can serve.
///
/// # Errors
/// When the fleet was never started.
pub async fn endpoints(target: &Target, host: Option<&str>, format: &Format) -> anyhow::Result<bool> {
    let path = host.map_or("/v1/endpoints".to_owned(), |host| format!("/v1/endpoints?host={host}"));
    let answers = ask_all::<Vec<Endpoints>>(target, &path).await?;
    let found = answers.iter().any(|a| a.answer.as_ref().is_some_and(|endpoints| !endpoints.is_empty()));
    format.print(&answers, |answers| {
        let mut rows =
            Table::new(&["asked", "service", "cluster", "reach", "workload", "address", "ready", "identity"]);
        for Answer { cluster: asked, answer, error } in answers {
            if let Some(error) = error {
                rows.row([asked.clone(), format!("no answer: {error}")]);
            }
            for endpoints in answer.iter().flatten() {
                for cluster in &endpoints.clusters {
                    for endpoint in &cluster.endpoints {
                        rows.row([
                            asked.clone(),
                            endpoints.host.to_string(),
                            cluster.cluster.to_string(),
                            format!("{:?}", cluster.reach).to_lowercase(),
                            endpoint.workload.to_string(),
                            endpoint.address.to_string(),
                            if endpoint.ready { "yes" } else { "no" }.to_owned(),
                            endpoint.identity.as_ref().map_or("plaintext".to_owned(), ToString::to_string),
                        ]);
                    }
                }
            }
        }
        if rows.is_empty() { "no endpoints\n".to_owned() } else { rows.to_string() }
    })?;
    Ok(found)
}
