//! Columns from values that come as text or binary: COPY's rows, and the parameters of a statement (columns of one row).

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryViewBuilder, BooleanBuilder, Decimal128Array, Decimal256Array, IntervalMonthDayNanoBuilder,
        ListArray, PrimitiveBuilder, StringViewBuilder,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{
        Date32Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano,
        Time64MicrosecondType, TimestampMicrosecondType, i256,
    },
};
use tidemill_storage::schema::{DataType as SqlType, UTC};

use super::{
    PgType, Scalar, binary,
    calendar::Zone,
    parse::{self, Decimal},
};
use crate::session::error::{Result, SqlError, state};

/// What reading a value depends on beside its text.
#[derive(Clone, Copy, Debug)]
pub struct ReadStyle {
    pub zone: Zone,
    /// What 'now' means.
    pub now_us: i64,
}

/// Collects the values of one column.
pub struct ColumnBuilder {
    scalar: Scalar,
    values: Values,
    style: ReadStyle,
}

enum Values {
    Bool(BooleanBuilder),
    Int2(PrimitiveBuilder<Int16Type>),
    Int4(PrimitiveBuilder<Int32Type>),
    Int8(PrimitiveBuilder<Int64Type>),
    Float4(PrimitiveBuilder<Float32Type>),
    Float8(PrimitiveBuilder<Float64Type>),
    /// Of a column: precision and scale are given.
    Numeric {
        values: Vec<Option<i128>>,
        precision: u8,
        scale: i8,
    },
    /// Of a parameter: the digits decide.
    AnyNumeric(Vec<Option<Decimal>>),
    Text(StringViewBuilder),
    Bytes(BinaryViewBuilder),
    Date(PrimitiveBuilder<Date32Type>),
    Time(PrimitiveBuilder<Time64MicrosecondType>),
    Timestamp(PrimitiveBuilder<TimestampMicrosecondType>),
    Interval(IntervalMonthDayNanoBuilder),
    List {
        items: Box<ColumnBuilder>,
        item: Arc<Field>,
        lengths: Vec<usize>,
        valid: Vec<bool>,
    },
}

impl ColumnBuilder {
    /// For a column of a table.
    pub fn for_column(data_type: &SqlType, style: ReadStyle) -> Self {
        let pg_type = PgType::of_field(&data_type.field("", true));
        match data_type {
            SqlType::Numeric { precision, scale } => Self {
                scalar: Scalar::Numeric,
                values: Values::Numeric { values: Vec::new(), precision: *precision, scale: *scale },
                style,
            },
            SqlType::Array(item) => Self {
                scalar: pg_type.scalar,
                values: Values::List {
                    items: Box::new(Self::for_column(item, style)),
                    item: Arc::new(item.field("item", true)),
                    lengths: Vec::new(),
                    valid: Vec::new(),
                },
                style,
            },
            _ => Self::for_parameter(pg_type, style),
        }
    }

    /// For a parameter: NUMERIC takes the precision and scale of the value.
    pub fn for_parameter(pg_type: PgType, style: ReadStyle) -> Self {
        let scalar = pg_type.scalar;
        if pg_type.array {
            let item = PgType::scalar(scalar);
            let values = Values::List {
                items: Box::new(Self::for_parameter(item, style)),
                item: Arc::new(Field::new("item", item.arrow(), true)),
                lengths: Vec::new(),
                valid: Vec::new(),
            };
            return Self { scalar, values, style };
        }
        let values = match scalar {
            Scalar::Bool => Values::Bool(BooleanBuilder::new()),
            Scalar::Int2 => Values::Int2(PrimitiveBuilder::new()),
            Scalar::Int4 => Values::Int4(PrimitiveBuilder::new()),
            Scalar::Int8 | Scalar::Oid | Scalar::Regclass | Scalar::Regtype | Scalar::Regproc => {
                Values::Int8(PrimitiveBuilder::new())
            }
            Scalar::Float4 => Values::Float4(PrimitiveBuilder::new()),
            Scalar::Float8 => Values::Float8(PrimitiveBuilder::new()),
            Scalar::Numeric => Values::AnyNumeric(Vec::new()),
            Scalar::Bytea => Values::Bytes(BinaryViewBuilder::new()),
            Scalar::Date => Values::Date(PrimitiveBuilder::new()),
            Scalar::Time => Values::Time(PrimitiveBuilder::new()),
            Scalar::Timestamp => Values::Timestamp(PrimitiveBuilder::new()),
            Scalar::TimestampTz => Values::Timestamp(PrimitiveBuilder::new().with_timezone(UTC)),
            Scalar::Interval => Values::Interval(IntervalMonthDayNanoBuilder::new()),
            _ => Values::Text(StringViewBuilder::new()),
        };
        Self { scalar, values, style }
    }

