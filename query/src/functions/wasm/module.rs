//! A function of a module, checked against what SQL says of it, and its instances.

use std::fmt;

use parking_lot::Mutex;
use tidemill_storage::schema::DataType;
use wasmtime::{ExternType, Func, Instance, Memory, Module, Store, Trap, TypedFunc, Val, ValType};

use super::{
    Number, Passed,
    adapter::{ROWS_MAX, adapter, places},
    sandbox::{Host, MEMORY_BYTES_MAX, Sandbox},
};
use crate::{
    exec::work::StopFlag,
    functions::user::{Failed, Unfit},
};

/// Instances that are kept when nobody calls them.
const IDLE_MAX: usize = 16;
/// Arguments of a function.
const ARGUMENTS_MAX: usize = 16;

/// A function that can be called.
pub(in crate::functions) struct WasmFunction {
    sandbox: Sandbox,
    module: Module,
    /// For a function of numbers alone.
    adapter: Option<Module>,
    symbol: String,
    pub(super) arguments: Vec<Passed>,
    pub(super) returns: Passed,
    idle: Mutex<Vec<Running>>,
}

/// An instance.
pub(super) struct Running {
    store: Store<Host>,
    kind: Kind,
}

enum Kind {
    /// Blocks of rows go through the adapter.
    Numbers { memory: Memory, run: TypedFunc<i32, ()>, places: Vec<usize> },
    /// Rows go one by one.
    Bytes { function: Func, memory: Memory, alloc: TypedFunc<i32, i32>, dealloc: Option<TypedFunc<(i32, i32), ()>> },
}

/// A value on its way in or out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    Number(Val),
    Bytes(&'a [u8]),
}

impl fmt::Debug for WasmFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WasmFunction({})", self.symbol)
    }
}

fn is_same(found: &[ValType], wanted: &[ValType]) -> bool {
    found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| ValType::eq(found, wanted))
}

impl WasmFunction {
    pub(in crate::functions) fn new(
        sandbox: &Sandbox,
        bytes: &[u8],
        symbol: &str,
        arguments: &[DataType],
        returns: &DataType,
    ) -> Result<Self, Unfit> {
        let passed = |data_type: &DataType| {
            Passed::of(data_type).ok_or_else(|| {
                Unfit::new(
                    format!("type {data_type} cannot be passed to a function in WebAssembly"),
                    "it takes BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE PRECISION, TEXT and BYTEA",
                )
            })
        };
        if arguments.len() > ARGUMENTS_MAX {
            return Err(Unfit::new(format!("a function takes {ARGUMENTS_MAX} arguments at most"), ""));
        }
        let arguments: Vec<Passed> = arguments.iter().map(passed).collect::<Result<_, _>>()?;
        let returns = passed(returns)?;
        if !bytes.starts_with(b"\0asm") {
            return Err(Unfit::new("it is no WebAssembly module", "it takes the binary form (.wasm), not the text"));
        }
        let module = Module::new(&sandbox.engine, bytes)
            .map_err(|error| Unfit::new(format!("the module cannot be compiled: {}", root(&error)), ""))?;
        if let Some(import) = module.imports().next() {
            return Err(Unfit::new(
                format!("the module imports {}.{}, and gets nothing from outside", import.module(), import.name()),
                "build it without WASI and without a host: for Rust the target wasm32-unknown-unknown",
            ));
        }
        let numbers: Option<Vec<Number>> = arguments.iter().map(|passed| passed.number()).collect();
        let adapter = match (numbers, returns.number()) {
            (Some(numbers), Some(returns)) => Some(
                Module::new(&sandbox.engine, adapter(&numbers, returns))
                    .map_err(|error| Unfit::new(root(&error), ""))?,
            ),
            _ => None,
        };
        let symbol = symbol.to_owned();
        let made =
            Self { sandbox: sandbox.clone(), module, adapter, symbol, arguments, returns, idle: Mutex::default() };
        made.check_signature()?;
        made.check_memory()?;
        // A module that cannot begin is found out now.
        let first = made.begin().map_err(|failed| Unfit::new(format!("the module cannot be started: {failed}"), ""))?;
        made.give_back(first);
        Ok(made)
    }

    /// What the module calls it.
    pub(in crate::functions) fn symbol(&self) -> &str {
        &self.symbol
    }

