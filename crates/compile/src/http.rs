//! Rules of HTTPRoutes and GRPCRoutes. They stay what they are; what this version does not understand fails closed.

use std::sync::Arc;

use veer_core::Pattern;
use veer_core::route::{
    Backend, Comparison, Cors, ExternalAuth, Filter, HeaderChange, HeaderField, HttpMatch, HttpRule, Mirror,
    PathChange, PathMatch, Retry, SessionPersistence, Timeouts, ValueMatch,
};
use veer_resources::{
    AuthProtocol, BackendRef, CorsFilter, Diagnostic, ExternalAuthFilter, GrpcMethodRule, GrpcRouteSpec,
    HeaderModifier, HttpRouteMatch, HttpRouteSpec, MirrorFilter, Object, PathMatchType, PathModifier, PathModifierType,
    PathRule, RouteFilter, RouteRetry, RouteTimeouts, SessionSpec, ValueMatchType, ValueRule,
};

use crate::faults;
use crate::policies;
use crate::routes::{backend, backends};
use crate::view::View;

/// Rules of an HTTPRoute.
pub(crate) fn http_rules(
    view: View<'_>,
    object: &Object,
    spec: &HttpRouteSpec,
    faults: &mut Vec<Diagnostic>,
) -> Vec<HttpRule> {
    let rule = |(index, rule): (usize, &veer_resources::HttpRouteRule)| {
        let mut draft = Draft::new(view, object, format!("spec.rules[{index}]"));
        let matches = rule.matches.iter().enumerate().map(|(i, m)| draft.http_match(i, m)).collect();
        let filters = draft.filters(&rule.filters);
        draft.finish(
            rule.name.clone(),
            matches,
            filters,
            &rule.backend_refs,
            &rule.timeouts,
            rule.retry.as_ref(),
            rule.session_persistence.as_ref(),
            faults,
        )
    };
    let mut rules = spec.rules.iter().enumerate().map(rule).collect();
    policies::join_route(view, object, &mut rules);
    rules
}

/// Rules of a GRPCRoute.
pub(crate) fn grpc_rules(
    view: View<'_>,
    object: &Object,
    spec: &GrpcRouteSpec,
    faults: &mut Vec<Diagnostic>,
) -> Vec<HttpRule> {
    let rule = |(index, rule): (usize, &veer_resources::GrpcRouteRule)| {
        let mut draft = Draft::new(view, object, format!("spec.rules[{index}]"));
        let matches = rule.matches.iter().enumerate().map(|(i, m)| HttpMatch {
            path: m.method.as_ref().and_then(|method| draft.grpc_method(i, method)),
            headers: draft.values(&format!("matches[{i}].headers"), &m.headers, true),
            ..HttpMatch::default()
        });
        let matches = matches.collect();
        let filters = draft.filters(&rule.filters);
        draft.finish(
            rule.name.clone(),
            matches,
            filters,
            &rule.backend_refs,
            &rule.timeouts,
            rule.retry.as_ref(),
            rule.session_persistence.as_ref(),
            faults,
        )
    };
    let mut rules = spec.rules.iter().enumerate().map(rule).collect();
    policies::join_route(view, object, &mut rules);
    rules
}

/// A rule in the making: remembers the first reason why it cannot be served as written.
struct Draft<'a> {
    view: View<'a>,
    object: &'a Object,
    path: String,
    failed: Option<Arc<str>>,
    faults: Vec<Diagnostic>,
}

impl<'a> Draft<'a> {
    fn new(view: View<'a>, object: &'a Object, path: String) -> Self {
        Self { view, object, path, failed: None, faults: Vec::new() }
    }

    fn fail(&mut self, at: &str, reason: String) {
        self.faults.push(faults::unsupported(self.object, &format!("{}.{at}", self.path), &reason));
        self.failed.get_or_insert_with(|| reason.into());
    }

