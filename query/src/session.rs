//! One connection's way into the engine: its settings, and plan → bind → execute.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::{DFSchemaRef, ScalarValue},
    execution::SessionState,
    logical_expr::{Expr, LogicalPlan, ScalarUDF},
    sql::sqlparser::ast::{Expr as SqlExpr, Query, Statement},
};
use futures::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

use crate::{
    Engine, Plan, QueryStream, SqlError,
    exec::work::Work,
    execution::{Execution, States},
    functions::session::SessionFacts,
    lookup::KeyLookup,
    notifications::Outbox,
    plan, rules,
    settings::Settings,
    stream::{BATCHES_IN_FLIGHT, CancelHandle, Handed},
    table::returned::WrittenRows,
};

/// Who connects.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    pub user: String,
    /// What `pg_backend_pid()` says and `pg_cancel_backend` takes.
    pub pid: i32,
    /// From the start-up packet: `TimeZone`, `application_name`, the `-c` of `options`.
    pub settings: Vec<(String, String)>,
}

/// The part of a session that functions see too (`set_config`, `current_user`).
#[derive(Debug)]
pub struct SessionShared {
    pub user: String,
    pub pid: i32,
    pub(crate) settings: Mutex<Settings>,
    /// Plans of UPDATE and DELETE read all rows that are stored.
    pub(crate) every_version: AtomicBool,
    pub(crate) outbox: Mutex<Outbox>,
    pub(crate) engine: std::sync::Weak<Engine>,
}

/// One per connection; not shared between connections.
#[derive(Debug)]
pub struct Session {
    engine: Arc<Engine>,
    shared: Arc<SessionShared>,
    /// Made for the settings of their version, and for the functions that users had made then.
    states: Mutex<Option<(u64, Arc<States>)>>,
}

impl Session {
    pub(crate) fn new(engine: Arc<Engine>, options: SessionOptions) -> Self {
        let mut settings = Settings::new(&options.user);
        for (name, value) in &options.settings {
            if let Err(error) = settings.set_initial(name, value) {
                tracing::debug!(name, %error, "start-up setting not taken");
            }
        }
        let shared = Arc::new(SessionShared {
            user: options.user,
            pid: options.pid,
            settings: Mutex::new(settings),
            every_version: AtomicBool::new(false),
            outbox: Mutex::default(),
            engine: Arc::downgrade(&engine),
        });
        Self { engine, shared, states: Mutex::default() }
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) fn shared(&self) -> &Arc<SessionShared> {
        &self.shared
    }

    pub fn user(&self) -> &str {
        &self.shared.user
    }

    pub fn pid(&self) -> i32 {
        self.shared.pid
    }

