//! Time series without gaps: `time_bucket_gapfill(width, ts)` in GROUP BY, `locf` and `interpolate` in the select list.
//!
//! ```text
//! Projection: time_bucket_gapfill(…), city, locf(avg(v))      Projection: time_bucket_gapfill(…), city, "locf(avg(v))"
//!   Filter: count(*) > 1            (HAVING)             ⇒      GapFill: one row more for each bucket of a city that is not there
//!     Aggregate: [time_bucket_gapfill(…), city]                   Filter: count(*) > 1
//!       Filter: ts >= a AND ts < b                                  Aggregate: [time_bucket(…) AS time_bucket_gapfill(…), city]
//!                                                                     Filter: ts >= a AND ts < b
//! ```
//!
//! So what is below the node is what it is with `time_bucket`. Runs on the plan as SqlToRel gives it: there everything that refers to the columns of an aggregate stands
//! right above it, and conditions stand where they were written. The rows are made by [`GapFillExec`](crate::exec::gapfill).

mod arguments;
mod bounds;
mod node;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::{
    common::{
        Column, DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        Aggregate, Expr, ExprSchemable, Extension, Filter, LogicalPlan, Projection, cast, expr::ScalarFunction,
        expr_rewriter::NamePreserver,
    },
};

pub(crate) use arguments::settled as settled_call;
pub(crate) use bounds::Bound;
pub(crate) use node::{Fill, GapFill, Way};

use super::types;
use crate::{
    SqlError,
    functions::datetime::{
        bucket,
        gapfill::{BUCKET, INTERPOLATE, LOCF},
    },
};
use bounds::Bounds;

/// Gives `plan` its nodes.
pub(crate) fn unfold(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    if mentioned(&plan)?.is_none() {
        return Ok(plan);
    }
    let plan = plan.transform_up_with_subqueries(|node| {
        let node = match node {
            LogicalPlan::Aggregate(aggregate) => filled(aggregate)?,
            LogicalPlan::Filter(Filter { predicate, input, .. }) if fill_of(&input).is_some() => {
                having(predicate, &input)?
            }
            other => with_fills(other)?,
        };
        // Columns may be null that were not.
        Ok(Transformed::yes(node.recompute_schema()?))
    })?;
    match mentioned(&plan.data)? {
        None => Ok(plan.data),
        Some(name) => Err(misplaced(&name).into()),
    }
}

fn misplaced(name: &str) -> SqlError {
    if name == BUCKET {
        return SqlError::new("42803", "time_bucket_gapfill stands outside of GROUP BY").with_hint(
            "It is one of the expressions that a query is grouped by, alone and once; the select list may repeat it. Elsewhere use time_bucket.",
        );
    }
    SqlError::new("42803", format!("{name} stands where there are no buckets to fill")).with_hint(
        "It is used in the select list of a query that is grouped by time_bucket_gapfill; not in WHERE, HAVING, aggregates, or itself. \
         ORDER BY may name its output column.",
    )
}

fn is_ours(name: &str) -> bool {
    matches!(name, BUCKET | LOCF | INTERPOLATE)
}

/// The first of our functions in `plan`.
fn mentioned(plan: &LogicalPlan) -> Result<Option<String>, DataFusionError> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && is_ours(call.func.name())
                {
                    found.get_or_insert_with(|| call.func.name().to_owned());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn fill_of(plan: &LogicalPlan) -> Option<&GapFill> {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
        _ => None,
    }
}

fn planned(fill: GapFill) -> Result<LogicalPlan, DataFusionError> {
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(fill.settled()?) }))
}

fn call_of<'a>(expr: &'a Expr, name: &str) -> Option<&'a ScalarFunction> {
    match expr {
        Expr::Alias(alias) => call_of(&alias.expr, name),
        Expr::ScalarFunction(call) if call.func.name() == name => Some(call),
        _ => None,
    }
}

/// An argument that is not NULL.
fn given(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Literal(value, _) if value.is_null() => None,
        other => Some(other),
    }
}

