//! Ending in order: no new work, finish what runs, and not for ever.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A pair of the one who ends a process (or a part of it) and the many who must be given time.
pub fn drain() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(None);
    (DrainTrigger { sender }, Drain { receiver })
}

/// Starts the drain and waits for its end.
#[derive(Debug)]
pub struct DrainTrigger {
    sender: watch::Sender<Option<Instant>>,
}

impl DrainTrigger {
    /// Begins: every [`Drain`] is told that it has until `limit` from now. Calling it again changes the deadline.
    pub fn start(&self, limit: Duration) {
        self.sender.send_replace(Some(Instant::now() + limit));
    }

    /// Whether it has begun.
    pub fn is_started(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// Another watcher.
    pub fn watch(&self) -> Drain {
        Drain { receiver: self.sender.subscribe() }
    }

    /// Begins and waits until every [`Drain`] was dropped or the limit has passed; says whether all were in time.
    pub async fn finish(self, limit: Duration) -> bool {
        self.start(limit);
        tokio::time::timeout(limit, self.sender.closed()).await.is_ok()
    }
}

/// Held by everything that must be given time to end: the drain lasts while one of them lives.
///
/// It is also begun when the [`DrainTrigger`] was dropped, then with a deadline that has passed.
#[derive(Debug, Clone)]
pub struct Drain {
    receiver: watch::Receiver<Option<Instant>>,
}

impl Drain {
    /// A drain that never begins, for parts that run alone.
    pub fn never() -> Self {
        // Lives as long as the process: dropping the sender would begin the drain.
        static NEVER: LazyLock<watch::Sender<Option<Instant>>> = LazyLock::new(|| watch::channel(None).0);
        Self { receiver: NEVER.subscribe() }
    }

    /// Waits until the drain begins and returns its deadline. May be dropped and called again at any time.
    pub async fn started(&self) -> Instant {
        let mut receiver = self.receiver.clone();
        match receiver.wait_for(Option::is_some).await {
            Ok(deadline) => deadline.unwrap_or_else(Instant::now),
            Err(_) => Instant::now(),
        }
    }

    /// Whether the drain has begun.
    pub fn is_started(&self) -> bool {
        self.receiver.borrow().is_some() || self.receiver.has_changed().is_err()
    }

    /// When everything must have ended, once the drain has begun.
    pub fn deadline(&self) -> Option<Instant> {
        *self.receiver.borrow()
    }
}
