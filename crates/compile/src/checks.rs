//! References that lead nowhere, of objects that nothing else compiles one by one.

use veer_core::ObjectName;
use veer_resources::{Diagnostic, Kind, KindName, Object, SERVICE_NAME_LABEL, selects};

use crate::catalog::ObjectKey;
use crate::faults;
use crate::links::age;
use crate::memo::Key;
use crate::routes::{Parent, kind_name, target};
use crate::view::View;

/// The kinds that are checked here.
pub(crate) const KINDS: [KindName; 4] =
    [KindName::EndpointSlice, KindName::TrafficPolicy, KindName::BackendTrafficPolicy, KindName::AuthorizationPolicy];

/// Faults of one object.
pub(crate) fn check(view: View<'_>, key: &ObjectKey) -> Vec<Diagnostic> {
    let Some(object) = view.object(key.0, &key.1) else { return Vec::new() };
    let fault = match &object.kind {
        Kind::EndpointSlice(_) => slice(view, object),
        Kind::TrafficPolicy(spec) => spec.target_ref.target().and_then(|kind| {
            let name = ObjectName { namespace: object.meta.namespace.clone(), name: spec.target_ref.name.clone() };
            traffic_policy(view, object, Parent { kind, name }, "spec.targetRef")
        }),
        Kind::BackendTrafficPolicy(spec) => {
            let faults = spec.target_refs.iter().enumerate().filter_map(|(index, target)| {
                let name = ObjectName { namespace: object.meta.namespace.clone(), name: target.name.clone() };
                let parent = Parent { kind: target.target()?, name };
                traffic_policy(view, object, parent, &format!("spec.targetRefs[{index}]"))
            });
            return faults.collect();
        }
        Kind::AuthorizationPolicy(spec) => {
            let labels =
                spec.selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty());
            labels.and_then(|labels| {
                let namespace = &object.meta.namespace;
                let (key, value) = labels.first_key_value()?;
                let mut bearers = view.listed(Key::Label(namespace.clone(), key.clone(), value.clone()));
                (!bearers.any(|workload| selects(labels, &workload.meta.labels)))
                    .then(|| faults::selects_nothing(object))
            })
        }
        _ => None,
    };
    fault.into_iter().collect()
}

fn slice(view: View<'_>, object: &Object) -> Option<Diagnostic> {
    let service = object.meta.labels.get(SERVICE_NAME_LABEL)?;
    let name = ObjectName { namespace: object.meta.namespace.clone(), name: service.clone() };
    view.service(&name).is_none().then(|| faults::slice_nowhere(object, &name))
}

fn traffic_policy(view: View<'_>, object: &Object, parent: Parent, at: &str) -> Option<Diagnostic> {
    if target(view, parent.kind, &parent.name).is_none() {
        let what = format!("{} {}", kind_name(parent.kind), parent.name);
        return Some(faults::policy_target(object, at, what));
    }
    // Policies of two kinds are for different things, and do not meet.
    let same = view.listed(Key::Policies(parent)).filter(|policy| policy.kind.name() == object.kind.name());
    let first = same.min_by_key(|policy| age(policy))?;
    (first.key() != object.key()).then(|| faults::policy_loses(object, at, first))
}
