//! What INSERT's rows are planned for: the table that it names, and its columns.

use std::{ops::ControlFlow, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::{
    common::{
        DFSchema, ExprSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder},
    sql::sqlparser::{
        ast::{
            Expr as SqlExpr, Ident, Insert, ObjectName, Query, SelectItem, SetExpr, SetOperator, SetQuantifier,
            Statement, TableObject, Value, VisitMut, VisitorMut,
        },
        dialect::PostgreSqlDialect,
        parser::Parser,
    },
};

use super::{casts, syntax::last_part, types};
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
    refuse_numbers(insert, table)?;
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

/// VALUES inside of what is inserted (`INSERT INTO t SELECT … FROM (VALUES …) v`) as SELECTs: the planner takes any VALUES for the rows of the table.
pub(super) fn settle_inner_values(statement: &mut Statement) {
    let Statement::Insert(Insert { source: Some(source), .. }) = statement else { return };
    if !matches!(source.body.as_ref(), SetExpr::Values(_)) {
        let _ = source.visit(&mut InnerValues);
    }
}

struct InnerValues;

/// Rows of inner VALUES that become SELECTs, each a level of the plan.
const INNER_ROWS_MAX: usize = 1000;

impl VisitorMut for InnerValues {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Values(values) = query.body.as_ref()
            && values.rows.len() <= INNER_ROWS_MAX
        {
            let rows = values.rows.iter().map(|row| {
                let items = row.content.iter().enumerate().map(|(place, cell)| SelectItem::ExprWithAlias {
                    expr: cell.clone(),
                    alias: Ident::new(format!("column{}", place + 1)),
                });
                one_row(items.collect())
            });
            let all = rows.collect::<Option<Vec<_>>>().and_then(|rows| {
                rows.into_iter().reduce(|left, right| SetExpr::SetOperation {
                    op: SetOperator::Union,
                    set_quantifier: SetQuantifier::All,
                    left: Box::new(left),
                    right: Box::new(right),
                })
            });
            if let Some(all) = all {
                *query.body = all;
            }
        }
        ControlFlow::Continue(())
    }
}

/// `SELECT items`.
fn one_row(items: Vec<SelectItem>) -> Option<SetExpr> {
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, "SELECT 1").ok()?.pop()?;
    let Statement::Query(query) = parsed else { return None };
    let SetExpr::Select(mut select) = *query.body else { return None };
    select.projection = items;
    Some(SetExpr::Select(select))
}

/// NULL in VALUES is refused where the column's name is known, not by the planner, who has the columns of the table in mind.
pub(super) fn nullable_values(logical: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let mut is_strict = false;
    logical.apply(|node| {
        is_strict |= matches!(node, LogicalPlan::Values(values) if values.schema.fields().iter().any(|field| !field.is_nullable()));
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !is_strict {
        return Ok(logical);
    }
    let nullable = logical.transform_up(|node| match node {
        LogicalPlan::Values(mut values) => {
            let fields =
                values.schema.fields().iter().map(|field| (None, Arc::new(field.as_ref().clone().with_nullable(true))));
            let metadata = values.schema.as_arrow().metadata().clone();
            values.schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), metadata)?);
            Ok(Transformed::yes(LogicalPlan::Values(values)))
        }
        node => node.recompute_schema().map(Transformed::yes),
    })?;
    Ok(nullable.data)
}

/// A number is no boolean; the planner would cast it.
fn refuse_numbers(insert: &Insert, table: &Schema) -> Result<(), SqlError> {
    let Some(SetExpr::Values(values)) = insert.source.as_ref().map(|source| source.body.as_ref()) else {
        return Ok(());
    };
    let named: Vec<String> = insert.columns.iter().map(last_part).collect();
    let columns = table.fields().iter().enumerate().filter(|(_, field)| *field.data_type() == DataType::Boolean);
    for (place, field) in columns {
        let place = if named.is_empty() { Some(place) } else { named.iter().position(|name| name == field.name()) };
        let Some(place) = place else { continue };
        for cell in values.rows.iter().filter_map(|row| row.content.get(place)) {
            let digits = match cell {
                SqlExpr::UnaryOp { expr, .. } => number(expr),
                cell => number(cell),
            };
            if let Some(digits) = digits {
                let type_name = if digits.contains(['.', 'e', 'E']) { "numeric" } else { "integer" };
                return Err(not_boolean(field.name(), type_name));
            }
        }
    }
    Ok(())
}

fn number(expr: &SqlExpr) -> Option<&str> {
    match expr {
        SqlExpr::Value(value) => match &value.value {
            Value::Number(digits, _) => Some(digits),
            _ => None,
        },
        _ => None,
    }
}

fn not_boolean(column: &str, type_name: &str) -> SqlError {
    SqlError::new("42804", format!("column \"{column}\" is of type boolean but expression is of type {type_name}"))
        .with_hint("You will need to rewrite or cast the expression.")
}

/// 42804 for a column of numbers that is inserted as booleans.
pub(super) fn check_columns(logical: &LogicalPlan) -> Result<(), DataFusionError> {
    let LogicalPlan::Projection(projection) = logical else { return Ok(()) };
    for (item, target) in projection.expr.iter().zip(projection.schema.fields()) {
        let item = if let Expr::Alias(alias) = item { alias.expr.as_ref() } else { item };
        let Expr::Cast(Cast { expr, field }) = item else { continue };
        let (DataType::Boolean, Expr::Column(column)) = (field.data_type(), expr.as_ref()) else { continue };
        let Ok(source) = projection.input.schema().field_from_column(column) else { continue };
        if source.data_type().is_numeric() {
            return Err(not_boolean(target.name(), &types::name(source)).into());
        }
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
