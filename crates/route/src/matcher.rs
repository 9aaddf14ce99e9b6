//! From a request to the rule that acts on it.

use std::sync::Arc;

use http::HeaderName;
use veer_core::Pattern;
use veer_core::route::{Comparison, HttpMatch, HttpRoute, PathMatch, RouteKind};

use crate::order::Rank;
use crate::path::NormalPath;
use crate::request::{Headers, RequestView};
use crate::rule::Rule;

type Map<V> = std::collections::HashMap<Box<str>, V, foldhash::fast::FixedState>;

/// The routes of one service port for callers of one namespace, compiled.
///
/// Of several kinds of routes on one port only the most specific acts (GEP-1426: GRPCRoute before HTTPRoute). A *consumer
/// route* acts only for callers of its own namespace; where one is, producer routes are ignored.
///
/// A look-up hashes the path, then its prefixes from the longest to `/`: its cost grows with the depth of the path and with the
/// matches that share one path condition, not with the number of routes. It allocates nothing.
#[derive(Debug, Default)]
pub struct Matcher {
    rules: Vec<Arc<Rule>>,
    /// Exact paths, also `/service/method` of gRPC.
    exact: Map<Vec<Candidate>>,
    /// Paths by pattern, longer patterns first. Nothing, where nobody writes any.
    patterns: Vec<(PathPattern, Candidate)>,
    /// Prefixes without their last slash, also `/service` of gRPC.
    prefix: Map<Vec<Candidate>>,
    /// gRPC methods of any service.
    method: Map<Vec<Candidate>>,
    /// Matches that hold for every path: no path, or the prefix `/`.
    any: Vec<Candidate>,
}

/// A rule that acts, and why.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'m> {
    /// The rule. Keep a clone of the `Arc` for as long as the request lives.
    pub rule: &'m Arc<Rule>,
    /// The path prefix that the match named, for filters that replace it; the whole path for an exact match; empty for
    /// a match on every path.
    pub prefix: &'m str,
}

impl Matcher {
    /// Compiles the routes of one port for callers of `namespace`.
    pub fn new(routes: &[HttpRoute], namespace: &str) -> Self {
        let mut matcher = Self::default();
        let mut ranked: Vec<(Slot, Rank, Candidate)> = Vec::new();
        for route in applicable(routes, namespace) {
            for (index, spec) in route.rules.iter().enumerate() {
                let (rule, mut broken) = (matcher.rules.len(), None);
                let everything = [HttpMatch::default()];
                let matches = if spec.matches.is_empty() { &everything[..] } else { &spec.matches[..] };
                for (alternative, condition) in matches.iter().enumerate() {
                    if let Some((slot, candidate)) = Candidate::new(rule, condition, &mut broken) {
                        ranked.push((slot, Rank::new(route, index, condition, alternative), candidate));
                    }
                }
                matcher.rules.push(Arc::new(Rule::new(route, index, broken)));
            }
        }
        ranked.sort_by(|a, b| a.1.cmp(&b.1));
        let mut patterns = Vec::new();
        for (slot, _, candidate) in ranked {
            match slot {
                Slot::Exact(path) => matcher.exact.entry(path).or_default().push(candidate),
                Slot::Prefix(path) => matcher.prefix.entry(path).or_default().push(candidate),
                Slot::Method(method) => matcher.method.entry(method).or_default().push(candidate),
                Slot::Any => matcher.any.push(candidate),
                Slot::Pattern(pattern, length) => patterns.push((length, pattern, candidate)),
            }
        }
        // Stable: of equal length the rank decides.
        patterns.sort_by_key(|(length, ..)| std::cmp::Reverse(*length));
        matcher.patterns = patterns.into_iter().map(|(_, pattern, candidate)| (pattern, candidate)).collect();
        matcher
    }

