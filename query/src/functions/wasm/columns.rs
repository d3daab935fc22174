//! Rows of Arrow in and out of instances.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryViewArray, BinaryViewBuilder, BooleanArray, PrimitiveArray,
        StringViewArray, StringViewBuilder,
    },
    buffer::ScalarBuffer,
    datatypes::{ArrowNativeType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type},
};
use wasmtime::Val;

use super::{
    Passed,
    adapter::ROWS_MAX,
    module::{Given, Running, WasmFunction},
};
use crate::{exec::work::StopFlag, functions::user::Failed};

impl WasmFunction {
    /// The function of each row; no argument is NULL.
    pub(in crate::functions) fn call(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        stop: &StopFlag,
    ) -> Result<ArrayRef, Failed> {
        let given = arguments.iter().zip(&self.arguments).map(|(array, passed)| Column::of(array, *passed));
        let given: Vec<Column<'_>> = given.collect::<Result<_, _>>()?;
        self.with(stop, |running| results(running, self, &given, rows))
    }
}

/// An argument without NULLs.
enum Column<'a> {
    Boolean(&'a BooleanArray),
    SmallInt(&'a [i16]),
    Int(&'a [i32]),
    BigInt(&'a [i64]),
    Real(&'a [f32]),
    Double(&'a [f64]),
    Text(&'a StringViewArray),
    Bytes(&'a BinaryViewArray),
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef, passed: Passed) -> Result<Self, Failed> {
        fn values<T: ArrowPrimitiveType>(array: &ArrayRef) -> Option<&[T::Native]> {
            array.as_primitive_opt::<T>().map(|array| &array.values()[..])
        }
        let column = match passed {
            Passed::Boolean => array.as_boolean_opt().map(Self::Boolean),
            Passed::SmallInt => values::<Int16Type>(array).map(Self::SmallInt),
            Passed::Int => values::<Int32Type>(array).map(Self::Int),
            Passed::BigInt => values::<Int64Type>(array).map(Self::BigInt),
            Passed::Real => values::<Float32Type>(array).map(Self::Real),
            Passed::Double => values::<Float64Type>(array).map(Self::Double),
            Passed::Text => array.as_string_view_opt().map(Self::Text),
            Passed::Bytes => array.as_binary_view_opt().map(Self::Bytes),
        };
        column.ok_or_else(|| Failed::Trapped(format!("an argument is {}", array.data_type())))
    }

    fn at(&self, row: usize) -> Given<'a> {
        Given::Number(match self {
            Self::Boolean(values) => Val::I32(values.value(row).into()),
            Self::SmallInt(values) => Val::I32(values[row].into()),
            Self::Int(values) => Val::I32(values[row]),
            Self::BigInt(values) => Val::I64(values[row]),
            Self::Real(values) => Val::F32(values[row].to_bits()),
            Self::Double(values) => Val::F64(values[row].to_bits()),
            Self::Text(values) => return Given::Bytes(values.value(row).as_bytes()),
            Self::Bytes(values) => return Given::Bytes(values.value(row)),
        })
    }

    /// Writes rows one after the other.
    fn write(&self, from: usize, count: usize, out: &mut [u8]) {
        fn all<const N: usize>(out: &mut [u8], values: impl Iterator<Item = [u8; N]>) {
            for (place, value) in out.as_chunks_mut::<N>().0.iter_mut().zip(values) {
                *place = value;
            }
        }
        let range = from..from + count;
        match self {
            Self::Boolean(values) => all(out, range.map(|row| i32::from(values.value(row)).to_le_bytes())),
            Self::SmallInt(values) => all(out, values[range].iter().map(|value| i32::from(*value).to_le_bytes())),
            Self::Int(values) => all(out, values[range].iter().map(|value| value.to_le_bytes())),
            Self::BigInt(values) => all(out, values[range].iter().map(|value| value.to_le_bytes())),
            Self::Real(values) => all(out, values[range].iter().map(|value| value.to_le_bytes())),
            Self::Double(values) => all(out, values[range].iter().map(|value| value.to_le_bytes())),
            // A function of texts is called row by row.
            Self::Text(_) | Self::Bytes(_) => {}
        }
    }
}

/// The function for each row.
fn results(running: &mut Running, body: &WasmFunction, given: &[Column<'_>], rows: usize) -> Result<ArrayRef, Failed> {
    let mut all = body.arguments.iter().chain([&body.returns]);
    match all.all(|passed| passed.number().is_some()) {
        true => in_blocks(running, body.returns, given, rows),
        false => one_by_one(running, body.returns, given, rows),
    }
}

fn in_blocks(running: &mut Running, returns: Passed, given: &[Column<'_>], rows: usize) -> Result<ArrayRef, Failed> {
    match returns {
        Passed::Boolean => {
            let made = blocks::<4, i32>(running, given, rows, i32::from_le_bytes)?;
            Ok(Arc::new(made.iter().map(|value| Some(*value != 0)).collect::<BooleanArray>()))
        }
        Passed::SmallInt => small(blocks::<4, i32>(running, given, rows, i32::from_le_bytes)?),
        Passed::Int => Ok(primitive::<Int32Type>(blocks(running, given, rows, i32::from_le_bytes)?)),
        Passed::BigInt => Ok(primitive::<Int64Type>(blocks(running, given, rows, i64::from_le_bytes)?)),
        Passed::Real => Ok(primitive::<Float32Type>(blocks(running, given, rows, f32::from_le_bytes)?)),
        Passed::Double => Ok(primitive::<Float64Type>(blocks(running, given, rows, f64::from_le_bytes)?)),
        Passed::Text | Passed::Bytes => Err(Failed::Trapped("a text is no number".into())),
    }
}

fn blocks<const N: usize, T: ArrowNativeType>(
    running: &mut Running,
    given: &[Column<'_>],
    rows: usize,
    read: fn([u8; N]) -> T,
) -> Result<Vec<T>, Failed> {
    let mut made = Vec::with_capacity(rows);
    while made.len() < rows {
        let (from, count) = (made.len(), (rows - made.len()).min(ROWS_MAX));
        running.block(
            count,
            |at, out| given[at].write(from, count, out),
            |bytes| made.extend(bytes.as_chunks::<N>().0[..count].iter().map(|bytes| read(*bytes))),
        )?;
    }
    Ok(made)
}

fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), None))
}

fn small(values: Vec<i32>) -> Result<ArrayRef, Failed> {
    let fits: Option<Vec<i16>> = values.into_iter().map(|value| i16::try_from(value).ok()).collect();
    fits.map(primitive::<Int16Type>).ok_or_else(|| Failed::Trapped("it gave a number that is no smallint".into()))
}

fn one_by_one(running: &mut Running, returns: Passed, given: &[Column<'_>], rows: usize) -> Result<ArrayRef, Failed> {
    let mut texts = StringViewBuilder::new();
    let mut bytes = BinaryViewBuilder::new();
    let mut numbers: Vec<Val> = Vec::new();
    let mut row = Vec::with_capacity(given.len());
    for at in 0..rows {
        row.clear();
        row.extend(given.iter().map(|column| column.at(at)));
        let taken = running.one(&row, returns.number().is_none(), |given| match given {
            Given::Number(number) => {
                numbers.push(number);
                Ok(())
            }
            Given::Bytes(value) if returns == Passed::Bytes => {
                bytes.append_value(value);
                Ok(())
            }
            Given::Bytes(value) => match std::str::from_utf8(value) {
                Ok(text) => {
                    texts.append_value(text);
                    Ok(())
                }
                Err(_) => Err(Failed::Trapped("it gave a text that is no UTF-8".into())),
            },
        })?;
        match (taken, returns) {
            (None, Passed::Bytes) => bytes.append_null(),
            (None, _) => texts.append_null(),
            (Some(()), _) => {}
        }
    }
    let numbers = numbers.into_iter();
    Ok(match returns {
        Passed::Text => Arc::new(texts.finish()),
        Passed::Bytes => Arc::new(bytes.finish()),
        Passed::Boolean => Arc::new(numbers.map(|value| Some(value.i32() != Some(0))).collect::<BooleanArray>()),
        Passed::SmallInt => small(numbers.filter_map(|value| value.i32()).collect())?,
        Passed::Int => primitive::<Int32Type>(numbers.filter_map(|value| value.i32()).collect()),
        Passed::BigInt => primitive::<Int64Type>(numbers.filter_map(|value| value.i64()).collect()),
        Passed::Real => primitive::<Float32Type>(numbers.filter_map(|value| value.f32()).collect()),
        Passed::Double => primitive::<Float64Type>(numbers.filter_map(|value| value.f64()).collect()),
    })
}
