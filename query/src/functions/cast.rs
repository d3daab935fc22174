//! One function per target type: casts as PostgreSQL makes them.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Date32Array, ListArray, Time64MicrosecondArray, TimestampMicrosecondArray},
    buffer::OffsetBuffer,
    compute::cast,
    datatypes::{
        DataType, Date32Type, Decimal128Type, FieldRef, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType,
    },
};
use datafusion::{
    common::ScalarValue,
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
    },
};
use tidemill_storage::schema::UTC;

use super::{
    arithmetic::float_to_int,
    simple::{self, Call},
    text_input, text_output,
};
use crate::{
    SqlError,
    rules::{casts::marker, types},
};

const DAY_US: i64 = 86_400_000_000;

/// `CAST(x AS target)`.
pub(crate) struct CastTo {
    name: String,
    target: FieldRef,
    signature: Signature,
}

impl CastTo {
    pub(crate) fn udf(target: FieldRef) -> Arc<ScalarUDF> {
        // Stable, for text and zones go by the session's TimeZone; planning folds it all the same.
        let signature = Signature::any(1, Volatility::Stable);
        let name = format!("cast_to_{}", types::name(&target).replace(' ', "_"));
        Arc::new(ScalarUDF::new_from_impl(Self { name, target, signature }))
    }

    /// What `udf` casts to, if it is a cast.
    pub(crate) fn target_of(udf: &ScalarUDF) -> Option<&FieldRef> {
        udf.inner().downcast_ref::<Self>().map(|cast| &cast.target)
    }
}

/// Whether `call` casts a text that means the same at any time: not `now` or `yesterday`.
pub(crate) fn is_timeless(call: &ScalarFunction) -> bool {
    let [Expr::Literal(value, _)] = call.args.as_slice() else { return false };
    if call.func.inner().downcast_ref::<CastTo>().is_none() {
        return false;
    }
    let (ScalarValue::Utf8(text) | ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text)) = value else {
        return true;
    };
    let text = text.as_deref().unwrap_or_default().to_lowercase();
    !["now", "today", "tomorrow", "yesterday"].iter().any(|word| text.contains(word))
}

impl fmt::Debug for CastTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for CastTo {
    fn eq(&self, other: &Self) -> bool {
        self.target == other.target
    }
}

impl Eq for CastTo {}

impl Hash for CastTo {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.target.data_type().hash(state);
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for CastTo {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(self.target.data_type().clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
        Ok(Arc::clone(&self.target))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        simple::invoke(args, |call| self.convert(call))
    }
}

impl CastTo {
    fn convert(&self, call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
        let array = &call.arrays[0];
        let (from, to) = (array.data_type(), self.target.data_type());
        if types::is_text(from) {
            return text_input::column(&call.text(0)?, &self.target, call.zone()?, call.session());
        }
        if let (DataType::List(_), DataType::List(item)) = (from, to) {
            return items(array, item, call);
        }
        if let Some(name @ ("uuid" | "jsonb" | "jsonpath" | "tsquery" | "tsvector")) = marker(&self.target) {
            let source = types::name(&call.fields[0]);
            return Err(SqlError::new("42846", format!("cannot cast type {source} to {name}")).into());
        }
        if types::is_text(to) {
            return Ok(cast(&text_output::column(array, call.zone()?)?, to)?);
        }
        match (from, to) {
            (DataType::Float32 | DataType::Float64, _) => float_to_int(array, to),
            (DataType::Decimal128(_, scale), DataType::Float64) => {
                let floats =
                    array.as_primitive::<Decimal128Type>().unary::<_, Float64Type>(|value| to_float(value, *scale));
                Ok(Arc::new(floats))
            }
            (DataType::Decimal128(_, scale), DataType::Float32) => {
                // A float of a float would be rounded twice.
                let read = |value| format!("{value}e{}", -i32::from(*scale)).parse().unwrap_or(f32::NAN);
                Ok(Arc::new(array.as_primitive::<Decimal128Type>().unary::<_, Float32Type>(read)))
            }
            (DataType::Decimal128(p, scale), _) => {
                // Halves away from zero, as numeric rounds; Arrow rounds so when the scale shrinks.
                let whole = cast(array, &DataType::Decimal128((*p).max(1), 0.min(*scale)))?;
                strict(&whole, to)
            }
            _ => instants(array, to, call),
        }
    }
}

/// The float that is nearest to `value · 10^-scale`.
pub(crate) fn to_float(value: i128, scale: i8) -> f64 {
    /// Powers of ten up to here are floats.
    const EXACT_DIGITS: i8 = 22;
    const EXACT: u128 = 1 << 53;
    match scale {
        0 => value as f64,
        // One rounding, for both are exact.
        1..=EXACT_DIGITS if value.unsigned_abs() <= EXACT => value as f64 / 10f64.powi(scale.into()),
        _ => format!("{value}e{}", -i32::from(scale)).parse().unwrap_or(f64::NAN),
    }
}

/// Lists of texts as lists of what their items are to be.
fn items(array: &ArrayRef, item: &FieldRef, call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let list = array.as_list::<i32>();
    let (from, to) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
    let texts = simple::text(&list.values().slice(from, to - from))?;
    let made = text_input::column(&texts, item, call.zone()?, call.session())?;
    let offsets = OffsetBuffer::from_lengths(list.offsets().lengths());
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, made, list.nulls().cloned())?))
}

/// Arrow's cast with an error where a value does not fit.
fn strict(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, DataFusionError> {
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    arrow::compute::cast_with_options(array, to, &options).map_err(|error| {
        let name = match to {
            DataType::Int16 => "smallint",
            DataType::Int32 => "integer",
            DataType::Int64 => "bigint",
            _ => return error.into(),
        };
        SqlError::out_of_range(name).into()
    })
}

/// Between DATE, TIMESTAMP, TIMESTAMPTZ and TIME, by the session's zone.
fn instants(array: &ArrayRef, to: &DataType, call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let zone = call.zone()?;
    // Wall clock in microseconds, or the instant where both sides have one.
    let (clock, from_zoned): (TimestampMicrosecondArray, bool) = match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>();
            (days.unary(|day| i64::from(day) * DAY_US), false)
        }
        DataType::Timestamp(_, zoned) => {
            let to_zoned = matches!(to, DataType::Timestamp(_, Some(_)));
            let us = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zoned.clone()))?;
            let us = us.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<Arc<str>>);
            match zoned.is_some() && !to_zoned {
                true => (us.unary(|instant| zone.to_local(instant)), true),
                false => (us, zoned.is_some()),
            }
        }
        other => return Err(DataFusionError::Internal(format!("no cast from {other} to {to}"))),
    };
    Ok(match to {
        DataType::Date32 => {
            let days: Date32Array = clock.try_unary::<_, Date32Type, SqlError>(|us| {
                i32::try_from(us.div_euclid(DAY_US)).map_err(|_| SqlError::new("22008", "date out of range"))
            })?;
            Arc::new(days)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let times: Time64MicrosecondArray = clock.unary(|us| us.rem_euclid(DAY_US));
            Arc::new(times)
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => Arc::new(clock),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            let instants: TimestampMicrosecondArray =
                if from_zoned { clock } else { clock.unary(|local| zone.to_instant(local)) };
            Arc::new(instants.with_timezone(UTC))
        }
        other => cast(&(Arc::new(clock) as ArrayRef), other)?,
    })
}