    pub fn append_null(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.append_null(),
            Values::Int2(values) => values.append_null(),
            Values::Int4(values) => values.append_null(),
            Values::Int8(values) => values.append_null(),
            Values::Float4(values) => values.append_null(),
            Values::Float8(values) => values.append_null(),
            Values::Numeric { values, .. } => values.push(None),
            Values::AnyNumeric(values) => values.push(None),
            Values::Text(values) => values.append_null(),
            Values::Bytes(values) => values.append_null(),
            Values::Date(values) => values.append_null(),
            Values::Time(values) => values.append_null(),
            Values::Timestamp(values) => values.append_null(),
            Values::Interval(values) => values.append_null(),
            Values::List { lengths, valid, .. } => {
                lengths.push(0);
                valid.push(false);
            }
        }
    }

    pub fn append_text(&mut self, text: &str) -> Result<()> {
        let ReadStyle { zone, now_us } = self.style;
        match &mut self.values {
            Values::Bool(values) => values.append_value(parse::boolean(text)?),
            Values::Int2(values) => values.append_value(parse::integer(text, "smallint")?),
            Values::Int4(values) => values.append_value(parse::integer(text, "integer")?),
            Values::Int8(values) => values.append_value(parse::integer(text, "bigint")?),
            Values::Float4(values) => values.append_value(parse::float4(text)?),
            Values::Float8(values) => values.append_value(parse::float8(text)?),
            Values::Numeric { values, precision, scale } => {
                values.push(Some(Decimal::parse(text)?.to_decimal128(*precision, *scale)?));
            }
            Values::AnyNumeric(values) => values.push(Some(Decimal::parse(text)?)),
            Values::Text(values) => match self.scalar {
                Scalar::Uuid => values.append_value(parse::uuid(text)?),
                Scalar::Json => values.append_value(json(text, "json")?),
                Scalar::Jsonb => values.append_value(jsonb(text)?),
                _ => values.append_value(text),
            },
            Values::Bytes(values) => values.append_value(parse::bytea(text)?),
            Values::Date(values) => values.append_value(parse::date(text, now_us)?),
            Values::Time(values) => values.append_value(parse::time(text)?),
            Values::Timestamp(values) if self.scalar == Scalar::TimestampTz => {
                values.append_value(parse::timestamptz(text, zone, now_us)?);
            }
            Values::Timestamp(values) => values.append_value(parse::timestamp(text, now_us)?),
            Values::Interval(values) => values.append_value(interval(parse::interval(text)?)?),
            Values::List { items, lengths, valid, .. } => {
                let elements = parse::array(text)?;
                lengths.push(elements.len());
                valid.push(true);
                for element in elements {
                    match element {
                        Some(element) => items.append_text(&element)?,
                        None => items.append_null(),
                    }
                }
            }
        }
        Ok(())
    }

    pub fn append_binary(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.values {
            Values::Bool(values) => values.append_value(binary::boolean(bytes)?),
            Values::Int2(values) => values.append_value(binary::int2(bytes)?),
            Values::Int4(values) => values.append_value(binary::int4(bytes)?),
            Values::Int8(values) => match self.scalar {
                Scalar::Int8 => values.append_value(binary::int8(bytes)?),
                _ => values.append_value(binary::oid(bytes)?.into()),
            },
            Values::Float4(values) => values.append_value(binary::float4(bytes)?),
            Values::Float8(values) => values.append_value(binary::float8(bytes)?),
            Values::Numeric { values, precision, scale } => {
                values.push(Some(binary::numeric(bytes)?.to_decimal128(*precision, *scale)?));
            }
            Values::AnyNumeric(values) => values.push(Some(binary::numeric(bytes)?)),
            Values::Text(values) => match self.scalar {
                Scalar::Uuid => values.append_value(binary::uuid(bytes)?),
                Scalar::Json => values.append_value(json(binary::text(bytes, "json")?, "json")?),
                Scalar::Jsonb => values.append_value(jsonb(binary::jsonb(bytes)?)?),
                scalar => values.append_value(binary::text(bytes, scalar.name())?),
            },
            Values::Bytes(values) => values.append_value(bytes),
            Values::Date(values) => values.append_value(binary::date(bytes)?),
            Values::Time(values) => values.append_value(binary::time(bytes)?),
            Values::Timestamp(values) => values.append_value(binary::timestamp(bytes)?),
            Values::Interval(values) => values.append_value(interval(binary::interval(bytes)?)?),
            Values::List { items, lengths, valid, .. } => {
                let (given, elements) = binary::array(bytes)?;
                if !elements.is_empty() && !binary::element_fits(given, items.scalar) {
                    return Err(SqlError::new(
                        state::DATATYPE_MISMATCH,
                        format!(
                            "binary data has array element type {given} instead of expected {}",
                            items.scalar.oid()
                        ),
                    ));
                }
                lengths.push(elements.len());
                valid.push(true);
                for element in elements {
                    match element {
                        Some(element) => items.append_binary(element)?,
                        None => items.append_null(),
                    }
                }
            }
        }
        Ok(())
    }

    /// The column; the builder is empty then.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match &mut self.values {
            Values::Bool(values) => Arc::new(values.finish()),
            Values::Int2(values) => Arc::new(values.finish()),
            Values::Int4(values) => Arc::new(values.finish()),
            Values::Int8(values) => Arc::new(values.finish()),
            Values::Float4(values) => Arc::new(values.finish()),
            Values::Float8(values) => Arc::new(values.finish()),
            Values::Numeric { values, precision, scale } => {
                Arc::new(Decimal128Array::from(std::mem::take(values)).with_precision_and_scale(*precision, *scale)?)
            }
            Values::AnyNumeric(values) => any_numeric(&std::mem::take(values))?,
            Values::Text(values) => Arc::new(values.finish()),
            Values::Bytes(values) => Arc::new(values.finish()),
            Values::Date(values) => Arc::new(values.finish()),
            Values::Time(values) => Arc::new(values.finish()),
            Values::Timestamp(values) => Arc::new(values.finish()),
            Values::Interval(values) => Arc::new(values.finish()),
            Values::List { items, item, lengths, valid } => {
                let items = items.finish()?;
                let item = if item.data_type() == items.data_type() {
                    Arc::clone(item)
                } else {
                    Arc::new(item.as_ref().clone().with_data_type(items.data_type().clone()))
                };
                let offsets = OffsetBuffer::from_lengths(std::mem::take(lengths));
                Arc::new(ListArray::try_new(item, offsets, items, Some(NullBuffer::from(std::mem::take(valid))))?)
            }
        })
    }
}

