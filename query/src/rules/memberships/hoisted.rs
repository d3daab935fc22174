//! Subqueries in aggregates, windows, ORDER BY and the conditions of outer joins: columns that a projection below gives. Those of an inner join's condition
//! become a filter above it. And what grouping sets are sets of, when that is more than columns.

use std::sync::Arc;

use datafusion::{
    common::{
        Column,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        Aggregate, Expr, Filter, JoinType, LogicalPlan, Projection, Subquery,
        expr::{Exists, InSubquery, SetComparison},
        expr_rewriter::NamePreserver,
        utils::{conjunction, grouping_set_to_exprlist, split_conjunction_owned},
    },
};

use super::{Names, is_membership};

/// The columns that stand for subqueries.
const HOISTED: &str = "\u{1}hoisted";

/// Puts them where they can be planned.
pub(in crate::rules) fn hoist(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let mut names = Names { count: 0 };
    let hoisted = plan.transform_up_with_subqueries(|node| {
        let mut asks = false;
        node.apply_expressions(|expr| {
            asks |= has_subquery(expr);
            Ok(TreeNodeRecursion::Continue)
        })?;
        let node = match node {
            LogicalPlan::Aggregate(aggregate) => sets(aggregate)?,
            other => Transformed::no(other),
        };
        if !asks {
            return Ok(node);
        }
        node.transform_data(|node| match node {
            LogicalPlan::Aggregate(_) | LogicalPlan::Sort(_) | LogicalPlan::Window(_) => below(node, &mut names),
            LogicalPlan::Join(_) => join(node, &mut names),
            LogicalPlan::Filter(_) | LogicalPlan::Projection(_) => compared(node, &mut names),
            other => Ok(Transformed::no(other)),
        })
    })?;
    if !hoisted.transformed {
        return Ok(hoisted.data);
    }
    let plan = hoisted.data.transform_up_with_subqueries(|node| node.recompute_schema().map(Transformed::yes))?;
    Ok(plan.data)
}

fn is_subquery(expr: &Expr) -> bool {
    is_membership(expr) || matches!(expr, Expr::ScalarSubquery(_))
}

fn has_subquery(expr: &Expr) -> bool {
    let mut found = false;
    let _ = expr.apply(|expr| {
        found |= is_subquery(expr);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// Expressions of grouping sets as columns of a projection below: a set is known by its columns, whatever becomes of the expressions.
fn sets(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let [Expr::GroupingSet(_)] = aggregate.group_expr.as_slice() else {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let keys = grouping_set_to_exprlist(&aggregate.group_expr)?;
    let keys: Vec<Expr> = keys.into_iter().filter(|key| !matches!(key, Expr::Column(_))).cloned().collect();
    if keys.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let mut items: Vec<Expr> = aggregate.input.schema().columns().into_iter().map(Expr::Column).collect();
    let mut made: Vec<(Expr, Expr)> = Vec::new();
    for key in keys {
        if made.iter().all(|(known, _)| *known != key) {
            let name = key.schema_name().to_string();
            items.push(key.clone().unalias().alias(&name));
            made.push((key, Expr::Column(Column::new_unqualified(name))));
        }
    }
    let column = |expr: Expr| match made.iter().find(|(key, _)| *key == expr) {
        Some((_, column)) => Transformed::new(column.clone(), true, TreeNodeRecursion::Jump),
        None => Transformed::no(expr),
    };
    let group_expr =
        aggregate.group_expr.into_iter().map(|expr| Ok(expr.transform_down(|expr| Ok(column(expr)))?.data));
    let group_expr = group_expr.collect::<Result<Vec<_>, DataFusionError>>()?;
    let aggr_expr = aggregate.aggr_expr.into_iter().map(|expr| {
        // GROUPING names its sets' columns.
        let is_grouping = |expr: &Expr| matches!(expr, Expr::AggregateFunction(call) if call.func.name() == "grouping");
        let changed = expr.transform_down(|expr| match is_grouping(&expr) {
            true => expr.map_children(|argument| argument.transform_down(|expr| Ok(column(expr)))),
            false => Ok(Transformed::no(expr)),
        })?;
        Ok(changed.data)
    });
    let aggr_expr = aggr_expr.collect::<Result<Vec<_>, DataFusionError>>()?;
    let input = LogicalPlan::Projection(Projection::try_new(items, aggregate.input)?);
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), group_expr, aggr_expr)?)))
}

/// A filter or a projection, with the subqueries that others are compared with in a projection below: `(SELECT …) IN (SELECT …)`.
fn compared(node: LogicalPlan, names: &mut Names) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let inputs = node.inputs();
    let [input] = inputs.as_slice() else { return Ok(Transformed::no(node)) };
    let input = (*input).clone();
    let shown = node.schema().columns();
    let is_filter = matches!(node, LogicalPlan::Filter(_));
    let mut items: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let before = items.len();
    let preserved = NamePreserver::new(&node);
    let mut column = |expr: Box<Expr>| {
        if !has_subquery(&expr) {
            return expr;
        }
        let column = Column::new_unqualified(names.next(HOISTED));
        items.push(expr.alias(&column.name));
        Box::new(Expr::Column(column))
    };
    let changed = node.map_expressions(|expr| {
        let saved = preserved.save(&expr);
        let replaced = expr.transform_up(|expr| {
            Ok(match expr {
                Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                    Transformed::yes(Expr::InSubquery(InSubquery { expr: column(expr), subquery, negated }))
                }
                Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                    Transformed::yes(Expr::SetComparison(SetComparison {
                        expr: column(expr),
                        subquery,
                        op,
                        quantifier,
                    }))
                }
                other => Transformed::no(other),
            })
        })?;
        Ok(replaced.update_data(|expr| saved.restore(expr)))
    })?;
    if items.len() == before {
        return Ok(changed);
    }
    let projected = LogicalPlan::Projection(Projection::try_new(items, Arc::new(input))?);
    let node = changed.data.map_children(|_| Ok(Transformed::yes(projected.clone())))?.data.recompute_schema()?;
    Ok(Transformed::yes(match is_filter {
        true => {
            let columns = shown.into_iter().map(Expr::Column).collect();
            LogicalPlan::Projection(Projection::try_new(columns, Arc::new(node))?)
        }
        false => node,
    }))
}

