//! Places: the rows in the order of the [cell](crate::geo::cover) around the place in two columns.
//!
//! An area is covered by ranges of cells; the rows in these may lie in it, and whoever asks tests them. Rows without a place are not listed.

mod builder;
mod reader;

pub(super) use builder::build;
pub(crate) use reader::{GeoIndex, Inside};

#[cfg(test)]
mod tests;
