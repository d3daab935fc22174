//! `rt.consistency_check('table')`: what its sources have and what it has.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tidemill_ingest::consistency::Line;
use tidemill_query::SqlError;
use tidemill_storage::ids::ColumnId;

use super::catalog::failed;
use super::{
    Cell,
    Kind::{self, Int, Text},
    Rows, engine_error, ingest_error,
};
use crate::{
    catalog::{database::DatabaseError, definition::TableDefinition},
    runtime,
    server::instance::Instance,
};

pub(super) const CHECK: &[(&str, Kind)] = &[
    ("table", Text),
    ("partition", Int),
    ("segment", Int),
    ("source", Text),
    ("source_partition", Int),
    ("from_offset", Int),
    ("to_offset", Int),
    ("source_rows", Int),
    ("table_rows", Int),
    ("superseded", Int),
    ("removed", Int),
    ("missing", Int),
    ("extra", Int),
    ("source_hash", Text),
    ("table_hash", Text),
    ("state", Text),
    ("detail", Text),
];

/// Tells a check that nobody waits for it any more.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) async fn check(instance: &Arc<Instance>, name: &str) -> Result<Rows, SqlError> {
    let (table, live) = instance.table(name).map_err(engine_error)?;
    let cancel = Cancel(Arc::default());
    // The log of changes may be long.
    let (of_log, of_table) = (Arc::clone(instance), Arc::clone(&table));
    let original = runtime::blocking(move || original_columns(&of_log, &of_table)).await;
    let original = original.map_err(|error| failed(&error))?;
    let lines = live.ingest.check_consistency(original, Arc::clone(&cancel.0)).await.map_err(ingest_error)?;
    Ok(lines.into_iter().map(|line| row(&table.name, line)).collect())
}

/// The columns that a table was made with.
fn original_columns(instance: &Instance, table: &TableDefinition) -> Result<Vec<ColumnId>, DatabaseError> {
    for (_, record) in instance.catalog.changes()? {
        if record.kind == "table.create" && record.body["id"] == serde_json::json!(table.id) {
            let made: TableDefinition = serde_json::from_value(record.body)?;
            return Ok(made.schema.columns.iter().map(|column| column.id).collect());
        }
    }
    Ok(Vec::new())
}

fn row(table: &str, line: Line) -> Vec<Cell> {
    let (source, source_partition) = line.source.unzip();
    let (from, to) = line.offsets.unzip();
    let hash = |hash: u64| format!("{hash:016x}");
    let (of_source, of_table) = line.hashes.map(|(source, table)| (hash(source), hash(table))).unzip();
    vec![
        table.into(),
        line.partition.map(|partition| partition.0).into(),
        line.segment.map(|segment| segment.0).into(),
        source.into(),
        source_partition.into(),
        from.into(),
        to.into(),
        line.source_rows.into(),
        line.table_rows.into(),
        line.superseded.into(),
        line.removed.into(),
        line.missing.into(),
        line.extra.into(),
        of_source.into(),
        of_table.into(),
        line.verdict.name().into(),
        line.detail.into(),
    ]
}
