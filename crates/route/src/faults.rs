//! Which requests a fault is injected into.

use veer_core::fault::FaultRule;
use veer_core::route::HttpMatch;

use crate::backend::Share;
use crate::matcher::Candidate;
use crate::path::NormalPath;
use crate::request::{Headers, RequestView};

/// The faults of a service, compiled.
#[derive(Debug)]
pub struct Faults(Box<[Fault]>);

#[derive(Debug)]
struct Fault {
    condition: Candidate,
    share: Share,
    rule: FaultRule,
}

impl Faults {
    /// Compiles; `None` where there is nothing that could ever act. A rule with a condition that this version does not
    /// understand never acts.
    pub fn new(rules: &[FaultRule]) -> Option<Self> {
        let faults = rules.iter().filter(|rule| rule.delay.is_some() || rule.abort.is_some()).filter_map(|rule| {
            let mut broken = None;
            let condition = HttpMatch { headers: rule.headers.clone(), ..HttpMatch::default() };
            let (_, condition) = Candidate::new(0, &condition, &mut broken)?;
            let share = Share::new(rule.numerator, rule.denominator);
            broken.is_none().then(|| Fault { condition, share, rule: rule.clone() })
        });
        let faults: Box<[Fault]> = faults.collect();
        (!faults.is_empty()).then_some(Self(faults))
    }

    /// The fault for this request, if it gets one. Ask once per request: shares are counted.
    pub fn due<H: Headers>(&self, authority: Option<&str>, headers: &H) -> Option<&FaultRule> {
        self.0.iter().find(|fault| holds(fault, authority, headers) && fault.share.is_due()).map(|fault| &fault.rule)
    }

    /// The faults whose conditions hold for a request, whatever their share: some of them may act on it.
    pub fn possible<'a, H: Headers>(
        &'a self,
        authority: Option<&'a str>,
        headers: &'a H,
    ) -> impl Iterator<Item = &'a FaultRule> {
        self.0.iter().filter(move |fault| holds(fault, authority, headers)).map(|fault| &fault.rule)
    }
}

fn holds<H: Headers>(fault: &Fault, authority: Option<&str>, headers: &H) -> bool {
    // Conditions are on header fields alone.
    NormalPath::parse("/").is_ok_and(|path| {
        let view = RequestView { method: "", path: &path, query: None, authority, headers };
        fault.condition.holds(&view)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;
    use veer_core::fault::Abort;
    use veer_core::route::{Comparison, ValueMatch};

    use super::*;

    fn rule(headers: Vec<ValueMatch>, numerator: u32) -> FaultRule {
        let abort = Some(Abort { status: Some(503), grpc: None });
        FaultRule { headers, numerator, denominator: 100, abort, ..FaultRule::default() }
    }

    fn fields(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_first_rule_acts_whose_conditions_hold() {
        let delay = FaultRule { delay: Some(Duration::from_secs(1)), abort: None, ..rule(vec![], 100) };
        let faults = Faults::new(&[
            rule(vec![ValueMatch::exact("x-test", "a"), ValueMatch::regex("x-user", "a.*")], 100),
            delay.clone(),
        ])
        .unwrap();
        assert!(faults.due(None, &fields(&[("x-test", "a"), ("x-user", "ada")])).unwrap().abort.is_some());
        assert_eq!(faults.due(None, &fields(&[("x-test", "a"), ("x-user", "bob")])), Some(&delay));
        assert_eq!(faults.due(None, &fields(&[])), Some(&delay));
        assert_eq!(faults.possible(None, &fields(&[("x-test", "a"), ("x-user", "ada")])).count(), 2);
    }

    #[test]
    fn a_share_of_requests_gets_it() {
        let faults = Faults::new(&[rule(vec![], 20)]).unwrap();
        let due = (0..1000).filter(|_| faults.due(None, &fields(&[])).is_some()).count();
        assert!((195..=205).contains(&due), "{due}");
    }

    #[test]
    fn what_does_nothing_or_is_not_understood_never_acts() {
        let nothing = FaultRule { abort: None, ..rule(vec![], 100) };
        let unknown = ValueMatch { by: Comparison::Unknown, ..ValueMatch::exact("x-test", "a") };
        let broken = ValueMatch::regex("x-test", "(");
        assert!(Faults::new(&[nothing, rule(vec![unknown], 100), rule(vec![broken], 100)]).is_none());
    }
}
