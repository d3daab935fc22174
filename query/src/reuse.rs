//! The optimized plan of a statement, kept for its next execution.
//!
//! It is kept when optimizing it again could not give another plan, or none that matters:
//!
//! - it reads stored tables only: what other tables give is found while planning;
//! - no function in it has another answer each time and would be evaluated by the optimizer: `now()` would stand still. A call over a
//!   column is evaluated when the plan runs, whatever it is;
//! - its parameters are compared with something in a condition, or are its LIMIT. There a value changes nothing but itself;
//!   `x = $1 + 1` wants the optimizer to add first, and `date_trunc('day', x) = $1` to find the range of `x`.
//!
//! Whether a condition is left to the scan is decided for every value of the parameter's type at once
//! ([`pushdown::takes`](crate::table::pushdown::takes)); the scan refuses the rare value for which that was wrong, such as NULL.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{
    common::{
        ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::source_as_provider,
    error::DataFusionError,
    logical_expr::{
        EmptyRelation, Expr, FetchType, LogicalPlan, Operator, TableScan, Volatility,
        expr::{Between, BinaryExpr, InList, Placeholder},
    },
};
use parking_lot::Mutex;
use tidemill_storage::ids::TableId;

use crate::{execution::States, functions::cast, lookup::KeyLookup, rules::rounded_times::rounds, table::StoredTable};

/// The optimized plan of one statement, or that there is none to keep; made when it is first wanted under a version of the settings.
#[derive(Debug, Default)]
pub(crate) struct Reusable(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    /// Of the settings.
    version: u64,
    optimized: Option<Arc<LogicalPlan>>,
    lookup: Option<Arc<KeyLookup>>,
}

impl Reusable {
    pub(crate) fn optimized(
        &self,
        logical: &LogicalPlan,
        states: &States,
    ) -> Result<Option<Arc<LogicalPlan>>, DataFusionError> {
        if let Some(kept) = self.0.lock().as_ref().filter(|kept| kept.version == states.version) {
            return Ok(kept.optimized.clone());
        }
        let optimized = match may_be_kept(logical)? {
            true => Some(Arc::new(states.full.optimize(logical)?)),
            false => None,
        };
        let lookup = optimized.as_ref().filter(|_| states.looks_up).and_then(|plan| KeyLookup::of(plan)).map(Arc::new);
        *self.0.lock() = Some(Kept { version: states.version, optimized: optimized.clone(), lookup });
        Ok(optimized)
    }

    /// The look-up that the statement is, once its plan was made.
    pub(crate) fn lookup(&self, version: u64) -> Option<Arc<KeyLookup>> {
        self.0.lock().as_ref().filter(|kept| kept.version == version)?.lookup.clone()
    }
}

/// A scan was planned to take a condition on a parameter, and the value is none that it can take.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the value is none that the kept plan can take")]
pub(crate) struct Refused;

impl Refused {
    pub(crate) fn error() -> DataFusionError {
        DataFusionError::External(Box::new(Self))
    }
}

pub(crate) fn is_refused(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::External(inner) if inner.is::<Refused>())
}

/// The kept plan with its parameters replaced.
pub(crate) fn bound(kept: &Arc<LogicalPlan>, values: &[ScalarValue]) -> Result<LogicalPlan, DataFusionError> {
    let plan = kept.as_ref().clone();
    if values.is_empty() {
        return Ok(plan);
    }
    let literal = |expr: Expr| {
        expr.transform_up(|expr| match &expr {
            Expr::Placeholder(placeholder) => match number(placeholder).and_then(|number| values.get(number - 1)) {
                Some(value) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
                None => Err(DataFusionError::Plan(format!("there is no parameter {}", placeholder.id))),
            },
            _ => Ok(Transformed::no(expr)),
        })
    };
    // Only nodes whose columns have their names from elsewhere have parameters.
    let bound = plan.transform_up_with_subqueries(|node| match has_places(&node) {
        true => node.map_expressions(literal)?.transform_data(without_rows),
        false => Ok(Transformed::no(node)),
    })?;
    Ok(bound.data)
}

