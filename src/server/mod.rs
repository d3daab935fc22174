//! The wiring of a running server, from its data directory to its sockets, and its orderly end.
//!
//! Order of start: data directory locked → metadata file → ingestion runtime → query engine → HTTP (alive, not ready) → functions and tables recovered →
//! logs of tables and pipelines read again → Postgres listener (ready). Order of the end: no new connections → running statements within `shutdown_grace` → ingestion → exit.

pub mod connections;
pub mod deep_stores;
pub mod directory;
pub mod expressions;
mod forgetting;
pub mod functions;
pub mod instance;
pub mod live;
pub mod look_ups;
pub mod pipelines;
mod quickstart;
pub mod rules;
pub mod sinks;

use std::{fmt, io::Write, sync::Arc, time::Duration};

use tidemill_ingest::{
    commit::MetadataLog,
    events::EventRing,
    runtime::{IngestRuntime, RuntimeOptions},
};
use tidemill_query::{Engine, EngineConfig, TableCatalog};
use tidemill_storage::{
    clock::{Clock, SystemClock},
    upsert::KeyMemory,
};
use tokio::{net::TcpListener, sync::watch};

use self::{
    deep_stores::DeepStores,
    directory::DataDirectory,
    instance::{Instance, ServerBackend},
};
use crate::pgwire::{scram::Verifier, server as listener};
use crate::{
    Transforms,
    catalog::{
        Catalog, checkpoints::RedbCheckpoints, database::Database, metadata_log::RedbMetadataLog, subjects::Subjects,
    },
    config::{Config, User},
    http, runtime,
    runtime::Runtimes,
    session::{Registry, Shared},
    views,
};

/// Events that `rt.events` remembers.
const EVENTS_MAX: usize = 4_096;
/// Threads that write segment files.
const SEAL_THREADS: usize = 2;
/// How long threads may take to end after everything they serve has.
const LAST_GRACE: Duration = Duration::from_millis(500);

/// Why the server cannot start, for the person who started it.
#[derive(Debug)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error {
    fn of(what: &str) -> impl FnOnce(&dyn fmt::Display) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

/// How long a start waits for rows of logs that are in no segment yet. What takes longer is read while queries run.
const LOGS_PATIENCE: Duration = Duration::from_secs(60);

/// Runs a server until SIGTERM or SIGINT.
pub fn run(config: Config, quickstart: bool, transforms: Transforms) -> Result<(), Error> {
    let directory = DataDirectory::open(&config.data_dir)?;
    let runtimes = Runtimes::start(config.lanes).map_err(|error| Error::of("cannot start threads")(&error))?;
    let result = runtimes.block_on(serve(config, directory, runtimes.cpu().clone(), quickstart, transforms));
    runtimes.shutdown(LAST_GRACE);
    result
}

