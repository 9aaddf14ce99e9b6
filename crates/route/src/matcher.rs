//! From a request to the rule that acts on it.

use std::sync::Arc;

use http::HeaderName;
use veer_core::route::{HttpMatch, HttpRoute, PathMatch, RouteKind};

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
                let rule = matcher.rules.len();
                matcher.rules.push(Arc::new(Rule::new(route, index)));
                let everything = [HttpMatch::default()];
                let matches = if spec.matches.is_empty() { &everything[..] } else { &spec.matches[..] };
                for (alternative, condition) in matches.iter().enumerate() {
                    if let Some((slot, candidate)) = Candidate::new(rule, condition) {
                        ranked.push((slot, Rank::new(route, index, condition, alternative), candidate));
                    }
                }
            }
        }
        ranked.sort_by(|a, b| a.1.cmp(&b.1));
        for (slot, _, candidate) in ranked {
            matcher.slot(slot).push(candidate);
        }
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

    fn slot(&mut self, slot: Slot) -> &mut Vec<Candidate> {
        match slot {
            Slot::Exact(path) => self.exact.entry(path).or_default(),
            Slot::Prefix(path) => self.prefix.entry(path).or_default(),
            Slot::Method(method) => self.method.entry(method).or_default(),
            Slot::Any => &mut self.any,
        }
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
enum Slot {
    Exact(Box<str>),
    Prefix(Box<str>),
    Method(Box<str>),
    Any,
}

impl Slot {
    /// `None` when no request can ever hold the condition: its path has no normal form, so neither has the request's.
    fn new(condition: Option<&PathMatch>) -> Option<Self> {
        let normal = |path: &str| NormalPath::parse(path).ok().map(|p| Box::<str>::from(p.as_str()));
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
        })
    }
}

/// What is left of a match once its path holds.
#[derive(Debug)]
struct Candidate {
    rule: usize,
    method: Option<Arc<str>>,
    headers: Box<[(HeaderName, Arc<str>)]>,
    query: Box<[(Arc<str>, Arc<str>)]>,
}

impl Candidate {
    /// `None` when no request can hold it.
    fn new(rule: usize, condition: &HttpMatch) -> Option<(Slot, Self)> {
        let slot = Slot::new(condition.path.as_ref())?;
        let headers = condition
            .headers
            .iter()
            .map(|h| Some((h.name.parse().ok()?, h.value.clone())))
            .collect::<Option<Box<[_]>>>()?;
        let query = condition.query.iter().map(|q| (q.name.clone(), q.value.clone())).collect();
        Some((slot, Self { rule, method: condition.method.clone(), headers, query }))
    }

    fn holds<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> bool {
        self.method.as_deref().is_none_or(|method| method == request.method)
            && self.headers.iter().all(|(name, value)| request.header_is(name, value.as_bytes()))
            && self.query.iter().all(|(name, value)| request.query_is(name, value))
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
    let (_, method) = path.strip_prefix('/')?.split_once('/')?;
    (!method.is_empty() && !method.contains('/')).then_some(method)
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;