/// `LIMIT $1` of 0, which the optimizer has not seen, as no rows: operators that keep the first of all rows want one row at least.
fn without_rows(node: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let LogicalPlan::Limit(limit) = &node else { return Ok(Transformed::no(node)) };
    Ok(match limit.get_fetch_type()? {
        FetchType::Literal(Some(0)) => {
            let schema = Arc::clone(limit.input.schema());
            Transformed::yes(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema }))
        }
        _ => Transformed::no(node),
    })
}

/// `$n` as n, from 1.
pub(crate) fn number(placeholder: &Placeholder) -> Option<usize> {
    placeholder.id.strip_prefix('$')?.parse().ok().filter(|number| *number > 0)
}

/// Nodes in which parameters are replaced without changing the names and types of what comes out.
fn has_places(node: &LogicalPlan) -> bool {
    matches!(node, LogicalPlan::Filter(_) | LogicalPlan::TableScan(_) | LogicalPlan::Join(_) | LogicalPlan::Limit(_))
}

/// Whether all that `logical` reads are stored tables.
pub(crate) fn reads_stored_tables(logical: &LogicalPlan) -> bool {
    let mut stored = true;
    let walked = logical.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            stored &= is_stored(scan);
        }
        // What table functions and the like become.
        stored &= !matches!(node, LogicalPlan::Extension(_));
        Ok(if stored { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && stored
}

/// The stored tables that `logical` reads, each once.
pub(crate) fn stored_tables(logical: &LogicalPlan) -> BTreeSet<TableId> {
    let mut tables = BTreeSet::new();
    // Nothing in it fails.
    let _ = logical.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(stored) = provider.downcast_ref::<StoredTable>()
        {
            tables.insert(stored.handle().table.id());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    tables
}

fn is_stored(scan: &TableScan) -> bool {
    source_as_provider(&scan.source).is_ok_and(|provider| provider.downcast_ref::<StoredTable>().is_some())
}

fn may_be_kept(logical: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut kept = true;
    logical.apply_with_subqueries(|node| {
        kept &= match node {
            LogicalPlan::TableScan(scan) => is_stored(scan),
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_) => true,
            _ => false,
        };
        let is_condition = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::TableScan(_));
        node.apply_expressions(|expr| {
            kept = kept
                && match (node, expr) {
                    (LogicalPlan::Limit(_), Expr::Placeholder(_)) => true,
                    _ => lasts(expr)? && places(expr, is_condition)?,
                };
            Ok(if kept { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })?;
        Ok(if kept { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(kept)
}

/// Whether evaluating `expr` in part while optimizing gives what evaluating it later would.
fn lasts(expr: &Expr) -> Result<bool, DataFusionError> {
    let mut lasts = true;
    expr.apply(|expr| {
        if let Expr::ScalarFunction(call) = expr
            && call.func.signature().volatility != Volatility::Immutable
            && !call.args.iter().any(|arg| arg.any_column_refs())
            && !cast::is_timeless(call)
        {
            lasts = false;
        }
        Ok(if lasts { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(lasts)
}

/// Whether all parameters of `expr` are sides of comparisons, in a condition.
fn places(expr: &Expr, is_condition: bool) -> Result<bool, DataFusionError> {
    let (mut all, mut good) = (0usize, 0usize);
    let open = |expr: &Expr| usize::from(matches!(expr, Expr::Placeholder(_)));
    expr.apply(|expr| {
        all += open(expr);
        good += match expr {
            // Their ranges are other ones for other values.
            Expr::BinaryExpr(BinaryExpr { left, right, .. }) if rounds(left) || rounds(right) => 0,
            Expr::Between(Between { expr, .. }) | Expr::InList(InList { expr, .. }) if rounds(expr) => 0,
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => open(left) + open(right),
            Expr::Between(Between { expr, low, high, .. }) => open(expr) + open(low) + open(high),
            Expr::InList(InList { list, .. }) => list.iter().map(open).sum(),
            _ => 0,
        };
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(all == 0 || (is_condition && all == good))
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}
