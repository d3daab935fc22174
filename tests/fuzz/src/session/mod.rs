//! Stands in for the root package's `session`: the errors alone, without what other packages' errors become.

#[path = "../../../../src/session/error/sql_error.rs"]
pub mod error;
