//! Whether the callee lets a request or connection in.

use std::fmt::Write;
use std::sync::Arc;

use veer_core::names::{SpiffeId, TrustDomain};
use veer_core::policy::{AuthorizationAction, AuthorizationPolicy, AuthorizationRule, CallerMatch, RequestMatch};

use crate::path::NormalPath;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Port of the workload.
    pub port: u16,
    /// The method; `None` for a connection whose requests are not seen.
    pub method: Option<&'a str>,
    /// The path; `None` for a connection whose requests are not seen.
    pub path: Option<&'a NormalPath<'a>>,
}

/// The decision, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may pass.
    pub allowed: bool,
    /// The policy that matched. `None` when none did: passed because no ALLOW policy selects the workload, refused because none of
    /// those that do allows this.
    pub by: Option<Arc<str>>,
}

/// A workload's policies, compiled.
#[derive(Debug, Clone)]
pub struct Authorizer {
    own: TrustDomain,
    deny: Vec<AuthorizationPolicy>,
    allow: Vec<AuthorizationPolicy>,
}

impl Authorizer {
    /// Sorts the policies by action and brings their paths into the normal form that requests have.
    pub fn new(policies: &[AuthorizationPolicy], own: TrustDomain) -> Self {
        let of = |action| {
            let of_action = policies.iter().filter(|policy| policy.action == action);
            of_action.cloned().map(with_normal_paths).collect()
        };
        Self { own, deny: of(AuthorizationAction::Deny), allow: of(AuthorizationAction::Allow) }
    }

    /// Decides. `caller` is the identity that a finished handshake proved, `None` for plaintext.
    ///
    /// DENY is looked at first. If any ALLOW policy selects the workload, what none of them allows is refused. Where requests are
    /// not seen, a rule on methods or paths never allows and always denies: it fails closed.
    pub fn check(&self, caller: Option<&SpiffeId>, asked: &Asked<'_>) -> Verdict {
        let first = |policies: &[AuthorizationPolicy], unseen: bool| {
            let matching = policies
                .iter()
                .find(|policy| policy.rules.iter().any(|rule| self.rule_holds(rule, caller, asked, unseen)));
            matching.map(|policy| policy.name.clone())
        };
        if let Some(policy) = first(&self.deny, true) {
            return Verdict { allowed: false, by: Some(policy) };
        }
        let by = first(&self.allow, false);
        Verdict { allowed: by.is_some() || self.allow.is_empty(), by }
    }

    fn rule_holds(&self, rule: &AuthorizationRule, caller: Option<&SpiffeId>, asked: &Asked<'_>, unseen: bool) -> bool {
        (rule.from.is_empty() || rule.from.iter().any(|from| self.caller_holds(from, caller)))
            && (rule.to.is_empty() || rule.to.iter().any(|to| request_holds(to, asked, unseen)))
    }

    fn caller_holds(&self, from: &CallerMatch, caller: Option<&SpiffeId>) -> bool {
        let CallerMatch { principals, namespaces, trust_domains } = from;
        if principals.is_empty() && namespaces.is_empty() && trust_domains.is_empty() {
            return true;
        }
        let Some(caller) = caller else { return false };
        (principals.is_empty() || principals.iter().any(|pattern| is_principal(pattern, caller)))
            && (namespaces.is_empty() || caller.trust_domain == self.own && namespaces.contains(&caller.namespace))
            && (trust_domains.is_empty()
                || trust_domains.iter().any(|domain| **domain == *caller.trust_domain.as_str()))
    }
}

/// [`Authorizer::check`] of policies that are used once.
pub fn authorize(
    policies: &[AuthorizationPolicy],
    caller: Option<&SpiffeId>,
    own: &TrustDomain,
    asked: &Asked<'_>,
) -> Verdict {
    Authorizer::new(policies, own.clone()).check(caller, asked)
}

/// `unseen` is the answer of a condition on something that is not seen.
fn request_holds(to: &RequestMatch, asked: &Asked<'_>, unseen: bool) -> bool {
    let method = |method: &str| to.methods.iter().any(|m| **m == *method);
    let path = |path: &NormalPath<'_>| to.paths.iter().any(|pattern| is_pattern(pattern, path.as_str()));
    (to.ports.is_empty() || to.ports.contains(&asked.port))
        && (to.methods.is_empty() || asked.method.map_or(unseen, method))
        && (to.paths.is_empty() || asked.path.map_or(unseen, path))
}

fn is_pattern(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => text == pattern,
    }
}

/// Holds the identity's text against the pattern without making the text.
fn is_principal(pattern: &str, id: &SpiffeId) -> bool {
    struct Rest<'p> {
        pattern: &'p str,
        open: bool,
    }
    impl std::fmt::Write for Rest<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            if self.open && text.len() >= self.pattern.len() {
                // The pattern ends inside this piece, and anything may follow.
                return if text.starts_with(self.pattern) { self.finish() } else { Err(std::fmt::Error) };
            }
            self.pattern = self.pattern.strip_prefix(text).ok_or(std::fmt::Error)?;
            Ok(())
        }
    }
    impl Rest<'_> {
        fn finish(&mut self) -> std::fmt::Result {
            self.pattern = "";
            Ok(())
        }
    }
    let (pattern, open) = pattern.strip_suffix('*').map_or((pattern, false), |beginning| (beginning, true));
    let mut rest = Rest { pattern, open };
    write!(rest, "{id}").is_ok() && rest.pattern.is_empty()
}

/// A pattern without normal form is kept as it is: no request has such a path either.
fn with_normal_paths(mut policy: AuthorizationPolicy) -> AuthorizationPolicy {
    for path in policy.rules.iter_mut().flat_map(|rule| &mut rule.to).flat_map(|to| &mut to.paths) {
        let normal = match path.strip_suffix('*') {
            Some("") => continue,
            // A letter stands for the open end, so that a dot before it is not taken for a whole segment.
            Some(beginning) => NormalPath::parse(&format!("{beginning}x"))
                .map(|normal| format!("{}*", normal.as_str().strip_suffix('x').unwrap_or(beginning))),
            None => NormalPath::parse(path).map(|normal| normal.as_str().to_owned()),
        };
        if let Ok(normal) = normal {
            *path = normal.into();
        }
    }
    policy
}

#[cfg(test)]
#[path = "authorize_tests.rs"]
mod tests;
