//! Growing columns of every SQL type, fed one value at a time.
//!
//! A value that does not fit is refused and leaves the column as it was; the caller then puts NULL in its place and drops the row when the
//! batch is finished. So the common case pays nothing for the rare one.

use std::{fmt, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryViewBuilder, BooleanArray, BooleanBufferBuilder, Decimal128Array, ListArray, NullBufferBuilder,
        PrimitiveArray, StringViewBuilder, TimestampMicrosecondArray,
    },
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::{ArrowPrimitiveType, Date32Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use tidemill_storage::schema::{DataType, UTC};

use super::{
    EpochUnit, SourceColumn,
    json::{self, jsonb},
    number::{self, Misfit},
    time,
    value::{Unscaled, Value, without_nul},
};

/// A value that a column refused.
#[derive(Debug)]
pub(super) struct Refusal {
    column: String,
    data_type: DataType,
    /// The beginning of the value.
    shown: String,
    misfit: Misfit,
}

impl Refusal {
    pub(super) fn column(&self) -> &str {
        &self.column
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column \"{}\" ({}): {} {}", self.column, self.data_type, self.shown, self.misfit)
    }
}

/// A column that grows.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    data_type: DataType,
    epoch: EpochUnit,
    nulls: NullBufferBuilder,
    values: Values,
    /// For canonical JSON, reused.
    scratch: String,
    /// Bytes of JSON that were written since the last [`Self::finish`].
    written: usize,
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBufferBuilder),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal { values: Vec<i128>, precision: u8, scale: i8 },
    Text(StringViewBuilder),
    Uuid(StringViewBuilder),
    Jsonb(StringViewBuilder),
    Bytes(BinaryViewBuilder),
    Date(Vec<i32>),
    Timestamp { values: Vec<i64>, with_zone: bool },
    List { ends: Vec<i32>, item: Box<Column> },
}

impl Values {
    fn new(column: &SourceColumn) -> Self {
        match &column.data_type {
            DataType::Boolean => Self::Boolean(BooleanBufferBuilder::new(0)),
            DataType::SmallInt => Self::Int16(Vec::new()),
            DataType::Int => Self::Int32(Vec::new()),
            DataType::BigInt => Self::Int64(Vec::new()),
            DataType::Real => Self::Float32(Vec::new()),
            DataType::Double => Self::Float64(Vec::new()),
            DataType::Numeric { precision, scale } => {
                Self::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::Text => Self::Text(StringViewBuilder::new()),
            DataType::Uuid => Self::Uuid(StringViewBuilder::new()),
            DataType::Jsonb => Self::Jsonb(StringViewBuilder::new()),
            DataType::Bytea => Self::Bytes(BinaryViewBuilder::new()),
            DataType::Date => Self::Date(Vec::new()),
            DataType::Timestamp => Self::Timestamp { values: Vec::new(), with_zone: false },
            DataType::TimestampTz => Self::Timestamp { values: Vec::new(), with_zone: true },
            DataType::Array(item) => {
                let item = SourceColumn { data_type: (**item).clone(), ..column.clone() };
                Self::List { ends: Vec::new(), item: Box::new(Column::new(&item)) }
            }
        }
    }
}

impl Column {
    pub(super) fn new(column: &SourceColumn) -> Self {
        Self {
            name: column.name.clone(),
            data_type: column.data_type.clone(),
            epoch: column.epoch,
            nulls: NullBufferBuilder::new(0),
            values: Values::new(column),
            scratch: String::new(),
            written: 0,
        }
    }

    /// Bytes of JSON documents in the column, which may be very many more than those of their messages.
    pub(super) fn written(&self) -> usize {
        match &self.values {
            Values::List { item, .. } => item.written(),
            _ => self.written,
        }
    }

    pub(super) fn append_null(&mut self) {
        self.nulls.append_null();
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Timestamp { values, .. } => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Text(values) | Values::Uuid(values) | Values::Jsonb(values) => values.append_null(),
            Values::Bytes(values) => values.append_null(),
            Values::List { ends, item } => ends.push(item.len() as i32),
        }
    }

    /// Appends the value, or refuses it: then it stays as it was, or has NULL where an array was refused.
    pub(super) fn append(&mut self, value: Value<'_>) -> Result<(), Box<Refusal>> {
        if matches!(value, Value::Null) {
            self.append_null();
            return Ok(());
        }
        match self.try_append(value) {
            Ok(()) => {
                self.nulls.append_non_null();
                Ok(())
            }
            Err(misfit) => {
                if matches!(self.values, Values::List { .. }) {
                    // Elements before the bad one are in already: they must not become the next row's.
                    self.append_null();
                }
                Err(self.refusal(value, misfit))
            }
        }
    }

