//! Meaning of routes and of grants.

use std::collections::HashSet;
use std::time::Duration;

use super::{Check, grammar};
use crate::node::clip;
use crate::suggest::nearest;
use crate::types::*;

/// Largest weight of a backend (Gateway API).
const MAX_WEIGHT: u32 = 1_000_000;
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

pub(super) fn http(check: &mut Check<'_>, spec: &HttpRouteSpec) {
    parents(check, &spec.parent_refs, &spec.hostnames);
    bounded(check, "spec.rules", spec.rules.len(), 16);
    check.distinct("spec.rules", "name", spec.rules.iter().map(|rule| rule.name.as_ref()));
    for (index, rule) in spec.rules.iter().enumerate() {
        let base = format!("spec.rules[{index}]");
        bounded(check, &format!("{base}.matches"), rule.matches.len(), 64);
        for (at, condition) in rule.matches.iter().enumerate() {
            http_match(check, &format!("{base}.matches[{at}]"), condition);
        }
        // A prefix can be replaced only where one is matched.
        let prefixes = rule
            .matches
            .iter()
            .filter(|m| m.path.as_ref().is_none_or(|path| path.match_type == PathMatchType::PathPrefix));
        let all_prefixes = prefixes.count() == rule.matches.len();
        filters(check, &format!("{base}.filters"), &rule.filters, all_prefixes);
        let answered = rule.filters.iter().any(|f| matches!(f, RouteFilter::RequestRedirect(_)));
        backends(check, &base, &rule.backend_refs, answered, all_prefixes);
        limits(check, &base, &rule.timeouts, rule.retry.as_ref(), rule.session_persistence.as_ref());
    }
}

pub(super) fn grpc(check: &mut Check<'_>, spec: &GrpcRouteSpec) {
    parents(check, &spec.parent_refs, &spec.hostnames);
    bounded(check, "spec.rules", spec.rules.len(), 16);
    check.distinct("spec.rules", "name", spec.rules.iter().map(|rule| rule.name.as_ref()));
    for (index, rule) in spec.rules.iter().enumerate() {
        let base = format!("spec.rules[{index}]");
        bounded(check, &format!("{base}.matches"), rule.matches.len(), 64);
        for (at, condition) in rule.matches.iter().enumerate() {
            let base = format!("{base}.matches[{at}]");
            if let Some(method) = &condition.method {
                grpc_method(check, &format!("{base}.method"), method);
            }
            values(check, &format!("{base}.headers"), &condition.headers, true);
        }
        filters(check, &format!("{base}.filters"), &rule.filters, false);
        backends(check, &base, &rule.backend_refs, false, false);
        limits(check, &base, &rule.timeouts, rule.retry.as_ref(), rule.session_persistence.as_ref());
    }
}

pub(super) fn tcp(check: &mut Check<'_>, spec: &TcpRouteSpec) {
    parents(check, &spec.parent_refs, &[]);
    bounded(check, "spec.rules", spec.rules.len(), 1);
    for (index, rule) in spec.rules.iter().enumerate() {
        backends(check, &format!("spec.rules[{index}]"), &rule.backend_refs, false, false);
    }
}

pub(super) fn tls(check: &mut Check<'_>, spec: &TlsRouteSpec) {
    parents(check, &spec.parent_refs, &spec.hostnames);
    bounded(check, "spec.rules", spec.rules.len(), 1);
    if check.is_empty("spec.hostnames", &spec.hostnames) {
        check.warning("V0036", "spec.hostnames", "Kubernetes would ask for at least one", "write the server names");
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        backends(check, &format!("spec.rules[{index}]"), &rule.backend_refs, false, false);
    }
}

pub(super) fn udp(check: &mut Check<'_>, spec: &UdpRouteSpec) {
    parents(check, &spec.parent_refs, &[]);
    bounded(check, "spec.rules", spec.rules.len(), 1);
    for (index, rule) in spec.rules.iter().enumerate() {
        backends(check, &format!("spec.rules[{index}]"), &rule.backend_refs, false, false);
    }
}

