//! One execution of a planned statement: from its logical plan to batches.
//!
//! ```text
//! first time   logical plan ─ optimizer ─► optimized, parameters open ─► kept with the statement
//! each time                                optimized ─ values ─► physical plan ─► batches
//! ```
//!
//! What may not be kept ([`reuse`](crate::reuse)) is optimized with its values at each execution; so is a statement whose values turn
//! out to be none that the kept plan can take. Both ways give the same rows.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::DateTime;
use datafusion::{
    common::{ParamValues, ScalarValue},
    error::DataFusionError,
    execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext},
    logical_expr::LogicalPlan,
    physical_plan::{ExecutionPlan, execute_stream},
};
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::{
    Plan, SqlError,
    exec::{lookup::KeyLookupExec, shared::SharedQueries, snapshots::QuerySnapshots, work::Work},
    explain,
    functions::session::SessionFacts,
    reuse,
    session::SessionShared,
    stream::Handed,
    table::returned::WrittenRows,
};

/// How long a query waits for fresh tables when it has no statement_timeout.
const FRESHNESS_WAIT_MS: u64 = 10_000;

/// DataFusion's states for a session under one version of its settings.
#[derive(Debug)]
pub(crate) struct States {
    /// Of the settings.
    pub(crate) version: u64,
    pub(crate) full: SessionState,
    /// Whether rows of a key are looked up in the key map.
    pub(crate) looks_up: bool,
    /// Without the functions that only planning looks up: copied at each execution.
    lean: SessionState,
}

impl States {
    pub(crate) fn new(version: u64, full: SessionState, looks_up: bool) -> Self {
        let lean = SessionStateBuilder::new_from_existing(full.clone())
            .with_scalar_functions(Vec::new())
            .with_higher_order_functions(Vec::new())
            .with_aggregate_functions(Vec::new())
            .with_window_functions(Vec::new())
            .with_table_functions(HashMap::new())
            .build();
        Self { version, full, looks_up, lean }
    }
}

/// What is true of one execution alone.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) states: Arc<States>,
    pub(crate) shared: Arc<SessionShared>,
    /// When the statement began.
    pub(crate) now_us: i64,
    pub(crate) snapshots: Arc<QuerySnapshots>,
    pub(crate) work: Arc<Work>,
    /// What RETURNING reads.
    pub(crate) written: Arc<WrittenRows>,
}

impl Execution {
    /// Hands over the batches of `plan`. Nobody reading them any more is no error.
    pub(crate) async fn run(&self, plan: &Plan, sender: &mpsc::Sender<Handed>) -> Result<(), SqlError> {
        let located = |error| SqlError::from_datafusion(&error, &plan.sql);
        self.fresh(plan).await?;
        if let Some(explain) = &plan.explain {
            let (physical, context) = self.physical(plan).await.map_err(located)?;
            let batch = explain::run(physical, context, plan, &self.work, explain).await?;
            let _ = sender.send(Handed::Batch(batch)).await;
            return Ok(());
        }
        let mut batches = self.stream(plan).await.map_err(located)?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(located)?;
            if batch.num_rows() > 0 && sender.send(Handed::Batch(batch)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The batches of `plan`, which is no EXPLAIN; some may be without a row.
    pub(crate) async fn stream(&self, plan: &Plan) -> Result<SendableRecordBatchStream, DataFusionError> {
        let (physical, context) = self.physical(plan).await?;
        execute_stream(self.work.watch(physical)?, context)
    }

    /// Waits until the tables that `plan` reads are as fresh as the session wants them.
    pub(crate) async fn fresh(&self, plan: &Plan) -> Result<(), SqlError> {
        let (within, wait) = {
            let settings = self.shared.settings.lock();
            let Some(within_ms) = settings.max_staleness_ms() else { return Ok(()) };
            // So that it fails for its reason before the statement's time is over.
            let wait_ms = settings.statement_timeout_ms().map_or(FRESHNESS_WAIT_MS, |ms| ms - ms / 10);
            (Duration::from_millis(within_ms), Duration::from_millis(wait_ms))
        };
        let Some(engine) = self.shared.engine.upgrade().filter(|_| plan.explain.is_none()) else { return Ok(()) };
        for table in reuse::stored_tables(&plan.logical) {
            engine.tables.fresh(table, within, wait).await?;
        }
        Ok(())
    }

    async fn physical(&self, plan: &Plan) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>), DataFusionError> {
        if let Some(kept) = plan.reusable.optimized(&plan.logical, &self.states)? {
            let state = self.of(&self.states.lean);
            let bound = reuse::bound(&kept, &plan.values)?;
            match state.query_planner().create_physical_plan(&bound, &state).await {
                Err(error) if reuse::is_refused(&error) => {}
                made => {
                    let physical = made?;
                    let physical = match plan.reusable.lookup(self.states.version) {
                        Some(lookup) if !self.snapshots.are_given() => {
                            Arc::new(KeyLookupExec::new(lookup, Arc::clone(&plan.values), physical))
                        }
                        _ => physical,
                    };
                    return Ok((physical, context(&state)));
                }
            }
        }
        let state = self.of(&self.states.full);
        let logical = with_values(&plan.logical, &plan.values)?;
        let physical = state.create_physical_plan(&logical).await?;
        Ok((physical, context(&state)))
    }

    /// `state` for this execution.
    fn of(&self, state: &SessionState) -> SessionState {
        let mut state = state.clone();
        state.config_mut().set_extension(Arc::clone(&self.snapshots));
        state.config_mut().set_extension(Arc::clone(&self.written));
        state.config_mut().set_extension(Arc::<SharedQueries>::default());
        state.config_mut().options_mut().extensions.insert(SessionFacts {
            shared: Arc::clone(&self.shared),
            statement_us: Some(self.now_us),
            stop: self.work.stop_flag(),
        });
        if let Some(now) = DateTime::from_timestamp_micros(self.now_us) {
            let props = state.execution_props().clone().with_query_execution_start_time(now);
            *state.execution_props_mut() = props;
        }
        // Physical expressions take the options from here; without them functions would not know their session.
        let options = Arc::clone(state.config_options());
        state.execution_props_mut().config_options = Some(options);
        state
    }
}

/// What operators run in. It has no functions: plans hold those that they call.
fn context(state: &SessionState) -> Arc<TaskContext> {
    Arc::new(TaskContext::new(
        None,
        state.session_id().to_owned(),
        state.config().clone(),
        Default::default(),
        Default::default(),
        Default::default(),
        Default::default(),
        Arc::clone(state.runtime_env()),
    ))
}

fn with_values(logical: &LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan, DataFusionError> {
    if values.is_empty() {
        return Ok(logical.clone());
    }
    logical.clone().with_param_values(ParamValues::from(values.to_vec()))
}
