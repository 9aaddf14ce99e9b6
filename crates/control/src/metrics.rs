//! The control plane's own metrics, made when they are asked for from the state itself: nothing is counted twice.

use std::fmt::Write as _;

use hyper::StatusCode;

use crate::answers;
use crate::api::Status;
use crate::http::ApiResponse;
use crate::lease::PeerState;
use crate::plane::Plane;

/// Prometheus text format 0.0.4.
pub(crate) fn render(plane: &Plane) -> ApiResponse {
    let status = answers::status(plane);
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ApiResponse { content_type, ..ApiResponse::text(StatusCode::OK, text(&status)) }
}

fn text(status: &Status) -> String {
    let mut out = String::new();
    let cluster = status.cluster.as_str();
    let mut one = |name: &str, help: &str, value: f64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{cluster=\"{cluster}\"}} {value}");
    };
    one("veer_control_ready", "Whether the manifests were read completely once.", f64::from(u8::from(status.ready)));
    one("veer_config_generation", "Generation of what is served.", status.generation as f64);
    one("veer_config_age_seconds", "Age of that generation.", status.generation_age_seconds);
    one("veer_control_uptime_seconds", "Time since the start.", status.uptime_seconds);
    one("veer_control_services", "Services known.", status.services as f64);
    one("veer_control_workloads", "Workloads of this cluster.", status.workloads as f64);
    one("veer_control_objects", "Objects of manifests in force.", status.source.objects as f64);
    one("veer_control_held_objects", "Objects whose loss waits for confirmation.", status.source.held.len() as f64);
    one("veer_control_proxies_connected", "Proxies and gateways with a session.", status.proxies.connected as f64);
    one("veer_control_proxies_refusing", "Connected and refusing something.", status.proxies.refusing as f64);
    one(
        "veer_control_certificate_seconds_left",
        "Rest of the own certificate's life.",
        status.certificate_seconds_left,
    );
    let faults = |severity: &str| status.faults.iter().filter(|fault| fault.severity == severity).count() as f64;
    family(
        &mut out,
        "veer_control_faults",
        "Faults in manifests.",
        ["error", "warning"].map(|s| (format!("severity=\"{s}\""), faults(s))),
    );
    let peers = |value: fn(&crate::api::PeerStatus) -> Option<f64>| {
        status.peers.iter().filter_map(move |peer| Some((format!("peer=\"{}\"", peer.cluster), value(peer)?)))
    };
    family(&mut out, "veer_peer_age_seconds", "Time since the peer was heard.", peers(|peer| peer.age_seconds));
    let fresh = |peer: &crate::api::PeerStatus| Some(f64::from(u8::from(peer.state == PeerState::Fresh)));
    family(&mut out, "veer_peer_fresh", "Whether the peer's lease holds.", peers(fresh));
    family(
        &mut out,
        "veer_peer_connected",
        "Whether a session stands.",
        peers(|peer| Some(f64::from(u8::from(peer.connected)))),
    );
    family(&mut out, "veer_peer_offers", "Services taken from the peer.", peers(|peer| Some(peer.offers as f64)));
    family(
        &mut out,
        "veer_peer_refused",
        "What the peer offered beyond its Link.",
        peers(|peer| Some(peer.refused.len() as f64)),
    );
    out
}

/// Label values here are DNS labels and fixed words: nothing needs escaping.
fn family(out: &mut String, name: &str, help: &str, series: impl IntoIterator<Item = (String, f64)>) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
    for (labels, value) in series {
        let _ = writeln!(out, "{name}{{{labels}}} {value}");
    }
}