pub(super) fn grant(check: &mut Check<'_>, spec: &ReferenceGrantSpec) {
    for (index, from) in spec.from.iter().enumerate() {
        check.label(&format!("spec.from[{index}].namespace"), &from.namespace);
    }
}

fn bounded(check: &mut Check<'_>, path: &str, count: usize, most: usize) {
    if count > most {
        let reason = format!("holds {count} entries; Kubernetes would take at most {most}");
        check.warning("V0036", path, &reason, "split the route");
    }
}

fn parents(check: &mut Check<'_>, refs: &[ParentRef], hostnames: &[std::sync::Arc<str>]) {
    if check.is_empty("spec.parentRefs", refs) {
        let mend = "add parentRefs: [{group: \"\", kind: Service, name: …}]";
        check.warning("V0037", "spec", "the route attaches to nothing: it has no parentRefs", mend);
    }
    for (index, parent) in refs.iter().enumerate() {
        if let Some(namespace) = &parent.namespace {
            check.label(&format!("spec.parentRefs[{index}].namespace"), namespace);
        }
        // The default group and kind are a Gateway's; whoever writes only one of the two meant a Service.
        let half = matches!(&*parent.kind, "Service" | "ServiceImport") && parent.target().is_none();
        if half {
            let group = if &*parent.kind == "Service" { "\"\"" } else { MCS_GROUP };
            let reason =
                format!("the group {:?} has no kind {}; the route does not attach", &*parent.group, parent.kind);
            check.warning("V0042", &format!("spec.parentRefs[{index}]"), &reason, &format!("add group: {group}"));
        }
    }
    for (index, host) in hostnames.iter().enumerate() {
        check.hostname(&format!("spec.hostnames[{index}]"), host);
    }
    if !hostnames.is_empty() && refs.iter().any(|parent| parent.target().is_some()) {
        let reason = "have no meaning where the parent is a Service: its own host names count";
        check.warning("V0037", "spec.hostnames", reason, "remove them, or match a header");
    }
}

fn http_match(check: &mut Check<'_>, base: &str, condition: &HttpRouteMatch) {
    if let Some(path) = &condition.path {
        let at = format!("{base}.path");
        match path.match_type {
            PathMatchType::Exact | PathMatchType::PathPrefix => check.text(
                "V0022",
                &format!("{at}.value"),
                &path.value,
                grammar::path(&path.value),
                "write a path like /cart",
            ),
            PathMatchType::RegularExpression => pattern(check, &format!("{at}.value"), &path.value),
            PathMatchType::Unknown(_) => {}
        }
    }
    if let Some(method) = &condition.method {
        http_method(check, &format!("{base}.method"), method);
    }
    values(check, &format!("{base}.headers"), &condition.headers, true);
    values(check, &format!("{base}.queryParams"), &condition.query_params, false);
}

pub(super) fn http_method(check: &mut Check<'_>, path: &str, method: &str) {
    if METHODS.contains(&method) {
        return;
    }
    let upper = method.to_ascii_uppercase();
    match METHODS.into_iter().find(|known| *known == upper).or_else(|| nearest(method, METHODS)) {
        Some(near) => {
            let reason = format!("{:?} is not a method; methods are upper case", clip(method));
            check.error("V0025", path, &reason, &format!("did you mean {near}?"));
        }
        None => {
            check.text("V0025", path, method, grammar::token(method), &format!("write one of {}", METHODS.join(", ")))
        }
    }
}

/// A text that is no pattern does not make the object unreadable: its rule fails, and the others hold.
fn pattern(check: &mut Check<'_>, path: &str, text: &str) {
    if let Err(error) = veer_core::Pattern::new(text) {
        let reason = format!("{:?} is no regular expression: {error}; the rule answers 500", clip(text));
        check.warning("V0041", path, &reason, "write one as RE2 takes it, without Unicode classes");
    }
}

