//! `generate_series` of whole numbers, numerics and times, as an array.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, ListArray, TimestampMicrosecondArray},
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Field, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
        TimestampMicrosecondType,
    },
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
};
use tidemill_storage::schema::UTC;

use super::SERIES;
use crate::{
    SqlError,
    functions::{
        interval,
        simple::{Call, Returns, Simple, any_of},
        text_input,
        zone::Zone,
    },
    rules::types,
};

/// Items of one call: they are all in memory together. A series of constant whole numbers in FROM has no limit.
const ITEMS_MAX: usize = 10_000_000;
const DAY_US: i64 = 86_400_000_000;

pub(crate) fn udf() -> Arc<ScalarUDF> {
    // Stable: a day's length depends on the session's time zone.
    Simple::udf(SERIES, any_of(&[2, 3], Volatility::Stable), Returns::Of(returned), series)
}

fn returned(arguments: &[DataType]) -> Result<DataType, DataFusionError> {
    item_type(arguments).map(|item| DataType::new_list(item, true)).ok_or_else(|| {
        let names: Vec<String> =
            arguments.iter().map(|argument| types::name(&Field::new("", argument.clone(), true))).collect();
        SqlError::new("42883", format!("function generate_series({}) does not exist", names.join(", ")))
            .with_hint(
                "No function matches the given name and argument types. You might need to add explicit type casts.",
            )
            .into()
    })
}

fn item_type(arguments: &[DataType]) -> Option<DataType> {
    let loose = |data_type: &DataType| types::is_text(data_type) || *data_type == DataType::Null;
    let moment = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..) | DataType::Date32);
    let (bounds, step) = arguments.split_at(2.min(arguments.len()));
    if bounds.iter().any(moment) || step.iter().any(|step| matches!(step, DataType::Interval(_))) {
        let [step] = step else { return None };
        let fits = (loose(step) || matches!(step, DataType::Interval(_)))
            && bounds.iter().all(|bound| loose(bound) || moment(bound));
        let plain = bounds.iter().any(|bound| matches!(bound, DataType::Timestamp(_, None)))
            && bounds.iter().all(|bound| loose(bound) || matches!(bound, DataType::Timestamp(_, None)));
        return fits.then(|| if plain { types::timestamp() } else { types::timestamptz() });
    }
    if arguments.iter().any(types::is_decimal) {
        let scales = arguments.iter().map(|argument| match argument {
            DataType::Decimal128(_, scale) => Some(*scale),
            other if types::is_int(other) || *other == DataType::Null => Some(0),
            _ => None,
        });
        let scale = scales.collect::<Option<Vec<i8>>>()?.into_iter().max()?;
        return Some(DataType::Decimal128(38, scale));
    }
    let whole = |data_type: &DataType| types::is_int(data_type) || *data_type == DataType::Null;
    arguments.iter().all(whole).then(|| match arguments.contains(&DataType::Int64) {
        true => DataType::Int64,
        false => DataType::Int32,
    })
}

fn series(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let DataType::List(item) = call.returns.data_type() else {
        return Err(DataFusionError::Internal("a series is an array".to_owned()));
    };
    match item.data_type() {
        DataType::Timestamp(_, zoned) => {
            let zone = if zoned.is_some() { call.zone()? } else { Zone::UTC };
            let (starts, stops) = (moments(call, 0, item, zone)?, moments(call, 1, item, zone)?);
            let steps = intervals(call)?;
            let (values, offsets, nulls) = lists(call.rows, |row, out: &mut Vec<i64>| {
                if starts.is_null(row) || stops.is_null(row) || steps.is_null(row) {
                    return Ok(false);
                }
                let step = steps.value(row);
                let ahead = direction(step)?;
                let (mut at, stop) = (starts.value(row), stops.value(row));
                while if ahead { at <= stop } else { at >= stop } {
                    push(out, at)?;
                    at = interval::add(at, step, 1, zone)
                        .ok_or_else(|| SqlError::new("22008", "timestamp out of range"))?;
                }
                Ok(true)
            })?;
            let values = TimestampMicrosecondArray::from(values);
            let values = if zoned.is_some() { values.with_timezone(UTC) } else { values };
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, Arc::new(values), nulls)?))
        }
        DataType::Decimal128(precision, scale) => {
            let numbers = (0..call.arrays.len())
                .map(|index| Ok(call.cast(index, item.data_type())?.as_primitive::<Decimal128Type>().clone()))
                .collect::<Result<Vec<_>, DataFusionError>>()?;
            let one = 10i128.pow(u32::from(scale.unsigned_abs()));
            let (values, offsets, nulls) = lists(call.rows, |row, out| {
                let Some(arguments) = valid(&numbers, row) else { return Ok(false) };
                count(arguments[0], arguments[1], arguments.get(2).copied().unwrap_or(one), i128::checked_add, out)
            })?;
            let values = Decimal128Array::from(values).with_precision_and_scale(*precision, *scale)?;
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, Arc::new(values), nulls)?))
        }
        data_type => {
            let numbers = (0..call.arrays.len())
                .map(|index| Ok(call.cast(index, &DataType::Int64)?.as_primitive::<Int64Type>().clone()))
                .collect::<Result<Vec<_>, DataFusionError>>()?;
            let (values, offsets, nulls) = lists(call.rows, |row, out| {
                let Some(arguments) = valid(&numbers, row) else { return Ok(false) };
                count(arguments[0], arguments[1], arguments.get(2).copied().unwrap_or(1), i64::checked_add, out)
            })?;
            let values: ArrayRef = match data_type {
                DataType::Int32 => Arc::new(values.iter().map(|value| *value as i32).collect::<Int32Array>()),
                _ => Arc::new(Int64Array::from(values)),
            };
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls)?))
        }
    }
}

