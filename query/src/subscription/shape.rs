//! What can be subscribed to, and whether the changes of its tables' rows tell the changes of its result.

use std::sync::Arc;

use datafusion::{
    catalog::cte_worktable::CteWorkTable,
    common::tree_node::{TreeNode, TreeNodeRecursion},
    datasource::source_as_provider,
    logical_expr::{Expr, LogicalPlan, TableScan, Volatility, expr::ScalarFunction},
};
use tidemill_storage::{schema::TableSchema, table::TableSnapshot};

use super::counts::can_be_compared;
use crate::{Plan, SqlError, TableHandle, functions::rows::relation::is_series, table::StoredTable};

/// A table that a subscription is told of.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) handle: TableHandle,
    /// As it was when the query was planned.
    planned: Arc<TableSchema>,
}

impl Watched {
    /// What is there now, by the names that the plan has for its columns.
    pub(crate) fn snapshot(&self) -> TableSnapshot {
        let snapshot = self.handle.table.snapshot();
        if snapshot.schema.version == self.planned.version {
            return snapshot;
        }
        let mut schema = snapshot.schema.as_ref().clone();
        for column in &mut schema.columns {
            if let Some(known) = self.planned.column(column.id) {
                column.name.clone_from(&known.name);
            }
        }
        TableSnapshot { schema: Arc::new(schema), ..snapshot }
    }
}

/// The tables that a subscription is told of. 0A000 when its result may change although they do not: by the clock, by chance, or because it reads
/// what tells nobody of its changes.
pub(crate) fn tables(plan: &Plan) -> Result<Vec<Watched>, SqlError> {
    if plan.write.is_some() || plan.explain.is_some() {
        return Err(SqlError::syntax("SUBSCRIBE takes a query: SELECT, VALUES or TABLE"));
    }
    let mut tables: Vec<Watched> = Vec::new();
    let mut refused = None;
    plan.logical.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            match stored(scan) {
                Some(table) if tables.iter().all(|known| known.handle.table.id() != table.handle.table.id()) => {
                    tables.push(table);
                }
                Some(_) => {}
                None if is_constant(scan) => {}
                None => {
                    refused = Some(
                        SqlError::not_supported(format!("SUBSCRIBE to {}", scan.table_name.table())).with_hint(
                            "It tells nobody of its changes: ask it with SELECT from time to time. SUBSCRIBE reads tables, and views of them.",
                        ),
                    );
                }
            }
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && let Some(name) = unsteady(call)
                {
                    refused = Some(
                        SqlError::not_supported(format!("SUBSCRIBE to a query with {name}()")).with_hint(
                            "Its result would change by itself, without a change of a row. Send what it gives as a parameter or a constant, and subscribe again \
                             when that is to change.",
                        ),
                    );
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if let Some(field) = plan.schema.fields().iter().find(|field| !can_be_compared(field.data_type())) {
        let what = format!("SUBSCRIBE to column \"{}\" of type {}", field.name(), field.data_type());
        return Err(SqlError::not_supported(what).with_hint("Its values cannot be compared: cast it to TEXT."));
    }
    match refused {
        Some(refused) => Err(refused),
        None => Ok(tables),
    }
}

fn stored(scan: &TableScan) -> Option<Watched> {
    let provider = source_as_provider(&scan.source).ok()?;
    let stored = provider.downcast_ref::<StoredTable>()?;
    Some(Watched { handle: stored.handle().clone(), planned: Arc::clone(stored.planned_schema()) })
}

fn is_constant(scan: &TableScan) -> bool {
    source_as_provider(&scan.source)
        .is_ok_and(|provider| is_series(provider.as_ref()) || provider.downcast_ref::<CteWorkTable>().is_some())
}

/// The name of a function that gives something else at another time, all its arguments being the same.
fn unsteady(call: &ScalarFunction) -> Option<&str> {
    let name = call.func.name();
    let by_clock = matches!(name, "now" | "localtimestamp" | "current_date") || name == "age" && call.args.len() == 1;
    let volatile = call.func.signature().volatility == Volatility::Volatile && name != "tidemill_nullable";
    (by_clock || volatile).then_some(name)
}

/// Whether the result over some rows and the result over others are together the result over all of them: then rows that came and rows that
/// went are all that is to be read.
pub(crate) fn is_linear(logical: &LogicalPlan) -> bool {
    let mut linear = true;
    let walked = logical.apply_with_subqueries(|node| {
        linear &= match node {
            LogicalPlan::TableScan(scan) => scan.fetch.is_none() && stored(scan).is_some(),
            LogicalPlan::Sort(sort) => sort.fetch.is_none(),
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Unnest(_) => true,
            _ => false,
        };
        node.apply_expressions(|expr| {
            linear &= !expr.exists(|expr| {
                Ok(matches!(
                    expr,
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)
                ))
            })?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if linear { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && linear
}
