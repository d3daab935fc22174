//! ALTER SOURCE: what may change while tables read from it.

use std::sync::Arc;

use tidemill_ingest::consumer::OnGap;

use super::undefined_source;
use crate::{
    runtime,
    server::instance::Instance,
    session::error::{Result, SqlError, state},
    sql::ast::{AlterSource, OptionPair},
};

/// The options that ALTER SOURCE takes.
const CHANGEABLE: &str = "on_gap";

/// Errors: 42704 for unknown sources, 22023 for bad values, 0A000 for options that tables are built on.
pub(super) async fn alter(instance: &Arc<Instance>, statement: AlterSource) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    let Some(before) = definitions.source_named(&statement.name.value) else {
        let error = undefined_source(&definitions, &statement.name);
        return match statement.if_exists && error.state == state::UNDEFINED_OBJECT {
            true => Ok(vec![format!("{}, skipping", error.message)]),
            false => Err(error),
        };
    };
    let mut after = (**before).clone();
    let mut on_gap = None;
    for OptionPair { key, value, value_position } in &statement.options {
        if key.value != CHANGEABLE {
            return Err(SqlError::unsupported(format!("option \"{}\" of a source cannot be changed", key.value))
                .at(key.position)
                .with_hint(format!(
                    "ALTER SOURCE changes {CHANGEABLE}; for the others make another source and another table"
                )));
        }
        on_gap = Some(OnGap::parse(value).map_err(|error| SqlError::from(error).at(*value_position))?);
        after.options.insert(key.value.clone(), value.to_ascii_lowercase());
    }
    let Some(on_gap) = on_gap else { return Ok(Vec::new()) };
    after.version += 1;
    let tables: Vec<_> = definitions
        .tables
        .values()
        .filter(|table| table.sources.contains(&after.id))
        .map(|table| Ok((instance.table(&table.name)?.1, table.paused)))
        .collect::<Result<_>>()?;
    let following = Arc::clone(instance);
    runtime::blocking(move || -> Result<()> {
        following.catalog.change(|change| change.put_source(&after))?;
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
