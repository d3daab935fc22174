//! Comparing, sorting, grouping and joining by jsonb: by its [key](crate::functions::jsonb::key), not by its text. By intervals: by how long they
//! are, not field by field. And by what goes by bits where it should not: arrays and rows of floats, and the order of floats, where -0 stands
//! before 0 and one NaN before another. Their key is the [same number](floats::one_float) in the same bits.
//!
//! | planned | becomes |
//! |---|---|
//! | `a = b`, `a IN (b, c)`, `a BETWEEN b AND c`, `CASE a WHEN b …`, `nullif(a, b)` | the same of `key(a)`, `key(b)`, … |
//! | `a IN (SELECT b …)` | `key(a) IN (SELECT key(b) …)` |
//! | ORDER BY, DISTINCT ON, PARTITION BY, ORDER BY of aggregates, count(DISTINCT a) | by `key(a)` |
//! | joins, INTERSECT, EXCEPT | on `key(a) = key(b)` |
//! | GROUP BY a, DISTINCT | by `key(a)`; a is one of the group's values: the least of the texts, of which there are several only for numbers like 1 and 1.0 |
//! | the groups whose gaps are filled | told apart by `key(a)` |
//! | `min(a)`, `max(a)` of intervals | `first_value(a ORDER BY key(a))`, descending for `max`; over windows functions of [their own](interval_extremes) |
//! | `greatest(a, b)`, `least(a, b)` of intervals | functions of their own |
//! | `a < b`, `a >= b` and so on of arrays | what [`array_order`] says of both, beside 0 |
//! | `a @> b`, `a && b`, `array_position(a, b)` of arrays of floats | the same of the keys |
//!
//! Runs when types fit. A key of a document is no plain column, so no condition on it is left to segments, which know jsonb as text; that of a float
//! is one to them, as they take equal floats for one. Equality and groups of floats alone are right without keys. `min(jsonb)` and `max(jsonb)`
//! do not exist.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{
        Column, DFSchema, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    functions_aggregate::{first_last::first_value_udaf, min_max::min_udaf},
    logical_expr::{
        Aggregate, BinaryExpr, Distinct, Expr, ExprSchemable, LogicalPlan, Operator, Projection, Subquery, binary_expr,
        expr::{AggregateFunction, Between, Case, InList, InSubquery, ScalarFunction, WindowFunctionDefinition},
        lit,
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
    functions::{array_order, floats, interval_extremes, jsonb::key},
};

/// What the values of grouped documents are called below the projection that gives them back their names.
const TEXT: &str = "\u{1}jsonb";

/// What a value is compared by.
#[derive(Clone, Copy)]
enum Key {
    /// Text or number made of a document or an interval.
    Made,
    /// Floats, alone or in arrays and rows, whose equal values have equal bits.
    OneFloat,
}

pub(crate) fn apply(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    if !needs_keys(&plan)? {
        return Ok(plan);
    }
    let plan = walk::expressions(plan, |expr, schema, _| expr.transform_up(|expr| compared(expr, schema)))?;
    plan.transform_up_with_subqueries(node).map(|transformed| transformed.data)
}

/// Most statements have none, and need no second look.
fn needs_keys(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= node.schema().fields().iter().any(|field| key_of(field).is_some());
        let inputs = merge_schema(&node.inputs());
        let orders = |expr: &Expr| order_key(expr, &inputs).is_some();
        found |= match node {
            LogicalPlan::Sort(sort) => sort.expr.iter().any(|by| orders(&by.expr)),
            LogicalPlan::Distinct(Distinct::On(on)) => on.sort_expr.iter().flatten().any(|by| orders(&by.expr)),
            _ => false,
        };
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found |= match expr {
                    Expr::ScalarFunction(_) | Expr::Literal(..) | Expr::Cast(_) => {
                        is_keyed(expr, node.schema()) || is_keyed(expr, &inputs)
                    }
                    Expr::WindowFunction(call) => {
                        let by = call.params.order_by.iter().map(|by| &by.expr);
                        call.params.partition_by.iter().chain(by).any(orders)
                    }
                    Expr::BinaryExpr(binary) => orders_arrays(binary, &inputs),
                    Expr::AggregateFunction(call) => call.params.order_by.iter().any(|by| orders(&by.expr)),
                    _ => false,
                };
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn key_of(field: &Field) -> Option<Key> {
    match field.data_type() {
        _ if marker(field) == Some("jsonb") => Some(Key::Made),
        DataType::Interval(_) => Some(Key::Made),
        nested if nested.is_nested() && has_floats(nested) => Some(Key::OneFloat),
        _ => None,
    }
}

/// Whether it is a float, or has floats in it.
fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float32 | DataType::Float64 => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => has_floats(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        _ => false,
    }
}

