//! EXISTS, IN, ANY and ALL of subqueries, with three answers: true, false and unknown.
//!
//! DataFusion turns those that stand alone in WHERE into joins, and knows two answers elsewhere. So in a condition they stay as they are where that is
//! what they mean; all others become EXISTS, which has two answers:
//!
//! | written | planned as |
//! |---|---|
//! | `x IN (SELECT y …)` as a value | `CASE WHEN EXISTS (… WHERE y = x) THEN true WHEN EXISTS (… WHERE (y = x) IS NULL) THEN NULL ELSE false END` |
//! | `WHERE x NOT IN (SELECT y …)`, correlated or of a constant | `WHERE NOT EXISTS (… WHERE (y = x) IS NOT FALSE)` |
//! | `x < ANY (…)`, `x < ALL (…)` | the same of `x < y`, of `NOT x < y` |
//! | `EXISTS (SELECT …)` of one row whatever there is | `true` |
//! | `EXISTS (… HAVING c)` of one row at most | `(SELECT c …) IS TRUE` |
//! | `EXISTS (… OFFSET n)` | `(SELECT count(*) …) > n` |
//! | EXISTS of nothing outside | `(SELECT count(*) FROM (… LIMIT 1)) > 0` |
//! | any other EXISTS in the select list | the mark of a join, see [`marks`] |
//!
//! LIMIT for each row outside becomes a condition on numbers of rows ([`limits`]). In all other nodes subqueries become columns of a projection below ([`hoisted`]).

mod hoisted;
mod limits;
mod marks;

use std::sync::Arc;

use datafusion::{
    common::{
        Column, DFSchema, ExprSchema, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    functions_aggregate::count::count_udaf,
    logical_expr::{
        Aggregate, BinaryExpr, Distinct, Expr, FetchType, Filter, Limit, LogicalPlan, Operator, Projection, SkipType,
        Subquery,
        expr::{AggregateFunction, Case, Exists, InSubquery, SetComparison, SetQuantifier},
        lit,
        utils::{conjunction, split_conjunction_owned},
    },
};

pub(super) use hoisted::hoist;

use crate::SqlError;

/// The columns that subqueries give to what is compared with them.
const ITEM: &str = "\u{1}item";

/// Makes all of them what DataFusion plans rightly. [`hoist`] comes before.
pub(super) fn unfold(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let mut asks = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            asks |= has_membership(expr);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if !asks {
        return Ok(plan);
    }
    let mut names = Names { count: 0 };
    let plan = plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| expr.transform_up(|expr| limits::settle(expr, &mut names)))
    })?;
    let unfolded = plan.data.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Filter(filter) if has_membership(&filter.predicate) => {
            let mut conditions = Vec::new();
            for part in split_conjunction_owned(filter.predicate) {
                let part = condition(part, filter.input.schema(), &mut names)?;
                conditions.extend(split_conjunction_owned(part));
            }
            let columns = filter.input.schema().columns();
            let mut input = filter.input;
            let mut marked = false;
            for part in &mut conditions {
                if refers_from_relation(part) {
                    *part = marks::mark(part.clone(), &mut input, &mut names)?;
                    marked = true;
                }
            }
            let Some(predicate) = conjunction(conditions) else {
                return Ok(Transformed::no(input.as_ref().clone()));
            };
            let filtered = LogicalPlan::Filter(Filter::try_new(predicate, input)?);
            Ok(Transformed::yes(match marked {
                true => {
                    let columns = columns.into_iter().map(Expr::Column).collect();
                    LogicalPlan::Projection(Projection::try_new(columns, Arc::new(filtered))?)
                }
                false => filtered,
            }))
        }
        LogicalPlan::Projection(projection) if projection.expr.iter().any(has_membership) => {
            let mut input = projection.input;
            let mut items = Vec::with_capacity(projection.expr.len());
            let before = Arc::clone(input.schema());
            for (expr, (qualifier, field)) in projection.expr.into_iter().zip(projection.schema.iter()) {
                if !has_membership(&expr) {
                    items.push(expr);
                    continue;
                }
                let valued = value(expr, &before, &mut names)?;
                let marked = marks::mark(valued, &mut input, &mut names)?;
                items.push(match marked {
                    Expr::Alias(_) => marked,
                    other => other.alias_qualified(qualifier.cloned(), field.name()),
                });
            }
            Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(items, input)?)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    // Nodes above were made for columns that may have been null, or not.
    let plan = unfolded.data.transform_up_with_subqueries(|node| node.recompute_schema().map(Transformed::yes))?;
    Ok(plan.data)
}

