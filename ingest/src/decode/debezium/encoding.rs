//! How Debezium writes the values of a database in JSON, which has too few types for them.
//!
//! | name in the schema | JSON | becomes |
//! |---|---|---|
//! | `…connect.data.Decimal` | Base64 of an integer, its scale in the schema | decimal |
//! | `…data.VariableScaleDecimal` | `{"scale": …, "value": Base64}` | decimal |
//! | `…time.Date`, `…connect.data.Date` | days since 1970 | date |
//! | `…time.Time`, `MicroTime`, `NanoTime`, `…connect.data.Time` | since midnight | time of day |
//! | `…time.Timestamp`, `MicroTimestamp`, `NanoTimestamp`, `…connect.data.Timestamp` | since 1970 | timestamp without a zone |
//! | all others, and none | as it is | as in format json; a string in a JSONB column is a document |
//!
//! Where a message has no schema, columns tell: numbers in DATE are days, those in timestamps what EPOCH says, and strings in columns of numbers what
//! the option `decimal.handling.mode` says. Nothing is guessed: `1234` may be four digits, or the Base64 of three bytes.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value as Json;
use tidemill_storage::schema::DataType;

use super::{Place, is_of_row};
use crate::decode::{
    DecimalMode, PathStep,
    column::Column,
    cursor::Unfit,
    json::for_each_element,
    number::{self, Misfit},
    rows::Fault,
    value::{Moment, Unit, Unscaled, Value},
};

/// What stands in the place of a large value that did not change, as text, as bytes and in an array: PostgreSQL does not send it.
const UNAVAILABLE: [&str; 2] = ["__debezium_unavailable_value", "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="];
const UNAVAILABLE_ARRAY: &str = r#"["__debezium_unavailable_value"]"#;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Encoding {
    /// As in format json.
    Plain,
    /// Base64 of an integer, over ten to the power of `scale`.
    Decimal {
        scale: i32,
    },
    /// An object of the scale and these bytes.
    VariableDecimal,
    /// Strings cannot be told.
    Unspecified,
    /// Days since 1970-01-01.
    Date,
    Time(Unit),
    Timestamp(Unit),
    /// A string is the text of a JSON document.
    Document,
    Array(Box<Encoding>),
}

/// [`Encoding::VariableDecimal`].
#[derive(Deserialize)]
struct VariableDecimal {
    scale: i32,
    value: String,
}

/// How the columns are written.
#[derive(Debug)]
pub(super) struct Encodings {
    /// Without a schema.
    assumed: Vec<Encoding>,
    /// With the last schema there was: mostly the next message has the same.
    schema: String,
    told: Vec<Encoding>,
}

impl Encodings {
    pub(super) fn new(decimals: Option<DecimalMode>, columns: &[Place]) -> Self {
        let assumed = |Place { spec, .. }: &Place| match is_of_row(spec) {
            true => Encoding::assumed(&spec.data_type, decimals),
            false => Encoding::Plain,
        };
        Self { assumed: columns.iter().map(assumed).collect(), schema: String::new(), told: Vec::new() }
    }

    /// `schema` is the text of a JSON object.
    pub(super) fn of(&mut self, schema: Option<&str>, columns: &[Place]) -> Result<&[Encoding], Fault> {
        let Some(schema) = schema else { return Ok(&self.assumed) };
        if self.schema != schema {
            let parsed: Json = serde_json::from_str(schema)
                .map_err(|error| Fault::message(format!("the schema beside the change cannot be read: {error}")))?;
            let told = |(column, assumed): (&Place, &Encoding)| {
                // Both images have one schema.
                let field = column.paths.iter().find_map(|path| field(&parsed, path));
                match field {
                    Some(field) if is_of_row(&column.spec) => Encoding::told(field, &column.spec.data_type),
                    _ => assumed.clone(),
                }
            };
            self.told = columns.iter().zip(&self.assumed).map(told).collect();
            schema.clone_into(&mut self.schema);
        }
        Ok(&self.told)
    }
}

/// The schema of what a path leads to.
fn field<'a>(schema: &'a Json, path: &[PathStep]) -> Option<&'a Json> {
    path.iter().try_fold(schema, |schema, step| match step {
        PathStep::Field(name) => schema["fields"].as_array()?.iter().find(|field| field["field"] == name.as_str()),
        PathStep::Index(_) => schema.get("items"),
    })
}

impl Encoding {
    /// By the type of the column alone.
    fn assumed(data_type: &DataType, decimals: Option<DecimalMode>) -> Self {
        use DataType::{Array, BigInt, Date, Double, Int, Jsonb, Numeric, Real, SmallInt};
        match (data_type, decimals) {
            (Array(item), _) => Self::Array(Box::new(Self::assumed(item, decimals))),
            (Date, _) => Self::Date,
            (Jsonb, _) => Self::Document,
            (Numeric { scale, .. }, Some(DecimalMode::Precise)) => Self::Decimal { scale: (*scale).into() },
            (SmallInt | Int | BigInt, Some(DecimalMode::Precise)) => Self::Decimal { scale: 0 },
            (Real | Double, Some(DecimalMode::Precise)) => Self::Unspecified,
            (SmallInt | Int | BigInt | Real | Double | Numeric { .. }, None) => Self::Unspecified,
            _ => Self::Plain,
        }
    }

