//! Numbers on the line between two others.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, Decimal128Array, Float32Array, Float64Array, PrimitiveArray,
    },
    datatypes::{DataType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, i256},
};
use datafusion::error::DataFusionError;

use crate::SqlError;

/// A value of a column that is interpolated; a decimal by its digits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i128),
    Decimal(i128),
    Float(f64),
}

impl Number {
    /// Row `row` of a column; none where it is null.
    pub(super) fn read(column: &dyn Array, row: usize) -> Result<Option<Self>, DataFusionError> {
        if column.is_null(row) {
            return Ok(None);
        }
        Ok(Some(match column.data_type() {
            DataType::Int16 => Self::Int(column.as_primitive::<Int16Type>().value(row).into()),
            DataType::Int32 => Self::Int(column.as_primitive::<Int32Type>().value(row).into()),
            DataType::Int64 => Self::Int(column.as_primitive::<Int64Type>().value(row).into()),
            DataType::Float32 => Self::Float(column.as_primitive::<Float32Type>().value(row).into()),
            DataType::Float64 => Self::Float(column.as_primitive::<Float64Type>().value(row)),
            DataType::Decimal128(..) => {
                Self::Decimal(column.as_primitive::<arrow::datatypes::Decimal128Type>().value(row))
            }
            other => return Err(SqlError::internal(format!("interpolate of {other}")).into()),
        }))
    }

    /// At `at`, between the values at `from` and `to`: `from < at < to`. Whole numbers are cut off, as TimescaleDB has it; decimals are rounded.
    pub(super) fn between((from, a): (i64, Self), (to, b): (i64, Self), at: i64) -> Option<Self> {
        let (passed, whole) = (i128::from(at) - i128::from(from), i128::from(to) - i128::from(from));
        // In 256 bits: 38 digits times the microseconds between two moments.
        let weighted = |a: i128, b: i128| {
            let (a, b) = (i256::from_i128(a), i256::from_i128(b));
            let left = a.checked_mul(i256::from_i128(whole - passed))?;
            left.checked_add(b.checked_mul(i256::from_i128(passed))?)
        };
        match (a, b) {
            (Self::Int(a), Self::Int(b)) => {
                weighted(a, b)?.checked_div(i256::from_i128(whole))?.to_i128().map(Self::Int)
            }
            (Self::Decimal(a), Self::Decimal(b)) => {
                let (sum, whole) = (weighted(a, b)?, i256::from_i128(whole));
                let half = whole.checked_div(i256::from_i128(2))?;
                let moved = if sum.is_negative() { sum.checked_sub(half)? } else { sum.checked_add(half)? };
                moved.checked_div(whole)?.to_i128().map(Self::Decimal)
            }
            (Self::Float(a), Self::Float(b)) => Some(Self::Float(a + (b - a) * (passed as f64 / whole as f64))),
            _ => None,
        }
    }
}

/// The column of these numbers.
pub(super) fn column(numbers: &[Option<Number>], data_type: &DataType) -> Result<ArrayRef, DataFusionError> {
    fn whole<T: ArrowPrimitiveType>(numbers: &[Option<Number>]) -> Result<ArrayRef, DataFusionError>
    where
        T::Native: TryFrom<i128>,
    {
        let each = numbers.iter().map(|number| match number {
            Some(Number::Int(value)) => T::Native::try_from(*value)
                .map(Some)
                .map_err(|_| SqlError::internal("a number outside of its neighbours")),
            _ => Ok(None),
        });
        Ok(Arc::new(each.collect::<Result<PrimitiveArray<T>, SqlError>>()?))
    }
    let float = |number: &Option<Number>| match number {
        Some(Number::Float(value)) => Some(*value),
        _ => None,
    };
    Ok(match data_type {
        DataType::Int16 => whole::<Int16Type>(numbers)?,
        DataType::Int32 => whole::<Int32Type>(numbers)?,
        DataType::Int64 => whole::<Int64Type>(numbers)?,
        DataType::Float32 => {
            Arc::new(numbers.iter().map(|number| float(number).map(|value| value as f32)).collect::<Float32Array>())
        }
        DataType::Float64 => Arc::new(numbers.iter().map(float).collect::<Float64Array>()),
        DataType::Decimal128(precision, scale) => {
            let digits = numbers.iter().map(|number| match number {
                Some(Number::Decimal(value)) => Some(*value),
                _ => None,
            });
            Arc::new(digits.collect::<Decimal128Array>().with_precision_and_scale(*precision, *scale)?)
        }
        other => return Err(SqlError::internal(format!("interpolate of {other}")).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_on_the_line_between_their_neighbours() {
        let int = |a, b, at| Number::between((0, Number::Int(a)), (3, Number::Int(b)), at);
        assert_eq!(int(1, 2, 1), Some(Number::Int(1)));
        assert_eq!(int(1, 2, 2), Some(Number::Int(1)));
        assert_eq!(int(-1, -2, 2), Some(Number::Int(-1)));
        assert_eq!(int(i64::MIN.into(), i64::MAX.into(), 1), Some(Number::Int(-3_074_457_345_618_258_603)));
        let decimal = |a, b, at| Number::between((0, Number::Decimal(a)), (3, Number::Decimal(b)), at);
        assert_eq!(decimal(1, 2, 1), Some(Number::Decimal(1)));
        assert_eq!(decimal(1, 2, 2), Some(Number::Decimal(2)));
        assert_eq!(decimal(-1, -2, 2), Some(Number::Decimal(-2)));
        let most = 10_i128.pow(38) - 1;
        let far = Number::between((i64::MIN, Number::Decimal(-most)), (i64::MAX, Number::Decimal(most)), i64::MAX - 1);
        assert!(matches!(far, Some(Number::Decimal(value)) if value > most - 10_i128.pow(20)), "{far:?}");
        assert_eq!(Number::between((0, Number::Float(0.1)), (7, Number::Float(0.1)), 3), Some(Number::Float(0.1)));
    }
}
