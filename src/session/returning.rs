//! RETURNING: what a statement gives of the rows that it writes. It is made before they are written, so that a statement that cannot return them leaves
//! everything as it was, and held until they are.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::common::ScalarValue;
use futures::StreamExt;
use tidemill_query::plan::{Returning, Write, WriteKind};

use super::{Prepared, Response, Rows, RowsTag, Session, columns, error::Result, write::Staged};

/// What is returned when the rows are written; `None` without RETURNING.
pub(super) type Returned = Option<Vec<RecordBatch>>;

impl Session {
    /// What is returned of new rows.
    pub(super) async fn returned(
        &mut self,
        write: &Write,
        values: Vec<ScalarValue>,
        rows: &[RecordBatch],
    ) -> Result<Returned> {
        let Some(Returning::Query(plan)) = &write.returning else { return Ok(None) };
        let mut staged = Staged::default();
        let mut batches = self.start_returning(plan, values, rows.to_vec())?;
        while let Some(batch) = batches.next().await {
            staged.push(batch?)?;
        }
        Ok(Some(staged.batches))
    }
}

/// The answer of a statement that wrote rows.
pub(super) fn answer(prepared: &Prepared, write: &Write, rows: u64, returned: Returned) -> Response {
    let tag = RowsTag::Written { kind: write.kind, rows };
    let (Some(batches), Some(returning)) = (returned, &write.returning) else {
        return Response::Command(tag.complete(rows));
    };
    let schema: SchemaRef = Arc::clone(returning.schema());
    let columns = prepared.columns.clone().unwrap_or_else(|| columns(&schema, returning.origins()));
    let batches = Box::pin(futures::stream::iter(batches.into_iter().map(Ok)));
    Response::Rows(Rows { schema, columns, batches, tag, binary: false, live: false })
}

/// What the statement is called.
pub(super) fn name(kind: WriteKind) -> &'static str {
    match kind {
        WriteKind::Insert => "INSERT",
        WriteKind::Update => "UPDATE",
        WriteKind::Delete => "DELETE",
    }
}
