//! Meaning of Veer's own kinds.

use std::net::IpAddr;
use std::time::Duration;

use veer_core::inbound::MESH_PORT;
use veer_core::{SpiffeId, TrustDomain};

use super::{Check, grammar, labels, route};
use crate::node::clip;
use crate::object::KindName;
use crate::types::*;

/// Ports that a workload's proxy listens on: outbound, mutual TLS, admin.
const PROXY_PORTS: [u16; 3] = [15001, MESH_PORT, 15020];

pub(super) fn workload(check: &mut Check<'_>, spec: &WorkloadSpec) {
    unicast(check, "spec.address", spec.address);
    let account = &spec.service_account;
    check.text("V0018", "spec.serviceAccount", account, grammar::subdomain(account), "write a name like \"cart\"");
    if spec.replicas > 1 {
        let reason = format!("{} is neither 0 nor 1: a Workload is one process", spec.replicas);
        check.error("V0013", "spec.replicas", &reason, "write one Workload for each copy");
    }
    if spec.capacity == Some(0) {
        check.error(
            "V0013",
            "spec.capacity",
            "0 bears nothing",
            "write the requests at once that it bears, or remove it",
        );
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{index}].{field}");
        if let Some(name) = &port.name {
            check.label(&at("name"), name);
        }
        for (field, number) in [("port", Some(port.port)), ("appPort", port.app_port)] {
            if number.is_some_and(|number| PROXY_PORTS.contains(&number)) {
                let reason = format!("{} is a port of the workload's proxy", number.unwrap_or_default());
                check.error("V0039", &at(field), &reason, "use another port than 15001, 15008 and 15020");
            }
        }
        check.app_protocol(&at("appProtocol"), port.app_protocol.as_ref());
    }
    check.distinct("spec.ports", "name", spec.ports.iter().map(|p| p.name.as_ref()));
    check.distinct("spec.ports", "port", spec.ports.iter().map(|p| Some(p.port)));
    let Some(run) = &spec.run else { return };
    if run.command.first().is_none_or(|program| program.is_empty()) {
        check.error("V0011", "spec.run.command", "names no program", "write [\"./cart\", \"--port\", \"8080\"]");
    }
    for (index, variable) in run.env.iter().enumerate() {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            let reason = format!("{:?} is not a name of a variable", clip(&variable.name));
            check.error("V0018", &format!("spec.run.env[{index}].name"), &reason, "write a name like LOG_LEVEL");
        }
    }
}

fn unicast(check: &mut Check<'_>, path: &str, address: IpAddr) {
    if address.is_unspecified() || address.is_multicast() {
        let reason = format!("{address} is not the address of one machine");
        check.error("V0014", path, &reason, "write the address that others reach it by");
    }
}

pub(super) fn link(check: &mut Check<'_>, spec: &LinkSpec) {
    let certificates = |marker: &str| spec.bundle.matches(marker).count();
    let begun = certificates("-----BEGIN CERTIFICATE-----");
    if begun == 0 || begun != certificates("-----END CERTIFICATE-----") {
        let reason = "holds no whole PEM certificate";
        check.error("V0033", "spec.bundle", reason, "paste the peer's bundle after \"bundle: |\"");
    }
    if spec.bundle.contains("PRIVATE KEY") {
        let reason = "holds a private key; a bundle is public and is handed on";
        check.error("V0033", "spec.bundle", reason, "paste certificates only, and treat that key as stolen");
    }
    if spec.lease.is_zero() {
        check.error("V0015", "spec.lease", "a lease cannot be zero", "write a duration like 10s");
    }
    for (index, gateway) in spec.gateways.iter().enumerate() {
        let path = format!("spec.gateways[{index}].address");
        let address = gateway.address.0.ip();
        unicast(check, &path, address);
        if !spec.allows(address) {
            let reason = format!("{address} lies outside of spec.addresses, which the peer may hand out");
            check.error("V0044", &path, &reason, "add its range to spec.addresses");
        }
    }
    check.distinct("spec.gateways", "name", spec.gateways.iter().map(|g| Some(&g.name)));
    check.distinct("spec.gateways", "address", spec.gateways.iter().map(|g| Some(g.address.0)));
    if check.is_empty("spec.gateways", &spec.gateways) {
        check.warning("V0037", "spec", "without gateways the peer cannot be dialled", "add gateways");
    }
    if spec.network == LinkNetwork::Flat && check.is_empty("spec.addresses", &spec.addresses) {
        let reason = "on a flat network the peer hands out addresses of workloads, and none are allowed";
        check.warning("V0044", "spec.network", reason, "add the ranges of its workloads to spec.addresses");
    }
    if check.is_empty("spec.provides", &spec.provides) {
        let reason = "the peer may provide nothing";
        check.warning("V0034", "spec", reason, "add provides: [\"*/*\"], or the services that are wanted");
    }
}

