//! Where modules run: the limits that they have, and a clock that goes on while they do not.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use wasmtime::{
    Config, Engine, Global, Store, StoreContextMut, StoreLimits, StoreLimitsBuilder, Trap, UpdateDeadline, Val,
};

use crate::{exec::work::StopFlag, runtime};

/// How often a function that runs is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Looks at which a function may be in the same call before it is stopped: a second.
const TICKS_MAX: u32 = 10;
/// Memory of one instance.
pub(super) const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Of the machine's stack; threads that call have much more than that.
const STACK_BYTES_MAX: usize = 256 << 10;
/// Entries of a module's tables.
const TABLE_ENTRIES_MAX: usize = 100_000;

/// Compiles and runs modules. One for a server.
#[derive(Clone)]
pub struct Sandbox {
    pub(super) engine: Engine,
    /// As long as anybody has this, the clock goes.
    _alive: Arc<()>,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sandbox")
    }
}

/// What belongs to one instance on the host's side.
pub(super) struct Host {
    limits: StoreLimits,
    /// Calls, or blocks of calls, that were begun.
    pub(super) begun: u32,
    /// The row of the block that runs.
    pub(super) row: Option<Global>,
    /// Of the query that calls.
    pub(super) stop: StopFlag,
    /// Where the function was at the last look, and for how many looks it has been there.
    seen: (u32, i32),
    ticks: u32,
}

impl Sandbox {
    /// Starts the clock's thread. Fails on a machine for which there is no compiler.
    pub fn new() -> Result<Self, String> {
        let mut config = Config::new();
        config.epoch_interruption(true);
        config.max_wasm_stack(STACK_BYTES_MAX);
        // Rows are computed again after a crash, maybe on another machine: the same bits have to come out.
        config.cranelift_nan_canonicalization(true);
        config.wasm_relaxed_simd(false);
        config.wasm_memory64(false);
        // An instance costs what it uses, and no handlers of signals are installed.
        config.signals_based_traps(false);
        config.memory_reservation(0);
        config.memory_guard_size(0);
        config.memory_init_cow(false);
        let engine = Engine::new(&config).map_err(|error| error.to_string())?;
        let alive = Arc::new(());
        let (clock, watched) = (engine.weak(), Arc::downgrade(&alive));
        runtime::tick("wasm-clock", TICK, move || {
            let engine = clock.upgrade().filter(|_| Weak::strong_count(&watched) > 0);
            engine.inspect(Engine::increment_epoch).is_some()
        })
        .map_err(|error| error.to_string())?;
        Ok(Self { engine, _alive: alive })
    }

    /// What an instance lives in.
    pub(super) fn store(&self) -> Store<Host> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(MEMORY_BYTES_MAX)
            .table_elements(TABLE_ENTRIES_MAX)
            .instances(2)
            .memories(8)
            .tables(8)
            .trap_on_grow_failure(true)
            .build();
        let host = Host { limits, begun: 0, row: None, stop: StopFlag::default(), seen: (0, 0), ticks: 0 };
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.limits);
        store.epoch_deadline_callback(look);
        store.set_epoch_deadline(1);
        store
    }
}

/// Stops a function whose query has ended, and one that is in the same call for too long.
fn look(mut store: StoreContextMut<'_, Host>) -> Result<UpdateDeadline, wasmtime::Error> {
    let row = store.data().row.map_or(0, |row| match row.get(&mut store) {
        Val::I32(row) => row,
        _ => 0,
    });
    let host = store.data_mut();
    let now = (host.begun, row);
    host.ticks = if host.seen == now { host.ticks + 1 } else { 0 };
    host.seen = now;
    if host.ticks > TICKS_MAX || host.stop.is_raised() {
        return Err(wasmtime::Error::from(Trap::Interrupt));
    }
    Ok(UpdateDeadline::Continue(1))
}