fn values(check: &mut Check<'_>, list: &str, rules: &[ValueRule], headers: bool) {
    bounded(check, list, rules.len(), 16);
    let mut seen = HashSet::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("{list}[{index}]");
        check.text("V0021", &format!("{at}.name"), &rule.name, grammar::token(&rule.name), "write a name like x-user");
        if rule.match_type == ValueMatchType::RegularExpression {
            pattern(check, &format!("{at}.value"), &rule.value);
        } else if headers {
            let rule_broken = grammar::header_value(&rule.value);
            check.text("V0021", &format!("{at}.value"), &rule.value, rule_broken, "write the value as it is sent");
        }
        let name = if headers { rule.name.to_ascii_lowercase() } else { rule.name.to_string() };
        if !seen.insert(name) {
            let reason = format!("{:?} has a condition already; only the first counts (Gateway API)", clip(&rule.name));
            check.warning("V0020", &format!("{at}.name"), &reason, "remove one of them");
        }
    }
}

fn grpc_method(check: &mut Check<'_>, base: &str, method: &GrpcMethodRule) {
    let written = |text: &Option<std::sync::Arc<str>>| text.as_ref().is_some_and(|text| !text.is_empty());
    if !written(&method.service) && !written(&method.method) {
        check.error("V0011", base, "service, method or both are needed", "add service: shop.v1.Cart");
    }
    if method.match_type == ValueMatchType::RegularExpression {
        for (field, text) in [("service", &method.service), ("method", &method.method)] {
            if let Some(text) = text {
                pattern(check, &format!("{base}.{field}"), text);
            }
        }
        return;
    }
    let parts = [("service", &method.service, true), ("method", &method.method, false)];
    for (field, text, dots) in parts {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            let checked = grammar::proto_name(text, dots);
            check.text("V0043", &format!("{base}.{field}"), text, checked, "write the names of the .proto file");
        }
    }
}

fn filters(check: &mut Check<'_>, list: &str, all: &[RouteFilter], prefix_matched: bool) {
    bounded(check, list, all.len(), 16);
    let mut seen: Vec<std::mem::Discriminant<RouteFilter>> = Vec::new();
    for (index, filter) in all.iter().enumerate() {
        let at = format!("{list}[{index}]");
        match filter {
            RouteFilter::RequestHeaderModifier(change) => {
                headers(check, &format!("{at}.requestHeaderModifier"), change)
            }
            RouteFilter::ResponseHeaderModifier(change) => {
                headers(check, &format!("{at}.responseHeaderModifier"), change);
            }
            RouteFilter::RequestRedirect(to) => redirect(check, &format!("{at}.requestRedirect"), to, prefix_matched),
            RouteFilter::UrlRewrite(to) => {
                let at = format!("{at}.urlRewrite");
                if let Some(host) = &to.hostname {
                    check.hostname(&format!("{at}.hostname"), host);
                }
                if let Some(path) = &to.path {
                    path_change(check, &format!("{at}.path"), path, prefix_matched);
                }
            }
            RouteFilter::RequestMirror(to) => {
                mirror(check, &format!("{at}.requestMirror"), to);
                // Several copies of one request may go to several places.
                continue;
            }
            RouteFilter::Cors(cors) => {
                cors_filter(check, &format!("{at}.cors"), cors);
            }
            RouteFilter::ExternalAuth(auth) => external_auth(check, &format!("{at}.externalAuth"), auth),
            RouteFilter::Unsupported(_) => continue,
        }
        if seen.contains(&std::mem::discriminant(filter)) {
            check.error("V0027", &at, "a filter of the same type comes before it", "put both changes into one");
        }
        seen.push(std::mem::discriminant(filter));
    }
    let has = |wanted: fn(&RouteFilter) -> bool| all.iter().any(wanted);
    if has(|f| matches!(f, RouteFilter::RequestRedirect(_))) && has(|f| matches!(f, RouteFilter::UrlRewrite(_))) {
        check.error("V0027", list, "a rule cannot redirect and rewrite", "keep one of the two");
    }
}