pub(super) fn backend_traffic(check: &mut Check<'_>, spec: &BackendTrafficPolicySpec) {
    for (index, target) in spec.target_refs.iter().enumerate().filter(|(_, target)| target.target().is_none()) {
        let reason = format!("{:?} cannot have an XBackendTrafficPolicy", clip(&target.kind));
        let path = format!("spec.targetRefs[{index}].kind");
        check.error("V0042", &path, &reason, "write group and kind of a Service or a ServiceImport");
    }
    if let Some(constraint) = &spec.retry_constraint {
        if constraint.budget.percent.is_some_and(|percent| percent > 100) {
            let path = "spec.retryConstraint.budget.percent";
            check.error("V0013", path, "is more than 100", "write a number from 0 to 100");
        }
        for (path, time, least) in [
            ("spec.retryConstraint.budget.interval", constraint.budget.interval, Duration::from_secs(1)),
            (
                "spec.retryConstraint.minRetryRate.interval",
                constraint.min_retry_rate.interval,
                Duration::from_millis(1),
            ),
        ] {
            if time.is_some_and(|time| time < least || time > Duration::from_secs(3600)) {
                check.error("V0015", path, "is too short, or longer than an hour", "write a duration like 10s");
            }
        }
    }
    if let Some(session) = &spec.session_persistence {
        super::route::session_persistence(check, "spec.sessionPersistence", session);
    }
}