    fn check_signature(&self) -> Result<(), Unfit> {
        let Some(ExternType::Func(function)) = self.module.get_export(&self.symbol) else {
            let functions = self.module.exports().filter(|export| matches!(export.ty(), ExternType::Func(_)));
            let names: Vec<String> = functions.map(|export| format!("\"{}\"", export.name())).collect();
            return Err(Unfit::new(
                format!("the module exports no function \"{}\"", self.symbol),
                match names.is_empty() {
                    true => "it exports no function at all".to_owned(),
                    false => format!("it exports {}; say which is meant: AS 'file', 'name'", names.join(", ")),
                },
            ));
        };
        let wanted: Vec<ValType> = self.arguments.iter().flat_map(|passed| passed.types()).collect();
        let given = [self.returns.result()];
        let (parameters, results): (Vec<_>, Vec<_>) = (function.params().collect(), function.results().collect());
        if is_same(&parameters, &wanted) && is_same(&results, &given) {
            return Ok(());
        }
        let show = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Err(Unfit::new(
            format!(
                "function \"{}\" of the module is ({}) -> ({}), and the declaration needs ({}) -> ({})",
                self.symbol,
                show(&parameters),
                show(&results),
                show(&wanted),
                show(&given)
            ),
            "BOOLEAN, SMALLINT and INT are i32, BIGINT i64, REAL f32, DOUBLE PRECISION f64, TEXT and BYTEA two i32 (address and length) and as a result one i64",
        ))
    }

    /// What passing texts needs.
    fn check_memory(&self) -> Result<(), Unfit> {
        let is_memory = matches!(self.module.get_export("memory"), Some(ExternType::Memory(_)));
        let is_alloc = matches!(self.module.get_export("alloc"), Some(ExternType::Func(function))
            if is_same(&function.params().collect::<Vec<_>>(), &[ValType::I32])
                && is_same(&function.results().collect::<Vec<_>>(), &[ValType::I32]));
        if self.adapter.is_some() || is_memory && is_alloc {
            return Ok(());
        }
        Err(Unfit::new(
            "a module whose function has TEXT or BYTEA exports \"memory\" and a function \"alloc\" of (i32) -> (i32)",
            "alloc(length) gives the address of so many bytes; dealloc(address, length) is called for them afterwards, if it is exported",
        ))
    }

    fn begin(&self) -> Result<Running, Failed> {
        let mut store = self.sandbox.store();
        let instance = Instance::new(&mut store, &self.module, &[]).map_err(|error| failed(&error))?;
        let missing = || Failed::Trapped("an export is missing".into());
        let function = instance.get_func(&mut store, &self.symbol).ok_or_else(missing)?;
        let kind = match &self.adapter {
            Some(adapter) => {
                let around = Instance::new(&mut store, adapter, &[function.into()]).map_err(|error| failed(&error))?;
                store.data_mut().row = around.get_global(&mut store, "row");
                let numbers: Vec<Number> = self.arguments.iter().filter_map(|passed| passed.number()).collect();
                Kind::Numbers {
                    memory: around.get_memory(&mut store, "memory").ok_or_else(missing)?,
                    run: around.get_typed_func(&mut store, "run").map_err(|error| failed(&error))?,
                    places: places(&numbers, self.returns.number().ok_or_else(missing)?),
                }
            }
            None => Kind::Bytes {
                function,
                memory: instance.get_memory(&mut store, "memory").ok_or_else(missing)?,
                alloc: instance.get_typed_func(&mut store, "alloc").map_err(|error| failed(&error))?,
                dealloc: instance.get_typed_func(&mut store, "dealloc").ok(),
            },
        };
        Ok(Running { store, kind })
    }

    /// Has an instance work. One that failed is not used again; where that was not its first call, another one tries, as what calls left behind (memory that nobody freed, say)
    /// is not to decide whether a function can be computed.
    pub(super) fn with<T>(
        &self,
        stop: &StopFlag,
        mut work: impl FnMut(&mut Running) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let mut kept = self.idle.lock().pop();
        loop {
            let is_used = kept.is_some();
            let mut running = match kept.take() {
                Some(running) => running,
                None => self.begin()?,
            };
            running.store.data_mut().stop = stop.clone();
            match work(&mut running) {
                Ok(done) => {
                    running.store.data_mut().stop = StopFlag::default();
                    self.give_back(running);
                    return Ok(done);
                }
                Err(Failed::Interrupted) if stop.is_raised() => return Err(Failed::Stopped),
                Err(Failed::Trapped(_)) if is_used => {}
                Err(failed) => return Err(failed),
            }
        }
    }

