//! Arrow arrays of a column's type, from the numbers that stand for its values.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ArrowPrimitiveType, BooleanArray, Decimal128Array, Float32Array, Float64Array, PrimitiveArray},
    buffer::NullBuffer,
    datatypes::{Date32Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType},
};

use crate::{
    Error, Result,
    schema::{DataType, UTC},
};

fn nulls(rows: usize, is_valid: impl Fn(usize) -> bool) -> Option<NullBuffer> {
    Some((0..rows).map(is_valid).collect::<NullBuffer>()).filter(|nulls| nulls.null_count() > 0)
}

/// Of booleans (0, 1), integers, dates, timestamps and decimals. Numbers that a narrower type has not are cut to it.
pub(crate) fn array_of_integers(
    data_type: &DataType,
    values: &[i64],
    is_valid: impl Fn(usize) -> bool,
) -> Result<ArrayRef> {
    fn array<T: ArrowPrimitiveType>(
        values: impl Iterator<Item = T::Native>,
        nulls: Option<NullBuffer>,
    ) -> Result<PrimitiveArray<T>> {
        Ok(PrimitiveArray::try_new(values.collect::<Vec<_>>().into(), nulls)?)
    }
    let nulls = nulls(values.len(), is_valid);
    let values = values.iter().copied();
    Ok(match data_type {
        DataType::Boolean => Arc::new(BooleanArray::new(values.map(|value| value != 0).collect(), nulls)),
        DataType::SmallInt => Arc::new(array::<Int16Type>(values.map(|value| value as i16), nulls)?),
        DataType::Int => Arc::new(array::<Int32Type>(values.map(|value| value as i32), nulls)?),
        DataType::BigInt => Arc::new(array::<Int64Type>(values, nulls)?),
        DataType::Date => Arc::new(array::<Date32Type>(values.map(|value| value as i32), nulls)?),
        DataType::Timestamp => Arc::new(array::<TimestampMicrosecondType>(values, nulls)?),
        DataType::TimestampTz => Arc::new(array::<TimestampMicrosecondType>(values, nulls)?.with_timezone(UTC)),
        DataType::Numeric { precision, scale } => {
            let wide = values.map(i128::from).collect::<Vec<_>>();
            Arc::new(Decimal128Array::try_new(wide.into(), nulls)?.with_precision_and_scale(*precision, *scale)?)
        }
        other => return Err(Error::Invalid(format!("integers for values of type {other}"))),
    })
}

/// Of decimals.
pub(crate) fn array_of_wide(
    data_type: &DataType,
    values: &[i128],
    is_valid: impl Fn(usize) -> bool,
) -> Result<ArrayRef> {
    let DataType::Numeric { precision, scale } = data_type else {
        return Err(Error::Invalid(format!("decimals for values of type {data_type}")));
    };
    decimals(values, *precision, *scale, is_valid)
}

pub(crate) fn decimals(
    values: &[i128],
    precision: u8,
    scale: i8,
    is_valid: impl Fn(usize) -> bool,
) -> Result<ArrayRef> {
    let array = Decimal128Array::try_new(values.to_vec().into(), nulls(values.len(), is_valid))?;
    Ok(Arc::new(array.with_precision_and_scale(precision, scale)?))
}

/// Of floats of either width.
pub(crate) fn array_of_floats(
    data_type: &DataType,
    values: &[f64],
    is_valid: impl Fn(usize) -> bool,
) -> Result<ArrayRef> {
    let nulls = nulls(values.len(), is_valid);
    Ok(match data_type {
        DataType::Real => {
            let narrow = values.iter().map(|value| *value as f32).collect::<Vec<_>>();
            Arc::new(Float32Array::try_new(narrow.into(), nulls)?)
        }
        DataType::Double => Arc::new(Float64Array::try_new(values.to_vec().into(), nulls)?),
        other => return Err(Error::Invalid(format!("floats for values of type {other}"))),
    })
}
