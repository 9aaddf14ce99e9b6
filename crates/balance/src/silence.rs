//! Endpoints that take requests and answer none: a hung process keeps its connections, and its kernel acknowledges what is sent to it.
//!
//! How long an endpoint has been silent is the age of the first request that went to it after its last answer: a bound from below for the
//! latency of that request. Any answer ends it, so that a long poll among quick answers says nothing, and what counts is
//! the response's head, not the end of a stream. Beyond the endpoint's *patience* (a multiple of its usual latency) requests go elsewhere while
//! there is somebody else; one is let through each time that the silence has doubled, which is how the endpoint is found again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Micros;

/// No silence is shorter: a pause of garbage collection or a loaded machine is none.
const SHORTEST: f64 = 100_000.0;
/// Patience in multiples of the usual latency, beyond [`SHORTEST`].
const PATIENCE: f64 = 5.0;
/// A silent endpoint is asked at least this often.
const LONGEST_PAUSE: Micros = 5_000_000;

#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// When the first request after the last answer began; 0 when there is none.
    asked_at: AtomicU64,
    /// 0 while no latency is known to measure by: then nothing counts as silence.
    patience: AtomicU64,
    /// When a silent endpoint is asked again; 0 when it is not silent.
    ask_at: AtomicU64,
}

impl Silence {
    /// A request goes to the endpoint.
    pub(crate) fn asked(&self, now: Micros) {
        if self.asked_at.load(Relaxed) == 0 {
            self.asked_at.store(now, Relaxed);
        }
    }

    /// The endpoint answers; says whether it had been silent.
    pub(crate) fn answered(&self) -> bool {
        if self.asked_at.load(Relaxed) != 0 {
            self.asked_at.store(0, Relaxed);
        }
        self.is_silent() && self.ask_at.swap(0, Relaxed) != 0
    }

    /// A request that began at `started` ended without an answer. Where nobody has found the endpoint silent meanwhile, the time that the request
    /// has waited is forgotten with it: the endpoint may not have been asked since.
    pub(crate) fn given_up(&self, started: Micros) {
        if !self.is_silent() {
            let _ = self.asked_at.compare_exchange(started, 0, Relaxed, Relaxed);
        }
    }

    /// Takes the usual latency in microseconds.
    pub(crate) fn set_usual(&self, latency: Option<f64>) {
        let patience = latency.map_or(0, |latency| (SHORTEST + PATIENCE * latency) as Micros);
        self.patience.store(patience, Relaxed);
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.ask_at.load(Relaxed) != 0
    }

    /// How long it has been silent, if it is.
    pub(crate) fn lasts(&self, now: Micros) -> Option<Micros> {
        self.is_silent().then(|| now.saturating_sub(self.asked_at.load(Relaxed)))
    }

    /// Whether a request should go elsewhere.
    pub(crate) fn turns_away(&self, now: Micros) -> Turn {
        let since = self.asked_at.load(Relaxed);
        if since == 0 {
            return Turn::Welcome;
        }
        let (age, ask_at) = (now.saturating_sub(since), self.ask_at.load(Relaxed));
        if ask_at == 0 {
            let patience = self.patience.load(Relaxed);
            if patience == 0 || age <= patience {
                return Turn::Welcome;
            }
        } else if now < ask_at {
            return Turn::Away;
        }
        self.next_turn(now, age, ask_at)
    }

    /// The endpoint is found silent, or it is time to ask it once more.
    #[cold]
    fn next_turn(&self, now: Micros, age: Micros, ask_at: Micros) -> Turn {
        let next = now + age.min(LONGEST_PAUSE);
        // One of all workers asks; of those who find it silent at once, one says so.
        let first = self.ask_at.compare_exchange(ask_at, next, Relaxed, Relaxed).is_ok();
        match (first, ask_at) {
            (true, 0) => Turn::FoundSilent,
            (true, _) => Turn::Welcome,
            (false, _) => Turn::Away,
        }
    }
}

/// What becomes of a request that would go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Welcome,
    /// As [`Turn::Away`], for the first time.
    FoundSilent,
    Away,
}

#[cfg(test)]
#[path = "silence_tests.rs"]
mod tests;
