//! Inverted: the rows of each value.
//!
//! With a dictionary the keys are its ids, and since ids have the order of the values, every test that a dictionary turns into a range or a
//! set of ids (comparisons, IN, LIKE) is answered exactly. Without one (ids of orders, UUIDs, long texts: about as many values as rows) the keys
//! are buckets of a hash, as many as there are rows: `=` and IN find the rows of one bucket each, two of them on average, and the test is
//! evaluated on these. That takes 5 MB for a million rows where the values themselves would take 16.

mod builder;
mod reader;

pub(super) use builder::build;
pub(crate) use reader::Inverted;
pub(super) use reader::by_ids;

/// Keys are dictionary ids.
const BY_ID: u8 = 0;
/// Keys are the highest bits of the hash.
const BY_HASH: u8 = 1;
