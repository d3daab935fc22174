//! Where the engine's tasks are started: the server's CPU runtime, never the one that serves sockets.

use std::{future::Future, io, time::Duration};

use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
};

use crate::SqlError;

/// Query work goes to the runtime behind `cpu`.
#[derive(Clone, Debug)]
pub(crate) struct QueryRuntime {
    cpu: Handle,
}

impl QueryRuntime {
    pub(crate) fn new(cpu: Handle) -> Self {
        Self { cpu }
    }

    /// Runs `work` until it ends or the handle aborts it; then it, and all tasks it owns, are dropped at their next yield.
    pub(crate) fn start(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.cpu.spawn(work).abort_handle()
    }

    /// Runs `work` there and waits for what it gives. Who stops waiting aborts it; a panic in it is an error.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, SqlError>> + Send + 'static,
    ) -> Result<T, SqlError> {
        let mut task = Awaited(self.cpu.spawn(work));
        match (&mut task.0).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => {
                Err(SqlError::internal("planning the statement panicked; see the server's log"))
            }
            Err(_) => Err(SqlError::new("57P01", "terminating connection: the server is shutting down")),
        }
    }
}

/// Calls `beat` so often, on a thread of its own, until it says false.
pub(crate) fn tick(name: &str, every: Duration, mut beat: impl FnMut() -> bool + Send + 'static) -> io::Result<()> {
    let body = move || {
        while beat() {
            std::thread::sleep(every);
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

struct Awaited<T>(JoinHandle<T>);

impl<T> Drop for Awaited<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
