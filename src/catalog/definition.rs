//! Definitions of sources, tables, pipelines and views, as they are kept (JSON; each change is a record of the metadata log).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use tidemill_ingest::pipeline::{Late, ServiceOptions};
use tidemill_query::functions::user::Language;
use tidemill_storage::{
    ids::{ColumnId, SourceId, TableId},
    index::IndexKind,
    schema::{DataType, TableSchema},
    upsert::{Keep, KeyAges, KeySpec},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceDefinition {
    pub id: SourceId,
    /// Object id; never used twice.
    pub oid: u32,
    pub name: String,
    /// Counts changes, from 1.
    pub version: u64,
    pub columns: Vec<SourceColumnDefinition>,
    pub watermark: Option<WatermarkDefinition>,
    pub checks: Vec<CheckDefinition>,
    /// As given, keys as ingestion knows them: connector, format, topic, …
    pub options: BTreeMap<String, String>,
    pub created_at_us: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceColumnDefinition {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    /// "$.a.b"; `None` is the member of the column's name.
    pub path: Option<String>,
    /// What a number in a time column counts: s, ms, us, ns.
    pub epoch: Option<String>,
    /// Whether it is of the primary key, by which a change stream tells rows apart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_key: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkDefinition {
    pub column: String,
    pub expression: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDefinition {
    pub name: String,
    pub expression: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableDefinition {
    pub id: TableId,
    /// Object id in `pg_class`; never used twice, kept over renames.
    pub oid: u32,
    pub name: String,
    /// Counts changes, from 1.
    pub version: u64,
    pub schema: TableSchema,
    /// Id of the next column that is added.
    pub next_column: ColumnId,
    /// Sources named in FROM SOURCE, in that order.
    pub sources: Vec<SourceId>,
    /// The table's own log, behind INSERT, COPY and HTTP push.
    pub log: SourceId,
    /// `SELECT items [WHERE condition]` over the source's columns; `None` takes columns by name.
    pub transform: Option<String>,
    pub options: TableOptions,
    /// Of a table that keeps one row of each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyDefinition>,
    #[serde(default)]
    pub indexes: Vec<IndexDefinition>,
    /// ALTER TABLE … PAUSE INGESTION: its sources are not read; the log still is.
    pub paused: bool,
    pub created_at_us: i64,
}

/// The primary key of a table, and which row of a key stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDefinition {
    pub columns: Vec<ColumnId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<ColumnId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<ColumnId>,
    pub mode: KeyMode,
    /// Whether rows that lose when they come are stored all the same.
    pub keeps_losers: bool,
    /// The column that tells of rows whether they came too late to win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<ColumnId>,
    /// `key_ttl` and `tombstone_ttl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ages: Option<AgesDefinition>,
}

/// How long keys are known, by the times of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgesDefinition {
    /// DATE, TIMESTAMP or TIMESTAMPTZ.
    pub column: ColumnId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_us: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstone_us: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyMode {
    /// The last row of a key stays.
    Upsert,
    /// The first.
    Dedup,
    /// The last, merged with those before it as the columns say.
    #[serde(rename = "partial_upsert")]
    PartialUpsert,
}

impl KeyDefinition {
    /// As storage knows it.
    pub fn spec(&self) -> KeySpec {
        KeySpec {
            columns: self.columns.clone(),
            version: self.version,
            delete: self.delete,
            keep: match self.mode {
                KeyMode::Upsert | KeyMode::PartialUpsert => Keep::Last,
                KeyMode::Dedup => Keep::First,
            },
            keeps_losers: self.keeps_losers,
            late: self.late,
            merges: self.mode == KeyMode::PartialUpsert,
            ages: self.ages.map(|ages| KeyAges {
                column: ages.column,
                key_us: ages.key_us,
                tombstone_us: ages.tombstone_us,
            }),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexDefinition {
    /// Object id in `pg_class`, and in the names of its files; never used twice.
    pub oid: u32,
    pub name: String,
    pub kind: IndexKind,
    pub columns: Vec<ColumnId>,
    pub created_at_us: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineDefinition {
    /// Of the same numbers as tables: for sources it is one more reader.
    pub id: TableId,
    pub oid: u32,
    pub name: String,
    /// Counts changes, from 1.
    pub version: u64,
    /// The log behind it, as a source of its tables.
    pub log: SourceId,
    /// Sources that the query reads.
    pub sources: Vec<SourceId>,
    /// Tables that its rows look into.
    #[serde(default)]
    pub tables: Vec<TableId>,
    pub targets: Vec<PipelineTargetDefinition>,
    /// As it was written.
    pub query: String,
    pub options: PipelineOptions,
    pub paused: bool,
    pub created_at_us: i64,
}

/// A table or a sink that a pipeline writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineTargetDefinition {
    pub table: TableId,
    /// Where each column of the query goes.
    pub columns: Vec<ColumnId>,
    /// What the columns of the query are called in a sink that has none of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SinkDefinition {
    /// Of the same numbers as tables: for a pipeline it is one more target.
    pub id: TableId,
    pub oid: u32,
    pub name: String,
    /// Counts changes, from 1.
    pub version: u64,
    /// `None`: those that each pipeline gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<TableSchema>,
    /// As given, keys as ingestion knows them.
    pub options: BTreeMap<String, String>,
    pub created_at_us: i64,
}

/// Times are microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineOptions {
    pub checkpoint_interval_us: i64,
    pub idle_timeout_us: i64,
    pub watermark_jump_us: i64,
    pub memory_limit: u64,
    /// 0: never.
    #[serde(default = "stuck_after_us")]
    pub stuck_after_us: i64,
    #[serde(default = "one_lane")]
    pub parallelism: u32,
    #[serde(default)]
    pub late: Late,
    #[serde(default)]
    pub services: ServiceOptions,
}

fn stuck_after_us() -> i64 {
    300_000_000
}

fn one_lane() -> u32 {
    1
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            checkpoint_interval_us: 1_000_000,
            idle_timeout_us: 5_000_000,
            watermark_jump_us: 86_400_000_000,
            memory_limit: 256 << 20,
            stuck_after_us: stuck_after_us(),
            parallelism: one_lane(),
            late: Late::default(),
            services: ServiceOptions::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDefinition {
    /// Object id in `pg_class`; never used twice.
    pub oid: u32,
    pub name: String,
    /// Counts changes, from 1.
    pub version: u64,
    /// As SQL.
    pub query: String,
    pub columns: Vec<ViewColumnDefinition>,
    /// Object ids of the tables and views that the query names.
    pub uses: Vec<u32>,
    pub created_at_us: i64,
}

/// A function that a user made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionDefinition {
    /// Object id in `pg_proc`; never used twice.
    pub oid: u32,
    pub name: String,
    /// Counts changes, from 1.
    pub version: u64,
    pub arguments: Vec<FunctionArgumentDefinition>,
    pub returns: DataType,
    /// Definitions from before there was a choice are of WebAssembly.
    #[serde(default)]
    pub language: Language,
    /// Whether it is called with NULL arguments; else these give NULL.
    #[serde(default)]
    pub called_on_null: bool,
    /// What the module calls it; of a model the output that is returned.
    pub symbol: String,
    /// SHA-256 of the module or model, which is a file of the data directory.
    pub module: String,
    /// Where that was read; `None` when the statement had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub created_at_us: i64,
}

/// What is done about pipelines of which a number is out of bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleDefinition {
    /// Never used twice.
    pub oid: u32,
    pub name: String,
    /// Counts changes, from 1.
    pub version: u64,
    /// `None`: all.
    pub pipeline: Option<TableId>,
    /// One of `server/rules/metrics.rs`.
    pub metric: String,
    pub comparison: Comparison,
    /// In the metric's unit.
    pub bound: f64,
    /// The same as it was written.
    pub written: String,
    /// How long that has to be so, in microseconds.
    pub hold_us: i64,
    pub action: RuleAction,
    pub enabled: bool,
    pub created_at_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Comparison {
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Above => value > bound,
            Self::AtLeast => value >= bound,
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
        })
    }
}

/// What a rule does, beside the event that it always makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleAction {
    /// Nothing else.
    Event,
    /// A notification in a channel.
    Notify(String),
    /// What ALTER PIPELINE does: RESTART, PAUSE or SET (…), as it was written.
    Alter(String),
}

impl fmt::Display for RuleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event => f.write_str("EVENT"),
            Self::Notify(channel) => write!(f, "NOTIFY {channel}"),
            Self::Alter(clause) => f.write_str(clause),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionArgumentDefinition {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub data_type: DataType,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewColumnDefinition {
    pub name: String,
    /// What the query calls it.
    pub source: String,
    /// `pg_type.typname`.
    pub type_name: String,
    pub modifier: i32,
}

/// As `seal_rows`: learned, so that files have `seal_bytes`.
pub const SEAL_ROWS_AUTO: u64 = 0;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableOptions {
    pub partitions: u32,
    pub retention_us: Option<i64>,
    pub seal_rows: u64,
    pub seal_bytes: u64,
    pub seal_after_us: i64,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            partitions: 1,
            retention_us: None,
            seal_rows: 1_000_000,
            seal_bytes: 256 << 20,
            seal_after_us: 600_000_000,
        }
    }
}
