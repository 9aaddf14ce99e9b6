//! Which of two matches that both hold wins: the Gateway API's order.
//!
//! *HTTPRoute*: exact path, then the longest prefix, then a method, then most headers, then most query parameters.
//! *GRPCRoute*: most characters of the service, then of the method, then most headers. Ties of both: the older route, then the
//! smaller `namespace/name`, then the first rule of the route.
//!
//! Where a regular expression stands in the order is left to implementations. Here it comes behind an exact path and before every
//! prefix, the longest expression first: a prefix is nearly always the wider condition, and a fallback for `/` must not hide it.
//!
//! The path's part of the order is not compared here: [`crate::Matcher`] asks exact paths before patterns, those before prefixes
//! and longer ones before shorter ones, which is the same and faster.

use std::cmp::Reverse;

use veer_core::route::{HttpMatch, HttpRoute};

/// The order of matches with the same path condition; the smallest wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    no_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    age: Age,
    name: String,
    rule: usize,
    alternative: usize,
}

/// Routes with a time stamp come before those without: an object of a folder has none and is not *old*.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// RFC 3339 in UTC, as Kubernetes writes it: orders as text.
    Created(String),
    Unknown,
}

impl Rank {
    pub(crate) fn new(route: &HttpRoute, rule: usize, condition: &HttpMatch, alternative: usize) -> Self {
        Self {
            no_method: condition.method.is_none(),
            headers: Reverse(condition.headers.len()),
            query: Reverse(condition.query.len()),
            age: route.created.as_ref().map_or(Age::Unknown, |at| Age::Created(at.to_string())),
            name: route.name.to_string(),
            rule,
            alternative,
        }
    }
}
