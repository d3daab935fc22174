//! Rounding as PostgreSQL rounds: numeric halves away from zero and the result has the scale asked for; double precision halves to even.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array},
    datatypes::{DataType, Decimal128Type, Field, FieldRef, Float64Type, Int64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ReturnFieldArgs, ScalarUDF, Volatility},
    scalar::ScalarValue,
};

use super::simple::{Call, Returns, Simple, any_of};
use crate::{SqlError, rules::types};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Nearest,
    Zero,
    Above,
    Below,
}

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    use Volatility::Immutable;
    let field = || Returns::Field(rounded_type);
    vec![
        Simple::udf("round", any_of(&[1, 2], Immutable), field(), |call| rounded(call, To::Nearest)),
        Simple::udf("trunc", any_of(&[1, 2], Immutable), field(), |call| rounded(call, To::Zero)),
        Simple::aliased("ceil", &["ceiling"], any_of(&[1], Immutable), field(), |call| rounded(call, To::Above)),
        Simple::udf("floor", any_of(&[1], Immutable), field(), |call| rounded(call, To::Below)),
        Simple::udf("sign", any_of(&[1], Immutable), field(), sign),
        // Becomes the operator % once types are known.
        Simple::udf("mod", any_of(&[2], Immutable), Returns::Of(|arguments| Ok(arguments[0].clone())), |_| {
            Err(DataFusionError::Internal("mod is an operator".to_owned()))
        }),
    ]
}

/// numeric stays numeric; everything else is double precision, as PostgreSQL resolves integers too, but for a number of decimals.
fn rounded_type(args: &ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
    let data_type = match (args.arg_fields[0].data_type(), args.arg_fields.len()) {
        (DataType::Decimal128(_, scale), 1) => DataType::Decimal128(38, 0.min(*scale)),
        (data_type, 2) if types::is_decimal(data_type) || types::is_int(data_type) => {
            let scale = if let DataType::Decimal128(_, scale) = data_type { *scale } else { 0 };
            let asked = match args.scalar_arguments.get(1) {
                Some(Some(value)) => match value.cast_to(&DataType::Int64)? {
                    ScalarValue::Int64(Some(asked)) => asked.clamp(0, 37) as i8,
                    _ => scale,
                },
                _ => scale,
            };
            DataType::Decimal128(38, asked)
        }
        (DataType::Float32 | DataType::Float64, 2) => {
            return Err(SqlError::new("42883", "function round(double precision, integer) does not exist")
                .with_hint("Cast to numeric first: round(x::numeric, 2).")
                .into());
        }
        (data_type, _) if data_type.is_numeric() || types::is_text(data_type) || *data_type == DataType::Null => {
            DataType::Float64
        }
        _ => {
            let name = types::name(&args.arg_fields[0]);
            return Err(SqlError::new("42883", format!("function of type {name} does not exist")).into());
        }
    };
    Ok(Arc::new(Field::new("rounded", data_type, true)))
}

fn rounded(call: &Call<'_>, to: To) -> Result<ArrayRef, DataFusionError> {
    let DataType::Decimal128(precision, scale) = *call.returns.data_type() else {
        let values = call.cast(0, &DataType::Float64)?;
        let round = match to {
            To::Nearest => f64::round_ties_even,
            To::Zero => f64::trunc,
            To::Above => f64::ceil,
            To::Below => f64::floor,
        };
        return Ok(Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(round)));
    };
    let (values, from) = decimals(call)?;
    let places = match call.arrays.len() {
        2 => Some(call.cast(1, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
        _ => None,
    };
    let mut out = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        if values.is_null(row) || places.as_ref().is_some_and(|places| places.is_null(row)) {
            out.push(None);
            continue;
        }
        let kept = places.as_ref().map_or(0, |places| places.value(row).clamp(-40, 40));
        let value = at_scale(values.value(row), i64::from(from), kept, i64::from(scale), to)
            .ok_or_else(|| SqlError::new("22003", "numeric field overflow"))?;
        out.push(Some(value));
    }
    Ok(Arc::new(out.into_iter().collect::<Decimal128Array>().with_precision_and_scale(precision, scale)?))
}

/// Argument 0 as unscaled integers, and their scale.
fn decimals(call: &Call<'_>) -> Result<(Decimal128Array, i8), DataFusionError> {
    let scale = if let DataType::Decimal128(_, scale) = call.arrays[0].data_type() { *scale } else { 0 };
    let values = call.cast(0, &DataType::Decimal128(38, scale))?;
    Ok((values.as_primitive::<Decimal128Type>().clone(), scale))
}

/// `value` × 10^-from, rounded to `kept` decimals, as an integer of scale `scale`.
fn at_scale(value: i128, from: i64, kept: i64, scale: i64, to: To) -> Option<i128> {
    let power = |exponent: i64| u32::try_from(exponent).ok().and_then(|exponent| 10i128.checked_pow(exponent));
    let (value, from) = if kept >= from {
        (value, from)
    } else {
        // A divisor beyond all values leaves 0 (or 1 above): none is as large.
        let divisor = power(from - kept).unwrap_or(i128::MAX);
        let (quotient, rest) = (value / divisor, value % divisor);
        let step = match to {
            To::Zero => 0,
            To::Nearest if rest.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2) => value.signum(),
            To::Nearest => 0,
            To::Above => i128::from(rest > 0),
            To::Below => -i128::from(rest < 0),
        };
        (quotient + step, kept)
    };
    let value = match scale >= from {
        true => value.checked_mul(power(scale - from)?)?,
        false => value / power(from - scale)?,
    };
    (value.unsigned_abs() < 10u128.pow(38)).then_some(value)
}

fn sign(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    if let DataType::Decimal128(precision, scale) = *call.returns.data_type() {
        let (values, _) = decimals(call)?;
        let signs: Decimal128Array = values.unary(i128::signum);
        return Ok(Arc::new(signs.with_precision_and_scale(precision, scale)?));
    }
    let values = call.cast(0, &DataType::Float64)?;
    let signs: Float64Array = values.as_primitive::<Float64Type>().unary(|value: f64| match value == 0.0 {
        true => 0.0,
        false => value.signum(),
    });
    Ok(Arc::new(signs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero() {
        for (value, from, kept, scale, to, wanted) in [
            (25, 1, 0, 0, To::Nearest, 3),
            (-25, 1, 0, 0, To::Nearest, -3),
            (24, 1, 0, 0, To::Nearest, 2),
            (1_234_567, 3, 2, 2, To::Nearest, 123_457),
            (1_234_567, 3, -2, 0, To::Nearest, 1200),
            (15, 1, 3, 3, To::Nearest, 1500),
            (-12, 1, 0, 0, To::Below, -2),
            (-12, 1, 0, 0, To::Above, -1),
            (12, 1, 0, 0, To::Above, 2),
            (199, 2, 0, 0, To::Zero, 1),
        ] {
            assert_eq!(at_scale(value, from, kept, scale, to), Some(wanted), "{value} {from} {kept} {to:?}");
        }
        assert_eq!(at_scale(i128::MAX / 2, 0, 5, 5, To::Nearest), None);
    }
}