    fn give_back(&self, running: Running) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX && !running.is_grown() {
            idle.push(running);
        }
    }
}

impl Running {
    /// Whether its memory was filled by what nobody freed.
    fn is_grown(&self) -> bool {
        match &self.kind {
            Kind::Numbers { .. } => false,
            Kind::Bytes { memory, .. } => memory.data_size(&self.store) > MEMORY_BYTES_MAX / 2,
        }
    }

    /// Calls a function of numbers for up to [`ROWS_MAX`] rows. `fill` writes the values of an argument, `take` reads the results.
    pub(super) fn block<T>(
        &mut self,
        rows: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Failed> {
        let Self { store, kind: Kind::Numbers { memory, run, places } } = self else {
            return Err(Failed::Trapped("it is no function of numbers".into()));
        };
        let arguments = places.len() - 1;
        for at in 0..arguments {
            fill(at, &mut memory.data_mut(&mut *store)[places[at]..places[at + 1]]);
        }
        store.data_mut().begun = store.data().begun.wrapping_add(1);
        run.call(&mut *store, rows.min(ROWS_MAX) as i32).map_err(|error| failed(&error))?;
        Ok(take(&memory.data(&*store)[places[arguments]..]))
    }

    /// Calls a function that has texts or bytes, for one row. `None`: it gave NULL.
    pub(super) fn one<T>(
        &mut self,
        given: &[Given<'_>],
        gives_bytes: bool,
        take: impl FnOnce(Given<'_>) -> Result<T, Failed>,
    ) -> Result<Option<T>, Failed> {
        let Self { store, kind: Kind::Bytes { function, memory, alloc, dealloc } } = self else {
            return Err(Failed::Trapped("it is a function of numbers".into()));
        };
        store.data_mut().begun = store.data().begun.wrapping_add(1);
        let mut values = Vec::with_capacity(given.len() + 1);
        let mut lent: Vec<(i32, i32)> = Vec::new();
        for one in given {
            match one {
                Given::Number(value) => values.push(*value),
                Given::Bytes(bytes) => {
                    let length = i32::try_from(bytes.len())
                        .map_err(|_| Failed::Trapped("an argument is longer than its memory".into()))?;
                    let address = alloc.call(&mut *store, length).map_err(|error| failed(&error))?;
                    memory
                        .write(&mut *store, address as u32 as usize, bytes)
                        .map_err(|_| Failed::Trapped("alloc() gave an address outside of the memory".into()))?;
                    values.extend([Val::I32(address), Val::I32(length)]);
                    lent.push((address, length));
                }
            }
        }
        let mut result = [Val::I32(0)];
        function.call(&mut *store, &values, &mut result).map_err(|error| failed(&error))?;
        let taken = match result[0] {
            Val::I64(-1) if gives_bytes => None,
            Val::I64(packed) if gives_bytes => {
                let (address, length) = ((packed as u64 >> 32) as usize, packed as u32 as usize);
                let bytes = memory.data(&*store).get(address..).and_then(|rest| rest.get(..length));
                let bytes = bytes.ok_or_else(|| Failed::Trapped("it gave an address outside of its memory".into()))?;
                let taken = take(Given::Bytes(bytes))?;
                // What lies in an argument (`trim` needs no memory of its own) goes with that.
                let is_part = lent.iter().any(|(of, long)| {
                    let (of, long) = (*of as u32 as usize, *long as u32 as usize);
                    (of..=of + long).contains(&address)
                });
                if !is_part {
                    lent.push((address as u32 as i32, length as u32 as i32));
                }
                Some(taken)
            }
            other => Some(take(Given::Number(other))?),
        };
        if let Some(dealloc) = dealloc {
            for place in lent {
                dealloc.call(&mut *store, place).map_err(|error| failed(&error))?;
            }
        }
        Ok(taken)
    }
}

fn failed(error: &wasmtime::Error) -> Failed {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failed::Interrupted,
        Some(trap) => Failed::Trapped(trap.to_string()),
        None => {
            let reason = root(error);
            // The limiter's words; it has no type of error for them.
            Failed::Trapped(match reason.contains("growing memory") {
                true => format!("it needs more than {} MiB of memory", MEMORY_BYTES_MAX >> 20),
                false => reason,
            })
        }
    }
}

fn root(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}