/// Names that nobody else gives.
struct Names {
    count: usize,
}

impl Names {
    fn next(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}{}", self.count)
    }
}

fn is_membership(expr: &Expr) -> bool {
    matches!(expr, Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_))
}

fn has_membership(expr: &Expr) -> bool {
    let mut found = false;
    let _ = expr.apply(|expr| {
        found |= is_membership(expr);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// Whether a relation in FROM of a subquery refers to the row outside: DataFusion loses the columns that it adds to such a relation.
fn refers_from_relation(expr: &Expr) -> bool {
    let mut found = false;
    let _ = expr.apply(|expr| {
        if let Expr::Exists(Exists { subquery, .. }) = expr {
            found |= has_referring_relation(&subquery.subquery);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn has_referring_relation(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply(|node| {
        found |= matches!(node, LogicalPlan::SubqueryAlias(alias) if !alias.input.all_out_ref_exprs().is_empty());
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// `expr` where rows pass for which it is true: unknown is as good as false.
fn condition(expr: Expr, schema: &DFSchema, names: &mut Names) -> Result<Expr, DataFusionError> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let left = positive(*left, schema, names)?;
            let right = positive(*right, schema, names)?;
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        }
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                condition(Expr::InSubquery(InSubquery { expr, subquery, negated: !negated }), schema, names)?
            }
            Expr::Exists(Exists { subquery, negated }) => exists(subquery, !negated)?,
            // (a, b) IN (…)
            Expr::Case(case) if answers(&case, true) => none_of(case, schema, names)?,
            other => value(Expr::Not(Box::new(other)), schema, names)?,
        },
        Expr::Case(case) if answers(&case, false) => none_of(case, schema, names)?,
        // DataFusion's join that knows of nulls compares a column, and nothing else.
        Expr::InSubquery(InSubquery { expr, subquery, negated: true })
            if !is_correlated(&subquery) && expr.any_column_refs() && is_plain(&expr) =>
        {
            one_column(&subquery)?;
            Expr::InSubquery(InSubquery { expr, subquery: selected(subquery)?, negated: true })
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated: true }) if !is_one_row(&subquery) => {
            let sought = Sought::new(*expr, Operator::Eq, subquery, schema, names)?;
            sought.exists(|equal| Expr::IsNotFalse(Box::new(equal)), true)?
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier: SetQuantifier::All })
            if !is_one_row(&subquery) =>
        {
            let sought = Sought::new(*expr, op, subquery, schema, names)?;
            sought.exists(|holds| Expr::IsNotTrue(Box::new(holds)), true)?
        }
        other => positive(other, schema, names)?,
    })
}

/// `expr` where unknown is as good as false, below AND and OR too.
fn positive(expr: Expr, schema: &DFSchema, names: &mut Names) -> Result<Expr, DataFusionError> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let left = positive(*left, schema, names)?;
            let right = positive(*right, schema, names)?;
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated: false })
            if is_plain(&expr)
                && !is_one_row(&subquery)
                && !selects_outside(&subquery.subquery)
                && !has_referring_relation(&subquery.subquery) =>
        {
            one_column(&subquery)?;
            Expr::InSubquery(InSubquery { expr, subquery: selected(subquery)?, negated: false })
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated: false }) if !is_one_row(&subquery) => {
            Sought::new(*expr, Operator::Eq, subquery, schema, names)?.exists(|equal| equal, false)?
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier: SetQuantifier::Any })
            if !is_one_row(&subquery) =>
        {
            Sought::new(*expr, op, subquery, schema, names)?.exists(|holds| holds, false)?
        }
        Expr::Case(case) if answers(&case, true) => match case.when_then_expr.into_iter().next() {
            Some((found, _)) => positive(*found, schema, names)?,
            None => lit(false),
        },
        other => value(other, schema, names)?,
    })
}

