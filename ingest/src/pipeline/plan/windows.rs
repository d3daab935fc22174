//! Windows in SQL: group functions, as in Flink, and the rows' windows in time.
//!
//! ```text
//! TUMBLE(ts, size)          [0 ── size)[size ── 2 size) …           one window a row
//! HOP(ts, slide, size)      [0 ── size), [slide ── slide + size) …  size / slide windows a row
//! CUMULATE(ts, step, size)  [0 ── step), [0 ── 2 step) … [0 ── size)
//! SESSION(ts, gap)          rows of a key that are less than the gap apart; its end is the gap after its last row
//! ```
//!
//! In the syntax tree `TUMBLE_START(ts, size)` becomes `window_start(tumble(ts, size))`, so that DataFusion sees the call that rows are grouped by in it and takes it
//! from the group. A window is a struct of its two ends. All windows are aligned to 1970-01-01 00:00 UTC.

use std::{
    hash::{Hash, Hasher},
    ops::ControlFlow,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, StructArray, TimestampMicrosecondArray},
    datatypes::{DataType as ArrowType, Field, Fields, TimeUnit},
};
use datafusion::{
    common::{DataFusionError, exec_err, plan_err},
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    sql::sqlparser::ast::{self, VisitMut, VisitorMut},
};
use serde::{Deserialize, Serialize};

use super::{
    super::rules::Rules,
    Time, WindowColumn,
    shift::{NoLength, length_us},
    unsupported,
};
use crate::{Error, Result};

const KINDS: [&str; 4] = ["tumble", "hop", "cumulate", "session"];
const START: &str = "window_start";
const END: &str = "window_end";

/// How times are put into windows. All lengths are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Window {
    Tumble { size: i64 },
    Hop { slide: i64, size: i64 },
    Cumulate { step: i64, size: i64 },
    Session { gap: i64 },
}

/// A half-open range of time, microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    pub end: i64,
    pub start: i64,
}

impl Window {
    /// Times of one *pane* are in the same windows.
    pub(crate) fn pane(self) -> i64 {
        match self {
            Self::Tumble { size } => size,
            Self::Hop { slide, size } => gcd(slide, size),
            Self::Cumulate { step, .. } => step,
            Self::Session { gap } => gap,
        }
    }

    /// The end of the first window that a time is in.
    pub(crate) fn first_end(self, time: i64) -> i64 {
        match self {
            Self::Tumble { size } => floor(time, size).saturating_add(size),
            // The least multiple of the slide, counted from the size, that is past the time and whose window has begun.
            Self::Hop { slide, size } => {
                floor(time.saturating_sub(size), slide).saturating_add(slide).saturating_add(size)
            }
            Self::Cumulate { step, .. } => floor(time, step).saturating_add(step),
            Self::Session { gap } => time.saturating_add(gap),
        }
    }

    /// The end of the last one.
    pub(crate) fn last_end(self, time: i64) -> i64 {
        match self {
            Self::Tumble { size } | Self::Cumulate { size, .. } => floor(time, size).saturating_add(size),
            Self::Hop { slide, size } => floor(time, slide).saturating_add(size),
            Self::Session { gap } => time.saturating_add(gap),
        }
    }

    /// All windows that a time is in, by their ends.
    pub(crate) fn spans(self, time: i64) -> Vec<Span> {
        let (first, last) = (self.first_end(time), self.last_end(time));
        match self {
            Self::Tumble { size } => vec![Span { start: first.saturating_sub(size), end: first }],
            Self::Hop { slide, size } => {
                let count = last.saturating_sub(first) / slide;
                let ends = (0..=count).map(|at| first.saturating_add(slide.saturating_mul(at)));
                ends.map(|end| Span { start: end.saturating_sub(size), end }).collect()
            }
            Self::Cumulate { step, size } => {
                let start = floor(time, size);
                let count = last.saturating_sub(first) / step;
                (0..=count).map(|at| Span { start, end: first.saturating_add(step.saturating_mul(at)) }).collect()
            }
            Self::Session { gap } => vec![Span { start: time, end: time.saturating_add(gap) }],
        }
    }

