//! What a peer's policies and routes may make a proxy do: every number that it sends is brought within bounds that are safe to act
//! on, whoever sends it, and every author is named with the peer that said so.

use std::sync::Arc;
use std::time::Duration;

use veer_core::fault::FaultRule;
use veer_core::route::{HttpRoute, RulePolicy, SessionPersistence};
use veer_core::written::Written;
use veer_core::{ClusterName, Offer};

/// No time that a peer states is longer.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// Nor the delay of a fault, as in manifests.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);
const SHORTEST_WINDOW: Duration = Duration::from_millis(1);
/// Bytes of an author's name.
const MAX_NAME: usize = 512;

/// Faults that an offer injects, in its policy and its routes.
pub(crate) fn faults(offer: &Offer) -> usize {
    let rules = offer.http_routes.iter().flat_map(|route| &route.rules);
    let of_rules: usize = rules.filter_map(|rule| rule.policy.as_ref()).map(|policy| policy.faults.len()).sum();
    of_rules + offer.policy.faults.as_ref().map_or(0, Vec::len)
}

/// The policy as it acts here.
pub(crate) fn bounded(peer: &ClusterName, said: &Written) -> Written {
    let mut word = said.clone().for_consumers();
    for share in [&mut word.failure_ratio, &mut word.max_ejected_ratio, &mut word.retry_ratio] {
        *share = share.map(|share| if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 });
    }
    word.retry_min_per_second =
        word.retry_min_per_second.map(|rate| if rate.is_finite() { rate.clamp(0.0, 1e6) } else { 0.0 });
    for time in [&mut word.slow_start, &mut word.base_ejection, &mut word.max_ejection, &mut word.try_timeout] {
        *time = time.map(|time| time.min(LONGEST));
    }
    for window in [&mut word.outlier_interval, &mut word.retry_interval] {
        *window = window.map(|time| time.clamp(SHORTEST_WINDOW, LONGEST));
    }
    if let Some(adaptive) = &mut word.adaptive {
        adaptive.latency = adaptive.latency.clamp(SHORTEST_WINDOW, LONGEST);
        adaptive.min_requests = adaptive.min_requests.max(1);
    }
    word.session = word.session.and_then(bounded_session);
    word.faults.iter_mut().flatten().for_each(|fault| bound_fault(peer, fault));
    for limit in word.limits.iter_mut().flatten() {
        limit.interval = limit.interval.clamp(SHORTEST_WINDOW, LONGEST);
        limit.by = of(peer, &limit.by);
    }
    word.by.iter_mut().for_each(|by| *by = of(peer, by));
    word
}

/// A route as it acts here.
pub(crate) fn bound_route(peer: &ClusterName, route: &mut HttpRoute) {
    let bound = |time: &mut Option<Duration>| *time = time.map(|time| time.min(LONGEST));
    for rule in &mut route.rules {
        bound(&mut rule.timeouts.request);
        bound(&mut rule.timeouts.backend_request);
        rule.retry.iter_mut().for_each(|retry| bound(&mut retry.backoff));
        rule.session = rule.session.take().and_then(bounded_session);
        if let Some(policy) = &mut rule.policy {
            let policy: &mut RulePolicy = Arc::make_mut(policy);
            bound(&mut policy.try_timeout);
            policy.faults.iter_mut().for_each(|fault| bound_fault(peer, fault));
            policy.by = of(peer, &policy.by);
        }
    }
}

/// `None` when its name could not stand in a field: it would be written into answers.
fn bounded_session(mut session: Arc<SessionPersistence>) -> Option<Arc<SessionPersistence>> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if session.name.is_empty() || session.name.len() > MAX_NAME || !session.name.bytes().all(token) {
        return None;
    }
    let its = Arc::make_mut(&mut session);
    its.absolute_timeout = its.absolute_timeout.map(|time| time.min(LONGEST));
    Some(session)
}

fn bound_fault(peer: &ClusterName, fault: &mut FaultRule) {
    fault.delay = fault.delay.map(|delay| delay.min(LONGEST_DELAY));
    if let Some(abort) = &mut fault.abort {
        abort.status = abort.status.map(|status| status.clamp(400, 599));
        abort.grpc = abort.grpc.filter(|code| (1..=16).contains(code));
    }
    fault.by = of(peer, &fault.by);
}

fn of(peer: &ClusterName, by: &str) -> Arc<str> {
    let clean: String = by.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    format!("{clean} of {peer}").into()
}
