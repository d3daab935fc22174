//! CREATE INDEX and DROP INDEX. The statement is done when the definition is durable; existing segments are indexed in the background.

use std::sync::Arc;

use tidemill_storage::{
    ids::ColumnId,
    index::{IndexKind, JsonPaths},
    schema::DataType,
    table::TableSnapshot,
};

use super::{star_tree, undefined_column, undefined_table};
use crate::{
    catalog::{
        Definitions,
        definition::{IndexDefinition, TableDefinition},
    },
    runtime,
    server::{instance::Instance, live::index_specs},
    session::error::{Result, SqlError, state},
    sql::{
        ast::{CreateIndex, Name, OptionPair},
        options,
    },
    suggest,
};

/// Kinds that USING knows.
const KINDS: &[&str] = &["inverted", "range", "bloom", "sorted", "json", "text", "geo", "star_tree"];
/// What others keep truncated times in. Here conditions on these are ranges of the column, and groups are computed about as fast as kept ones are
/// read (`storage/benches/aggregate.rs`), so that a range index is what is left of it.
const TIMESTAMP: &str = "timestamp";
/// What PostgreSQL's kinds become.
const OF_POSTGRES: &[&str] = &["btree", "hash", "gin", "gist", "brin", "spgist"];
const FPP: f64 = 0.01;
/// Of an index of documents.
const PATHS_MAX: usize = 64;
const LEVELS_MAX: usize = 16;
const KEY_MAX: usize = 1024;

pub(super) async fn create(instance: &Arc<Instance>, mut statement: CreateIndex) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    let Some(table) = definitions.table_named(&statement.table.value) else {
        return Err(undefined_table(&definitions, &statement.table));
    };
    let mut notices = Vec::new();
    if statement.method.as_ref().is_some_and(|method| method.value == TIMESTAMP) {
        times(table, &mut statement)?;
    }
    let (kind, columns, of) = match &statement.star_tree {
        Some(clause) => {
            let snapshot = instance.live(table.id).map(|live| live.table.snapshot());
            let tree = star_tree::definition(table, snapshot.as_ref(), clause, &statement.options, &mut notices)?;
            let columns = tree.columns();
            (IndexKind::StarTree(Box::new(tree)), columns, String::new())
        }
        None => {
            let kind = kind(table, &statement, &mut notices)?;
            let columns = columns(table, &statement, &kind)?;
            if kind == IndexKind::Sorted {
                notices.extend(instance.live(table.id).and_then(|live| unsorted(&live.table.snapshot(), &columns)));
            }
            let of: String = statement.columns.iter().map(|column| format!("{}_", column.value)).collect();
            (kind, columns, of)
        }
    };

    let name = match &statement.name {
        Some(name) => {
            if definitions.has_relation(&name.value) {
                let message = format!("relation \"{}\" already exists", name.value);
                return match statement.if_not_exists {
                    true => Ok(vec![format!("{message}, skipping")]),
                    false => Err(SqlError::new(state::DUPLICATE_TABLE, message).at(name.position)),
                };
            }
            name.value.clone()
        }
        None => free_name(&definitions, &format!("{}_{of}{}", table.name, kind.name())),
    };
    let (instance, table) = (Arc::clone(instance), (**table).clone());
    runtime::blocking(move || {
        let mut after = table;
        after.version += 1;
        instance.catalog.change(|change| {
            let created_at_us = instance.clock.now_us();
            after.indexes.push(IndexDefinition { oid: change.new_oid()?, name, kind, columns, created_at_us });
            change.put_table(&after)
        })?;
        follow(&instance, &after);
        Ok(notices)
    })
    .await
}

/// The columns of an index: one, but of a sorted one as many as there are, and of places two.
fn columns(table: &TableDefinition, statement: &CreateIndex, kind: &IndexKind) -> Result<Vec<ColumnId>> {
    let names = statement.columns.as_slice();
    if *kind == IndexKind::Sorted {
        if let Some(other) = table.indexes.iter().find(|index| index.kind == IndexKind::Sorted) {
            let message = format!("table \"{}\" is sorted by index \"{}\" already", table.name, other.name);
            let position = statement.method.as_ref().map_or(statement.table.position, |method| method.position);
            return Err(SqlError::new(state::INVALID_TABLE_DEFINITION, message)
                .at(position)
                .with_hint(format!("rows have one order: DROP INDEX {} first, or name more columns", other.name)));
        }
    } else if *kind == IndexKind::Geo {
        if names.len() != 2 {
            let position = names.get(2).or(names.first()).map_or(statement.table.position, |name| name.position);
            return Err(SqlError::unsupported("an index of kind geo has two columns")
                .at(position)
                .with_hint("name those of latitude and longitude, in this order"));
        }
    } else if let Some(second) = names.get(1) {
        return Err(SqlError::unsupported(format!("an index of kind {} has one column", kind.name()))
            .at(second.position)
            .with_hint("create an index for each column: a query uses all that help"));
    }
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let id = column(table, name, kind)?;
        if found.contains(&id) {
            let message = format!("column \"{}\" is named twice", name.value);
            return Err(SqlError::new(state::DUPLICATE_COLUMN, message).at(name.position));
        }
        found.push(id);
    }
    Ok(found)
}

