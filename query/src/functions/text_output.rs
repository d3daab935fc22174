//! Values into text, as PostgreSQL's output functions write them.

use std::{fmt::Write, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, StringViewBuilder},
    compute::cast,
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
        IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    },
};
use chrono::{DateTime, Datelike};
use datafusion::error::DataFusionError;

use super::zone::Zone;

const DAY_US: i64 = 86_400_000_000;

/// Each value of `array` as text; NULL stays NULL.
pub(crate) fn column(array: &ArrayRef, zone: Zone) -> Result<ArrayRef, DataFusionError> {
    let array = normalised(array)?;
    let mut builder = StringViewBuilder::with_capacity(array.len());
    let mut text = String::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            builder.append_null();
            continue;
        }
        text.clear();
        value(&array, row, zone, &mut text)?;
        builder.append_value(&text);
    }
    Ok(Arc::new(builder.finish()))
}

/// Units and offsets that have the same text become one type.
fn normalised(array: &ArrayRef) -> Result<ArrayRef, DataFusionError> {
    let target = match array.data_type() {
        DataType::Timestamp(unit, zone) if *unit != TimeUnit::Microsecond => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::Interval(unit) if *unit != IntervalUnit::MonthDayNano => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Time32(_) | DataType::Time64(TimeUnit::Nanosecond) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Dictionary(_, item) => item.as_ref().clone(),
        _ => return Ok(Arc::clone(array)),
    };
    Ok(cast(array, &target)?)
}

/// Writes one value that is not NULL.
fn value(array: &ArrayRef, row: usize, zone: Zone, out: &mut String) -> Result<(), DataFusionError> {
    match array.data_type() {
        DataType::Boolean => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Utf8View => out.push_str(array.as_string_view().value(row)),
        DataType::BinaryView => {
            out.push_str("\\x");
            for byte in array.as_binary_view().value(row) {
                let _ = write!(out, "{byte:02x}");
            }
        }
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row), false, out),
        DataType::Float32 => float32(array.as_primitive::<Float32Type>().value(row), out),
        DataType::Decimal128(_, scale) => decimal(array.as_primitive::<Decimal128Type>().value(row), *scale, out),
        DataType::Date32 => date(array.as_primitive::<Date32Type>().value(row), out),
        DataType::Timestamp(_, zoned) => {
            let us = array.as_primitive::<TimestampMicrosecondType>().value(row);
            match zoned {
                None => timestamp(us, out),
                Some(_) => timestamptz(us, zone, out),
            }
        }
        DataType::Time64(_) => time(array.as_primitive::<Time64MicrosecondType>().value(row), out),
        DataType::Interval(_) => interval(array.as_primitive::<IntervalMonthDayNanoType>().value(row), out),
        DataType::List(_) => {
            let items = normalised(&array.as_list::<i32>().value(row))?;
            out.push('{');
            for index in 0..items.len() {
                if index > 0 {
                    out.push(',');
                }
                if items.is_null(index) {
                    out.push_str("NULL");
                    continue;
                }
                let mut item = String::new();
                value(&items, index, zone, &mut item)?;
                element(&item, out);
            }
            out.push('}');
        }
        _ => {
            let one = cast(&array.slice(row, 1), &DataType::Utf8View)?;
            out.push_str(one.as_string_view().value(0));
        }
    }
    Ok(())
}

/// One element of an array, in quotes where it needs them.
pub(crate) fn element(item: &str, out: &mut String) {
    let plain = !item.is_empty()
        && !item.eq_ignore_ascii_case("null")
        && !item.contains(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | ',' | '"' | '\\'));
    if plain {
        out.push_str(item);
        return;
    }
    out.push('"');
    for c in item.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// The shortest text that reads back as the same number: `1`, `0.1`, `1e+20`, `NaN`, `-Infinity`.
pub(crate) fn float(value: f64, is_real: bool, out: &mut String) {
    if value.is_nan() {
        out.push_str("NaN");
        return;
    }
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
        return;
    }
    let shortest = if is_real { format!("{:e}", value as f32) } else { format!("{value:e}") };
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let limit = if is_real { 6 } else { 15 };
    if (-4..limit).contains(&exponent) {
        let _ = if is_real { write!(out, "{}", value as f32) } else { write!(out, "{value}") };
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
    }
}

fn float32(value: f32, out: &mut String) {
    float(f64::from(value), true, out);
}

pub(crate) fn decimal(value: i128, scale: i8, out: &mut String) {
    let scale = usize::try_from(scale.max(0)).unwrap_or(0);
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if value < 0 {
        out.push('-');
    }
    out.push_str(whole);
    if scale > 0 {
        out.push('.');
        out.push_str(fraction);
    }
}

