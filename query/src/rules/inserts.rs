//! What INSERT's rows are planned for: the table that it names, and its columns.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::{
    error::DataFusionError,
    logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder},
    sql::sqlparser::ast::{Ident, Insert, ObjectName, SelectItem, SetExpr, Statement, TableObject},
};

use super::casts;
use crate::SqlError;

/// The table that INSERT names, without its schema.
pub(super) fn target(statement: &Statement) -> Option<String> {
    let Statement::Insert(insert) = statement else { return None };
    let TableObject::TableName(name) = &insert.table else { return None };
    let name = name.0.last()?.as_ident()?;
    Some(if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() })
}

/// Rows that are shorter than the table are for its first columns; the others have their defaults.
pub(super) fn name_columns(statement: &mut Statement, table: &Schema) -> Result<(), SqlError> {
    let Statement::Insert(insert) = statement else { return Ok(()) };
    let columns = table.fields().len();
    let Some(width) = insert.columns.is_empty().then(|| width(insert)).flatten() else { return Ok(()) };
    if width > columns {
        return Err(SqlError::syntax("INSERT has more expressions than target columns"));
    }
    if width < columns {
        let first = table.fields().iter().take(width);
        insert.columns = first.map(|field| ObjectName::from(vec![Ident::with_quote('"', field.name())])).collect();
    }
    Ok(())
}

/// Values in a row of what is inserted; `None` where that takes planning.
fn width(insert: &Insert) -> Option<usize> {
    fn of(body: &SetExpr) -> Option<usize> {
        match body {
            SetExpr::Values(values) => {
                let width = values.rows.first()?.content.len();
                values.rows.iter().all(|row| row.content.len() == width).then_some(width)
            }
            SetExpr::Select(select) => {
                let is_one =
                    |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
                select.projection.iter().all(is_one).then_some(select.projection.len())
            }
            SetExpr::SetOperation { left, .. } => of(left),
            SetExpr::Query(query) => of(&query.body),
            _ => None,
        }
    }
    of(&insert.source.as_ref()?.body)
}

/// Rows for a table whose uuid and jsonb columns are read as such: DataFusion's INSERT knows only their Arrow type.
pub(super) fn marked_columns(logical: LogicalPlan, table: &Schema) -> Result<LogicalPlan, DataFusionError> {
    let is_read = |target: &Field, given: &Field| {
        let marker = casts::marker(target);
        matches!(marker, Some("uuid" | "jsonb")) && marker != casts::marker(given)
    };
    let given = logical.schema().fields().clone();
    if given.len() != table.fields().len() || !table.fields().iter().zip(&given).any(|(t, g)| is_read(t, g)) {
        return Ok(logical);
    }
    let columns: Vec<Expr> = logical
        .schema()
        .iter()
        .zip(table.fields())
        .map(|((qualifier, field), target)| {
            let column = Expr::Column(datafusion::common::Column::new(qualifier.cloned(), field.name()));
            if !is_read(target, field) {
                return column;
            }
            let read = target.as_ref().clone().with_nullable(true);
            Expr::Cast(Cast { expr: Box::new(column), field: Arc::new(read) })
                .alias_qualified(qualifier.cloned(), field.name())
        })
        .collect();
    LogicalPlanBuilder::from(logical).project(columns)?.build()
}
