//! Queries of WITH that are named more than once and give other rows each time that they run: these run once, and all see the same rows.
//!
//! ```text
//! WITH x AS (SELECT random() AS r) SELECT … FROM x, x AS y
//!
//! SubqueryAlias: x     (once for each name)           SubqueryAlias: x
//!   Projection: random() AS r                   ⇒       Shared: 7                        one number for all
//!                                                         Projection: random() AS r
//! ```
//!
//! DataFusion puts a copy of the query in the place of each name. What gives the same rows whenever it runs in a statement stays so: each copy then reads
//! only what its place needs. While a statement is planned the query is the node's input. The optimizer is not shown it, since it would fit it to one
//! place ([`Seal`]); it optimizes it alone when the first of the places is planned for execution ([`shared`](crate::exec::shared)).

use std::{
    cmp::Ordering,
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, atomic::AtomicU64},
};

use datafusion::{
    catalog::cte_worktable::CteWorkTable,
    common::{
        DFSchema, DFSchemaRef,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::source_as_provider,
    error::DataFusionError,
    logical_expr::{Expr, Extension, LogicalPlan, SubqueryAlias, UserDefinedLogicalNodeCore},
    optimizer::{OptimizerConfig, OptimizerRule},
};

use super::gapfill::GapFill;

/// Numbers of shared queries, never given twice.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A query that runs once in an execution, wherever else it stands.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// The same at all its places.
    pub(crate) id: u64,
    pub(crate) query: Arc<LogicalPlan>,
    /// Whether the query is hidden from whoever walks the plan.
    is_sealed: bool,
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.is_sealed == other.is_sealed && self.query == other.query
    }
}

impl Eq for Shared {}

impl PartialOrd for Shared {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other { Some(Ordering::Equal) } else { None }
    }
}

impl Hash for Shared {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for Shared {
    fn name(&self) -> &'static str {
        "Shared"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        if self.is_sealed { Vec::new() } else { vec![&self.query] }
    }

    fn schema(&self) -> &DFSchemaRef {
        self.query.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Shared: {}", self.id)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self, DataFusionError> {
        let query = inputs.pop().map_or_else(|| Arc::clone(&self.query), Arc::new);
        Ok(Self { id: self.id, query, is_sealed: self.is_sealed })
    }
}

/// Marks the queries that are to run once. Of a plan as SqlToRel gives it: there the copies of a query have one schema, the same in memory, and others
/// have one of their own.
pub(crate) fn share(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let mut places: HashMap<*const DFSchema, usize> = HashMap::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::SubqueryAlias(named) = node {
            *places.entry(Arc::as_ptr(&named.schema)).or_default() += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    places.retain(|_, places| *places > 1);
    if places.is_empty() {
        return Ok(plan);
    }
    let mut ids: HashMap<*const DFSchema, Option<u64>> = HashMap::new();
    let marked = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::SubqueryAlias(named) if places.contains_key(&Arc::as_ptr(&named.schema)) => {
            let id = match ids.get(&Arc::as_ptr(&named.schema)) {
                Some(id) => *id,
                None => {
                    let id = runs_once(&named.input)?.then(|| NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
                    ids.insert(Arc::as_ptr(&named.schema), id);
                    id
                }
            };
            let Some(id) = id else { return Ok(Transformed::no(LogicalPlan::SubqueryAlias(named))) };
            let node = Arc::new(Shared { id, query: named.input, is_sealed: false });
            let input = Arc::new(LogicalPlan::Extension(Extension { node }));
            Ok(Transformed::yes(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(input, named.alias)?)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(marked.data)
}

/// Whether `query` gives other rows each time, and the same ones wherever it stands: nothing in it is of the row beside it, or of a round of a
/// recursion.
fn runs_once(query: &LogicalPlan) -> Result<bool, DataFusionError> {
    let (mut is_volatile, mut is_bound) = (false, false);
    query.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            is_volatile |= expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })?;
        if let LogicalPlan::TableScan(scan) = node {
            is_bound |= source_as_provider(&scan.source).is_ok_and(|table| table.is::<CteWorkTable>());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    // References of its own subqueries to itself are none to the outside.
    query.apply(|node| {
        is_bound |= node.contains_outer_reference();
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(is_volatile && !is_bound)
}

/// Hides from the rules after it the queries that run once, and those whose gaps are filled where a condition above could be moved below: one that names no key
/// would then choose among groups, not rows.
#[derive(Debug)]
pub(crate) struct Seal;

impl OptimizerRule for Seal {
    fn name(&self) -> &'static str {
        "seal_shared_queries"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        let mut is_volatile = false;
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Filter(filter) = node {
                is_volatile |= filter.predicate.is_volatile();
            }
            Ok(if is_volatile { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        plan.transform_down_with_subqueries(|node| {
            let LogicalPlan::Extension(Extension { node: extension }) = &node else { return Ok(Transformed::no(node)) };
            if let Some(shared) = extension.as_any().downcast_ref::<Shared>()
                && !shared.is_sealed
            {
                let node = Arc::new(Shared { is_sealed: true, ..shared.clone() });
                return Ok(Transformed::yes(LogicalPlan::Extension(Extension { node })));
            }
            if let Some(fill) = extension.as_any().downcast_ref::<GapFill>()
                && !fill.is_sealed
                && (is_volatile || fill.keys.is_empty())
            {
                let node = Arc::new(fill.sealed());
                return Ok(Transformed::yes(LogicalPlan::Extension(Extension { node })));
            }
            Ok(Transformed::no(node))
        })
    }
}
