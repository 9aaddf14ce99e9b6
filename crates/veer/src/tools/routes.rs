//! `veer routes`: the rules and policies in force, and who wrote them.

use std::collections::HashMap;

use serde::Serialize;
use veer_core::policy::TrafficPolicy;
use veer_core::route::{Backend, HttpRoute, HttpRule, RouteKind, TcpRoute};
use veer_core::{Endpoints, Service, ServiceHost};

use super::look::{Answer, ask_all};
use super::{Format, Target};
use crate::table::Table;

/// A service with the policy that its callers follow.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    service: Service,
    policy: TrafficPolicy,
}

/// Prints them; `Ok(false)` when a host was given and nothing has it.
///
/// # Errors
/// When the fleet was never started.
pub async fn routes(target: &Target, host: Option<&str>, format: &Format) -> anyhow::Result<bool> {
    let path = |what: &str| host.map_or(format!("/v1/{what}"), |host| format!("/v1/{what}?host={host}"));
    let services = ask_all::<Vec<Service>>(target, &path("routes")).await?;
    let endpoints = ask_all::<Vec<Endpoints>>(target, &path("endpoints")).await?;
    let answers: Vec<Answer<Vec<Shown>>> =
        services.into_iter().zip(endpoints).map(|(services, endpoints)| joined(services, endpoints)).collect();
    let found = answers.iter().any(|a| a.answer.as_ref().is_some_and(|services| !services.is_empty()));
    format.print(&answers, |answers| {
        let mut rows = Table::new(&["cluster", "service", "port", "route", "when", "to"]);
        for Answer { cluster, answer, error } in answers {
            if let Some(error) = error {
                rows.row([cluster.clone(), format!("no answer: {error}")]);
            }
            answer.iter().flatten().for_each(|shown| rows_of(&mut rows, cluster, shown));
        }
        if rows.is_empty() {
            return "no routes: every request goes to the service that it names\n".to_owned();
        }
        rows.to_string()
    })?;
    Ok(found || host.is_none())
}

fn joined(services: Answer<Vec<Service>>, endpoints: Answer<Vec<Endpoints>>) -> Answer<Vec<Shown>> {
    let policies = endpoints.answer.unwrap_or_default().into_iter().map(|known| (known.host, known.policy));
    let mut policies: HashMap<ServiceHost, TrafficPolicy> = policies.collect();
    let show = |service: Service| Shown { policy: policies.remove(&service.host).unwrap_or_default(), service };
    Answer {
        cluster: services.cluster,
        answer: services.answer.map(|services| services.into_iter().map(show).collect()),
        error: services.error.or(endpoints.error),
    }
}

fn rows_of(rows: &mut Table, cluster: &str, shown: &Shown) {
    let Shown { service, policy } = shown;
    let host = || [cluster.to_owned(), service.host.to_string()];
    for port in &service.ports {
        let mut add = |route: String, when: String, to: String| {
            rows.row(host().into_iter().chain([port.port.to_string(), route, when, to]));
        };
        for route in &port.http_routes {
            for rule in &route.rules {
                let when: Vec<_> = rule.matches.iter().map(ToString::to_string).collect();
                let when = if when.is_empty() { "always".to_owned() } else { when.join(" or ") };
                add(author(route), when, does(rule));
            }
        }
        for route in port.tcp_route.iter().chain(&port.consumer_tcp_routes) {
            let to = backends(&route.backends).unwrap_or_default();
            add(tcp_author(route), "every connection".to_owned(), to);
        }
        if port.http_routes.is_empty() && port.tcp_route.is_none() && port.consumer_tcp_routes.is_empty() {
            add("none".to_owned(), "always".to_owned(), "the service itself".to_owned());
        }
    }
    if !policy.by.is_empty() {
        let mut says = policy.words();
        says.extend(policy.try_timeout.map(|limit| format!("each try's head within {limit:?}")));
        says.extend(policy.faults.iter().map(|fault| told(&fault.to_string(), &fault.by)));
        rows.row(host().into_iter().chain(["all".into(), policy.by.join(", "), "policy".into(), says.join("; ")]));
    }
}

fn author(route: &HttpRoute) -> String {
    let kind = if route.kind == RouteKind::Grpc { "GRPCRoute" } else { "HTTPRoute" };
    let owner = route.owner.as_ref().map_or(String::new(), |owner| format!(" of {owner}"));
    format!("{kind} {}{owner}{}", route.name, callers(route.consumer_namespace.as_deref()))
}

fn tcp_author(route: &TcpRoute) -> String {
    let owner = route.owner.as_ref().map_or(String::new(), |owner| format!(" of {owner}"));
    format!("TCPRoute {}{owner}{}", route.name, callers(route.consumer_namespace.as_deref()))
}

fn callers(namespace: Option<&str>) -> String {
    namespace.map_or(String::new(), |namespace| format!(" for callers of {namespace}"))
}

/// What a rule does, in its words and in those of a policy for its route.
fn does(rule: &HttpRule) -> String {
    let mut does: Vec<String> = rule.filters.iter().map(ToString::to_string).collect();
    does.extend(backends(&rule.backends));
    does.extend(rule.timeouts.request.map(|limit| format!("within {limit:?}")));
    does.extend(rule.timeouts.backend_request.map(|limit| format!("each try within {limit:?}")));
    does.extend(rule.session.as_ref().map(ToString::to_string));
    if let Some(retry) = &rule.retry {
        does.push(format!("retry {:?} × {}", retry.codes, retry.attempts.unwrap_or(2)));
    }
    does.extend(rule.policy.iter().flat_map(|policy| policy.words()));
    does.join("; ")
}

fn told(what: &str, by: &str) -> String {
    if by.is_empty() { what.to_owned() } else { format!("{what} by {by}") }
}

fn backends(backends: &[Backend]) -> Option<String> {
    let total: u32 = backends.iter().map(|backend| backend.weight).sum();
    let part = |backend: &Backend| {
        let share = f64::from(backend.weight) * 100.0 / f64::from(total.max(1));
        let wrong = backend.invalid.as_ref().map_or(String::new(), |why| format!(" (500: {why})"));
        let filters: Vec<_> = backend.filters.iter().map(ToString::to_string).collect();
        let filters = if filters.is_empty() { String::new() } else { format!(" {{{}}}", filters.join("; ")) };
        format!("{share:.0} % {}:{}{wrong}{filters}", backend.host, backend.port)
    };
    (!backends.is_empty()).then(|| backends.iter().map(part).collect::<Vec<_>>().join(", "))
}
