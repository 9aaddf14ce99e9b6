//! Objects with their status, as `veer get` shows them and as a writer of statuses would write them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};
use veer_compile::Meaning;
use veer_compile::status::Status;
use veer_core::ObjectName;
use veer_core::ingress::proxy_of;
use veer_resources::{Kind, KindName, Object};
use veer_telemetry::access_log::Rfc3339;

/// Objects by kind and name.
pub(crate) type Shown = BTreeMap<(KindName, ObjectName), Arc<ShownObject>>;

/// One object as it is written, and its status.
#[derive(Debug)]
pub(crate) struct ShownObject {
    object: Object,
    source: Arc<Status>,
    /// With the time at which each condition last changed.
    status: Value,
    pending: bool,
}

/// The objects of the next generation. A condition that says the same keeps its time. `pending` says whether a Gateway's proxy has yet
/// to acknowledge what it is to serve.
pub(crate) fn shown(
    before: &Shown,
    objects: &[Object],
    meaning: &Meaning,
    now: SystemTime,
    pending: impl Fn(&ObjectName) -> bool,
) -> Shown {
    let mut next = Shown::new();
    for object in objects.iter().filter(|object| object.kind.name().has_status()) {
        let key = object.key();
        let Some(source) = meaning.statuses.get(&key) else { continue };
        let old = before.get(&key);
        let pending = proxy(object).is_some_and(|proxy| pending(&proxy));
        let same =
            old.filter(|old| Arc::ptr_eq(&old.source, source) && old.object == *object && old.pending == pending);
        let shown = same.cloned().unwrap_or_else(|| {
            let mut status = json!(&**source);
            if pending {
                not_programmed(&mut status);
            }
            stamp(&mut status, old.map(|old| &old.status), &whole_seconds(now));
            Arc::new(ShownObject { object: object.clone(), source: Arc::clone(source), status, pending })
        });
        next.insert(key, shown);
    }
    next
}

/// The proxy that serves a Gateway, or the Gateway of a ListenerSet.
fn proxy(object: &Object) -> Option<ObjectName> {
    match &object.kind {
        Kind::Gateway(_) => Some(proxy_of(&object.name())),
        Kind::ListenerSet(spec) => {
            let namespace = spec.parent_ref.namespace.as_ref().unwrap_or(&object.meta.namespace);
            Some(proxy_of(&ObjectName { namespace: Arc::clone(namespace), name: Arc::clone(&spec.parent_ref.name) }))
        }
        _ => None,
    }
}

/// What would be programmed is pending (Gateway API, `GatewayReasonPending`), for the object and each of its listeners.
fn not_programmed(status: &mut Value) {
    let listeners = status.get_mut("listeners").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let mut listeners = Value::from(listeners);
    let all = std::iter::once(&mut *status).chain(listeners.as_array_mut().into_iter().flatten());
    for part in all {
        let conditions = part.get_mut("conditions").and_then(Value::as_array_mut);
        for condition in conditions.into_iter().flatten() {
            if condition["type"] == "Programmed" && condition["status"] == "True" {
                condition["status"] = "False".into();
                condition["reason"] = "Pending".into();
                condition["message"] = "the Gateway's proxy has yet to acknowledge it".into();
            }
        }
    }
    status["listeners"] = listeners;
}

/// Whether both show the same.
pub(crate) fn same(one: &Shown, other: &Shown) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|((a, x), (b, y))| a == b && Arc::ptr_eq(x, y))
}

/// A time as Kubernetes writes it.
fn whole_seconds(time: SystemTime) -> String {
    let text = Rfc3339(time).to_string();
    format!("{}Z", text.split('.').next().unwrap_or_default())
}

/// Adds `lastTransitionTime` to every condition, wherever it stands.
fn stamp(value: &mut Value, old: Option<&Value>, now: &str) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("reason") && fields.contains_key("type") {
                let kept = old.filter(|old| old["status"] == fields["status"]);
                let time = kept.and_then(|old| old["lastTransitionTime"].as_str()).unwrap_or(now);
                fields.insert("lastTransitionTime".to_owned(), time.into());
                return;
            }
            for (name, field) in fields {
                stamp(field, old.and_then(|old| old.get(name)), now);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let old = old.and_then(Value::as_array).and_then(|all| counterpart(item, index, all));
                stamp(item, old, now);
            }
        }
        _ => {}
    }
}