    /// The session's settings, locked. Do not hold it over an await.
    pub fn settings(&self) -> MutexGuard<'_, Settings> {
        self.shared.settings.lock()
    }

    /// From now on plans of UPDATE and DELETE read all rows that are stored, also those that lost or were deleted: to know where they lie. Whoever sets it
    /// carries none of them out, and takes it back.
    pub fn read_every_version(&self, is: bool) {
        self.shared.every_version.store(is, Ordering::Relaxed);
    }

    /// What the session has said and nobody has heard yet, locked. Do not hold it over an await.
    pub fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.shared.outbox.lock()
    }

    /// Another number after each change of a setting.
    pub fn settings_version(&self) -> u64 {
        self.settings().version()
    }

    /// Plans a query, INSERT, EXPLAIN or SHOW. `sql` is the statement's own text: positions in errors count from its start, and the
    /// query log shows it.
    pub async fn plan(&self, statement: &Statement, sql: &str) -> Result<Plan, SqlError> {
        self.plan_typed(statement, sql, &[]).await
    }

    /// Like [`Session::plan`] with types that the client gave for `$1`, `$2`, … (`None`: infer). The work is done on the engine's CPU
    /// runtime, so that a statement that takes long to plan holds up no sockets.
    pub async fn plan_typed(
        &self,
        statement: &Statement,
        sql: &str,
        types: &[Option<arrow::datatypes::DataType>],
    ) -> Result<Plan, SqlError> {
        let planner = rules::Planner {
            engine: Arc::clone(&self.engine),
            shared: Arc::clone(&self.shared),
            states: self.states(),
        };
        let (statement, sql, types) = (statement.clone(), sql.to_owned(), types.to_vec());
        self.engine.runtime.run(async move { planner.plan(&statement, &sql, &types).await }).await
    }

    /// An expression over rows of `schema` that come from no table, as a query would understand it.
    pub fn row_expression(&self, expression: SqlExpr, schema: &DFSchemaRef) -> Result<Expr, SqlError> {
        rules::row::expression(&self.states().full, schema, expression)
    }

    /// A query over sources (name, columns), which are all the relations that it can name, as one over tables would be understood. `functions` are known
    /// beside those of queries. It is not optimized, and cannot be executed here.
    pub fn source_query(
        &self,
        query: Query,
        sources: &[(String, SchemaRef)],
        functions: &[Arc<ScalarUDF>],
    ) -> Result<LogicalPlan, SqlError> {
        rules::stream::query(&self.states().full, sources, functions, query)
    }

    /// What makes expressions of [`Session::row_expression`] physical.
    pub fn expression_state(&self) -> SessionState {
        let mut state = self.states().full.clone();
        let options = Arc::clone(state.config_options());
        state.execution_props_mut().config_options = Some(options);
        state
    }

    /// The plan with its parameters replaced by values. Values are cast to the types the plan asks for.
    pub fn bind(&self, plan: &Plan, values: Vec<ScalarValue>) -> Result<Plan, SqlError> {
        plan.check_parameters(&values)?;
        if values.is_empty() {
            return Ok(plan.clone());
        }
        let values: Vec<ScalarValue> = values
            .into_iter()
            .zip(plan.parameters())
            .map(|(value, field)| match &value.data_type() == field.data_type() {
                true => Ok(value),
                false => value.cast_to(field.data_type()),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Plan { values: values.into(), parameters: Vec::new(), ..plan.clone() })
    }

    /// Starts the work. Must be called inside a tokio runtime with timers (the deadline is watched there). The statement's time
    /// begins now.
    pub fn execute(&self, plan: &Plan) -> Result<QueryStream, SqlError> {
        self.execute_with(plan, Vec::new())
    }

    /// The same for what RETURNING asks of `rows`, which a statement is about to write: the columns of its table, and perhaps others.
    pub fn execute_returning(&self, plan: &Plan, rows: Vec<RecordBatch>) -> Result<QueryStream, SqlError> {
        self.execute_with(plan, rows)
    }

    fn execute_with(&self, plan: &Plan, rows: Vec<RecordBatch>) -> Result<QueryStream, SqlError> {
        if !plan.parameters.is_empty() || (plan.values.is_empty() && plan::has_parameters(&plan.logical)) {
            return Err(SqlError::new("42P02", "there is no parameter $1").with_hint("Bind values before executing."));
        }
        let cancel = CancelHandle::default();
        let ticket =
            self.engine.queries().begin(self.shared.pid, &self.shared.user, Arc::clone(plan.sql()), cancel.clone());
        if let Some(rows) = self.looked_up(plan) {
            return Ok(QueryStream::ready(Arc::clone(plan.schema()), rows, cancel, ticket));
        }
        let timeout = self.settings().statement_timeout_ms().map(Duration::from_millis);
        let (sender, receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
        let schema = Arc::clone(plan.schema());
        let plan = plan.clone();
        let work = Work::new(self.engine.queries().works());
        let stop = work.stop_flag();
        let execution = Execution {
            states: self.states(),
            shared: Arc::clone(&self.shared),
            now_us: self.engine.clock.now_us(),
            snapshots: Arc::default(),
            work,
            written: Arc::new(WrittenRows(rows)),
        };
        let task = self.engine.runtime.start(async move {
            let run = AssertUnwindSafe(execution.run(&plan, &sender)).catch_unwind();
            let last = match run.await {
                Ok(Ok(())) => Handed::End,
                Ok(Err(error)) => Handed::Failed(error),
                Err(_) => Handed::Failed(SqlError::internal("the query panicked; see the server's log")),
            };
            // The reader may be gone; then nobody wants to know.
            let _ = sender.send(last).await;
        });
        Ok(QueryStream::new(schema, receiver, (task, stop), cancel, timeout, ticket))
    }

    /// What the key map says of a statement that asks for one key; `None`: it is to be executed.
    fn looked_up(&self, plan: &Plan) -> Option<Result<RecordBatch, SqlError>> {
        let lookup =
            plan.reusable.lookup(self.settings_version()).filter(|_| !plan.is_explain() && plan.write.is_none())?;
        lookup.run(&plan.values, plan.schema()).transpose()
    }

    /// The states under the present settings.
    pub(crate) fn states(&self) -> Arc<States> {
        let settings = self.settings();
        let version = settings.version();
        let functions = self.engine.functions_version();
        let mut cached = self.states.lock();
        if let Some((of, states)) = cached.as_ref()
            && *of == functions
            && states.version == version
        {
            return Arc::clone(states);
        }
        let (time_zone, looks_up) = (settings.time_zone().to_owned(), KeyLookup::is_wanted(&settings));
        drop(settings);
        let mut state = self.engine.base_state();
        let options = state.config_mut().options_mut();
        options.execution.time_zone = Some(time_zone);
        let stop = Default::default();
        options.extensions.insert(SessionFacts { shared: Arc::clone(&self.shared), statement_us: None, stop });
        let states = Arc::new(States::new(version, state, looks_up));
        *cached = Some((functions, Arc::clone(&states)));
        states
    }
}
