//! Where hyper's own tasks run: on the thread of the connection.

use std::future::Future;

/// Spawns onto the current [`tokio::task::LocalSet`].
#[derive(Debug, Clone, Copy)]
pub struct LocalExec;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
