//! COPY in both directions, in PostgreSQL's text, CSV and binary formats.
//!
//! ```text
//! FROM STDIN   bytes ─► rows (text, csv, binary) ─► ColumnBuilders ─► batches ─► Backend::append, all at the end
//! TO STDOUT    batches ─► ColumnEncoders ─► bytes, a chunk per batch
//! ```
//!
//! A bad row ends the statement before any row of it is stored; the error names its line and column.

pub mod binary;
pub mod lines;
pub mod options;
pub mod read;
pub mod write;

#[cfg(test)]
mod tests;
