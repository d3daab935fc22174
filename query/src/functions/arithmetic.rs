//! Arithmetic that fails where PostgreSQL's fails: integers that overflow, doubles divided by zero or grown beyond all bounds.
//!
//! DataFusion's operators wrap and give infinities; the rule `rules::arithmetic` puts these in their place.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, PrimitiveArray},
    compute::kernels::numeric,
    datatypes::{
        ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, i256,
    },
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    scalar::ScalarValue,
};

use crate::SqlError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// One operator on two operands of one integer or float type.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Checked {
    op: Op,
    signature: Signature,
}

impl Checked {
    pub(crate) fn udf(op: Op) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Self { op, signature: Signature::any(2, Volatility::Immutable) }))
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Op::Add => "checked_add",
            Op::Subtract => "checked_subtract",
            Op::Multiply => "checked_multiply",
            Op::Divide => "checked_divide",
            Op::Remainder => "checked_remainder",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType, DataFusionError> {
        match arguments {
            [a, b] if a == b => Ok(a.clone()),
            _ => Err(DataFusionError::Internal(format!("{} takes two operands of one type", self.name()))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let [left, right] = args.args.as_slice() else {
            return Err(DataFusionError::Internal(format!("{} takes two operands", self.name())));
        };
        let all_scalar = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
        let result = match left.data_type() {
            DataType::Float64 => floats::<Float64Type>(self.op, left, right, args.number_rows)?,
            DataType::Float32 => floats::<Float32Type>(self.op, left, right, args.number_rows)?,
            data_type => integers(self.op, &data_type, left, right)?,
        };
        match all_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

fn integers(
    op: Op,
    data_type: &DataType,
    left: &ColumnarValue,
    right: &ColumnarValue,
) -> Result<ArrayRef, DataFusionError> {
    let kernel = match op {
        Op::Add => numeric::add,
        Op::Subtract => numeric::sub,
        Op::Multiply => numeric::mul,
        Op::Divide => numeric::div,
        Op::Remainder => numeric::rem,
    };
    let result = match (left, right) {
        (ColumnarValue::Array(l), ColumnarValue::Array(r)) => kernel(l, r),
        (ColumnarValue::Array(l), ColumnarValue::Scalar(r)) => kernel(l, &r.to_scalar()?),
        (ColumnarValue::Scalar(l), ColumnarValue::Array(r)) => kernel(&l.to_scalar()?, r),
        (ColumnarValue::Scalar(l), ColumnarValue::Scalar(r)) => kernel(&l.to_array()?, &r.to_array()?),
    };
    result.map_err(|error| match error {
        arrow::error::ArrowError::DivideByZero => SqlError::division_by_zero().into(),
        arrow::error::ArrowError::ArithmeticOverflow(_) => SqlError::out_of_range(match data_type {
            DataType::Int16 => "smallint",
            DataType::Int32 => "integer",
            _ => "bigint",
        })
        .into(),
        other => other.into(),
    })
}

fn floats<T>(op: Op, left: &ColumnarValue, right: &ColumnarValue, rows: usize) -> Result<ArrayRef, DataFusionError>
where
    T: ArrowPrimitiveType,
    T::Native: Into<f64>
        + From<f32>
        + std::ops::Add<Output = T::Native>
        + std::ops::Sub<Output = T::Native>
        + std::ops::Mul<Output = T::Native>
        + std::ops::Div<Output = T::Native>
        + std::ops::Rem<Output = T::Native>,
{
    let all_scalar = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
    let rows = if all_scalar { 1 } else { rows };
    let (left, right) = (left.to_array(rows)?, right.to_array(rows)?);
    let (left, right) = (left.as_primitive::<T>(), right.as_primitive::<T>());
    let result: PrimitiveArray<T> = match op {
        Op::Divide | Op::Remainder => {
            let zero = |index: usize| {
                let value: f64 = right.value(index).into();
                value == 0.0 && right.is_valid(index) && left.is_valid(index)
            };
            if (0..rows).any(zero) {
                return Err(SqlError::division_by_zero().into());
            }
            match op {
                Op::Divide => arrow::compute::binary(left, right, |a, b| one_nan(a / b))?,
                _ => arrow::compute::binary(left, right, |a, b| one_nan(a % b))?,
            }
        }
        Op::Add => arrow::compute::binary(left, right, |a, b| one_nan(a + b))?,
        Op::Subtract => arrow::compute::binary(left, right, |a, b| one_nan(a - b))?,
        Op::Multiply => arrow::compute::binary(left, right, |a, b| one_nan(a * b))?,
    };
    // An infinity that was not there before is an overflow.
    for index in 0..rows {
        let value: f64 = result.value(index).into();
        if value.is_infinite() && result.is_valid(index) {
            let (a, b): (f64, f64) = (left.value(index).into(), right.value(index).into());
            if a.is_finite() && b.is_finite() {
                return Err(SqlError::new("22003", "value out of range: overflow").into());
            }
        }
    }
    Ok(Arc::new(result))
}

/// Processors give NaN a sign (that of infinity - infinity is minus), by which it would be another number, and the least.
fn one_nan<T: Into<f64> + From<f32> + Copy>(number: T) -> T {
    let value: f64 = number.into();
    if value.is_nan() { f32::NAN.into() } else { number }
}

/// numeric / numeric, rounded half away from zero at the scale of its result (Arrow's operator cuts).
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Quotient {
    result: DataType,
    signature: Signature,
}

impl Quotient {
    pub(crate) fn udf(result: DataType) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Self { result, signature: Signature::any(2, Volatility::Immutable) }))
    }
}

