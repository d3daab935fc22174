//! Conditions on rounded moments as ranges of the moments themselves: `date_trunc('hour', ts) = '2026-03-29 10:00'` becomes
//! `ts >= '2026-03-29 10:00' AND ts < '2026-03-29 11:00'`, which statistics, indexes, star-trees and packed scans answer.
//!
//! Where the session's zone changes its clocks nearby, a range is put beside the condition, which stays: few rows are left to test.

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator,
        expr::{AggregateFunction, Between, InList},
        expr_rewriter::NamePreserver,
        utils::{conjunction, disjunction, split_conjunction},
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};
use tidemill_storage::{scalar::Scalar, schema::DataType as Stored};

use crate::{
    functions::{
        cast::CastTo,
        datetime::rounding::{Least, Step},
        zone::Zone,
    },
    rules::literals,
    table::pushdown,
};

/// Ranges that an IN becomes, at most; of more, one around all of them is put beside it.
const RANGES_MAX: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct RoundedTimes;

impl OptimizerRule for RoundedTimes {
    fn name(&self) -> &str {
        "rounded_times"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        let Ok(zone) = Zone::of(&config.options()) else { return Ok(Transformed::no(plan)) };
        match plan {
            LogicalPlan::Filter(filter) if rounds(&filter.predicate) => {
                let schema = filter.input.schema();
                let exact = exactly(filter.predicate, schema, zone)?;
                let beside = ranges_beside(&exact.data, schema, zone);
                let changed = exact.transformed || !beside.is_empty();
                let predicate = conjunction(beside.into_iter().chain([exact.data]));
                let predicate =
                    predicate.ok_or_else(|| DataFusionError::Internal("a filter without a condition".into()))?;
                let filter = LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?);
                Ok(Transformed::new(filter, changed, TreeNodeRecursion::Continue))
            }
            LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.iter().any(rounds) => {
                let schema = std::sync::Arc::clone(aggregate.input.schema());
                let plan = LogicalPlan::Aggregate(aggregate);
                let names = NamePreserver::new(&plan);
                plan.map_expressions(|expr| {
                    let name = names.save(&expr);
                    let settled = expr.transform_up(|expr| match expr {
                        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
                            let mut changed = false;
                            if let Some(filter) = params.filter.take() {
                                let exact = exactly(*filter, &schema, zone)?;
                                changed = exact.transformed;
                                params.filter = Some(Box::new(exact.data));
                            }
                            let call = Expr::AggregateFunction(AggregateFunction { func, params });
                            Ok(Transformed::new(call, changed, TreeNodeRecursion::Continue))
                        }
                        other => Ok(Transformed::no(other)),
                    })?;
                    Ok(settled.update_data(|expr| name.restore(expr)))
                })?
                .map_data(LogicalPlan::recompute_schema)
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

/// Whether `expr` rounds moments of some column somewhere: a quick test.
pub(crate) fn rounds(expr: &Expr) -> bool {
    let call = |expr: &Expr| match expr {
        Expr::ScalarFunction(call) => {
            let known = matches!(call.func.name(), "date_trunc" | "date_bin" | "time_bucket");
            (known || CastTo::target_of(&call.func).is_some_and(|target| is_time(target.data_type())))
                && call.args.iter().any(Expr::any_column_refs)
        }
        _ => false,
    };
    expr.exists(|expr| Ok(call(expr))).unwrap_or(false)
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32)
}

/// Conditions that a range says exactly, anywhere in `expr`.
fn exactly(expr: Expr, schema: &DFSchema, zone: Zone) -> Result<Transformed<Expr>, DataFusionError> {
    expr.transform_up(|expr| {
        Ok(match condition(&expr, schema, zone).and_then(Condition::exact) {
            Some(range) => Transformed::yes(range),
            None => Transformed::no(expr),
        })
    })
}

/// Ranges that what is left of the condition implies and that do not stand beside it yet.
fn ranges_beside(predicate: &Expr, schema: &DFSchema, zone: Zone) -> Vec<Expr> {
    let conditions = split_conjunction(predicate);
    let implied = conditions.iter().filter_map(|one| condition(one, schema, zone)?.implied());
    let missing = implied.flat_map(|range| split_conjunction(&range).into_iter().cloned().collect::<Vec<_>>());
    let mut ranges = Vec::new();
    for range in missing {
        if !conditions.contains(&&range) && !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    ranges
}

/// A column's moments or days, as functions round them.
struct Rounded<'a> {
    column: &'a Expr,
    data_type: DataType,
    /// The last one applied first.
    steps: Vec<Step>,
    result: DataType,
}

/// Values of the column from one place on, up to another one (not including it).
#[derive(Clone, Copy, Debug)]
struct Range {
    from: Option<Least>,
    to: Option<Least>,
}

/// What a condition says of the column: that it is in one of these ranges, or in none.
struct Condition<'a> {
    rounded: Rounded<'a>,
    ranges: Vec<Range>,
    negated: bool,
    /// NULL where it would be false: `IN (…, NULL)`.
    or_null: bool,
}