fn mirror(check: &mut Check<'_>, base: &str, to: &MirrorFilter) {
    backend(check, &format!("{base}.backendRef"), &to.backend_ref, "no copies are sent");
    share(check, base, to.percent, to.fraction.as_ref());
}

/// A share of requests, by percent or by fraction.
pub(super) fn share(check: &mut Check<'_>, base: &str, percent: Option<u32>, fraction: Option<&Fraction>) {
    if percent.is_some() && fraction.is_some() {
        check.error("V0027", &format!("{base}.fraction"), "stands beside percent", "keep one of the two");
    }
    if let Some(percent) = percent.filter(|percent| *percent > 100) {
        let reason = format!("{percent} is more than 100");
        check.error("V0013", &format!("{base}.percent"), &reason, "write a number from 0 to 100");
    }
    if let Some(fraction) = fraction {
        if fraction.denominator == 0 {
            let path = format!("{base}.fraction.denominator");
            check.error("V0013", &path, "0 is not at least 1", "write a number of at least 1");
        } else if fraction.numerator > fraction.denominator {
            let reason = format!("{} is more than its denominator {}", fraction.numerator, fraction.denominator);
            check.error("V0013", &format!("{base}.fraction.numerator"), &reason, "write a part of the whole");
        }
    }
}

fn external_auth(check: &mut Check<'_>, base: &str, auth: &ExternalAuthFilter) {
    backend(check, &format!("{base}.backendRef"), &auth.backend_ref, "requests are answered with 500");
    for (field, is_there, wanted) in
        [("http", auth.http.is_some(), AuthProtocol::Http), ("grpc", auth.grpc.is_some(), AuthProtocol::Grpc)]
    {
        if is_there && auth.protocol != wanted {
            let reason = format!("belongs to the protocol {}", wanted.as_str());
            check.error("V0027", &format!("{base}.{field}"), &reason, "keep the one that is meant");
        }
    }
    let named = auth.grpc.iter().flat_map(|grpc| &grpc.allowed_headers).enumerate();
    for (index, name) in named {
        let at = format!("{base}.grpc.allowedHeaders[{index}]");
        check.text("V0021", &at, name, grammar::token(name), "write a name like x-user");
    }
    let Some(http) = &auth.http else { return };
    if let Some(path) = http.path.as_ref().filter(|path| !path.is_empty()) {
        check.text("V0022", &format!("{base}.http.path"), path, grammar::path(path), "write a path like /check");
    }
    for (field, all) in
        [("allowedHeaders", &http.allowed_headers), ("allowedResponseHeaders", &http.allowed_response_headers)]
    {
        for (index, name) in all.iter().enumerate() {
            let at = format!("{base}.http.{field}[{index}]");
            check.text("V0021", &at, name, grammar::token(name), "write a name like x-user");
        }
    }
}

fn cors_filter(check: &mut Check<'_>, base: &str, cors: &CorsFilter) {
    for (index, origin) in cors.allow_origins.iter().enumerate().filter(|(_, origin)| &***origin != "*") {
        let at = format!("{base}.allowOrigins[{index}]");
        check.text("V0026", &at, origin, grammar::origin(origin), "write *, or an origin like https://*.example.com");
    }
    for (index, method) in cors.allow_methods.iter().enumerate().filter(|(_, method)| &***method != "*") {
        http_method(check, &format!("{base}.allowMethods[{index}]"), method);
    }
    for (field, all) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        for (index, name) in all.iter().enumerate() {
            check.text(
                "V0021",
                &format!("{base}.{field}[{index}]"),
                name,
                grammar::token(name),
                "write a name like x-user",
            );
        }
    }
    for (field, all) in [
        ("allowOrigins", &cors.allow_origins),
        ("allowMethods", &cors.allow_methods),
        ("allowHeaders", &cors.allow_headers),
        ("exposeHeaders", &cors.expose_headers),
    ] {
        bounded(check, &format!("{base}.{field}"), all.len(), 64);
        if all.len() > 1 && all.iter().any(|entry| &**entry == "*") {
            let path = format!("{base}.{field}");
            check.error("V0038", &path, "holds * and more", "keep * alone, or take it out");
        }
    }
    if cors.max_age == Some(0) {
        check.error("V0013", &format!("{base}.maxAge"), "0 is not at least 1", "write seconds, or remove it for 5");
    }
}