    /// The pane of a time: where it begins.
    pub(crate) fn pane_of(self, time: i64) -> i64 {
        floor(time, self.pane())
    }
}

/// The multiple of `unit` at or below `time`.
fn floor(time: i64, unit: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(unit))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A call of a group function that rows are grouped by.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WindowCall {
    pub(super) window: Window,
    /// The time.
    pub(super) time: Expr,
    /// The call as it stands in the plan.
    pub(super) call: Expr,
}

/// Whether an expression is a call of a group function.
pub(super) fn is_window(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if KINDS.contains(&function.func.name()))
}

/// The argument of a function that gives an end of a window, and whether that is the later one.
pub(super) fn end_of(expr: &Expr) -> Option<(&Expr, bool)> {
    let Expr::ScalarFunction(function) = expr else { return None };
    let is_end = match function.func.name() {
        START => false,
        END => true,
        _ => return None,
    };
    Some((function.args.first()?, is_end))
}

impl WindowColumn {
    /// An end of it as an event time of rows that come when the window is given. Where a session begins is not known to be near to anything.
    pub(super) fn time(&self, column: usize, is_end: bool) -> Option<Time> {
        // All rows of an end come when the watermark is there, so that those to come are past it.
        let delay_us = self.delay_us.saturating_sub(1);
        let delay_us = match self.window {
            _ if is_end => delay_us,
            Window::Tumble { size } | Window::Hop { size, .. } | Window::Cumulate { size, .. } => {
                delay_us.saturating_add(size)
            }
            Window::Session { .. } => return None,
        };
        Some(Time { column, delay_us, is_end: true })
    }
}

/// Reads a call.
pub(super) fn read(rules: &dyn Rules, expr: &Expr) -> Result<WindowCall> {
    let Expr::ScalarFunction(function) = expr else { return Err(unsupported("the group function cannot be read", "")) };
    let name = function.func.name();
    let [time, lengths @ ..] = function.args.as_slice() else {
        return Err(unsupported("the group function has no time", ""));
    };
    let lengths = lengths.iter().map(|length| interval(rules, name, length)).collect::<Result<Vec<i64>>>()?;
    let wrong = |message: String, hint: &str| Err(Error::Definition { message, hint: Some(hint.into()) });
    let window = match (name, lengths.as_slice()) {
        ("tumble", [size]) => Window::Tumble { size: *size },
        ("session", [gap]) => Window::Session { gap: *gap },
        ("hop", [slide, size]) if slide > size => {
            return wrong("HOP has a slide above its size".into(), "it is written HOP(time, slide, size)");
        }
        ("hop", [slide, size]) => {
            if size / gcd(*slide, *size) > WINDOWS_MAX {
                return wrong(
                    format!("HOP has panes so small that a window is made of more than {WINDOWS_MAX}"),
                    "make the slide longer, or the size a multiple of it",
                );
            }
            Window::Hop { slide: *slide, size: *size }
        }
        ("cumulate", [step, size]) if size % step != 0 => {
            return wrong("CUMULATE has a size that is no multiple of its step".into(), "CUMULATE(time, step, size)");
        }
        ("cumulate", [step, size]) if size / step > WINDOWS_MAX => {
            return wrong(format!("CUMULATE has more than {WINDOWS_MAX} steps"), "make the step longer");
        }
        ("cumulate", [step, size]) => Window::Cumulate { step: *step, size: *size },
        _ => return Err(unsupported(format!("{} cannot be read", name.to_uppercase()), "")),
    };
    Ok(WindowCall { window, time: time.clone(), call: expr.clone() })
}

/// Windows that one row may be in, and panes that one window may be made of.
const WINDOWS_MAX: i64 = 10_000;

fn interval(rules: &dyn Rules, name: &str, expr: &Expr) -> Result<i64> {
    let wrong = |hint: &str| Error::Definition {
        message: format!("{} takes lengths of time that are constant and above zero, not {expr}", name.to_uppercase()),
        hint: Some(hint.into()),
    };
    let shape = "write INTERVAL '5' MINUTE or INTERVAL '5 minutes'";
    match length_us(rules, expr, name) {
        Ok(us) if us > 0 => Ok(us),
        Ok(_) | Err(NoLength::Other) => Err(wrong(shape)),
        Err(NoLength::Months) => Err(wrong("months and years are not of one length; windows take days and less")),
    }
}