/// What a sorted index leaves as it is.
fn unsorted(snapshot: &TableSnapshot, columns: &[ColumnId]) -> Option<String> {
    let segments = snapshot.views.iter().flat_map(|view| view.segments()).filter_map(|segment| segment.as_committed());
    let unsorted = segments.filter(|segment| !columns.first().is_some_and(|first| segment.is_sorted_by(*first)));
    match unsorted.count() {
        0 => None,
        some => Some(format!("{some} segments stay in the order that they were sealed in; rows that come are sorted")),
    }
}

/// Settles which times an index of kind timestamp is of: `USING timestamp (ts)`, with or without its units as an option, or units alone
/// for the table's time column.
fn times(table: &TableDefinition, statement: &mut CreateIndex) -> Result<()> {
    let is_unit = |word: &str| star_tree::is_unit(word.trim());
    for pair in std::mem::take(&mut statement.options) {
        if pair.key.value.to_lowercase() != "granularity" {
            return Err(options::unknown("index", &pair.key.value, ["granularity"]).at(pair.key.position));
        }
        if !pair.value.split(',').all(is_unit) {
            let message = format!("invalid value for option \"granularity\": '{}'", pair.value);
            return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message)
                .at(pair.value_position)
                .with_hint("it is a list of units: 'minute, hour, day'"));
        }
    }
    let units_alone =
        |name: &Name| table.schema.column_named(&name.value).is_none() && is_unit(&name.value.to_lowercase());
    if let Some(first) = statement.columns.first()
        && statement.columns.iter().all(units_alone)
    {
        let time = table.schema.time_column.and_then(|id| table.schema.column(id));
        let time = time.ok_or_else(|| {
            SqlError::new(state::UNDEFINED_COLUMN, format!("table \"{}\" has no time column", table.name))
                .at(first.position)
                .with_hint("name the column: USING timestamp (ts)")
        })?;
        statement.columns = vec![Name { value: time.name.clone(), position: first.position }];
    }
    for name in &statement.columns {
        let Some(found) = table.schema.column_named(&name.value) else { return Err(undefined_column(table, name)) };
        if !matches!(found.data_type, DataType::Timestamp | DataType::TimestampTz | DataType::Date) {
            let message =
                format!("column \"{}\" of type {} cannot have an index of kind timestamp", name.value, found.data_type);
            return Err(SqlError::unsupported(message).at(name.position));
        }
    }
    Ok(())
}

fn column(table: &TableDefinition, name: &Name, kind: &IndexKind) -> Result<ColumnId> {
    let Some(found) = table.schema.column_named(&name.value) else { return Err(undefined_column(table, name)) };
    if !kind.takes(&found.data_type) {
        let message = format!(
            "column \"{}\" of type {} cannot have an index of kind {}",
            name.value,
            found.data_type,
            kind.name()
        );
        return Err(SqlError::unsupported(message).at(name.position));
    }
    Ok(found.id)
}

/// The running table has the indexes that its definition names.
pub(super) fn follow(instance: &Instance, table: &TableDefinition) {
    if let Some(live) = instance.live(table.id) {
        live.ingest.set_indexes(index_specs(table));
    }
}

fn kind(table: &TableDefinition, statement: &CreateIndex, notices: &mut Vec<String>) -> Result<IndexKind> {
    let mut kind = match &statement.method {
        None => IndexKind::Inverted,
        Some(method) => match method.value.as_str() {
            "inverted" => IndexKind::Inverted,
            "range" => IndexKind::Range,
            "bloom" => IndexKind::Bloom { fpp: FPP },
            "sorted" => IndexKind::Sorted,
            "json" => IndexKind::Json,
            "text" => IndexKind::Text,
            "geo" => IndexKind::Geo,
            known if OF_POSTGRES.contains(&known) => {
                let of = statement.columns.first().and_then(|column| table.schema.column_named(&column.value));
                let kind = match of.map(|column| &column.data_type) {
                    Some(DataType::Jsonb) if known == "gin" => IndexKind::Json,
                    Some(DataType::Text) if matches!(known, "gin" | "gist") => IndexKind::Text,
                    _ => IndexKind::Inverted,
                };
                notices.push(format!("index kind \"{known}\" becomes \"{}\"", kind.name()));
                kind
            }
            TIMESTAMP => {
                notices.push("index kind \"timestamp\" becomes \"range\": truncated times need none".to_owned());
                IndexKind::Range
            }
            other => {
                let message = format!("access method \"{other}\" does not exist");
                let hint = suggest::hint(other, KINDS.iter().copied())
                    .unwrap_or_else(|| format!("known kinds are {}", KINDS.join(", ")));
                return Err(SqlError::new(state::UNDEFINED_OBJECT, message).at(method.position).with_hint(hint));
            }
        },
    };
    for pair in &statement.options {
        option(&mut kind, pair)?;
    }
    Ok(kind)
}