    /// Whether no route acts on this port at all: then everything goes to the service itself. A port *with* routes of which
    /// none matches answers 404.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Every rule, route by route.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rule that acts on the request.
    pub fn find<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> Option<Matched<'_>> {
        let path = request.path.as_str();
        self.in_map(&self.exact, path, request)
            .or_else(|| self.in_patterns(path, request))
            .or_else(|| prefixes(path).find_map(|prefix| self.in_map(&self.prefix, prefix, request)))
            .or_else(|| self.in_map(&self.method, grpc_method(path)?, request))
            .or_else(|| self.in_list(&self.any, "", request))
    }

    fn in_map<'m, H>(
        &'m self,
        map: &'m Map<Vec<Candidate>>,
        key: &str,
        request: &RequestView<'_, H>,
    ) -> Option<Matched<'m>>
    where
        H: Headers + ?Sized,
    {
        if map.is_empty() {
            return None;
        }
        let (key, list) = map.get_key_value(key)?;
        self.in_list(list, key, request)
    }

    fn in_patterns<H: Headers + ?Sized>(&self, path: &str, request: &RequestView<'_, H>) -> Option<Matched<'_>> {
        let (_, candidate) =
            self.patterns.iter().find(|(pattern, candidate)| pattern.holds(path) && candidate.holds(request))?;
        Some(Matched { rule: &self.rules[candidate.rule], prefix: "" })
    }

    fn in_list<'m, H>(
        &'m self,
        list: &[Candidate],
        prefix: &'m str,
        request: &RequestView<'_, H>,
    ) -> Option<Matched<'m>>
    where
        H: Headers + ?Sized,
    {
        let candidate = list.iter().find(|candidate| candidate.holds(request))?;
        Some(Matched { rule: &self.rules[candidate.rule], prefix })
    }
}

/// Consumer routes of the namespace when there are any, else producer routes; of these the most specific kind.
fn applicable<'r>(routes: &'r [HttpRoute], namespace: &str) -> Vec<&'r HttpRoute> {
    let (consumer, producer): (Vec<_>, Vec<_>) = routes
        .iter()
        .filter(|route| route.consumer_namespace.as_deref().is_none_or(|consumer| consumer == namespace))
        .partition(|route| route.consumer_namespace.is_some());
    let mut acting = if consumer.is_empty() { producer } else { consumer };
    if acting.iter().any(|route| route.kind == RouteKind::Grpc) {
        acting.retain(|route| route.kind == RouteKind::Grpc);
    }
    acting
}

/// Where a match is found by its path condition.
pub(crate) enum Slot {
    Exact(Box<str>),
    Prefix(Box<str>),
    Method(Box<str>),
    /// With the length of what was written.
    Pattern(PathPattern, usize),
    Any,
}

impl Slot {
    /// `None` when no request can ever hold the condition: its path has no normal form, so neither has the request's. What cannot
    /// be understood holds for every path, and is told by `broken`.
    fn new(condition: Option<&PathMatch>, broken: &mut Option<Arc<str>>) -> Option<Self> {
        let normal = |path: &str| NormalPath::parse(path).ok().map(|p| Box::<str>::from(p.as_str()));
        let mut pattern = |text: &Arc<str>| compile(text, broken);
        Some(match condition {
            None => Slot::Any,
            Some(PathMatch::Exact(path)) => Slot::Exact(normal(path)?),
            Some(PathMatch::Prefix(path)) => match normal(path)?.trim_end_matches('/') {
                "" => Slot::Any,
                prefix => Slot::Prefix(prefix.into()),
            },
            Some(PathMatch::Grpc { service, method }) => match (service, method) {
                (Some(service), Some(method)) => Slot::Exact(format!("/{service}/{method}").into()),
                (Some(service), None) => Slot::Prefix(format!("/{service}").into()),
                (None, Some(method)) => Slot::Method(method.as_ref().into()),
                (None, None) => Slot::Any,
            },
            Some(PathMatch::Regex(text)) => match pattern(text) {
                Some(pattern) => Slot::Pattern(PathPattern::Path(pattern), text.len()),
                None => Slot::Any,
            },
            Some(PathMatch::GrpcRegex { service, method }) => {
                let length = [service, method].into_iter().flatten().map(|text| text.len()).sum();
                let compiled = [service, method].map(|text| text.as_ref().map(&mut pattern));
                match compiled {
                    [None, None] | [Some(None), _] | [_, Some(None)] => Slot::Any,
                    [service, method] => Slot::Pattern(
                        PathPattern::Grpc { service: service.flatten(), method: method.flatten() },
                        length,
                    ),
                }
            }
            Some(PathMatch::Unknown(_)) => {
                broken.get_or_insert_with(|| "a condition on the path is not known to this version".into());
                Slot::Any
            }
        })
    }
}

