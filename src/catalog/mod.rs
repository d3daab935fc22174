//! What exists and what is committed: one durable file, and the words for what is in it.

pub mod certificates;
pub mod checkpoints;
pub mod database;
pub mod definition;
mod history;
pub mod metadata_log;
pub mod store;
pub mod subjects;

pub use store::{Catalog, Definitions};