/// Brings Flink's spellings into the one that is planned.
pub(super) fn rewrite(query: &mut ast::Query) -> Result<()> {
    match VisitMut::visit(query, &mut Spelling) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Spelling;

impl VisitorMut for Spelling {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Error> {
        let ast::Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let [ast::ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
            return ControlFlow::Continue(());
        };
        let lower = name.value.to_lowercase();
        let is_kind = |name: &str| KINDS.contains(&name);
        if is_kind(&lower) || ["_start", "_end"].iter().any(|end| lower.strip_suffix(end).is_some_and(is_kind)) {
            plain_lengths(&mut function.args);
        }
        for (ending, end) in [("_start", START), ("_end", END)] {
            let Some(kind) = lower.strip_suffix(ending).filter(|kind| KINDS.contains(kind)) else { continue };
            let mut inner = function.clone();
            inner.name = ast::ObjectName::from(vec![ast::Ident::new(kind)]);
            function.name = ast::ObjectName::from(vec![ast::Ident::new(end)]);
            let ast::FunctionArguments::List(list) = &mut function.args else { return ControlFlow::Continue(()) };
            let inner = ast::FunctionArgExpr::Expr(ast::Expr::Function(inner));
            list.args = vec![ast::FunctionArg::Unnamed(inner)];
            return ControlFlow::Continue(());
        }
        let refused = ["rowtime", "proctime"].iter().find_map(|ending| {
            lower.strip_suffix(ending).and_then(|kind| kind.strip_suffix('_')).filter(|kind| KINDS.contains(kind))
        });
        match refused {
            Some(kind) => ControlFlow::Break(unsupported(
                format!("{} is not supported", name.value.to_uppercase()),
                format!("{}_START and {}_END give the ends of the window", kind.to_uppercase(), kind.to_uppercase()),
            )),
            None => ControlFlow::Continue(()),
        }
    }
}

/// Lengths as texts: rules of queries give intervals other names, and GROUPING SETS do not find those again.
fn plain_lengths(arguments: &mut ast::FunctionArguments) {
    let ast::FunctionArguments::List(list) = arguments else { return };
    for argument in &mut list.args {
        let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) = argument else { continue };
        let ast::Expr::Interval(interval) = expr else { continue };
        let ast::Expr::Value(value) = interval.value.as_ref() else { continue };
        let ast::Value::SingleQuotedString(text) = &value.value else { continue };
        if interval.leading_precision.is_some()
            || interval.last_field.is_some()
            || interval.fractional_seconds_precision.is_some()
        {
            continue;
        }
        let unit = interval.leading_field.as_ref().map_or_else(String::new, |unit| format!(" {unit}"));
        *expr = ast::Expr::value(ast::Value::SingleQuotedString(format!("{text}{unit}")));
    }
}

/// The functions that [`rewrite`] leaves in a query.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let kinds = KINDS
        .iter()
        .zip([2, 3, 3, 2])
        .map(|(name, arguments)| GroupFunction { name, signature: Signature::any(arguments, Volatility::Immutable) });
    let ends = [(START, 0), (END, 1)].map(|(name, field)| WindowEnd {
        name,
        field,
        signature: Signature::any(1, Volatility::Immutable),
    });
    let kinds = kinds.map(|function| Arc::new(ScalarUDF::new_from_impl(function)));
    kinds.chain(ends.map(|function| Arc::new(ScalarUDF::new_from_impl(function)))).collect()
}

/// A group function. Rows are put into windows by the operator, so nobody computes it.
#[derive(Debug)]
struct GroupFunction {
    name: &'static str,
    signature: Signature,
}

/// One end of a window.
#[derive(Debug)]
struct WindowEnd {
    name: &'static str,
    field: usize,
    signature: Signature,
}

macro_rules! equal_by_name {
    ($($function:ty),*) => {$(
        impl PartialEq for $function {
            fn eq(&self, other: &Self) -> bool {
                self.name == other.name
            }
        }

        impl Eq for $function {}

        impl Hash for $function {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.name.hash(state);
            }
        }
    )*};
}
equal_by_name!(GroupFunction, WindowEnd);

