//! A look-up of a primary key as an operator: the key map's answer, or what the plan below gives where the map has none.

use std::{fmt, sync::Arc};

use datafusion::{
    common::{ScalarValue, tree_node::TreeNodeRecursion},
    error::DataFusionError,
    execution::TaskContext,
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        SendableRecordBatchStream, execute_stream,
        execution_plan::{Boundedness, EmissionType},
        memory::MemoryStream,
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet},
    },
};

use super::single_input::single_input;
use crate::lookup::KeyLookup;

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

/// See the module.
#[derive(Debug)]
pub(crate) struct KeyLookupExec {
    lookup: Arc<KeyLookup>,
    values: Arc<[ScalarValue]>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl KeyLookupExec {
    pub(crate) fn new(lookup: Arc<KeyLookup>, values: Arc<[ScalarValue]>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { lookup, values, input, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::new(Arc::clone(&self.lookup), Arc::clone(&self.values), input)
    }
}

impl DisplayAs for KeyLookupExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "KeyLookupExec: table={}, key=[{}]", self.lookup.name(), self.lookup.key_columns().join(", "))
    }
}

impl ExecutionPlan for KeyLookupExec {
    single_input!("KeyLookupExec");

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn execute(&self, lane: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, lane);
        let _timer = metrics.elapsed_compute().timer();
        match self.lookup.run(&self.values, &self.input.schema())? {
            Some(row) => {
                metrics.record_output(row.num_rows());
                Ok(Box::pin(MemoryStream::try_new(vec![row], self.input.schema(), None)?))
            }
            None => execute_stream(Arc::clone(&self.input), context),
        }
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
