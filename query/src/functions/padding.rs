//! `repeat`, `lpad` and `rpad`, whose few arguments can ask for more bytes than there are.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StringViewBuilder},
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use super::simple::{Call, Returns, Simple, any, any_of};
use crate::SqlError;

/// Bytes of all texts that one call makes, for up to a batch of rows. PostgreSQL allows each of them nearly as many.
const BYTES_MAX: usize = 256 << 20;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let text = || Returns::Type(DataType::Utf8View);
    vec![
        Simple::udf("repeat", any(2, Immutable), text(), repeat),
        Simple::udf("lpad", any_of(&[2, 3], Immutable), text(), |call| padded(call, true)),
        Simple::udf("rpad", any_of(&[2, 3], Immutable), text(), |call| padded(call, false)),
    ]
}

/// Counts the bytes of a call's texts.
#[derive(Default)]
struct Made {
    bytes: usize,
}

impl Made {
    fn add(&mut self, texts: usize, bytes_each: usize) -> Result<(), DataFusionError> {
        self.bytes = self.bytes.saturating_add(texts.saturating_mul(bytes_each));
        if self.bytes > BYTES_MAX {
            let message = format!("requested length too large: texts made by one call may take {BYTES_MAX} bytes");
            return Err(SqlError::new("54000", message).into());
        }
        Ok(())
    }
}

fn repeat(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let (texts, times) = (call.text(0)?, call.cast(1, &DataType::Int64)?);
    let mut made = Made::default();
    let mut builder = StringViewBuilder::with_capacity(call.rows);
    for (text, times) in texts.iter().zip(times.as_primitive::<Int64Type>()) {
        let (Some(text), Some(times)) = (text, times) else {
            builder.append_null();
            continue;
        };
        let times = usize::try_from(times).unwrap_or(0);
        made.add(times, text.len())?;
        builder.append_value(if text.is_empty() { String::new() } else { text.repeat(times) });
    }
    Ok(Arc::new(builder.finish()))
}

fn padded(call: &Call<'_>, on_the_left: bool) -> Result<ArrayRef, DataFusionError> {
    let (texts, lengths) = (call.text(0)?, call.cast(1, &DataType::Int64)?);
    let lengths = lengths.as_primitive::<Int64Type>();
    let fills = if call.arrays.len() > 2 { Some(call.text(2)?) } else { None };
    let mut made = Made::default();
    let mut builder = StringViewBuilder::with_capacity(call.rows);
    for row in 0..call.rows {
        let fill = match &fills {
            None => Some(" "),
            Some(fills) => fills.is_valid(row).then(|| fills.value(row)),
        };
        let (true, true, Some(fill)) = (texts.is_valid(row), lengths.is_valid(row), fill) else {
            builder.append_null();
            continue;
        };
        let text = texts.value(row);
        let length = usize::try_from(lengths.value(row)).unwrap_or(0);
        let has = text.chars().count();
        if has >= length || fill.is_empty() {
            builder.append_value(text.chars().take(length).collect::<String>());
            continue;
        }
        // A character takes four bytes at most.
        made.add(length, fill.chars().map(char::len_utf8).max().unwrap_or(1))?;
        let filling: String = fill.chars().cycle().take(length - has).collect();
        builder.append_value(if on_the_left { filling + text } else { text.to_owned() + &filling });
    }
    Ok(Arc::new(builder.finish()))
}
