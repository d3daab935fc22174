//! ALTER SOURCE: what may change while tables read from it, and from where they read on.

use std::{collections::BTreeMap, sync::Arc};

use tidemill_ingest::{
    Error,
    consumer::{self, OnGap},
    source::{
        Start,
        rate::{self, Rates},
    },
};

use super::undefined_source;
use crate::{
    catalog::definition::SourceDefinition,
    runtime,
    server::{instance::Instance, live::LiveTable},
    session::error::{Result, SqlError, state},
    sql::ast::{AlterSource, AlterSourceAction, OptionPair},
};

/// The options that ALTER SOURCE takes.
const CHANGEABLE: [&str; 3] = ["on_gap", rate::MAX_ROWS, rate::MAX_MB];

/// Errors: 42704 for unknown sources, 22023 for bad values, 0A000 for options that tables are built on, 55000 for a source that no table
/// reads, 08001 when the source does not answer.
pub(super) async fn alter(instance: &Arc<Instance>, statement: AlterSource) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    let Some(source) = definitions.source_named(&statement.name.value) else {
        let error = undefined_source(&definitions, &statement.name);
        return match statement.if_exists && error.state == state::UNDEFINED_OBJECT {
            true => Ok(vec![format!("{}, skipping", error.message)]),
            false => Err(error),
        };
    };
    let tables: Vec<_> = definitions
        .tables_of(source.id)
        .map(|table| Ok((instance.table(&table.name)?.1, table.paused)))
        .collect::<Result<_>>()?;
    match statement.action {
        AlterSourceAction::SetOptions(options) => set(instance, source, tables, &options).await,
        AlterSourceAction::ResetOffsets { start, position } => reset(source, &tables, &start, position).await,
    }
}

async fn set(
    instance: &Arc<Instance>,
    source: &SourceDefinition,
    tables: Vec<(Arc<LiveTable>, bool)>,
    options: &[OptionPair],
) -> Result<Vec<String>> {
    let mut after = source.clone();
    let mut on_gap = None;
    for OptionPair { key, value, value_position } in options {
        if !CHANGEABLE.contains(&key.value.as_str()) {
            return Err(SqlError::unsupported(format!("option \"{}\" of a source cannot be changed", key.value))
                .at(key.position)
                .with_hint(format!(
                    "ALTER SOURCE changes {}; for the others make another source and another table",
                    CHANGEABLE.join(", ")
                )));
        }
        let checked = match key.value.as_str() {
            "on_gap" => OnGap::parse(value).map(|parsed| on_gap = Some(parsed)),
            _ => Rates::take(&mut BTreeMap::from([(key.value.clone(), value.clone())])).map(|_| ()),
        };
        checked.map_err(|error| SqlError::from(error).at(*value_position))?;
        after.options.insert(key.value.clone(), value.to_ascii_lowercase());
    }
    after.version += 1;
    let following = Arc::clone(instance);
    runtime::blocking(move || -> Result<()> {
        following.catalog.change(|change| change.put_source(&after))?;
        // Who reads it has these limits, and sees them change.
        following.connections.limits(&after)?;
        let Some(on_gap) = on_gap else { return Ok(()) };
        for (live, is_paused) in tables {
            live.ingest.set_on_gap(after.id, on_gap)?;
            // Partitions that stopped at a gap try again.
            if !is_paused {
                live.ingest.resume(after.id)?;
            }
        }
        Ok(())
    })
    .await?;
    Ok(Vec::new())
}

async fn reset(
    source: &SourceDefinition,
    tables: &[(Arc<LiveTable>, bool)],
    start: &str,
    position: u32,
) -> Result<Vec<String>> {
    let start: Start = start.parse().map_err(|wanted| {
        SqlError::new(state::INVALID_PARAMETER_VALUE, format!("offsets cannot be reset to '{start}'"))
            .at(position)
            .with_hint(format!("it takes {wanted}"))
    })?;
    if tables.is_empty() {
        let message = format!("no table reads from source \"{}\"", source.name);
        return Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .with_hint("a table that reads from it begins where its option start says"));
    }
    let tables: Vec<_> = tables.iter().map(|(live, _)| Arc::clone(&live.ingest)).collect();
    let begins = consumer::reset(&tables, source.id, &start).await.map_err(|error| match error {
        Error::Missing(message) => SqlError::new(state::CANNOT_ESTABLISH_CONNECTION, message),
        Error::Definition { .. } => SqlError::from(error).at(position),
        error => SqlError::from(error),
    })?;
    let begins: Vec<String> = begins.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    Ok(vec![format!("source \"{}\" is read on from offsets {{{}}}", source.name, begins.join(", "))])
}
