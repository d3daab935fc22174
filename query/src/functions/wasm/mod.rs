//! Functions in WebAssembly: `CREATE FUNCTION f(a BIGINT) RETURNS BIGINT LANGUAGE wasm AS 'path.wasm'`.
//!
//! ```text
//! batch ─► rows without NULLs ─► blocks of 1024 ─► adapter (a loop, wasm) ─► the function      numbers: nanoseconds a call
//!                             └─► row by row: alloc, call, dealloc                             texts and bytes
//! ```
//!
//! A module gets nothing from outside, has a bound of memory and of the stack, and is stopped when one call takes longer than a second, or when the query that calls it ends. So it can do
//! nothing but compute. Instances are kept between calls; one that failed is thrown away. Functions are strict: a NULL argument gives NULL, and is not passed.

mod adapter;
mod columns;
mod module;
mod sandbox;
#[cfg(test)]
mod tests;

use tidemill_storage::schema::DataType;
use wasmtime::ValType;

pub(super) use self::module::WasmFunction;
pub use self::sandbox::Sandbox;

/// A number as WebAssembly has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    I32,
    I64,
    F32,
    F64,
}

impl Number {
    fn width(self) -> usize {
        match self {
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    fn val_type(self) -> ValType {
        match self {
            Self::I32 => ValType::I32,
            Self::I64 => ValType::I64,
            Self::F32 => ValType::F32,
            Self::F64 => ValType::F64,
        }
    }
}

/// How a value of SQL is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passed {
    Boolean,
    SmallInt,
    Int,
    BigInt,
    Real,
    Double,
    /// Address and length; as a result both in one number. Like [`Passed::Bytes`].
    Text,
    Bytes,
}

impl Passed {
    fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::SmallInt => Self::SmallInt,
            DataType::Int => Self::Int,
            DataType::BigInt => Self::BigInt,
            DataType::Real => Self::Real,
            DataType::Double => Self::Double,
            DataType::Text => Self::Text,
            DataType::Bytea => Self::Bytes,
            _ => return None,
        })
    }

    /// `None` for what lies in memory.
    fn number(self) -> Option<Number> {
        Some(match self {
            Self::Boolean | Self::SmallInt | Self::Int => Number::I32,
            Self::BigInt => Number::I64,
            Self::Real => Number::F32,
            Self::Double => Number::F64,
            Self::Text | Self::Bytes => return None,
        })
    }

    /// As an argument.
    fn types(self) -> Vec<ValType> {
        match self.number() {
            Some(number) => vec![number.val_type()],
            None => vec![ValType::I32, ValType::I32],
        }
    }

    /// As a result.
    fn result(self) -> ValType {
        self.number().map_or(ValType::I64, Number::val_type)
    }
}
