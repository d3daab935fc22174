//! LIMIT in subqueries that refer to the row outside: each row outside has its own first rows. DataFusion would count the rows of all.
//!
//! ```text
//! Limit: skip=s, fetch=n                          Projection: y
//!   Sort: y                                         Filter: k = outer(t.k)
//!     Projection: y                        ⇒          Filter: number > s AND number <= s + n
//!       Filter: k = outer(t.k) AND rest                 Window: row_number() PARTITION BY k ORDER BY y AS number
//!         u                                               Projection: y, k
//!                                                           Filter: rest
//!                                                             u
//! ```
//!
//! So for conditions that are equalities alone: the rows that one of them is for have one value of `k`, and are numbered apart.

use std::sync::Arc;

use datafusion::{
    common::{
        Column, DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    functions_window::expr_fn::row_number,
    logical_expr::{
        BinaryExpr, Expr, ExprFunctionExt, FetchType, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
        SkipType, Subquery,
        expr::{InSubquery, SetComparison},
        lit,
        utils::split_conjunction_owned,
    },
};

use super::{Names, is_membership, limits_correlated, subquery_of};

/// The columns that rows outside are told apart by, and the numbers of rows.
const KEY: &str = "\u{1}key";
const NUMBER: &str = "\u{1}number";

/// `expr`, a membership, of a subquery whose rows are numbered where LIMIT counts those of a row outside.
pub(super) fn settle(expr: Expr, names: &mut Names) -> Result<Transformed<Expr>, DataFusionError> {
    let mut settled = |subquery: Subquery| -> Result<Subquery, DataFusionError> {
        if !limits_correlated(&subquery.subquery)? {
            return Ok(subquery);
        }
        let plan = Arc::unwrap_or_clone(subquery.subquery).transform_down(|node| match &node {
            LogicalPlan::Limit(limit) => Ok(match numbered(limit, names)? {
                Some(plan) => Transformed::yes(plan),
                None => Transformed::no(node),
            }),
            // Conditions on the row outside cannot leave a relation in FROM.
            LogicalPlan::SubqueryAlias(_) => Ok(Transformed::new(node, false, TreeNodeRecursion::Jump)),
            _ => Ok(Transformed::no(node)),
        })?;
        Ok(subquery_of(plan.data))
    };
    Ok(match expr {
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            Transformed::yes(Expr::InSubquery(InSubquery::new(expr, settled(subquery)?, negated)))
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
            let subquery = settled(subquery)?;
            Transformed::yes(Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }))
        }
        other => Transformed::no(other),
    })
}

fn numbered(limit: &Limit, names: &mut Names) -> Result<Option<LogicalPlan>, DataFusionError> {
    let skip = match limit.get_skip_type()? {
        SkipType::Literal(skip) => i64::try_from(skip).unwrap_or(i64::MAX),
        SkipType::UnsupportedExpr => return Ok(None),
    };
    let last = match limit.get_fetch_type()? {
        FetchType::Literal(fetch) => fetch.map(|fetch| i64::try_from(fetch).unwrap_or(i64::MAX).saturating_add(skip)),
        FetchType::UnsupportedExpr => return Ok(None),
    };
    // A select list above ORDER BY has as many rows.
    let mut heads: Vec<&Projection> = Vec::new();
    let mut below = limit.input.as_ref();
    while let LogicalPlan::Projection(projection) = below
        && matches!(projection.input.as_ref(), LogicalPlan::Projection(_) | LogicalPlan::Sort(_))
        && !projection.expr.iter().any(|expr| expr.contains_outer())
    {
        heads.push(projection);
        below = &projection.input;
    }
    let (order, below) = match below {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => (sort.expr.clone(), sort.input.as_ref()),
        other => (Vec::new(), other),
    };
    let Some((plan, pairs)) = keyed(below, names)? else { return Ok(None) };
    if pairs.is_empty() || order.iter().any(|by| by.expr.contains_outer()) {
        return Ok(None);
    }
    let keys = pairs.iter().map(|(key, _)| Expr::Column(key.clone())).collect();
    let name = names.next(NUMBER);
    let mut number = row_number().partition_by(keys);
    if !order.is_empty() {
        number = number.order_by(order);
    }
    let place = Expr::Column(Column::new_unqualified(&name));
    let mut plan = LogicalPlanBuilder::from(plan).window([number.build()?.alias(&name)])?;
    if skip > 0 {
        plan = plan.filter(place.clone().gt(lit(skip)))?;
    }
    if let Some(last) = last {
        plan = plan.filter(place.lt_eq(lit(last)))?;
    }
    for (key, outside) in pairs {
        plan = plan.filter(Expr::Column(key).eq(outside))?;
    }
    for head in heads.into_iter().rev() {
        plan = plan.project(head.expr.clone())?;
    }
    let columns = limit.input.schema().columns().into_iter().map(Expr::Column);
    Ok(Some(plan.project(columns)?.build()?))
}

