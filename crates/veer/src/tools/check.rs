//! `veer check`: is everything as it should be, and if not, what to do. Exit code 1 when something is broken.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use tokio::net::TcpStream;
use veer_control::api::{ProxyStatus, Status};
use veer_control::lease::PeerState;

use super::{Asked, Format, Target, read_manifests};
use crate::api;
use crate::supervise::fleet::read_fleet;
use crate::supervise::plan::{ClusterPlan, GATEWAY_PORT};
use crate::table::age;

/// A gateway on this machine answers at once or not at all.
const CONNECT: Duration = Duration::from_secs(1);
/// A certificate with less left should have been renewed long ago.
const CERTIFICATE_LEFT: f64 = 60.0;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works, and deserves a look.
    Warning,
    /// Broken.
    Bad,
}

/// One check.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The cluster, or `fleet`.
    pub on: String,
    /// What was checked.
    pub what: String,
    /// How it came out.
    pub verdict: Verdict,
    /// The figure or text behind it.
    pub found: String,
    /// What to do; empty when nothing.
    pub mend: String,
}

/// Runs all checks; `Ok(true)` when nothing is broken.
///
/// # Errors
/// When the fleet was never started.
pub async fn check(target: &Target, format: &Format) -> anyhow::Result<bool> {
    let mut checks = Checks::default();
    if target.api.is_none() {
        checks.fleet_file(target);
    }
    for asked in target.asked()? {
        if let Some(plan) = &asked.plan {
            checks.manifests(plan);
            checks.gateways(plan).await;
        }
        checks.control_plane(&asked).await;
    }
    let all_good = checks.done.iter().all(|check| check.verdict != Verdict::Bad);
    format.print(&checks.done, |done| text(done))?;
    Ok(all_good)
}

#[derive(Default)]
struct Checks {
    done: Vec<Check>,
}

impl Checks {
    fn add(&mut self, on: &str, what: &str, verdict: Verdict, found: impl Into<String>, mend: &str) {
        let mend = if verdict == Verdict::Good { String::new() } else { mend.to_owned() };
        self.done.push(Check { on: on.to_owned(), what: what.to_owned(), verdict, found: found.into(), mend });
    }

    fn fleet_file(&mut self, target: &Target) {
        match read_fleet(&target.fleet) {
            Ok(fleet) => {
                self.add(
                    "fleet",
                    "fleet.yaml is valid",
                    Verdict::Good,
                    format!("{} clusters", fleet.clusters.len()),
                    "",
                );
            }
            Err(error) => self.add(
                "fleet",
                "fleet.yaml is valid",
                Verdict::Bad,
                format!("{error:#}"),
                "mend the faults told above",
            ),
        }
    }

    fn manifests(&mut self, plan: &ClusterPlan) {
        let (objects, faults) = read_manifests(&plan.manifests);
        let errors = faults.iter().filter(|fault| fault.is_error()).count();
        let (verdict, found) = match (errors, faults.len()) {
            (0, 0) => (Verdict::Good, format!("{} objects", objects.len())),
            (0, warnings) => (Verdict::Warning, format!("{warnings} warnings")),
            (errors, _) => (Verdict::Bad, format!("{errors} errors")),
        };
        self.add(
            plan.name.as_str(),
            "manifests are readable",
            verdict,
            found,
            "`veer status` tells each fault with its place",
        );
    }

    async fn gateways(&mut self, plan: &ClusterPlan) {
        for gateway in &plan.gateways {
            let connect = TcpStream::connect((gateway.address, GATEWAY_PORT));
            let (verdict, found) = match tokio::time::timeout(CONNECT, connect).await {
                Ok(Ok(_)) => (Verdict::Good, gateway.address.to_string()),
                Ok(Err(error)) => (Verdict::Bad, format!("{}: {error}", gateway.address)),
                Err(_) => (Verdict::Bad, format!("{} does not answer", gateway.address)),
            };
            let what = format!("{} takes connections", gateway.name);
            let mend = format!("see {}/{}.log", plan.logs().display(), gateway.name);
            self.add(plan.name.as_str(), &what, verdict, found, &mend);
        }
    }

