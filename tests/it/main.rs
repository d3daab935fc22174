//! The one test binary of the root package.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "for tests, which wait and tell"
)]

mod advice;
mod changes;
mod cli;
mod compaction;
mod consistency;
mod damage;
mod ddl;
mod dead_letters;
mod deep_store;
mod exactly_once;
mod forget;
mod formats;
mod functions;
mod gapfill;
mod http;
mod indexes;
mod infer;
mod ingest_sql;
mod metadata;
mod metamorphic;
mod models;
mod partitions;
mod pgwire;
mod pipelines;
mod plans;
mod rates;
mod readme;
mod results;
mod schema_registry;
mod slt;
mod staleness;
mod star_trees;
mod subjects;
mod subscriptions;
mod support;
mod tidy;
mod truncates;
mod upserts;
mod users_path;