/// The aggregate by `time_bucket`, below a node that fills it; others as they are.
fn filled(aggregate: Aggregate) -> Result<LogicalPlan, DataFusionError> {
    let places: Vec<usize> = (0..aggregate.group_expr.len())
        .filter(|index| call_of(&aggregate.group_expr[*index], BUCKET).is_some())
        .collect();
    let is_within =
        |expr: &Expr| expr.exists(|expr| Ok(matches!(expr, Expr::ScalarFunction(call) if call.func.name() == BUCKET)));
    let place = match places.as_slice() {
        [place] => *place,
        [] => {
            for expr in &aggregate.group_expr {
                if is_within(expr)? {
                    let what = match expr {
                        Expr::GroupingSet(_) => "in GROUPING SETS, ROLLUP or CUBE",
                        _ => "inside of another expression of GROUP BY",
                    };
                    return Err(SqlError::not_supported(format!("time_bucket_gapfill {what}"))
                        .with_hint("GROUP BY it alone; what the select list makes of the bucket is free.")
                        .into());
                }
            }
            return Ok(LogicalPlan::Aggregate(aggregate));
        }
        _ => {
            return Err(SqlError::not_supported("time_bucket_gapfill twice in one GROUP BY")
                .with_hint("Fill one of them, and round by time_bucket beside it.")
                .into());
        }
    };
    let Some(call) = call_of(&aggregate.group_expr[place], BUCKET) else {
        return Err(DataFusionError::Internal("a call was lost".to_owned()));
    };
    let [width, time, zone, start, finish] = call.args.as_slice() else {
        return Err(DataFusionError::Internal("time_bucket_gapfill has five arguments".to_owned()));
    };
    let schema = aggregate.input.schema();
    let zone = given(zone);
    let data_type = time.get_type(schema)?;
    if zone.is_some() && !matches!(data_type, DataType::Timestamp(_, Some(_))) {
        return Err(SqlError::new("42883", "time_bucket_gapfill takes a time zone with timestamptz alone").into());
    }
    for argument in [Some(width), zone, given(start), given(finish)].into_iter().flatten() {
        if !bounds::is_constant(argument) {
            let message = "width, zone, start and finish of time_bucket_gapfill must be the same for all rows";
            return Err(SqlError::invalid_parameter(message)
                .with_hint(
                    "Constants, parameters and what is made of them, such as now() - interval '1 day', can be used.",
                )
                .into());
        }
    }
    let clock =
        if matches!(data_type, DataType::Timestamp(_, Some(_))) { types::timestamptz() } else { types::timestamp() };
    let moment = |expr: &Expr| cast(expr.clone(), clock.clone());
    let Bounds { from, to } = Bounds::of(&aggregate.input, time);
    let moments = |bounds: Vec<Bound>| -> Vec<Bound> {
        bounds.into_iter().map(|bound| Bound { at: moment(&bound.at), ..bound }).collect()
    };
    let (start, finish) = (given(start).map(moment), given(finish).map(moment));
    if start.is_none() && from.is_empty() {
        return Err(unbounded("start").into());
    }
    if finish.is_none() && to.is_empty() {
        return Err(unbounded("finish").into());
    }
    let mut args = vec![width.clone(), time.clone()];
    args.extend(zone.cloned());
    let rounded = Expr::ScalarFunction(ScalarFunction::new_udf(bucket::udf(), args));
    let (width, zone) =
        (cast(width.clone(), types::interval()), zone.map(|zone| cast(zone.clone(), DataType::Utf8View)));
    let (_, field) = aggregate.schema.qualified_field(place);
    let mut group_expr = aggregate.group_expr.clone();
    group_expr[place] = rounded.alias(field.name());
    let keys = (0..group_expr.len()).filter(|index| *index != place).collect();
    let made = Aggregate::try_new(Arc::clone(&aggregate.input), group_expr, aggregate.aggr_expr.clone())?;
    let input = Arc::new(LogicalPlan::Aggregate(made));
    planned(GapFill::new(input, place, keys, width, zone, (start, finish), (moments(from), moments(to)))?)
}

/// Nothing tells where the buckets begin or end.
pub(crate) fn unbounded(side: &str) -> SqlError {
    let (op, word) = if side == "start" { (">=", "begin") } else { ("<", "end") };
    SqlError::invalid_parameter(format!("time_bucket_gapfill cannot tell where the buckets {word}: no {side}")).with_hint(
        format!(
            "Give {side} as an argument, or compare the very time that is bucketed with a constant or a parameter by {op} in WHERE, beside other conditions by AND."
        ),
    )
}

/// HAVING looks at the groups that there are, before they are filled.
fn having(predicate: Expr, input: &LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let Some(fill) = fill_of(input) else {
        return Err(DataFusionError::Internal("HAVING lost its groups".to_owned()));
    };
    let filter = LogicalPlan::Filter(Filter::try_new(predicate, Arc::clone(&fill.input))?);
    let mut fill = fill.clone();
    fill.input = Arc::new(filter);
    planned(fill)
}

