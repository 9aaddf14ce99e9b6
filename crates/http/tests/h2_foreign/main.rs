//! Our ends of HTTP/2 against those of the `h2` crate, over a pipe in memory.

mod client;
mod server;
mod wire;

use std::time::Duration;

/// No test may hang.
async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("a test that does not come to its end")
}

/// Byte `n` of a body.
fn pattern(at: usize) -> u8 {
    (at + at / 251) as u8
}

fn filled(length: usize) -> bytes::Bytes {
    (0..length).map(pattern).collect()
}

/// Runs on one thread, in the order in which things become ready.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(within(test));
}