/// A node of one input, with its subqueries in a projection of that.
fn below(node: LogicalPlan, names: &mut Names) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let inputs = node.inputs();
    let [input] = inputs.as_slice() else { return Ok(Transformed::no(node)) };
    let input = (*input).clone();
    let shown = node.schema().columns();
    let shows_input = matches!(node, LogicalPlan::Sort(_) | LogicalPlan::Window(_));
    let mut items: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let mut found: Vec<(Expr, Column)> = Vec::new();
    let preserved = NamePreserver::new(&node);
    let changed = node.map_expressions(|expr| {
        let saved = preserved.save(&expr);
        let replaced = expr.transform_down(|expr| {
            if !is_subquery(&expr) {
                return Ok(Transformed::no(expr));
            }
            let column = match found.iter().find(|(known, _)| *known == expr) {
                Some((_, column)) => column.clone(),
                None => {
                    let column = Column::new_unqualified(names.next(HOISTED));
                    items.push(expr.clone().alias(&column.name));
                    found.push((expr, column.clone()));
                    column
                }
            };
            Ok(Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Jump))
        })?;
        Ok(replaced.update_data(|expr| saved.restore(expr)))
    })?;
    let projected = Arc::new(LogicalPlan::Projection(Projection::try_new(items, Arc::new(input))?));
    let node =
        changed.data.map_children(|_| Ok(Transformed::yes(projected.as_ref().clone())))?.data.recompute_schema()?;
    Ok(Transformed::yes(match shows_input {
        true => {
            let columns = shown.into_iter().map(Expr::Column).collect();
            LogicalPlan::Projection(Projection::try_new(columns, Arc::new(node))?)
        }
        false => node,
    }))
}

/// The columns of the row outside that a subquery refers to, and those that are compared with it.
fn outside(expr: &Expr) -> Vec<Column> {
    let (subquery, compared): (&Subquery, Option<&Expr>) = match expr {
        Expr::ScalarSubquery(subquery) | Expr::Exists(Exists { subquery, .. }) => (subquery, None),
        Expr::InSubquery(InSubquery { expr, subquery, .. })
        | Expr::SetComparison(SetComparison { expr, subquery, .. }) => (subquery, Some(expr)),
        _ => return Vec::new(),
    };
    let referred = subquery.outer_ref_columns.iter().filter_map(|expr| match expr {
        Expr::OuterReferenceColumn(_, column) => Some(column.clone()),
        _ => None,
    });
    referred.chain(compared.into_iter().flat_map(|expr| expr.column_refs().into_iter().cloned())).collect()
}

fn join(node: LogicalPlan, names: &mut Names) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let LogicalPlan::Join(mut join) = node else { return Ok(Transformed::no(node)) };
    let Some(filter) = join.filter.take() else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
    if join.join_type == JoinType::Inner {
        let (asking, others): (Vec<Expr>, Vec<Expr>) =
            split_conjunction_owned(filter).into_iter().partition(has_subquery);
        join.filter = conjunction(others);
        let joined = LogicalPlan::Join(join).recompute_schema()?;
        return Ok(Transformed::yes(match conjunction(asking) {
            Some(asking) => LogicalPlan::Filter(Filter::try_new(asking, Arc::new(joined))?),
            None => joined,
        }));
    }
    let shown = join.schema.columns();
    let columns = |plan: &LogicalPlan| plan.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
    let (mut left, mut right) = (columns(&join.left), columns(&join.right));
    let filter = filter.transform_down(|expr| {
        if !is_subquery(&expr) {
            return Ok(Transformed::no(expr));
        }
        let needed = outside(&expr);
        let side = if needed.iter().all(|column| join.right.schema().has_column(column)) {
            &mut right
        } else if needed.iter().all(|column| join.left.schema().has_column(column)) {
            &mut left
        } else {
            return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
        };
        let column = Column::new_unqualified(names.next(HOISTED));
        side.push(expr.alias(&column.name));
        Ok(Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Jump))
    })?;
    join.filter = Some(filter.data);
    if !filter.transformed {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    join.left = Arc::new(LogicalPlan::Projection(Projection::try_new(left, Arc::clone(&join.left))?));
    join.right = Arc::new(LogicalPlan::Projection(Projection::try_new(right, Arc::clone(&join.right))?));
    let joined = LogicalPlan::Join(join).recompute_schema()?;
    let columns = shown.into_iter().map(Expr::Column).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(joined))?)))
}
