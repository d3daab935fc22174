//! The only place of this package that spawns threads and tasks.

use std::future::Future;

use tokio::task::JoinHandle;

/// A task on the current tokio runtime. Must be called from within one.
#[expect(clippy::disallowed_methods, reason = "the one place of this package that spawns tasks")]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}
