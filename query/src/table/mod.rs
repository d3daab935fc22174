//! A stored table as DataFusion's `TableProvider`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::TableType,
    error::DataFusionError,
    logical_expr::Expr,
    physical_plan::ExecutionPlan,
};
use tidemill_storage::schema::TableSchema;

use crate::{SqlError, TableHandle};

/// A table in the schema it had when the statement was planned.
#[derive(Debug)]
pub struct StoredTable {
    handle: TableHandle,
    planned: Arc<TableSchema>,
    arrow: SchemaRef,
}

impl StoredTable {
    pub fn new(handle: TableHandle) -> Self {
        let planned = handle.table.schema();
        let arrow = planned.arrow();
        Self { handle, planned, arrow }
    }

    pub fn handle(&self) -> &TableHandle {
        &self.handle
    }

    pub fn planned_schema(&self) -> &Arc<TableSchema> {
        &self.planned
    }
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.arrow)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Err(SqlError::not_supported("scanning a table").into())
    }
}
