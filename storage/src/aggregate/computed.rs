//! Columns that an aggregation computes from stored ones: the `price * quantity` of `sum(price * quantity)`.
//!
//! Rows are chosen and grouped on encoded values as ever; of those that are left, the inputs are decoded and the layer above computes
//! a value for each.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::{Schema, SchemaRef},
};

use super::{
    AggregateRequest,
    block::{Block, Shape},
};
use crate::{Error, Result, ids::ColumnId, schema::Column};

/// How the values come about.
pub trait Computation: Send + Sync + fmt::Debug {
    /// A value for each of `rows`, whose columns are the inputs in their order, in the types that they have in the request's schema.
    fn values(&self, rows: &RecordBatch) -> Result<ArrayRef>;
}

/// A column that no segment has.
#[derive(Clone, Debug)]
pub struct Computed {
    /// With an id of [`Computed::id`].
    pub column: Column,
    pub inputs: Vec<ColumnId>,
    pub computation: Arc<dyn Computation>,
}

impl Computed {
    /// The id of the computed column at this index of a request: one that no stored column has.
    pub fn id(index: usize) -> ColumnId {
        ColumnId(u32::MAX - index as u32)
    }
}

/// A computed column with what is known of its inputs.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) inputs: Vec<Column>,
    schema: SchemaRef,
    computation: Arc<dyn Computation>,
}

impl Recipe {
    pub(crate) fn new(computed: &Computed, request: &AggregateRequest) -> Result<Self> {
        let stored = |id: &ColumnId| {
            request.schema.column(*id).cloned().ok_or_else(|| Error::Invalid(format!("the table has no column {id}")))
        };
        let inputs = computed.inputs.iter().map(stored).collect::<Result<Vec<_>>>()?;
        let fields: Vec<_> =
            inputs.iter().map(|column| column.data_type.field(&column.name, column.nullable)).collect();
        Ok(Self { inputs, schema: Arc::new(Schema::new(fields)), computation: Arc::clone(&computed.computation) })
    }

    /// Puts the values of `rows` rows into a block.
    pub(crate) fn fill(&self, inputs: Vec<ArrayRef>, rows: usize, block: &mut Block, shape: &Shape) -> Result<()> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), inputs, &options)?;
        let values = self.computation.values(&batch)?;
        if values.len() != rows {
            return Err(Error::Invalid(format!("{} values were computed for {rows} rows", values.len())));
        }
        block.fill(&values, shape)
    }
}
