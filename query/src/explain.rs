//! EXPLAIN: the physical plan as lines of one text column, with what each scan pruned and, under ANALYZE, what it read.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringViewArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    execution::SessionState,
    physical_plan::{display::DisplayableExecutionPlan, execute_stream},
};
use futures::StreamExt;

use crate::{Plan, SqlError, session::physical_plan};

/// What EXPLAIN was asked for.
#[derive(Clone, Debug, Default)]
pub struct Explain {
    pub analyze: bool,
    pub verbose: bool,
    pub json: bool,
}

/// The one column that EXPLAIN gives.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8View, false)]))
}

pub(crate) async fn run(state: &SessionState, plan: &Plan, explain: &Explain) -> Result<RecordBatch, SqlError> {
    let located = |error| SqlError::from_datafusion(&error, &plan.sql);
    let physical = physical_plan(state, &plan.logical).await.map_err(located)?;
    let text = if explain.analyze {
        let mut batches = execute_stream(Arc::clone(&physical), state.task_ctx()).map_err(located)?;
        while let Some(batch) = batches.next().await {
            batch.map_err(located)?;
        }
        DisplayableExecutionPlan::with_metrics(physical.as_ref()).indent(explain.verbose).to_string()
    } else {
        DisplayableExecutionPlan::new(physical.as_ref()).indent(explain.verbose).to_string()
    };
    let lines: ArrayRef = Arc::new(StringViewArray::from_iter_values(text.lines()));
    Ok(RecordBatch::try_new(schema(), vec![lines])?)
}
