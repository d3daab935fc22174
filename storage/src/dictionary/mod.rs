//! Sorted dictionaries: the distinct values of a column, ascending, and for each row the number of its value.
//!
//! ```text
//! rows:    rome oslo rome lima        values: lima oslo rome        ids: 2 1 2 0, packed to 2 bits
//! ```
//!
//! Ids are packed one per row (compressed where wide ones repeat), or one per run of equal rows where the column has long runs. The values are a column
//! of their own. Since ids have the order of the values, every comparison is a range of ids, found once per segment; any other
//! predicate is a set of ids. Predicates then run on packed ids, and the values of rows that fail are never touched.

mod builder;
mod ids;
mod reader;

pub(crate) use builder::{Distinct, Seen, distinct};
pub(crate) use ids::{compress_ids, encode_ids, ids_bytes};
pub(crate) use reader::{Dictionary, float_order};