    /// Appends an array whose elements `fill` appends to the column that it is given. `None` when this is no column of arrays. After an
    /// error it has NULL.
    pub(super) fn append_list<E>(&mut self, fill: impl FnOnce(&mut Column) -> Result<(), E>) -> Option<Result<(), E>>
    where
        E: From<Box<Refusal>>,
    {
        let Values::List { ends, item } = &mut self.values else { return None };
        let filled = fill(item);
        let Ok(end) = i32::try_from(item.len()) else {
            return Some(Err(self.refusal(Value::Json("an array"), Misfit::Size).into()));
        };
        match filled {
            Ok(()) => {
                ends.push(end);
                self.nulls.append_non_null();
            }
            // Elements before the bad one are in already: they must not become the next row's.
            Err(_) => self.append_null(),
        }
        Some(filled)
    }

    /// Whether a record, an array or a map becomes its JSON text here.
    pub(super) fn takes_json(&self) -> bool {
        matches!(self.values, Values::Text(_) | Values::Jsonb(_))
    }

    /// A refusal of a value that was not even read.
    pub(super) fn refusal(&self, value: Value<'_>, misfit: Misfit) -> Box<Refusal> {
        Box::new(Refusal { column: self.name.clone(), data_type: self.data_type.clone(), shown: show(value), misfit })
    }