fn option(kind: &mut IndexKind, pair: &OptionPair) -> Result<()> {
    match (kind, pair.key.value.to_lowercase().as_str()) {
        (IndexKind::Bloom { fpp }, "fpp") => {
            match pair.value.trim().parse::<f64>() {
                Ok(share) if (1e-6..=0.5).contains(&share) => *fpp = share,
                _ => {
                    let message = format!("invalid value for option \"fpp\": '{}'", pair.value);
                    return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message)
                        .at(pair.value_position)
                        .with_hint("it is the share of absent values taken for present: 0.000001 to 0.5"));
                }
            }
            Ok(())
        }
        (IndexKind::Bloom { .. }, key) => Err(options::unknown("index", key, ["fpp"]).at(pair.key.position)),
        (kind @ (IndexKind::Json | IndexKind::JsonPaths(_)), key) => json_option(kind, key, pair),
        (kind, key) => {
            let message = format!("unknown index option \"{key}\": an index of kind {} has none", kind.name());
            Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message).at(pair.key.position))
        }
    }
}

/// Limits an index of documents to parts of them.
fn json_option(kind: &mut IndexKind, key: &str, pair: &OptionPair) -> Result<()> {
    let invalid = |hint: String| {
        SqlError::new(
            state::INVALID_PARAMETER_VALUE,
            format!("invalid value for option \"{}\": '{}'", pair.key.value, pair.value),
        )
        .at(pair.value_position)
        .with_hint(hint)
    };
    let list = || match JsonPaths::parse_paths(&pair.value) {
        Some(paths)
            if paths.len() <= PATHS_MAX
                && paths.iter().all(|path| path.len() <= LEVELS_MAX && path.iter().all(|key| key.len() <= KEY_MAX)) =>
        {
            Ok(paths)
        }
        _ => Err(invalid(format!(
            "it is a list of paths: 'a.b, tags, \"with.dot\".c', {PATHS_MAX} at most of {LEVELS_MAX} keys of {KEY_MAX} bytes"
        ))),
    };
    let mut limits = match kind {
        IndexKind::JsonPaths(limits) => std::mem::take(limits),
        _ => Box::default(),
    };
    match key {
        "paths" => limits.paths = list()?,
        "exclude" => limits.exclude = list()?,
        "max_levels" => match pair.value.trim().parse::<u8>() {
            Ok(levels) if (1..=LEVELS_MAX).contains(&usize::from(levels)) => limits.max_levels = Some(levels),
            _ => return Err(invalid(format!("it is a number of levels: 1 to {LEVELS_MAX}"))),
        },
        key => return Err(options::unknown("index", key, ["paths", "exclude", "max_levels"]).at(pair.key.position)),
    }
    if let Some(levels) = limits.max_levels
        && limits.paths.iter().any(|path| path.len() > usize::from(levels))
    {
        return Err(invalid("a path of \"paths\" has more keys than \"max_levels\" allows".to_owned()));
    }
    *kind = IndexKind::JsonPaths(limits);
    Ok(())
}

/// The name, or the name and the first number that makes it a free one.
fn free_name(definitions: &Definitions, name: &str) -> String {
    let numbered = (1u32..).map(|number| format!("{name}{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !definitions.has_relation(name)).unwrap_or_else(|| name.to_owned())
}

/// The error for a name that no index has.
pub(super) fn undefined_index(definitions: &Definitions, name: &Name) -> SqlError {
    if definitions.has_relation(&name.value) {
        return SqlError::new(state::WRONG_OBJECT_TYPE, format!("\"{}\" is not an index", name.value))
            .at(name.position);
    }
    let error =
        SqlError::new(state::UNDEFINED_OBJECT, format!("index \"{}\" does not exist", name.value)).at(name.position);
    match suggest::hint(&name.value, definitions.indexes().map(|(_, index)| index.name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// Takes an index off its table; its files go.
pub(super) async fn drop_index(instance: &Arc<Instance>, name: &str) -> Result<()> {
    let (instance, name) = (Arc::clone(instance), name.to_owned());
    runtime::blocking(move || -> Result<()> {
        let definitions = instance.catalog.definitions();
        let Some((table, index)) = definitions.index_named(&name) else { return Ok(()) };
        let mut after = (**table).clone();
        after.version += 1;
        after.indexes.retain(|known| known.oid != index.oid);
        // From here on a crash leaves files that the next start deletes.
        instance.catalog.change(|change| change.put_table(&after))?;
        follow(&instance, &after);
        Ok(())
    })
    .await
}
