//! Ranks within windows: the first n of each group, as `row_number() OVER (PARTITION BY window_end, city ORDER BY total DESC) … WHERE row_number <= 3` asks for them.
//!
//! Only of a window that is over it is known which rows are first, so PARTITION BY names one: an end of a window below, or TUMBLE over the event time.

use std::sync::Arc;

use arrow::{
    compute::SortOptions,
    datatypes::{DataType as ArrowType, Field, Schema, SchemaRef},
};
use datafusion::{
    common::{Column, ScalarValue},
    logical_expr::{
        BinaryExpr, Cast, Expr, Filter, LogicalPlan, Operator, Window as WindowNode, expr::WindowFunction,
        utils::split_conjunction,
    },
};

use super::{
    super::{expression::Expression, rules::Rules},
    Time,
    aggregate::{call_in, delay_of, time_column},
    unsupported,
    windows::{self, Window},
};
use crate::Result;

/// See the module.
#[derive(Debug)]
pub(crate) struct Ranking {
    /// Length of the windows; one microsecond where rows of one moment are one.
    pub(crate) size_us: i64,
    pub(crate) time: Expression,
    /// The column that it is.
    column: Option<usize>,
    /// How far times are behind the watermark at most.
    pub(crate) delay_us: i64,
    /// PARTITION BY, without the window.
    pub(crate) keys: Vec<Expression>,
    pub(crate) order: Vec<(Expression, SortOptions)>,
    pub(crate) ranks: Vec<RankKind>,
    /// So many of the first rows of each part are asked for.
    pub(crate) most: Option<usize>,
    pub(crate) schema: SchemaRef,
    /// Columns that are asked for; of others nothing is kept.
    pub(crate) kept: Vec<usize>,
    /// Columns of the input, then ranks.
    pub(crate) output: SchemaRef,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RankKind {
    /// Rows that are equal in ORDER BY are in the order of all their columns.
    Number,
    Rank,
    Dense,
}

const SHAPE: &str = "write row_number() OVER (PARTITION BY window_end, key ORDER BY value DESC), where window_end is the TUMBLE_END of a subquery, or TUMBLE(time, INTERVAL '…')";

fn function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Some(function),
        Expr::Alias(alias) => function(&alias.expr),
        _ => None,
    }
}

/// All that OVER names.
pub(super) fn exprs(node: &WindowNode) -> Vec<&Expr> {
    let functions = node.window_expr.iter().filter_map(function);
    functions
        .flat_map(|function| {
            let params = &function.params;
            params.partition_by.iter().chain(params.order_by.iter().map(|sort| &sort.expr))
        })
        .collect()
}

/// How many of the first rows of each part a condition leaves, when it is about a row_number() below.
pub(super) fn most_of(filter: &Filter) -> Option<usize> {
    split_conjunction(&filter.predicate).into_iter().filter_map(|part| most_of_part(filter, part)).min()
}

fn most_of_part(filter: &Filter, part: &Expr) -> Option<usize> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = part else { return None };
    let (column, op, bound) = match (number(left), number(right)) {
        (None, Some(bound)) => (column(left)?, *op, bound),
        (Some(bound), None) => (column(right)?, op.swap()?, bound),
        _ => return None,
    };
    let most = match op {
        Operator::LtEq | Operator::Eq => bound,
        Operator::Lt => bound.checked_sub(1)?,
        _ => return None,
    };
    is_row_number(&filter.input, filter.input.schema().maybe_index_of_column(column)?)
        .then(|| usize::try_from(most.max(0)).ok())
        .flatten()
}

fn column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Cast(Cast { expr, .. }) => column(expr),
        _ => None,
    }
}

fn number(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) => match value.cast_to(&ArrowType::Int64).ok()? {
            ScalarValue::Int64(number) if value.data_type().is_integer() => number,
            _ => None,
        },
        Expr::Cast(Cast { expr, .. }) => number(expr),
        _ => None,
    }
}

/// Whether a column of a node is a row_number() of a window function right below.
fn is_row_number(plan: &LogicalPlan, at: usize) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(node) => is_row_number(&node.input, at),
        LogicalPlan::Filter(node) => is_row_number(&node.input, at),
        LogicalPlan::Projection(node) => {
            let plain = node.expr.get(at).map(|expr| expr.clone().unalias_nested().data);
            let below =
                plain.as_ref().and_then(column).and_then(|column| node.input.schema().maybe_index_of_column(column));
            below.is_some_and(|below| is_row_number(&node.input, below))
        }
        LogicalPlan::Window(node) => {
            // Of several ranks one alone does not say which rows are needed.
            let first = at.checked_sub(node.input.schema().fields().len());
            let name = first
                .and_then(|at| node.window_expr.get(at))
                .and_then(function)
                .map(|function| function.fun.name().to_owned());
            node.window_expr.len() == 1 && name.as_deref() == Some("row_number")
        }
        _ => false,
    }
}

