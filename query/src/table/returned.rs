//! The rows that a statement writes, as a table that its RETURNING reads.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::{MemTable, TableType},
    error::DataFusionError,
    logical_expr::Expr,
    physical_plan::ExecutionPlan,
};

use super::StoredTable;

/// Travels in the session configuration of one execution: its rows, with the columns of the table first.
#[derive(Debug, Default)]
pub(crate) struct WrittenRows(pub(crate) Vec<RecordBatch>);

/// The table that a statement writes to, with those rows alone that it writes.
#[derive(Debug)]
pub(crate) struct ReturnedTable {
    pub(crate) stored: StoredTable,
}

#[async_trait]
impl TableProvider for ReturnedTable {
    fn schema(&self) -> SchemaRef {
        self.stored.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let schema = self.schema();
        let written = state.config().get_extension::<WrittenRows>();
        let batches = written.iter().flat_map(|written| &written.0).map(|batch| {
            let columns = batch.columns().iter().take(schema.fields().len()).cloned().collect();
            RecordBatch::try_new(Arc::clone(&schema), columns)
        });
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        MemTable::try_new(schema, vec![batches])?.scan(state, projection, filters, limit).await
    }
}
