//! Faults that a TrafficPolicy injects on purpose.

use std::sync::Arc;
use std::time::Duration;

use veer_core::fault::{Abort, FaultRule, grpc_code};
use veer_core::route::{Comparison, ValueMatch};

use crate::decode::manifest;
use crate::types::{Fraction, ValueMatchType, ValueRule};

manifest! {
    /// See [`FaultRule`].
    #[derive(Default)]
    pub struct FaultSpec {
        /// Conditions on header fields, all of which must hold; empty: every request.
        pub headers: Vec<ValueRule> = "headers",
        /// Of 100 requests so many; `None` and no [`Self::fraction`]: all.
        pub percent: Option<u32> = "percent",
        /// Instead of [`Self::percent`].
        pub fraction: Option<Fraction> = "fraction",
        /// How long the request waits before it goes on.
        pub delay: Option<Duration> = "delay",
        /// The answer in place of the service's.
        pub abort: Option<AbortSpec> = "abort",
    }
    ignored []
}

manifest! {
    /// See [`Abort`].
    #[derive(Default)]
    pub struct AbortSpec {
        /// HTTP status.
        pub status: Option<u16> = "status",
        /// Name of a gRPC status, such as `UNAVAILABLE`.
        pub grpc_status: Option<Arc<str>> = "grpcStatus",
    }
    ignored []
}

impl FaultSpec {
    /// The rule as callers act on it; `by` names the policy.
    pub fn rule(&self, by: &Arc<str>) -> FaultRule {
        let (numerator, denominator) = match (self.percent, &self.fraction) {
            (Some(percent), _) => (percent, 100),
            (None, Some(fraction)) => (fraction.numerator, fraction.denominator),
            (None, None) => (1, 1),
        };
        let abort = self
            .abort
            .as_ref()
            .map(|abort| Abort { status: abort.status, grpc: abort.grpc_status.as_deref().and_then(grpc_code) });
        let headers = self.headers.iter().map(condition).collect();
        let (delay, by) = (self.delay.filter(|delay| !delay.is_zero()), Arc::clone(by));
        FaultRule { headers, numerator, denominator, delay, abort, by }
    }
}

fn condition(rule: &ValueRule) -> ValueMatch {
    let by = match rule.match_type {
        ValueMatchType::Exact => Comparison::Exact,
        ValueMatchType::RegularExpression => Comparison::Regex,
        ValueMatchType::Unknown(_) => Comparison::Unknown,
    };
    ValueMatch { name: rule.name.to_ascii_lowercase().into(), value: Arc::clone(&rule.value), by }
}
