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
    catalog::definition::{KeyDefinition, KeyMode, TableDefinition},
    session::error::{Result, SqlError},
};

/// What is to be said of `late` where nothing can be.
pub(super) fn note(plan: &Plan, late: Late) -> Option<String> {
    let is_idle = late.policy != LatePolicy::Drop && !plan.has_time();
    is_idle.then(|| "nothing is late in a pipeline without windows; option \"late\" is ignored".into())
}

/// Refuses what cannot be given again.
pub(super) fn check_plan(plan: &Plan, late: Late) -> Result<()> {
    if late.policy != LatePolicy::Update {
        return Ok(());
    }
    let refused = |message: &str, hint: &str| Err(SqlError::unsupported(message).with_hint(hint));
    if plan.has_condition_on_groups() {
        return refused(
            "late = 'update' with HAVING is not supported: a group that no longer fulfils the condition would stay",
            "take the condition's columns along, and ask it when you query the table",
        );
    }
    if plan.has_groups_within() || plan.has_ranks() {
        return refused(
            "late = 'update' with an aggregate or OVER (…) over an aggregate is not supported: what was given of it cannot be taken back",
            "to have windows wait for late rows, give the time to the source: WATERMARK FOR ts AS ts - INTERVAL '…'",
        );
    }
    if plan.has_sessions() {
        return refused(
            "late = 'update' with SESSION is not supported: a late row can make one session of two that were given",
            "to have sessions wait for late rows, give the time to the source: WATERMARK FOR ts AS ts - INTERVAL '…'",
        );
    }
    if plan.has_join() {
        return refused(
            "late = 'update' with a join is not supported: what a late row belongs to may be gone",
            "to have the join wait for late rows, give the time to the source: WATERMARK FOR ts AS ts - INTERVAL '…'",
        );
    }
    Ok(())
}

/// Why groups come again, when they do, and what keeps them from it.
fn reason(plan: &Plan, late: Late) -> Option<(&'static str, &'static str)> {
    match (plan.is_updating(), late.policy) {
        (true, _) => Some(("an aggregate without a window gives groups again when they change", "group by a window")),
        (false, LatePolicy::Update) => {
            Some(("late = 'update' gives groups again when late rows change them", "say late = 'drop' or late = 'dlq'"))
        }
        (false, LatePolicy::Drop | LatePolicy::Dlq) => None,
    }
}

/// Refuses a table that cannot take what is given again. `columns`: where each output goes.
pub(super) fn check(plan: &Plan, late: Late, table: &TableDefinition, columns: &[String]) -> Result<()> {
    let Some((why, way_out)) = reason(plan, late) else { return Ok(()) };
    let Some(keys) = plan.keys() else { return Ok(()) };
    let given_again = Given { plan, table, columns, why, way_out };
    let Some(key) = &table.key else {
        return Err(given_again.refused(format!("table \"{}\" has no primary key", table.name)));
    };
    match key.mode {
        KeyMode::Upsert => {}
        KeyMode::Dedup | KeyMode::PartialUpsert => {
            let mode = if key.mode == KeyMode::Dedup { "dedup" } else { "partial_upsert" };
            let message = format!("table \"{}\" of mode '{mode}' does not replace rows", table.name);
            return Err(given_again.refused(message).with_hint("a table of mode 'upsert' does"));
        }
    }
    given_again.check_key(key, keys)
}

/// Refuses a sink whose readers could not tell which record stands for which. `columns`: what each output is called there.
pub(super) fn check_sink(plan: &Plan, late: Late, sink: &str, key: &[String], columns: &[String]) -> Result<()> {
    let Some((why, way_out)) = reason(plan, late) else { return Ok(()) };
    let Some(keys) = plan.keys() else { return Ok(()) };
    let lineages: Vec<Lineage> = key
        .iter()
        .filter_map(|name| plan.lineage().get(columns.iter().position(|column| column == name)?).copied())
        .collect();
    let has_keys = (0..keys).all(|at| lineages.contains(&Lineage::Key(at)));
    let has_window = plan.is_updating() || lineages.contains(&Lineage::Window);
    if has_keys && has_window && !key.is_empty() {
        return Ok(());
    }
    let of = if plan.is_updating() {
        "the columns of GROUP BY"
    } else {
        "the columns of GROUP BY and one end of the window"
    };
    Err(SqlError::unsupported(format!("{why}, and the key of sink \"{sink}\" is not that of a group"))
        .with_hint(format!("make a sink whose option key names {of}, or {way_out}")))
}

/// Groups that come again, and the table that they come to.
struct Given<'a> {
    plan: &'a Plan,
    table: &'a TableDefinition,
    columns: &'a [String],
    why: &'static str,
    way_out: &'static str,
}

impl Given<'_> {
    fn refused(&self, what: String) -> SqlError {
        let key = match self.plan.is_updating() {
            true => "the columns of GROUP BY",
            false => "the columns of GROUP BY and one end of the window",
        };
        SqlError::unsupported(format!("{}, and {what}", self.why))
            .with_hint(format!("make a table whose PRIMARY KEY is {key}, or {}", self.way_out))
    }

    /// The column of the table, and what goes to it.
    fn column(&self, id: ColumnId) -> (&str, Option<Lineage>) {
        let Some(column) = self.table.schema.columns.iter().find(|column| column.id == id) else { return ("", None) };
        let at = self.columns.iter().position(|name| *name == column.name);
        (&column.name, at.and_then(|at| self.plan.lineage().get(at).copied()))
    }

    fn check_key(&self, key: &KeyDefinition, keys: usize) -> Result<()> {
        let name = &self.table.name;
        let mut found = vec![false; keys];
        let version = key.version.map(|version| self.column(version));
        let mut has_window = version.is_some_and(|(_, lineage)| lineage == Some(Lineage::Window));
        for id in &key.columns {
            match self.column(*id) {
                (_, Some(Lineage::Key(at))) => found[at] = true,
                (_, Some(Lineage::Window)) => has_window = true,
                (column, _) => {
                    let what =
                        format!("column \"{column}\" of the primary key of table \"{name}\" is no column of GROUP BY");
                    return Err(self.refused(what));
                }
            }
        }
        if !found.iter().all(|found| *found) {
            let what = format!("not every column of GROUP BY is in the primary key of table \"{name}\"");
            return Err(self.refused(what));
        }
        if self.plan.is_updating() {
            // Of what is given again the version need not be greater.
            return match version {
                Some((column, Some(_))) => Err(self
                    .refused(format!("the version_column \"{column}\" of table \"{name}\" may keep the older row"))
                    .with_hint("leave version_column away: rows come in the order in which they are made")),
                _ => Ok(()),
            };
        }
        match has_window {
            true => Ok(()),
            false => Err(self
                .refused(format!("a window that is given again would replace later ones in table \"{name}\""))
                .with_hint("put one end of the window into the primary key, or make it the version_column")),
        }
    }
}
