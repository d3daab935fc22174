//! ON CONFLICT of INSERT, on the syntax tree: it is taken off where the table does what it says by itself, and refused where it does not.
//!
//! | table | DO NOTHING | DO UPDATE SET every column = EXCLUDED's |
//! |---|---|---|
//! | without a key | nothing can be in conflict | 42P10 |
//! | `upsert` | 0A000 | what INSERT is |
//! | `dedup` | what INSERT is | 0A000 |
//! | `partial_upsert`, or with a `version_column` | 0A000: the columns, or the version, say what stays | 0A000 |

use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget, Expr, Ident, OnConflict, OnConflictAction, OnInsert, Statement,
};
use tidemill_storage::{
    schema::TableSchema,
    upsert::{Keep, KeySpec},
};

use super::{changes::row_values, syntax::folded};
use crate::{SqlError, TableHandle};

/// Settles the clause of a statement that inserts into `table`.
pub(super) fn settle(
    statement: &mut Statement,
    table: &TableHandle,
    schema: &TableSchema,
    returns: bool,
) -> Result<(), SqlError> {
    let Statement::Insert(insert) = statement else { return Ok(()) };
    let (conflict_target, action) = match insert.on.take() {
        None => return Ok(()),
        Some(OnInsert::OnConflict(OnConflict { conflict_target, action })) => (conflict_target, action),
        Some(_) => return Err(SqlError::syntax("INSERT takes ON CONFLICT, not ON DUPLICATE KEY")),
    };
    let key = table.table.key();
    check_target(conflict_target.as_ref(), key.map(AsRef::as_ref), table, schema)?;
    let refused = |hint: &str| {
        let what = match &action {
            OnConflictAction::DoNothing => "NOTHING",
            OnConflictAction::DoUpdate(_) => "UPDATE",
        };
        Err(SqlError::not_supported(format!("ON CONFLICT DO {what} for table \"{}\"", table.name)).with_hint(hint))
    };
    let Some(key) = key else { return Ok(()) };
    if key.merges {
        return refused(
            "INSERT merges a row with the one of its key, as MERGE of the columns says: leave ON CONFLICT out.",
        );
    }
    if key.version.is_some() {
        return refused("The version_column says which row of a key stays: leave ON CONFLICT out.");
    }
    match (&action, key.keep) {
        (OnConflictAction::DoNothing, Keep::First) if returns => {
            refused("Which rows were there before is not known when INSERT returns: leave RETURNING out.")
        }
        (OnConflictAction::DoNothing, Keep::First) => Ok(()),
        (OnConflictAction::DoNothing, Keep::Last) => refused(
            "INSERT replaces the row of its key; in a table WITH (mode = 'dedup') the first row of a key stays.",
        ),
        (OnConflictAction::DoUpdate(_), Keep::First) => {
            refused("In a table of mode 'dedup' the first row of a key stays; mode = 'upsert' keeps the last.")
        }
        (OnConflictAction::DoUpdate(update), Keep::Last) => {
            if update.selection.is_none() && replaces_all(&update.assignments, key, schema) {
                return Ok(());
            }
            refused(
                "INSERT replaces the whole row of its key, as DO UPDATE SET does with every column = EXCLUDED.column and without WHERE; \
                 mode = 'partial_upsert' merges rows, and UPDATE changes single columns.",
            )
        }
    }
}

fn check_target(
    target: Option<&ConflictTarget>,
    key: Option<&KeySpec>,
    table: &TableHandle,
    schema: &TableSchema,
) -> Result<(), SqlError> {
    match target {
        None => Ok(()),
        Some(ConflictTarget::OnConstraint(name)) => {
            let name = name.0.last().and_then(|part| part.as_ident()).map(folded).unwrap_or_default();
            match key.is_some() && name == format!("{}_pkey", table.name) {
                true => Ok(()),
                false => Err(SqlError::new(
                    "42704",
                    format!("constraint \"{name}\" for table \"{}\" does not exist", table.name),
                )),
            }
        }
        Some(ConflictTarget::Columns(columns)) => {
            let mut named: Vec<String> = columns.iter().map(folded).collect();
            for name in &named {
                if !schema.columns.iter().any(|column| column.name == *name) {
                    return Err(SqlError::new("42703", format!("column \"{name}\" does not exist")));
                }
            }
            let of_key = key.iter().flat_map(|key| &key.columns).filter_map(|id| schema.column(*id));
            let mut wanted: Vec<String> = of_key.map(|column| column.name.clone()).collect();
            named.sort();
            wanted.sort();
            named.dedup();
            match !wanted.is_empty() && named == wanted {
                true => Ok(()),
                false => Err(SqlError::new(
                    "42P10",
                    "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                )
                .with_hint(match wanted.is_empty() {
                    true => format!("Table \"{}\" keeps every row: it has no key.", table.name),
                    false => format!("The key of table \"{}\" is ({}).", table.name, wanted.join(", ")),
                })),
            }
        }
    }
}

/// Whether every column that is not of the key is set to what the new row has, and nothing else is done.
fn replaces_all(assignments: &[Assignment], key: &KeySpec, schema: &TableSchema) -> bool {
    let mut pairs: Vec<(Option<&Ident>, Expr)> = Vec::new();
    for Assignment { target, value } in assignments {
        match target {
            AssignmentTarget::ColumnName(name) => {
                pairs.push((name.0.last().and_then(|part| part.as_ident()), value.clone()));
            }
            AssignmentTarget::Tuple(names) => {
                let Some(values) = row_values(value).filter(|values| values.len() == names.len()) else { return false };
                let names = names.iter().map(|name| name.0.last().and_then(|part| part.as_ident()));
                pairs.extend(names.zip(values));
            }
        }
    }
    let is_taken_over = |name: &Option<&Ident>, value: &Expr| match (name, value) {
        (Some(name), Expr::CompoundIdentifier(parts)) => {
            matches!(parts.as_slice(), [of, column] if folded(of) == "excluded" && folded(column) == folded(name))
        }
        _ => false,
    };
    pairs.iter().all(|(name, value)| is_taken_over(name, value))
        && schema
            .columns
            .iter()
            .filter(|column| !key.columns.contains(&column.id))
            .all(|column| pairs.iter().any(|(name, _)| name.is_some_and(|name| folded(name) == column.name)))
}
