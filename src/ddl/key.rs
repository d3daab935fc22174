//! PRIMARY KEY of CREATE TABLE: which columns rows are told apart by, and which row of a key stays.

use std::sync::Arc;

use tidemill_storage::{
    ids::ColumnId,
    schema::{Column, DataType, Merge, TableSchema},
    upsert::can_be_ranked,
};

use super::source::has_changes;
use crate::{
    catalog::definition::{AgesDefinition, KeyDefinition, KeyMode, SourceDefinition},
    server::live,
    session::error::{Result, SqlError, state},
    sql::{
        ast::{ColumnDefinition, CreateTable},
        options::{ColumnOptions, Mode, OutOfOrder},
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
            .or_else(|| column("out_of_order_column", &given.out_of_order_column))
            .or_else(|| given.out_of_order.map(|(_, position)| ("out_of_order", position)))
            .or_else(|| given.key_ttl.map(|(_, position)| ("key_ttl", position)))
            .or_else(|| given.tombstone_ttl.map(|(_, position)| ("tombstone_ttl", position)));
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
        Some((Mode::PartialUpsert, _)) => KeyMode::PartialUpsert,
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
    let late = late_column(given, schema, mode, &[&columns[..], version.as_slice(), delete.as_slice()].concat())?;
    let keeps_losers = match (mode, given.out_of_order) {
        (KeyMode::Dedup, Some((OutOfOrder::Keep | OutOfOrder::Flag, position))) => {
            return Err(SqlError::unsupported("a table of mode 'dedup' keeps no later rows").at(position));
        }
        (KeyMode::Dedup, _) => false,
        (KeyMode::Upsert | KeyMode::PartialUpsert, becomes) => {
            becomes.is_none_or(|(becomes, _)| becomes != OutOfOrder::Drop)
        }
    };
    let ages = ages(statement, given, schema, version)?;
    if let (Some(_), KeyMode::Dedup, Some((_, position))) = (ages, mode, given.tombstone_ttl) {
        return Err(SqlError::unsupported("a table of mode 'dedup' has no tombstones").at(position));
    }
    if let (Some(_), Some(_), Some((option, position))) = (
        late,
        ages,
        (given.key_ttl.map(|(_, position)| ("key_ttl", position)))
            .or_else(|| given.tombstone_ttl.map(|(_, position)| ("tombstone_ttl", position))),
    ) {
        // A row that is late by its age is compared with no other.
        return Err(SqlError::unsupported(format!("{option} together with out_of_order = 'flag' is not supported"))
            .at(position)
            .with_hint("rt.tables counts the rows that come late (late_rows)"));
    }
    Ok(KeyDefinition { columns, version, delete, mode, keeps_losers, late, ages })
}

/// The column that tells which rows came too late. `taken` are the columns of key, version and deletes.
fn late_column(
    given: &ColumnOptions,
    schema: &TableSchema,
    mode: KeyMode,
    taken: &[ColumnId],
) -> Result<Option<ColumnId>> {
    let (name, position) = match (&given.out_of_order, &given.out_of_order_column) {
        (Some((OutOfOrder::Flag, position)), None) => {
            return Err(SqlError::new(
                state::INVALID_TABLE_DEFINITION,
                "out_of_order = 'flag' needs a column that it flags",
            )
            .at(*position)
            .with_hint("name a BOOLEAN column of the table: out_of_order_column = '…'"));
        }
        (_, None) => return Ok(None),
        (Some((OutOfOrder::Keep | OutOfOrder::Drop, _)), Some((_, position))) => {
            return Err(SqlError::new(
                state::INVALID_TABLE_DEFINITION,
                "option \"out_of_order_column\" needs out_of_order = 'flag'",
            )
            .at(*position)
            .with_hint("rows that are dropped, or kept as all others, are not flagged"));
        }
        (_, Some(named)) => named,
    };
    if mode == KeyMode::Dedup {
        return Err(SqlError::unsupported("a table of mode 'dedup' keeps no later rows").at(*position));
    }
    let column = named(schema, "out_of_order_column", name, *position)?;
    if column.data_type != DataType::Boolean {
        let message = format!("out_of_order_column \"{name}\" is {}, not boolean", column.data_type);
        return Err(SqlError::new(state::DATATYPE_MISMATCH, message).at(*position));
    }
    if taken.contains(&column.id) {
        let message = format!("out_of_order_column \"{name}\" is a column of the primary key, the version or deletes");
        return Err(SqlError::new(state::INVALID_TABLE_DEFINITION, message).at(*position));
    }
    Ok(Some(column.id))
}

/// What `key_ttl` and `tombstone_ttl` go by: the time column, or else a version that is a time.
fn ages(
    statement: &CreateTable,
    given: &ColumnOptions,
    schema: &TableSchema,
    version: Option<ColumnId>,
) -> Result<Option<AgesDefinition>> {
    let (option, position) = match (given.key_ttl, given.tombstone_ttl) {
        (Some((_, position)), _) => ("key_ttl", position),
        (None, Some((_, position))) => ("tombstone_ttl", position),
        (None, None) => return Ok(None),
    };
    let time = match &given.time_column {
        Some((name, position)) => Some(named(schema, "time column", name, *position)?),
        None => version.and_then(|id| schema.column(id)),
    };
    let is_time =
        |column: &&Column| matches!(column.data_type, DataType::Date | DataType::Timestamp | DataType::TimestampTz);
    let Some(column) = time.filter(is_time) else {
        let message =
            format!("{option} of table \"{}\" needs a column that says how old its rows are", statement.name.value);
        return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message)
            .at(position)
            .with_hint("say time_column = '…', or give it a version_column of type date, timestamp or timestamptz"));
    };
    let (key_us, tombstone_us) = (given.key_ttl.map(|(us, _)| us), given.tombstone_ttl.map(|(us, _)| us));
    if let (Some(key_us), Some((tombstone_us, position))) = (key_us, given.tombstone_ttl)
        && tombstone_us > key_us
    {
        let message = format!("tombstone_ttl of table \"{}\" is longer than its key_ttl", statement.name.value);
        return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message)
            .at(position)
            .with_hint("tombstones leave with their keys; leave tombstone_ttl out, or make it shorter"));
    }
    Ok(Some(AgesDefinition { column: column.id, key_us, tombstone_us }))
}

