//! The targets as functions of bytes, and the sources that they drive, compiled without the packages around them.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "only a part of these sources is driven")]

#[path = "../../../src/catalog/definition.rs"]
pub mod definition;
#[path = "../../../src/suggest.rs"]
mod suggest;

/// The places where the sources expect each other.
mod catalog {
    pub use crate::definition;
}
#[path = "../../../ingest/src/decode/mod.rs"]
pub mod decode;
#[path = "../../../ingest/src/error.rs"]
mod error;
#[path = "../../../ingest/src/message.rs"]
pub mod message;
pub mod session;
#[path = "../../../src/sql/mod.rs"]
pub mod sql;

pub use error::{Error, Result};

pub mod ddl;
pub mod messages;
pub mod segment;
