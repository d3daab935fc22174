//! The Tidemill server: settings, catalog, SQL statements of our own, sockets and the wiring between ingestion, storage and queries.
//!
//! ```text
//! cli ─► config ─► server ─┬─ catalog   definitions and the metadata log, one redb file
//!                          ├─ ddl       executes the statements that `sql` parses
//!                          ├─ pgwire    PostgreSQL clients ─┐
//!                          ├─ http      console, API, metrics ─┴─► session ─► query engine
//!                          ├─ subjects  the schema registry
//!                          ├─ views     what the schema `rt` shows
//!                          └─ advice    what could be better, and why
//! ```

mod advice;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod ddl;
pub mod http;
pub mod pgwire;
pub mod runtime;
pub mod segment_files;
pub mod server;
pub mod session;
pub mod sql;
pub mod subjects;
pub mod suggest;
pub mod views;

pub use tidemill_ingest::pipeline::plugin::{self, Transforms};
