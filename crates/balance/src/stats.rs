//! What this process has seen of one endpoint. All atomics: workers of one process share it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::{Micros, micros, seconds};
use crate::silence::Silence;
use crate::snapshot::Events;

/// First pause before an endpoint that cannot be reached is dialled again; doubles up to [`REDIAL_LONGEST`].
const REDIAL_FIRST: Duration = Duration::from_millis(250);
const REDIAL_LONGEST: Duration = Duration::from_secs(5);
/// Share of its weight that an endpoint begins a slow start with: enough to be measured.
const RAMP_BEGIN: f64 = 0.1;
/// A rise of latency is believed within this time, a fall within the next: to send too much to a slow endpoint costs callers
/// more than to send too little to a fast one.
const LATENCY_RISE: f64 = 1.0;
const LATENCY_FALL: f64 = 5.0;
/// Reported utilisation is smoothed over this time and forgotten after the next.
const LOAD_TIME: f64 = 1.0;
const LOAD_FORGET: Micros = 5_000_000;

/// Pause before the next dial after so many that failed.
pub(crate) fn redial_pause(attempts: u32) -> Micros {
    (micros(REDIAL_FIRST) << attempts.min(16)).min(micros(REDIAL_LONGEST))
}

/// What an endpoint is to its callers now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Takes its share.
    Healthy,
    /// New or returned: takes a growing part of its share.
    SlowStart,
    /// Failed too often: out for a time.
    Ejected,
    /// Takes requests and answers none: asked now and then, until it answers.
    Silent,
    /// Cannot be reached: out until a dial succeeds.
    Unreachable,
    /// Its cluster says that it is to get nothing new.
    NotReady,
}

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) in_flight: AtomicU32,
    /// Bits of an `f32`; what the plan gave it.
    weight: AtomicU32,
    /// Bits of an `f64`, microseconds; 0.0 before the first answer.
    latency: AtomicU64,
    latency_at: AtomicU64,
    pub(crate) silence: Silence,
    /// Bits of an `f64`.
    load: AtomicU64,
    load_at: AtomicU64,

    pub(crate) consecutive: AtomicU32,
    pub(crate) window: FailureWindow,
    pub(crate) ejected_until: AtomicU64,
    /// The next ejection lasts this many times the base, plus one.
    pub(crate) ejection_level: AtomicU32,
    /// When the level falls by one.
    pub(crate) calm_at: AtomicU64,
    pub(crate) ejections: AtomicU64,
    /// No ejection is considered before: the limit was reached.
    pub(crate) spared_until: AtomicU64,

    pub(crate) unreachable_since: AtomicU64,
    attempts: AtomicU32,
    probe_at: AtomicU64,

    pub(crate) ready: AtomicBool,
    pub(crate) ramp_from: AtomicU64,
    /// When it last returned: what began before says nothing about it now.
    pub(crate) returned_at: AtomicU64,
}

impl Stats {
    pub(crate) fn is_reachable(&self) -> bool {
        self.unreachable_since.load(Relaxed) == 0
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected_until.load(Relaxed) != 0
    }

    /// Whether it is picked as long as there is a choice.
    pub(crate) fn is_fit(&self) -> bool {
        self.ready.load(Relaxed) && self.is_reachable() && !self.is_ejected()
    }

    pub(crate) fn state(&self, now: Micros, slow_start: Micros) -> EndpointState {
        if !self.ready.load(Relaxed) {
            EndpointState::NotReady
        } else if !self.is_reachable() {
            EndpointState::Unreachable
        } else if self.is_ejected() {
            EndpointState::Ejected
        } else if self.silence.is_silent() {
            EndpointState::Silent
        } else if self.ramp(now, slow_start) < 1.0 {
            EndpointState::SlowStart
        } else {
            EndpointState::Healthy
        }
    }

    /// Counts a request in, unless `limit` are in flight.
    pub(crate) fn enter(&self, limit: u32) -> Option<u32> {
        let before = self.in_flight.fetch_add(1, Relaxed);
        if before >= limit {
            self.in_flight.fetch_sub(1, Relaxed);
            return None;
        }
        Some(before)
    }

    pub(crate) fn weight(&self) -> f32 {
        f32::from_bits(self.weight.load(Relaxed))
    }

    /// Sets the weight; says whether it moved by more than a tenth.
    pub(crate) fn set_weight(&self, weight: f32) -> bool {
        let before = f32::from_bits(self.weight.swap(weight.to_bits(), Relaxed));
        (weight - before).abs() > before.abs() * 0.1
    }

    /// Part of its weight that slow start grants.
    pub(crate) fn ramp(&self, now: Micros, slow_start: Micros) -> f64 {
        let from = self.ramp_from.load(Relaxed);
        if from == 0 || slow_start == 0 {
            return 1.0;
        }
        (now.saturating_sub(from) as f64 / slow_start as f64).clamp(RAMP_BEGIN, 1.0)
    }

    /// The endpoint answers.
    pub(crate) fn answered(&self, events: &Events) {
        if self.silence.answered() {
            events.spoke.fetch_add(1, Relaxed);
        }
    }

    /// Begins a slow start: the endpoint is new or back.
    pub(crate) fn begin_ramp(&self, now: Micros) {
        self.ramp_from.store(now, Relaxed);
        self.returned_at.store(now, Relaxed);
    }

    /// Smoothed latency in microseconds, once there is one.
    pub(crate) fn latency(&self) -> Option<f64> {
        let latency = f64::from_bits(self.latency.load(Relaxed));
        (latency > 0.0).then_some(latency)
    }