/// What an item of a list was before: conditions go by type, listeners by name, parents and ancestors by what
/// they name.
fn counterpart<'v>(item: &Value, index: usize, old: &'v [Value]) -> Option<&'v Value> {
    match ["type", "name", "parentRef", "ancestorRef"].into_iter().find(|key| item.get(key).is_some()) {
        Some(key) => old.iter().find(|old| old[key] == item[key]),
        None => old.get(index),
    }
}

/// The objects of a kind; of one name or namespace, if they are given.
pub(crate) fn list(shown: &Shown, kind: &str, namespace: Option<&str>, name: Option<&str>) -> Vec<Value> {
    shown
        .iter()
        .filter(|((known, at), _)| {
            is_meant(*known, kind)
                && namespace.is_none_or(|namespace| *at.namespace == *namespace)
                && name.is_none_or(|name| *at.name == *name)
        })
        .map(|(_, shown)| document(shown))
        .collect()
}

/// Kinds as people type them: `HTTPRoute`, `httproutes`, `httproute`, `gtw`, `gc`.
fn is_meant(kind: KindName, text: &str) -> bool {
    let (text, whole) = (text.to_ascii_lowercase(), kind.as_str().to_ascii_lowercase());
    let plural = if whole.ends_with('s') { format!("{whole}es") } else { format!("{whole}s") };
    let short = match kind {
        KindName::Gateway => "gtw",
        KindName::GatewayClass => "gc",
        _ => "",
    };
    text == "all" || text == whole || text == plural || text == short
}

fn document(shown: &ShownObject) -> Value {
    let object = &shown.object;
    let mut document = json!({ "apiVersion": object.kind.name().api_version(), "kind": object.kind.name().as_str() });
    let written = object.written_json().and_then(|text| serde_json::from_str(&text).ok());
    if let (Some(Value::Object(written)), Value::Object(fields)) = (written, &mut document) {
        fields.extend(written);
    }
    if object.kind.name().is_namespaced() {
        document["metadata"]["namespace"] = json!(&*object.meta.namespace);
    }
    document["status"] = shown.status.clone();
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let status = |accepted: &str| json!({ "listeners": [{ "name": "a", "conditions": [{ "type": "Accepted", "status": accepted, "reason": "X" }] }] });
        let stamped = |mut value: Value, old: Option<&Value>, now: &str| {
            stamp(&mut value, old, now);
            value
        };
        let time =
            |value: &Value| value["listeners"][0]["conditions"][0]["lastTransitionTime"].as_str().unwrap().to_owned();
        let first = stamped(status("True"), None, "1");
        let second = stamped(status("True"), Some(&first), "2");
        let third = stamped(status("False"), Some(&second), "3");
        assert_eq!([time(&first), time(&second), time(&third)], ["1", "1", "3"]);
    }

    #[test]
    fn what_is_not_acknowledged_is_not_programmed() {
        let condition = |name: &str, status: &str, reason: &str| json!({ "type": name, "status": status, "reason": reason, "message": "" });
        let part = |name: &str, conditions: [Value; 2]| json!({ "name": name, "conditions": conditions });
        let accepted = || condition("Accepted", "True", "Accepted");
        let mut status = part("", [accepted(), condition("Programmed", "True", "Programmed")]);
        status["listeners"] = json!([
            part("a", [accepted(), condition("Programmed", "True", "Programmed")]),
            part("b", [accepted(), condition("Programmed", "False", "Invalid")]),
        ]);
        not_programmed(&mut status);
        let told = |part: &Value| {
            part["conditions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| format!("{} {}", c["status"], c["reason"]))
                .collect::<Vec<_>>()
                .join(", ")
        };
        assert_eq!(told(&status).replace('"', ""), "True Accepted, False Pending");
        assert_eq!(told(&status["listeners"][0]).replace('"', ""), "True Accepted, False Pending");
        assert_eq!(
            told(&status["listeners"][1]).replace('"', ""),
            "True Accepted, False Invalid",
            "for a reason of its own"
        );
    }

    #[test]
    fn kinds_are_meant_as_kubectl_reads_them() {
        for text in ["gateway", "Gateways", "gtw"] {
            assert!(is_meant(KindName::Gateway, text) && !is_meant(KindName::HttpRoute, text), "{text}");
        }
        assert!(is_meant(KindName::GatewayClass, "gatewayclasses") && is_meant(KindName::HttpRoute, "httproutes"));
    }
}
