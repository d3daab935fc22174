//! The nodes of a subquery on top of the side that it refers to.

use std::{cell::Cell, sync::Arc};

use datafusion::{
    common::{
        Column, NullHandling, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    functions_window::row_number::row_number_udwf,
    logical_expr::{
        Aggregate, EmptyRelation, Expr, FetchType, Filter, JoinType, Limit, LogicalPlan, LogicalPlanBuilder,
        Projection, SkipType, Sort, SortExpr, Unnest, WindowFunctionDefinition,
        expr::{Case, ScalarFunction, WindowFunction},
    },
};

use super::{is_correlated, renamed};
use crate::functions::rows;

/// What the left side's columns are called while the right side's are made.
const OUTER: &str = "\u{1}outer";
/// The number of a row of the left side.
const NUMBER: &str = "\u{1}number";
/// The place of a row of the right side among those of its row of the left side.
const PLACE: &str = "\u{1}place";
/// Columns of a relation below its alias.
const UNDER: &str = "\u{1}under";
/// Column that is NULL where a row of the left side has none on the right.
pub(super) const PRESENT: &str = "\u{1}present";

/// Which rows of the left side are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Keeps {
    /// Those that have rows on the right side.
    Matches,
    /// All; rows of the right side that a filter drops are gone.
    Left,
    /// All, one row each: the right side is an aggregate.
    Groups,
}

/// The left side, and how its rows are kept.
pub(super) struct Side<'a> {
    left: &'a [Column],
    outer: Vec<Expr>,
    keeps: Keeps,
    numbered: bool,
    /// Relations with an alias so far.
    under: Cell<usize>,
}

pub(super) struct Attached {
    pub(super) plan: LogicalPlan,
    /// Whether there is a column [`PRESENT`].
    pub(super) present: bool,
}

type Step<T> = Result<Option<T>, DataFusionError>;

pub(super) fn outer_column(index: usize) -> Column {
    Column::new_unqualified(format!("{OUTER}{index}"))
}