async fn serve(
    config: Config,
    directory: DataDirectory,
    cpu: tokio::runtime::Handle,
    quickstart: bool,
    transforms: Transforms,
) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let pg_listener = bind(config.pg_listen, "pg.listen").await?;
    let http_listener = bind(config.http_listen, "http.listen").await?;

    let metrics = http::metrics::install().map_err(|error| Error::of("cannot set metrics up")(&error))?;
    let instance = open(config, directory, Arc::clone(&clock))?;
    let engine = engine(&instance, &clock, cpu, transforms)?;
    let shared = shared(&instance, &engine, &clock)?;
    let (stop, stopping) = watch::channel(false);
    let http = Arc::new(http::State::new(Arc::clone(&instance), Arc::clone(&shared), metrics));
    let http_task = runtime::spawn(http::serve(http_listener, Arc::clone(&http), stopping.clone()));

    let recovering = Arc::clone(&instance);
    runtime::blocking(move || recovering.recover()).await;
    instance.read_logs(LOGS_PATIENCE).await;
    let listener_config = pg_config(&instance.config)?;
    deep_stores::clean(&instance);
    runtime::spawn(rules::follow(Arc::clone(&instance), Arc::clone(&shared.channels), stopping.clone()));
    let mut pg_task = runtime::spawn(listener::serve(pg_listener, Arc::clone(&shared), listener_config, stopping));
    http.set_ready();
    let config = &instance.config;
    tracing::info!(
        data_dir = %instance.directory.path().display(),
        pg = %config.pg_listen,
        http = %config.http_listen,
        "tidemill {} is ready",
        env!("CARGO_PKG_VERSION")
    );
    if quickstart {
        quickstart::begin(&instance).await?;
        let text = quickstart::welcome(&instance);
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }

    let ended_early = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, grace = ?config.shutdown_grace, "shutting down; running queries may finish");
            None
        }
        ended = &mut pg_task => Some(Error(match ended {
            Ok(Ok(())) => "the Postgres listener ended by itself".into(),
            Ok(Err(error)) => format!("the Postgres listener failed: {error}"),
            Err(error) => format!("the Postgres listener panicked: {error}"),
        })),
    };
    let _ = stop.send(true);
    if ended_early.is_none() {
        tokio::select! {
            ended = tokio::time::timeout(config.shutdown_grace, &mut pg_task) => if ended.is_err() {
                tracing::warn!("queries that did not finish in time are cancelled");
                for session in shared.registry.sessions() {
                    session.interrupt(crate::session::registry::Interrupt::Terminate);
                }
                let _ = tokio::time::timeout(LAST_GRACE, &mut pg_task).await;
            },
            signal = signals.next() => tracing::warn!(signal, "second signal: not waiting for queries"),
        }
    }
    let _ = tokio::time::timeout(LAST_GRACE, http_task).await;
    let stopping = Arc::clone(&instance);
    runtime::blocking(move || stopping.stop()).await;
    tracing::info!("bye");
    ended_early.map_or(Ok(()), Err)
}

/// The durable parts and ingestion; no table is open yet.
fn open(config: Config, directory: DataDirectory, clock: Arc<dyn Clock>) -> Result<Arc<Instance>, Error> {
    let wrong = |error: &dyn fmt::Display| Error::of("cannot open the metadata file")(error);
    let database = Database::open(directory.metadata(), Arc::clone(&clock)).map_err(|error| wrong(&error))?;
    let server = database.server().map_err(|error| wrong(&error))?;
    let catalog = Catalog::open(Arc::clone(&database)).map_err(|error| wrong(&error))?;
    let subjects = Subjects::open(Arc::clone(&database)).map_err(|error| wrong(&error))?;
    let checkpoints = RedbCheckpoints::open(Arc::clone(&database)).map_err(|error| wrong(&error))?;
    let log: Arc<dyn MetadataLog> = Arc::new(RedbMetadataLog::open(database).map_err(|error| wrong(&error))?);
    let definitions = catalog.definitions();
    let known = definitions.tables.keys().chain(definitions.pipelines.keys()).copied().collect();
    directory.remove_orphans(&known).map_err(|error| Error::of("cannot delete what dropped tables left")(&error))?;
    let events = Arc::new(EventRing::new(EVENTS_MAX));
    let deep_stores = DeepStores::open(&config, server, &tokio::runtime::Handle::current())?;
    let ingest = IngestRuntime::start(RuntimeOptions {
        segment_store: deep_stores.segments.clone(),
        log: Arc::clone(&log),
        clock: Arc::clone(&clock),
        events: Arc::clone(&events) as _,
        memory_bytes: config.ingest_bytes,
        key_memory: KeyMemory::bounded(config.key_map_bytes, &directory.spill()),
        seal_threads: SEAL_THREADS,
        consume_threads: config.lanes,
        index_share: f64::from(config.index_cpu) / 100.0,
        compact_share: f64::from(config.compact_cpu) / 100.0,
    })
    .map_err(|error| Error::of("cannot start ingestion")(&error))?;
    Ok(Instance::new(
        config,
        clock,
        directory,
        catalog,
        subjects,
        log,
        Arc::new(checkpoints),
        deep_stores,
        ingest,
        events,
    ))
}