pub(super) fn traffic(check: &mut Check<'_>, meta: &ObjectMeta, spec: &TrafficPolicySpec) {
    let target = &spec.target_ref;
    match target.policed() {
        None => {
            let reason = format!("{:?} cannot have a TrafficPolicy", clip(&target.kind));
            let mend = "write kind: Service, ServiceImport, Namespace, HTTPRoute or GRPCRoute";
            check.error("V0042", "spec.targetRef.kind", &reason, mend);
        }
        Some(KindName::Namespace) if target.name != meta.namespace => {
            let reason = format!("{:?} is another namespace than the policy's own", clip(&target.name));
            let mend = format!("write {}, or put the policy into that namespace", meta.namespace);
            check.error("V0042", "spec.targetRef.name", &reason, &mend);
        }
        Some(_) => {}
    }
    let (outlier, budget, locality) = (&spec.outlier, &spec.retry_budget, &spec.locality);
    for (path, share) in [
        ("spec.outlier.failureRatio", outlier.failure_ratio),
        ("spec.outlier.maxEjectedRatio", outlier.max_ejected_ratio),
        ("spec.retryBudget.ratio", budget.ratio),
        ("spec.locality.targetUtilisation", locality.target_utilisation),
    ] {
        if share.is_some_and(|share| share > 1.0) {
            check.error("V0035", path, "is a share and at most 1", "write a number from 0 to 1");
        }
    }
    if locality.overprovisioning.is_some_and(|factor| factor < 1.0) {
        check.error("V0035", "spec.locality.overprovisioning", "is a factor of at least 1", "write a number like 1.4");
    }
    if locality.target_utilisation == Some(0.0) {
        check.error("V0035", "spec.locality.targetUtilisation", "cannot be 0", "write a number like 0.8");
    }
    for (path, duration) in [
        ("spec.outlier.interval", outlier.interval),
        ("spec.outlier.baseEjection", outlier.base_ejection),
        ("spec.retryBudget.interval", budget.interval),
    ] {
        if duration == Some(Duration::ZERO) {
            check.error("V0015", path, "cannot be zero", "write a duration like 5s");
        }
    }
    let default = veer_core::policy::TrafficPolicy::default();
    let base = outlier.base_ejection.unwrap_or(default.outlier.base_ejection);
    if base > outlier.max_ejection.unwrap_or(default.outlier.max_ejection) {
        let path =
            if outlier.base_ejection.is_some() { "spec.outlier.baseEjection" } else { "spec.outlier.maxEjection" };
        check.error(
            "V0038",
            path,
            "the first ejection is longer than the longest",
            "make baseEjection at most maxEjection",
        );
    }
    if let Some(hash) = &spec.consistent_hash {
        consistent_hash(check, hash);
    }
    if let Some(adaptive) = &spec.circuit_breaker.adaptive {
        let at = "spec.circuitBreaker.adaptive";
        if adaptive.latency.is_zero() {
            check.error("V0015", &format!("{at}.latency"), "cannot be zero", "write a duration like 100ms");
        }
        let most = spec.circuit_breaker.max_requests.unwrap_or(default.circuit_breaker.max_requests);
        if most < adaptive.min_requests.unwrap_or(4) {
            let reason = "is more than maxRequests";
            check.error("V0038", &format!("{at}.minRequests"), reason, "make minRequests at most maxRequests");
        }
    }
    rate_limits(check, spec);
    super::fault::faults(check, "spec.faults", &spec.faults);
    check.distinct("spec.locality.weights", "cluster", locality.weights.iter().map(|w| Some(&w.cluster)));
    if !locality.weights.is_empty() && locality.weights.iter().all(|w| w.weight == 0) {
        let reason = "all weights are 0: no cluster serves";
        check.warning("V0024", "spec.locality.weights", reason, "give one of them a weight");
    }
}

fn rate_limits(check: &mut Check<'_>, spec: &TrafficPolicySpec) {
    if !spec.rate_limits.is_empty() && spec.target_ref.target() == Some(TargetKind::ServiceImport) {
        let reason = "without effect: the callee's proxies enforce limits, and a ServiceImport has none of its own";
        check.warning("V0037", "spec.rateLimits", reason, "write them for the Service, in its own cluster");
    }
    for (index, limit) in spec.rate_limits.iter().enumerate() {
        let at = |field: &str| format!("spec.rateLimits[{index}].{field}");
        if limit.interval.is_some_and(|time| time < Duration::from_millis(1) || time > Duration::from_secs(86_400)) {
            let reason = "is shorter than 1ms, or longer than a day";
            check.error("V0015", &at("interval"), reason, "write a duration like 1s");
        }
        if limit.burst == Some(0) {
            check.error("V0013", &at("burst"), "0 lets nothing pass", "write the requests that may come at once");
        }
    }
}

fn consistent_hash(check: &mut Check<'_>, hash: &ConsistentHashSpec) {
    let at = |field: &str| format!("spec.consistentHash.{field}");
    match hash.keys() {
        1 => {}
        0 => check.error("V0011", "spec.consistentHash", "names no key", "add header, cookie or sourceAddress: true"),
        _ => check.error(
            "V0038",
            "spec.consistentHash",
            "names several keys",
            "keep one of header, cookie, sourceAddress",
        ),
    }
    for (field, name) in [("header", &hash.header), ("cookie", &hash.cookie)] {
        if let Some(name) = name {
            check.text("V0021", &at(field), name, grammar::token(name), "write a name like x-user");
        }
    }
}

