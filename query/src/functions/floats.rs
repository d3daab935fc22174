//! REAL and DOUBLE PRECISION numbers that are equal and differ in their bits, -0 and 0, NaN of either sign, as one: for what goes by bits. So too
//! in arrays and rows.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, make_array},
    datatypes::{DataType, Float32Type, Float64Type},
    error::ArrowError,
};
use datafusion::{
    logical_expr::{Expr, ScalarUDF, Volatility},
    physical_expr::{PhysicalExpr, ScalarFunctionExpr},
};

use super::simple::{Returns, Simple, any};

pub(crate) const ONE_FLOAT: &str = "tidemill_one_float";

pub(crate) fn one_float() -> Arc<ScalarUDF> {
    Simple::udf(ONE_FLOAT, any(1, Volatility::Immutable), Returns::Of(|types| Ok(types[0].clone())), |call| {
        Ok(within(&call.arrays[0])?)
    })
}

/// Whether it is a call of [`one_float`].
pub(crate) fn is_one(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == ONE_FLOAT)
}

/// The float that [`one_float`] is called with, if `expr` is such a call: equal to it, though maybe in other bits. `None` for arrays and rows, which
/// segments compare by their bits.
pub(crate) fn without(expr: &Arc<dyn PhysicalExpr>) -> Option<&Arc<dyn PhysicalExpr>> {
    let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
    match (call.name(), call.args()) {
        (ONE_FLOAT, [inner]) if !call.return_type().is_nested() => Some(inner),
        _ => None,
    }
}

/// Equal floats in equal bits, alone or in arrays and rows; all else as it is.
pub(crate) fn within(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Float32 => of::<Float32Type>(array, f32::NAN, |x| x + 0.0),
        DataType::Float64 => of::<Float64Type>(array, f64::NAN, |x| x + 0.0),
        nested if nested.is_nested() => {
            let data = array.to_data();
            let children = data.child_data().iter().map(|child| Ok(within(&make_array(child.clone()))?.to_data()));
            let children = children.collect::<Result<_, ArrowError>>()?;
            make_array(data.into_builder().child_data(children).build()?)
        }
        _ => Arc::clone(array),
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
    use arrow::{
        array::{Float32Array, Float64Array, ListArray},
        datatypes::Float64Type as Double,
    };

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

    #[test]
    fn arrays_are_looked_into() {
        let lists = [Some(vec![Some(1.0), Some(-0.0), None]), None, Some(vec![]), Some(vec![Some(-f64::NAN)])];
        let given: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Double, _, _>(lists));
        let one = within(&given.slice(1, 3)).unwrap();
        assert_eq!(one.len(), 3);
        assert!(one.is_null(0) && one.as_list::<i32>().value(1).is_empty());
        assert_eq!(one.as_list::<i32>().value(2).as_primitive::<Double>().value(0).to_bits(), f64::NAN.to_bits());
        let one = within(&given).unwrap();
        assert_eq!(one.as_list::<i32>().value(0).as_primitive::<Double>().value(1).to_bits(), 0.0f64.to_bits());
        assert!(one.as_list::<i32>().value(0).is_null(2));
    }
}
