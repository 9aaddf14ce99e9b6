//! TrafficPolicy and XBackendTrafficPolicy: what they are for, how those of a namespace, a service and a route are merged, and
//! what their status says.
//!
//! Field by field the more specific policy wins: route over ServiceImport over Service over Namespace. Of several of one kind for
//! one target only one acts: the older, then the first by name. What an XBackendTrafficPolicy says stands over TrafficPolicies.

use std::sync::Arc;

use veer_core::policy::TrafficPolicy;
use veer_core::rate::RateLimit;
use veer_core::route::{Filter, HttpRule, RulePolicy};
use veer_core::written::Written;
use veer_core::{ClusterName, ObjectName};
use veer_resources::{Diagnostic, Kind, KindName, Object, PolicyTarget, TrafficPolicySpec};

use crate::catalog::ObjectKey;
use crate::faults;
use crate::links::age;
use crate::memo::Key;
use crate::routes::target;
use crate::status::{AncestorStatus, Condition, No};
use crate::view::View;

/// The kinds of policies that are told of here.
pub(crate) const KINDS: [KindName; 2] = [KindName::TrafficPolicy, KindName::BackendTrafficPolicy];

/// What became of one policy.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// One for each of its targets.
    pub ancestors: Vec<AncestorStatus>,
    pub faults: Vec<Diagnostic>,
}

/// The policy of a service: what this cluster's policies for its namespace and for these kinds say, within what its owners in other
/// clusters say. `own`: this cluster's copies are among those behind the name, so that it is one of the owners.
pub(crate) fn of_service(
    view: View<'_>,
    name: &ObjectName,
    kinds: &[KindName],
    own: bool,
    peers: &[&ClusterName],
) -> TrafficPolicy {
    let word = merged(view, name, kinds.iter().map(|kind| (*kind, name.clone())));
    let mut owners = peers.iter().filter_map(|peer| view.import(name, peer)).map(|import| import.policy.clone());
    if peers.is_empty() {
        return word.policy();
    }
    // Its own word stands for this cluster already.
    let own = own.then(|| Written { by: Vec::new(), ..of_owner(view, name) });
    let owners: Vec<Written> = own.into_iter().chain(&mut owners).collect();
    word.within(Written::joint(owners)).policy()
}

/// The policy of a per-cluster name: that of the service, and over it what is written for this name, within the peer's.
pub(crate) fn of_peer_name(view: View<'_>, name: &ObjectName, alias: &ObjectName, peer: &ClusterName) -> TrafficPolicy {
    let both = [KindName::Service, KindName::ServiceImport];
    let targets = both.map(|kind| (kind, name.clone())).into_iter().chain(both.map(|kind| (kind, alias.clone())));
    let owner = view.import(name, peer).map(|import| import.policy.clone());
    // What this cluster's own Workloads enforce says nothing of the peer's.
    let word = Written { limits: None, ..merged(view, name, targets) };
    word.within(owner.unwrap_or_default()).policy()
}

/// What this cluster says of a Service that it exports.
pub(crate) fn of_owner(view: View<'_>, name: &ObjectName) -> Written {
    merged(view, name, [(KindName::Service, name.clone())].into_iter()).for_consumers()
}

fn merged(view: View<'_>, name: &ObjectName, targets: impl Iterator<Item = ObjectKey> + Clone) -> Written {
    let mut word = Written::default();
    for target in [namespace_of(name)].into_iter().chain(targets.clone()) {
        if let Some((object, spec)) = traffic(view, target) {
            word.put(spec.written(&author(object)));
        }
    }
    for target in targets {
        let service = format!("{} {}", target.0, target.1);
        let Some(object) = acting(view, target, KindName::BackendTrafficPolicy) else { continue };
        if let Kind::BackendTrafficPolicy(spec) = &object.kind {
            word.put(spec.written(&service, author(object)));
        }
    }
    word.limits = Some(rate_limits(view, name)).filter(|limits| !limits.is_empty() && view.service(name).is_some());
    word
}

/// Limits that the service's own Workloads enforce: those of the Service's policy, else its namespace's.
pub(crate) fn rate_limits(view: View<'_>, name: &ObjectName) -> Vec<RateLimit> {
    let targets = [(KindName::Service, name.clone()), namespace_of(name)];
    let mut policies = targets.into_iter().filter_map(|target| traffic(view, target));
    let said = policies.find(|(_, spec)| !spec.rate_limits.is_empty());
    said.map_or_else(Vec::new, |(object, spec)| spec.limits(&author(object)))
}

/// Joins what the policy for a route says to its rules. Where it says what means nothing there, they answer 500: nothing is served
/// as if that were not written.
pub(crate) fn join_route(view: View<'_>, route: &Object, rules: &mut Vec<HttpRule>) {
    let Some((object, spec)) = traffic(view, route.key()) else { return };
    let by = author(object);
    if let Some(reason) = unfit(&route.key(), spec).map(|(_, reason)| format!("{by}: {reason}")) {
        let reason: Arc<str> = reason.into();
        for rule in rules {
            rule.filters = vec![Filter::Fail { status: 500, reason: Arc::clone(&reason) }];
            rule.backends.clear();
        }
        return;
    }
    let policy = Arc::new(RulePolicy { try_timeout: spec.try_timeout, faults: spec.faults(&by), by });
    rules.iter_mut().for_each(|rule| rule.policy = Some(Arc::clone(&policy)));
}

