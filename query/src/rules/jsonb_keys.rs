//! Comparing, sorting, grouping and joining by jsonb: by its [key](crate::functions::jsonb::key), not by its text. And by intervals: by how long they
//! are, not field by field.
//!
//! | planned | becomes |
//! |---|---|
//! | `a = b`, `a IN (b, c)`, `a BETWEEN b AND c`, `CASE a WHEN b …`, `nullif(a, b)` | the same of `key(a)`, `key(b)`, … |
//! | `a IN (SELECT b …)` | `key(a) IN (SELECT key(b) …)` |
//! | ORDER BY, DISTINCT ON, PARTITION BY, ORDER BY of aggregates, count(DISTINCT a) | by `key(a)` |
//! | joins, INTERSECT, EXCEPT | on `key(a) = key(b)` |
//! | GROUP BY a, DISTINCT | by `key(a)`; a is the least of the group's texts, of which there are several only for numbers like 1 and 1.0 |
//! | the groups whose gaps are filled | told apart by `key(a)` |
//! | `min(a)`, `max(a)` of intervals | `first_value(a ORDER BY key(a))`, descending for `max`; over windows functions of [their own](interval_extremes) |
//! | `greatest(a, b)`, `least(a, b)` of intervals | functions of their own |
//!
//! Runs when types fit. A key is no plain column, so no condition on it is left to segments, which know jsonb as text. `min(jsonb)` and
//! `max(jsonb)` do not exist.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{
        Column, DFSchema, ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    functions_aggregate::{first_last::first_value_udaf, min_max::min_udaf},
    logical_expr::{
        Aggregate, Distinct, Expr, ExprSchemable, LogicalPlan, Projection, Subquery,
        expr::{AggregateFunction, Between, Case, InList, InSubquery, ScalarFunction, WindowFunctionDefinition},
        utils::{grouping_set_to_exprlist, merge_schema},
        when,
    },
};

use super::{
    casts::marker,
    gapfill::{self, GapFill},
    literals::compares,
    operators::jsonb_field,
    types, walk,
};
use crate::{
    SqlError,
    functions::{interval_extremes, jsonb::key},
};

/// What the values of grouped documents are called below the projection that gives them back their names.
const TEXT: &str = "\u{1}jsonb";

pub(crate) fn apply(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    if !mentions_jsonb(&plan)? {
        return Ok(plan);
    }
    let plan = walk::expressions(plan, |expr, schema, _| expr.transform_up(|expr| compared(expr, schema)))?;
    plan.transform_up_with_subqueries(node).map(|transformed| transformed.data)
}

/// Most statements have none, and need no second look.
fn mentions_jsonb(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    use datafusion::common::tree_node::TreeNodeRecursion;
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= node.schema().fields().iter().any(|field| has_key(field));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found |= match expr {
                    Expr::ScalarFunction(_) | Expr::Literal(..) | Expr::Cast(_) => is_keyed(expr, node.schema()),
                    _ => false,
                };
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn has_key(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Interval(_)) || marker(field) == Some("jsonb")
}

/// Whether it is compared by its key.
fn is_keyed(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema).is_ok_and(|(_, field)| has_key(&field))
}

fn is_jsonb(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema).is_ok_and(|(_, field)| marker(&field) == Some("jsonb"))
}

fn keyed(expr: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(key::udf(), vec![expr]))
}

/// `expr`, by its key if it has one.
fn by_key(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    if is_keyed(&expr, schema) { Transformed::yes(keyed(expr)) } else { Transformed::no(expr) }
}

/// Windows over intervals, by their keys before types are made to fit: there are no ranges of intervals.
pub(crate) fn settle_window(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::WindowFunction(mut call) = expr else { return Transformed::no(expr) };
    let mut changed = false;
    for by in &mut call.params.order_by {
        if matches!(by.expr.get_type(schema), Ok(DataType::Interval(_))) {
            by.expr = keyed(by.expr.clone());
            changed = true;
        }
    }
    Transformed::new_transformed(Expr::WindowFunction(call), changed)
}

