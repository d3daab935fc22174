//! Running a query once for all the places of a statement that it stands at ([`shared_ctes`](crate::rules::shared_ctes)).
//!
//! Whoever wants the rows first runs it, to its end, and the others wait; the rows are held, and counted, as long as the statement runs.

use std::{collections::HashMap, fmt, sync::Arc};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::tree_node::TreeNodeRecursion,
    error::DataFusionError,
    execution::{
        TaskContext,
        context::QueryPlanner,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    logical_expr::{LogicalPlan, UserDefinedLogicalNode, physical_planning_context::PhysicalPlanningContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning,
        PlanProperties, ReplaceChildrenOptions, SendableRecordBatchStream,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
    physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner},
};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::{gapfill::GapFillPlanner, single_input::single_input};
use crate::rules::shared_ctes::Shared;

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

/// The shared queries of one execution. Travels in the session configuration.
#[derive(Debug, Default)]
pub(crate) struct SharedQueries(Mutex<HashMap<u64, Arc<Rows>>>);

/// The rows of one query, once somebody has run it.
type Rows = OnceCell<(Vec<RecordBatch>, MemoryReservation)>;

impl SharedQueries {
    fn rows(&self, id: u64) -> Arc<Rows> {
        Arc::clone(self.0.lock().entry(id).or_default())
    }
}

/// Gives the rows that a query had when it ran, in one lane.
#[derive(Debug)]
struct SharedExec {
    input: Arc<dyn ExecutionPlan>,
    id: u64,
    rows: Arc<Rows>,
    properties: Arc<PlanProperties>,
}

impl SharedExec {
    fn new(input: Arc<dyn ExecutionPlan>, id: u64, rows: Arc<Rows>) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        Self { input, id, rows, properties }
    }

    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::new(input, self.id, Arc::clone(&self.rows))
    }
}

impl DisplayAs for SharedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SharedExec: query={}", self.id)
    }
}

impl ExecutionPlan for SharedExec {
    single_input!("SharedExec");

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (input, rows) = (Arc::clone(&self.input), Arc::clone(&self.rows));
        let batches = async move {
            let (batches, _) = rows.get_or_try_init(|| run(input, context)).await?;
            Ok::<_, DataFusionError>(stream::iter(batches.clone()).map(Ok))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), stream::once(batches).try_flatten())))
    }
}

/// All rows of `input`, and the memory that they take.
async fn run(
    input: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
) -> Result<(Vec<RecordBatch>, MemoryReservation)> {
    let reservation = MemoryConsumer::new("SharedExec").register(context.memory_pool());
    let mut stream = datafusion::physical_plan::execute_stream(input, context)?;
    let mut batches = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        reservation.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
    }
    Ok((batches, reservation))
}

/// DataFusion's planner, which also plans shared queries and those whose gaps are filled.
#[derive(Debug)]
pub(crate) struct SharingPlanner;

#[async_trait]
impl QueryPlanner for SharingPlanner {
    async fn create_physical_plan(
        &self,
        logical: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner =
            DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(SharedPlanner), Arc::new(GapFillPlanner)]);
        planner.create_physical_plan(logical, session).await
    }
}

struct SharedPlanner;

#[async_trait]
impl ExtensionPlanner for SharedPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        _: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(shared) = node.as_any().downcast_ref::<Shared>() else { return Ok(None) };
        let Some(queries) = session.config().get_extension::<SharedQueries>() else {
            return Err(DataFusionError::Internal("a shared query outside of an execution".to_owned()));
        };
        let optimized = session.optimize(&shared.query)?;
        let input = planner.create_physical_plan(&optimized, session).await?;
        Ok(Some(Arc::new(SharedExec::new(input, shared.id, queries.rows(shared.id)))))
    }
}
