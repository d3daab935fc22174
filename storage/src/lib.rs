//! Columnar segments, table snapshots and scans: everything Tidemill keeps, and the fastest way to read it.
//!
//! A table is a set of partitions; a partition is a list of immutable *sealed* segments and one growing *consuming*
//! segment; a reader takes one [`table::TableSnapshot`] and sees a state that never changes under it. This crate knows no
//! Kafka, no SQL engine, no sockets and nothing asynchronous.

pub mod bitpack;
pub mod clock;
mod dictionary;
pub mod error;
pub mod evaluate;
pub mod forward;
pub mod ids;
pub mod mmap;
mod nulls;
pub mod predicate;
mod prune;
pub mod scalar;
pub mod scan;
pub mod schema;
pub mod segment;
mod stats;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::{Error, Result};