fn headers(check: &mut Check<'_>, base: &str, change: &HeaderModifier) {
    for (field, all) in [("set", &change.set), ("add", &change.add)] {
        for (index, header) in all.iter().enumerate() {
            let at = format!("{base}.{field}[{index}]");
            header_name(check, &format!("{at}.name"), &header.name);
            let checked = grammar::header_value(&header.value);
            check.text("V0021", &format!("{at}.value"), &header.value, checked, "write the value as it is sent");
        }
    }
    for (index, name) in change.remove.iter().enumerate() {
        header_name(check, &format!("{base}.remove[{index}]"), name);
    }
}

fn header_name(check: &mut Check<'_>, path: &str, name: &str) {
    check.text("V0021", path, name, grammar::token(name), "write a name like x-user");
    // What frames a message or belongs to one connection is not a route's to change (RFC 9110 §7.6.1).
    let own = ["connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
    if own.contains(&&*name.to_ascii_lowercase()) {
        let mend = if name.eq_ignore_ascii_case("host") { "use a URLRewrite with hostname" } else { "remove it" };
        check.error("V0021", path, &format!("{name:?} is not a route's to change"), mend);
    }
}

fn redirect(check: &mut Check<'_>, base: &str, to: &RedirectFilter, prefix_matched: bool) {
    if ![301, 302, 303, 307, 308].contains(&to.status_code) {
        let reason = format!("{} is not a status of redirects", to.status_code);
        check.error("V0028", &format!("{base}.statusCode"), &reason, "write 301, 302, 303, 307 or 308");
    }
    if let Some(scheme) = to.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
        let reason = format!("{:?} is not a scheme that is redirected to", clip(scheme));
        check.error("V0017", &format!("{base}.scheme"), &reason, "write http or https");
    }
    if let Some(host) = &to.hostname {
        check.hostname(&format!("{base}.hostname"), host);
    }
    if let Some(path) = &to.path {
        path_change(check, &format!("{base}.path"), path, prefix_matched);
    }
}

fn path_change(check: &mut Check<'_>, base: &str, path: &PathModifier, prefix_matched: bool) {
    let (field, value) = match path.modifier_type {
        PathModifierType::ReplaceFullPath => ("replaceFullPath", &path.replace_full_path),
        PathModifierType::ReplacePrefixMatch => ("replacePrefixMatch", &path.replace_prefix_match),
        PathModifierType::Unknown(_) => return,
    };
    match value {
        None => check.error("V0011", base, &format!("the field {field:?} is missing"), &format!("add {field}: /…")),
        Some(text) if !text.is_empty() => {
            check.text("V0022", &format!("{base}.{field}"), text, grammar::path(text), "write a path like /cart");
        }
        Some(_) => {}
    }
    if path.modifier_type == PathModifierType::ReplacePrefixMatch && !prefix_matched {
        let reason = "a prefix can be replaced only where every match of the rule is a PathPrefix";
        check.error("V0022", &format!("{base}.type"), reason, "write ReplaceFullPath, or match by PathPrefix");
    }
}

