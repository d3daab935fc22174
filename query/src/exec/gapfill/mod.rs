//! Filling gaps between buckets of time: the operator above the groups that there are ([`rules::gapfill`](crate::rules::gapfill)).
//!
//! Its input comes sorted by the other keys and the bucket, and so its rows go out, a batch at a time: however many buckets there are, one batch of rows is in memory
//! and the query can be stopped between any two.

mod filler;
mod planner;
mod values;

use std::{fmt, sync::Arc};

use arrow::{
    array::RecordBatch,
    compute::SortOptions,
    datatypes::{DataType, SchemaRef},
};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    error::DataFusionError,
    execution::{TaskContext, memory_pool::MemoryConsumer},
    physical_expr::{
        EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr, expressions::Column,
    },
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning,
        PlanProperties, ReplaceChildrenOptions, SendableRecordBatchStream,
        execution_plan::{Boundedness, CardinalityEffect, EmissionType},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{TryStreamExt, stream};

use filler::{FillSpec, Filler, Spec};
pub(crate) use planner::GapFillPlanner;

use super::single_input::single_input;

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

/// Gives each group of its input a row for every bucket.
#[derive(Debug)]
pub(crate) struct GapFillExec {
    input: Arc<dyn ExecutionPlan>,
    spec: Spec,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl GapFillExec {
    fn new(input: Arc<dyn ExecutionPlan>, spec: Spec, schema: SchemaRef) -> Self {
        // What keys are compared by is another order than theirs.
        let is_plain = spec.by == spec.keys;
        let order = if is_plain { order(&spec.keys, spec.bucket, &schema) } else { None };
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new_with_orderings(Arc::clone(&schema), order),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self { input, spec, schema, properties, metrics: ExecutionPlanMetricsSet::new() }
    }

    /// Bytes of one row, without what values of any length point to: that is the input's.
    fn row_bytes(&self) -> usize {
        let bytes = |data_type: &DataType| data_type.primitive_width().unwrap_or(16) + 1;
        self.schema.fields().iter().map(|field| bytes(field.data_type())).sum()
    }

    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::new(input, self.spec.clone(), Arc::clone(&self.schema))
    }
}

/// By `keys`, then by the bucket.
fn order(keys: &[usize], bucket: usize, schema: &SchemaRef) -> Option<LexOrdering> {
    let options = SortOptions { descending: false, nulls_first: false };
    let columns = keys.iter().chain([&bucket]).map(|index| {
        let column = Arc::new(Column::new(schema.field(*index).name(), *index));
        PhysicalSortExpr::new(column, options)
    });
    LexOrdering::new(columns)
}

fn shown(us: i64) -> String {
    chrono::DateTime::from_timestamp_micros(us)
        .map_or_else(|| us.to_string(), |moment| moment.naive_utc().format("%Y-%m-%d %H:%M:%S%.f").to_string())
}

impl DisplayAs for GapFillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let input = self.input.schema();
        let name = |index: &usize| input.field(*index).name().clone();
        let keys: Vec<String> = self.spec.keys.iter().map(name).collect();
        let fills: Vec<&str> =
            self.schema.fields().iter().skip(self.spec.columns).map(|field| field.name().as_str()).collect();
        write!(
            f,
            "GapFillExec: buckets={}, from={}, to={}, groups=[{}], fills=[{}]",
            self.schema.field(self.spec.bucket).name(),
            shown(self.spec.start),
            shown(self.spec.finish),
            keys.join(", "),
            fills.join(", ")
        )
    }
}

impl ExecutionPlan for GapFillExec {
    single_input!("GapFillExec");

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![order(&self.spec.by, self.spec.bucket, &self.input.schema()).map(OrderingRequirements::from)]
    }

    fn execute(&self, lane: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows_max = context.session_config().batch_size();
        let reservation = MemoryConsumer::new("GapFillExec").register(context.memory_pool());
        reservation.try_grow(rows_max.saturating_mul(self.row_bytes()))?;
        let input = self.input.execute(lane, context)?;
        let measured = BaselineMetrics::new(&self.metrics, lane);
        let filler = Filler::new(self.spec.clone(), self.input.schema(), Arc::clone(&self.schema), rows_max)?;
        let batches = stream::try_unfold((input, filler, false), move |(mut input, mut filler, mut has_ended)| {
            // Held as long as there are rows to make.
            let _ = &reservation;
            let measured = measured.clone();
            async move {
                loop {
                    let timer = measured.elapsed_compute().timer();
                    let filled = filler.fill(has_ended)?;
                    drop(timer);
                    if let Some(batch) = filled {
                        measured.record_output(batch.num_rows());
                        return Ok::<Option<(RecordBatch, _)>, DataFusionError>(Some((
                            batch,
                            (input, filler, has_ended),
                        )));
                    }
                    if has_ended {
                        return Ok(None);
                    }
                    match input.try_next().await? {
                        Some(batch) => filler.take(batch)?,
                        None => has_ended = true,
                    }
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::GreaterEqual
    }
}
