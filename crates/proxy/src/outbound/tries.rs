//! How often, how long and for what reasons a request is tried.

use std::time::Duration;

use tokio::time::Instant;
use veer_balance::{EndpointKey, RetryBudget};
use veer_core::policy::{DEFAULT_REROUTES, DEFAULT_RETRY_ATTEMPTS, DEFAULT_RETRY_BACKOFF};
use veer_core::route::HttpRule;
use veer_http::Method;

/// What came of one try that is no answer to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing of the request reached anybody who could act on it.
    NothingSent,
    /// The connection was lost, or the callee's proxy lost the application, after something was sent.
    Lost,
    /// A reused connection to the application turned out to be closed.
    Stale,
    /// The try took too long.
    Timeout,
    /// An answer with this status.
    Status(u16),
    /// There was nobody to send to.
    NoEndpoint,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Elsewhere, at once: nobody has seen the request.
    Reroute,
    /// Again, after this wait.
    Retry(Duration),
    /// What came is the answer.
    GiveUp,
    /// As [`Next::GiveUp`], but the answer is that the budget is spent.
    Spent,
}

/// What leads a request to one endpoint rather than another, if anything does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Led {
    /// The endpoint that the request's session is bound to, by its [`id`](veer_balance::Target::id).
    pub bound: Option<u64>,
    /// The hash of its key.
    pub hash: Option<u64>,
}

/// The tries of one request.
pub struct Tries {
    /// When all must be over.
    pub deadline: Option<Instant>,
    /// Time of one try, to the response's head.
    pub limit: Option<Duration>,
    /// Whether the caller told its deadline (gRPC), so that the callee is told what is left of it.
    pub tells_deadline: bool,
    /// Endpoints that failed.
    pub exclude: Vec<EndpointKey>,
    /// To whom the request is led.
    pub led: Led,
    codes: Vec<u16>,
    /// Whether what was sent may be sent again.
    repeatable: bool,
    retries_left: u32,
    reroutes_left: u32,
    backoff: Duration,
    /// Whether the user wrote the wait: then no retry comes before it (GEP-1731).
    is_paced: bool,
    /// Time of one try, to the last byte of the response.
    whole: Option<Duration>,
    retries: u32,
}

impl Tries {
    /// From the rule that matched, the method, and the caller's deadline.
    pub fn new(
        rule: Option<&HttpRule>,
        try_timeout: Option<Duration>,
        method: Method,
        grpc_timeout: Option<Duration>,
        now: Instant,
    ) -> Self {
        let positive = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        let timeouts = rule.map(|rule| rule.timeouts).unwrap_or_default();
        let total = match (positive(timeouts.request), grpc_timeout) {
            (Some(route), Some(caller)) => Some(route.min(caller)),
            (route, caller) => route.or(caller),
        };
        let retry = rule.and_then(|rule| rule.retry.as_ref());
        let of_route = rule.and_then(|rule| rule.policy.as_ref()).and_then(|policy| policy.try_timeout);
        Self {
            deadline: total.map(|total| now + total),
            tells_deadline: grpc_timeout.is_some(),
            limit: positive(timeouts.backend_request).or(positive(of_route.or(try_timeout))),
            exclude: Vec::new(),
            led: Led::default(),
            codes: retry.map(|retry| retry.codes.clone()).unwrap_or_default(),
            // A rule that says `retry` speaks for the methods it matches (GEP-1731).
            repeatable: retry.is_some() || method.is_idempotent(),
            retries_left: retry.and_then(|retry| retry.attempts).unwrap_or(DEFAULT_RETRY_ATTEMPTS),
            reroutes_left: DEFAULT_REROUTES,
            backoff: retry.and_then(|retry| retry.backoff).unwrap_or(DEFAULT_RETRY_BACKOFF),
            is_paced: retry.is_some_and(|retry| retry.backoff.is_some()),
            whole: positive(timeouts.backend_request),
            retries: 0,
        }
    }

