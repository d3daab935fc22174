//! Which result columns are columns of a table, for RowDescription.

use datafusion::{common::Column, datasource::source_as_provider, logical_expr::LogicalPlan};

use crate::{
    plan::{ColumnOrigin, passed_column},
    table::{StoredTable, returned::ReturnedTable},
};

/// One entry per column of the plan's output.
pub(crate) fn of(plan: &LogicalPlan) -> Vec<Option<ColumnOrigin>> {
    plan.schema().iter().map(|(qualifier, field)| find(plan, &Column::new(qualifier.cloned(), field.name()))).collect()
}

/// Follows the column down through nodes that pass it on.
fn find(plan: &LogicalPlan, column: &Column) -> Option<ColumnOrigin> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(column)?;
            find(&projection.input, passed_column(projection.expr.get(index)?)?)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.maybe_index_of_column(column)?;
            let (qualifier, field) = alias.input.schema().qualified_field(index);
            find(&alias.input, &Column::new(qualifier.cloned(), field.name()))
        }
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Repartition(_) => find(plan.inputs().first()?, column),
        LogicalPlan::Aggregate(aggregate) => {
            let index = aggregate.schema.maybe_index_of_column(column)?;
            find(&aggregate.input, passed_column(aggregate.group_expr.get(index)?)?)
        }
        LogicalPlan::Join(join) => [&join.left, &join.right]
            .into_iter()
            .find(|side| side.schema().maybe_index_of_column(column).is_some())
            .and_then(|side| find(side, column)),
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            let provider: &dyn std::any::Any = provider.as_ref();
            let returned = provider.downcast_ref::<ReturnedTable>().map(|returned| &returned.stored);
            let table = returned.or_else(|| provider.downcast_ref::<StoredTable>())?;
            let index = table.planned_schema().columns.iter().position(|known| known.name == column.name)?;
            Some(ColumnOrigin { table_oid: table.handle().oid, column: i16::try_from(index + 1).ok()? })
        }
        _ => None,
    }
}
