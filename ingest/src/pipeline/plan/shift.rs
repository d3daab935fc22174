//! Constants of time in SQL: lengths, and expressions that are a time and a constant.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray},
    datatypes::{DataType as ArrowType, Field, IntervalUnit, Schema, TimeUnit, TimestampMicrosecondType},
};
use datafusion::{
    common::{DFSchema, ScalarValue},
    logical_expr::{Cast, Expr},
};

use super::super::{expression::Expression, rules::Rules};

const DAY_US: i64 = 86_400_000_000;

/// Why an expression is no length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLength {
    /// Months are not of one length.
    Months,
    Other,
}

/// A constant interval in microseconds.
pub(super) fn length_us(rules: &dyn Rules, expr: &Expr, what: &str) -> Result<i64, NoLength> {
    // Group functions have their lengths as texts.
    let of_text = matches!(expr, Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Utf8View(_), _));
    let interval = ArrowType::Interval(IntervalUnit::MonthDayNano);
    let expr = if of_text { &Expr::Cast(Cast::new(Box::new(expr.clone()), interval)) } else { expr };
    let constant = || {
        // Of no columns, so that it is one value.
        let compiled = Expression::of_plan(rules, &Arc::new(DFSchema::empty()), expr.clone(), what).ok()?;
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).ok()?;
        ScalarValue::try_from_array(&compiled.evaluate(&row).ok()?, 0).ok()
    };
    let Some(ScalarValue::IntervalMonthDayNano(Some(value))) = constant() else { return Err(NoLength::Other) };
    if value.months != 0 {
        return Err(NoLength::Months);
    }
    let days = i64::from(value.days).checked_mul(DAY_US);
    days.and_then(|days| days.checked_add(value.nanoseconds / 1000)).ok_or(NoLength::Other)
}

/// Moments that an expression is tried with, in microseconds since 1970: nothing that rounds or goes by a calendar moves all of them by the same.
const MOMENTS: [i64; 6] = [
    0,
    1_234_567_890_123_457,
    1_709_294_399_999_999,
    1_711_846_801_000_001,
    1_730_000_000_777_777,
    951_782_400_000_003,
];

/// By how much an expression over one column, a time, moves it: `ts + INTERVAL '10 minutes'` moves by ten minutes. `None` for all that does something else. `compile` makes
/// the expression over rows of that column alone.
pub(super) fn shift_us(time: &ArrowType, compile: impl FnOnce(&Arc<DFSchema>) -> Option<Expression>) -> Option<i64> {
    let ArrowType::Timestamp(TimeUnit::Microsecond, zone) = time else { return None };
    let schema = Arc::new(Schema::new(vec![Field::new("time", time.clone(), true)]));
    let expression = compile(&Arc::new(DFSchema::try_from(Arc::clone(&schema)).ok()?))?;
    let moments = TimestampMicrosecondArray::from(MOMENTS.to_vec()).with_timezone_opt(zone.clone());
    let moved = expression.evaluate(&RecordBatch::try_new(schema, vec![Arc::new(moments)]).ok()?).ok()?;
    let moved = moved.as_primitive_opt::<TimestampMicrosecondType>()?;
    let shift = moved.value(0).checked_sub(MOMENTS[0])?;
    let is_shift = |at: usize| moved.is_valid(at) && moved.value(at).checked_sub(MOMENTS[at]) == Some(shift);
    (0..MOMENTS.len()).all(is_shift).then_some(shift)
}
