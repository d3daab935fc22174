//! Tables as pipelines look into them: what the plan knows of one, and its rows.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    datatypes::{DataType as ArrowType, Field, Schema},
};
use tidemill_ingest::{
    Error, Result,
    pipeline::{TableRows, plan::PlanTable},
};
use tidemill_storage::{ids::ColumnId, table::Table};

use super::instance::Instance;
use crate::catalog::{
    Definitions,
    definition::{PipelineDefinition, TableDefinition},
};

/// What the plan knows of tables.
pub fn plan_tables(tables: &[Arc<TableDefinition>]) -> Vec<PlanTable> {
    tables.iter().map(|table| plan_table(table)).collect()
}

fn plan_table(table: &TableDefinition) -> PlanTable {
    let place = |id: &ColumnId| table.schema.columns.iter().position(|column| column.id == *id);
    // Where keys have an age, a key may have many rows.
    let key = table.key.as_ref().filter(|key| key.ages.is_none_or(|ages| ages.key_us.is_none()));
    PlanTable {
        name: table.name.clone(),
        schema: table.schema.arrow(),
        key: key.map(|key| key.columns.iter().filter_map(place).collect()).unwrap_or_default(),
        time: table.schema.time_column.or(key.and_then(|key| key.version)).as_ref().and_then(place),
    }
}

/// The tables that a pipeline looks into, in its order.
pub fn tables_of(definitions: &Definitions, pipeline: &PipelineDefinition) -> Vec<Arc<TableDefinition>> {
    pipeline.tables.iter().filter_map(|id| definitions.tables.get(id).cloned()).collect()
}

/// The same as they run. `Unavailable` for one that could not be opened.
pub fn live(
    instance: &Instance,
    definitions: &Definitions,
    pipeline: &PipelineDefinition,
) -> Result<Vec<Arc<dyn TableRows>>> {
    let of_table = |table: Arc<TableDefinition>| {
        let live = instance.live(table.id).ok_or_else(|| {
            let reason = instance.broken(table.id).unwrap_or_default();
            Error::Unavailable(format!("table '{}' could not be opened: {reason}", table.name))
        })?;
        let columns = table.schema.columns.iter().map(|column| column.id).collect();
        Ok(Arc::new(StoredRows { table: Arc::clone(&live.table), columns }) as Arc<dyn TableRows>)
    };
    tables_of(definitions, pipeline).into_iter().map(of_table).collect()
}

/// A stored table.
#[derive(Debug)]
struct StoredRows {
    table: Arc<Table>,
    /// Of the schema that the plan was made with.
    columns: Vec<ColumnId>,
}

impl TableRows for StoredRows {
    fn rows_of(&self, by: &[usize], keys: &[ArrayRef], columns: &[usize]) -> Result<RecordBatch> {
        let ids = |places: &[usize]| places.iter().filter_map(|at| self.columns.get(*at).copied()).collect::<Vec<_>>();
        let found = self.table.partners(&ids(by), keys, &ids(columns))?;
        let mut fields = vec![Field::new("key", ArrowType::UInt32, false)];
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(found.keys))];
        for (at, column) in found.columns.into_iter().enumerate() {
            fields.push(Field::new(format!("c{at}"), column.data_type().clone(), true));
            arrays.push(column);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    }
}
