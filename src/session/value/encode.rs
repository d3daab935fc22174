//! Columns of a result, row by row, in text or binary.
//!
//! [`ColumnEncoder::new`] looks at a column's type once per batch; writing a value is then one match. Types that PostgreSQL has not
//! (maps, unions) are turned into text first.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array, Decimal256Array,
        FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
        IntervalMonthDayNanoArray, LargeBinaryArray, LargeStringArray, StringArray, StringViewArray, UInt8Array,
        UInt16Array, UInt32Array, UInt64Array,
    },
    compute::{CastOptions, cast, cast_with_options},
    datatypes::{
        DataType, Date64Type, DurationMicrosecondType, Field, IntervalUnit, Time64MicrosecondType, TimeUnit,
        TimestampMicrosecondType,
    },
    util::display::FormatOptions,
};
use bytes::{BufMut, BytesMut};

use super::{
    PgType, Scalar,
    calendar::{EPOCH_2000_DAYS, EPOCH_2000_US, Zone},
    text,
};
use crate::session::error::{Result, SqlError, state};

/// What of the session's settings shows in values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub zone: Zone,
}

impl Default for Style {
    fn default() -> Self {
        Self { zone: Zone::UTC }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// One column of one batch.
pub struct ColumnEncoder {
    pg_type: PgType,
    values: Values,
    /// The column as Arrow has it: knows which rows are null.
    array: ArrayRef,
    style: Style,
}

enum Values {
    Null,
    Bool(BooleanArray),
    Int8(Int8Array),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    UInt8(UInt8Array),
    UInt16(UInt16Array),
    UInt32(UInt32Array),
    UInt64(UInt64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal128(Decimal128Array, i8),
    Decimal256(Decimal256Array, i8),
    Utf8(StringArray),
    LargeUtf8(LargeStringArray),
    Utf8View(StringViewArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    BinaryView(BinaryViewArray),
    FixedBinary(FixedSizeBinaryArray),
    /// Days since 1970.
    Date(Int32Array),
    /// Microseconds since midnight.
    Time(Int64Array),
    /// Microseconds since 1970.
    Timestamp(Int64Array),
    Interval(IntervalMonthDayNanoArray),
    /// Microseconds.
    Duration(Int64Array),
    List {
        items: Box<ColumnEncoder>,
        ranges: Vec<(usize, usize)>,
    },
    Struct(Vec<ColumnEncoder>),
}

/// Values of `array` in the column type that all of `DataType`'s variants of it share.
fn microseconds(array: &ArrayRef, unit: TimeUnit) -> Result<Int64Array> {
    let factor = |by: i64| -> Result<Int64Array> {
        let values = cast(array, &DataType::Int64)?;
        let values = values.as_primitive::<arrow::datatypes::Int64Type>();
        Ok(arrow::compute::try_unary(values, |value| {
            value
                .checked_mul(by)
                .ok_or_else(|| arrow::error::ArrowError::ArithmeticOverflow("timestamp out of range".into()))
        })?)
    };
    match unit {
        TimeUnit::Second => factor(1_000_000),
        TimeUnit::Millisecond => factor(1000),
        TimeUnit::Microsecond => factor(1),
        TimeUnit::Nanosecond => {
            let values = cast(array, &DataType::Int64)?;
            Ok(arrow::compute::unary(values.as_primitive::<arrow::datatypes::Int64Type>(), |value: i64| {
                value.div_euclid(1000)
            }))
        }
    }
}

impl ColumnEncoder {
    /// `pg_type` is [`PgType::of_field`] of the field.
    pub fn new(field: &Field, array: &ArrayRef, style: Style) -> Result<Self> {
        let pg_type = PgType::of_field(field);
        let mut array = Arc::clone(array);
        if let DataType::Dictionary(_, values) = array.data_type() {
            array = cast(&array, &values.as_ref().clone())?;
        }
        let values = Self::values(&mut array, style)?;
        Ok(Self { pg_type, values, array, style })
    }

    fn values(array: &mut ArrayRef, style: Style) -> Result<Values> {
        let list = |items: &ArrayRef, item: &Field, ranges: Vec<(usize, usize)>| -> Result<Values> {
            Ok(Values::List { items: Box::new(Self::new(item, items, style)?), ranges })
        };
        let data_type = array.data_type().clone();
        Ok(match &data_type {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Bool(array.as_boolean().clone()),
            DataType::Int8 => Values::Int8(array.as_primitive().clone()),
            DataType::Int16 => Values::Int16(array.as_primitive().clone()),
            DataType::Int32 => Values::Int32(array.as_primitive().clone()),
            DataType::Int64 => Values::Int64(array.as_primitive().clone()),
            DataType::UInt8 => Values::UInt8(array.as_primitive().clone()),
            DataType::UInt16 => Values::UInt16(array.as_primitive().clone()),
            DataType::UInt32 => Values::UInt32(array.as_primitive().clone()),
            DataType::UInt64 => Values::UInt64(array.as_primitive().clone()),
            DataType::Float16 => Values::Float32(cast(array, &DataType::Float32)?.as_primitive().clone()),
            DataType::Float32 => Values::Float32(array.as_primitive().clone()),
            DataType::Float64 => Values::Float64(array.as_primitive().clone()),
            DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => Values::Decimal128(
                cast(array, &DataType::Decimal128(*precision, *scale))?.as_primitive().clone(),
                *scale,
            ),
            DataType::Decimal128(_, scale) => Values::Decimal128(array.as_primitive().clone(), *scale),
            DataType::Decimal256(_, scale) => Values::Decimal256(array.as_primitive().clone(), *scale),
            DataType::Utf8 => Values::Utf8(array.as_string().clone()),
            DataType::LargeUtf8 => Values::LargeUtf8(array.as_string().clone()),
            DataType::Utf8View => Values::Utf8View(array.as_string_view().clone()),
            DataType::Binary => Values::Binary(array.as_binary().clone()),
            DataType::LargeBinary => Values::LargeBinary(array.as_binary().clone()),
            DataType::BinaryView => Values::BinaryView(array.as_binary_view().clone()),
            DataType::FixedSizeBinary(_) => Values::FixedBinary(array.as_fixed_size_binary().clone()),
            DataType::Date32 => Values::Date(cast(array, &DataType::Int32)?.as_primitive().clone()),
            DataType::Date64 => {
                let days = arrow::compute::unary::<Date64Type, _, arrow::datatypes::Int32Type>(
                    array.as_primitive::<Date64Type>(),
                    |ms| ms.div_euclid(86_400_000) as i32,
                );
                Values::Date(days)
            }
            DataType::Time32(_) | DataType::Time64(_) => {
                let us = cast(array, &DataType::Time64(TimeUnit::Microsecond))?;
                Values::Time(us.as_primitive::<Time64MicrosecondType>().reinterpret_cast())
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Values::Timestamp(array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast())
            }
            DataType::Timestamp(unit, _) => Values::Timestamp(microseconds(array, *unit)?),
            DataType::Interval(_) => {
                Values::Interval(cast(array, &DataType::Interval(IntervalUnit::MonthDayNano))?.as_primitive().clone())
            }
            DataType::Duration(TimeUnit::Microsecond) => {
                Values::Duration(array.as_primitive::<DurationMicrosecondType>().reinterpret_cast())
            }
            DataType::Duration(unit) => Values::Duration(microseconds(array, *unit)?),
            DataType::List(item) => {
                let lists = array.as_list::<i32>();
                let ranges = lists.offsets().windows(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect();
                list(lists.values(), item, ranges)?
            }
            DataType::LargeList(item) => {
                let lists = array.as_list::<i64>();
                let ranges = lists.offsets().windows(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect();
                list(lists.values(), item, ranges)?
            }
            DataType::FixedSizeList(item, size) => {
                let lists = array.as_fixed_size_list();
                let size = *size as usize;
                let ranges = (0..lists.len()).map(|row| (row * size, row * size + size)).collect();
                list(lists.values(), item, ranges)?
            }
            DataType::ListView(item) | DataType::LargeListView(item) => {
                *array = cast(array, &DataType::LargeList(Arc::clone(item)))?;
                return Self::values(array, style);
            }
            DataType::Struct(fields) => {
                let rows = array.as_struct().clone();
                let columns = fields
                    .iter()
                    .zip(rows.columns())
                    .map(|(field, column)| Self::new(field, column, style))
                    .collect::<Result<_>>()?;
                Values::Struct(columns)
            }
            _ => {
                let options = CastOptions { safe: false, format_options: FormatOptions::default() };
                *array = match cast_with_options(array, &DataType::Utf8, &options) {
                    Ok(text) => text,
                    Err(_) => displayed(array)?,
                };
                Values::Utf8(array.as_string().clone())
            }
        })
    }

    pub fn pg_type(&self) -> PgType {
        self.pg_type
    }

    pub fn is_null(&self, row: usize) -> bool {
        matches!(self.values, Values::Null) || self.array.is_null(row)
    }

    /// Appends the value of a row that is not null.
    pub fn write(&self, format: Format, row: usize, out: &mut BytesMut) -> Result<()> {
        match format {
            Format::Text => self.text(row, out),
            Format::Binary => self.binary(row, out),
        }
    }

    /// Appends a field of DataRow, of binary COPY, of a binary array or record: length and value, or -1.
    pub fn write_field(&self, format: Format, row: usize, out: &mut BytesMut) -> Result<()> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        with_length(out, |out| self.write(format, row, out))
    }

    fn text(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        match &self.values {
            Values::Null => {}
            Values::Bool(values) => text::boolean(values.value(row), out),
            Values::Int8(values) => text::integer(values.value(row).into(), out),
            Values::Int16(values) => text::integer(values.value(row).into(), out),
            Values::Int32(values) if self.is_oid() => text::integer((values.value(row) as u32).into(), out),
            Values::Int32(values) => text::integer(values.value(row).into(), out),
            Values::Int64(values) => text::integer(values.value(row), out),
            Values::UInt8(values) => text::integer(values.value(row).into(), out),
            Values::UInt16(values) => text::integer(values.value(row).into(), out),
            Values::UInt32(values) => text::integer(values.value(row).into(), out),
            Values::UInt64(values) => text::decimal128(values.value(row).into(), 0, out),
            Values::Float32(values) => text::float4(values.value(row), out),
            Values::Float64(values) => text::float8(values.value(row), out),
            Values::Decimal128(values, scale) => text::decimal128(values.value(row), *scale, out),
            Values::Decimal256(values, scale) => text::decimal256(values.value(row), *scale, out),
            Values::Utf8(values) => out.put_slice(values.value(row).as_bytes()),
            Values::LargeUtf8(values) => out.put_slice(values.value(row).as_bytes()),
            Values::Utf8View(values) => out.put_slice(values.value(row).as_bytes()),
            Values::Binary(values) => text::bytea(values.value(row), out),
            Values::LargeBinary(values) => text::bytea(values.value(row), out),
            Values::BinaryView(values) => text::bytea(values.value(row), out),
            Values::FixedBinary(values) => text::bytea(values.value(row), out),
            Values::Date(values) => text::date(values.value(row), out),
            Values::Time(values) => text::time(values.value(row), out),
            Values::Timestamp(values) if self.pg_type.scalar == Scalar::TimestampTz => {
                text::timestamptz(values.value(row), self.style.zone, out);
            }
            Values::Timestamp(values) => text::timestamp(values.value(row), out),
            Values::Interval(values) => {
                let value = values.value(row);
                text::interval(value.months, value.days, value.nanoseconds.div_euclid(1000), out);
            }
            Values::Duration(values) => text::interval(0, 0, values.value(row), out),
            Values::List { items, ranges } => {
                let (start, end) = ranges[row];
                // An array of empty arrays has no elements: PostgreSQL knows only one empty array.
                if items.count(start, end) == 0 {
                    out.put_slice(b"{}");
                    return Ok(());
                }
                out.put_u8(b'{');
                for item in start..end {
                    if item > start {
                        out.put_u8(b',');
                    }
                    items.nested_text(item, false, out)?;
                }
                out.put_u8(b'}');
            }
            Values::Struct(columns) => {
                out.put_u8(b'(');
                for (index, column) in columns.iter().enumerate() {
                    if index > 0 {
                        out.put_u8(b',');
                    }
                    column.nested_text(row, true, out)?;
                }
                out.put_u8(b')');
            }
        }
        Ok(())
    }

    /// A value inside an array or a record, quoted where it must be.
    fn nested_text(&self, row: usize, record: bool, out: &mut BytesMut) -> Result<()> {
        if self.is_null(row) {
            if !record {
                out.put_slice(b"NULL");
            }
            return Ok(());
        }
        if matches!(self.values, Values::List { .. }) && !record {
            return self.text(row, out);
        }
        let start = out.len();
        self.text(row, out)?;
        if text::needs_quotes(&out[start..], record) {
            let plain = out.split_off(start);
            text::quoted(&plain, record, out);
        }
        Ok(())
    }

    /// Scalars in the rows of a list column; counts through nested lists.
    fn count(&self, start: usize, end: usize) -> usize {
        match &self.values {
            Values::List { items, ranges } => {
                ranges[start..end].iter().map(|(start, end)| items.count(*start, *end)).sum()
            }
            _ => end - start,
        }
    }

    fn is_oid(&self) -> bool {
        matches!(self.pg_type.scalar, Scalar::Oid | Scalar::Regclass | Scalar::Regtype | Scalar::Regproc)
    }

    fn binary(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        match &self.values {
            Values::Null => {}
            Values::Bool(values) => out.put_u8(values.value(row).into()),
            Values::Int8(values) => out.put_i16(values.value(row).into()),
            Values::Int16(values) => out.put_i16(values.value(row)),
            Values::Int32(values) => out.put_i32(values.value(row)),
            Values::Int64(values) if self.is_oid() => out.put_u32(values.value(row) as u32),
            Values::Int64(values) => out.put_i64(values.value(row)),
            Values::UInt8(values) => out.put_i16(values.value(row).into()),
            Values::UInt16(values) => out.put_i32(values.value(row).into()),
            Values::UInt32(values) if self.is_oid() => out.put_u32(values.value(row)),
            Values::UInt32(values) => out.put_i64(values.value(row).into()),
            Values::UInt64(values) => numeric(&values.value(row).to_string(), out),
            Values::Float32(values) => out.put_f32(values.value(row)),
            Values::Float64(values) => out.put_f64(values.value(row)),
            Values::Decimal128(values, scale) => {
                let mut digits = BytesMut::new();
                text::decimal128(values.value(row), *scale, &mut digits);
                numeric(&String::from_utf8_lossy(&digits), out);
            }
            Values::Decimal256(values, scale) => {
                let mut digits = BytesMut::new();
                text::decimal256(values.value(row), *scale, &mut digits);
                numeric(&String::from_utf8_lossy(&digits), out);
            }
            Values::Utf8(values) => self.binary_text(values.value(row), out)?,
            Values::LargeUtf8(values) => self.binary_text(values.value(row), out)?,
            Values::Utf8View(values) => self.binary_text(values.value(row), out)?,
            Values::Binary(values) => out.put_slice(values.value(row)),
            Values::LargeBinary(values) => out.put_slice(values.value(row)),
            Values::BinaryView(values) => out.put_slice(values.value(row)),
            Values::FixedBinary(values) => out.put_slice(values.value(row)),
            Values::Date(values) => out.put_i32(match values.value(row) {
                infinite @ (i32::MAX | i32::MIN) => infinite,
                days => i32::try_from(i64::from(days) - EPOCH_2000_DAYS).map_err(|_| out_of_range("date"))?,
            }),
            Values::Time(values) => out.put_i64(values.value(row)),
            Values::Timestamp(values) => out.put_i64(match values.value(row) {
                infinite @ (i64::MAX | i64::MIN) => infinite,
                us => us.checked_sub(EPOCH_2000_US).ok_or_else(|| out_of_range("timestamp"))?,
            }),
            Values::Interval(values) => {
                let value = values.value(row);
                out.put_i64(value.nanoseconds.div_euclid(1000));
                out.put_i32(value.days);
                out.put_i32(value.months);
            }
            Values::Duration(values) => {
                out.put_i64(values.value(row));
                out.put_i64(0);
            }
            Values::List { .. } => self.binary_array(row, out)?,
            Values::Struct(columns) => {
                out.put_i32(columns.len() as i32);
                for column in columns {
                    out.put_u32(column.pg_type.oid());
                    column.write_field(Format::Binary, row, out)?;
                }
            }
        }
        Ok(())
    }

    fn binary_text(&self, value: &str, out: &mut BytesMut) -> Result<()> {
        match self.pg_type.scalar {
            Scalar::Jsonb => {
                out.put_u8(1);
                out.put_slice(value.as_bytes());
            }
            Scalar::Uuid => {
                let uuid = uuid::Uuid::parse_str(value).map_err(|_| {
                    SqlError::new(state::DATA_CORRUPTED, format!("a uuid column holds \"{value}\", which is no uuid"))
                })?;
                out.put_slice(uuid.as_bytes());
            }
            Scalar::Char => out.put_u8(value.bytes().next().unwrap_or(0)),
            _ => out.put_slice(value.as_bytes()),
        }
        Ok(())
    }

    fn binary_array(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        let Values::List { items, ranges } = &self.values else {
            return Err(SqlError::internal("a list column holds no list"));
        };
        let (start, end) = ranges[row];
        let mut dimensions = vec![end - start];
        let mut level = items.as_ref();
        let mut rows: Vec<usize> = (start..end).collect();
        while let Values::List { items, ranges } = &level.values {
            let lengths: Vec<usize> = rows.iter().map(|row| ranges[*row].1 - ranges[*row].0).collect();
            let length = lengths.first().copied().unwrap_or(0);
            if lengths.iter().any(|other| *other != length) || rows.iter().any(|row| level.is_null(*row)) {
                return Err(SqlError::new(
                    state::DATATYPE_MISMATCH,
                    "multidimensional arrays must have sub-arrays with matching dimensions",
                )
                .with_hint("ask for text results, or take the column apart with unnest"));
            }
            dimensions.push(length);
            rows = rows.iter().flat_map(|row| ranges[*row].0..ranges[*row].1).collect();
            level = items.as_ref();
        }
        if rows.is_empty() {
            dimensions.clear();
        }
        out.put_i32(dimensions.len() as i32);
        out.put_i32(rows.iter().any(|row| level.is_null(*row)).into());
        out.put_u32(level.pg_type.scalar.oid());
        for length in dimensions {
            out.put_i32(length as i32);
            out.put_i32(1);
        }
        for row in rows {
            level.write_field(Format::Binary, row, out)?;
        }
        Ok(())
    }
}

/// Runs `write` and puts the number of bytes it wrote in front of them.
pub fn with_length(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
    let start = out.len();
    out.put_i32(0);
    write(out)?;
    let length = i32::try_from(out.len() - start - 4)
        .map_err(|_| SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "a value is larger than the protocol can carry"))?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// NUMERIC's binary form: digits to the base of 10000, from plain decimal text.
fn numeric(decimal: &str, out: &mut BytesMut) {
    let (negative, decimal) = decimal.strip_prefix('-').map_or((false, decimal), |rest| (true, rest));
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let whole = whole.trim_start_matches('0');
    let groups_before = whole.len().div_ceil(4);
    let mut groups: Vec<i16> = Vec::with_capacity(groups_before + fraction.len().div_ceil(4));
    let digits = |text: &[u8]| text.iter().fold(0, |value, digit| value * 10 + i16::from(digit - b'0'));
    let first = whole.len() % 4;
    if first > 0 {
        groups.push(digits(&whole.as_bytes()[..first]));
    }
    whole.as_bytes()[first..].chunks(4).for_each(|group| groups.push(digits(group)));
    for group in fraction.as_bytes().chunks(4) {
        groups.push(digits(group) * 10i16.pow(4 - group.len() as u32));
    }
    let mut weight = groups_before as i32 - 1;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= leading as i32;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    out.put_i16(groups.len() as i16);
    out.put_i16(weight as i16);
    out.put_u16(if negative && !groups.is_empty() { 0x4000 } else { 0 });
    out.put_i16(fraction.len() as i16);
    groups.iter().for_each(|group| out.put_i16(*group));
}

fn displayed(array: &ArrayRef) -> Result<ArrayRef> {
    let options = FormatOptions::default();
    let formatter = arrow::util::display::ArrayFormatter::try_new(array.as_ref(), &options)?;
    let text: StringArray =
        (0..array.len()).map(|row| array.is_valid(row).then(|| formatter.value(row).to_string())).collect();
    Ok(Arc::new(text))
}

fn out_of_range(what: &str) -> SqlError {
    SqlError::new(state::DATETIME_FIELD_OVERFLOW, format!("{what} out of range"))
}