fn engine(
    instance: &Arc<Instance>,
    clock: &Arc<dyn Clock>,
    cpu: tokio::runtime::Handle,
    transforms: Transforms,
) -> Result<Arc<Engine>, Error> {
    let config = &instance.config;
    let engine_config = EngineConfig {
        memory_bytes: usize::try_from(config.query_bytes).unwrap_or(usize::MAX),
        result_cache_bytes: usize::try_from(config.result_cache_bytes).unwrap_or(usize::MAX),
        lanes: config.lanes,
        spill_bytes_max: config.spill_bytes,
        subscriptions_max: config.max_subscriptions,
        subscription_bytes: usize::try_from(config.subscription_bytes).unwrap_or(usize::MAX),
        ..EngineConfig::new(instance.directory.spill())
    };
    let wrong = |error: &dyn fmt::Display| Error::of("cannot start the query engine")(error);
    let tables = Arc::clone(instance) as Arc<dyn TableCatalog>;
    let engine = Engine::new(engine_config, tables, Arc::clone(clock), cpu).map_err(|error| wrong(&error))?;
    instance.set_engine(&engine, transforms);
    engine.set_users(instance.config.users.iter().map(|user| user.name.clone()).collect());
    let system = Arc::new(views::System::new(Arc::clone(instance)));
    engine.register_system_views(Arc::clone(&system) as _);
    engine.register_system_functions(system as _).map_err(|error| wrong(&error))?;
    Ok(engine)
}

fn shared(instance: &Arc<Instance>, engine: &Arc<Engine>, clock: &Arc<dyn Clock>) -> Result<Arc<Shared>, Error> {
    let backend = Arc::new(ServerBackend(Arc::clone(instance)));
    let registry = Arc::new(Registry::new(instance.config.pg_max_connections));
    let shared = Shared::new(Arc::clone(engine), backend, registry, Arc::clone(clock))
        .map_err(|error| Error::of("cannot start sessions")(&error))?;
    let timeout_ms = instance.config.statement_timeout.as_millis();
    shared.set_defaults(vec![("statement_timeout".into(), timeout_ms.to_string())]);
    Ok(shared)
}

/// What a configuration names outside itself and a start would stumble over: certificate, key, users' verifiers. Reads files, writes none.
pub fn check(config: &Config) -> Result<(), Error> {
    match pg_config(config)?.tls {
        Some(files) => files.check().map_err(|error| Error::of("pg.tls_cert and pg.tls_key cannot be used")(&error)),
        None => Ok(()),
    }
}

fn pg_config(config: &Config) -> Result<listener::Config, Error> {
    let tls = config
        .pg_tls
        .as_ref()
        .map(|(certificate, key)| listener::TlsFiles { certificate: certificate.clone(), key: key.clone() });
    let users = config.users.iter().map(verifier).collect::<Result<_, _>>()?;
    Ok(listener::Config { tls, require_tls: config.pg_require_tls, users })
}

/// The users' SCRAM verifiers; plain passwords are forgotten here.
fn verifier(user: &User) -> Result<(String, String), Error> {
    let wrong = |error: crate::session::SqlError| {
        Error(format!("the password of user \"{}\" cannot be used: {error}", user.name))
    };
    let verifier = match user.secret.starts_with("SCRAM-SHA-256$") {
        true => Verifier::parse(&user.secret),
        false => Verifier::from_password(&user.secret),
    };
    Ok((user.name.clone(), verifier.map_err(wrong)?.to_text()))
}

async fn bind(address: std::net::SocketAddr, setting: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| {
        Error(format!(
            "cannot listen on {address} ({setting}): {error}; is another server running there? choose another port"
        ))
    })
}

/// What ends the server.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        use tokio::signal::unix::{SignalKind, signal};
        let of = |kind| signal(kind).map_err(|error| Error::of("cannot take signals")(&error));
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
