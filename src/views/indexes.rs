//! `rt.indexes`: which indexes there are, and how far they are built.

use tidemill_query::{SqlError, star_tree};
use tidemill_storage::{ids::IndexId, index::IndexKind, schema::TableSchema, segment::Segment};

use super::{
    Rows,
    rows::{
        Cell,
        Kind::{self, Float, Int, Text, Time},
    },
};
use crate::{catalog::definition::IndexDefinition, server::instance::Instance};

pub(super) const INDEXES: &[(&str, Kind)] = &[
    ("index", Text),
    ("table", Text),
    ("kind", Text),
    ("columns", Text),
    ("options", Text),
    ("state", Text),
    ("progress", Float),
    ("segments_built", Int),
    ("segments_total", Int),
    ("bytes", Int),
    ("error", Text),
    ("created_at", Time),
];

pub(super) fn indexes(instance: &Instance) -> Result<Rows, SqlError> {
    let mut rows = Vec::new();
    for (table, live) in instance.all_live() {
        let snapshot = live.table.snapshot();
        for index in &table.indexes {
            let id = IndexId(index.oid);
            let Some(spec) = snapshot.indexes.iter().find(|spec| spec.id == id) else { continue };
            let (mut built, mut wanted, mut bytes) = (0u64, 0u64, 0u64);
            let segments = snapshot.views.iter().flat_map(|view| view.segments());
            for segment in segments.filter_map(|segment| segment.as_committed()) {
                if let (IndexKind::Sorted, Some(column)) = (&spec.kind, spec.column()) {
                    wanted += u64::from(segment.schema().column(column).is_some());
                    built += u64::from(segment.is_sorted_by(column));
                } else if segment.wants_index(spec) {
                    wanted += 1;
                    if let Some(found) = segment.index_bytes(id) {
                        built += 1;
                        bytes += found;
                    }
                }
            }
            let error = if built < wanted { live.ingest.index_error(id) } else { None };
            let state = match (built == wanted, &error) {
                (true, _) => "ready",
                // Segments stay in the order that they were sealed in.
                _ if !spec.kind.has_files() => "partial",
                (false, None) => "building",
                (false, Some(_)) => "failing",
            };
            let columns = match &index.kind {
                IndexKind::StarTree(tree) => star_tree::dimensions(tree, &table.schema),
                _ => {
                    let named = index.columns.iter().filter_map(|id| table.schema.column(*id));
                    named.map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
                }
            };
            rows.push(vec![
                index.name.as_str().into(),
                table.name.as_str().into(),
                index.kind.name().into(),
                columns.into(),
                options(index, &table.schema).into(),
                state.into(),
                Cell::Float(if wanted == 0 { 1.0 } else { built as f64 / wanted as f64 }),
                built.into(),
                wanted.into(),
                bytes.into(),
                error.into(),
                Cell::Time(index.created_at_us),
            ]);
        }
    }
    Ok(rows)
}

fn options(index: &IndexDefinition, schema: &TableSchema) -> Option<String> {
    match &index.kind {
        IndexKind::Bloom { fpp } => Some(format!("fpp={fpp}")),
        IndexKind::JsonPaths(paths) => {
            let each: Vec<String> =
                paths.options().into_iter().map(|(key, value)| format!("{key}=({value})")).collect();
            Some(each.join(", "))
        }
        IndexKind::StarTree(tree) => Some(format!(
            "aggregate=({}), max_leaf_records={}",
            star_tree::aggregates(tree, schema),
            tree.max_leaf_records
        )),
        _ => None,
    }
}
