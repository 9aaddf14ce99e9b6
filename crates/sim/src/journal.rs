//! What happened, in order.

use std::cell::{Ref, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Virtual time since the start.
    pub at: Duration,
    /// Where it was seen: `cluster/host`.
    pub host: Rc<str>,
    /// What it was.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A request was answered.
    Served {
        /// Number of the request at its caller.
        number: u64,
        /// `cluster/workload` that answered.
        by: String,
        /// The caller as the callee's proxy verified it.
        caller: String,
        /// Time to the whole answer.
        took: Duration,
    },
    /// A request was not answered with success.
    Failed {
        /// Number of the request at its caller.
        number: u64,
        /// Why.
        reason: String,
        /// Time to the failure.
        took: Duration,
    },
    /// A control plane believes something else of a peer now.
    Peer {
        /// The peer.
        cluster: String,
        /// What is believed.
        state: String,
        /// Services and endpoints known of it.
        offers: (usize, usize),
    },
    /// Something else about a caller's proxy: endpoints by cluster and state, ejections.
    Proxy {
        /// Name of the series.
        series: String,
        /// Its value now.
        value: f64,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} {} ", self.at.as_secs_f64(), self.host)?;
        match &self.what {
            What::Served { number, by, caller, took } => write!(f, "#{number} served by {by} for {caller} in {took:?}"),
            What::Failed { number, reason, took } => write!(f, "#{number} failed in {took:?}: {reason}"),
            What::Peer { cluster, state, offers: (services, endpoints) } => {
                write!(f, "peer {cluster} {state}, {services} services, {endpoints} endpoints")
            }
            What::Proxy { series, value } => write!(f, "{series} = {value}"),
        }
    }
}

/// All events so far. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Journal(Rc<RefCell<Vec<Event>>>);

impl Journal {
    /// Adds an event that is seen now, on the host that runs.
    pub(crate) fn note(&self, host: &Rc<str>, what: What) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        self.0.borrow_mut().push(Event { at, host: Rc::clone(host), what });
    }

    /// The events in their order.
    pub fn events(&self) -> Ref<'_, [Event]> {
        Ref::map(self.0.borrow(), Vec::as_slice)
    }

    /// Requests answered since then: by whom and in what time.
    pub fn served(&self, since: Duration) -> Vec<(Duration, String, Duration)> {
        let events = self.events();
        let served = events.iter().filter(|event| event.at >= since).filter_map(|event| match &event.what {
            What::Served { by, took, .. } => Some((event.at, by.clone(), *took)),
            _ => None,
        });
        served.collect()
    }

    /// Requests that failed since then.
    pub fn failed(&self, since: Duration) -> Vec<Event> {
        let failed = |event: &&Event| event.at >= since && matches!(event.what, What::Failed { .. });
        self.events().iter().filter(failed).cloned().collect()
    }

    /// One line per event.
    pub fn text(&self) -> String {
        self.events().iter().map(|event| format!("{event}\n")).collect()
    }
}