/// `node`, whose calls of `locf` and `interpolate` become columns of the groups that it is made of.
fn with_fills(node: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let (LogicalPlan::Projection(_) | LogicalPlan::Window(_)) = &node else { return Ok(node) };
    let mut calls: Vec<(String, ScalarFunction)> = Vec::new();
    let names = NamePreserver::new(&node);
    let replaced = node.clone().map_expressions(|expr| {
        let name = names.save(&expr);
        let replaced = expr.transform_down(|expr| match expr {
            Expr::ScalarFunction(call) if matches!(call.func.name(), LOCF | INTERPOLATE) => {
                let name = Expr::ScalarFunction(call.clone()).schema_name().to_string();
                if calls.iter().all(|(known, _)| *known != name) {
                    calls.push((name.clone(), call));
                }
                let column = Expr::Column(Column::new_unqualified(name));
                Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(replaced.update_data(|expr| name.restore(expr)))
    })?;
    if calls.is_empty() {
        return Ok(node);
    }
    let [input] = <[LogicalPlan; 1]>::try_from(replaced.data.inputs().into_iter().cloned().collect::<Vec<_>>())
        .map_err(|_| DataFusionError::Internal("a select list has one input".to_owned()))?;
    match added(input, &calls)? {
        Some(input) => {
            let node = replaced.data;
            node.with_new_exprs(node.expressions(), vec![input])
        }
        None => Ok(node),
    }
}

/// `plan` with a column for each of the calls, if there are buckets to fill below it.
fn added(plan: LogicalPlan, calls: &[(String, ScalarFunction)]) -> Result<Option<LogicalPlan>, DataFusionError> {
    match &plan {
        LogicalPlan::Window(_) | LogicalPlan::Filter(_) => {
            let Some(input) = plan.inputs().first().map(|input| (*input).clone()) else { return Ok(None) };
            let Some(input) = added(input, calls)? else { return Ok(None) };
            Ok(Some(plan.with_new_exprs(plan.expressions(), vec![input])?.recompute_schema()?))
        }
        _ => match fill_of(&plan) {
            Some(fill) => calls
                .iter()
                .try_fold(fill.clone(), |fill, (name, call)| with_fill(fill, name, call))
                .and_then(planned)
                .map(Some),
            None => Ok(None),
        },
    }
}

fn with_fill(mut fill: GapFill, name: &str, call: &ScalarFunction) -> Result<GapFill, DataFusionError> {
    if fill.fills.iter().any(|known| known.name == name) {
        return Ok(fill);
    }
    let mut place = |expr: &Expr| -> Result<usize, DataFusionError> {
        let known = match expr {
            Expr::Column(column) => fill.input.schema().maybe_index_of_column(column),
            other => fill.input.schema().index_of_column_by_name(None, &other.schema_name().to_string()),
        };
        if let Some(index) = known {
            return Ok(index);
        }
        let columns = columns(fill.input.schema()).chain([expr.clone()]).collect();
        fill.input = Arc::new(LogicalPlan::Projection(Projection::try_new(columns, Arc::clone(&fill.input))?));
        Ok(fill.input.schema().fields().len() - 1)
    };
    let (source, way) = match call.args.as_slice() {
        [value] => (place(value)?, Way::Interpolate),
        [value, before, nulls] => {
            if !bounds::is_constant(nulls) {
                return Err(SqlError::invalid_parameter("treat_null_as_missing of locf must be a constant").into());
            }
            let before = given(before).map(&mut place).transpose()?;
            (place(value)?, Way::Locf { before, nulls_are_missing: cast(nulls.clone(), DataType::Boolean) })
        }
        _ => return Err(DataFusionError::Internal("a call to fill with has other arguments".to_owned())),
    };
    fill.fills.push(Fill { name: name.to_owned(), source, way });
    fill.settled()
}

pub(super) fn columns(schema: &DFSchema) -> impl Iterator<Item = Expr> + '_ {
    schema.iter().map(|(qualifier, field)| Expr::Column(Column::new(qualifier.cloned(), field.name())))
}

/// Compares keys by what `keyed` makes of them, where it makes something.
pub(super) fn with_keys(
    mut fill: GapFill,
    keyed: impl Fn(&Expr, &DFSchema) -> Option<Expr>,
) -> Result<LogicalPlan, DataFusionError> {
    let schema = Arc::clone(fill.input.schema());
    let mut shown: Vec<Expr> = columns(&schema).collect();
    for place in &mut fill.by {
        if let Some(key) = shown.get(*place).and_then(|column| keyed(column, &schema)) {
            *place = shown.len();
            shown.push(key);
        }
    }
    if shown.len() > schema.fields().len() {
        fill.input = Arc::new(LogicalPlan::Projection(Projection::try_new(shown, Arc::clone(&fill.input))?));
    }
    planned(fill)
}