    /// Takes an answer's latency. Lost updates between workers do not matter: the next sample comes soon.
    pub(crate) fn observe_latency(&self, sample: Micros, now: Micros) {
        let sample = (sample as f64).max(1.0);
        let before = self.latency_at.swap(now, Relaxed);
        let next = match self.latency() {
            None => sample,
            Some(known) => {
                let time = if sample > known { LATENCY_RISE } else { LATENCY_FALL };
                known + (sample - known) * share_of(now.saturating_sub(before), time)
            }
        };
        self.latency.store(next.to_bits(), Relaxed);
    }

    pub(crate) fn observe_load(&self, utilisation: f64, now: Micros) {
        if !utilisation.is_finite() || utilisation < 0.0 {
            return;
        }
        let next = match self.load(now) {
            None => utilisation,
            Some(known) => {
                let elapsed = now.saturating_sub(self.load_at.load(Relaxed));
                known + (utilisation - known) * share_of(elapsed, LOAD_TIME)
            }
        };
        self.load.store(next.to_bits(), Relaxed);
        self.load_at.store(now, Relaxed);
    }

    /// Utilisation that the endpoint reported lately.
    pub(crate) fn load(&self, now: Micros) -> Option<f64> {
        let at = self.load_at.load(Relaxed);
        (at != 0 && now.saturating_sub(at) < LOAD_FORGET).then(|| f64::from_bits(self.load.load(Relaxed)))
    }

    /// Marks it unreachable; `false` when it already was.
    pub(crate) fn lose(&self, now: Micros) -> bool {
        if self.unreachable_since.compare_exchange(0, now, Relaxed, Relaxed).is_err() {
            return false;
        }
        self.attempts.store(1, Relaxed);
        self.probe_at.store(now + redial_pause(0), Relaxed);
        true
    }

    /// Takes the next dial of an unreachable endpoint, when it is due; the one after waits longer.
    pub(crate) fn take_probe(&self, now: Micros) -> bool {
        let at = self.probe_at.load(Relaxed);
        if self.is_reachable() || at > now {
            return false;
        }
        let pause = redial_pause(self.attempts.load(Relaxed));
        let taken = self.probe_at.compare_exchange(at, now + pause, Relaxed, Relaxed).is_ok();
        if taken {
            self.attempts.fetch_add(1, Relaxed);
        }
        taken
    }
}

/// Weight of a sample that came `elapsed` after the last, in an average over `time` seconds.
fn share_of(elapsed: Micros, time: f64) -> f64 {
    1.0 - (-seconds(elapsed) / time).exp()
}

/// Requests and failures of the last half to whole interval: two halves that take turns.
#[derive(Debug, Default)]
pub(crate) struct FailureWindow {
    half: AtomicU64,
    /// Requests above, failures below.
    current: AtomicU64,
    previous: AtomicU64,
}

impl FailureWindow {
    /// Counts one; answers with (requests, failures) in the window.
    pub(crate) fn add(&self, failed: bool, now: Micros, interval: Micros) -> (u32, u32) {
        let half = now / (interval / 2).max(1);
        let before = self.half.load(Relaxed);
        if before != half && self.half.compare_exchange(before, half, Relaxed, Relaxed).is_ok() {
            let last = self.current.swap(0, Relaxed);
            self.previous.store(if half == before + 1 { last } else { 0 }, Relaxed);
        }
        let one = 1 << 32 | u64::from(failed);
        let current = self.current.fetch_add(one, Relaxed) + one;
        let previous = self.previous.load(Relaxed);
        let sum = |part: fn(u64) -> u32| part(current).saturating_add(part(previous));
        (sum(|count| (count >> 32) as u32), sum(|count| count as u32))
    }

    pub(crate) fn clear(&self) {
        self.current.store(0, Relaxed);
        self.previous.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_rises_faster_than_it_falls() {
        let stats = Stats::default();
        stats.observe_latency(10_000, 1);
        stats.observe_latency(100_000, 1_000_000);
        let risen = stats.latency().unwrap();
        assert!(risen > 60_000.0, "{risen}");
        stats.observe_latency(10_000, 2_000_000);
        assert!(stats.latency().unwrap() > 0.75 * risen);
        stats.observe_latency(10_000, 60_000_000);
        assert!(stats.latency().unwrap() < 11_000.0);
    }

    #[test]
    fn pauses_between_dials_double_to_five_seconds() {
        let stats = Stats::default();
        assert!(!stats.take_probe(1));
        assert!(stats.lose(1));
        assert!(!stats.lose(2));
        let mut dials = Vec::new();
        for ms in 0..20_000 {
            if stats.take_probe(1 + ms * 1000) {
                dials.push(ms);
            }
        }
        assert_eq!(dials, [250, 750, 1750, 3750, 7750, 12_750, 17_750]);
    }

    #[test]
    fn the_window_forgets() {
        let window = FailureWindow::default();
        for i in 0..10 {
            window.add(true, i, 1000);
        }
        assert_eq!(window.add(false, 510, 1000), (11, 10));
        assert_eq!(window.add(false, 1010, 1000), (2, 0));
        assert_eq!(window.add(true, 9999, 1000), (1, 1));
    }

    #[test]
    fn utilisation_is_smoothed_and_forgotten() {
        let stats = Stats::default();
        assert_eq!(stats.load(1), None);
        stats.observe_load(0.5, 1);
        stats.observe_load(f64::NAN, 2);
        stats.observe_load(1.0, 1_000_001);
        let load = stats.load(1_000_001).unwrap();
        assert!((0.7..0.9).contains(&load), "{load}");
        assert_eq!(stats.load(7_000_000), None);
    }
}