    fn finish(
        mut self,
        name: Option<Arc<str>>,
        matches: Vec<HttpMatch>,
        mut filters: Vec<Filter>,
        refs: &[BackendRef],
        timeouts: &RouteTimeouts,
        retry: Option<&RouteRetry>,
        session: Option<&SessionSpec>,
        faults: &mut Vec<Diagnostic>,
    ) -> HttpRule {
        let session = session.and_then(|written| self.session(written));
        let path = format!("{}.backendRefs", self.path);
        let mut backends = backends(self.view, self.object, &path, refs, &mut self.faults);
        for (index, (backend, written)) in backends.iter_mut().zip(refs).enumerate() {
            backend.filters = self.backend_filters(&format!("{path}[{index}]"), &written.filters);
        }
        if let Some(reason) = self.failed.take() {
            filters = vec![Filter::Fail { status: 500, reason }];
            backends.clear();
        }
        faults.append(&mut self.faults);
        HttpRule {
            name,
            matches,
            filters,
            backends,
            timeouts: Timeouts { request: timeouts.request, backend_request: timeouts.backend_request },
            retry: retry.map(|r| Retry { codes: r.codes.clone(), attempts: r.attempts, backoff: r.backoff }),
            session,
            policy: None,
        }
    }

    fn session(&mut self, written: &SessionSpec) -> Option<Arc<SessionPersistence>> {
        let owner = format!("{} {} {}", self.object.kind.name(), self.object.name(), self.path);
        let session = written.session(&owner);
        if session.is_none() {
            self.fail("sessionPersistence", "sessions of this kind are not supported".to_owned());
        }
        session.map(Arc::new)
    }

    /// A match whose conditions are all understood, or one that holds at least wherever the written one would: its rule
    /// fails, and must fail for every request that was meant.
    fn http_match(&mut self, index: usize, written: &HttpRouteMatch) -> HttpMatch {
        let at = format!("matches[{index}]");
        HttpMatch {
            path: written.path.as_ref().and_then(|path| self.path_match(&at, path)),
            method: written.method.clone(),
            headers: self.values(&format!("{at}.headers"), &written.headers, true),
            query: self.values(&format!("{at}.queryParams"), &written.query_params, false),
        }
    }

    fn path_match(&mut self, at: &str, path: &PathRule) -> Option<PathMatch> {
        match &path.match_type {
            PathMatchType::Exact => Some(PathMatch::Exact(Arc::clone(&path.value))),
            PathMatchType::PathPrefix => Some(PathMatch::Prefix(Arc::clone(&path.value))),
            PathMatchType::RegularExpression => Some(match self.pattern(&format!("{at}.path.value"), &path.value) {
                true => PathMatch::Regex(Arc::clone(&path.value)),
                false => PathMatch::Prefix(regex_prefix(&path.value).into()),
            }),
            PathMatchType::Unknown(kind) => {
                self.fail(&format!("{at}.path"), format!("path match of type {kind} is not supported"));
                None
            }
        }
    }

    /// Whether it is one; the rule fails when it is not.
    fn pattern(&mut self, at: &str, text: &str) -> bool {
        let compiled = Pattern::new(text);
        if let Err(error) = &compiled {
            self.fail(at, format!("the regular expression {text:?}: {error}"));
        }
        compiled.is_ok()
    }

    fn grpc_method(&mut self, index: usize, method: &GrpcMethodRule) -> Option<PathMatch> {
        let at = format!("matches[{index}].method");
        // The Gateway API takes an empty text for one that is not written.
        let written = |text: &Option<Arc<str>>| text.clone().filter(|text| !text.is_empty());
        let (service, name) = (written(&method.service), written(&method.method));
        match &method.match_type {
            _ if service.is_none() && name.is_none() => None,
            ValueMatchType::Exact => Some(PathMatch::Grpc { service, method: name }),
            ValueMatchType::RegularExpression => {
                let parts = [("service", &service), ("method", &name)];
                let good = parts
                    .map(|(field, text)| text.as_ref().is_none_or(|text| self.pattern(&format!("{at}.{field}"), text)));
                (good == [true, true]).then_some(PathMatch::GrpcRegex { service, method: name })
            }
            ValueMatchType::Unknown(kind) => {
                self.fail(&at, format!("method match of type {kind} is not supported"));
                None
            }
        }
    }

