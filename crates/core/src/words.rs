//! Routes in words, for people: the same in every tool.

use std::fmt;

use crate::policy::TrafficPolicy;
use crate::route::{
    Backend, Comparison, Filter, HttpMatch, Mirror, PathMatch, RulePolicy, SessionCarrier, SessionPersistence,
    ValueMatch,
};

impl fmt::Display for HttpMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.method.as_ref().map(|method| format!("method {method}")));
        parts.extend(self.path.as_ref().map(ToString::to_string));
        parts.extend(self.headers.iter().map(|header| format!("header {header}")));
        parts.extend(self.query.iter().map(|parameter| format!("query {parameter}")));
        f.write_str(if parts.is_empty() { "always" } else { "" })?;
        f.write_str(&parts.join(" and "))
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathMatch::Exact(path) => write!(f, "path = {path}"),
            PathMatch::Prefix(path) => write!(f, "path under {path}"),
            PathMatch::Regex(pattern) => write!(f, "path ~ {pattern}"),
            PathMatch::Grpc { service, method } => {
                write!(f, "call of {}/{}", service.as_deref().unwrap_or("*"), method.as_deref().unwrap_or("*"))
            }
            PathMatch::GrpcRegex { service, method } => {
                write!(f, "call ~ {}/{}", service.as_deref().unwrap_or(".*"), method.as_deref().unwrap_or(".*"))
            }
            PathMatch::Unknown(_) => f.write_str("path as only a newer version knows"),
        }
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            Comparison::Exact => write!(f, "{} = {}", self.name, self.value),
            Comparison::Regex => write!(f, "{} ~ {}", self.name, self.value),
            Comparison::Unknown => write!(f, "{} as only a newer version knows", self.name),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.invalid {
            Some(reason) => write!(f, "500: {reason} (weight {})", self.weight)?,
            None => write!(f, "{}:{} (weight {})", self.host, self.port, self.weight)?,
        }
        if !self.filters.is_empty() {
            let filters: Vec<_> = self.filters.iter().map(ToString::to_string).collect();
            write!(f, " {{{}}}", filters.join("; "))?;
        }
        Ok(())
    }
}

impl TrafficPolicy {
    /// What it says, in words; faults and sessions tell themselves.
    pub fn words(&self) -> Vec<String> {
        let Self { slow_start, outlier, circuit_breaker, retry_budget, session, hash, limits, .. } = self;
        let mut all = vec![
            format!(
                "at most {} requests in flight to one copy, {} to all",
                circuit_breaker.max_requests_per_endpoint, circuit_breaker.max_requests
            ),
            format!(
                "ejection for {:?} after {} failures in a row, or {:.0} % of at least {} within {:?}",
                outlier.base_ejection,
                outlier.consecutive_failures,
                outlier.failure_ratio * 100.0,
                outlier.minimum_requests,
                outlier.interval
            ),
            format!(
                "retries for {:.0} % of requests within {:?}, at least {} per second{}",
                retry_budget.ratio * 100.0,
                retry_budget.interval,
                retry_budget.min_per_second,
                if retry_budget.answers { ", then 503" } else { "" }
            ),
            format!("slow start within {slow_start:?}"),
        ];
        all.extend(circuit_breaker.adaptive.as_ref().map(|adaptive| {
            format!(
                "requests in flight follow an average latency of {:?}, never fewer than {}",
                adaptive.latency, adaptive.min_requests
            )
        }));
        all.extend(session.as_ref().map(ToString::to_string));
        all.extend(hash.as_ref().map(ToString::to_string));
        all.extend(limits.iter().map(|limit| format!("each copy takes {limit} by {}", limit.by)));
        all
    }
}

impl RulePolicy {
    /// What it says, and who wrote it.
    pub fn words(&self) -> Vec<String> {
        let by = &self.by;
        let limit = self.try_timeout.map(|limit| match limit.is_zero() {
            true => format!("each try without a limit by {by}"),
            false => format!("each try's head within {limit:?} by {by}"),
        });
        limit.into_iter().chain(self.faults.iter().map(|fault| format!("{fault} by {by}"))).collect()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Filter::RequestHeaders(_) => f.write_str("changes request headers"),
            Filter::ResponseHeaders(_) => f.write_str("changes response headers"),
            Filter::Redirect { status, .. } => write!(f, "redirects with {status}"),
            Filter::Rewrite { host, path } => {
                f.write_str("rewrites")?;
                host.iter().try_for_each(|host| write!(f, " host to {host}"))?;
                f.write_str(if path.is_some() { " path" } else { "" })
            }
            Filter::Fail { status, reason } => write!(f, "answers {status}: {reason}"),
            Filter::Mirror(Mirror { to, numerator, denominator }) => match &to.invalid {
                Some(reason) => write!(f, "copies nothing: {reason}"),
                None if numerator >= denominator => write!(f, "copies to {}:{}", to.host, to.port),
                None => write!(f, "copies {numerator} of {denominator} to {}:{}", to.host, to.port),
            },
            Filter::Cors(cors) => write!(f, "shares with origins {}", cors.allow_origins.join(", ")),
            Filter::ExternalAuth(auth) => match &auth.to.invalid {
                Some(reason) => write!(f, "answers 500: {reason}"),
                None => write!(f, "asks {}:{} for leave", auth.to.host, auth.to.port),
            },
            Filter::Unknown(_) => f.write_str("answers 500: only a newer version knows this filter"),
        }
    }
}

impl fmt::Display for SessionPersistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carrier = match self.carrier {
            SessionCarrier::Cookie | SessionCarrier::PermanentCookie => "cookie",
            SessionCarrier::Header => "header",
            SessionCarrier::Unknown => return f.write_str("sessions as only a newer version knows"),
        };
        write!(f, "sessions by {carrier} {}", self.name)?;
        self.absolute_timeout.iter().try_for_each(|limit| write!(f, " for {limit:?}"))
    }
}
