//! What the status of a route says beside where it attaches.

use veer_core::route::Filter;
use veer_resources::{BackendRef, Kind, Object, RouteFilter};

use crate::routes::{Act, Route};
use crate::status::{Condition, No};

/// Why a rule is answered with an error although its backends may be sound.
pub(crate) fn partial(act: &Act) -> Option<String> {
    let Act::Http(route) = act else { return None };
    let failing = |rule: &veer_core::route::HttpRule| match &rule.filters[..] {
        [Filter::Fail { reason, .. }] => Some(reason.to_string()),
        _ => None,
    };
    route.rules.iter().find_map(failing)
}

/// All references to backends, those of filters among them.
pub(crate) fn backend_refs(object: &Object) -> Box<dyn Iterator<Item = &BackendRef> + '_> {
    match &object.kind {
        Kind::HttpRoute(spec) => Box::new(spec.rules.iter().flat_map(|rule| {
            let own = rule.backend_refs.iter().flat_map(|backend| &backend.filters);
            rule.backend_refs.iter().chain(rule.filters.iter().chain(own).filter_map(named_by))
        })),
        Kind::GrpcRoute(spec) => Box::new(spec.rules.iter().flat_map(|rule| {
            let own = rule.backend_refs.iter().flat_map(|backend| &backend.filters);
            rule.backend_refs.iter().chain(rule.filters.iter().chain(own).filter_map(named_by))
        })),
        Kind::TcpRoute(spec) => Box::new(spec.rules.iter().flat_map(|rule| &rule.backend_refs)),
        Kind::TlsRoute(spec) => Box::new(spec.rules.iter().flat_map(|rule| &rule.backend_refs)),
        Kind::UdpRoute(spec) => Box::new(spec.rules.iter().flat_map(|rule| &rule.backend_refs)),
        _ => Box::new(std::iter::empty()),
    }
}

fn named_by(filter: &RouteFilter) -> Option<&BackendRef> {
    match filter {
        RouteFilter::RequestMirror(mirror) => Some(&mirror.backend_ref),
        RouteFilter::ExternalAuth(auth) => Some(&auth.backend_ref),
        _ => None,
    }
}

impl Route {
    /// Whether one of its parents has listeners.
    pub fn has_listeners(&self) -> bool {
        self.parent_refs.iter().any(|parent| parent.listeners().is_some())
    }

    /// What its status says at a parent that takes it, or for this reason does not.
    pub fn conditions(&self, object: &Object, refused: Option<&No>) -> Vec<Condition> {
        let mut conditions = vec![
            Condition::unless(object, "Accepted", refused),
            Condition::unless(object, "ResolvedRefs", self.unresolved.as_ref()),
        ];
        if let Some(reason) = &self.partial {
            let message = format!("{reason}; requests for this rule are answered with 500");
            conditions.push(Condition::new(object, "PartiallyInvalid", true, "UnsupportedValue", message));
        }
        conditions
    }
}
