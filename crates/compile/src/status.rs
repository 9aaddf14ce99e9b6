//! Status of objects, in the Gateway API's own words. Pure: what changes with time (`lastTransitionTime`) is added by whoever
//! shows it.

use serde::Serialize;
use veer_core::ObjectName;
use veer_resources::{CONTROLLER_NAME, GATEWAY_GROUP, KindName, Object, ParentRef};

/// `status` of an object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Status {
    /// Of a GatewayClass.
    Class(ClassStatus),
    /// Of a Gateway or a ListenerSet.
    Listeners(ListenersStatus),
    /// Of a route.
    Route(RouteStatus),
    /// Of a policy.
    Policy(PolicyStatus),
}

/// `status` of a policy (GEP-713).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PolicyStatus {
    /// Of a BackendTLSPolicy one for each Gateway whose routes lead to what it is for, else the Services that it is for; of other
    /// policies what they are for. At most 16.
    pub ancestors: Vec<AncestorStatus>,
}

/// What became of a policy below one ancestor.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    /// The ancestor.
    pub ancestor_ref: ParentRefStatus,
    /// `veer.dev/gateway`.
    pub controller_name: &'static str,
    /// `Accepted`, `ResolvedRefs`.
    pub conditions: Vec<Condition>,
}

/// `status` of a GatewayClass.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassStatus {
    /// `Accepted`, `SupportedVersion`.
    pub conditions: Vec<Condition>,
    /// What its Gateways can do, by name (GEP-2162).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub supported_features: Vec<FeatureStatus>,
}

/// A feature by the name that the Gateway API's conformance suite has for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeatureStatus {
    /// Its name.
    pub name: &'static str,
}

/// `status` of a Gateway or a ListenerSet.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenersStatus {
    /// Addresses in use; of a Gateway only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressStatus>,
    /// ListenerSets that add listeners; of a Gateway only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_listener_sets: Option<u32>,
    /// `Accepted`, `Programmed`.
    pub conditions: Vec<Condition>,
    /// In the order in which they are written.
    pub listeners: Vec<ListenerStatus>,
}

/// An address in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AddressStatus {
    /// `IPAddress`.
    #[serde(rename = "type")]
    pub address_type: &'static str,
    /// The address.
    pub value: String,
}

/// Status of one listener.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Kinds of routes that may attach.
    pub supported_kinds: Vec<RouteKindStatus>,
    /// Routes that are attached.
    pub attached_routes: u32,
    /// `Accepted`, `Conflicted`, `Programmed`, `ResolvedRefs`; `OverlappingTLSConfig` where it is so.
    pub conditions: Vec<Condition>,
}

/// A kind of routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteKindStatus {
    /// API group.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
}

/// `status` of a route.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RouteStatus {
    /// One for each of its parents that Veer serves, in the order in which they are written.
    pub parents: Vec<ParentStatus>,
}

/// What became of a route at one parent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// As the route wrote it.
    pub parent_ref: ParentRefStatus,
    /// `veer.dev/gateway`.
    pub controller_name: &'static str,
    /// `Accepted`, `ResolvedRefs`; `PartiallyInvalid` where it is so.
    pub conditions: Vec<Condition>,
}

/// A parent as a status names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRefStatus {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace, when the route wrote one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// `sectionName`, when the route wrote one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// `port`, when the route wrote one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A condition (Kubernetes `meta/v1`), without its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub condition: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    /// `metadata.generation` of the object that it speaks of; absent when nobody counts generations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<u32>,
    /// Why, for programs.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// Why something is not so: a reason of the Gateway API, and a text for people.
pub(crate) type No = (&'static str, String);

impl Condition {
    /// It holds, for this reason.
    pub(crate) fn yes(object: &Object, condition: &'static str, reason: &'static str) -> Self {
        Self::new(object, condition, true, reason, String::new())
    }

    /// Holds when nothing is against it, with its own name as reason.
    pub(crate) fn unless(object: &Object, condition: &'static str, against: Option<&No>) -> Self {
        match against {
            None => Self::yes(object, condition, condition),
            Some((reason, message)) => Self::new(object, condition, false, reason, message.clone()),
        }
    }

    pub(crate) fn new(
        object: &Object,
        condition: &'static str,
        holds: bool,
        reason: &'static str,
        message: String,
    ) -> Self {
        let status = if holds { "True" } else { "False" };
        Self { condition, status, observed_generation: object.meta.generation, reason, message }
    }
}

impl AncestorStatus {
    pub(crate) fn new(kind: KindName, name: &ObjectName, conditions: &[Condition]) -> Self {
        let ancestor_ref = ParentRefStatus {
            group: kind.group().to_owned(),
            kind: kind.as_str().to_owned(),
            namespace: Some(name.namespace.to_string()).filter(|namespace| !namespace.is_empty()),
            name: name.name.to_string(),
            section_name: None,
            port: None,
        };
        Self { ancestor_ref, controller_name: CONTROLLER_NAME, conditions: conditions.to_vec() }
    }
}

impl RouteKindStatus {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { group: GATEWAY_GROUP, kind }
    }
}

impl ParentRefStatus {
    /// A parent of a route, whole: read from elsewhere than the route.
    pub(crate) fn below(parent: &ParentRef, route: &Object) -> Self {
        let namespace = parent.namespace.as_ref().unwrap_or(&route.meta.namespace);
        Self { namespace: Some(namespace.to_string()), ..ParentStatus::new(parent, Vec::new()).parent_ref }
    }
}

impl ParentStatus {
    pub(crate) fn below(parent_ref: ParentRefStatus, conditions: Vec<Condition>) -> Self {
        Self { parent_ref, controller_name: CONTROLLER_NAME, conditions }
    }

    pub(crate) fn new(parent: &ParentRef, conditions: Vec<Condition>) -> Self {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_ref().map(ToString::to_string);
        let parent_ref = ParentRefStatus {
            group: parent.group.to_string(),
            kind: parent.kind.to_string(),
            namespace: text(&parent.namespace),
            name: parent.name.to_string(),
            section_name: text(&parent.section_name),
            port: parent.port,
        };
        Self { parent_ref, controller_name: CONTROLLER_NAME, conditions }
    }
}

/// A condition of a list by its type.
pub fn condition<'a>(conditions: &'a [Condition], name: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.condition == name)
}
