//! References that lead nowhere, of objects that nothing else compiles one by one.

use veer_core::ObjectName;
use veer_resources::{Diagnostic, Kind, KindName, Object, SERVICE_NAME_LABEL, selects};

use crate::catalog::ObjectKey;
use crate::faults;
use crate::memo::Key;
use crate::view::View;

/// The kinds that are checked here.
pub(crate) const KINDS: [KindName; 2] = [KindName::EndpointSlice, KindName::AuthorizationPolicy];

/// Faults of one object.
pub(crate) fn check(view: View<'_>, key: &ObjectKey) -> Vec<Diagnostic> {
    let Some(object) = view.object(key.0, &key.1) else { return Vec::new() };
    let fault = match &object.kind {
        Kind::EndpointSlice(_) => slice(view, object),
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
