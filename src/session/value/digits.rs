//! NUMERIC has no one type in Arrow: a parameter is planned with the digits of what it is compared with, or some; its values may have others.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, Field, i256,
    },
};
use datafusion::scalar::ScalarValue;

/// The scale of a parameter that was declared and is compared with no column: a type with it is not told from that.
const DECLARED_SCALE: i8 = 10;

/// The type that a value has all its digits in, when it has not in the one that its parameter was planned with.
pub fn exact(value: &ScalarValue, planned: &DataType) -> Option<DataType> {
    match (value, planned) {
        (_, DataType::Decimal128(..) | DataType::Decimal256(..)) => exact_of(&value.to_array().ok()?, planned),
        (ScalarValue::List(values), DataType::List(item)) if item.data_type().is_decimal() => {
            let exact = exact_of(values.values(), item.data_type())?;
            Some(DataType::List(Arc::new(Field::new("item", exact, true))))
        }
        _ => None,
    }
}

fn exact_of(values: &ArrayRef, planned: &DataType) -> Option<DataType> {
    let (precision, scale) = match planned {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => (*precision, *scale),
        _ => return None,
    };
    // Digits before the point, and behind it, that some value needs.
    let (mut before, mut behind) = (0, 0);
    let mut see = |mut unscaled: i256, mut scale: i8| {
        let ten = i256::from_i128(10);
        while scale > 0 && unscaled != i256::ZERO && unscaled % ten == i256::ZERO {
            (unscaled, scale) = (unscaled / ten, scale - 1);
        }
        let digits = if unscaled == i256::ZERO { 0 } else { unscaled.to_string().trim_start_matches('-').len() as i16 };
        before = before.max(digits - i16::from(scale));
        behind = behind.max(if digits == 0 { 0 } else { i16::from(scale) });
    };
    match values.data_type() {
        DataType::Decimal128(_, scale) => {
            let values = values.as_primitive::<Decimal128Type>();
            values.iter().flatten().for_each(|value| see(i256::from_i128(value), *scale));
        }
        DataType::Decimal256(_, scale) => {
            values.as_primitive::<Decimal256Type>().iter().flatten().for_each(|value| see(value, *scale));
        }
        _ => return None,
    }
    let (before, mut behind) = (before.max(0), behind.max(0));
    if behind <= i16::from(scale) && before <= i16::from(precision) - i16::from(scale) {
        return None;
    }
    behind += i16::from(behind == i16::from(DECLARED_SCALE));
    let narrow = before + behind <= i16::from(DECIMAL128_MAX_PRECISION);
    let scale = i8::try_from(behind).ok().filter(|_| before + behind <= i16::from(DECIMAL256_MAX_PRECISION))?;
    Some(match narrow {
        true => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale),
        false => DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_another_where_digits_would_be_lost() {
        let value = |unscaled, scale| ScalarValue::Decimal128(Some(unscaled), 38, scale);
        let planned = DataType::Decimal128(5, 2);
        for (value, wanted) in [
            (value(150, 2), None),
            (value(15_000, 4), None),
            (value(99_999, 2), None),
            (value(0, 20), None),
            (ScalarValue::Decimal128(None, 38, 9), None),
            (ScalarValue::Int64(Some(7)), None),
            (value(1500, 0), Some((38, 0))),
            (value(-100_000, 2), Some((38, 0))),
            (value(1_005, 3), Some((38, 3))),
            (value(-7, 20), Some((38, 20))),
            (value(3, 10), Some((38, 11))),
        ] {
            let wanted = wanted.map(|(precision, scale)| DataType::Decimal128(precision, scale));
            assert_eq!(exact(&value, &planned), wanted, "{value}");
        }
        let wide = ScalarValue::Decimal256(i256::from_string(&"7".repeat(50)), 76, 20);
        assert_eq!(exact(&wide, &planned), Some(DataType::Decimal256(76, 20)));
        assert_eq!(exact(&value(7, 20), &DataType::Utf8View), None);
        let list = ScalarValue::List(ScalarValue::new_list_nullable(
            &[value(1000, 3), value(7, 3)],
            &DataType::Decimal128(38, 3),
        ));
        let of = |item| DataType::List(Arc::new(Field::new("item", item, true)));
        assert_eq!(exact(&list, &of(planned)), Some(of(DataType::Decimal128(38, 3))));
        assert_eq!(exact(&list, &of(DataType::Decimal128(5, 3))), None);
    }
}