    /// Conditions on named values. Of several for one name only the first counts (Gateway API).
    fn values(&mut self, at: &str, rules: &[ValueRule], fold_case: bool) -> Vec<ValueMatch> {
        let mut values: Vec<ValueMatch> = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let by = match &rule.match_type {
                ValueMatchType::Exact => Comparison::Exact,
                ValueMatchType::RegularExpression if self.pattern(&format!("{at}[{index}].value"), &rule.value) => {
                    Comparison::Regex
                }
                ValueMatchType::RegularExpression => continue,
                ValueMatchType::Unknown(kind) => {
                    self.fail(
                        &format!("{at}[{index}]"),
                        format!("match of {:?} by {kind} is not supported", rule.name),
                    );
                    continue;
                }
            };
            let name = if fold_case { lower(&rule.name) } else { Arc::clone(&rule.name) };
            if values.iter().all(|value| value.name != name) {
                values.push(ValueMatch { name, value: Arc::clone(&rule.value), by });
            }
        }
        values
    }

    /// What is done to requests for one backend. What is not understood fails these requests alone.
    fn backend_filters(&mut self, path: &str, written: &[RouteFilter]) -> Vec<Filter> {
        if written.is_empty() {
            return Vec::new();
        }
        let mut draft = Draft::new(self.view, self.object, path.to_owned());
        let filters = draft.filters(written);
        for (at, filter) in written.iter().enumerate() {
            // Both act before a backend is chosen: a preflight is for none yet, and who may pass must not depend on a share.
            let kind = match filter {
                RouteFilter::Cors(_) => "CORS",
                RouteFilter::ExternalAuth(_) => "ExternalAuth",
                _ => continue,
            };
            draft.fail(&format!("filters[{at}]"), format!("filter {kind} of a single backend is not supported"));
        }
        self.faults.append(&mut draft.faults);
        match draft.failed {
            Some(reason) => vec![Filter::Fail { status: 500, reason }],
            None => filters,
        }
    }

    fn mirror(&mut self, at: &str, written: &MirrorFilter) -> Filter {
        let to: Backend = backend(self.view, self.object, &written.backend_ref);
        if let (Some(reason), Some(_)) = (&to.invalid, written.backend_ref.target()) {
            let path = format!("{}.{at}.requestMirror.backendRef", self.path);
            self.faults.push(faults::mirror(self.object, &path, reason));
        }
        let (numerator, denominator) = match (written.percent, &written.fraction) {
            (Some(percent), _) => (percent, 100),
            (None, Some(fraction)) => (fraction.numerator, fraction.denominator),
            (None, None) => (1, 1),
        };
        Filter::Mirror(Mirror { to: Box::new(to), numerator, denominator })
    }

    fn filters(&mut self, written: &[RouteFilter]) -> Vec<Filter> {
        let mut filters = Vec::with_capacity(written.len());
        for (index, filter) in written.iter().enumerate() {
            let at = format!("filters[{index}]");
            match filter {
                RouteFilter::RequestHeaderModifier(change) => {
                    filters.push(Filter::RequestHeaders(header_change(change)))
                }
                RouteFilter::ResponseHeaderModifier(change) => {
                    filters.push(Filter::ResponseHeaders(header_change(change)))
                }
                RouteFilter::RequestRedirect(redirect) => filters.push(Filter::Redirect {
                    scheme: redirect.scheme.clone(),
                    host: redirect.hostname.clone(),
                    port: redirect.port,
                    path: redirect.path.as_ref().and_then(|path| self.path_change(&at, path)),
                    status: redirect.status_code,
                }),
                RouteFilter::UrlRewrite(rewrite) => filters.push(Filter::Rewrite {
                    host: rewrite.hostname.clone(),
                    path: rewrite.path.as_ref().and_then(|path| self.path_change(&at, path)),
                }),
                RouteFilter::RequestMirror(mirror) => filters.push(self.mirror(&at, mirror)),
                RouteFilter::ExternalAuth(auth) => filters.extend(self.external_auth(&at, auth)),
                RouteFilter::Cors(written) => filters.push(Filter::Cors(cors(written))),
                RouteFilter::Unsupported(kind) => self.fail(&at, format!("filter {kind} is not supported")),
            }
        }
        let has = |wanted: fn(&Filter) -> bool| filters.iter().any(wanted);
        if has(|f| matches!(f, Filter::ExternalAuth(_))) && has(|f| matches!(f, Filter::Redirect { .. })) {
            self.fail("filters", "a redirect beside ExternalAuth is not supported".to_owned());
        }
        filters
    }

    fn external_auth(&mut self, at: &str, written: &ExternalAuthFilter) -> Option<Filter> {
        if let AuthProtocol::Unknown(_) = written.protocol {
            let protocol = written.protocol.as_str();
            self.fail(at, format!("external authorization over {protocol} is not supported"));
            return None;
        }
        let to = backend(self.view, self.object, &written.backend_ref);
        if let Some(reason) = &to.invalid {
            self.fail(&format!("{at}.externalAuth.backendRef"), reason.to_string());
        }
        let grpc = written.protocol == AuthProtocol::Grpc;
        let http = written.http.clone().filter(|_| !grpc).unwrap_or_default();
        let shown = match written.grpc.as_ref().filter(|_| grpc) {
            Some(grpc) => &grpc.allowed_headers,
            None => &http.allowed_headers,
        };
        Some(Filter::ExternalAuth(ExternalAuth {
            to: Box::new(to),
            grpc,
            request_headers: shown.iter().map(lower).collect(),
            path: http.path.filter(|path| !path.is_empty()),
            response_headers: http.allowed_response_headers.iter().map(lower).collect(),
            body_limit: written.forward_body.as_ref().map_or(0, |body| body.max_size),
        }))
    }

    fn path_change(&mut self, at: &str, path: &PathModifier) -> Option<PathChange> {
        let (change, text) = match &path.modifier_type {
            PathModifierType::ReplaceFullPath => {
                (PathChange::Full as fn(Arc<str>) -> PathChange, &path.replace_full_path)
            }
            PathModifierType::ReplacePrefixMatch => (PathChange::Prefix as fn(_) -> _, &path.replace_prefix_match),
            PathModifierType::Unknown(kind) => {
                self.fail(&format!("{at}.path"), format!("path modifier {kind} is not supported"));
                return None;
            }
        };
        match text {
            Some(text) => Some(change(Arc::clone(text))),
            None => {
                self.fail(&format!("{at}.path"), "the path modifier names no new path".to_owned());
                None
            }
        }
    }
}