fn backends(check: &mut Check<'_>, base: &str, refs: &[BackendRef], answered: bool, prefix_matched: bool) {
    let list = format!("{base}.backendRefs");
    bounded(check, &list, refs.len(), 16);
    for (index, reference) in refs.iter().enumerate() {
        let at = format!("{list}[{index}]");
        if reference.weight > MAX_WEIGHT {
            let reason = format!("{} is more than {MAX_WEIGHT}", reference.weight);
            check.error("V0024", &format!("{at}.weight"), &reason, "only the ratio counts: write smaller numbers");
        }
        backend(check, &at, reference, "its share is answered with 500");
        filters(check, &format!("{at}.filters"), &reference.filters, prefix_matched);
    }
    let silent = refs.iter().all(|backend| backend.weight == 0);
    if silent && !refs.is_empty() {
        let reason = "all weights are 0: every request is answered with 500";
        check.warning("V0024", &list, reason, "give one of them a weight");
    }
    if check.is_empty(&list, refs) && !answered {
        let reason = "a rule without backendRefs: every request that it matches is answered with 500";
        check.warning("V0024", base, reason, "add backendRefs");
    }
}

/// One reference; `else_` says what follows when it leads nowhere.
fn backend(check: &mut Check<'_>, at: &str, backend: &BackendRef, else_: &str) {
    if let Some(namespace) = &backend.namespace {
        check.label(&format!("{at}.namespace"), namespace);
    }
    match backend.target() {
        Some(_) if check.is_missing(&format!("{at}.port"), &backend.port) => {
            check.error("V0011", at, "the field \"port\" is missing", "add the port of the Service");
        }
        Some(_) => {}
        None if backend.is_xbackend() => {}
        None => {
            let mend = match &*backend.kind {
                "XBackend" => format!("add group: {EXPERIMENTAL_GROUP}"),
                "ServiceImport" => format!("add group: {MCS_GROUP}"),
                _ => "write kind: Service or kind: ServiceImport with its group".to_owned(),
            };
            let reason =
                format!("{:?} of the group {:?} cannot be a backend: {else_}", &*backend.kind, &*backend.group);
            check.warning("V0042", &format!("{at}.kind"), &reason, &mend);
        }
    }
}

fn limits(
    check: &mut Check<'_>,
    base: &str,
    timeouts: &RouteTimeouts,
    retry: Option<&RouteRetry>,
    session: Option<&SessionSpec>,
) {
    if let (Some(whole), Some(one)) = (timeouts.request, timeouts.backend_request)
        && whole > Duration::ZERO
        && one > whole
    {
        let path = format!("{base}.timeouts.backendRequest");
        check.error("V0038", &path, "is longer than timeouts.request", "make it at most as long as the whole request");
    }
    for (index, code) in retry.iter().flat_map(|retry| retry.codes.iter().enumerate()) {
        if !(400..600).contains(code) {
            let path = format!("{base}.retry.codes[{index}]");
            check.error("V0028", &path, &format!("{code} is not an error status"), "write codes from 400 to 599");
        }
    }
    if let Some(RouteRetry { attempts: Some(0), .. }) = retry {
        check.error("V0013", &format!("{base}.retry.attempts"), "0 is not at least 1", "remove retry to retry nothing");
    }
    if let Some(spec) = session {
        session_persistence(check, &format!("{base}.sessionPersistence"), spec);
    }
}

pub(super) fn session_persistence(check: &mut Check<'_>, base: &str, spec: &SessionSpec) {
    if let Some(name) = &spec.session_name {
        let at = format!("{base}.sessionName");
        if name.len() > 128 {
            check.error("V0021", &at, "is longer than 128 characters", "shorten it");
        }
        check.text("V0021", &at, name, grammar::token(name), "write a name like cart-session");
    }
    let Some(config) = &spec.cookie_config else { return };
    if spec.session_type != SessionType::Cookie {
        check.error("V0038", &format!("{base}.cookieConfig"), "stands beside another type than Cookie", "remove it");
    }
    if config.lifetime_type == CookieLifetime::Permanent && spec.absolute_timeout.is_none_or(|limit| limit.is_zero()) {
        let at = format!("{base}.cookieConfig.lifetimeType");
        check.error("V0038", &at, "a permanent cookie needs absoluteTimeout", "add absoluteTimeout: 24h");
    }
}