/// What it is compared by, if not by itself.
fn key(expr: &Expr, schema: &DFSchema) -> Option<Key> {
    expr.to_field(schema).ok().and_then(|(_, field)| key_of(&field))
}

/// What it is put in order by, if not by itself.
fn order_key(expr: &Expr, schema: &DFSchema) -> Option<Key> {
    let (_, field) = expr.to_field(schema).ok()?;
    key_of(&field).or_else(|| types::is_float(field.data_type()).then_some(Key::OneFloat))
}

fn is_keyed(expr: &Expr, schema: &DFSchema) -> bool {
    key(expr, schema).is_some()
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Interval(_)))
}

fn is_jsonb(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema).is_ok_and(|(_, field)| marker(&field) == Some("jsonb"))
}

fn keyed(expr: Expr, key: Key) -> Expr {
    match key {
        Key::Made => Expr::ScalarFunction(ScalarFunction::new_udf(key::udf(), vec![expr])),
        Key::OneFloat if floats::is_one(&expr) => expr,
        Key::OneFloat => floats::one_float().call(vec![expr]),
    }
}

/// `expr` by the key that it is put in order by, if it has one.
fn by_key(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match order_key(&expr, schema) {
        Some(Key::OneFloat) if floats::is_one(&expr) => Transformed::no(expr),
        Some(key) => Transformed::yes(keyed(expr, key)),
        None => Transformed::no(expr),
    }
}

/// Windows over intervals, by their keys before types are made to fit: there are no ranges of intervals.
pub(crate) fn settle_window(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::WindowFunction(mut call) = expr else { return Transformed::no(expr) };
    let mut changed = false;
    for by in &mut call.params.order_by {
        if matches!(by.expr.get_type(schema), Ok(DataType::Interval(_))) {
            by.expr = keyed(by.expr.clone(), Key::Made);
            changed = true;
        }
    }
    Transformed::new_transformed(Expr::WindowFunction(call), changed)
}

