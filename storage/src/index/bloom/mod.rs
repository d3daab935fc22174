//! Bloom: that a value is in no row of the segment.
//!
//! A [split-block filter](crate::split_block), asked while a query is planned, before any column of the segment is opened: what it rules out is never read.

mod builder;
mod reader;

pub(super) use builder::build;
pub(crate) use reader::Bloom;