/// `None` when it is none: the rule is broken then, and its condition holds.
fn compile(text: &str, broken: &mut Option<Arc<str>>) -> Option<Pattern> {
    let compiled = Pattern::new(text);
    compiled.map_err(|error| broken.get_or_insert_with(|| format!("the pattern {text:?}: {error}").into())).ok()
}

/// A condition on the path by pattern.
#[derive(Debug)]
pub(crate) enum PathPattern {
    Path(Pattern),
    Grpc { service: Option<Pattern>, method: Option<Pattern> },
}

impl PathPattern {
    fn holds(&self, path: &str) -> bool {
        match self {
            PathPattern::Path(pattern) => pattern.holds(path.as_bytes()),
            PathPattern::Grpc { service, method } => grpc_call(path).is_some_and(|(called, name)| {
                service.as_ref().is_none_or(|pattern| pattern.holds(called.as_bytes()))
                    && method.as_ref().is_none_or(|pattern| pattern.holds(name.as_bytes()))
            }),
        }
    }
}

/// What is left of a match once its path holds.
#[derive(Debug)]
pub(crate) struct Candidate {
    rule: usize,
    method: Option<Arc<str>>,
    headers: Box<[(HeaderName, Value)]>,
    query: Box<[(Arc<str>, Value)]>,
}

/// What a value must be.
#[derive(Debug)]
enum Value {
    Exact(Arc<str>),
    Pattern(Pattern),
}

impl Candidate {
    /// `None` when no request can hold it. Conditions that cannot be understood are left out, and told by `broken`: their rule
    /// fails for every request that may have been meant.
    pub(crate) fn new(rule: usize, condition: &HttpMatch, broken: &mut Option<Arc<str>>) -> Option<(Slot, Self)> {
        let slot = Slot::new(condition.path.as_ref(), broken)?;
        let mut value = |written: &veer_core::route::ValueMatch| match written.by {
            Comparison::Exact => Some(Value::Exact(Arc::clone(&written.value))),
            Comparison::Regex => compile(&written.value, broken).map(Value::Pattern),
            Comparison::Unknown => {
                broken.get_or_insert_with(|| {
                    format!("a condition on {:?} is not known to this version", written.name).into()
                });
                None
            }
        };
        let mut headers = Vec::with_capacity(condition.headers.len());
        for written in &condition.headers {
            let name = written.name.parse().ok()?;
            headers.extend(value(written).map(|value| (name, value)));
        }
        let query = condition.query.iter().filter_map(|q| Some((q.name.clone(), value(q)?))).collect();
        Some((slot, Self { rule, method: condition.method.clone(), headers: headers.into(), query }))
    }

    pub(crate) fn holds<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> bool {
        self.method.as_deref().is_none_or(|method| method == request.method)
            && self.headers.iter().all(|(name, value)| match value {
                Value::Exact(value) => request.header_is(name, value.as_bytes()),
                Value::Pattern(pattern) => request.header_holds(name, pattern),
            })
            && self.query.iter().all(|(name, value)| match value {
                Value::Exact(value) => request.query_is(name, value),
                Value::Pattern(pattern) => request.query_holds(name, pattern),
            })
    }
}

/// `/a/b/c` → `/a/b/c`, `/a/b`, `/a`; a slash at the end does not count.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let whole = path.trim_end_matches('/');
    std::iter::successors(Some(whole), |path| path.rsplit_once('/').map(|(shorter, _)| shorter))
        .take_while(|path| !path.is_empty())
}

/// The method of a gRPC path, `/service/method`.
fn grpc_method(path: &str) -> Option<&str> {
    grpc_call(path).map(|(_, method)| method)
}

/// Service and method of a gRPC path.
fn grpc_call(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!method.is_empty() && !method.contains('/')).then_some((service, method))
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;
