//! `veer explain request` for people: one step after the other, what acts beside where it is written.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use veer_proxy::explain::{ActingBackend, OwnAnswer, ServingCluster};

use super::explain::{Explained, rule_name};

const HEAD: Style = Style::new().bold();
const BAD: Style = AnsiColor::Red.on_default();

/// The text.
pub fn text(told: &Explained) -> String {
    let mut out = String::new();
    let request = &told.request;
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{HEAD}{} http://{}{}{HEAD:#} from {} in {}{}",
        request.method,
        request.authority,
        request.target,
        told.from,
        told.cluster,
        if told.live { ", as its proxy sees it now" } else { "" }
    );
    if let Some(service) = &told.explanation.service {
        let protocol = format!("{:?}", service.protocol).to_lowercase();
        line(&mut out, "service", &format!("{} port {} ({protocol})", service.host, service.port));
    }
    rule(&mut out, told);
    if let Some(answer) = &told.explanation.answer {
        answered(&mut out, "answer", answer);
    }
    for backend in &told.explanation.backends {
        to(&mut out, told, backend);
    }
    if let Some(mend) = &told.mend {
        line(&mut out, "mend", mend);
    }
    out
}

fn line(out: &mut String, head: &str, text: &str) {
    let _ = writeln!(out, "{head:<10}{text}");
}

/// Where a cluster's manifests say it.
fn at(told: &Explained, cluster: &str, what: &str) -> String {
    let place = told.written.iter().find(|written| written.what == what && written.cluster == cluster);
    place.map_or(String::new(), |written| format!("  {}", written.at))
}

fn rule(out: &mut String, told: &Explained) {
    let Some(rule) = &told.explanation.rule else {
        if told.explanation.answer.is_none() {
            line(out, "rule", "none: requests go to the service itself");
        }
        return;
    };
    let what = rule_name(rule);
    let name = rule.name.as_ref().map_or_else(|| format!("rule {}", rule.index), |name| format!("rule {name}"));
    let owner = rule.owner.as_ref().map_or(String::new(), |owner| format!(", came with the export of {owner}"));
    let callers = rule.callers.as_ref().map_or(String::new(), |callers| format!(", for callers of {callers} alone"));
    line(
        out,
        "rule",
        &format!(
            "{what} {name}{owner}{callers}{}",
            at(told, rule.owner.as_ref().map_or(told.cluster.as_str(), |owner| owner.as_str()), &what)
        ),
    );
    let when = if rule.matches.is_empty() { "always".to_owned() } else { rule.matches.join(" or ") };
    line(out, "  when", &when);
    rule.filters.iter().for_each(|filter| line(out, "  does", filter));
}

fn answered(out: &mut String, head: &str, answer: &OwnAnswer) {
    let style = if answer.status >= 400 { BAD } else { HEAD };
    line(
        out,
        head,
        &format!("{style}{}{style:#} by the proxy itself ({}): {}", answer.status, answer.flag, answer.why),
    );
}

fn to(out: &mut String, told: &Explained, backend: &ActingBackend) {
    line(out, "to", &format!("{HEAD}{}:{}{HEAD:#} {:.0} % of requests", backend.host, backend.port, backend.share));
    if let Some(answer) = &backend.answer {
        answered(out, "  answer", answer);
    }
    if let Some(sent) = &backend.sent {
        line(out, "  sent as", &format!("{} http://{}{}", sent.method, sent.authority, sent.target));
    }
    backend.changes.iter().for_each(|change| line(out, "  field", change));
    backend.limits.iter().for_each(|limit| line(out, "  limit", limit));
    match &backend.policy_by[..] {
        [] if backend.policy.is_empty() => {}
        [] => line(out, "  policy", "nobody wrote one: defaults"),
        by => by.iter().for_each(|by| {
            let (what, owner) = by.split_once(" of ").unwrap_or((by, &told.cluster));
            line(out, "  policy", &format!("{by}{}", at(told, owner, what)));
        }),
    }
    backend.policy.iter().for_each(|says| line(out, "", &format!("  {says}")));
    if let Some(copy) = &backend.led_to {
        line(out, "  led to", &format!("{copy}, by the request's key"));
    }
    backend.clusters.iter().for_each(|cluster| serving(out, told, cluster));
}

fn serving(out: &mut String, told: &Explained, cluster: &ServingCluster) {
    line(out, "  copies", &format!("in {}: {:.0} % ({})", cluster.cluster, cluster.share, cluster.why));
    // What a gateway picks by itself is a copy that stands here already.
    for copy in cluster.endpoints.iter().filter(|copy| &*copy.workload.name != "*" || copy.share > 0.0) {
        let port = copy.port.map_or_else(|| "no such port".to_owned(), |port| port.to_string());
        let zone = if copy.zone.is_empty() { String::new() } else { format!(" zone {}", copy.zone) };
        let admits = copy.admits.as_ref().map_or(String::new(), |admission| {
            let style = if admission.admitted { Style::new() } else { BAD };
            let place = admission
                .policy
                .as_ref()
                .map_or(String::new(), |p| at(told, cluster.cluster.as_str(), &format!("AuthorizationPolicy {p}")));
            format!("; {style}{}{style:#}{place}", admission.why)
        });
        let text =
            format!("  {:.0} % {} {}:{port}{zone}: {}{admits}", copy.share, copy.workload, copy.address, copy.why);
        line(out, "", &text);
        let limits = copy.admits.iter().flat_map(|admission| &admission.limits);
        limits.for_each(|limit| line(out, "", &format!("       takes {limit}")));
    }
}
