//! How much of a peer is believed: one clock per peer, fed by answers to this cluster's own pings.
//!
//! A lease runs from the moment the ping was *sent*, on this process's monotonic clock, and only the answer to that very
//! ping renews it. So neither the peer's clock, nor a replayed or delayed answer, nor a long stay in a queue can stretch it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Pings are sent this often within one lease, so that a lost one is not a lost lease.
pub const PINGS_PER_LEASE: u32 = 5;
/// Pings without an answer that are remembered; older ones are beyond any lease.
const MAX_OUTSTANDING: usize = 16;

/// What is believed of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Nothing was ever heard of it, and nothing is known.
    Unknown,
    /// It answered within the lease.
    Fresh,
    /// It did not; what it said last is kept, and proxies believe it as far as they can prove the data path.
    Silent,
    /// Silent for so long (a day by default) that what it said is no longer used.
    Gone,
}

/// The lease of one peer.
#[derive(Debug)]
pub struct LeaseClock {
    lease: Duration,
    gone_after: Duration,
    /// Sent and not answered: nonce and time of sending, oldest first.
    outstanding: Vec<(u64, Instant)>,
    valid_until: Option<Instant>,
    gone_at: Option<Instant>,
}

impl LeaseClock {
    /// A peer of which nothing is known.
    pub fn new(lease: Duration, gone_after: Duration) -> Self {
        Self { lease, gone_after, outstanding: Vec::new(), valid_until: None, gone_at: None }
    }

    /// A peer of which something was remembered over a restart, last heard `age` ago.
    pub fn remembered(lease: Duration, gone_after: Duration, age: Duration, now: Instant) -> Self {
        Self { gone_at: Some(now + gone_after.saturating_sub(age)), ..Self::new(lease, gone_after) }
    }

    /// Changes the durations (the Link was edited); a valid lease keeps its end.
    pub fn set_durations(&mut self, lease: Duration, gone_after: Duration) {
        self.lease = lease;
        self.gone_after = gone_after;
    }

    /// Time between pings.
    pub fn ping_interval(&self) -> Duration {
        self.lease / PINGS_PER_LEASE
    }

    /// Notes that a ping with this nonce goes out now.
    pub fn sent(&mut self, nonce: u64, now: Instant) {
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.remove(0);
        }
        self.outstanding.push((nonce, now));
    }

    /// Takes an answer. `false`: not an answer to anything that was asked (or asked too long ago), and nothing changes.
    pub fn answered(&mut self, nonce: u64) -> bool {
        let Some(at) = self.outstanding.iter().position(|(n, _)| *n == nonce) else { return false };
        let (_, sent) = self.outstanding[at];
        // Whatever was sent before this one is answered by it too: a late answer to it could only say less.
        self.outstanding.drain(..=at);
        let until = sent + self.lease;
        if self.valid_until.is_none_or(|valid| valid < until) {
            self.valid_until = Some(until);
            self.gone_at = Some(sent + self.gone_after.max(self.lease));
        }
        true
    }

    /// Something was heard that is no answer to a ping. It renews no lease, but a peer that was heard is not unknown.
    pub fn heard(&mut self, now: Instant) {
        let gone = now + self.gone_after;
        self.gone_at = Some(self.gone_at.map_or(gone, |at| at.max(gone)));
    }

    /// The connection was lost: answers to what was sent on it will not come. The lease itself runs on.
    pub fn disconnected(&mut self) {
        self.outstanding.clear();
    }

    /// What is believed now.
    pub fn state(&self, now: Instant) -> PeerState {
        match (self.valid_until, self.gone_at) {
            (Some(until), _) if now < until => PeerState::Fresh,
            (_, Some(gone)) if now < gone => PeerState::Silent,
            (_, Some(_)) => PeerState::Gone,
            (_, None) => PeerState::Unknown,
        }
    }

    /// When the state changes next if nothing is heard.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        [self.valid_until, self.gone_at].into_iter().flatten().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);
    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_from_the_sending_of_the_ping() {
        let t = Instant::now();
        let mut clock = LeaseClock::new(LEASE, DAY);
        assert_eq!(clock.state(t), PeerState::Unknown);
        clock.sent(7, t);
        assert!(clock.answered(7), "the answer takes nine seconds");
        assert_eq!(clock.state(t + Duration::from_secs(9)), PeerState::Fresh);
        assert_eq!(clock.state(t + LEASE), PeerState::Silent);
        assert_eq!(clock.next_change(t), Some(t + LEASE));
        assert_eq!(clock.next_change(t + LEASE), Some(t + DAY));
        assert_eq!(clock.state(t + DAY), PeerState::Gone);
    }

    #[tokio::test(start_paused = true)]
    async fn only_answers_to_own_pings_count_and_only_once() {
        let t = Instant::now();
        let mut clock = LeaseClock::new(LEASE, DAY);
        assert!(!clock.answered(1));
        clock.sent(1, t);
        clock.sent(2, t + Duration::from_secs(2));
        assert!(clock.answered(2));
        assert!(!clock.answered(2), "replayed");
        assert!(!clock.answered(1), "overtaken");
        assert_eq!(clock.state(t + Duration::from_secs(11)), PeerState::Fresh);
        clock.sent(3, t + Duration::from_secs(4));
        clock.disconnected();
        assert!(!clock.answered(3), "an answer from a connection that is gone");
        assert_eq!(clock.state(t + Duration::from_secs(12)), PeerState::Silent);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_remembered_keeps_its_age() {
        let t = Instant::now();
        let clock = LeaseClock::remembered(LEASE, DAY, DAY - Duration::from_secs(60), t);
        assert_eq!(clock.state(t), PeerState::Silent);
        assert_eq!(clock.state(t + Duration::from_secs(60)), PeerState::Gone);
        assert_eq!(LeaseClock::remembered(LEASE, DAY, DAY * 2, t).state(t), PeerState::Gone);
    }

    #[tokio::test(start_paused = true)]
    async fn unanswered_pings_do_not_pile_up() {
        let t = Instant::now();
        let mut clock = LeaseClock::new(LEASE, DAY);
        (0..1000).for_each(|nonce| clock.sent(nonce, t));
        assert_eq!(clock.outstanding.len(), MAX_OUTSTANDING);
        assert!(!clock.answered(0));
        assert!(clock.answered(999));
    }
}
