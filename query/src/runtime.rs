//! Where the engine's tasks are started: the server's CPU runtime, never the one that serves sockets.

use std::future::Future;

use tokio::{runtime::Handle, task::AbortHandle};

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
}
