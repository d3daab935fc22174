//! Definitions of sources and tables, as they are kept (JSON, one versioned record per change).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_storage::{
    ids::{SourceId, TableId},
    scalar::Scalar,
    schema::{DataType, TableSchema},
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceDefinition {
    pub id: SourceId,
    /// Object id in `pg_class`; never used twice.
    pub oid: u32,
    pub name: String,
    /// Counts changes, from 1.
    pub version: u64,
    pub columns: Vec<SourceColumn>,
    pub watermark: Option<WatermarkDefinition>,
    pub checks: Vec<CheckDefinition>,
    /// As given, keys in lower case: connector, format, topic, …
    pub options: BTreeMap<String, String>,
    /// The table whose INSERT, COPY and HTTP rows this log holds; such a source has no name of its own in SQL.
    pub log_of: Option<TableId>,
    pub created_at_us: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceColumn {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    pub default: Option<Scalar>,
    pub path: Option<String>,
    pub epoch: Option<String>,
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
    /// Every schema version that segments may have been written under, oldest first; the last one is `schema`.
    pub older_schemas: Vec<TableSchema>,
    /// Above the id of every column the table ever had.
    pub next_column: u32,
    /// Sources named in FROM SOURCE.
    pub sources: Vec<SourceId>,
    /// The log behind INSERT, COPY and HTTP push.
    pub log: SourceId,
    pub transform: Option<TransformDefinition>,
    pub options: TableOptions,
    pub paused: bool,
    pub created_at_us: i64,
}

/// SQL texts over the source's columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformDefinition {
    pub select: String,
    pub filter: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableOptions {
    pub partitions: u32,
    pub retention_us: Option<i64>,
    pub seal_rows: u64,
    pub seal_bytes: u64,
    pub seal_after_us: i64,
}