fn header_change(change: &HeaderModifier) -> HeaderChange {
    let values = |list: &[veer_resources::HeaderValue]| {
        list.iter().map(|h| HeaderField { name: lower(&h.name), value: Arc::clone(&h.value) }).collect()
    };
    HeaderChange {
        set: values(&change.set),
        add: values(&change.add),
        remove: change.remove.iter().map(lower).collect(),
    }
}

fn cors(written: &CorsFilter) -> Cors {
    Cors {
        allow_origins: written.allow_origins.clone(),
        allow_methods: written.allow_methods.clone(),
        allow_headers: written.allow_headers.clone(),
        expose_headers: written.expose_headers.clone(),
        allow_credentials: written.allow_credentials.unwrap_or(false),
        max_age: written.max_age,
    }
}

fn lower(name: &Arc<str>) -> Arc<str> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { Arc::clone(name) }
}

/// The longest path prefix that every path matched by a regular expression surely has, so that a rule that fails closed does
/// not take down more than it must. Gateway API implementations match the whole path; `/` when in doubt.
fn regex_prefix(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    if !regex.starts_with('/') || regex.contains('|') {
        return "/";
    }
    let special = |c: char| matches!(c, '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '\\' | '^' | '$');
    let literal = match regex.find(special) {
        None => regex,
        // What a quantifier follows may be absent; what stands right before anything else may go on.
        Some(end) if matches!(regex.as_bytes()[end], b'*' | b'+' | b'?' | b'{') => {
            let cut = regex[..end].char_indices().next_back().map_or(0, |(at, _)| at);
            &regex[..cut]
        }
        Some(end) => &regex[..end],
    };
    match literal.rfind('/') {
        Some(slash) if slash > 0 => &literal[..slash],
        _ => "/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_expression_fails_no_wider_than_it_must() {
        for (regex, prefix) in [
            ("/api/v[0-9]+/.*", "/api"),
            ("^/api/users/[a-z]+$", "/api/users"),
            ("/api/?x", "/"),
            ("/api/x?", "/api"),
            ("/a|/b/c", "/"),
            (".*", "/"),
            ("/(?i)admin", "/"),
            ("/a/b", "/a"),
            ("/a/{0}b", "/"),
        ] {
            assert_eq!(regex_prefix(regex), prefix, "{regex}");
        }
    }
}