fn compared(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let is = |expr: &Expr| is_keyed(expr, schema);
    Ok(match expr {
        Expr::BinaryExpr(mut binary) if compares(binary.op) && (is(&binary.left) || is(&binary.right)) => {
            binary.left = Box::new(keyed(*binary.left));
            binary.right = Box::new(keyed(*binary.right));
            Transformed::yes(Expr::BinaryExpr(binary))
        }
        Expr::Between(Between { expr, negated, low, high }) if is(&expr) => Transformed::yes(Expr::Between(
            Between::new(Box::new(keyed(*expr)), negated, Box::new(keyed(*low)), Box::new(keyed(*high))),
        )),
        Expr::InList(InList { expr, list, negated }) if is(&expr) => {
            let list = list.into_iter().map(keyed).collect();
            Transformed::yes(Expr::InList(InList::new(Box::new(keyed(*expr)), list, negated)))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) if is(&expr) => {
            let items = subquery.subquery.schema().columns().into_iter().map(|column| keyed(Expr::Column(column)));
            let items = items.collect();
            let projected = Projection::try_new(items, Arc::clone(&subquery.subquery))?;
            let subquery = Subquery { subquery: Arc::new(LogicalPlan::Projection(projected)), ..subquery };
            Transformed::yes(Expr::InSubquery(InSubquery::new(Box::new(keyed(*expr)), subquery, negated)))
        }
        Expr::Case(Case { expr: Some(value), when_then_expr, else_expr }) if is(&value) => {
            let branches = when_then_expr.into_iter().map(|(when, then)| (Box::new(keyed(*when)), then)).collect();
            Transformed::yes(Expr::Case(Case::new(Some(Box::new(keyed(*value))), branches, else_expr)))
        }
        Expr::ScalarFunction(call) if call.func.name() == "nullif" && call.args.iter().any(is) => {
            let [left, right] = <[Expr; 2]>::try_from(call.args)
                .map_err(|_| DataFusionError::Internal("nullif takes two arguments".to_owned()))?;
            let document = is_jsonb(&left, schema);
            let same = keyed(left.clone()).eq(keyed(right));
            let null = Expr::Literal(ScalarValue::try_from(&left.get_type(schema)?)?, None);
            let kept = when(same, null).otherwise(left)?;
            Transformed::yes(if document { jsonb_field(kept) } else { kept })
        }
        Expr::ScalarFunction(call)
            if matches!(call.func.name(), "greatest" | "least")
                && call.args.iter().any(|arg| is(arg) && !is_jsonb(arg, schema)) =>
        {
            let func = interval_extremes::variadic(call.func.name() == "greatest");
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: call.args }))
        }
        Expr::WindowFunction(mut call) => {
            let mut changed = false;
            if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun {
                refuse(function.name(), &call.params.args, schema)?;
                if let ("min" | "max", [argument]) = (function.name(), call.params.args.as_slice())
                    && is(argument)
                {
                    let extreme = interval_extremes::aggregate(function.name() == "max");
                    call.fun = WindowFunctionDefinition::AggregateUDF(extreme);
                    changed = true;
                }
            }
            for part in
                call.params.partition_by.iter_mut().chain(call.params.order_by.iter_mut().map(|by| &mut by.expr))
            {
                let by = by_key(part.clone(), schema);
                changed |= by.transformed;
                *part = by.data;
            }
            Transformed::new_transformed(Expr::WindowFunction(call), changed)
        }
        Expr::AggregateFunction(mut call) => {
            refuse(call.func.name(), &call.params.args, schema)?;
            if let ("min" | "max", [argument]) = (call.func.name(), call.params.args.as_slice())
                && is(argument)
            {
                let ascending = call.func.name() == "min";
                call.params.order_by = vec![keyed(argument.clone()).sort(ascending, false)];
                call.params.distinct = false;
                call.func = first_value_udaf();
                return Ok(Transformed::yes(Expr::AggregateFunction(call)));
            }
            let counts = call.func.name() == "count" && call.params.distinct;
            let arguments = call.params.args.iter_mut().filter(|_| counts);
            let mut changed = false;
            for part in arguments.chain(call.params.order_by.iter_mut().map(|by| &mut by.expr)) {
                let by = by_key(part.clone(), schema);
                changed |= by.transformed;
                *part = by.data;
            }
            Transformed::new_transformed(Expr::AggregateFunction(call), changed)
        }
        other => Transformed::no(other),
    })
}

fn refuse(function: &str, args: &[Expr], schema: &DFSchema) -> Result<(), DataFusionError> {
    if matches!(function, "min" | "max") && args.iter().any(|arg| is_jsonb(arg, schema)) {
        return Err(SqlError::new("42883", format!("function {function}(jsonb) does not exist"))
            .with_hint(
                "No function matches the given name and argument types. You might need to add explicit type casts.",
            )
            .into());
    }
    Ok(())
}

