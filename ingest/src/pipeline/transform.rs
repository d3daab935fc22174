//! The `AS SELECT … WHERE …` of a table that reads from a source.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::execution::SessionState;
use tidemill_storage::schema::TableSchema;

use crate::{
    Error, Result,
    message::{Reject, SourceBatch},
};

/// From rows of a source to rows of one table.
#[derive(Debug)]
pub struct Transform {}

/// What a transform makes of a source batch.
#[derive(Clone, Debug)]
pub struct TransformedBatch {
    /// The columns of the table, in order.
    pub rows: RecordBatch,
    /// The offset each row came from; never decreasing.
    pub row_offsets: Vec<u64>,
    /// Rows whose expressions failed, in offset order. The batch's own rejects are not repeated here.
    pub rejects: Vec<Reject>,
}

impl Transform {
    /// `select` is the text of `SELECT items [WHERE condition]` without FROM; `None` takes columns by name. `*` stands for all columns of
    /// the source; a derived column replaces the one of `*` with its name. Output goes to table columns by name; columns that get nothing have
    /// their default or NULL. `Definition` for what cannot work: unknown names, a NOT NULL column without a value, a type that would have to
    /// be narrowed, aggregates.
    pub fn compile(
        state: &SessionState,
        source: &SchemaRef,
        select: Option<&str>,
        target: &TableSchema,
    ) -> Result<Self> {
        let _ = (state, source, select, target);
        Err(Error::Definition { message: "transforms are not there yet".into(), hint: None })
    }

    /// Filters and derives. Never fails as a whole.
    pub fn apply(&self, batch: &SourceBatch) -> TransformedBatch {
        TransformedBatch { rows: batch.rows.clone(), row_offsets: Vec::new(), rejects: Vec::new() }
    }
}
