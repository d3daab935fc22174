//! What is known of very many values in few bytes, for answers that are approximate by name.
//!
//! | sketch | answers | error | bytes |
//! |---|---|---|---|
//! | [`Distinct`] | `approx_distinct` | none up to some 16,000 values; standard error 0.3 % above | 4 a value, 64 KiB at most |
//! | [`Quantiles`] | `approx_percentile` | none up to 128 values; 0.8 % of the value at most above | 8 a value, then 1 KiB for each power of two that values lie in |
//!
//! Both depend on the set of values alone: not on their order, nor on which were put together first. So rows, documents of a star-tree, and
//! segments that are consuming or sealed all give the same answer.
//!
//! `to_bytes` is part of the format of star-trees.

mod distinct;
mod quantiles;

use std::fmt;

pub use distinct::{Distinct, token};
pub(crate) use distinct::{FEW_MAX, bytes_of_different};
pub use quantiles::Quantiles;

use crate::Result;

/// What both have in common: parts are put together.
pub trait Sketch: Default + fmt::Debug + Send + Sync + 'static {
    /// Takes what another one, written as bytes, has. Errors: `Corrupt` for bytes that are none.
    fn merge_bytes(&mut self, bytes: &[u8]) -> Result<()>;

    fn to_bytes(&self) -> Vec<u8>;

    /// Memory beside the struct itself.
    fn memory_bytes(&self) -> usize;
}

/// Memory of sketches that lie one behind the other.
pub fn memory_bytes<S: Sketch>(sketches: &[S]) -> usize {
    sketches.iter().map(|sketch| size_of::<S>() + sketch.memory_bytes()).sum()
}
