//! Which tables can take rows that are given again.
//!
//! A pipeline that gives a group a second time means it instead of the first. Only a table that keeps the last row of a key understands that, and only when its
//! key is that of the group.

use tidemill_ingest::pipeline::{
    Late, LatePolicy,
    plan::{Lineage, Plan},
};
use tidemill_storage::ids::ColumnId;

use crate::{
    catalog::definition::{KeyMode, TableDefinition},
    session::error::{Result, SqlError, state},
};

/// What is to be said of `late` where nothing can be.
pub(super) fn note(plan: &Plan, late: Late) -> Option<String> {
    let is_idle = late.policy != LatePolicy::Drop && plan.keys().is_none();
    is_idle.then(|| "nothing is late in a pipeline without windows; option \"late\" is ignored".into())
}

/// Refuses a table that cannot take what is given again. `columns`: where each output goes.
pub(super) fn check(plan: &Plan, late: Late, table: &TableDefinition, columns: &[String]) -> Result<()> {
    let Some(keys) = plan.keys().filter(|_| late.policy == LatePolicy::Update) else { return Ok(()) };
    let refused = |message: String, hint: &str| Err(SqlError::unsupported(message).with_hint(hint.to_owned()));
    let hint = "make a table whose PRIMARY KEY is the columns of GROUP BY and one end of the window, or say late = 'drop' or late = 'dlq'";
    if plan.has_condition_on_groups() {
        return refused(
            "late = 'update' with HAVING is not supported: a group that no longer fulfils the condition would stay"
                .into(),
            "take the condition's columns along, and ask it when you query the table",
        );
    }
    let Some(key) = &table.key else {
        let message = format!("late = 'update' gives a window again, and table \"{}\" has no primary key", table.name);
        return refused(message, hint);
    };
    match key.mode {
        KeyMode::Upsert => {}
        KeyMode::Dedup | KeyMode::PartialUpsert => {
            let mode = if key.mode == KeyMode::Dedup { "dedup" } else { "partial_upsert" };
            let message = format!(
                "late = 'update' gives a window again, and table \"{}\" of mode '{mode}' does not replace rows",
                table.name
            );
            return refused(message, "a table of mode 'upsert' does");
        }
    }
    let lineage = |id: ColumnId| {
        let column = table.schema.columns.iter().find(|column| column.id == id)?;
        let at = columns.iter().position(|name| *name == column.name)?;
        plan.lineage().get(at).copied()
    };
    let mut found = vec![false; keys];
    let mut has_window = key.version.is_some_and(|version| lineage(version) == Some(Lineage::Window));
    for id in &key.columns {
        match lineage(*id) {
            Some(Lineage::Key(at)) => found[at] = true,
            Some(Lineage::Window) => has_window = true,
            Some(Lineage::Other) | None => {
                let name = table.schema.columns.iter().find(|column| column.id == *id).map(|column| &*column.name);
                let message = format!(
                    "late = 'update' gives groups again, and column \"{}\" of the primary key of table \"{}\" is no column of GROUP BY",
                    name.unwrap_or_default(),
                    table.name
                );
                return refused(message, hint);
            }
        }
    }
    if !found.iter().all(|found| *found) {
        let message = format!(
            "late = 'update' gives groups again, and not every column of GROUP BY is in the primary key of table \"{}\"",
            table.name
        );
        return refused(message, hint);
    }
    if !has_window {
        return Err(SqlError::new(
            state::FEATURE_NOT_SUPPORTED,
            format!(
                "late = 'update' would have a window that is given again replace later ones in table \"{}\"",
                table.name
            ),
        )
        .with_hint("put one end of the window into the primary key, or make it the version_column"));
    }
    Ok(())
}
