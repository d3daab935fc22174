//! Range: the rows in the order of their values.
//!
//! ```text
//! values:  3 3 7 9 … 812      ascending, packed by the difference to the one before
//! rows:    5 1 8 0 …  77      the row of each
//! ```
//!
//! A condition on a range of values is two positions in `values`, found by binary search over the first value of each block of 1024 and
//! inside one block; the rows between are the answer, exactly. With a dictionary the order of the values is that of its ids: then
//! this is the postings of the ids.
//!
//! **Not bit-sliced** (O'Neil & Quass; Chan & Ioannidis): a slice per bit means reading as many bits per row as the packed column has, which the
//! SIMD scan does at the speed of memory; the order costs 20 bits a row and the differences of the values, and a query reads only what it answers.
//!
//! Integers of 64 bits stand for the values: numbers, dates and times themselves, of NUMERIC the unscaled value, of floats the bits in the
//! order of PostgreSQL with one zero and one NaN. A segment with a NUMERIC beyond 64 bits has an index that answers nothing.

mod builder;
mod reader;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType,
    },
};

pub(super) use builder::build;
pub(crate) use reader::RangeIndex;

use crate::{Error, Result, scalar::Scalar, schema::DataType};

/// The postings of dictionary ids.
const BY_ID: u8 = 0;
/// Rows in the order of their values.
const BY_VALUE: u8 = 1;
/// Nothing: the values do not fit.
const NOTHING: u8 = 2;

/// The integer that stands for a float.
fn of_float(value: f64) -> i64 {
    let plain = if value.is_nan() { f64::NAN } else { value + 0.0 };
    let bits = plain.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// The integer that stands for a value of a column of the type, of 128 bits for values that no row of it has.
fn of_scalar(value: &Scalar, data_type: &DataType) -> Option<i128> {
    Some(match value {
        Scalar::Int(value) => i128::from(*value),
        Scalar::Decimal(value) => *value,
        // REAL is compared at its own precision.
        Scalar::Float(value) if *data_type == DataType::Real => i128::from(of_float(f64::from(*value as f32))),
        Scalar::Float(value) => i128::from(of_float(*value)),
        _ => return None,
    })
}

/// Calls `each` with the integer of every row, `None` for a null. False when a value has none.
fn of_array(array: &ArrayRef, mut each: impl FnMut(Option<i64>)) -> Result<bool> {
    macro_rules! primitive {
        ($type:ty, $of:expr) => {
            array.as_primitive::<$type>().iter().for_each(|value| each(value.map($of)))
        };
    }
    match array.data_type() {
        ArrowType::Int16 => primitive!(Int16Type, i64::from),
        ArrowType::Int32 => primitive!(Int32Type, i64::from),
        ArrowType::Int64 => primitive!(Int64Type, |v| v),
        ArrowType::Date32 => primitive!(Date32Type, i64::from),
        ArrowType::Timestamp(..) => primitive!(TimestampMicrosecondType, |v| v),
        ArrowType::Float32 => primitive!(Float32Type, |v| of_float(v.into())),
        ArrowType::Float64 => primitive!(Float64Type, of_float),
        ArrowType::Decimal128(..) => {
            for value in array.as_primitive::<Decimal128Type>() {
                match value.map(i64::try_from).transpose() {
                    Ok(value) => each(value),
                    Err(_) => return Ok(false),
                }
            }
        }
        other => return Err(Error::Invalid(format!("values of {other} have no integers"))),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integers_of_floats_have_the_order_of_postgresql() {
        let floats = [f64::NEG_INFINITY, -1.5, -5e-324, 0.0, 5e-324, 2.0, f64::INFINITY, f64::NAN];
        assert!(floats.map(of_float).windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(of_float(-0.0), of_float(0.0));
        assert_eq!(of_float(-f64::NAN), of_float(f64::NAN));
    }
}
