//! One engine per server: memory pool, spill directory, functions and rules, the schemas, the registry of queries.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use datafusion::{
    catalog::SchemaProvider,
    execution::{
        SessionState, SessionStateBuilder,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{GreedyMemoryPool, MemoryPool, TrackConsumersPool},
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    logical_expr::{ScalarUDF, registry::FunctionRegistry},
    optimizer::{Optimizer, OptimizerRule},
    physical_optimizer::optimizer::PhysicalOptimizer,
    prelude::SessionConfig,
};
use parking_lot::RwLock;
use tidemill_storage::{aggregate::ResultCache, clock::Clock};
use tokio::runtime::Handle;

use crate::{
    Session, SessionOptions, SqlError, SystemFunctions, SystemViews, TableCatalog,
    catalog::{DATABASE, Databases, PUBLIC, PublicSchema, Schemas},
    exec::{in_order::InOrder, shared::SharingPlanner, sliced::SliceForSets, unfixed::Unfix},
    functions::{self, user::UserFunction},
    pg_catalog,
    registry::QueryRegistry,
    rules::{
        self,
        null_joins::{CrossJoins, JoinKeys},
        rounded_times::RoundedTimes,
        shared_ctes::Seal,
        simplified::Simplified,
        single_distinct::SingleDistinct,
    },
    runtime::QueryRuntime,
    subscription::Limits,
    views::{SystemSchema, SystemViewFunction},
};

/// What an engine may use.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Memory of all queries together: sorts, joins, aggregates. Above it they spill, and what cannot spill gets 53200.
    pub memory_bytes: usize,
    /// Where operators spill to; made when missing, its spill files are removed with the queries.
    pub spill_dir: PathBuf,
    /// Bytes of spill files at one time.
    pub spill_bytes_max: u64,
    /// Lanes (parallel streams) of one query.
    pub lanes: usize,
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Memory for answers of committed segments that are kept; 0: none are.
    pub result_cache_bytes: usize,
    /// Subscriptions at one time.
    pub subscriptions_max: usize,
    /// Memory for the rows that all of them compare.
    pub subscription_bytes: usize,
    /// Ended queries that `rt.query_log` remembers.
    pub query_log_max: usize,
    /// Tidemill's version, shown by `version()`.
    pub version: String,
}

