//! Waiting for a condition, with a deadline. Nothing here sleeps for a fixed time and hopes.

use std::time::Duration;

use tokio::time::Instant;

const POLL: Duration = Duration::from_millis(20);

/// Polls until the condition gives a value; panics with what was awaited and the last reason when it does not in time.
///
/// # Panics
/// When the deadline passes.
pub async fn eventually_async<T>(what: &str, limit: Duration, condition: impl AsyncFn() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(reason) => {
                assert!(start.elapsed() < limit, "{what}: not within {limit:?}; last: {reason}");
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// [`eventually_async`] for a condition that needs not wait itself.
///
/// # Panics
/// When the deadline passes.
pub async fn eventually<T>(what: &str, limit: Duration, condition: impl Fn() -> Result<T, String>) -> T {
    eventually_async(what, limit, async || condition()).await
}