/// Whether it is `CASE WHEN EXISTS … THEN true WHEN EXISTS … THEN NULL ELSE false END`, or the same with `found` for true.
fn answers(case: &Case, found: bool) -> bool {
    let is = |expr: &Expr, value: Option<bool>| match expr {
        Expr::Literal(ScalarValue::Boolean(known), _) => *known == value,
        Expr::Literal(ScalarValue::Null, _) => value.is_none(),
        _ => false,
    };
    let exists = |expr: &Expr| matches!(expr, Expr::Exists(_));
    matches!(
        case.when_then_expr.as_slice(),
        [(first, one), (second, other)]
            if exists(first) && exists(second) && is(one, Some(found)) && is(other, None)
    ) && case.expr.is_none()
        && case.else_expr.as_deref().is_some_and(|otherwise| is(otherwise, Some(!found)))
}

/// That none of the conditions of `case` holds.
fn none_of(case: Case, schema: &DFSchema, names: &mut Names) -> Result<Expr, DataFusionError> {
    let mut parts = Vec::with_capacity(case.when_then_expr.len());
    for (when, _) in case.when_then_expr {
        parts.push(condition(Expr::Not(when), schema, names)?);
    }
    Ok(conjunction(parts).unwrap_or_else(|| lit(true)))
}

/// `expr` with its memberships as values of three answers.
fn value(expr: Expr, schema: &DFSchema, names: &mut Names) -> Result<Expr, DataFusionError> {
    let valued = expr.transform_up(|expr| {
        Ok(Transformed::yes(match expr {
            Expr::Exists(Exists { subquery, negated }) => exists(subquery, negated)?,
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                Sought::new(*expr, Operator::Eq, subquery, schema, names)?.value(negated)?
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => match (quantifier, op.negate()) {
                (SetQuantifier::Any, _) => Sought::new(*expr, op, subquery, schema, names)?.value(false)?,
                (SetQuantifier::All, Some(op)) => Sought::new(*expr, op, subquery, schema, names)?.value(true)?,
                (SetQuantifier::All, None) => return Err(refused("ALL with this operator")),
            },
            other => return Ok(Transformed::no(other)),
        }))
    })?;
    Ok(valued.data)
}

/// Whether DataFusion may take it for a side of a join.
fn is_plain(expr: &Expr) -> bool {
    let mut plain = true;
    let _ = expr.apply(|expr| {
        plain &= !is_membership(expr) && !matches!(expr, Expr::ScalarSubquery(_) | Expr::OuterReferenceColumn(..));
        Ok(TreeNodeRecursion::Continue)
    });
    plain
}

fn one_column(subquery: &Subquery) -> Result<(), DataFusionError> {
    match subquery.subquery.schema().fields().len() {
        1 => Ok(()),
        0 => Err(SqlError::syntax("subquery has too few columns").into()),
        _ => Err(SqlError::syntax("subquery has too many columns").into()),
    }
}

/// `subquery` with a projection at its head, which DataFusion wants.
fn selected(subquery: Subquery) -> Result<Subquery, DataFusionError> {
    if matches!(subquery.subquery.as_ref(), LogicalPlan::Projection(_)) {
        return Ok(subquery);
    }
    let columns = subquery.subquery.schema().columns().into_iter().map(Expr::Column).collect();
    let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::clone(&subquery.subquery))?);
    Ok(Subquery { subquery: Arc::new(plan), ..subquery })
}

fn is_correlated(subquery: &Subquery) -> bool {
    !subquery.outer_ref_columns.is_empty()
}

/// `subquery` with relations in FROM that refer to the row outside as plain relations. Beside others they may refer to those, and stay.
fn inlined(subquery: Subquery) -> Result<Subquery, DataFusionError> {
    let plan = Arc::unwrap_or_clone(subquery.subquery).transform_down(|node| {
        Ok(match node {
            LogicalPlan::Subquery(inner) => Transformed::yes(Arc::unwrap_or_clone(inner.subquery)),
            LogicalPlan::Join(join) => Transformed::new(LogicalPlan::Join(join), false, TreeNodeRecursion::Jump),
            other => Transformed::no(other),
        })
    })?;
    Ok(Subquery { subquery: Arc::new(plan.data), ..subquery })
}

fn subquery_of(plan: LogicalPlan) -> Subquery {
    let outer_ref_columns = plan.all_out_ref_exprs();
    Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Default::default() }
}

