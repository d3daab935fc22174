//! State columns as segments give them, in the form that DataFusion's final aggregates take.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, Float64Array, Int64Array, PrimitiveArray,
        UInt64Array,
    },
    datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, Float64Type, Int64Type, i256},
};

use crate::SqlError;

/// One state column of a partial aggregate; the number is the place of the segments' column that it is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// As it is.
    Same(usize),
    /// A count, as DataFusion's averages hold it: null where there is nothing, or it takes the group for one with an average.
    Unsigned(usize),
    /// A count; 0 where there is nothing.
    Counted(usize),
    /// A number; 0 where there is none.
    Number(usize),
    /// Whether a count is above 0.
    Any(usize),
    /// An exact sum, in the type that the query's sums have.
    Sum(usize, DataType),
}

impl State {
    /// `columns`: the segments' states. An error when a sum does not fit its type.
    pub(crate) fn column(&self, columns: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
        Ok(match self {
            Self::Same(at) => Arc::clone(&columns[*at]),
            Self::Unsigned(at) => {
                let counts = columns[*at].as_primitive::<Int64Type>().iter();
                let unsigned =
                    counts.map(|count| count.and_then(|count| u64::try_from(count).ok()).filter(|count| *count > 0));
                Arc::new(unsigned.collect::<UInt64Array>())
            }
            Self::Counted(at) => {
                let counts = columns[*at].as_primitive::<Int64Type>();
                Arc::new(counts.values().iter().map(|count| count.unsigned_abs()).collect::<UInt64Array>())
            }
            Self::Number(at) => {
                let numbers = columns[*at].as_primitive::<Float64Type>().iter();
                Arc::new(Float64Array::from_iter_values(numbers.map(Option::unwrap_or_default)))
            }
            Self::Any(at) => {
                let counts = columns[*at].as_primitive::<Int64Type>();
                Arc::new(BooleanArray::from_iter(counts.values().iter().map(|count| Some(*count > 0))))
            }
            Self::Sum(at, to) => sum(&columns[*at], to)?,
        })
    }
}

fn sum(sums: &ArrayRef, to: &DataType) -> Result<ArrayRef, SqlError> {
    let DataType::Decimal128(_, scale) = sums.data_type() else { return Ok(Arc::clone(sums)) };
    let sums = sums.as_primitive::<Decimal128Type>();
    let digits = |to: i8| u32::try_from(i16::from(to) - i16::from(*scale)).map_err(|_| misfit(to));
    Ok(match to {
        DataType::Int64 => {
            let fit = |sum: i128| i64::try_from(sum).map_err(|_| SqlError::new("22003", "bigint out of range"));
            Arc::new(Int64Array::from_iter(each(sums, fit)?))
        }
        DataType::Decimal128(precision, to) => {
            let (power, largest) = (10i128.pow(digits(*to)?), 10i128.pow(u32::from(*precision)) - 1);
            let fit = |sum: i128| match sum.checked_mul(power) {
                Some(sum) if sum.unsigned_abs() <= largest.unsigned_abs() => Ok(sum),
                _ => Err(SqlError::new("22003", "numeric field overflow")),
            };
            Arc::new(Decimal128Array::from_iter(each(sums, fit)?).with_precision_and_scale(*precision, *to)?)
        }
        DataType::Decimal256(precision, to) => {
            let power = i256::from_i128(10i128.pow(digits(*to)?));
            // 38 digits and 38 more always fit 256 bits.
            let fit = |sum: i128| Ok(i256::from_i128(sum).wrapping_mul(power));
            Arc::new(Decimal256Array::from_iter(each(sums, fit)?).with_precision_and_scale(*precision, *to)?)
        }
        other => return Err(SqlError::internal(format!("a sum of numbers as {other}"))),
    })
}

fn misfit(scale: i8) -> SqlError {
    SqlError::internal(format!("a sum cut to scale {scale}"))
}

fn each<T: ArrowPrimitiveType, R>(
    values: &PrimitiveArray<T>,
    of: impl Fn(T::Native) -> Result<R, SqlError>,
) -> Result<Vec<Option<R>>, SqlError> {
    values.iter().map(|value| value.map(&of).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(values: Vec<Option<i128>>, scale: i8) -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(38, scale).unwrap())
    }

    #[test]
    fn sums_take_the_querys_type_or_do_not_fit() {
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![3, 0]));
        let unsigned = State::Unsigned(0).column(&[counts]).unwrap();
        assert_eq!(unsigned.as_ref(), &UInt64Array::from(vec![Some(3), None]) as &dyn arrow::array::Array);
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![3, 0]));
        let counted = State::Counted(0).column(&[Arc::clone(&counts)]).unwrap();
        assert_eq!(counted.as_ref(), &UInt64Array::from(vec![3, 0]) as &dyn arrow::array::Array);
        let any = State::Any(0).column(&[counts]).unwrap();
        assert_eq!(any.as_ref(), &BooleanArray::from(vec![true, false]) as &dyn arrow::array::Array);
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None]));
        let numbers = State::Number(0).column(&[numbers]).unwrap();
        assert_eq!(numbers.as_ref(), &Float64Array::from(vec![1.5, 0.0]) as &dyn arrow::array::Array);
        let given = [sums(vec![Some(i128::from(i64::MAX)), None], 0)];
        let whole = State::Sum(0, DataType::Int64).column(&given).unwrap();
        assert_eq!(whole.as_ref(), &Int64Array::from(vec![Some(i64::MAX), None]) as &dyn arrow::array::Array);
        let scaled = State::Sum(0, DataType::Decimal128(38, 12)).column(&given).unwrap();
        assert_eq!(scaled.as_primitive::<Decimal128Type>().value(0), i128::from(i64::MAX) * 10i128.pow(12));
        let wide = State::Sum(0, DataType::Decimal256(76, 38)).column(&given).unwrap();
        assert_eq!(wide.data_type(), &DataType::Decimal256(76, 38));
        let above = [sums(vec![Some(i128::from(i64::MAX) + 1)], 0)];
        assert_eq!(State::Sum(0, DataType::Int64).column(&above).unwrap_err().sqlstate, "22003");
        let huge = [sums(vec![Some(10i128.pow(37))], 0)];
        assert_eq!(State::Sum(0, DataType::Decimal128(38, 12)).column(&huge).unwrap_err().sqlstate, "22003");
    }
}
