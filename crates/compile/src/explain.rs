//! Questions that people ask of a meaning.

use std::fmt::Write;

use serde::Serialize;
use veer_core::policy::DEFAULT_RETRY_ATTEMPTS;
use veer_core::route::{Filter, HttpRoute, HttpRule, RouteKind, TcpRoute};
use veer_core::{AppProtocol, Service, ServicePort};

use crate::meaning::Meaning;

/// One rule that acts on one port, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteLine {
    /// Port of the service.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: AppProtocol,
    /// Namespace of the callers it is for; `None`: all (who have no routes of their own).
    pub callers: Option<String>,
    /// When it acts.
    pub when: String,
    /// What it does to requests beside sending them on; empty when nothing.
    pub filters: Vec<String>,
    /// Where they go.
    pub to: Vec<String>,
    /// Limits and retries, when written.
    pub limits: Vec<String>,
    /// Who said so: an object, with the peer that it came from if it is not of this cluster; `None`: nobody, the default.
    pub by: Option<String>,
}

/// The rules that act on a service, by its host or a virtual address, as they stand in the configuration: by port, producer
/// routes before consumer routes, older routes first, rules as written. Which of several matching rules wins is decided by the
/// precedence of the Gateway API (the most specific match), not by this order. `None`: there is no such service.
pub fn explain_routes(meaning: &Meaning, name: &str) -> Option<Vec<RouteLine>> {
    let service = meaning.services.get(name)?;
    Some(service.ports.iter().flat_map(|port| port_lines(service, port)).collect())
}

fn port_lines(service: &Service, port: &ServicePort) -> Vec<RouteLine> {
    let mut lines: Vec<RouteLine> = Vec::new();
    for route in &port.http_routes {
        lines.extend(route.rules.iter().map(|rule| http_line(port, route, rule)));
    }
    lines.extend(port.tcp_route.iter().chain(&port.consumer_tcp_routes).map(|route| tcp_line(port, route)));
    let for_all = lines.iter().any(|line| line.callers.is_none());
    if !for_all {
        lines.insert(0, line(port, None, vec![format!("{}:{}", service.host, port.port)], None));
    }
    lines
}

fn line(port: &ServicePort, callers: Option<String>, to: Vec<String>, by: Option<String>) -> RouteLine {
    RouteLine {
        port: port.port,
        protocol: port.protocol,
        callers,
        when: "always".into(),
        filters: Vec::new(),
        to,
        limits: Vec::new(),
        by,
    }
}

fn tcp_line(port: &ServicePort, route: &TcpRoute) -> RouteLine {
    let callers = route.consumer_namespace.as_ref().map(ToString::to_string);
    line(
        port,
        callers,
        route.backends.iter().map(ToString::to_string).collect(),
        Some(match &route.owner {
            Some(owner) => format!("TCPRoute {} of {owner}", route.name),
            None => format!("TCPRoute {}", route.name),
        }),
    )
}

fn http_line(port: &ServicePort, route: &HttpRoute, rule: &HttpRule) -> RouteLine {
    let kind = if route.kind == RouteKind::Grpc { "GRPCRoute" } else { "HTTPRoute" };
    let mut by = format!("{kind} {}", route.name);
    if let Some(rule) = &rule.name {
        let _ = write!(by, " rule {rule}");
    }
    if let Some(owner) = &route.owner {
        let _ = write!(by, " of {owner}");
    }
    let callers = route.consumer_namespace.as_ref().map(ToString::to_string);
    let answered =
        rule.filters.iter().any(|f| matches!(f, Filter::Fail { .. } | Filter::Redirect { .. } | Filter::Unknown(_)));
    let to = match &rule.backends[..] {
        [] if answered => Vec::new(),
        [] => vec!["500: no backends".to_owned()],
        backends => backends.iter().map(ToString::to_string).collect(),
    };
    let mut line = line(port, callers, to, Some(by));
    if !rule.matches.is_empty() {
        line.when = rule.matches.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    }
    line.filters = rule.filters.iter().map(ToString::to_string).collect();
    let limit = |what: &str, limit: Option<std::time::Duration>| {
        limit.filter(|limit| !limit.is_zero()).map(|limit| format!("{what} within {limit:?}"))
    };
    line.limits.extend(limit("request", rule.timeouts.request));
    line.limits.extend(limit("each try", rule.timeouts.backend_request));
    if let Some(retry) = &rule.retry {
        let codes: Vec<String> = retry.codes.iter().map(ToString::to_string).collect();
        let attempts = retry.attempts.unwrap_or(DEFAULT_RETRY_ATTEMPTS);
        line.limits.push(format!("{attempts} retries on {}", codes.join(", ")));
    }
    line.limits.extend(rule.session.as_ref().map(ToString::to_string));
    line.limits.extend(rule.policy.iter().flat_map(|policy| policy.words()));
    line
}
