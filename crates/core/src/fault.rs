//! Faults that are injected on purpose, to learn how callers bear them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::route::ValueMatch;

/// A fault for a share of a service's requests, made by the caller's proxy. Of several rules the first acts whose conditions
/// hold and whose share the request falls into.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultRule {
    /// Conditions on header fields, all of which must hold. A condition that only a newer version knows holds never.
    pub headers: Vec<ValueMatch>,
    /// So many of [`Self::denominator`] requests.
    pub numerator: u32,
    /// 0: none.
    pub denominator: u32,
    /// The request waits so long before it goes on. It counts toward the time that the request may take.
    pub delay: Option<Duration>,
    /// The request is answered in place of the service, after the delay.
    pub abort: Option<Abort>,
    /// Who wrote it, such as `TrafficPolicy shop/cart`. Empty: those who wrote the policy that it stands in.
    pub by: Arc<str>,
}

/// An answer in place of the service's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Abort {
    /// HTTP status. `None`: only gRPC requests are answered.
    pub status: Option<u16>,
    /// Status for gRPC requests. `None`: the one that gRPC clients make of the HTTP status.
    pub grpc: Option<u8>,
}

impl Abort {
    /// The gRPC status to answer with, if any status is written (gRPC, "HTTP to gRPC Status Code Mapping").
    pub fn grpc_status(self) -> Option<u8> {
        self.grpc.or_else(|| {
            Some(match self.status? {
                400 => 13,
                401 => 16,
                403 => 7,
                404 => 12,
                429 | 502..=504 => 14,
                _ => 2,
            })
        })
    }
}

impl fmt::Display for FaultRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "fault for {} of {} requests", self.numerator, self.denominator)?;
        for condition in &self.headers {
            write!(out, ", header {condition}")?;
        }
        if let Some(delay) = self.delay {
            write!(out, ": delay {delay:?}")?;
        }
        if let Some(abort) = self.abort {
            out.write_str(if self.delay.is_some() { ", then abort" } else { ": abort" })?;
            if let Some(status) = abort.status {
                write!(out, " with {status}")?;
            }
            if let Some(name) = abort.grpc.and_then(grpc_name) {
                write!(out, " with gRPC {name}")?;
            }
        }
        Ok(())
    }
}

const GRPC_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a gRPC status code.
pub fn grpc_name(code: u8) -> Option<&'static str> {
    GRPC_NAMES.get(usize::from(code)).copied()
}

/// The code of a gRPC status by its name, such as `UNAVAILABLE`.
pub fn grpc_code(name: &str) -> Option<u8> {
    GRPC_NAMES.iter().position(|known| *known == name).and_then(|code| code.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_becomes_what_a_client_makes_of_it() {
        let of = |status, grpc| Abort { status, grpc }.grpc_status();
        assert_eq!(of(Some(503), None), grpc_code("UNAVAILABLE"));
        assert_eq!(of(Some(404), None), grpc_code("UNIMPLEMENTED"));
        assert_eq!(of(Some(500), None), grpc_code("UNKNOWN"));
        assert_eq!(of(Some(503), grpc_code("DATA_LOSS")), Some(15));
        assert_eq!(of(None, None), None);
        assert_eq!((grpc_code("unavailable"), grpc_name(14), grpc_name(17)), (None, Some("UNAVAILABLE"), None));
    }
}
