//! Types of `$1`, `$2`, …: what the client said, else what the place where the parameter stands asks for, else text.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::DataFusionError,
    logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, expr::Placeholder},
};

use super::walk;

/// Gives every placeholder a type.
pub(crate) fn infer(plan: LogicalPlan, given: &[Option<DataType>]) -> Result<LogicalPlan, DataFusionError> {
    let typed = |field: Option<FieldRef>, id: &str| -> Option<FieldRef> {
        let number: usize = id.trim_start_matches('$').parse().ok()?;
        match given.get(number.checked_sub(1)?) {
            Some(Some(data_type)) => Some(Arc::new(Field::new(id, data_type.clone(), true))),
            _ => field.filter(|field| field.data_type() != &DataType::Null),
        }
    };
    // The first pass types what its neighbours type; a parameter that stands at two places is typed by the one that tells.
    let mut told: std::collections::BTreeMap<String, FieldRef> = std::collections::BTreeMap::new();
    let plan = walk::expressions(plan, |expr, schema, kind| {
        if kind.is_limit {
            return expr.transform_up(|expr| {
                let expr = type_placeholder(expr, &DataType::Int64).data;
                if let Expr::Placeholder(Placeholder { id, field }) = &expr
                    && let Some(field) = typed(field.clone(), id)
                {
                    told.entry(id.clone()).or_insert(field);
                }
                Ok(Transformed::yes(expr))
            });
        }
        let (expr, _) = expr.infer_placeholder_types(schema)?;
        expr.transform_up(|expr| {
            Ok(match expr {
                Expr::Cast(mut cast) => {
                    let target = cast.field.data_type().clone();
                    *cast.expr = type_placeholder(*cast.expr, &target).data;
                    Transformed::yes(Expr::Cast(cast))
                }
                Expr::ScalarFunction(mut call)
                    if call.func.name().starts_with("tidemill_a") && call.args.len() == 3 =>
                {
                    if let Ok((_, left)) = call.args[1].to_field(schema)
                        && left.data_type() != &DataType::Null
                    {
                        // With what tells a UUID or JSONB from a TEXT.
                        let item = Field::new_list_field(left.data_type().clone(), true);
                        let item = item.with_metadata(left.metadata().clone());
                        call.args[2] = type_placeholder(call.args[2].clone(), &DataType::List(Arc::new(item))).data;
                    }
                    if let Ok(DataType::List(item)) = call.args[2].get_type(schema) {
                        call.args[1] = type_placeholder(call.args[1].clone(), item.data_type()).data;
                    }
                    Transformed::yes(Expr::ScalarFunction(call))
                }
                other => Transformed::no(other),
            })
        })?
        .transform_data(|expr| {
            expr.transform_up(|expr| {
                if let Expr::Placeholder(Placeholder { id, field }) = &expr
                    && let Some(field) = typed(field.clone(), id)
                {
                    told.entry(id.clone()).or_insert(field);
                }
                Ok(Transformed::no(expr))
            })
        })
    })?;
    walk::expressions(plan, |expr, _, _| {
        expr.transform_up(|expr| {
            Ok(match expr {
                Expr::Placeholder(Placeholder { id, .. }) => {
                    let field = told
                        .get(&id)
                        .cloned()
                        .or_else(|| typed(None, &id))
                        .unwrap_or_else(|| Arc::new(Field::new(&id, DataType::Utf8View, true)));
                    Transformed::yes(Expr::Placeholder(Placeholder::new_with_field(id, Some(field))))
                }
                other => Transformed::no(other),
            })
        })
    })
}

/// Rows to insert are planned in the types of their columns. Where the client gives a parameter another type (Python's 1 is a smallint),
/// it is cast on its way.
pub(crate) fn cast_for_storage(plan: LogicalPlan, given: &[Option<DataType>]) -> Result<LogicalPlan, DataFusionError> {
    let told = |id: &str| -> Option<&DataType> {
        let number: usize = id.trim_start_matches('$').parse().ok()?;
        given.get(number.checked_sub(1)?)?.as_ref()
    };
    plan.transform_up(|node| {
        let LogicalPlan::Values(mut values) = node else { return Ok(Transformed::no(node)) };
        for expr in values.values.iter_mut().flatten() {
            if let Expr::Placeholder(Placeholder { id, field: Some(column) }) = expr
                && let Some(given) = told(id)
                && given != column.data_type()
            {
                let parameter = Arc::new(Field::new(id.as_str(), given.clone(), true));
                let parameter = Expr::Placeholder(Placeholder::new_with_field(id.clone(), Some(parameter)));
                *expr = Expr::Cast(Cast::new_from_field(Box::new(parameter), Arc::clone(column)));
            }
        }
        Ok(Transformed::yes(LogicalPlan::Values(values)))
    })
    .map(|transformed| transformed.data)
}

/// Types `expr` if it is a placeholder without a type.
fn type_placeholder(expr: Expr, data_type: &DataType) -> Transformed<Expr> {
    match expr {
        Expr::Placeholder(Placeholder { id, field })
            if field.as_ref().is_none_or(|field| field.data_type() == &DataType::Null) =>
        {
            let field = Arc::new(Field::new(&id, data_type.clone(), true));
            Transformed::yes(Expr::Placeholder(Placeholder::new_with_field(id, Some(field))))
        }
        other => Transformed::no(other),
    }
}