/// MERGE is for columns of tables that merge rows, for none that says which row of a key is which, and for types that its rule can merge.
pub(super) fn check_merges<'a>(
    key: Option<&KeyDefinition>,
    schema: &TableSchema,
    columns: impl IntoIterator<Item = &'a ColumnDefinition>,
) -> Result<()> {
    for column in columns {
        let Some((merge, position)) = column.merge else { continue };
        let (name, rule) = (&column.name.value, merge.name());
        let Some(key) = key.filter(|key| key.mode == KeyMode::PartialUpsert) else {
            let message = format!("column \"{name}\" has MERGE {rule}, and the table does not merge rows");
            return Err(SqlError::new(state::INVALID_TABLE_DEFINITION, message)
                .at(position)
                .with_hint("rows of a key are merged WITH (mode = 'partial_upsert')"));
        };
        let id = schema.column_named(name).map(|known| known.id);
        let what = match id {
            Some(id) if key.columns.contains(&id) => Some("a column of the primary key"),
            Some(id) if key.version == Some(id) => Some("the version_column"),
            Some(id) if key.delete == Some(id) => Some("the delete_column"),
            Some(id) if key.late == Some(id) => Some("the out_of_order_column"),
            _ => None,
        };
        if let Some(what) = what.filter(|_| merge != Merge::Overwrite) {
            let message = format!("column \"{name}\" cannot have MERGE {rule}: it is {what}");
            return Err(SqlError::new(state::INVALID_TABLE_DEFINITION, message)
                .at(position)
                .with_hint("it says which row of a key is which, so each row has its own; leave MERGE out"));
        }
        if !merge.takes(&column.data_type) {
            let wanted = match merge {
                Merge::Increment => "numbers",
                Merge::Append | Merge::Union => "arrays",
                _ => "all types but JSONB and arrays",
            };
            let message = format!("column \"{name}\" of type {} cannot have MERGE {rule}", column.data_type);
            return Err(SqlError::new(state::DATATYPE_MISMATCH, message)
                .at(position)
                .with_hint(format!("{rule} takes {wanted}")));
        }
    }
    Ok(())
}

/// What is deleted in sources, and would stay in a table of this key.
pub(super) fn unheard_deletes(key: &KeyDefinition, sources: &[Arc<SourceDefinition>]) -> Vec<String> {
    if key.mode == KeyMode::Dedup || key.delete.is_some() {
        return Vec::new();
    }
    let brings_deletes =
        |source: &SourceDefinition| live::source_options(source).is_ok_and(|(options, _)| has_changes(&options));
    let notice = |source: &SourceDefinition| {
        format!("without the option delete_column rows stay that source \"{}\" says are deleted", source.name)
    };
    sources.iter().filter(|source| brings_deletes(source)).map(|source| notice(source)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletes_that_nobody_hears_are_told() {
        let source = |name: &str, format: &str| {
            let options = [("connector", "kafka"), ("brokers", "b:1"), ("topic", "t"), ("format", format)];
            Arc::new(SourceDefinition {
                id: Default::default(),
                oid: 0,
                name: name.into(),
                version: 1,
                columns: Vec::new(),
                watermark: None,
                checks: Vec::new(),
                options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                created_at_us: 0,
            })
        };
        let sources = [source("rows", "json"), source("changes", "debezium-json")];
        let key = |delete, mode| KeyDefinition {
            columns: Vec::new(),
            version: None,
            delete,
            mode,
            keeps_losers: true,
            late: None,
            ages: None,
        };
        let told = unheard_deletes(&key(None, KeyMode::Upsert), &sources);
        assert!(told.len() == 1 && told[0].contains("\"changes\""), "{told:?}");
        assert!(unheard_deletes(&key(Some(ColumnId(1)), KeyMode::Upsert), &sources).is_empty());
        assert!(unheard_deletes(&key(None, KeyMode::Dedup), &sources).is_empty());
    }
}