pub(super) fn authorization(check: &mut Check<'_>, spec: &AuthorizationPolicySpec) {
    use veer_core::policy::AuthorizationAction::Deny;
    if let Some(selector) = &spec.selector {
        labels(check, "spec.selector.matchLabels", &selector.match_labels);
    }
    if spec.action == Deny && check.is_empty("spec.rules", &spec.rules) {
        check.warning(
            "V0037",
            "spec",
            "a DENY policy without rules denies nobody",
            "add rules: [{}] to deny everybody",
        );
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        let base = format!("spec.rules[{index}]");
        not_empty(check, &format!("{base}.from"), &rule.from);
        not_empty(check, &format!("{base}.to"), &rule.to);
        for (at, caller) in rule.from.iter().enumerate() {
            let base = format!("{base}.from[{at}]");
            not_empty(check, &format!("{base}.principals"), &caller.principals);
            not_empty(check, &format!("{base}.namespaces"), &caller.namespaces);
            not_empty(check, &format!("{base}.trustDomains"), &caller.trust_domains);
            for (at, principal) in caller.principals.iter().enumerate() {
                principal_pattern(check, &format!("{base}.principals[{at}]"), principal);
            }
            for (at, namespace) in caller.namespaces.iter().enumerate() {
                check.label(&format!("{base}.namespaces[{at}]"), namespace);
            }
            for (at, domain) in caller.trust_domains.iter().enumerate() {
                let checked = TrustDomain::new(domain).map(drop).map_err(|error| error.reason.to_owned());
                let path = format!("{base}.trustDomains[{at}]");
                check.text("V0031", &path, domain, checked, "write a name like west.example");
            }
        }
        for (at, request) in rule.to.iter().enumerate() {
            let base = format!("{base}.to[{at}]");
            not_empty(check, &format!("{base}.ports"), &request.ports);
            not_empty(check, &format!("{base}.methods"), &request.methods);
            not_empty(check, &format!("{base}.paths"), &request.paths);
            for (at, method) in request.methods.iter().enumerate() {
                route::http_method(check, &format!("{base}.methods[{at}]"), method);
            }
            for (at, path) in request.paths.iter().enumerate() {
                path_pattern(check, &format!("{base}.paths[{at}]"), path);
            }
        }
    }
}

/// An empty list restricts nothing, and whoever wrote one hardly meant that.
fn not_empty<T>(check: &mut Check<'_>, path: &str, list: &[T]) {
    if check.is_empty(path, list) && check.is_written(path) {
        let reason = "an empty list does not restrict anything";
        check.error("V0032", path, reason, "remove the field to mean everybody, or fill it");
    }
}

fn principal_pattern(check: &mut Check<'_>, path: &str, text: &str) {
    let mend = "write spiffe://<trust domain>/ns/<namespace>/sa/<service account>; only the end may be *";
    let checked = match text.strip_suffix('*') {
        None => text.parse::<SpiffeId>().map(drop).map_err(|error| error.reason.to_owned()),
        Some("") => Ok(()),
        Some(start) if start.contains('*') => Err("has a * before its end".to_owned()),
        // A pattern that ends inside of the trust domain would take in west.example.evil.com.
        Some(start) => match start.strip_prefix("spiffe://") {
            Some(rest) if rest.contains('/') => Ok(()),
            _ => Err("must name a whole trust domain before the *".to_owned()),
        },
    };
    check.text("V0031", path, text, checked, mend);
}

fn path_pattern(check: &mut Check<'_>, path: &str, text: &str) {
    let checked = match text.strip_suffix('*') {
        Some("") => Ok(()),
        Some(start) if start.contains('*') => Err("has a * before its end".to_owned()),
        Some(start) => grammar::path(start),
        None if text.contains('*') => Err("has a * before its end".to_owned()),
        None => grammar::path(text),
    };
    check.text("V0022", path, text, checked, "write a path like /cart or /cart/*");
}
