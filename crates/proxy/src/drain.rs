//! The end of a process, told to everything that has something to finish first.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Time for what is open to end by itself, unless told otherwise.
pub const DEFAULT_DRAIN_TIME: Duration = Duration::from_secs(10);

/// Starts the drain. Dropping it starts the drain too: nobody is left who could.
#[derive(Debug)]
pub struct DrainTrigger(watch::Sender<Option<Instant>>);

/// Learns of the drain. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<Option<Instant>>);

/// A trigger and what it reaches.
pub fn channel() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(None);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Accept nothing new; what is open has `time` to end, then it is cut.
    pub fn start(&self, time: Duration) {
        let deadline = Instant::now() + time;
        // A second order may shorten the time, never lengthen it.
        self.0.send_if_modified(|current| {
            let sooner = current.is_none_or(|at| deadline < at);
            if sooner {
                *current = Some(deadline);
            }
            sooner
        });
    }
}

impl Drain {
    /// Waits until the drain starts. Cancel safe.
    pub async fn started(&mut self) {
        // An error means that the trigger is gone, which counts as the order.
        let _ = self.0.wait_for(Option::is_some).await;
    }

    /// Whether the drain has started.
    pub fn is_started(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }

    /// Waits until the time is up. Cancel safe.
    pub async fn expired(&mut self) {
        self.started().await;
        loop {
            let deadline = self.0.borrow_and_update().unwrap_or_else(Instant::now);
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return,
                changed = self.0.changed() => if changed.is_err() {
                    tokio::time::sleep_until(deadline).await;
                    return;
                },
            }
        }
    }
}