fn refused(what: &str) -> DataFusionError {
    SqlError::not_supported(what.to_owned()).into()
}

// ---- what is sought in a subquery -----------------------------------------------------------------------------------------

/// `sought op item`, sought among the items of a subquery.
struct Sought {
    /// What is sought, in the words of the query outside.
    outside: Expr,
    /// The comparison with [`ITEM`], in the words of the subquery.
    holds: Expr,
    op: Operator,
    item: Expr,
    /// Of the items.
    plan: LogicalPlan,
    correlated: bool,
}

impl Sought {
    fn new(
        sought: Expr,
        op: Operator,
        subquery: Subquery,
        schema: &DFSchema,
        names: &mut Names,
    ) -> Result<Self, DataFusionError> {
        one_column(&subquery)?;
        let subquery = inlined(subquery)?;
        let inside = sought.clone().transform_up(|expr| match expr {
            Expr::Column(column) => {
                let field = Arc::clone(schema.field_from_column(&column)?);
                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        let correlated = is_correlated(&subquery);
        let (item, plan) = match unordered(subquery.subquery.as_ref()) {
            // What is of the row outside can be no column.
            LogicalPlan::Projection(head) if head.expr.iter().any(Expr::contains_outer) => {
                let item = head.expr.first().cloned().unwrap_or_else(|| lit(ScalarValue::Null));
                (item.unalias(), head.input.as_ref().clone())
            }
            plan => {
                let name = names.next(ITEM);
                let columns = plan.schema().columns().into_iter();
                let items = columns.map(|column| Expr::Column(column).alias(&name)).collect();
                let named = Projection::try_new(items, Arc::new(plan.clone()))?;
                (Expr::Column(Column::new_unqualified(name)), LogicalPlan::Projection(named))
            }
        };
        let holds = Expr::BinaryExpr(BinaryExpr::new(Box::new(inside.data), op, Box::new(item.clone())));
        Ok(Self { outside: sought, holds, op, item, plan, correlated })
    }

    /// Whether there is an item of which `of(comparison)` is true.
    fn exists(&self, of: impl FnOnce(Expr) -> Expr, negated: bool) -> Result<Expr, DataFusionError> {
        self.some(of(self.holds.clone()), negated)
    }

    fn some(&self, condition: Expr, negated: bool) -> Result<Expr, DataFusionError> {
        let plan = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(self.plan.clone()))?);
        exists(subquery_of(plan), negated)
    }

    /// True when an item is found, unknown when one may be, else false; the other way round when `negated`.
    fn value(self, negated: bool) -> Result<Expr, DataFusionError> {
        if self.correlated && gives_one(&self.plan) && !self.item.contains_outer() {
            let only = Box::new(Expr::ScalarSubquery(subquery_of(self.plan)));
            let holds = Expr::BinaryExpr(BinaryExpr::new(Box::new(self.outside), self.op, only));
            return Ok(if negated { Expr::Not(Box::new(holds)) } else { holds });
        }
        let null = |expr: &Expr| Expr::IsNull(Box::new(expr.clone()));
        let found = self.exists(|holds| holds, false)?;
        let maybe = match self.correlated {
            true => self.exists(|holds| Expr::IsNull(Box::new(holds)), false)?,
            // Two questions whose answers are the same for all rows outside.
            false => {
                let any = exists(subquery_of(self.plan.clone()), false)?;
                self.some(null(&self.item), false)?.or(null(&self.outside).and(any))
            }
        };
        let unknown = Expr::Literal(ScalarValue::Boolean(None), None);
        Ok(Expr::Case(Case {
            expr: None,
            when_then_expr: vec![(Box::new(found), Box::new(lit(!negated))), (Box::new(maybe), Box::new(unknown))],
            else_expr: Some(Box::new(lit(negated))),
        }))
    }
}

/// `plan` without an order or repetitions that do not matter.
fn unordered(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => unordered(&sort.input),
        LogicalPlan::Distinct(Distinct::All(input)) => unordered(input),
        other => other,
    }
}

// ---- EXISTS -----------------------------------------------------------------------------------------------------------------

fn is_one_row(subquery: &Subquery) -> bool {
    is_correlated(subquery) && gives_one(&subquery.subquery) && !selects_outside(&subquery.subquery)
}

