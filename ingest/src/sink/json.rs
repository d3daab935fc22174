//! Values of a row as JSON, in forms that our own sources read back as the same values.
//!
//! | type | form |
//! |---|---|
//! | BOOLEAN, integers, NUMERIC, REAL, DOUBLE | bare, with all digits; NaN and infinities as strings |
//! | JSONB | as it is |
//! | TIMESTAMPTZ, TIMESTAMP, DATE | `"2024-03-01T12:00:00.25Z"`, the same without `Z`, `"2024-03-01"` |
//! | BYTEA | `"\\x00ff"` |
//! | TEXT, UUID | strings |
//! | arrays | arrays |

use std::fmt::Write as _;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType as ArrowType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type,
        Int64Type, TimeUnit, TimestampMicrosecondType,
    },
};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use tidemill_storage::schema::DataType;

use crate::decode::json::jsonb::{write_bytes, write_string};

/// One column of a batch.
pub(super) struct Column<'a> {
    array: &'a ArrayRef,
    field: &'a Field,
    is_json: bool,
}

impl<'a> Column<'a> {
    pub(super) fn new(array: &'a ArrayRef, field: &'a Field) -> Self {
        Self { array, field, is_json: DataType::of_field(field) == Some(DataType::Jsonb) }
    }

    pub(super) fn array(&self) -> &'a ArrayRef {
        self.array
    }

    pub(super) fn name(&self) -> &'a str {
        self.field.name()
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.array.is_null(row)
    }

    /// Of a BOOLEAN: whether it is true, which NULL is not.
    pub(super) fn is_true(&self, row: usize) -> bool {
        !self.is_null(row) && self.array.as_boolean_opt().is_some_and(|values| values.value(row))
    }

    /// The bytes of a BYTEA. Not for NULL.
    pub(super) fn bytes(&self, row: usize) -> &'a [u8] {
        self.array.as_binary_view().value(row)
    }

    /// The text of a TEXT or a document. Not for NULL.
    pub(super) fn text(&self, row: usize) -> &'a str {
        self.array.as_string_view().value(row)
    }

    /// As a JSON value. An error says what JSON has no form for.
    pub(super) fn write(&self, row: usize, out: &mut String) -> Result<(), String> {
        write_value(self.array, self.field, self.is_json, row, out)
    }

    /// As bytes of their own: what JSON would have between the quotes, and BYTEA as it is. Not for NULL.
    pub(super) fn write_plain(&self, row: usize, scratch: &mut String, out: &mut Vec<u8>) -> Result<(), String> {
        match self.array.data_type() {
            ArrowType::Utf8View => out.extend_from_slice(self.array.as_string_view().value(row).as_bytes()),
            ArrowType::BinaryView => out.extend_from_slice(self.array.as_binary_view().value(row)),
            _ => {
                scratch.clear();
                self.write(row, scratch)?;
                let text = scratch.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(scratch);
                out.extend_from_slice(text.as_bytes());
            }
        }
        Ok(())
    }

    /// Milliseconds since 1970; `None` for NULL and for times that a record cannot have.
    pub(super) fn timestamp_ms(&self, row: usize) -> Option<i64> {
        let times = self.array.as_primitive_opt::<TimestampMicrosecondType>()?;
        times.is_valid(row).then(|| times.value(row).div_euclid(1000)).filter(|ms| *ms >= 0)
    }
}

fn write_value(array: &dyn Array, field: &Field, is_json: bool, row: usize, out: &mut String) -> Result<(), String> {
    if array.is_null(row) {
        out.push_str("null");
        return Ok(());
    }
    match array.data_type() {
        ArrowType::Boolean => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        ArrowType::Int16 => _ = write!(out, "{}", array.as_primitive::<Int16Type>().value(row)),
        ArrowType::Int32 => _ = write!(out, "{}", array.as_primitive::<Int32Type>().value(row)),
        ArrowType::Int64 => _ = write!(out, "{}", array.as_primitive::<Int64Type>().value(row)),
        ArrowType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            match value.is_finite() {
                true => out.push_str(&serde_json::to_string(&value).unwrap_or_default()),
                false => not_finite(value.into(), out),
            }
        }
        ArrowType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            match value.is_finite() {
                true => out.push_str(&serde_json::to_string(&value).unwrap_or_default()),
                false => not_finite(value, out),
            }
        }
        ArrowType::Decimal128(..) => out.push_str(&array.as_primitive::<Decimal128Type>().value_as_string(row)),
        ArrowType::Utf8View if is_json => out.push_str(array.as_string_view().value(row)),
        ArrowType::Utf8View => write_string(array.as_string_view().value(row), out),
        ArrowType::BinaryView => {
            write_bytes(array.as_binary_view().value(row), out);
        }
        ArrowType::Date32 => {
            out.push('"');
            write_date(array, row, out)?;
            out.push('"');
        }
        ArrowType::Timestamp(TimeUnit::Microsecond, zone) => {
            let time = time_of(array.as_primitive::<TimestampMicrosecondType>().value(row))?;
            out.push('"');
            write_time(&time, out);
            out.push_str(if zone.is_some() { "Z\"" } else { "\"" });
        }
        ArrowType::List(item) => {
            let items = array.as_list::<i32>().value(row);
            let is_json = DataType::of_field(item) == Some(DataType::Jsonb);
            out.push('[');
            for at in 0..items.len() {
                if at > 0 {
                    out.push(',');
                }
                write_value(&items, item, is_json, at, out)?;
            }
            out.push(']');
        }
        other => return Err(format!("column \"{}\" is of type {other}, which JSON has no form for", field.name())),
    }
    Ok(())
}

/// A value of a Date32 array as ISO 8601 has it.
pub(super) fn write_date(array: &dyn Array, row: usize, out: &mut String) -> Result<(), String> {
    let days = array.as_primitive::<Date32Type>().value(row);
    let time = time_of(i64::from(days) * 86_400_000_000)?;
    let _ = write!(out, "{:04}-{:02}-{:02}", time.year(), time.month(), time.day());
    Ok(())
}

fn not_finite(value: f64, out: &mut String) {
    out.push_str(match value {
        value if value.is_nan() => "\"NaN\"",
        value if value > 0.0 => "\"Infinity\"",
        _ => "\"-Infinity\"",
    });
}

/// Years that have four digits, as ISO 8601 wants it.
pub(super) fn time_of(micros: i64) -> Result<NaiveDateTime, String> {
    let time = DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc());
    time.filter(|time| (1..=9999).contains(&time.year()))
        .ok_or_else(|| "a time is not of the years 1 to 9999, and ISO 8601 has no form for it".to_owned())
}

fn write_time(time: &NaiveDateTime, out: &mut String) {
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    let micros = time.nanosecond() / 1000;
    if micros > 0 {
        let _ = write!(out, ".{micros:06}");
        out.truncate(out.trim_end_matches('0').len());
    }
}
