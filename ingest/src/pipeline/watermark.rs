//! The watermark of a source: the event time up to which its rows are taken to be complete.

use arrow::{
    array::{AsArray, RecordBatch, TimestampMicrosecondArray, TimestampMicrosecondBuilder},
    compute::{cast, max},
    datatypes::{DataType as ArrowType, SchemaRef, TimeUnit, TimestampMicrosecondType},
};

use super::{
    bisect::bisect,
    expression::{Expression, definition, parse},
    rules::Rules,
};
use crate::Result;

/// The expression of `WATERMARK FOR column AS expression`.
#[derive(Debug)]
pub struct Watermark {
    expression: Expression,
}

impl Watermark {
    /// `Definition` for an expression that is no timestamp.
    pub fn compile(rules: &dyn Rules, schema: &SchemaRef, text: &str) -> Result<Self> {
        let expression = Expression::compile(rules, schema, parse(rules, text)?, "WATERMARK")?;
        if !matches!(expression.field.data_type(), ArrowType::Timestamp(..)) {
            return Err(definition(format!("WATERMARK: the expression {text} is no timestamp")));
        }
        Ok(Self { expression })
    }

    /// The value of each row, in microseconds since 1970; NULL where it cannot be computed.
    pub(crate) fn values(&self, rows: &RecordBatch) -> TimestampMicrosecondArray {
        let mut values = TimestampMicrosecondBuilder::with_capacity(rows.num_rows());
        let all = std::cell::RefCell::new(&mut values);
        bisect(
            0..rows.num_rows(),
            &mut |range| {
                let values = self.expression.evaluate(&rows.slice(range.start, range.len()))?;
                cast(&values, &ArrowType::Timestamp(TimeUnit::Microsecond, None)).map_err(|error| error.to_string())
            },
            &mut |_, micros| {
                for value in micros.as_primitive::<TimestampMicrosecondType>() {
                    all.borrow_mut().append_option(value);
                }
            },
            &mut |_, _| all.borrow_mut().append_null(),
        );
        values.finish()
    }

    /// The largest value over the rows, in microseconds since 1970. Rows for which it cannot be computed count for nothing.
    pub fn of(&self, rows: &RecordBatch) -> Option<i64> {
        let mut largest = None;
        bisect(
            0..rows.num_rows(),
            &mut |range| self.expression.evaluate(&rows.slice(range.start, range.len())),
            &mut |_, values| {
                let micros = cast(&values, &ArrowType::Timestamp(TimeUnit::Microsecond, None)).ok();
                largest = largest.max(micros.and_then(|micros| max(micros.as_primitive::<TimestampMicrosecondType>())));
            },
            &mut |_, _| {},
        );
        largest
    }
}
