//! Wall time: the one place it is read.
//!
//! Certificates and epochs are about wall time; everything else uses `tokio::time::Instant`. A simulation or a test gives
//! its thread a clock of its own with [`set`].

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::UnixTime;

type Clock = Box<dyn Fn() -> SystemTime>;

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

/// The time now.
pub fn now() -> SystemTime {
    CLOCK.with_borrow(|clock| match clock {
        Some(clock) => clock(),
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        None => SystemTime::now(),
    })
}

/// Lets this thread's [`now`] answer what `clock` says, until the guard is dropped.
///
/// `clock` must not call [`now`] or [`set`].
#[must_use = "the clock is put back when the guard is dropped"]
pub fn set(clock: impl Fn() -> SystemTime + 'static) -> ClockGuard {
    ClockGuard { before: CLOCK.replace(Some(Box::new(clock))) }
}

/// Puts the thread's former clock back when dropped.
pub struct ClockGuard {
    before: Option<Clock>,
}

impl Drop for ClockGuard {
    fn drop(&mut self) {
        CLOCK.set(self.before.take());
    }
}

/// Seconds since 1970; 0 for earlier times.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The time now, for certificates; 1970 when the clock says earlier.
pub(crate) fn unix_time() -> UnixTime {
    UnixTime::since_unix_epoch(now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(crate) fn from_unix(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH),
        Err(_) => UNIX_EPOCH,
    }
}

/// The same clock for rustls.
#[derive(Debug)]
pub(crate) struct TlsClock;

impl rustls::time_provider::TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_have_its_own_time() {
        let then = UNIX_EPOCH + Duration::from_secs(1_000);
        {
            let _guard = set(move || then);
            assert_eq!(now(), then);
        }
        assert!(now() > then);
    }
}