/// Whether the select list has columns of the row outside.
fn selects_outside(plan: &LogicalPlan) -> bool {
    matches!(unordered(plan), LogicalPlan::Projection(head) if head.expr.iter().any(Expr::contains_outer))
}

/// Whether there is just one row whatever there is.
fn gives_one(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => gives_one(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one(&alias.input),
        LogicalPlan::Sort(sort) => sort.fetch.is_none() && gives_one(&sort.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        _ => false,
    }
}

/// Whether `subquery` has rows, as an expression that is true or false.
fn exists(subquery: Subquery, negated: bool) -> Result<Expr, DataFusionError> {
    let subquery = inlined(subquery)?;
    let plan = row_source(&subquery.subquery);
    let answer = |truth: Expr| if negated { Expr::Not(Box::new(truth)) } else { truth };
    match plan {
        plan if gives_one(plan) => return Ok(lit(!negated)),
        LogicalPlan::Limit(limit) => match (limit.get_fetch_type()?, limit.get_skip_type()?) {
            (FetchType::Literal(Some(0)), _) => return Ok(lit(negated)),
            (FetchType::Literal(_), SkipType::Literal(0)) => {
                return exists(subquery_of(limit.input.as_ref().clone()), negated);
            }
            (FetchType::Literal(_), SkipType::Literal(skipped)) => {
                let skipped = i64::try_from(skipped).unwrap_or(i64::MAX);
                let count = counted(Arc::new(row_source(&limit.input).clone()))?;
                return Ok(answer(count.gt(lit(skipped))));
            }
            _ => {}
        },
        LogicalPlan::Filter(filter) if gives_one(&filter.input) => {
            let holds = Box::new(of_one_row(filter)?);
            return Ok(if negated { Expr::IsNotTrue(holds) } else { Expr::IsTrue(holds) });
        }
        _ => {}
    }
    let subquery = subquery_of(plan.clone());
    if !is_correlated(&subquery) {
        let limit = Limit { skip: None, fetch: Some(Box::new(lit(1i64))), input: Arc::clone(&subquery.subquery) };
        return Ok(answer(counted(Arc::new(LogicalPlan::Limit(limit)))?.gt(lit(0i64))));
    }
    if limits_correlated(plan)? {
        return Err(refused("a correlated subquery with LIMIT in this place"));
    }
    Ok(Expr::Exists(Exists { subquery, negated }))
}

/// The condition of `filter`, whose input is one row, in the words of the query outside.
fn of_one_row(filter: &Filter) -> Result<Expr, DataFusionError> {
    let scalar = |item: Expr| -> Result<Expr, DataFusionError> {
        let head = Projection::try_new(vec![item.alias(ITEM)], Arc::clone(&filter.input))?;
        Ok(Expr::ScalarSubquery(subquery_of(LogicalPlan::Projection(head))))
    };
    if !filter.predicate.contains_outer() {
        return scalar(filter.predicate.clone());
    }
    let outside = filter.predicate.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(_) => Transformed::new(scalar(expr)?, true, TreeNodeRecursion::Jump),
            Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
            other => Transformed::no(other),
        })
    })?;
    Ok(outside.data)
}

/// `plan` without what gives as many rows, or none where it has none.
fn row_source(plan: &LogicalPlan) -> &LogicalPlan {
    match unordered(plan) {
        LogicalPlan::Projection(projection) => row_source(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => row_source(&alias.input),
        LogicalPlan::Distinct(Distinct::On(distinct)) => row_source(&distinct.input),
        other => other,
    }
}

fn counted(input: Arc<LogicalPlan>) -> Result<Expr, DataFusionError> {
    let call = AggregateFunction::new_udf(count_udaf(), vec![lit(1i64)], false, None, Vec::new(), None);
    let calls = vec![Expr::AggregateFunction(call)];
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(input, Vec::new(), calls)?);
    Ok(Expr::ScalarSubquery(subquery_of(plan)))
}

/// Whether rows are counted below what refers to the row outside: DataFusion forgets that count.
fn limits_correlated(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut found = false;
    plan.apply(|node| {
        if let LogicalPlan::Limit(limit) = node {
            found |= !limit.input.all_out_ref_exprs().is_empty();
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
