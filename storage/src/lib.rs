#![doc = include_str!("../README.md")]

pub mod aggregate;
pub mod bitpack;
pub mod clock;
mod dictionary;
pub mod digits;
pub mod documents;
pub mod error;
pub mod evaluate;
pub mod forward;
pub mod geo;
pub mod hash;
pub mod ids;
pub mod index;
pub mod mmap;
mod nulls;
pub mod predicate;
mod prune;
pub mod row_set;
pub mod scalar;
pub mod scan;
pub mod schema;
pub mod search;
pub mod segment;
pub mod sketch;
pub mod split_block;
mod stats;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod upsert;

pub use error::{Error, Result};
