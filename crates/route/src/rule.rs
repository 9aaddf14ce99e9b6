//! A rule, ready to act.

use std::sync::Arc;

use veer_core::names::{ClusterName, ObjectName};
use veer_core::route::{Backend, ExternalAuth, HttpRoute, HttpRule, RouteKind};
use veer_http::{Fields, RequestHead};

use crate::backend::Deal;
use crate::cors::CorsPolicy;
use crate::faults::Faults;
use crate::filter::Origin;
use crate::filters::{Direct, Filters};

/// A rule of a route with its filters compiled.
#[derive(Debug)]
pub struct Rule {
    /// The object it was written in.
    pub route: ObjectName,
    /// That object's kind.
    pub kind: RouteKind,
    /// Its place in the object, from 0.
    pub index: usize,
    /// The peer whose export it came with.
    pub owner: Option<ClusterName>,
    /// The namespace whose callers alone it is for.
    pub callers: Option<Arc<str>>,
    /// The rule as written: backends, time-outs, retries.
    pub spec: HttpRule,
    filters: Filters,
    /// By backend; empty when no backend has filters of its own.
    of_backends: Box<[Filters]>,
    deal: Deal,
    /// Faults of a policy for the route; they stand in place of the service's.
    pub faults: Option<Faults>,
}

impl Rule {
    /// `broken` says why the rule must fail every request that it matches.
    pub(crate) fn new(route: &HttpRoute, index: usize, broken: Option<Arc<str>>) -> Self {
        let spec = route.rules[index].clone();
        let mut filters = Filters::new(&spec.filters);
        broken.into_iter().for_each(|reason| filters.fail(reason));
        let any_filtered = spec.backends.iter().any(|backend| !backend.filters.is_empty());
        let filtered = spec.backends.iter().filter(|_| any_filtered);
        Self {
            route: route.name.clone(),
            kind: route.kind,
            index,
            owner: route.owner.clone(),
            callers: route.consumer_namespace.clone(),
            filters,
            of_backends: filtered.map(|backend| Filters::of_backend(&backend.filters)).collect(),
            faults: spec.policy.as_ref().and_then(|policy| Faults::new(&policy.faults)),
            spec,
            deal: Deal::default(),
        }
    }

    /// The next backend by weight, by its place among [`HttpRule::backends`]; see [`Deal::pick`].
    pub fn pick_backend(&self) -> Option<usize> {
        self.deal.pick_index(&self.spec.backends)
    }

    /// The answer that the rule gives by itself, if it does. `path` and `query` are the request's, `prefix` is
    /// [`Matched::prefix`](crate::Matched::prefix).
    pub fn direct(&self, origin: &Origin<'_>, path: &str, query: Option<&str>, prefix: &str) -> Option<Direct> {
        self.filters.direct(origin, path, query, prefix)
    }

    /// The same of the filters of a backend alone.
    pub fn direct_of_backend(
        &self,
        backend: usize,
        origin: &Origin<'_>,
        path: &str,
        query: Option<&str>,
        prefix: &str,
    ) -> Option<Direct> {
        self.of_backends.get(backend)?.direct(origin, path, query, prefix)
    }

    /// Changes the request before it is sent: fields, authority, path; first as the rule says, then as its backend says. `path` is
    /// the request's normal path, `prefix` is [`Matched::prefix`](crate::Matched::prefix). The query stays. Does nothing, and costs
    /// nothing, without filters.
    pub fn apply_request(&self, backend: usize, request: &mut RequestHead, path: &str, prefix: &str) {
        self.filters.apply_request(request, path, prefix);
        if let Some(filters) = self.of_backends.get(backend) {
            filters.apply_request(request, path, prefix);
        }
    }

    /// Changes the response's fields before it goes back: first as the backend says, then as the rule says.
    pub fn apply_response(&self, backend: usize, fields: &mut Fields) {
        if let Some(filters) = self.of_backends.get(backend) {
            filters.apply_response(fields);
        }
        self.filters.apply_response(fields);
    }

    /// Whether [`Self::mirrors`] may ever name any.
    pub fn has_mirrors(&self) -> bool {
        self.filters.has_mirrors() || self.of_backends.iter().any(Filters::has_mirrors)
    }

    /// Where copies of this request go, which itself goes to this backend. Ask once per request.
    pub fn mirrors(&self, backend: usize) -> impl Iterator<Item = &Backend> {
        self.filters.mirrors().chain(self.of_backends.get(backend).into_iter().flat_map(Filters::mirrors))
    }

    /// Whom to ask whether a request may pass, before its filters act.
    pub fn auth(&self) -> Option<&ExternalAuth> {
        self.filters.auth()
    }

    /// The rule's CORS filter. Ask before [`Self::direct`]: a browser's question is not redirected.
    pub fn cors(&self) -> Option<&CorsPolicy> {
        self.filters.cors()
    }
}
