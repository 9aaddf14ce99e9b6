//! Faults injected on purpose: requests wait, or are answered in place of the service. Only requests that a fault is due for
//! come further than a look.

use std::pin::Pin;

use tokio::time::Instant;
use veer_core::fault::{Abort, FaultRule, grpc_name};
use veer_route::{Faults, Rule};
use veer_telemetry::Flag;
use veer_telemetry::family::counters;

use super::attempt::Asked;
use super::tries::Tries;
use crate::error::RequestError;
use crate::exchange::Exchange;
use crate::http::serve::Response;
use crate::http::{Protocol, fields, reply};
use crate::knowledge::Backend;
use crate::worker::Worker;

/// The response field that says that a fault was injected, and which: `delay` or `abort`.
pub const FAULT_FIELD: &[u8] = b"x-veer-fault";

/// The answer in place of the service's, or `None` when the request goes on after its delay.
type Injecting<'a> = Pin<Box<dyn Future<Output = Result<Option<Response>, RequestError>> + 'a>>;

/// The fault that is due for the request, if one is. Fails when the time of the request is over before its delay is.
pub fn inject<'a>(
    worker: &'a Worker,
    backend: &Backend,
    faults: &Faults,
    rule: Option<&Rule>,
    asked: &Asked,
    exchange: &'a mut Exchange,
) -> Option<Injecting<'a>> {
    let authority = asked.head.authority().and_then(|authority| std::str::from_utf8(authority).ok());
    let fault = faults.due(authority, &asked.head.fields)?;
    let protocol = asked.protocol;
    let abort = fault.abort.and_then(|abort| answer(abort, protocol, &author(fault, backend)));
    if abort.is_none() && fault.delay.is_none() {
        return None;
    }
    for (kind, done) in [("delay", fault.delay.is_some()), ("abort", abort.is_some())] {
        if done {
            let labels = &[backend.host.as_str(), kind];
            worker.process.telemetry.metrics.counter(&counters::INJECTED_FAULTS, labels).inc();
        }
    }
    exchange.note(|line| line.reason = reason(fault, backend).into());
    let caller = if protocol == Protocol::Grpc { fields::grpc_timeout(&asked.head.fields) } else { None };
    let limit = Tries::new(rule.map(|rule| &rule.spec), None, asked.head.method(), caller, exchange.begun()).deadline;
    let until = fault.delay.map(|delay| Instant::now() + delay);
    Some(Box::pin(async move {
        if let Some(until) = until {
            tokio::time::sleep_until(limit.map_or(until, |limit| limit.min(until))).await;
            if limit.is_some_and(|limit| limit <= until) {
                return Err(RequestError::Timeout);
            }
        }
        if abort.is_some() {
            exchange.flagged(Flag::FaultInjected);
        }
        Ok(abort)
    }))
}

fn reason(fault: &FaultRule, backend: &Backend) -> String {
    format!("injected on purpose by {}: {fault}", author(fault, backend))
}

fn author(fault: &FaultRule, backend: &Backend) -> String {
    if fault.by.is_empty() { backend.policy_by() } else { fault.by.to_string() }
}

/// `None` when the abort says nothing for what the caller speaks.
fn answer(abort: Abort, protocol: Protocol, by: &str) -> Option<Response> {
    let text = format!("veer: {} a fault was injected on purpose by {by}", Flag::FaultInjected);
    let mut response = if protocol == Protocol::Grpc {
        let code = abort.grpc_status()?;
        reply::grpc(code, &format!("{text} ({})", grpc_name(code).unwrap_or("unknown")))
    } else {
        reply::plain(abort.status?, format!("{text}\n"))
    };
    response.head.fields.set_other(FAULT_FIELD, b"abort");
    Some(response)
}