fn condition<'a>(expr: &'a Expr, schema: &DFSchema, zone: Zone) -> Option<Condition<'a>> {
    let made = |rounded, ranges, negated| Some(Condition { rounded, ranges, negated, or_null: false });
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if literals::compares(*op) => {
            let (side, value, op) = match (left.as_ref(), right.as_ref()) {
                (side, Expr::Literal(value, _)) => (side, value, *op),
                (Expr::Literal(value, _), side) => (side, value, op.swap()?),
                _ => return None,
            };
            let rounded = rounded(side, schema, zone)?;
            let value = rounded.value(value)?;
            let (at, after) = (rounded.least(value), rounded.least(value.checked_add(1)?));
            let range = match op {
                Operator::Eq | Operator::NotEq => Range { from: Some(at?), to: Some(after?) },
                Operator::Lt => Range { from: None, to: Some(at?) },
                Operator::LtEq => Range { from: None, to: Some(after?) },
                Operator::Gt => Range { from: Some(after?), to: None },
                Operator::GtEq => Range { from: Some(at?), to: None },
                _ => return None,
            };
            made(rounded, vec![range], op == Operator::NotEq)
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let (Expr::Literal(low, _), Expr::Literal(high, _)) = (low.as_ref(), high.as_ref()) else { return None };
            let rounded = rounded(expr, schema, zone)?;
            let (low, high) = (rounded.value(low)?, rounded.value(high)?);
            // Nothing lies between them, or all does outside.
            if low > high {
                return None;
            }
            let range = Range { from: Some(rounded.least(low)?), to: Some(rounded.least(high.checked_add(1)?)?) };
            made(rounded, vec![range], *negated)
        }
        Expr::InList(InList { expr, list, negated }) => {
            let rounded = rounded(expr, schema, zone)?;
            let (mut values, mut or_null) = (Vec::with_capacity(list.len()), false);
            for item in list {
                match item {
                    Expr::Literal(value, _) if value.is_null() => or_null = true,
                    Expr::Literal(value, _) => values.push(rounded.value(value)?),
                    _ => return None,
                }
            }
            values.sort_unstable();
            values.dedup();
            let mut ranges: Vec<Range> = Vec::new();
            for value in values {
                let (from, to) = (rounded.least(value)?, rounded.least(value.checked_add(1)?)?);
                match ranges.last_mut() {
                    // It goes on where the last one ends.
                    Some(last) if last.to == Some(from) && from.is_exact() => last.to = Some(to),
                    _ => ranges.push(Range { from: Some(from), to: Some(to) }),
                }
            }
            if ranges.is_empty() {
                return None;
            }
            Some(Condition { rounded, ranges, negated: *negated, or_null })
        }
        _ => None,
    }
}

impl Condition<'_> {
    /// The same as a condition on the column, if it can be said.
    fn exact(self) -> Option<Expr> {
        let bounds = || self.ranges.iter().flat_map(|range| [range.from, range.to]).flatten();
        if self.ranges.len() > RANGES_MAX || !bounds().all(Least::is_exact) {
            return None;
        }
        let each = self.ranges.iter().map(|range| match self.negated {
            false => conjunction(self.sides(*range)?),
            true => disjunction(self.sides_outside(*range)?),
        });
        let each = each.collect::<Option<Vec<Expr>>>()?;
        let null = self.or_null.then(|| Expr::Literal(ScalarValue::Boolean(None), None));
        let all = each.into_iter().chain(null);
        if self.negated { conjunction(all) } else { disjunction(all) }
    }

    /// What is true of the column wherever the condition is.
    fn implied(self) -> Option<Expr> {
        let (false, Some(first), Some(last)) = (self.negated, self.ranges.first(), self.ranges.last()) else {
            return None;
        };
        conjunction(self.sides(Range { from: first.from, to: last.to })?)
    }

    fn sides(&self, range: Range) -> Option<Vec<Expr>> {
        let from = range.from.map(|from| self.rounded.compared(Operator::GtEq, from.low));
        let to = range.to.map(|to| self.rounded.compared(Operator::Lt, to.high));
        from.into_iter().chain(to).collect()
    }

    fn sides_outside(&self, range: Range) -> Option<Vec<Expr>> {
        let from = range.from.map(|from| self.rounded.compared(Operator::Lt, from.low));
        let to = range.to.map(|to| self.rounded.compared(Operator::GtEq, to.high));
        from.into_iter().chain(to).collect()
    }
}