/// The type of windows over times of a type.
pub(crate) fn window_type(time: &ArrowType) -> ArrowType {
    ArrowType::Struct(Fields::from(vec![
        Field::new("start", time.clone(), true),
        Field::new("end", time.clone(), true),
    ]))
}

/// One window, for each of `rows` rows.
pub(crate) fn window_array(time: &ArrowType, span: Span, rows: usize) -> Result<ArrayRef> {
    windows_array(time, vec![span.start; rows], vec![span.end; rows])
}

/// Windows by their ends.
pub(crate) fn windows_array(time: &ArrowType, starts: Vec<i64>, ends: Vec<i64>) -> Result<ArrayRef> {
    let of =
        |us: Vec<i64>| -> Result<ArrayRef> { Ok(arrow::compute::cast(&TimestampMicrosecondArray::from(us), time)?) };
    let ArrowType::Struct(fields) = window_type(time) else { return Err(unsupported("a window is a struct", "")) };
    Ok(Arc::new(StructArray::try_new(fields, vec![of(starts)?, of(ends)?], None)?))
}

impl ScalarUDFImpl for GroupFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[ArrowType]) -> Result<ArrowType, DataFusionError> {
        match types.first() {
            Some(time @ ArrowType::Timestamp(TimeUnit::Microsecond, _)) => Ok(window_type(time)),
            other => plan_err!(
                "{} takes a TIMESTAMP or TIMESTAMPTZ as its first argument, not {}",
                self.name.to_uppercase(),
                other.map_or_else(|| "nothing".into(), ToString::to_string)
            ),
        }
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        exec_err!("{} groups rows; it stands in GROUP BY", self.name.to_uppercase())
    }
}

impl ScalarUDFImpl for WindowEnd {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[ArrowType]) -> Result<ArrowType, DataFusionError> {
        match types.first() {
            Some(ArrowType::Struct(fields)) if fields.len() == 2 => Ok(fields[self.field].data_type().clone()),
            _ => plan_err!("{} takes a window", self.name),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let array = args.args[0].to_array(args.number_rows)?;
        match array.as_struct_opt() {
            Some(window) => Ok(ColumnarValue::Array(Arc::clone(window.column(self.field)))),
            None => exec_err!("{} takes a window", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn windows() -> impl Strategy<Value = Window> {
        prop_oneof![
            (1i64..50).prop_map(|size| Window::Tumble { size }),
            (1i64..20, 0i64..40).prop_map(|(slide, more)| Window::Hop { slide, size: slide + more }),
            (1i64..10, 1i64..10).prop_map(|(step, steps)| Window::Cumulate { step, size: step * steps }),
        ]
    }

    proptest! {
        /// Against the definition: every window that there is near the time, asked whether it holds it.
        #[test]
        fn a_time_is_in_the_windows_that_hold_it(window in windows(), time in -500i64..500) {
            let mut expected: Vec<Span> = match window {
                Window::Tumble { size } => (-600..600).map(|n| Span { start: n * size, end: n * size + size }).collect(),
                Window::Hop { slide, size } => (-600..600).map(|n| Span { start: n * slide, end: n * slide + size }).collect(),
                Window::Cumulate { step, size } => (-600..600)
                    .flat_map(|n| (1..=size / step).map(move |k| Span { start: n * size, end: n * size + k * step }))
                    .collect(),
                Window::Session { .. } => Vec::new(),
            };
            expected.retain(|span| span.start <= time && time < span.end);
            expected.sort();
            prop_assert_eq!(window.spans(time), expected.clone());
            prop_assert_eq!(window.first_end(time), expected[0].end);
            prop_assert_eq!(window.last_end(time), expected[expected.len() - 1].end);
            // All times of a pane are in the same windows.
            let pane = window.pane_of(time);
            prop_assert!(pane <= time && time < pane + window.pane());
            prop_assert_eq!(window.spans(pane), expected.clone());
            prop_assert_eq!(window.spans(pane + window.pane() - 1), expected);
        }
    }
}
