//! The only place of this package that spawns threads and tasks.
//!
//! Sockets, timers and DDL run on the I/O runtime; query work runs on the CPU runtime, so that a heavy query never keeps a socket
//! waiting. Ingestion has threads of its own (`tidemill_ingest`).

use std::{future::Future, io, time::Duration};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

/// Plans are walked by recursion, with frames of tens of kilobytes in debug builds; statements are bounded (`crate::sql`) so that this is enough.
/// It is address space: memory is taken as deep as a thread ever went.
const STACK_BYTES: usize = 256 << 20;

/// The two runtimes of a server.
#[derive(Debug)]
pub struct Runtimes {
    io: Runtime,
    cpu: Runtime,
}

impl Runtimes {
    pub fn start(cpu_threads: usize) -> io::Result<Self> {
        let build = |name: &str, threads: usize| {
            Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name(name)
                .thread_stack_size(STACK_BYTES)
                .enable_all()
                .build()
        };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self { io: build("tidemill-io", cores.clamp(2, 8))?, cpu: build("tidemill-cpu", cpu_threads.max(1))? })
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.io.block_on(future)
    }

    /// Where query work goes.
    pub fn cpu(&self) -> &Handle {
        self.cpu.handle()
    }

    /// Ends both; what still runs after `grace` is left behind.
    pub fn shutdown(self, grace: Duration) {
        self.cpu.shutdown_timeout(grace);
        self.io.shutdown_timeout(grace);
    }
}

/// A task on the current runtime. Must be called from within one.
#[expect(clippy::disallowed_methods, reason = "the one place of this package that spawns tasks")]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// Work that blocks (disks, brokers), on a thread for it. A panic inside is passed on.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