fn own(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// Whether rows of the left side must be told apart: for a limit or an aggregate of each.
pub(super) fn needs_number(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut needs = false;
    plan.apply(|node| {
        needs |= matches!(node, LogicalPlan::Limit(_) | LogicalPlan::Aggregate(_));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(needs)
}

fn row_number(partition_by: Vec<Expr>, order_by: Vec<SortExpr>) -> Expr {
    let mut call = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::new());
    call.params.partition_by = partition_by;
    call.params.order_by = order_by;
    Expr::WindowFunction(Box::new(call))
}

fn projected(items: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    Ok(LogicalPlan::Projection(Projection::try_new(items, Arc::new(input))?))
}

impl<'a> Side<'a> {
    pub(super) fn new(left: &'a [Column], keeps: Keeps, numbered: bool) -> Self {
        let mut outer: Vec<Expr> = (0..left.len()).map(|index| Expr::Column(outer_column(index))).collect();
        if numbered {
            outer.push(own(NUMBER));
        }
        Self { left, outer, keeps, numbered, under: Cell::new(0) }
    }

    /// The left side under names of our own.
    pub(super) fn base(&self, left: &Arc<LogicalPlan>) -> Result<LogicalPlan, DataFusionError> {
        let mut items: Vec<Expr> = self
            .left
            .iter()
            .enumerate()
            .map(|(index, column)| Expr::Column(column.clone()).alias(outer_column(index).name))
            .collect();
        if !self.numbered {
            return projected(items, left.as_ref().clone());
        }
        let number = row_number(Vec::new(), Vec::new());
        let name = number.schema_name().to_string();
        let numbered = LogicalPlanBuilder::from(left.as_ref().clone()).window(vec![number])?.build()?;
        items.push(own(&name).alias(NUMBER));
        projected(items, numbered)
    }

    /// `node` on top of `base`. The columns are those of the left side, then those of `node`.
    pub(super) fn attach(&self, node: &LogicalPlan, base: LogicalPlan) -> Step<Attached> {
        Ok(match node {
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema })
                if schema.fields().is_empty() =>
            {
                Some(self.one_row(base)?)
            }
            LogicalPlan::Projection(projection) => {
                let Some(below) = self.attach(&projection.input, base)? else { return Ok(None) };
                let mut items = self.carried(below.present);
                for expr in &projection.expr {
                    let Some(expr) = self.resolved(expr)? else { return Ok(None) };
                    items.push(expr);
                }
                below.map(|plan| projected(items, plan))?
            }
            LogicalPlan::Filter(filter) => self.filtered(filter, base)?,
            LogicalPlan::SubqueryAlias(alias) => {
                // Below it stand names that are nobody's: the optimizer moves parts of expressions (members of JSON) down past
                // the alias, where `value` and `e.value` would meet in one projection.
                let under = self.under.replace(self.under.get() + 1);
                let under = |index: usize| Column::new_unqualified(format!("{UNDER}{under}_{index}"));
                let Some(below) = self.attach(&renamed(&alias.input, under)?, base)? else { return Ok(None) };
                let mut items = self.carried(below.present);
                items.extend(alias.input.schema().fields().iter().enumerate().map(|(index, field)| {
                    Expr::Column(under(index)).alias_qualified(Some(alias.alias.clone()), field.name())
                }));
                below.map(|plan| projected(items, plan))?
            }
            // The first relation of a FROM, which has none before it there.
            LogicalPlan::Subquery(subquery) => self.attach(&subquery.subquery, base)?,
            LogicalPlan::Unnest(unnest) => {
                let Some(below) = self.attach(&unnest.input, base)? else { return Ok(None) };
                Some(self.unnested(unnest, below.plan)?)
            }
            // The rows of a relation have no order; a limit sees to its own.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.attach(&sort.input, base)?,
            LogicalPlan::Limit(limit) if self.keeps != Keeps::Groups => self.limited(limit, base)?,
            LogicalPlan::Aggregate(aggregate) if self.keeps == Keeps::Groups => self.grouped(aggregate, base)?,
            other if self.keeps == Keeps::Matches && !is_correlated(other)? => {
                let plan = LogicalPlanBuilder::from(base).cross_join(other.clone())?.build()?;
                Some(Attached { plan, present: false })
            }
            _ => None,
        })
    }

    fn one_row(&self, base: LogicalPlan) -> Result<Attached, DataFusionError> {
        if self.keeps != Keeps::Groups {
            return Ok(Attached { plan: base, present: false });
        }
        let mut items = self.outer.clone();
        items.push(Expr::Literal(ScalarValue::Int64(Some(1)), None).alias(PRESENT));
        Ok(Attached { plan: projected(items, base)?, present: true })
    }

    fn filtered(&self, filter: &Filter, base: LogicalPlan) -> Step<Attached> {
        let Some(predicate) = self.resolved(&filter.predicate)? else { return Ok(None) };
        if self.keeps == Keeps::Left {
            // A plain relation with a condition is an outer join.
            if is_correlated(&filter.input)? || matches!(filter.input.as_ref(), LogicalPlan::EmptyRelation(_)) {
                return Ok(None);
            }
            let mut items: Vec<Expr> = filter.input.schema().columns().into_iter().map(Expr::Column).collect();
            items.push(Expr::Literal(ScalarValue::Int64(Some(1)), None).alias(PRESENT));
            let right = projected(items, filter.input.as_ref().clone())?;
            let plan = LogicalPlanBuilder::from(base).join_on(right, JoinType::Left, [predicate])?.build()?;
            return Ok(Some(Attached { plan, present: true }));
        }
        let Some(below) = self.attach(&filter.input, base)? else { return Ok(None) };
        if self.keeps == Keeps::Matches {
            return below.map(|plan| Ok(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?)));
        }
        // What an aggregate does not count.
        let mut items = self.outer.clone();
        let present = Case::new(None, vec![(Box::new(predicate), Box::new(own(PRESENT)))], None);
        items.push(Expr::Case(present).alias(PRESENT));
        items.extend(filter.input.schema().columns().into_iter().map(Expr::Column));
        below.map(|plan| projected(items, plan))
    }

    fn unnested(&self, unnest: &Unnest, below: LogicalPlan) -> Result<Attached, DataFusionError> {
        let mut options = unnest.options.clone();
        let mut columns = unnest.exec_columns.clone();
        let mut below = below;
        let keeps_all = self.keeps != Keeps::Matches;
        if keeps_all {
            let lists = columns.iter().cloned().map(Expr::Column).collect();
            let mut ordinals = Expr::ScalarFunction(ScalarFunction::new_udf(rows::ordinals_udf(), lists));
            let known = below.schema().columns();
            if let Some(present) = known.iter().find(|column| column.name == PRESENT) {
                // A row that is not there has no items.
                let present = Expr::Column(present.clone()).is_not_null();
                ordinals = Expr::Case(Case::new(None, vec![(Box::new(present), Box::new(ordinals))], None));
            }
            let others = known.into_iter().filter(|column| column.name != PRESENT);
            let mut items: Vec<Expr> = others.map(Expr::Column).collect();
            items.insert(self.outer.len().min(items.len()), ordinals.alias(PRESENT));
            below = projected(items, below)?;
            columns.push(Column::new_unqualified(PRESENT));
            options = options.with_null_handling(NullHandling::PreserveAndExpandEmpty);
        }
        let plan = LogicalPlan::Unnest(Unnest::try_new(Arc::new(below), columns, options)?);
        Ok(Attached { plan, present: keeps_all })
    }

    /// The first rows of each row of the left side.
    fn limited(&self, limit: &Limit, base: LogicalPlan) -> Step<Attached> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Ok(None);
        };
        // A row of the left side that has no partner stands first, and would be skipped.
        if self.keeps == Keeps::Left && (skip > 0 || fetch == Some(0)) {
            return Ok(None);
        }
        let input = match limit.input.as_ref() {
            // What is shown of sorted rows is shown of the first of them.
            LogicalPlan::Projection(projection) if matches!(projection.input.as_ref(), LogicalPlan::Sort(_)) => {
                let first = LogicalPlan::Limit(Limit { input: Arc::clone(&projection.input), ..limit.clone() });
                return self.attach(&projected(projection.expr.clone(), first)?, base);
            }
            other => other,
        };
        let (sorted, by) = match input {
            LogicalPlan::Sort(Sort { expr, input, .. }) => (input.as_ref(), expr.clone()),
            other => (other, Vec::new()),
        };
        let Some(below) = self.attach(sorted, base)? else { return Ok(None) };
        let mut order_by = Vec::with_capacity(by.len());
        for sort in by {
            let Some(expr) = self.resolved(&sort.expr)? else { return Ok(None) };
            order_by.push(SortExpr { expr: expr.unalias(), ..sort });
        }
        let place = row_number(vec![own(NUMBER)], order_by);
        let name = place.schema_name().to_string();
        let mut items = self.carried(below.present);
        items.extend(sorted.schema().columns().into_iter().map(Expr::Column));
        below.map(|plan| {
            let placed = LogicalPlanBuilder::from(plan).window(vec![place])?.build()?;
            let mut with_place = items.clone();
            with_place.push(own(&name).alias(PLACE));
            let whole = |number: usize| {
                Expr::Literal(ScalarValue::UInt64(Some(u64::try_from(number).unwrap_or(u64::MAX))), None)
            };
            let mut condition = own(PLACE).gt(whole(skip));
            if let Some(fetch) = fetch {
                condition = condition.and(own(PLACE).lt_eq(whole(skip.saturating_add(fetch))));
            }
            let first = Filter::try_new(condition, Arc::new(projected(with_place, placed)?))?;
            projected(items, LogicalPlan::Filter(first))
        })
    }

    /// One row for each row of the left side.
    fn grouped(&self, aggregate: &Aggregate, base: LogicalPlan) -> Step<Attached> {
        if !aggregate.group_expr.is_empty() {
            return Ok(None);
        }
        let Some(below) = self.attach(&aggregate.input, base)? else { return Ok(None) };
        if !below.present {
            return Ok(None);
        }
        let mut calls = Vec::new();
        let mut items = self.outer.clone();
        for expr in &aggregate.aggr_expr {
            let name = expr.schema_name().to_string();
            let Some(resolved) = self.resolved(expr)? else { return Ok(None) };
            let Expr::AggregateFunction(mut call) = resolved.unalias() else { return Ok(None) };
            let present = own(PRESENT).is_not_null();
            call.params.filter = Some(Box::new(match call.params.filter.take() {
                Some(filter) => present.and(*filter),
                None => present,
            }));
            let call = Expr::AggregateFunction(call);
            items.push(own(&call.schema_name().to_string()).alias(name));
            calls.push(call);
        }
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(below.plan), self.outer.clone(), calls)?);
        Ok(Some(Attached { plan: projected(items, plan)?, present: false }))
    }

    fn carried(&self, present: bool) -> Vec<Expr> {
        let mut items = self.outer.clone();
        if present {
            items.push(own(PRESENT));
        }
        items
    }

    /// `expr` with its outer references as columns of the left side. `None`: it refers further out, or has subqueries.
    fn resolved(&self, expr: &Expr) -> Step<Expr> {
        let mut unknown = false;
        let resolved = expr.clone().transform_up(|expr| {
            Ok(match expr {
                Expr::OuterReferenceColumn(_, column) => match self.left.iter().position(|known| *known == column) {
                    Some(index) => Transformed::yes(Expr::Column(outer_column(index))),
                    None => {
                        unknown = true;
                        Transformed::no(Expr::Column(column))
                    }
                },
                Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
                    unknown = true;
                    Transformed::no(expr)
                }
                other => Transformed::no(other),
            })
        })?;
        // The name that others know the expression by is that of before.
        let name = expr.schema_name().to_string();
        let resolved = match resolved.transformed && !matches!(expr, Expr::Alias(_)) {
            true => resolved.data.alias(name),
            false => resolved.data,
        };
        Ok((!unknown).then_some(resolved))
    }
}

impl Attached {
    fn map(self, change: impl FnOnce(LogicalPlan) -> Result<LogicalPlan, DataFusionError>) -> Step<Self> {
        Ok(Some(Self { plan: change(self.plan)?, present: self.present }))
    }
}
