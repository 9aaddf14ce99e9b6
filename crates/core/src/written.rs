//! What policies say, before defaults are filled in: whoever merges the words of several must know what nobody said.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::FaultRule;
use crate::hashing::ConsistentHash;
use crate::policy::{Adaptive, ClusterWeight, TrafficPolicy};
use crate::rate::RateLimit;
use crate::route::SessionPersistence;

macro_rules! written {
    ($($field:ident: $type:ty, $order:ident;)*) => {
        /// The fields of a [`TrafficPolicy`] that somebody wrote. Where two words meet, one of these orders holds: a number of which the
        /// smaller one is the narrower; a time of which zero is no limit; anything else cannot be ordered.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        #[allow(missing_docs, reason = "the fields of TrafficPolicy")]
        pub struct Written {
            $(#[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
            /// Who wrote it, most general first, such as `TrafficPolicy shop/cart`.
            pub by: Vec<Arc<str>>,
        }

        impl Written {
            /// Puts a more specific word over this one, field by field.
            pub fn put(&mut self, more: Written) {
                $(if more.$field.is_some() { self.$field = more.$field; })*
                self.by.extend(more.by);
            }

            /// This word of a consumer, within the owner's: it may narrow and never widen. What cannot be ordered stays the owner's,
            /// unless the owner said nothing.
            pub fn within(self, owner: Written) -> Written {
                let by = owner.by.into_iter().chain(self.by).collect();
                Written { $($field: $order::within(self.$field, owner.$field),)* by }
            }

            /// What several owners of one name say together: the widest that any of them permits, so that none can throttle the copies
            /// of another; of what cannot be ordered that in which all agree.
            pub fn joint(owners: impl IntoIterator<Item = Written>) -> Written {
                let both = |one: Written, other: Written| Written {
                    $($field: $order::joint(one.$field, other.$field),)*
                    by: one.by.into_iter().chain(other.by).collect(),
                };
                owners.into_iter().reduce(both).unwrap_or_default()
            }
        }
    };
}

written! {
    slow_start: Duration, other;
    consecutive_failures: u32, other;
    failure_ratio: f64, other;
    minimum_requests: u32, other;
    outlier_interval: Duration, other;
    base_ejection: Duration, other;
    max_ejection: Duration, other;
    max_ejected_ratio: f64, other;
    max_requests_per_endpoint: u32, number;
    max_requests: u32, number;
    adaptive: Adaptive, other;
    retry_ratio: f64, number;
    retry_interval: Duration, other;
    retry_min_per_second: f64, number;
    retry_answers: bool, other;
    local_first: bool, other;
    overprovisioning: f64, other;
    target_utilisation: f64, other;
    weights: Vec<ClusterWeight>, other;
    try_timeout: Duration, time;
    session: Arc<SessionPersistence>, other;
    hash: Arc<ConsistentHash>, other;
    faults: Vec<FaultRule>, other;
    limits: Vec<RateLimit>, other;
}

impl Written {
    /// The policy that acts, with defaults for what nobody said.
    pub fn policy(self) -> TrafficPolicy {
        let mut to = TrafficPolicy::default();
        set(&mut to.slow_start, self.slow_start);
        set(&mut to.outlier.consecutive_failures, self.consecutive_failures);
        set(&mut to.outlier.failure_ratio, self.failure_ratio);
        set(&mut to.outlier.minimum_requests, self.minimum_requests);
        set(&mut to.outlier.interval, self.outlier_interval);
        set(&mut to.outlier.base_ejection, self.base_ejection);
        set(&mut to.outlier.max_ejection, self.max_ejection);
        set(&mut to.outlier.max_ejected_ratio, self.max_ejected_ratio);
        set(&mut to.circuit_breaker.max_requests_per_endpoint, self.max_requests_per_endpoint);
        set(&mut to.circuit_breaker.max_requests, self.max_requests);
        set(&mut to.retry_budget.ratio, self.retry_ratio);
        set(&mut to.retry_budget.interval, self.retry_interval);
        set(&mut to.retry_budget.min_per_second, self.retry_min_per_second);
        set(&mut to.retry_budget.answers, self.retry_answers);
        set(&mut to.locality.local_first, self.local_first);
        set(&mut to.locality.overprovisioning, self.overprovisioning);
        set(&mut to.locality.target_utilisation, self.target_utilisation);
        set(&mut to.locality.weights, self.weights);
        set(&mut to.faults, self.faults);
        set(&mut to.limits, self.limits);
        to.circuit_breaker.adaptive = self.adaptive;
        to.try_timeout = self.try_timeout.filter(|limit| !limit.is_zero());
        to.session = self.session;
        to.hash = self.hash;
        to.by = self.by;
        // What is right in each of two policies may not fit together.
        to.outlier.base_ejection = to.outlier.base_ejection.min(to.outlier.max_ejection);
        if let Some(adaptive) = &mut to.circuit_breaker.adaptive {
            adaptive.min_requests = adaptive.min_requests.min(to.circuit_breaker.max_requests);
        }
        to
    }

    /// As it travels with an export: how load leaves a cluster is the business of that cluster.
    pub fn for_consumers(mut self) -> Self {
        self.local_first = None;
        self.overprovisioning = None;
        self.target_utilisation = None;
        self.weights = None;
        self
    }
}

fn set<T>(to: &mut T, written: Option<T>) {
    if let Some(value) = written {
        *to = value;
    }
}

/// The smaller is the narrower.
mod number {
    pub fn within<T: PartialOrd>(own: Option<T>, owner: Option<T>) -> Option<T> {
        match (own, owner) {
            (Some(own), Some(owner)) => Some(if own < owner { own } else { owner }),
            (own, owner) => own.or(owner),
        }
    }

    pub fn joint<T: PartialOrd>(one: Option<T>, other: Option<T>) -> Option<T> {
        let (one, other) = (one?, other?);
        Some(if one < other { other } else { one })
    }
}

/// The shorter is the narrower, and zero is no limit.
mod time {
    use std::time::Duration;

    pub fn within(own: Option<Duration>, owner: Option<Duration>) -> Option<Duration> {
        match (own, owner) {
            (Some(own), Some(owner)) => Some(if length(own) < length(owner) { own } else { owner }),
            (own, owner) => own.or(owner),
        }
    }

    pub fn joint(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
        let (one, other) = (one?, other?);
        Some(if length(one) < length(other) { other } else { one })
    }

    fn length(time: Duration) -> Duration {
        if time.is_zero() { Duration::MAX } else { time }
    }
}

/// Cannot be ordered.
mod other {
    pub fn within<T>(own: Option<T>, owner: Option<T>) -> Option<T> {
        owner.or(own)
    }

    pub fn joint<T: PartialEq>(one: Option<T>, other: Option<T>) -> Option<T> {
        one.filter(|one| other.as_ref() == Some(one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn word(max_requests: Option<u32>, try_timeout: Option<Duration>, failures: Option<u32>) -> Written {
        Written { max_requests, try_timeout, consecutive_failures: failures, ..Written::default() }
    }

    #[test]
    fn a_consumer_narrows_and_never_widens() {
        let owner = word(Some(10), Some(SECOND), Some(5));
        assert_eq!(
            word(Some(5), Some(SECOND / 2), Some(9)).within(owner.clone()),
            word(Some(5), Some(SECOND / 2), Some(5))
        );
        assert_eq!(word(Some(50), Some(Duration::ZERO), None).within(owner.clone()), owner, "zero is no limit");
        assert_eq!(word(None, None, None).within(owner.clone()), owner);
        let own = word(Some(50), Some(SECOND), Some(9));
        assert_eq!(own.clone().within(Written::default()), own, "the owner said nothing");
        assert_eq!(own.within(word(None, Some(Duration::ZERO), None)), word(Some(50), Some(SECOND), Some(9)));
    }

    #[test]
    fn no_owner_throttles_the_copies_of_another() {
        let (one, other) = (word(Some(1), Some(SECOND), Some(5)), word(Some(9), Some(Duration::ZERO), Some(6)));
        assert_eq!(Written::joint([one.clone(), other.clone()]), word(Some(9), Some(Duration::ZERO), None));
        assert_eq!(Written::joint([one.clone(), Written::default()]), Written::default());
        assert_eq!(Written::joint([one.clone(), one.clone()]), one);
        assert_eq!(Written::joint([]), Written::default());
    }
}
