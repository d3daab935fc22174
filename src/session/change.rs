//! UPDATE and DELETE: the rows are read with their addresses, then changed all at once.

use std::sync::Arc;

use arrow::{
    array::{Array, BooleanArray},
    compute::filter_record_batch,
};
use datafusion::common::ScalarValue;
use futures::StreamExt;
use tidemill_ingest::consumer::RowChange;
use tidemill_query::Plan;
use tidemill_storage::scan::Addresses;

use super::{
    Session,
    backend::WriteTarget,
    error::Result,
    execute::died,
    write::{Staged, check_not_null},
};
use crate::runtime;

impl Session {
    /// Runs a statement that changes rows; how many it changed. Rows in memory are committed first where the statement is about any of them, and read
    /// again; what came after that is not its concern.
    pub(super) async fn change(&mut self, plan: &Plan, values: Vec<ScalarValue>, target: &WriteTarget) -> Result<u64> {
        let backend = Arc::clone(&self.shared.backend);
        let turn = self.interruptible(backend.turn(target)).await?;
        let mut is_sealed = false;
        let (gone, rows) = loop {
            let (mut gone, mut staged, mut in_memory) = (Addresses::default(), Staged::default(), false);
            let (_, mut batches) = self.start(plan, values.clone())?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                in_memory |= batch.columns().last().is_some_and(|positions| positions.null_count() > 0);
                let taken = BooleanArray::from(gone.take(&batch)?);
                if batch.num_columns() > 2 {
                    let rows = filter_record_batch(&batch, &taken)?;
                    for (column, array) in target.schema.columns.iter().zip(rows.columns()) {
                        check_not_null(target, column, array)?;
                    }
                    staged.push(rows)?;
                }
            }
            if !in_memory || is_sealed {
                break (gone, staged.batches);
            }
            self.interruptible(backend.seal(target)).await?;
            is_sealed = true;
        };
        let changed = gone.rows();
        if changed > 0 {
            let change = RowChange { gone, rows, schema: Arc::clone(&target.schema) };
            let target = target.clone();
            // In a task of its own: it is carried through even when the client goes away meanwhile.
            runtime::spawn(async move {
                let _turn = turn;
                backend.change(&target, change).await
            })
            .await
            .map_err(died)??;
            self.transaction.lasting.rows = true;
        }
        Ok(changed)
    }
}