impl ScalarUDFImpl for Quotient {
    fn name(&self) -> &str {
        "numeric_divide"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        super::simple::invoke(args, |call| {
            let (left, right) = (&call.arrays[0], &call.arrays[1]);
            let (
                DataType::Decimal128(_, left_scale),
                DataType::Decimal128(_, right_scale),
                DataType::Decimal128(precision, scale),
            ) = (left.data_type(), right.data_type(), &self.result)
            else {
                return Err(DataFusionError::Internal("numeric_divide takes numeric operands".to_owned()));
            };
            let shift = i32::from(*scale) + i32::from(*right_scale) - i32::from(*left_scale);
            let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
            let mut out = Vec::with_capacity(call.rows);
            for (left, right) in left.iter().zip(right.iter()) {
                out.push(match (left, right) {
                    (Some(_), Some(0)) => return Err(SqlError::division_by_zero().into()),
                    (Some(left), Some(right)) => Some(
                        quotient(left, right, shift)
                            .filter(|value| value.unsigned_abs() < 10u128.pow(u32::from(*precision)))
                            .ok_or_else(|| SqlError::new("22003", "numeric field overflow"))?,
                    ),
                    _ => None,
                });
            }
            let out: Decimal128Array = out.into_iter().collect();
            Ok(Arc::new(out.with_precision_and_scale(*precision, *scale)?))
        })
    }
}

/// `left` × 10^shift / `right`, halves away from zero.
fn quotient(left: i128, right: i128, shift: i32) -> Option<i128> {
    let (mut left, mut right) = (i256::from_i128(left), i256::from_i128(right));
    for _ in 0..shift.unsigned_abs() {
        let scaled = if shift >= 0 { &mut left } else { &mut right };
        *scaled = scaled.checked_mul(i256::from_i128(10))?;
    }
    let size = |value: i256| if value < i256::ZERO { i256::ZERO.wrapping_sub(value) } else { value };
    let whole = left.checked_div(right)?;
    let rest = size(left.checked_rem(right)?);
    let step = match rest.checked_mul(i256::from_i128(2))? >= size(right) {
        true if (left < i256::ZERO) != (right < i256::ZERO) => -1,
        true => 1,
        false => 0,
    };
    whole.checked_add(i256::from_i128(step))?.to_i128()
}

/// Rounded to the nearest integer as PostgreSQL's casts do (halves to even), checked for its range.
pub(crate) fn float_to_int(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, DataFusionError> {
    let floats = arrow::compute::cast(array, &DataType::Float64)?;
    let floats: &Float64Array = floats.as_primitive();
    fn to<T: ArrowPrimitiveType>(
        floats: &Float64Array,
        least: f64,
        bound: f64,
        name: &str,
        make: impl Fn(f64) -> T::Native,
    ) -> Result<ArrayRef, DataFusionError> {
        let mut out = Vec::with_capacity(floats.len());
        for value in floats {
            out.push(match value.map(f64::round_ties_even) {
                None => None,
                Some(value) if value >= least && value < bound => Some(make(value)),
                Some(_) => return Err(SqlError::out_of_range(name).into()),
            });
        }
        Ok(Arc::new(out.into_iter().collect::<PrimitiveArray<T>>()))
    }
    match target {
        DataType::Int16 => to::<Int16Type>(floats, -32_768.0, 32_768.0, "smallint", |v| v as i16),
        DataType::Int32 => to::<Int32Type>(floats, -2_147_483_648.0, 2_147_483_648.0, "integer", |v| v as i32),
        DataType::Int64 => {
            to::<Int64Type>(floats, -9_223_372_036_854_775_808.0, 9_223_372_036_854_775_808.0, "bigint", |v| v as i64)
        }
        other => Err(DataFusionError::Internal(format!("no integer type: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::quotient;

    #[test]
    fn quotients_are_rounded_half_away_from_zero() {
        for (left, right, shift, wanted) in
            [(11, 3, 4, 36_667), (-11, 3, 4, -36_667), (1, 8, 2, 13), (-1, 8, 2, -13), (1, 3, 2, 33), (25, 1, -1, 3)]
        {
            assert_eq!(quotient(left, right, shift), Some(wanted), "{left} / {right} * 10^{shift}");
        }
        assert_eq!(quotient(i128::MAX, 1, 30), None);
    }
}
