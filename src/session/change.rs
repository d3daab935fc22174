//! UPDATE and DELETE: the rows are read with their addresses, then changed all at once.

use std::sync::Arc;

use arrow::{
    array::{Array, BooleanArray, RecordBatch, RecordBatchOptions},
    compute::filter_record_batch,
};
use datafusion::common::ScalarValue;
use futures::StreamExt;
use tidemill_ingest::consumer::RowChange;
use tidemill_query::{
    Plan,
    plan::{Returning, Write, WriteKind},
};
use tidemill_storage::scan::Addresses;

use super::{
    Session,
    backend::WriteTarget,
    error::{Result, SqlError, state},
    execute::died,
    returning::Returned,
    write::{Staged, check_not_null},
};
use crate::runtime;

/// What a statement is about.
pub(super) struct Read {
    pub(super) change: RowChange,
    /// Some of it is in memory, and is not in the change.
    pub(super) in_memory: bool,
    /// What is returned of deleted rows.
    returned: Staged,
}

impl Session {
    /// Runs a statement that changes rows; how many it changed, and what it returns of them. Rows in memory are committed first where the statement is about any of them, and read
    /// again; what came after that is not its concern. In a table that merges rows it is: what a newer version was merged with must not be changed
    /// beneath it. There no rows come meanwhile.
    pub(super) async fn change(
        &mut self,
        plan: &Plan,
        write: &Write,
        values: Vec<ScalarValue>,
        target: &WriteTarget,
    ) -> Result<(u64, Returned)> {
        let backend = Arc::clone(&self.shared.backend);
        let turn = Arc::new(self.interruptible(backend.turn(target)).await?);
        let merges = write.table.table.key().is_some_and(|key| key.merges);
        let (mut still, mut is_sealed) = (None, false);
        loop {
            let Read { change, in_memory, returned } = self.read_changed(plan, write, values.clone(), target).await?;
            if !in_memory || is_sealed {
                if in_memory && merges {
                    let message = format!("rows of table '{}' came meanwhile; send the statement again", target.name);
                    return Err(SqlError::new(state::SERIALIZATION_FAILURE, message));
                }
                let changed = change.gone.rows();
                let returned = match &write.returning {
                    Some(Returning::Read { .. }) => Some(returned.batches),
                    _ => self.returned(write, values.clone(), &change.rows).await?,
                };
                if changed == 0 {
                    return Ok((0, returned));
                }
                let (backend, target) = (Arc::clone(&backend), target.clone());
                let held = (Arc::clone(&turn), still.clone());
                // In a task of its own: it is carried through even when the client goes away meanwhile.
                let outcome = runtime::spawn(async move {
                    let _held = held;
                    backend.change(&target, change).await
                });
                match outcome.await.map_err(died)? {
                    Err(error) if error.state == state::SERIALIZATION_FAILURE && merges && still.is_none() => {}
                    outcome => {
                        outcome?;
                        self.transaction.lasting.rows = true;
                        return Ok((changed, returned));
                    }
                }
            }
            if merges {
                still = Some(Arc::new(self.interruptible(backend.still(target)).await?));
            }
            self.interruptible(backend.seal(target)).await?;
            is_sealed = true;
        }
    }

    pub(super) async fn read_changed(
        &mut self,
        plan: &Plan,
        write: &Write,
        values: Vec<ScalarValue>,
        target: &WriteTarget,
    ) -> Result<Read> {
        let (mut gone, mut staged, mut in_memory) = (Addresses::default(), Staged::default(), false);
        let mut returned = Staged::default();
        let (_, mut batches) = self.start(plan, values)?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            in_memory |= batch.columns().last().is_some_and(|positions| positions.null_count() > 0);
            let taken = BooleanArray::from(gone.take(&batch)?);
            if let Some(Returning::Read { schema, .. }) = &write.returning {
                let rows = filter_record_batch(&batch, &taken)?;
                let columns = rows.columns()[..schema.fields().len()].to_vec();
                let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
                returned.push(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)?;
            }
            if write.kind == WriteKind::Update {
                let rows = filter_record_batch(&batch, &taken)?;
                for (column, array) in target.schema.columns.iter().zip(rows.columns()) {
                    check_not_null(target, column, array)?;
                }
                staged.push(rows)?;
            }
        }
        let change = RowChange { gone, rows: staged.batches, schema: Arc::clone(&target.schema) };
        Ok(Read { change, in_memory, returned })
    }
}
