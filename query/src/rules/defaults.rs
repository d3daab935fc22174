//! DEFAULT in the place of a value of INSERT, and DEFAULT VALUES, on the syntax tree: as what the columns have by default.

use datafusion::sql::sqlparser::ast::{Expr, Ident, Insert, ObjectName, SetExpr, Statement};
use tidemill_storage::schema::{Column, TableSchema};

use super::{
    changes::{literal, query_of, template},
    syntax::folded,
};
use crate::{SqlError, pg_catalog::default_sql};

/// `schema` has the columns as rows bring them.
pub(super) fn settle(statement: &mut Statement, schema: &TableSchema) -> Result<(), SqlError> {
    let Statement::Insert(insert) = statement else { return Ok(()) };
    if insert.source.is_none() && insert.assignments.is_empty() {
        return default_values(insert, schema);
    }
    let Some(SetExpr::Values(values)) = insert.source.as_mut().map(|source| source.body.as_mut()) else {
        return Ok(());
    };
    let name = |name: &ObjectName| name.0.last().and_then(|part| part.as_ident()).map(folded).unwrap_or_default();
    let named: Vec<String> = insert.columns.iter().map(name).collect();
    for row in &mut values.rows {
        for (place, cell) in row.content.iter_mut().enumerate().filter(|(_, cell)| is_default(cell)) {
            let column = match named.get(place) {
                Some(name) => schema.columns.iter().find(|column| column.name == *name),
                None if named.is_empty() => schema.columns.get(place),
                None => None,
            };
            // What has no column is told by what reads the statement next.
            if let Some(column) = column {
                *cell = default_of(column)?;
            }
        }
    }
    Ok(())
}

/// Every column has its default when the first one has.
fn default_values(insert: &mut Insert, schema: &TableSchema) -> Result<(), SqlError> {
    let Some(first) = schema.columns.first() else { return Ok(()) };
    let mut source = template("VALUES (1)")?;
    if let Some(SetExpr::Values(values)) = query_of(&mut source).map(|query| query.body.as_mut()) {
        for cell in values.rows.iter_mut().flat_map(|row| &mut row.content) {
            *cell = default_of(first)?;
        }
    }
    let Statement::Query(query) = source else { return Ok(()) };
    insert.columns = vec![ObjectName::from(vec![Ident::with_quote('"', &first.name)])];
    insert.source = Some(query);
    Ok(())
}

/// Whether it is the word itself.
pub(super) fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(word) if word.quote_style.is_none() && folded(word) == "default")
}

fn default_of(column: &Column) -> Result<Expr, SqlError> {
    match &column.default {
        Some(value) => literal(&default_sql(value, &column.data_type.to_string())),
        None => literal(&format!("CAST(NULL AS {})", column.data_type)),
    }
}