    fn try_append(&mut self, value: Value<'_>) -> Result<(), Misfit> {
        use Value::{
            Boolean, Bytes, Decimal, Double, Float, Integer, Json, Moment, Number, String, Symbol, Text, Unsigned, Uuid,
        };
        match (&mut self.values, value) {
            (Values::Boolean(values), value) => values.append(boolean(value)?),
            (Values::Int16(values), Number(text) | String(text) | Text(text)) => {
                values.push(number::integer(trim(text), i16::MIN.into(), i16::MAX.into())? as i16);
            }
            (Values::Int32(values), Number(text) | String(text) | Text(text)) => {
                values.push(number::integer(trim(text), i32::MIN.into(), i32::MAX.into())? as i32);
            }
            (Values::Int64(values), Number(text) | String(text) | Text(text)) => {
                values.push(number::integer(trim(text), i64::MIN, i64::MAX)?);
            }
            (Values::Float32(values), Number(text) | String(text) | Text(text)) => {
                values.push(number::real(trim(text))?)
            }
            (Values::Float64(values), Number(text) | String(text) | Text(text)) => {
                values.push(number::double(trim(text))?)
            }
            (Values::Decimal { values, precision, scale }, Number(text) | String(text) | Text(text)) => {
                values.push(number::numeric(trim(text), *precision, *scale)?);
            }
            (Values::Text(values), String(text) | Number(text) | Json(text)) => values.append_value(text),
            (Values::Text(values), Boolean(value)) => values.append_value(if value { "true" } else { "false" }),
            (Values::Text(values), Text(text)) => values.append_value(without_nul(text)?),
            (Values::Uuid(values), String(text) | Text(text)) => {
                let uuid = uuid::Uuid::try_parse(trim(text)).map_err(|_| Misfit::Syntax)?;
                append_uuid(values, uuid.into_bytes());
            }
            (Values::Jsonb(values), value) => {
                self.scratch.clear();
                jsonb_text(value, &mut self.scratch)?;
                self.written += self.scratch.len();
                values.append_value(&self.scratch);
            }
            (Values::Bytes(values), String(text) | Text(text)) => values.append_value(bytes(text)?),
            (Values::Date(values), String(text) | Text(text)) => values.push(time::date(trim(text))?),
            (Values::Timestamp { values, .. }, Number(text)) => values.push(time::epoch(text, self.epoch)?),
            (Values::Timestamp { values, .. }, String(text) | Text(text)) => {
                let text = trim(text);
                let micros = match time::timestamp(text) {
                    Err(Misfit::Syntax) if is_number(text) => time::epoch(text, self.epoch),
                    other => other,
                };
                values.push(micros?);
            }
            (Values::List { ends, item }, Json(text) | Text(text)) => {
                let taken = json::for_each_element(text, &mut |element| match element {
                    Json(element)
                        if element.starts_with('[') && !matches!(item.values, Values::Text(_) | Values::Jsonb(_)) =>
                    {
                        Err(Misfit::Nested)
                    }
                    Value::Null => {
                        item.append_null();
                        Ok(())
                    }
                    element => {
                        item.try_append(element)?;
                        item.nulls.append_non_null();
                        Ok(())
                    }
                });
                taken?;
                ends.push(i32::try_from(item.len()).map_err(|_| Misfit::Size)?);
            }
            (Values::Int16(values), value) => {
                values.push(self::integer(value, i16::MIN.into(), i16::MAX.into())? as i16)
            }
            (Values::Int32(values), value) => {
                values.push(self::integer(value, i32::MIN.into(), i32::MAX.into())? as i32)
            }
            (Values::Int64(values), value) => values.push(self::integer(value, i64::MIN, i64::MAX)?),
            (Values::Float32(values), Float(value)) => values.push(value),
            (Values::Float32(values), value @ Decimal(_)) => {
                self.scratch.clear();
                value.write_text(&mut self.scratch)?;
                values.push(number::real(&self.scratch)?);
            }
            (Values::Float32(values), value) => values.push(exact_real(exact_double(value)?)?),
            (Values::Float64(values), value) => values.push(exact_double(value)?),
            (Values::Decimal { values, precision, scale }, Integer(value)) => {
                values.push(numeric(&value.to_be_bytes(), 0, *precision, *scale)?);
            }
            (Values::Decimal { values, precision, scale }, Decimal(value)) => {
                values.push(numeric(value.bytes, value.scale, *precision, *scale)?);
            }
            (Values::Decimal { values, precision, scale }, value @ (Unsigned(_) | Float(_) | Double(_))) => {
                self.scratch.clear();
                value.write_text(&mut self.scratch)?;
                values.push(number::numeric(&self.scratch, *precision, *scale)?);
            }
            (Values::Text(values), Symbol { name, .. }) => values.append_value(name),
            (Values::Text(values), value) => {
                self.scratch.clear();
                value.write_text(&mut self.scratch)?;
                values.append_value(&self.scratch);
            }
            (Values::Uuid(values), Uuid(bytes)) => append_uuid(values, bytes),
            (Values::Uuid(values), Bytes(bytes)) => append_uuid(values, bytes.try_into().map_err(|_| Misfit::Syntax)?),
            (Values::Bytes(values), Bytes(bytes)) => values.append_value(bytes),
            (Values::Bytes(values), Uuid(bytes)) => values.append_value(bytes),
            (Values::Date(values), Moment(moment)) => values.push(moment.days()?),
            (Values::Timestamp { values, .. }, Moment(moment)) => values.push(moment.micros()?),
            (Values::Timestamp { values, .. }, Integer(number)) => {
                values.push(time::epoch_integer(number, self.epoch)?)
            }
            (Values::Timestamp { values, .. }, value @ (Unsigned(_) | Float(_) | Double(_) | Decimal(_))) => {
                self.scratch.clear();
                value.write_text(&mut self.scratch)?;
                values.push(time::epoch(&self.scratch, self.epoch)?);
            }
            _ => return Err(Misfit::Kind),
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// The column as an array; afterwards it is empty.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let nulls = self.nulls.finish();
        self.written = 0;
        match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int16(values) => primitive::<Int16Type>(values, nulls),
            Values::Int32(values) => primitive::<Int32Type>(values, nulls),
            Values::Int64(values) => primitive::<Int64Type>(values, nulls),
            Values::Float32(values) => primitive::<Float32Type>(values, nulls),
            Values::Float64(values) => primitive::<Float64Type>(values, nulls),
            Values::Date(values) => primitive::<Date32Type>(values, nulls),
            Values::Decimal { values, precision, scale } => Arc::new(
                Decimal128Array::new(ScalarBuffer::from(std::mem::take(values)), nulls)
                    .with_precision_and_scale(*precision, *scale)
                    .expect("invariant: a column's precision and scale are valid"),
            ),
            Values::Timestamp { values, with_zone } => {
                let array = TimestampMicrosecondArray::new(ScalarBuffer::from(std::mem::take(values)), nulls);
                Arc::new(if *with_zone { array.with_timezone(UTC) } else { array })
            }
            Values::Text(values) | Values::Uuid(values) | Values::Jsonb(values) => Arc::new(values.finish()),
            Values::Bytes(values) => Arc::new(values.finish()),
            Values::List { ends, item } => {
                let mut offsets = Vec::with_capacity(ends.len() + 1);
                offsets.push(0);
                offsets.append(ends);
                let field = Arc::new(item.data_type.field("item", true));
                Arc::new(ListArray::new(field, OffsetBuffer::new(ScalarBuffer::from(offsets)), item.finish(), nulls))
            }
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<arrow::buffer::NullBuffer>) -> ArrayRef {
    let capacity = values.len();
    let values = std::mem::replace(values, Vec::with_capacity(capacity));
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls))
}

fn trim(text: &str) -> &str {
    // Blanks around a number or a date are of no meaning, as in Postgres; the common value has none.
    match text.as_bytes() {
        [first, .., last] if !first.is_ascii_whitespace() && !last.is_ascii_whitespace() => text,
        _ => text.trim_ascii(),
    }
}