fn node(node: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let schema = merge_schema(&node.inputs());
    Ok(match node {
        LogicalPlan::Sort(mut sort) => {
            for by in &mut sort.expr {
                by.expr = by_key(by.expr.clone(), &schema).data;
            }
            Transformed::yes(LogicalPlan::Sort(sort))
        }
        LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
            let sorts = distinct.sort_expr.iter_mut().flatten().map(|by| &mut by.expr);
            for by in distinct.on_expr.iter_mut().chain(sorts) {
                *by = by_key(by.clone(), &schema).data;
            }
            Transformed::yes(LogicalPlan::Distinct(Distinct::On(distinct)))
        }
        LogicalPlan::Join(mut join) => {
            for (left, right) in &mut join.on {
                if is_keyed(left, &schema) || is_keyed(right, &schema) {
                    (*left, *right) = (keyed(left.clone()), keyed(right.clone()));
                }
            }
            Transformed::yes(LogicalPlan::Join(join))
        }
        LogicalPlan::Distinct(Distinct::All(input)) if input.schema().fields().iter().any(|field| has_key(field)) => {
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
            Transformed::yes(grouped(Aggregate::try_new(input, columns, Vec::new())?)?)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let keys = grouping_set_to_exprlist(&aggregate.group_expr)?;
            match keys.iter().any(|expr| is_keyed(expr, &schema)) {
                true => Transformed::yes(grouped(aggregate)?),
                false => Transformed::no(LogicalPlan::Aggregate(aggregate)),
            }
        }
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<GapFill>() {
            Some(fill) => {
                let key = |column: &Expr, schema: &DFSchema| is_keyed(column, schema).then(|| keyed(column.clone()));
                Transformed::yes(gapfill::with_keys(fill.clone(), key)?)
            }
            None => Transformed::no(LogicalPlan::Extension(extension)),
        },
        other => Transformed::no(other),
    })
}

/// `aggregate` by the keys of its documents, under a projection with the columns that it had.
fn grouped(aggregate: Aggregate) -> Result<LogicalPlan, DataFusionError> {
    let input = Arc::clone(&aggregate.input);
    let plain = |expr: &Expr| match expr {
        Expr::Alias(alias) => alias.expr.as_ref().clone(),
        other => other.clone(),
    };
    let by: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let is_document = |expr: &Expr| is_keyed(expr, input.schema());
    let keys = aggregate.group_expr.iter().map(|expr| {
        let replaced = expr.clone().transform_down(|expr| {
            let is_key = by.contains(&expr) && is_document(&expr);
            Ok(match is_key {
                true => {
                    Transformed::new(keyed(plain(&expr)), true, datafusion::common::tree_node::TreeNodeRecursion::Jump)
                }
                false => Transformed::no(expr),
            })
        })?;
        Ok(replaced.data)
    });
    let keys = keys.collect::<Result<Vec<_>, DataFusionError>>()?;
    let is_set = matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]);
    let mut calls = aggregate.aggr_expr.clone();
    let mut shown = Vec::with_capacity(aggregate.schema.fields().len());
    for (index, (qualifier, field)) in aggregate.schema.iter().enumerate() {
        let document = by.get(index).filter(|expr| is_document(expr)).map(plain);
        let Some(document) = document else {
            shown.push(Expr::Column(Column::new(qualifier.cloned(), field.name())));
            continue;
        };
        let name = format!("{TEXT}{index}");
        let least = AggregateFunction::new_udf(min_udaf(), vec![document.clone()], false, None, Vec::new(), None);
        calls.push(Expr::AggregateFunction(least).alias(&name));
        let text = Expr::Column(Column::new_unqualified(name));
        let text = match is_set {
            // Rows of a set without this key have none.
            true => {
                let key = Expr::Column(Column::new_unqualified(keyed(document).schema_name().to_string()));
                let null = Expr::Literal(ScalarValue::try_from(field.data_type())?, None);
                when(key.is_null(), null).otherwise(text)?
            }
            false => text,
        };
        let value = if marker(field) == Some("jsonb") { jsonb_field(text) } else { text };
        shown.push(value.alias_qualified(qualifier.cloned(), field.name()));
    }
    let made = Aggregate::try_new(input, keys, calls)?;
    Ok(LogicalPlan::Projection(Projection::try_new(shown, Arc::new(LogicalPlan::Aggregate(made)))?))
}

/// Whether `data_type` may stand beside jsonb in a comparison: text that was written without its type, or whose type was lost on its way.
pub(crate) fn is_comparable(data_type: &DataType) -> bool {
    types::is_text(data_type) || *data_type == DataType::Null
}