    async fn control_plane(&mut self, asked: &Asked) {
        let on = &asked.name;
        let status = match api::get_json::<Status>(asked.api, "/v1/status").await {
            Ok(status) => status,
            Err(error) => {
                let mend = "proxies keep serving what they know; see control.log in the cluster's logs";
                self.add(on, "the control plane answers", Verdict::Bad, format!("{error:#}"), mend);
                return;
            }
        };
        let good = |ok: bool| if ok { Verdict::Good } else { Verdict::Bad };
        self.add(
            on,
            "the control plane is ready",
            good(status.ready),
            format!("generation {}", status.generation),
            "it has not read its manifests completely; see `veer status`",
        );
        let state_good = if status.state_faults.is_empty() { Verdict::Good } else { Verdict::Warning };
        self.add(
            on,
            "its state was whole at start",
            state_good,
            status.state_faults.join("; "),
            "restore the state folder, or accept what was made anew",
        );
        let left = status.certificate_seconds_left;
        self.add(
            on,
            "its certificate is fresh",
            good(left > CERTIFICATE_LEFT),
            format!("{} left", age(left)),
            "restart the control plane and look at its log",
        );
        let held = status.source.held.len();
        self.add(
            on,
            "no loss is waiting to be confirmed",
            if held == 0 { Verdict::Good } else { Verdict::Warning },
            format!("{held} objects kept"),
            "restore the manifests, or `veer confirm`",
        );
        for peer in &status.peers {
            let verdict = match peer.state {
                PeerState::Fresh => Verdict::Good,
                PeerState::Silent => Verdict::Warning,
                PeerState::Unknown | PeerState::Gone => Verdict::Bad,
            };
            let heard = peer.age_seconds.map_or("never heard".to_owned(), |s| format!("heard {} ago", age(s)));
            let why = peer.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
            let what = format!("the link with {} is alive", peer.cluster);
            self.add(
                on,
                &what,
                verdict,
                heard + &why,
                "check that the peer runs, that its gateways are reachable, and that it has a Link back",
            );
            if !peer.refused.is_empty() {
                let what = format!("{} stays within its Link", peer.cluster);
                self.add(
                    on,
                    &what,
                    Verdict::Warning,
                    peer.refused.join("; "),
                    "widen the Link's provides or addresses, if that is meant",
                );
            }
        }
        self.proxies(asked, &status).await;
    }

    async fn proxies(&mut self, asked: &Asked, status: &Status) {
        let proxies: Vec<ProxyStatus> = api::get_json(asked.api, "/v1/proxies").await.unwrap_or_default();
        let lost: Vec<_> = proxies.iter().filter(|p| !p.connected).map(|p| p.name.clone()).collect();
        let verdict = if lost.is_empty() { Verdict::Good } else { Verdict::Warning };
        let found = if lost.is_empty() { format!("{} connected", proxies.len()) } else { lost.join(", ") };
        self.add(
            &asked.name,
            "every proxy and gateway is connected",
            verdict,
            found,
            "they keep serving what they know; see their logs",
        );
        let refusing = status.proxies.refusing;
        let verdict = if refusing == 0 { Verdict::Good } else { Verdict::Warning };
        let mend = "versions may differ too much; their logs tell what they refuse";
        self.add(&asked.name, "every proxy takes its configuration", verdict, format!("{refusing} refuse"), mend);
    }
}

fn text(checks: &[Check]) -> String {
    let mut out = String::new();
    let mut on = "";
    for check in checks {
        if check.on != on {
            on = &check.on;
            out += &format!("{}{on}{:#}\n", Style::new().bold(), Style::new().bold());
        }
        let (style, mark) = match check.verdict {
            Verdict::Good => (AnsiColor::Green.on_default(), "ok  "),
            Verdict::Warning => (AnsiColor::Yellow.on_default(), "warn"),
            Verdict::Bad => (AnsiColor::Red.on_default(), "FAIL"),
        };
        out += &format!("  {style}{mark}{style:#} {}", check.what);
        if !check.found.is_empty() {
            out += &format!(" ({})", check.found);
        }
        out.push('\n');
        if !check.mend.is_empty() {
            out += &format!("       {}\n", check.mend);
        }
    }
    out
}
