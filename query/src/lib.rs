//! Tidemill's query engine: PostgreSQL's SQL, planned and run by DataFusion over table snapshots.
//!
//! ```text
//! text ── parse ─► Statement ── Session::plan ─► Plan ── bind($1…) ─► Plan ── Session::execute ─► QueryStream
//!                                 │ SqlToRel, our rules and functions        │ one snapshot per table
//!                                 ▼                                          ▼
//!                             TableCatalog                         SegmentScanExec in lanes, on the CPU runtime
//! ```
//!
//! What always holds: a query sees one snapshot of each table, however often it names it; every error is a [`SqlError`] with
//! PostgreSQL's SQLSTATE; dropping or cancelling a [`QueryStream`] stops the work behind it.

pub mod catalog;
pub mod engine;
pub mod error;
pub mod exec;
mod execution;
pub mod explain;
pub mod functions;
mod lookup;
pub mod notifications;
pub mod parse;
pub mod pg_catalog;
pub mod plan;
pub mod registry;
mod reuse;
pub mod rules;
pub mod runtime;
pub mod session;
pub mod settings;
pub mod star_tree;
pub mod stream;
pub mod subscription;
pub mod table;
pub mod views;

pub use datafusion::{
    catalog::{SchemaProvider, TableProvider},
    common::ScalarValue,
    sql::sqlparser,
};

pub use catalog::{TableCatalog, TableHandle, ViewColumn, ViewHandle};
pub use engine::{Engine, EngineConfig};
pub use error::SqlError;
pub use functions::json::canonical as canonical_json;
pub use plan::{ColumnOrigin, Plan};
pub use session::{Session, SessionOptions};
pub use stream::{CancelHandle, QueryStream};
pub use subscription::SubscribeOptions;
pub use views::{SystemFunctions, SystemViews};
