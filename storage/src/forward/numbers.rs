//! Between Arrow arrays and plain integers of 64 bits: SMALLINT to BIGINT, DATE, TIMESTAMP(TZ), and NUMERIC by its unscaled value.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, PrimitiveArray},
    buffer::NullBuffer,
    datatypes::{
        ArrowPrimitiveType, Date32Type, Decimal128Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    },
};

use crate::{
    Error, Result,
    schema::{DataType, UTC},
};

/// The values of consecutive chunks, a null row taking the value of the row before it. `None` when the type has no integers or
/// a decimal does not fit 64 bits.
pub(super) fn integers_of(data_type: &DataType, chunks: &[ArrayRef]) -> Option<Vec<i64>> {
    match data_type {
        DataType::SmallInt => filled::<Int16Type>(chunks, |value| Some(i64::from(value))),
        DataType::Int => filled::<Int32Type>(chunks, |value| Some(i64::from(value))),
        DataType::BigInt => filled::<Int64Type>(chunks, Some),
        DataType::Date => filled::<Date32Type>(chunks, |value| Some(i64::from(value))),
        DataType::Timestamp | DataType::TimestampTz => filled::<TimestampMicrosecondType>(chunks, Some),
        DataType::Numeric { .. } => filled::<Decimal128Type>(chunks, |value| i64::try_from(value).ok()),
        _ => None,
    }
}

fn filled<T: ArrowPrimitiveType>(chunks: &[ArrayRef], of: impl Fn(T::Native) -> Option<i64>) -> Option<Vec<i64>> {
    let mut out = Vec::with_capacity(chunks.iter().map(|chunk| chunk.len()).sum());
    // Leading nulls take the first value there is, so that they do not widen its block.
    let first = chunks.iter().find_map(|chunk| chunk.as_primitive::<T>().iter().flatten().next());
    let mut last = first.map_or(Some(0), &of)?;
    for chunk in chunks {
        let chunk = chunk.as_primitive::<T>();
        if chunk.nulls().is_none() {
            for value in chunk.values() {
                out.push(of(*value)?);
            }
            last = out.last().copied().unwrap_or(last);
        } else {
            for value in chunk {
                if let Some(value) = value {
                    last = of(value)?;
                }
                out.push(last);
            }
        }
    }
    Some(out)
}

/// Whether columns of the type may be kept as integers.
pub(super) fn is_integral(data_type: &DataType) -> bool {
    use DataType::{BigInt, Date, Int, Numeric, SmallInt, Timestamp, TimestampTz};
    matches!(data_type, SmallInt | Int | BigInt | Date | Timestamp | TimestampTz | Numeric { .. })
}

/// The array of the type whose integers `read` gives. Integers beyond a narrower type are cut to it: only damaged bytes hold such.
pub(super) fn array_of(data_type: &DataType, read: impl Read, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    fn array<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>) -> Result<PrimitiveArray<T>> {
        Ok(PrimitiveArray::try_new(values.into(), nulls)?)
    }
    Ok(match data_type {
        DataType::SmallInt => Arc::new(array::<Int16Type>(read.integers(|value| value as i16)?, nulls)?),
        DataType::Int => Arc::new(array::<Int32Type>(read.integers(|value| value as i32)?, nulls)?),
        DataType::BigInt => Arc::new(array::<Int64Type>(read.integers(|value| value)?, nulls)?),
        DataType::Date => Arc::new(array::<Date32Type>(read.integers(|value| value as i32)?, nulls)?),
        DataType::Timestamp => Arc::new(array::<TimestampMicrosecondType>(read.integers(|value| value)?, nulls)?),
        DataType::TimestampTz => {
            Arc::new(array::<TimestampMicrosecondType>(read.integers(|value| value)?, nulls)?.with_timezone(UTC))
        }
        DataType::Numeric { precision, scale } => {
            let array = array::<Decimal128Type>(read.integers(i128::from)?, nulls)?;
            Arc::new(array.with_precision_and_scale(*precision, *scale)?)
        }
        other => return Err(Error::Invalid(format!("values of {other} are no integers"))),
    })
}

/// Gives integers, each made into what the array holds.
pub(super) trait Read {
    fn integers<T>(self, of: impl Fn(i64) -> T) -> Result<Vec<T>>;
}

/// Integers that are there already.
impl Read for &[i64] {
    fn integers<T>(self, of: impl Fn(i64) -> T) -> Result<Vec<T>> {
        Ok(self.iter().map(|value| of(*value)).collect())
    }
}