impl Rounded<'_> {
    /// A constant of the result's type, as it is counted.
    fn value(&self, value: &ScalarValue) -> Option<i64> {
        let stored = match &self.result {
            DataType::Date32 => Stored::Date,
            DataType::Timestamp(_, None) => Stored::Timestamp,
            DataType::Timestamp(_, Some(_)) => Stored::TimestampTz,
            _ => return None,
        };
        match pushdown::scalar(value, &stored)? {
            Scalar::Int(value) => Some(value),
            _ => None,
        }
    }

    /// Where the result reaches `wanted`.
    fn least(&self, mut wanted: i64) -> Option<Least> {
        let (innermost, others) = self.steps.split_last()?;
        for step in others {
            let least = step.least(wanted)?;
            wanted = least.is_exact().then_some(least.low)?;
        }
        innermost.least(wanted)
    }

    fn compared(&self, op: Operator, value: i64) -> Option<Expr> {
        let value = match &self.data_type {
            DataType::Date32 => ScalarValue::Date32(Some(i32::try_from(value).ok()?)),
            DataType::Timestamp(_, zone) => ScalarValue::TimestampMicrosecond(Some(value), zone.clone()),
            _ => return None,
        };
        let value = Expr::Literal(value, None);
        Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(self.column.clone()), op, Box::new(value))))
    }
}

fn rounded<'a>(expr: &'a Expr, schema: &DFSchema, zone: Zone) -> Option<Rounded<'a>> {
    let mut steps = Vec::new();
    let column = unwound(expr, schema, zone, &mut steps)?;
    if steps.is_empty() {
        return None;
    }
    let (data_type, result) = (column.get_type(schema).ok()?, expr.get_type(schema).ok()?);
    (is_micros(&data_type) && is_micros(&result)).then_some(Rounded { column, data_type, steps, result })
}

fn is_micros(data_type: &DataType) -> bool {
    use arrow::datatypes::TimeUnit::Microsecond;
    matches!(data_type, DataType::Timestamp(Microsecond, _) | DataType::Date32)
}

/// The column below all rounding, whose steps are added, the outer ones first.
fn unwound<'a>(expr: &'a Expr, schema: &DFSchema, zone: Zone, steps: &mut Vec<Step>) -> Option<&'a Expr> {
    match expr {
        Expr::Column(_) => Some(expr),
        Expr::Alias(alias) => unwound(&alias.expr, schema, zone, steps),
        Expr::ScalarFunction(call) => {
            if let (Some(target), [inner]) = (CastTo::target_of(&call.func), call.args.as_slice()) {
                steps.push(Step::of_cast(&inner.get_type(schema).ok()?, target.data_type(), zone)?);
                return unwound(inner, schema, zone, steps);
            }
            let (first, inner, third) = match call.args.as_slice() {
                [Expr::Literal(first, _), inner] => (first, inner, None),
                [Expr::Literal(first, _), inner, Expr::Literal(third, _)] => (first, inner, Some(third)),
                _ => return None,
            };
            let mut source = inner.get_type(schema).ok()?;
            // The functions take a date as the moment that it begins in the session's zone.
            let midnight = match (call.func.name(), &source) {
                ("date_trunc", DataType::Date32) => {
                    source = crate::rules::types::timestamptz();
                    Some(Step::Midnight(zone))
                }
                _ => None,
            };
            steps.push(Step::of_call(call.func.name(), first, third, &source, zone)?);
            steps.extend(midnight);
            unwound(inner, schema, zone, steps)
        }
        _ => None,
    }
}