impl Ranking {
    /// `times`: columns of the input that are event times; `kept`: those that are asked for; `most`: see [`Ranking::most`].
    pub(super) fn compile(
        rules: &dyn Rules,
        node: &WindowNode,
        times: &[Time],
        kept: Vec<usize>,
        most: Option<usize>,
    ) -> Result<Self> {
        let input = node.input.schema();
        let functions: Vec<&WindowFunction> = node.window_expr.iter().filter_map(function).collect();
        let Some(first) = functions.first() else { return Err(unsupported("OVER (…) cannot be read", SHAPE)) };
        let mut ranks = Vec::new();
        for function in &functions {
            let params = &function.params;
            if params.partition_by != first.params.partition_by || params.order_by != first.params.order_by {
                return Err(unsupported(
                    "two different OVER (…) in one SELECT are not supported in a pipeline",
                    "put one into a subquery",
                ));
            }
            ranks.push(match function.fun.name() {
                "row_number" => RankKind::Number,
                "rank" => RankKind::Rank,
                "dense_rank" => RankKind::Dense,
                name => {
                    return Err(unsupported(
                        format!("{name}() OVER (…) is not supported in a pipeline yet"),
                        "row_number(), rank() and dense_rank() are; aggregate by TUMBLE, HOP, CUMULATE or SESSION",
                    ));
                }
            });
        }
        let parts = &first.params.partition_by;
        let call = call_in(rules, parts)?;
        let (size_us, time, delay_us, at) = match &call {
            Some(call) => {
                let Window::Tumble { size } = call.window else {
                    return Err(unsupported("PARTITION BY a window other than TUMBLE is not supported", SHAPE));
                };
                let time = Expression::of_plan(rules, input, call.time.clone(), "the time of the window")?;
                (
                    size,
                    time,
                    delay_of(call, input, times)?,
                    time_column(&call.time, input, times).map(|time| time.column),
                )
            }
            None => {
                let ends = parts.iter().filter_map(|part| time_column(part, input, times)).filter(|time| time.is_end);
                let Some(end) = ends.min_by_key(|time| time.delay_us) else {
                    return Err(unsupported(
                        "OVER (…) without a window in PARTITION BY is not supported in a pipeline: later rows would change what was given",
                        SHAPE,
                    ));
                };
                let column = Expr::Column(Column::from(input.qualified_field(end.column)));
                (1, Expression::of_plan(rules, input, column, "the end of the window")?, end.delay_us, Some(end.column))
            }
        };
        let is_key = |part: &&Expr| {
            !windows::is_window(part) && windows::end_of(part).is_none_or(|(of, _)| !windows::is_window(of))
        };
        let of_key = |part: &Expr| Expression::of_plan(rules, input, part.clone(), "PARTITION BY");
        let order = first.params.order_by.iter().map(|sort| -> Result<(Expression, SortOptions)> {
            let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
            Ok((Expression::of_plan(rules, input, sort.expr.clone(), "ORDER BY")?, options))
        });
        let stored = |fields: &arrow::datatypes::Fields| {
            let fields = fields.iter().map(|field| field.as_ref().clone().with_nullable(true));
            Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
        };
        Ok(Self {
            size_us,
            time,
            column: at,
            delay_us,
            keys: parts.iter().filter(is_key).map(of_key).collect::<Result<_>>()?,
            order: order.collect::<Result<_>>()?,
            ranks,
            most,
            schema: stored(input.fields()),
            kept,
            output: stored(node.schema.fields()),
        })
    }

    /// The time that its windows go by, as it is after it waited for the end of its window. Other times may have waited longer.
    pub(super) fn waited(&self, time: Time) -> Option<Time> {
        let waited = self.delay_us.saturating_add(self.size_us).saturating_sub(1);
        (Some(time.column) == self.column).then_some(Time { delay_us: waited, ..time })
    }

    pub(super) fn describe(&self) -> String {
        let all = |of: Vec<String>| of.join(", ");
        let keys = all(self.keys.iter().map(Expression::describe).collect());
        let order = all(self.order.iter().map(|(expression, _)| expression.describe()).collect());
        let most = self.most.map_or_else(String::new, |most| format!(", the first {most}"));
        format!(
            "Ranks: windows of {} microseconds of {}, parts [{keys}], by [{order}]{most}",
            self.size_us,
            self.time.describe()
        )
    }
}