    /// When the next try must be over.
    pub fn try_deadline(&self, now: Instant) -> Option<Instant> {
        match (self.limit.map(|limit| now + limit), self.deadline) {
            (Some(one), Some(all)) => Some(one.min(all)),
            (one, all) => one.or(all),
        }
    }

    /// When the answer of a try that began then must have ended.
    pub fn answer_deadline(&self, begun: Instant) -> Option<Instant> {
        match (self.whole.map(|limit| begun + limit), self.deadline) {
            (Some(one), Some(all)) => Some(one.min(all)),
            (one, all) => one.or(all),
        }
    }

    /// Whether an answer with this status is to be tried again, if it may.
    pub fn names(&self, status: u16) -> bool {
        self.codes.contains(&status)
    }

    /// What bounds and repeats the request, for people; `begun` is when it began.
    pub fn words(&self, begun: Instant) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(deadline) = self.deadline {
            all.push(format!("all tries together within {:?}", deadline - begun));
        }
        match (self.whole, self.limit) {
            (Some(whole), _) => all.push(format!("each try within {whole:?}")),
            (None, Some(limit)) => all.push(format!("each try, to the answer's head, within {limit:?}")),
            (None, None) => {}
        }
        if self.repeatable {
            let mut text = format!("at most {} retries, of lost connections", self.retries_left);
            if !self.codes.is_empty() {
                text += &format!(" and of {:?}", self.codes);
            }
            all.push(text + &format!(", after {:?} at least", self.backoff));
        } else {
            all.push("no retry of what was sent: neither the method nor the rule allows it".to_owned());
        }
        all
    }

    /// Decides; takes from the budget when it retries. `whole` says whether the request's body is still there from its start.
    pub fn next(
        &mut self,
        failure: Failure,
        whole: bool,
        budget: &RetryBudget,
        rng: &mut fastrand::Rng,
        now: Instant,
    ) -> Next {
        if failure == Failure::NoEndpoint || !whole || self.deadline.is_some_and(|deadline| now >= deadline) {
            return Next::GiveUp;
        }
        if matches!(failure, Failure::NothingSent) || (failure == Failure::Stale && self.repeatable) {
            if self.reroutes_left == 0 {
                return Next::GiveUp;
            }
            self.reroutes_left -= 1;
            return Next::Reroute;
        }
        if !self.repeatable || self.retries_left == 0 {
            return Next::GiveUp;
        }
        if !budget.retry(now) {
            return if budget.answers() { Next::Spent } else { Next::GiveUp };
        }
        self.retries_left -= 1;
        // Full jitter on top of the least wait, doubling: callers that failed together do not return together.
        let spread = self.backoff * 2u32.saturating_pow(self.retries.min(6));
        self.retries += 1;
        let at_once = failure == Failure::Lost && !self.is_paced;
        let wait = if at_once { Duration::ZERO } else { self.backoff + spread.mul_f64(rng.f64()) };
        match self.deadline {
            Some(deadline) if now + wait >= deadline => Next::GiveUp,
            _ => Next::Retry(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veer_core::policy;
    use veer_core::route::{Retry, Timeouts};

    fn budget(now: Instant) -> RetryBudget {
        RetryBudget::new(&policy::RetryBudget::default(), now)
    }

    #[test]
    fn a_post_is_led_elsewhere_only_while_nobody_has_seen_it() {
        let now = Instant::now();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut tries = Tries::new(None, None, Method::Post, None, now);
        assert_eq!(tries.next(Failure::NothingSent, true, &budget(now), &mut rng, now), Next::Reroute);
        assert_eq!(tries.next(Failure::Lost, true, &budget(now), &mut rng, now), Next::GiveUp);
        assert_eq!(tries.next(Failure::Stale, true, &budget(now), &mut rng, now), Next::GiveUp);
        for _ in 0..3 {
            assert_eq!(tries.next(Failure::NothingSent, true, &budget(now), &mut rng, now), Next::Reroute);
        }
        assert_eq!(tries.next(Failure::NothingSent, true, &budget(now), &mut rng, now), Next::GiveUp);
    }

    #[test]
    fn a_get_is_repeated_twice_while_its_body_is_whole_and_time_is_left() {
        let now = Instant::now();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut tries = Tries::new(None, None, Method::Get, Some(Duration::from_secs(1)), now);
        assert_eq!(tries.next(Failure::Lost, false, &budget(now), &mut rng, now), Next::GiveUp);
        let late = now + Duration::from_secs(1);
        assert_eq!(tries.next(Failure::Lost, true, &budget(now), &mut rng, late), Next::GiveUp);
        for _ in 0..2 {
            assert_eq!(tries.next(Failure::Lost, true, &budget(now), &mut rng, now), Next::Retry(Duration::ZERO));
        }
        assert_eq!(tries.next(Failure::Lost, true, &budget(now), &mut rng, now), Next::GiveUp);
    }

    #[test]
    fn a_rule_speaks_for_its_methods_and_codes() {
        let now = Instant::now();
        let mut rng = fastrand::Rng::with_seed(7);
        let rule = HttpRule {
            retry: Some(Retry { codes: vec![503], attempts: Some(1), backoff: Some(Duration::from_millis(20)) }),
            timeouts: Timeouts { request: Some(Duration::from_secs(2)), backend_request: Some(Duration::from_secs(5)) },
            ..HttpRule::default()
        };
        let mut tries = Tries::new(Some(&rule), None, Method::Post, Some(Duration::from_secs(3)), now);
        assert_eq!(tries.deadline, Some(now + Duration::from_secs(2)));
        assert_eq!(tries.try_deadline(now), Some(now + Duration::from_secs(2)));
        let late = now + Duration::from_millis(500);
        assert_eq!(tries.answer_deadline(late), Some(now + Duration::from_secs(2)));
        assert!(tries.names(503) && !tries.names(502));
        let status = Failure::Status(503);
        let Next::Retry(wait) = tries.next(status, true, &budget(now), &mut rng, now) else { panic!("no retry") };
        assert!((20..=40).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(tries.next(status, true, &budget(now), &mut rng, now), Next::GiveUp);
    }

    #[test]
    fn a_written_wait_is_kept_and_a_try_lasts_to_its_last_byte() {
        let now = Instant::now();
        let mut rng = fastrand::Rng::with_seed(7);
        let wait = Duration::from_millis(50);
        let rule = HttpRule {
            retry: Some(Retry { codes: vec![], attempts: None, backoff: Some(wait) }),
            timeouts: Timeouts { request: None, backend_request: Some(Duration::from_secs(1)) },
            ..HttpRule::default()
        };
        let mut tries = Tries::new(Some(&rule), None, Method::Get, None, now);
        let Next::Retry(waited) = tries.next(Failure::Lost, true, &budget(now), &mut rng, now) else { panic!("none") };
        assert!(waited >= wait, "{waited:?}");
        assert_eq!(tries.answer_deadline(now + wait), Some(now + wait + Duration::from_secs(1)));
        // A time-out of a policy is for the head alone.
        let tries = Tries::new(None, Some(wait), Method::Get, None, now);
        assert_eq!((tries.try_deadline(now), tries.answer_deadline(now)), (Some(now + wait), None));
    }

    #[test]
    fn the_budget_ends_retries() {
        let now = Instant::now();
        let mut rng = fastrand::Rng::with_seed(7);
        let none = policy::RetryBudget { ratio: 0.0, min_per_second: 0.0, ..policy::RetryBudget::default() };
        let budget = RetryBudget::new(&none, now);
        let mut tries = Tries::new(None, None, Method::Get, None, now);
        assert_eq!(tries.next(Failure::Lost, true, &budget, &mut rng, now), Next::GiveUp);
        budget.set_policy(&policy::RetryBudget { answers: true, ..none });
        let mut tries = Tries::new(None, None, Method::Get, None, now);
        assert_eq!(tries.next(Failure::Lost, true, &budget, &mut rng, now), Next::Spent);
        // What must not be repeated asks nothing of the budget.
        let mut tries = Tries::new(None, None, Method::Post, None, now);
        assert_eq!(tries.next(Failure::Lost, true, &budget, &mut rng, now), Next::GiveUp);
    }
}