pub(crate) fn date(days: i32, out: &mut String) {
    let Some(time) = DateTime::from_timestamp(i64::from(days) * 86_400, 0) else {
        let _ = write!(out, "{days} days");
        return;
    };
    year_month_day(&time.date_naive(), out);
    if time.year() <= 0 {
        out.push_str(" BC");
    }
}

fn year_month_day(date: &chrono::NaiveDate, out: &mut String) {
    let year = if date.year() > 0 { date.year() } else { 1 - date.year() };
    let _ = write!(out, "{year:04}-{:02}-{:02}", date.month(), date.day());
}

pub(crate) fn time(us: i64, out: &mut String) {
    let seconds = us / 1_000_000;
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    fraction(us % 1_000_000, out);
}

/// `.5` and the like, without zeros at the end; nothing for whole seconds.
fn fraction(us: i64, out: &mut String) {
    if us != 0 {
        let digits = format!("{us:06}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
}

pub(crate) fn timestamp(us: i64, out: &mut String) {
    let days = us.div_euclid(DAY_US);
    let Some(day) = DateTime::from_timestamp(days * 86_400, 0) else {
        let _ = write!(out, "{us} microseconds");
        return;
    };
    year_month_day(&day.date_naive(), out);
    out.push(' ');
    time(us.rem_euclid(DAY_US), out);
    if day.year() <= 0 {
        out.push_str(" BC");
    }
}

pub(crate) fn timestamptz(us: i64, zone: Zone, out: &mut String) {
    let offset = zone.offset_at(us);
    let mut local = String::new();
    timestamp(us.saturating_add(i64::from(offset) * 1_000_000), &mut local);
    let (clock, era) = match local.strip_suffix(" BC") {
        Some(clock) => (clock, " BC"),
        None => (local.as_str(), ""),
    };
    out.push_str(clock);
    let seconds = offset.abs();
    let _ = write!(out, "{}{:02}", if offset < 0 { '-' } else { '+' }, seconds / 3600);
    if seconds % 3600 != 0 {
        let _ = write!(out, ":{:02}", seconds / 60 % 60);
    }
    if seconds % 60 != 0 {
        let _ = write!(out, ":{:02}", seconds % 60);
    }
    out.push_str(era);
}

/// `1 year 2 mons -3 days 04:05:06.7`, style "postgres".
pub(crate) fn interval(value: IntervalMonthDayNano, out: &mut String) {
    let start = out.len();
    let part = |count: i64, unit: &str, out: &mut String| {
        if count != 0 {
            if out.len() > start {
                out.push(' ');
            }
            let _ = write!(out, "{count} {unit}{}", if count == 1 { "" } else { "s" });
        }
    };
    part(i64::from(value.months / 12), "year", out);
    part(i64::from(value.months % 12), "mon", out);
    part(i64::from(value.days), "day", out);
    let us = value.nanoseconds / 1000;
    if us != 0 || out.len() == start {
        let earlier_negative = value.months < 0 || value.days < 0;
        if out.len() > start {
            out.push(' ');
        }
        if us < 0 {
            out.push('-');
        } else if earlier_negative {
            out.push('+');
        }
        let seconds = us.unsigned_abs() / 1_000_000;
        let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        fraction((us.unsigned_abs() % 1_000_000) as i64, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(write: impl Fn(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn floats_as_postgresql_15_writes_them() {
        for (value, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (1e20, "1e+20"),
            (1e-7, "1e-07"),
            (123_456_789_012_345.0, "123456789012345"),
            (1_234_567_890_123_456.0, "1.234567890123456e+15"),
            (-0.0, "-0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e300, "1.5e+300"),
        ] {
            assert_eq!(shown(|out| float(value, false, out)), text);
        }
        assert_eq!(shown(|out| float32(1e6, out)), "1e+06");
        assert_eq!(shown(|out| float32(0.1, out)), "0.1");
    }

    #[test]
    fn intervals_and_timestamps() {
        let value = |months, days, nanoseconds| IntervalMonthDayNano { months, days, nanoseconds };
        assert_eq!(shown(|out| interval(value(14, 3, 14_706_700_000_000), out)), "1 year 2 mons 3 days 04:05:06.7");
        assert_eq!(shown(|out| interval(value(0, -1, 3_600_000_000_000), out)), "-1 days +01:00:00");
        assert_eq!(shown(|out| interval(value(0, 0, 0), out)), "00:00:00");
        assert_eq!(shown(|out| timestamptz(0, Zone::Fixed(19_800), out)), "1970-01-01 05:30:00+05:30");
        assert_eq!(shown(|out| timestamp(-1, out)), "1969-12-31 23:59:59.999999");
        assert_eq!(shown(|out| decimal(-5, 2, out)), "-0.05");
    }
}