/// What the status of a policy says, and what is wrong with it.
pub(crate) fn judge(view: View<'_>, key: &ObjectKey) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(object) = view.object(key.0, &key.1) else { return verdict };
    for (at, target) in targets(object) {
        let (no, fault) = match against(view, object, &at, &target) {
            Some((no, fault)) => (Some(no), Some(fault)),
            None => (None, None),
        };
        verdict.faults.extend(fault);
        let accepted = Condition::unless(object, "Accepted", no.as_ref());
        verdict.ancestors.push(AncestorStatus::new(target.0, &target.1, &[accepted]));
    }
    verdict
}

/// What a policy is for, each with its place.
pub(crate) fn targets(object: &Object) -> Vec<(String, ObjectKey)> {
    let in_namespace =
        |name: &Arc<str>| ObjectName { namespace: Arc::clone(&object.meta.namespace), name: Arc::clone(name) };
    let key = |kind: KindName, target: &PolicyTarget| match kind {
        // It names the policy's own namespace; any other was told when it was read.
        KindName::Namespace => namespace_of(&object.name()),
        kind => (kind, in_namespace(&target.name)),
    };
    match &object.kind {
        Kind::TrafficPolicy(spec) => {
            let kind = spec.target_ref.policed();
            kind.map(|kind| ("spec.targetRef".to_owned(), key(kind, &spec.target_ref))).into_iter().collect()
        }
        Kind::BackendTrafficPolicy(spec) => {
            let refs = spec.target_refs.iter().enumerate();
            refs.filter_map(|(index, target)| {
                Some((format!("spec.targetRefs[{index}]"), key(target.target()?.kind_name(), target)))
            })
            .collect()
        }
        _ => Vec::new(),
    }
}

/// Why a policy does not act at a target as it is written.
fn against(view: View<'_>, object: &Object, at: &str, to: &ObjectKey) -> Option<(No, Diagnostic)> {
    let there = match to.0 {
        KindName::Namespace => true,
        KindName::Service => target(view, veer_resources::TargetKind::Service, &to.1).is_some(),
        KindName::ServiceImport => target(view, veer_resources::TargetKind::ServiceImport, &to.1).is_some(),
        kind => view.object(kind, &to.1).is_some(),
    };
    if !there {
        let what = format!("{} {}", to.0, to.1);
        let fault = faults::policy_target(object, at, &what);
        return Some((("TargetNotFound", format!("{what} does not exist")), fault));
    }
    if let Some(first) = acting(view, to.clone(), object.kind.name()).filter(|first| first.key() != object.key()) {
        let (kind, name) = first.key();
        let message = format!("{kind} {name} at {} has the same target, and is older (or first by name)", first.at);
        let fault = faults::policy_loses(object, at, &message);
        return Some((("Conflicted", message), fault));
    }
    if let Kind::TrafficPolicy(spec) = &object.kind
        && let Some((field, message)) = unfit(to, spec)
    {
        let fault = faults::policy_unfit(object, field, &message);
        return Some((("Invalid", message), fault));
    }
    None
}

/// What of a policy means nothing at its target: a field of it, and all of them in words.
fn unfit(to: &ObjectKey, spec: &TrafficPolicySpec) -> Option<(&'static str, String)> {
    if !matches!(to.0, KindName::HttpRoute | KindName::GrpcRoute) {
        return None;
    }
    let fields = spec.unfit_for_routes();
    let first = fields.first()?;
    let (kind, fields) = (to.0, fields.join(", "));
    Some((first, format!("{fields} cannot be written for a {kind}; its requests are answered with 500")))
}

fn traffic<'a>(view: View<'a>, target: ObjectKey) -> Option<(&'a Object, &'a TrafficPolicySpec)> {
    let object = acting(view, target, KindName::TrafficPolicy)?;
    match &object.kind {
        Kind::TrafficPolicy(spec) => Some((object, spec)),
        _ => None,
    }
}

/// The policy of a kind that acts on a target.
fn acting<'a>(view: View<'a>, target: ObjectKey, kind: KindName) -> Option<&'a Object> {
    let policies = view.listed(Key::Policies(target));
    policies.filter(|policy| policy.kind.name() == kind).min_by_key(|policy| age(policy))
}

fn namespace_of(name: &ObjectName) -> ObjectKey {
    (KindName::Namespace, ObjectName { namespace: Arc::default(), name: Arc::clone(&name.namespace) })
}

/// Kind and name of the object that says something.
fn author(object: &Object) -> Arc<str> {
    format!("{} {}", object.kind.name(), object.name()).into()
}
