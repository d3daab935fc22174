//! The loop around a function of numbers, as a module of its own.
//!
//! A call from here into WebAssembly costs much more than many functions do. So a small module is made for each signature, whose `run` calls the function for a block of rows
//! that lie in the module's memory, column by column:
//!
//! ```text
//! memory   argument 0: ROWS_MAX values │ argument 1: … │ results: ROWS_MAX values
//! run(n)   row = 0; do { results[row] = f(argument0[row], argument1[row], …); row += 1 } while row < n
//! ```
//!
//! `row` is a global that the host can read: which row a trap is of, and whether the function gets on.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, EntityType, ExportKind, ExportSection, Function, FunctionSection, GlobalSection,
    GlobalType, ImportSection, Instruction as I, MemArg, MemorySection, MemoryType, Module, TypeSection, ValType,
};

use super::Number;

/// Rows of one call of `run`.
pub(super) const ROWS_MAX: usize = 1024;
const PAGE_BYTES: usize = 64 << 10;

/// Where each column begins in the memory of an adapter: arguments, then results.
pub(super) fn places(arguments: &[Number], returns: Number) -> Vec<usize> {
    let mut at = 0;
    let widths = arguments.iter().chain([&returns]);
    // Each is aligned to eight bytes.
    widths
        .map(|number| {
            let place = at;
            at += (number.width() * ROWS_MAX).next_multiple_of(8);
            place
        })
        .collect()
}

/// The module: imports `f.f`, exports `memory`, `row` and `run`.
pub(super) fn adapter(arguments: &[Number], returns: Number) -> Vec<u8> {
    let places = places(arguments, returns);
    let bytes = places.last().map_or(0, |last| last + returns.width() * ROWS_MAX);
    let mut types = TypeSection::new();
    types.ty().function(arguments.iter().map(|number| val_type(*number)), [val_type(returns)]);
    types.ty().function([ValType::I32], []);
    let mut imports = ImportSection::new();
    imports.import("f", "f", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    functions.function(1);
    let mut memories = MemorySection::new();
    let pages = bytes.div_ceil(PAGE_BYTES) as u64;
    memories.memory(MemoryType {
        minimum: pages,
        maximum: Some(pages),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut globals = GlobalSection::new();
    globals.global(GlobalType { val_type: ValType::I32, mutable: true, shared: false }, &ConstExpr::i32_const(0));
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("row", ExportKind::Global, 0);
    exports.export("run", ExportKind::Func, 1);
    // The parameter counts the rows, local 1 is the row.
    let mut run = Function::new([(1, ValType::I32)]);
    let address = |run: &mut Function, number: Number| {
        run.instruction(&I::LocalGet(1));
        run.instruction(&I::I32Const(number.width() as i32));
        run.instruction(&I::I32Mul);
    };
    run.instruction(&I::Loop(BlockType::Empty));
    run.instruction(&I::LocalGet(1));
    run.instruction(&I::GlobalSet(0));
    address(&mut run, returns);
    for (number, place) in arguments.iter().zip(&places) {
        address(&mut run, *number);
        run.instruction(&load(*number, *place));
    }
    run.instruction(&I::Call(0));
    run.instruction(&store(returns, places[arguments.len()]));
    run.instruction(&I::LocalGet(1));
    run.instruction(&I::I32Const(1));
    run.instruction(&I::I32Add);
    run.instruction(&I::LocalTee(1));
    run.instruction(&I::LocalGet(0));
    run.instruction(&I::I32LtU);
    run.instruction(&I::BrIf(0));
    run.instruction(&I::End);
    run.instruction(&I::End);
    let mut code = CodeSection::new();
    code.function(&run);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memories).section(&globals);
    module.section(&exports).section(&code);
    module.finish()
}

fn val_type(number: Number) -> ValType {
    match number {
        Number::I32 => ValType::I32,
        Number::I64 => ValType::I64,
        Number::F32 => ValType::F32,
        Number::F64 => ValType::F64,
    }
}

fn place(number: Number, offset: usize) -> MemArg {
    MemArg { offset: offset as u64, align: number.width().trailing_zeros(), memory_index: 0 }
}

fn load(number: Number, at: usize) -> I<'static> {
    let at = place(number, at);
    match number {
        Number::I32 => I::I32Load(at),
        Number::I64 => I::I64Load(at),
        Number::F32 => I::F32Load(at),
        Number::F64 => I::F64Load(at),
    }
}

fn store(number: Number, at: usize) -> I<'static> {
    let at = place(number, at);
    match number {
        Number::I32 => I::I32Store(at),
        Number::I64 => I::I64Store(at),
        Number::F32 => I::F32Store(at),
        Number::F64 => I::F64Store(at),
    }
}
