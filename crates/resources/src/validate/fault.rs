//! Meaning of faults that are injected on purpose.

use std::time::Duration;

use veer_core::fault::grpc_code;

use super::{Check, grammar, route};
use crate::node::clip;
use crate::types::{FaultSpec, ValueMatchType};

/// Longest delay: longer than any request should take.
const LONGEST: Duration = Duration::from_secs(3600);

pub(super) fn faults(check: &mut Check<'_>, list: &str, faults: &[FaultSpec]) {
    for (index, fault) in faults.iter().enumerate() {
        let base = format!("{list}[{index}]");
        headers(check, &format!("{base}.headers"), fault);
        route::share(check, &base, fault.percent, fault.fraction.as_ref());
        if fault.delay.is_some_and(|delay| delay.is_zero() || delay > LONGEST) {
            let path = format!("{base}.delay");
            check.error("V0015", &path, "is zero, or longer than an hour", "write a duration like 500ms");
        }
        match &fault.abort {
            Some(abort) => {
                let at = format!("{base}.abort");
                if let Some(status) = abort.status.filter(|status| !(400..=599).contains(status)) {
                    let reason = format!("{status} is not the status of an error");
                    check.error("V0028", &format!("{at}.status"), &reason, "write a status from 400 to 599");
                }
                if let Some(name) = &abort.grpc_status
                    && grpc_code(name).is_none_or(|code| code == 0)
                {
                    let reason = format!("{:?} is not the name of a gRPC error", clip(name));
                    check.error("V0028", &format!("{at}.grpcStatus"), &reason, "write a name like UNAVAILABLE");
                }
                if abort.status.is_none() && abort.grpc_status.is_none() {
                    check.error("V0011", &at, "status, grpcStatus or both are needed", "add status: 503");
                }
            }
            None if fault.delay.is_none() => {
                check.error(
                    "V0011",
                    &base,
                    "delay, abort or both are needed",
                    "add delay: 500ms or abort: {status: 503}",
                );
            }
            None => {}
        }
    }
}

/// A fault with a condition that is not understood never acts, and says so.
fn headers(check: &mut Check<'_>, list: &str, fault: &FaultSpec) {
    for (index, rule) in fault.headers.iter().enumerate() {
        let at = format!("{list}[{index}]");
        check.text("V0021", &format!("{at}.name"), &rule.name, grammar::token(&rule.name), "write a name like x-test");
        let path = format!("{at}.value");
        if rule.match_type != ValueMatchType::RegularExpression {
            check.text(
                "V0021",
                &path,
                &rule.value,
                grammar::header_value(&rule.value),
                "write the value as it is sent",
            );
        } else if let Err(error) = veer_core::Pattern::new(&rule.value) {
            let reason = format!("{:?} is no regular expression: {error}; the fault never acts", clip(&rule.value));
            check.warning("V0041", &path, &reason, "write one as RE2 takes it, without Unicode classes");
        }
    }
}
