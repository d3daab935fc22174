//! REAL and DOUBLE PRECISION numbers that are equal and differ in their bits, -0 and 0, NaN of either sign, as one: for what goes by bits.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
    datatypes::{DataType, Float32Type, Float64Type},
};
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::simple::{Returns, Simple, any};

pub(crate) const ONE_FLOAT: &str = "tidemill_one_float";

pub(crate) fn one_float() -> Arc<ScalarUDF> {
    Simple::udf(ONE_FLOAT, any(1, Volatility::Immutable), Returns::Of(|types| Ok(types[0].clone())), |call| {
        let array = &call.arrays[0];
        Ok(match array.data_type() {
            DataType::Float32 => of::<Float32Type>(array, f32::NAN, |x| x + 0.0),
            DataType::Float64 => of::<Float64Type>(array, f64::NAN, |x| x + 0.0),
            _ => Arc::clone(array),
        })
    })
}

fn of<T>(array: &ArrayRef, nan: T::Native, positive: impl Fn(T::Native) -> T::Native) -> ArrayRef
where
    T: ArrowPrimitiveType,
    T::Native: PartialEq,
{
    // -0 + 0 is 0, and NaN alone is no equal of itself.
    let one: PrimitiveArray<T> = array.as_primitive::<T>().unary(|x| if is_number(x) { positive(x) } else { nan });
    Arc::new(one)
}

#[expect(clippy::eq_op, reason = "NaN is what differs from itself")]
fn is_number<T: PartialEq + Copy>(x: T) -> bool {
    x == x
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, Float32Array, Float64Array};

    use super::*;

    #[test]
    fn equal_numbers_have_the_same_bits() {
        let given: ArrayRef = Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(-f64::NAN), Some(-1.5)]));
        let one = of::<Float64Type>(&given, f64::NAN, |x| x + 0.0);
        let one = one.as_primitive::<Float64Type>();
        assert_eq!(one.value(0).to_bits(), 0.0f64.to_bits());
        assert!(one.is_null(1));
        assert_eq!(one.value(2).to_bits(), f64::NAN.to_bits());
        assert_eq!(one.value(3), -1.5);
        let given: ArrayRef = Arc::new(Float32Array::from(vec![-0.0]));
        let one = of::<Float32Type>(&given, f32::NAN, |x| x + 0.0);
        assert_eq!(one.as_primitive::<Float32Type>().value(0).to_bits(), 0.0f32.to_bits());
    }
}