/// A column and what of the row outside it is equal to.
type Pair = (Column, Expr);

/// `plan` without its conditions on the row outside, with the columns that these are about. `None` where it refers to that row in another way.
fn keyed(plan: &LogicalPlan, names: &mut Names) -> Result<Option<(LogicalPlan, Vec<Pair>)>, DataFusionError> {
    if plan.all_out_ref_exprs().is_empty() {
        return Ok(Some((plan.clone(), Vec::new())));
    }
    match plan {
        LogicalPlan::Filter(filter) => {
            let Some((input, mut pairs)) = keyed(&filter.input, names)? else { return Ok(None) };
            let (mut kept, mut keys) = (Vec::new(), Vec::new());
            for part in split_conjunction_owned(filter.predicate.clone()) {
                if !part.contains_outer() && !refers(&part) {
                    kept.push(part);
                    continue;
                }
                let Some((inside, outside)) = equality(part, filter.input.schema()) else { return Ok(None) };
                let name = names.next(KEY);
                keys.push(inside.alias(&name));
                pairs.push((Column::new_unqualified(name), outside));
            }
            let mut plan = LogicalPlanBuilder::from(input);
            for part in kept {
                plan = plan.filter(part)?;
            }
            let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).chain(keys).collect();
            Ok(Some((plan.project(columns)?.build()?, pairs)))
        }
        LogicalPlan::Projection(projection)
            if !projection.expr.iter().any(|expr| expr.contains_outer() || refers(expr)) =>
        {
            let Some((input, pairs)) = keyed(&projection.input, names)? else { return Ok(None) };
            let keys = pairs.iter().map(|(key, _)| Expr::Column(key.clone()));
            let items: Vec<Expr> = projection.expr.iter().cloned().chain(keys).collect();
            Ok(Some((LogicalPlanBuilder::from(input).project(items)?.build()?, pairs)))
        }
        _ => Ok(None),
    }
}

/// Whether there is a subquery in it that refers to anything outside of itself.
fn refers(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(is_membership(expr) || matches!(expr, Expr::ScalarSubquery(_)))).unwrap_or(true)
}

/// The side of an equality that is of the rows inside, and the one that is of the row outside.
fn equality(part: Expr, inside: &DFSchema) -> Option<(Expr, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = part else { return None };
    let is_inside = |expr: &Expr| {
        !expr.contains_outer()
            && !refers(expr)
            && !expr.is_volatile()
            && expr.any_column_refs()
            && expr.column_refs().iter().all(|column| inside.has_column(column))
    };
    let is_outside = |expr: &Expr| expr.contains_outer() && !refers(expr) && !expr.any_column_refs();
    match (is_inside(&left), is_outside(&right), is_inside(&right), is_outside(&left)) {
        (true, true, ..) => Some((*left, *right)),
        (_, _, true, true) => Some((*right, *left)),
        _ => None,
    }
}
