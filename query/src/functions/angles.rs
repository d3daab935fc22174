//! Trigonometry in degrees, exact where the angle is a multiple of 30 or 45.

use std::sync::Arc;

use arrow::{
    array::AsArray,
    datatypes::{DataType, Float64Type},
};
use datafusion::logical_expr::{ScalarUDF, Volatility::Immutable};

use super::simple::{Body, Returns, Simple, any};
use crate::SqlError;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let define = |name, body: Body| Simple::udf(name, any(1, Immutable), Returns::Type(DataType::Float64), body);
    macro_rules! of {
        ($name:literal, $function:expr) => {
            define($name, |call| {
                let values = call.cast(0, &DataType::Float64)?;
                let changed = values.as_primitive::<Float64Type>().try_unary::<_, Float64Type, SqlError>($function)?;
                Ok(Arc::new(changed))
            })
        };
    }
    vec![
        of!("sind", |angle| Ok(sine(finite(angle)?))),
        of!("cosd", |angle| Ok(sine(finite(angle)? + 90.0))),
        of!("tand", |angle| Ok(sine(finite(angle)?) / sine(angle + 90.0))),
        of!("cotd", |angle| Ok(sine(finite(angle)? + 90.0) / sine(angle))),
        of!("asind", |value| Ok(whole(unit(value)?.asin().to_degrees()))),
        of!("acosd", |value| Ok(whole(unit(value)?.acos().to_degrees()))),
        of!("atand", |value| Ok(whole(value.atan().to_degrees()))),
        Simple::udf("atan2d", any(2, Immutable), Returns::Type(DataType::Float64), |call| {
            let (y, x) = (call.cast(0, &DataType::Float64)?, call.cast(1, &DataType::Float64)?);
            let (y, x) = (y.as_primitive::<Float64Type>(), x.as_primitive::<Float64Type>());
            let angles = arrow::compute::binary::<_, _, _, Float64Type>(y, x, |y, x| whole(y.atan2(x).to_degrees()))?;
            Ok(Arc::new(angles))
        }),
    ]
}

fn finite(angle: f64) -> Result<f64, SqlError> {
    if angle.is_infinite() { Err(SqlError::new("22003", "input is out of range")) } else { Ok(angle) }
}

fn unit(value: f64) -> Result<f64, SqlError> {
    if value.abs() > 1.0 { Err(SqlError::new("22003", "input is out of range")) } else { Ok(value) }
}

/// The whole number beside `angle`, where only the arithmetic keeps it from being one.
fn whole(angle: f64) -> f64 {
    if (angle - angle.round()).abs() < 1e-12 { angle.round() } else { angle }
}

fn sine(angle: f64) -> f64 {
    let turned = angle.rem_euclid(360.0);
    let (sign, turned) = if turned >= 180.0 { (-1.0, turned - 180.0) } else { (1.0, turned) };
    let acute = if turned > 90.0 { 180.0 - turned } else { turned };
    sign * match acute {
        0.0 => 0.0,
        30.0 => 0.5,
        90.0 => 1.0,
        other => other.to_radians().sin(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_angles_have_round_sines() {
        for (angle, wanted) in [(0.0, 0.0), (30.0, 0.5), (90.0, 1.0), (150.0, 0.5), (210.0, -0.5), (-90.0, -1.0)] {
            assert_eq!(sine(angle), wanted, "{angle}");
        }
        assert_eq!(sine(45.0) / sine(135.0), 1.0);
        assert_eq!(whole(0.5f64.asin().to_degrees()), 30.0);
    }
}