impl EngineConfig {
    /// A quarter of nothing is assumed: 1 GiB of memory, 16 GiB of spill, a lane per core.
    pub fn new(spill_dir: impl Into<PathBuf>) -> Self {
        Self {
            memory_bytes: 1 << 30,
            spill_dir: spill_dir.into(),
            spill_bytes_max: 16 << 30,
            lanes: std::thread::available_parallelism().map_or(2, usize::from),
            batch_rows: 8192,
            result_cache_bytes: 64 << 20,
            subscriptions_max: 100,
            subscription_bytes: 256 << 20,
            query_log_max: 1000,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Plans and runs queries. Shared by all connections.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: EngineConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: QueryRuntime,
    pub(crate) tables: Arc<dyn TableCatalog>,
    schemas: Arc<Schemas>,
    queries: Arc<QueryRegistry>,
    results: Arc<ResultCache>,
    subscriptions: Arc<Limits>,
    /// Names of those who may connect, when not everybody may.
    users: RwLock<Vec<String>>,
    /// What sessions are copied from.
    base: RwLock<SessionState>,
    /// Functions that users made, by name.
    user_functions: RwLock<BTreeMap<String, Arc<UserFunction>>>,
    /// Counts their changes.
    functions_version: AtomicU64,
}

impl Engine {
    /// `cpu` is the runtime that query work runs on, with its timers enabled.
    pub fn new(
        config: EngineConfig,
        tables: Arc<dyn TableCatalog>,
        clock: Arc<dyn Clock>,
        cpu: Handle,
    ) -> Result<Arc<Self>, SqlError> {
        let schemas = Arc::new(Schemas::default());
        schemas.put(PUBLIC, Arc::new(PublicSchema { tables: Arc::clone(&tables) }));
        let state = base_state(&config, &schemas)?;
        let queries = Arc::new(QueryRegistry::new(Arc::clone(&clock), config.query_log_max));
        let engine = Arc::new(Self {
            runtime: QueryRuntime::new(cpu),
            results: Arc::new(ResultCache::new(config.result_cache_bytes, Arc::clone(&clock))),
            subscriptions: Limits::new(config.subscriptions_max, config.subscription_bytes),
            config,
            clock,
            tables,
            schemas,
            queries,
            users: RwLock::default(),
            base: RwLock::new(state),
            user_functions: RwLock::default(),
            functions_version: AtomicU64::new(0),
        });
        functions::register(&engine)?;
        pg_catalog::install(&engine)?;
        Ok(engine)
    }

    /// Names the users that the catalogs show as roles beside the owner.
    pub fn set_users(&self, users: Vec<String>) {
        *self.users.write() = users;
    }

    pub(crate) fn users(&self) -> Vec<String> {
        self.users.read().clone()
    }

    /// A session for one connection. Costs tens of microseconds.
    pub fn session(self: &Arc<Self>, options: SessionOptions) -> Session {
        Session::new(Arc::clone(self), options)
    }

    /// Puts a schema beside `public`; one of the same name is replaced.
    pub fn register_schema(&self, name: &str, schema: Arc<dyn SchemaProvider>) {
        self.schemas.put(name, schema);
    }

    /// Schema `rt`.
    pub fn register_system_views(&self, views: Arc<dyn SystemViews>) {
        for function in SystemViewFunction::all(&views) {
            self.base.write().register_udtf(function.name(), Arc::new(function));
        }
        self.schemas.put("rt", Arc::new(SystemSchema::new(views)));
    }

    /// Functions `rt.<name>`.
    pub fn register_system_functions(&self, system: Arc<dyn SystemFunctions>) -> Result<(), SqlError> {
        for udf in functions::system::udfs(&system) {
            self.register_function(udf)?;
        }
        Ok(())
    }

    /// A scalar function for sessions made from now on. A name may carry a schema (`rt.drain`).
    pub fn register_function(&self, function: Arc<ScalarUDF>) -> Result<(), SqlError> {
        self.base.write().register_udf(function)?;
        Ok(())
    }

    /// Whether a call of this name means something already.
    pub fn has_function(&self, name: &str) -> bool {
        let base = self.base.read();
        base.scalar_functions().contains_key(name)
            || base.aggregate_functions().contains_key(name)
            || base.window_functions().contains_key(name)
            || base.table_functions().contains_key(name)
    }

    /// A function that a user made, for statements that are planned from now on, in all sessions; one of its name is replaced.
    pub fn put_user_function(&self, function: &Arc<UserFunction>) -> Result<(), SqlError> {
        let mut functions = self.user_functions.write();
        self.base.write().register_udf(function.udf())?;
        functions.insert(function.declaration().name.clone(), Arc::clone(function));
        self.functions_version.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// The function, which is known no more; plans that have it go on calling it.
    pub fn take_user_function(&self, name: &str) -> Result<Option<Arc<UserFunction>>, SqlError> {
        let mut functions = self.user_functions.write();
        let Some(function) = functions.remove(name) else { return Ok(None) };
        self.base.write().deregister_udf(name)?;
        self.functions_version.fetch_add(1, Ordering::SeqCst);
        Ok(Some(function))
    }

    /// What users made, by name.
    pub fn user_functions(&self) -> Vec<Arc<UserFunction>> {
        self.user_functions.read().values().cloned().collect()
    }

    pub(crate) fn functions_version(&self) -> u64 {
        self.functions_version.load(Ordering::SeqCst)
    }

    /// Changes what later sessions start from: aggregates, table functions, planners.
    pub fn extend(&self, change: impl FnOnce(&mut SessionState) -> Result<(), SqlError>) -> Result<(), SqlError> {
        change(&mut self.base.write())
    }

    pub fn queries(&self) -> &Arc<QueryRegistry> {
        &self.queries
    }

    /// Answers of committed segments, kept for all sessions.
    pub fn results(&self) -> &Arc<ResultCache> {
        &self.results
    }

    pub(crate) fn subscriptions(&self) -> &Arc<Limits> {
        &self.subscriptions
    }

    pub fn tables(&self) -> &Arc<dyn TableCatalog> {
        &self.tables
    }

    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Names of the schemas, in order.
    pub fn schema_names(&self) -> Vec<String> {
        use datafusion::catalog::CatalogProvider;
        self.schemas.schema_names()
    }

    /// A schema by its name.
    pub(crate) fn schema_named(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        use datafusion::catalog::CatalogProvider;
        self.schemas.schema(name)
    }

    /// Name, value and meaning of every setting, as a new session has them.
    pub(crate) fn default_settings(&self) -> Vec<(String, String, &'static str)> {
        crate::settings::Settings::new(pg_catalog::OWNER).all()
    }

    pub(crate) fn base_state(&self) -> SessionState {
        self.base.read().clone()
    }
}

fn base_state(config: &EngineConfig, schemas: &Arc<Schemas>) -> Result<SessionState, SqlError> {
    let mut session = SessionConfig::new()
        .with_target_partitions(config.lanes.max(1))
        .with_batch_size(config.batch_rows.max(1))
        .with_default_catalog_and_schema(DATABASE, PUBLIC)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false);
    let options = session.options_mut();
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.collect_spans = true;
    options.sql_parser.default_null_ordering = "nulls_max".to_owned();
    options.execution.time_zone = Some("UTC".to_owned());
    // What DataFusion 55 derives from the least and greatest values so far leaves out the aggregates that have none yet (all null, or none passes
    // their FILTER) and those of expressions: rows that these need would be passed over. Segments answer min and max themselves.
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // Refuses plans whose rows are right: `x IS NOT TRUE`, which is never null, is planned as `x IS DISTINCT FROM TRUE`, which DataFusion 55 takes for nullable.
    options.execution.skip_physical_aggregate_schema_check = true;
    let mut builder = SessionStateBuilder::new().with_default_features();
    // Asked before DataFusion's own planners.
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(rules::operators::PostgresOperators));
    Ok(builder
        .with_config(session)
        .with_runtime_env(runtime_env(config)?)
        .with_catalog_list(Arc::new(Databases { schemas: Arc::clone(schemas) }))
        .with_query_planner(Arc::new(SharingPlanner))
        .with_optimizer_rules(optimizer_rules())
        .with_type_planner(Arc::new(rules::types::PostgresTypes))
        .with_physical_optimizer_rules(
            std::iter::once(Arc::new(Unfix) as _).chain(PhysicalOptimizer::new().rules).collect(),
        )
        // After all others: it replaces what they have settled.
        .with_physical_optimizer_rule(Arc::new(rules::segment_aggregates::SegmentAggregates))
        .with_physical_optimizer_rule(Arc::new(SliceForSets))
        .with_physical_optimizer_rule(Arc::new(InOrder))
        .build())
}

/// DataFusion's, some of them kept from what they get wrong.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let ours: [Arc<dyn OptimizerRule + Send + Sync>; 4] = [
        Arc::new(CrossJoins::new()),
        Arc::new(JoinKeys::new()),
        Arc::new(Simplified::new()),
        Arc::new(SingleDistinct::new()),
    ];
    // Before all: what runs once is optimized alone.
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![Arc::new(Seal)];
    for rule in Optimizer::new().rules {
        let rule = ours.iter().find(|own| own.name() == rule.name()).map_or(rule, Arc::clone);
        // Constants are one value each from here on, and conditions still stand above what they go down through.
        let are_simple = rule.name() == "simplify_expressions";
        rules.push(rule);
        if are_simple {
            rules.push(Arc::new(RoundedTimes));
        }
    }
    rules
}

fn runtime_env(config: &EngineConfig) -> Result<Arc<RuntimeEnv>, SqlError> {
    let pool: Arc<dyn MemoryPool> = Arc::new(TrackConsumersPool::new(
        GreedyMemoryPool::new(config.memory_bytes),
        std::num::NonZeroUsize::MIN.saturating_add(2),
    ));
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![config.spill_dir.clone()]))
        .with_max_temp_directory_size(config.spill_bytes_max);
    Ok(Arc::new(RuntimeEnvBuilder::new().with_memory_pool(pool).with_disk_manager_builder(disk).build()?))
}