/// All at the scale of the one with most digits after the point.
fn any_numeric(values: &[Option<Decimal>]) -> Result<ArrayRef> {
    let scale = values.iter().flatten().map(|value| value.scale).max().unwrap_or(0);
    let overflow =
        || SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "a numeric has more digits than can be held here (76)");
    let values: Vec<Option<i256>> = values
        .iter()
        .map(|value| value.map(|value| value.rescaled(scale).ok_or_else(overflow)).transpose())
        .collect::<Result<_>>()?;
    let limit = 10i128.pow(38);
    let narrow: Option<Vec<Option<i128>>> = values
        .iter()
        .map(|value| match value {
            None => Some(None),
            Some(value) => value.to_i128().filter(|value| value.unsigned_abs() < limit.unsigned_abs()).map(Some),
        })
        .collect();
    Ok(match narrow {
        Some(values) if scale <= 38 => {
            Arc::new(Decimal128Array::from(values).with_precision_and_scale(38, scale as i8)?)
        }
        _ => Arc::new(Decimal256Array::from(values).with_precision_and_scale(76, scale as i8)?),
    })
}

fn interval((months, days, us): (i32, i32, i64)) -> Result<IntervalMonthDayNano> {
    let nanoseconds = us.checked_mul(1000).ok_or_else(|| {
        SqlError::new(state::DATETIME_FIELD_OVERFLOW, "the time of an interval is limited to 292 years here")
    })?;
    Ok(IntervalMonthDayNano::new(months, days, nanoseconds))
}

fn json<'a>(text: &'a str, type_name: &str) -> Result<&'a str> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text),
        Err(error) => {
            Err(SqlError::new(state::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type {type_name}"))
                .with_detail(format!("{error}.")))
        }
    }
}

fn jsonb(text: &str) -> Result<String> {
    Ok(tidemill_query::canonical_json(text)?)
}