    /// By the schema of the value.
    fn told(schema: &Json, data_type: &DataType) -> Self {
        match schema["name"].as_str().unwrap_or_default() {
            "org.apache.kafka.connect.data.Decimal" => {
                let scale = schema["parameters"]["scale"].as_str().and_then(|scale| scale.parse().ok());
                scale.map_or(Self::Unspecified, |scale| Self::Decimal { scale })
            }
            "io.debezium.data.VariableScaleDecimal" => Self::VariableDecimal,
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" | "io.debezium.time.IsoDate" => Self::Date,
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => Self::Time(Unit::Millis),
            "io.debezium.time.MicroTime" => Self::Time(Unit::Micros),
            "io.debezium.time.NanoTime" => Self::Time(Unit::Nanos),
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => Self::Timestamp(Unit::Millis),
            "io.debezium.time.MicroTimestamp" => Self::Timestamp(Unit::Micros),
            "io.debezium.time.NanoTimestamp" => Self::Timestamp(Unit::Nanos),
            _ => match data_type {
                DataType::Array(item) => Self::Array(Box::new(Self::told(&schema["items"], item))),
                DataType::Jsonb => Self::Document,
                _ => Self::Plain,
            },
        }
    }

    fn read<'a>(&self, value: Value<'a>, bytes: &'a mut Vec<u8>) -> Result<Value<'a>, Misfit> {
        Ok(match (self, value) {
            (Self::Decimal { scale }, Value::String(text)) => decimal(text, *scale, bytes)?,
            (Self::VariableDecimal, Value::Json(text)) => {
                let VariableDecimal { scale, value } = serde_json::from_str(text).map_err(|_| Misfit::Syntax)?;
                decimal(&value, scale, bytes)?
            }
            (Self::Unspecified, Value::String(_)) => return Err(Misfit::Unspecified),
            (Self::Date, Value::Number(days)) => {
                let days = number::integer(days, i32::MIN.into(), i32::MAX.into())?;
                Value::Moment(Moment::Date(days as i32))
            }
            // ISO 8601 with the zone, where Debezium writes dates so.
            (Self::Date, Value::String(text)) => Value::String(text.strip_suffix('Z').unwrap_or(text)),
            (Self::Time(unit), Value::Number(count)) => {
                let count = number::integer(count, i64::MIN, i64::MAX)?;
                Value::Moment(Moment::Time { count, unit: *unit })
            }
            (Self::Timestamp(unit), Value::Number(count)) => {
                let count = number::integer(count, i64::MIN, i64::MAX)?;
                Value::Moment(Moment::Timestamp { count, unit: *unit, is_utc: false })
            }
            (Self::Document, Value::String(text)) => Value::Text(text),
            _ => value,
        })
    }
}

/// A decimal from the Base64 of its digits.
fn decimal<'a>(text: &str, scale: i32, bytes: &'a mut Vec<u8>) -> Result<Value<'a>, Misfit> {
    bytes.clear();
    STANDARD.decode_vec(text, bytes).map_err(|_| Misfit::Syntax)?;
    if scale < 0 {
        let zeros = 10i128.checked_pow(scale.unsigned_abs()).ok_or(Misfit::Range)?;
        let integer = Unscaled { bytes, scale: 0 }.integer()?.checked_mul(zeros).ok_or(Misfit::Range)?;
        bytes.clear();
        bytes.extend(integer.to_be_bytes());
    }
    Ok(Value::Decimal(Unscaled { bytes, scale: scale.max(0) as u32 }))
}

/// Appends a value that is written so. Refuses what stands for a value that is not there.
pub(super) fn append(
    column: &mut Column,
    encoding: &Encoding,
    value: Value<'_>,
    bytes: &mut Vec<u8>,
) -> Result<(), Unfit> {
    if is_unavailable(value) {
        return Err(Misfit::Unavailable.into());
    }
    if let (Encoding::Array(item), Value::Json(text)) = (encoding, value) {
        let filled =
            column.append_list(|items| for_each_element(text, &mut |element| append(items, item, element, bytes)));
        if let Some(filled) = filled {
            return filled;
        }
    }
    Ok(column.append(encoding.read(value, bytes)?)?)
}

/// Whether it stands for a value that the database did not send.
pub(super) fn is_unavailable(value: Value<'_>) -> bool {
    match value {
        Value::String(text) => UNAVAILABLE.contains(&text),
        Value::Json(text) => text == UNAVAILABLE_ARRAY,
        _ => false,
    }
}
