//! PRIMARY KEY of CREATE TABLE: which columns rows are told apart by, and which row of a key stays.

use tidemill_storage::{
    ids::ColumnId,
    schema::{Column, DataType, TableSchema},
    upsert::can_be_ranked,
};

use crate::{
    catalog::definition::{KeyDefinition, KeyMode},
    session::error::{Result, SqlError, state},
    sql::{
        ast::CreateTable,
        options::{ColumnOptions, Mode},
    },
};

/// Whether the table keeps one row of each key: it has a key, and does not say that rows are only appended.
pub(super) fn is_keyed(statement: &CreateTable, given: &ColumnOptions, notices: &mut Vec<String>) -> Result<bool> {
    let mode = given.mode.map(|(mode, _)| mode);
    if statement.primary_key.is_empty() || mode == Some(Mode::Append) {
        let wants_key = given.mode.filter(|(mode, _)| *mode != Mode::Append).map(|(_, position)| ("mode", position));
        let column = |name, given: &Option<(String, u32)>| given.as_ref().map(|(_, position)| (name, *position));
        let unkeyed = wants_key
            .or_else(|| column("version_column", &given.version_column))
            .or_else(|| column("delete_column", &given.delete_column))
            .or_else(|| given.keeps_losers.map(|(_, position)| ("out_of_order", position)));
        if let Some((option, position)) = unkeyed {
            let message = format!("option \"{option}\" needs a table that keeps one row of each key");
            return Err(SqlError::new(state::INVALID_TABLE_DEFINITION, message)
                .at(position)
                .with_hint("give the table a PRIMARY KEY, and leave mode = 'append' out"));
        }
        if !statement.primary_key.is_empty() {
            notices.push("the primary key is not enforced: mode = 'append' keeps every row".into());
        }
        return Ok(false);
    }
    Ok(true)
}

/// The key of a table that [`is_keyed`].
pub(super) fn definition(
    statement: &CreateTable,
    given: &ColumnOptions,
    schema: &TableSchema,
) -> Result<KeyDefinition> {
    let mode = match given.mode {
        Some((Mode::Dedup, _)) => KeyMode::Dedup,
        _ => KeyMode::Upsert,
    };
    let mut columns = Vec::with_capacity(statement.primary_key.len());
    for name in &statement.primary_key {
        columns.push(ranked(schema, "primary key", &name.value, name.position)?);
    }
    let version = match &given.version_column {
        None => None,
        Some((name, position)) => Some(ranked(schema, "version_column", name, *position)?),
    };
    let delete = match &given.delete_column {
        None => None,
        Some((name, position)) => {
            let column = named(schema, "delete_column", name, *position)?;
            if mode == KeyMode::Dedup {
                return Err(SqlError::unsupported("a table of mode 'dedup' has no delete_column")
                    .at(*position)
                    .with_hint("the first row of a key stays; mode = 'upsert' has deletes"));
            }
            if column.data_type != DataType::Boolean || columns.contains(&column.id) {
                let message = match columns.contains(&column.id) {
                    true => format!("delete_column \"{name}\" is a column of the primary key"),
                    false => format!("delete_column \"{name}\" is {}, not boolean", column.data_type),
                };
                return Err(SqlError::new(state::DATATYPE_MISMATCH, message).at(*position));
            }
            Some(column.id)
        }
    };
    let keeps_losers = match (mode, given.keeps_losers) {
        (KeyMode::Dedup, Some((true, position))) => {
            return Err(SqlError::unsupported("a table of mode 'dedup' keeps no later rows").at(position));
        }
        (KeyMode::Dedup, _) => false,
        (KeyMode::Upsert, keeps) => keeps.is_none_or(|(keeps, _)| keeps),
    };
    Ok(KeyDefinition { columns, version, delete, mode, keeps_losers })
}

fn named<'a>(schema: &'a TableSchema, what: &str, name: &str, position: u32) -> Result<&'a Column> {
    schema
        .column_named(name)
        .ok_or_else(|| SqlError::new(state::UNDEFINED_COLUMN, format!("{what} \"{name}\" does not exist")).at(position))
}

fn ranked(schema: &TableSchema, what: &str, name: &str, position: u32) -> Result<ColumnId> {
    let column = named(schema, what, name, position)?;
    if !can_be_ranked(&column.data_type) {
        let message = format!("column \"{name}\" of type {} cannot be of a {what}", column.data_type);
        return Err(SqlError::unsupported(message).at(position).with_hint("it takes all types but JSONB and arrays"));
    }
    Ok(column.id)
}
