//! Rewriting all expressions of a plan while the names of its columns stay.

use datafusion::{
    common::{
        DFSchema,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{Expr, LogicalPlan, expr_rewriter::NamePreserver, utils::merge_schema},
};

/// Applies `rewrite` to each root expression of each node, subqueries too, from the leaves up. The schema it is given has the
/// columns that the expression may name.
pub(crate) fn expressions(
    plan: LogicalPlan,
    mut rewrite: impl FnMut(Expr, &DFSchema, &LogicalPlanKind) -> Result<Transformed<Expr>, DataFusionError>,
) -> Result<LogicalPlan, DataFusionError> {
    plan.transform_up_with_subqueries(|node| {
        let mut schema = merge_schema(&node.inputs());
        if let LogicalPlan::TableScan(scan) = &node {
            schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
        }
        let kind = LogicalPlanKind { is_limit: matches!(node, LogicalPlan::Limit(_)) };
        let names = NamePreserver::new(&node);
        let changed = node.map_expressions(|expr| {
            let saved = names.save(&expr);
            Ok(rewrite(expr, &schema, &kind)?.update_data(|expr| saved.restore(expr)))
        })?;
        match changed.data {
            // VALUES keep the schema they were made with, so they are made again.
            LogicalPlan::Values(values) if changed.transformed => {
                let types_hold = values.values.iter().all(|row| {
                    row.iter().zip(values.schema.fields()).all(|(expr, field)| {
                        use datafusion::logical_expr::ExprSchemable;
                        expr.get_type(&schema).is_ok_and(|data_type| &data_type == field.data_type())
                    })
                });
                if types_hold {
                    return Ok(Transformed::yes(LogicalPlan::Values(values)));
                }
                let made = datafusion::logical_expr::LogicalPlanBuilder::values(values.values)?.build()?;
                Ok(Transformed::yes(made))
            }
            node => Ok(Transformed::new(node.recompute_schema()?, true, TreeNodeRecursion::Continue)),
        }
    })
    .map(|transformed| transformed.data)
}

/// What a rewrite may want to know of the node.
pub(crate) struct LogicalPlanKind {
    pub(crate) is_limit: bool,
}