fn valid<T: arrow::datatypes::ArrowPrimitiveType>(
    arrays: &[arrow::array::PrimitiveArray<T>],
    row: usize,
) -> Option<Vec<T::Native>> {
    arrays.iter().map(|array| array.is_valid(row).then(|| array.value(row))).collect()
}

type Lists<T> = (Vec<T>, OffsetBuffer<i32>, Option<NullBuffer>);

/// The items of all rows one after the other. `fill` says whether its row has an array.
fn lists<T>(
    rows: usize,
    mut fill: impl FnMut(usize, &mut Vec<T>) -> Result<bool, DataFusionError>,
) -> Result<Lists<T>, DataFusionError> {
    let mut values = Vec::new();
    let mut lengths = Vec::with_capacity(rows);
    let mut valid = Vec::with_capacity(rows);
    for row in 0..rows {
        let before = values.len();
        valid.push(fill(row, &mut values)?);
        lengths.push(values.len() - before);
    }
    if values.len() > ITEMS_MAX {
        return Err(too_long().into());
    }
    Ok((values, OffsetBuffer::from_lengths(lengths), Some(NullBuffer::from(valid))))
}

fn too_long() -> SqlError {
    SqlError::new("54000", format!("a series here may have {ITEMS_MAX} items at most"))
        .with_hint("generate_series of constant whole numbers in FROM has no limit.")
}

fn push<T>(out: &mut Vec<T>, item: T) -> Result<(), SqlError> {
    if out.len() >= ITEMS_MAX {
        return Err(too_long());
    }
    out.push(item);
    Ok(())
}

fn count<T: Copy + PartialOrd + Default>(
    start: T,
    stop: T,
    step: T,
    add: impl Fn(T, T) -> Option<T>,
    out: &mut Vec<T>,
) -> Result<bool, DataFusionError> {
    let zero = T::default();
    if step == zero {
        return Err(SqlError::invalid_parameter("step size cannot equal zero").into());
    }
    let mut at = Some(start);
    while let Some(value) = at.filter(|at| if step > zero { *at <= stop } else { *at >= stop }) {
        push(out, value)?;
        at = add(value, step);
    }
    Ok(true)
}

/// Whether `step` goes ahead; a month counts thirty days.
fn direction(step: IntervalMonthDayNano) -> Result<bool, SqlError> {
    let days = i128::from(step.months) * 30 + i128::from(step.days);
    match (days * i128::from(DAY_US) * 1000 + i128::from(step.nanoseconds)).cmp(&0) {
        std::cmp::Ordering::Equal => Err(SqlError::invalid_parameter("step size cannot equal zero")),
        order => Ok(order.is_gt()),
    }
}

/// Argument `index` in the type of the series; a date begins at midnight of the session's zone.
fn moments(
    call: &Call<'_>,
    index: usize,
    item: &Field,
    zone: Zone,
) -> Result<TimestampMicrosecondArray, DataFusionError> {
    let array = &call.arrays[index];
    Ok(match array.data_type() {
        DataType::Date32 => {
            array.as_primitive::<Date32Type>().unary(|day| zone.to_instant(i64::from(day).saturating_mul(DAY_US)))
        }
        data_type if types::is_text(data_type) => {
            let read = text_input::column(&call.text(index)?, item, call.zone()?, call.session())?;
            read.as_primitive::<TimestampMicrosecondType>().clone()
        }
        DataType::Timestamp(_, None) => {
            let local = call.cast(index, &types::timestamp())?;
            local.as_primitive::<TimestampMicrosecondType>().unary(|local| zone.to_instant(local))
        }
        DataType::Timestamp(..) => {
            let instants = call.cast(index, &types::timestamptz())?;
            instants.as_primitive::<TimestampMicrosecondType>().clone()
        }
        _ => TimestampMicrosecondArray::new_null(array.len()),
    })
}

fn intervals(call: &Call<'_>) -> Result<arrow::array::PrimitiveArray<IntervalMonthDayNanoType>, DataFusionError> {
    let step = match types::is_text(call.arrays[2].data_type()) {
        true => {
            let target = Field::new("", types::interval(), true);
            text_input::column(&call.text(2)?, &target, call.zone()?, call.session())?
        }
        false => call.cast(2, &types::interval())?,
    };
    Ok(step.as_primitive::<IntervalMonthDayNanoType>().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_ends_where_its_type_does() {
        let mut out = Vec::new();
        count(i64::MAX - 1, i64::MAX, 1, i64::checked_add, &mut out).unwrap();
        assert_eq!(out, [i64::MAX - 1, i64::MAX]);
        out.clear();
        count(3, 1, -1, i64::checked_add, &mut out).unwrap();
        assert_eq!(out, [3, 2, 1]);
        out.clear();
        count(3, 1, 1, i64::checked_add, &mut out).unwrap();
        assert!(out.is_empty());
        assert!(count(1, 2, 0, i64::checked_add, &mut out).is_err());
    }

    #[test]
    fn types_follow_the_arguments() {
        use DataType::{Date32, Float64, Int32, Int64};
        assert_eq!(item_type(&[Int32, Int32]), Some(Int32));
        assert_eq!(item_type(&[Int32, Int64, Int32]), Some(Int64));
        assert_eq!(item_type(&[Date32, Date32, types::interval()]), Some(types::timestamptz()));
        assert_eq!(item_type(&[types::timestamp(), types::timestamp(), DataType::Utf8]), Some(types::timestamp()));
        assert_eq!(item_type(&[DataType::Decimal128(5, 2), Int32]), Some(DataType::Decimal128(38, 2)));
        assert_eq!(item_type(&[Float64, Int32]), None);
        assert_eq!(item_type(&[Date32, Date32]), None);
    }
}