fn is_number(text: &str) -> bool {
    number::Decimal::parse(text).is_some()
}

fn append_uuid(values: &mut StringViewBuilder, bytes: [u8; 16]) {
    let uuid = uuid::Uuid::from_bytes(bytes);
    values.append_value(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
}

/// An integer from a number that has a type; texts are read elsewhere.
fn integer(value: Value<'_>, least: i64, most: i64) -> Result<i64, Misfit> {
    let wide = match value {
        Value::Integer(value) => value.into(),
        Value::Unsigned(value) => value.into(),
        Value::Decimal(value) => value.scaled(0)?,
        Value::Moment(moment) => moment.count()?.into(),
        Value::Symbol { number, .. } => number.into(),
        Value::Float(value) => whole(value.into())?,
        Value::Double(value) => whole(value)?,
        _ => return Err(Misfit::Kind),
    };
    i64::try_from(wide).ok().filter(|value| (least..=most).contains(value)).ok_or(Misfit::Range)
}

fn whole(value: f64) -> Result<i128, Misfit> {
    if value.fract() != 0.0 {
        // Of NaN and infinities, too.
        return Err(if value.is_finite() { Misfit::Fraction } else { Misfit::Range });
    }
    // Beyond 2^127 the cast saturates, which is beyond every integer type as well.
    Ok(value as i128)
}

/// A DOUBLE that is the number, not one near it.
fn exact_double(value: Value<'_>) -> Result<f64, Misfit> {
    let exactly = |wide: i128| {
        let near = wide as f64;
        if near as i128 == wide { Ok(near) } else { Err(Misfit::Inexact) }
    };
    match value {
        Value::Double(value) => Ok(value),
        Value::Float(value) => Ok(value.into()),
        Value::Integer(value) => exactly(value.into()),
        Value::Unsigned(value) => exactly(value.into()),
        // The nearest one, as for the digits of a JSON number: a decimal is hardly ever a binary fraction.
        Value::Decimal(_) => {
            let mut text = String::new();
            value.write_text(&mut text)?;
            number::double(&text)
        }
        _ => Err(Misfit::Kind),
    }
}

fn exact_real(value: f64) -> Result<f32, Misfit> {
    let near = value as f32;
    if f64::from(near) == value || value.is_nan() { Ok(near) } else { Err(Misfit::Inexact) }
}

/// An unscaled NUMERIC(precision, scale) from an unscaled number of another scale.
fn numeric(bytes: &[u8], from: u32, precision: u8, scale: i8) -> Result<i128, Misfit> {
    let scale = u32::try_from(scale).map_err(|_| Misfit::Range)?;
    let value = Unscaled { bytes, scale: from }.scaled(scale)?;
    let bound = 10u128.checked_pow(precision.into()).ok_or(Misfit::Range)?;
    if value.unsigned_abs() < bound { Ok(value) } else { Err(Misfit::Range) }
}

fn boolean(value: Value<'_>) -> Result<bool, Misfit> {
    match value {
        Value::Boolean(value) => Ok(value),
        Value::String("true") => Ok(true),
        Value::String("false") => Ok(false),
        Value::String(_) => Err(Misfit::Syntax),
        Value::Text(text) => match trim(text).to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
            _ => Err(Misfit::Syntax),
        },
        _ => Err(Misfit::Kind),
    }
}

/// `\x` and hexadecimal digits as in Postgres, otherwise Base64, as JSON and Avro tools write bytes.
fn bytes(text: &str) -> Result<Vec<u8>, Misfit> {
    match text.strip_prefix("\\x") {
        None => STANDARD.decode(text).map_err(|_| Misfit::Syntax),
        Some(digits) => {
            let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
            if !rest.is_empty() {
                return Err(Misfit::Syntax);
            }
            let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(Misfit::Syntax);
            pairs.iter().map(|[high, low]| Ok((digit(*high)? * 16 + digit(*low)?) as u8)).collect()
        }
    }
}

fn jsonb_text(value: Value<'_>, out: &mut String) -> Result<(), Misfit> {
    match value {
        Value::Json(text) | Value::Text(text) => jsonb::canonical(text, out),
        value => value.write_json(out),
    }
}

/// The beginning of a value, for a message to a person.
fn show(value: Value<'_>) -> String {
    const SHOWN_CHARS: usize = 60;
    let cut = |text: &str| match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    match value {
        Value::Number(text) | Value::Json(text) => cut(text),
        Value::String(text) | Value::Text(text) => format!("\"{}\"", cut(text).escape_debug()),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        value => {
            let mut text = String::new();
            match value.write_json(&mut text) {
                Ok(()) => cut(&text),
                Err(_) => format!("{value:?}").chars().take(SHOWN_CHARS).collect(),
            }
        }
    }
}
