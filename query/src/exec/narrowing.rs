//! Filters that a plan makes while it runs, for the scans below.
//!
//! A top-k knows that a row must beat the last of its k rows, a hash join that its keys must lie among those of the other side.
//! DataFusion keeps such knowledge in expressions whose value changes ([`DynamicFilterPhysicalExpr`]) and offers them to the leaves. Here
//! they become conditions that segments understand. What is not understood is left out: a scan may give more rows than
//! the filter lets pass, never fewer.

use std::sync::Arc;

use datafusion::{
    common::ScalarValue,
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, CaseExpr, DynamicFilterPhysicalExpr, Literal},
    },
};
use parking_lot::Mutex;
use tidemill_storage::{
    predicate::Predicate,
    scan::{Narrowing, ScanRequest},
};

use crate::table::{
    physical::{logical, stored_column},
    pushdown,
};

/// All filters that one scan was offered.
#[derive(Debug)]
pub(super) struct DynamicFilters {
    filters: Vec<Arc<dyn PhysicalExpr>>,
    /// What the columns of the filters mean.
    request: Arc<ScanRequest>,
    /// The condition of a version, shared by the lanes.
    known: Mutex<Option<(u64, Option<Arc<Predicate>>)>>,
}

impl DynamicFilters {
    pub(super) fn new(filters: Vec<Arc<dyn PhysicalExpr>>, request: Arc<ScanRequest>) -> Self {
        Self { filters, request, known: Mutex::new(None) }
    }

    pub(super) fn filters(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.filters
    }
}

/// Whether the value of `filter` changes while the plan runs.
pub(super) fn is_dynamic(filter: &Arc<dyn PhysicalExpr>) -> bool {
    filter.downcast_ref::<DynamicFilterPhysicalExpr>().is_some()
}

impl Narrowing for DynamicFilters {
    fn version(&self) -> u64 {
        self.filters.iter().fold(0, |sum, filter| sum.wrapping_add(filter.snapshot_generation()))
    }

    fn condition(&self) -> Option<Arc<Predicate>> {
        let version = self.version();
        let mut known = self.known.lock();
        if let Some((of, condition)) = known.as_ref()
            && *of == version
        {
            return condition.clone();
        }
        let conditions: Vec<Predicate> =
            self.filters.iter().filter_map(|filter| wider(filter, &self.request)).collect();
        let condition = match conditions.len() {
            0 => None,
            _ => Some(Arc::new(Predicate::And(conditions))),
        };
        *known = Some((version, condition.clone()));
        condition
    }
}

/// A predicate that is TRUE wherever `expr` is; `None` when only "always" would do.
fn wider(expr: &Arc<dyn PhysicalExpr>, request: &ScanRequest) -> Option<Predicate> {
    if let Some(dynamic) = expr.downcast_ref::<DynamicFilterPhysicalExpr>() {
        return wider(&dynamic.current().ok()?, request);
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return match literal.value() {
            ScalarValue::Boolean(Some(true)) => None,
            _ => Some(never()),
        };
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let (left, right) = (binary.left(), binary.right());
        match binary.op() {
            Operator::And => {
                let sides = [wider(left, request), wider(right, request)];
                let sides: Vec<Predicate> = sides.into_iter().flatten().collect();
                return if sides.is_empty() { None } else { Some(Predicate::And(sides)) };
            }
            Operator::Or => return any([wider(left, request), wider(right, request)]),
            // Which lets nothing pass, whatever the column is.
            Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
                if is_null(left) || is_null(right) =>
            {
                let column = stored_column(left, request).or_else(|| stored_column(right, request));
                return column.map(|_| never());
            }
            _ => {}
        }
    }
    // Rows of a join are dealt to its lanes by a hash: whichever lane has the row, one of the branches holds.
    if let Some(case) = expr.downcast_ref::<CaseExpr>() {
        let branches = case.when_then_expr().iter().map(|(_, then)| wider(then, request));
        let otherwise = case.else_expr().map_or(Some(never()), |other| wider(other, request));
        return any(branches.chain([otherwise]));
    }
    pushdown::predicate(&logical(expr, request)?, &request.schema, None)
}

fn any(branches: impl IntoIterator<Item = Option<Predicate>>) -> Option<Predicate> {
    let mut all = Vec::new();
    for branch in branches {
        match branch? {
            Predicate::Or(children) => all.extend(children),
            other => all.push(other),
        }
    }
    Some(Predicate::Or(all))
}

/// An OR of nothing.
fn never() -> Predicate {
    Predicate::Or(Vec::new())
}

fn is_null(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Literal>().is_some_and(|literal| literal.value().is_null())
}

#[cfg(test)]
mod tests;