fn compared(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let is = |expr: &Expr| key(expr, schema);
    Ok(match expr {
        Expr::BinaryExpr(binary) if orders_arrays(&binary, schema) => {
            let op = binary.op;
            let mut sides = [*binary.left, *binary.right];
            if let Some(key) = sides.iter().find_map(is) {
                sides = sides.map(|side| keyed(side, key));
            }
            let order = array_order::udf().call(sides.into());
            Transformed::yes(binary_expr(order, op, lit(0i32)))
        }
        Expr::BinaryExpr(mut binary)
            if compares(binary.op)
                && let Some(key) = is(&binary.left).or_else(|| is(&binary.right)) =>
        {
            binary.left = Box::new(keyed(*binary.left, key));
            binary.right = Box::new(keyed(*binary.right, key));
            Transformed::yes(Expr::BinaryExpr(binary))
        }
        Expr::Between(Between { expr, negated, low, high }) if let Some(key) = is(&expr) => {
            let [expr, low, high] = [expr, low, high].map(|side| Box::new(keyed(*side, key)));
            Transformed::yes(Expr::Between(Between::new(expr, negated, low, high)))
        }
        Expr::InList(InList { expr, list, negated }) if let Some(key) = is(&expr) => {
            let list = list.into_iter().map(|item| keyed(item, key)).collect();
            Transformed::yes(Expr::InList(InList::new(Box::new(keyed(*expr, key)), list, negated)))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) if let Some(key) = is(&expr) => {
            let columns = subquery.subquery.schema().columns().into_iter();
            let items = columns.map(|column| keyed(Expr::Column(column), key)).collect();
            let projected = Projection::try_new(items, Arc::clone(&subquery.subquery))?;
            let subquery = Subquery { subquery: Arc::new(LogicalPlan::Projection(projected)), ..subquery };
            Transformed::yes(Expr::InSubquery(InSubquery::new(Box::new(keyed(*expr, key)), subquery, negated)))
        }
        Expr::Case(Case { expr: Some(value), when_then_expr, else_expr }) if let Some(key) = is(&value) => {
            let branches = when_then_expr.into_iter().map(|(when, then)| (Box::new(keyed(*when, key)), then)).collect();
            Transformed::yes(Expr::Case(Case::new(Some(Box::new(keyed(*value, key))), branches, else_expr)))
        }
        Expr::ScalarFunction(mut call)
            if matches!(
                call.func.name(),
                "array_contains_all" | "array_overlaps" | "array_position" | "array_positions"
            ) && let Some(key) = call.args.first().and_then(is) =>
        {
            call.args = call.args.into_iter().map(|arg| keyed(arg, key)).collect();
            Transformed::yes(Expr::ScalarFunction(call))
        }
        Expr::ScalarFunction(call)
            if call.func.name() == "nullif"
                && let Some(key) = call.args.iter().find_map(is) =>
        {
            let [left, right] = <[Expr; 2]>::try_from(call.args)
                .map_err(|_| DataFusionError::Internal("nullif takes two arguments".to_owned()))?;
            let document = is_jsonb(&left, schema);
            let same = keyed(left.clone(), key).eq(keyed(right, key));
            let null = Expr::Literal(ScalarValue::try_from(&left.get_type(schema)?)?, None);
            let kept = when(same, null).otherwise(left)?;
            Transformed::yes(if document { jsonb_field(kept) } else { kept })
        }
        Expr::ScalarFunction(call)
            if matches!(call.func.name(), "greatest" | "least")
                && call.args.iter().any(|arg| is_interval(arg, schema)) =>
        {
            let func = interval_extremes::variadic(call.func.name() == "greatest");
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: call.args }))
        }
        Expr::WindowFunction(mut call) => {
            let mut changed = false;
            if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun {
                refuse(function.name(), &call.params.args, schema)?;
                if let ("min" | "max", [argument]) = (function.name(), call.params.args.as_slice())
                    && is_interval(argument, schema)
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
                && let Some(key) = is(argument)
            {
                let ascending = call.func.name() == "min";
                call.params.order_by = vec![keyed(argument.clone(), key).sort(ascending, false)];
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

/// Whether it says which of two arrays comes first.
fn orders_arrays(binary: &BinaryExpr, schema: &DFSchema) -> bool {
    matches!(binary.op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
        && [&binary.left, &binary.right]
            .into_iter()
            .all(|side| matches!(side.get_type(schema), Ok(DataType::List(_) | DataType::LargeList(_))))
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
                if let Some(key) = key(left, &schema).or_else(|| key(right, &schema)) {
                    (*left, *right) = (keyed(left.clone(), key), keyed(right.clone(), key));
                }
            }
            Transformed::yes(LogicalPlan::Join(join))
        }
        LogicalPlan::Distinct(Distinct::All(input))
            if input.schema().fields().iter().any(|field| key_of(field).is_some()) =>
        {
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
                let key = |column: &Expr, schema: &DFSchema| Some(keyed(column.clone(), key(column, schema)?));
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
    let key_of = |expr: &Expr| key(expr, input.schema());
    let keys = aggregate.group_expr.iter().map(|expr| {
        let replaced = expr.clone().transform_down(|expr| {
            let key = key_of(&expr).filter(|_| by.contains(&expr));
            Ok(match key {
                Some(key) => Transformed::new(keyed(plain(&expr), key), true, TreeNodeRecursion::Jump),
                None => Transformed::no(expr),
            })
        })?;
        Ok(replaced.data)
    });
    let keys = keys.collect::<Result<Vec<_>, DataFusionError>>()?;
    let is_set = matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]);
    let mut calls = aggregate.aggr_expr.clone();
    let mut shown = Vec::with_capacity(aggregate.schema.fields().len());
    for (index, (qualifier, field)) in aggregate.schema.iter().enumerate() {
        let grouped = by.get(index).and_then(|expr| Some((plain(expr), key_of(expr)?)));
        let Some((value, key)) = grouped else {
            shown.push(Expr::Column(Column::new(qualifier.cloned(), field.name())));
            continue;
        };
        let name = format!("{TEXT}{index}");
        let one = match key {
            Key::Made => min_udaf(),
            Key::OneFloat => first_value_udaf(),
        };
        let one = AggregateFunction::new_udf(one, vec![value.clone()], false, None, Vec::new(), None);
        calls.push(Expr::AggregateFunction(one).alias(&name));
        let one = Expr::Column(Column::new_unqualified(name));
        let one = match is_set {
            // Rows of a set without this key have none.
            true => {
                let key = Expr::Column(Column::new_unqualified(keyed(value, key).schema_name().to_string()));
                let null = Expr::Literal(ScalarValue::try_from(field.data_type())?, None);
                when(key.is_null(), null).otherwise(one)?
            }
            false => one,
        };
        let value = if marker(field) == Some("jsonb") { jsonb_field(one) } else { one };
        shown.push(value.alias_qualified(qualifier.cloned(), field.name()));
    }
    let made = Aggregate::try_new(input, keys, calls)?;
    Ok(LogicalPlan::Projection(Projection::try_new(shown, Arc::new(LogicalPlan::Aggregate(made)))?))
}

/// Whether `data_type` may stand beside jsonb in a comparison: text that was written without its type, or whose type was lost on its way.
pub(crate) fn is_comparable(data_type: &DataType) -> bool {
    types::is_text(data_type) || *data_type == DataType::Null
}
