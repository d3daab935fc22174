//! The content of rows as one number each, and all rows that a view has.

use std::sync::{Arc, atomic::AtomicBool};

use arrow::{
    array::{ArrayRef, RecordBatch},
    row::{RowConverter, SortField},
};
use tidemill_storage::{
    evaluate::plain_floats,
    hash,
    ids::ColumnId,
    scan::{ScanHints, ScanMetrics, ScanRequest},
    schema::TableSchema,
    segment::Segment,
};

use super::{Committed, go_on};
use crate::Result;

const BATCH_ROWS: usize = 64 * 1024;

/// Hashes rows by the columns that all segments have and messages bring.
pub(super) struct Content {
    columns: Vec<ColumnId>,
    converter: RowConverter,
}

impl Content {
    /// `left_out`: columns that messages do not bring.
    pub(super) fn new(schema: &TableSchema, committed: &Committed, left_out: &[ColumnId]) -> Result<Self> {
        let segments = || committed.partitions.iter().flat_map(|(_, view, _)| view.segments());
        let is_common = |id: ColumnId| segments().all(|segment| segment.schema().column(id).is_some());
        let is_taken = |id| committed.compared.contains(&id) && !left_out.contains(&id) && is_common(id);
        let taken = schema.columns.iter().filter(|column| is_taken(column.id));
        let taken: Vec<_> = taken.collect();
        let fields = taken.iter().map(|column| SortField::new(column.data_type.arrow())).collect();
        let columns = taken.iter().map(|column| column.id).collect();
        Ok(Self { columns, converter: RowConverter::new(fields).map_err(tidemill_storage::Error::from)? })
    }

    pub(super) fn hashes(&self, schema: &TableSchema, rows: &RecordBatch) -> Result<Vec<u64>> {
        if self.columns.is_empty() {
            return Ok(vec![0; rows.num_rows()]);
        }
        let arrays = arrays(schema, rows, &self.columns)?;
        let plain: Vec<ArrayRef> = arrays.iter().map(plain_floats).collect();
        let rows = self.converter.convert_columns(&plain).map_err(tidemill_storage::Error::from)?;
        Ok(rows.iter().map(|row| hash::of_bytes(row.data())).collect())
    }
}

/// The columns with these ids, of rows of a schema.
pub(super) fn arrays(schema: &TableSchema, rows: &RecordBatch, ids: &[ColumnId]) -> Result<Vec<ArrayRef>> {
    let column = |id: &ColumnId| match schema.index_of(*id) {
        Some(index) => Ok(Arc::clone(rows.column(index))),
        None => Err(tidemill_storage::Error::Invalid(format!("the rows have no column with id {id}")).into()),
    };
    ids.iter().map(column).collect()
}

/// Gives all rows of a segment, whether readers see them or not, in their order and in the columns of `schema`: the number of the first, and the rows.
pub(super) fn stored(
    segment: &Arc<dyn Segment>,
    schema: &Arc<TableSchema>,
    cancelled: &AtomicBool,
    mut each: impl FnMut(u32, RecordBatch) -> Result<()>,
) -> Result<()> {
    let request = Arc::new(ScanRequest {
        schema: Arc::clone(schema),
        projection: schema.columns.iter().map(|column| column.id).collect(),
        predicate: None,
        limit: None,
        batch_rows: BATCH_ROWS,
        hints: ScanHints::default(),
    });
    let mut first = 0;
    for batch in Arc::clone(segment).scan(0..segment.rows(), request, Arc::new(ScanMetrics::default()))? {
        go_on(cancelled)?;
        let batch = batch?;
        let rows = batch.num_rows() as u32;
        each(first, batch)?;
        first += rows;
    }
    match first == segment.rows() {
        true => Ok(()),
        false => {
            let message = format!("segment {} gave {first} rows, not {}", segment.id(), segment.rows());
            Err(tidemill_storage::Error::Invalid(message).into())
        }
    }
}
