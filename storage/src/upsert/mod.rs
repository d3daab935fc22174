//! Tables with a primary key: which row of a key is seen.
//!
//! Rows are appended as they come; of the rows of one key one *wins*, and all others are *not valid*. Nothing is written over: a segment stays as
//! it is, and beside it stands a set of rows that lost.
//!
//! ```text
//!                     key ─hash─► key map: fingerprint, segment, row          16 bytes a key
//!                                     │ the key itself is read there: fingerprints are never trusted
//!  new row ── rank above the winner's?├─ yes ─► the old row's bit is cleared, the map points at the new one
//!                                     └─ no ──► the new row's bit is cleared
//!  view = segments + validity of each ─► readers: one pointer swap per batch, so that a key is seen once, old or new
//! ```
//!
//! - `validity`: the rows of a segment that lost, copied on write in chunks of 64 Ki rows.
//! - `map`: where the winner of a key is; `memory`: what maps are kept in, memory and files beyond a bound; `keys`: the map as readers may ask it beside the writer.
//! - `provenance`: where a row came from, kept beside it in columns that no query sees.
//! - `identity`: the key and the rank of a row, as bytes that compare as they do.
//! - `owner`: which partition has the rows of a key.
//! - `ages`: how old a row is, and which rows of a key know of each other where keys are not known for ever.
//! - `winners`: these put together, by the one writer of a partition.
//! - `merge`: a new row and the one before it, column by column, in tables that merge rows (`mode = 'partial_upsert'`).
//! - `checkpoint`: the file that the map is kept in over restarts; `winners/capture`: writing it beside the writer, and taking it back.
//!
//! **Rank**: (version column, source, partition of the source, offset, row of the message), the greatest wins, NULL before every other version; in a
//! table that keeps the first row the least wins. It is a property of the row alone, so any order of arrival, any cut into batches and any replay
//! end in the same table; where rows are merged the order of arrival counts (`winners::merging`). A row whose delete column is true wins as any other
//! and is then not valid itself: it stays as the tombstone of its key.
//!
//! Where keys have an age (`ages`) rows of one key that are further apart than that are rows of two keys, in all that follows.
//!
//! What always holds: at most one row of a key is valid in a view; the winner's location in the map is the valid row, or a tombstone; the map can
//! be made again from the segments alone.
//!
//! The plain twin is the model of `tests/it/upsert.rs`: a map from keys to rows.

mod ages;
mod checkpoint;
mod identity;
mod keys;
mod map;
mod memory;
mod merge;
mod owner;
mod provenance;
mod validity;
mod winners;

pub use ages::{segment_newest_us, segment_span_us};
pub use checkpoint::KEY_MAP_FILE;
pub(crate) use checkpoint::{Unfinished, temporary};
pub use identity::{Identities, Reader as IdentityReader};
pub(crate) use identity::{fingerprint, fingerprint_of_hashes, fingerprints};
pub(crate) use keys::Keys;
pub use memory::KeyMemory;
pub(crate) use owner::owner;
pub use provenance::{Provenance, ids as provenance_ids, is_provenance};
pub use validity::{Validities, Validity};
pub use winners::Needed;
pub(crate) use winners::{Arriving, CAPTURED_SHARDS, Capture, Leaving, Restored, Rewrite, Winners, key_fingerprints};

use crate::{
    ids::ColumnId,
    schema::{Column, DataType, TableSchema},
};

/// Which row of a key stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// The one of the greatest rank (`mode = 'upsert'`).
    #[default]
    Last,
    /// The one of the least rank (`mode = 'dedup'`).
    First,
}

/// What makes a table one with a primary key. Its columns are of every schema that the table ever has, in one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// The columns of the key, in order; at least one, NOT NULL, of types that [`can_be_ranked`].
    pub columns: Vec<ColumnId>,
    /// The column that ranks the rows of a key before their origin does.
    pub version: Option<ColumnId>,
    /// BOOLEAN: a winner for which it is true deletes its key.
    pub delete: Option<ColumnId>,
    pub keep: Keep,
    /// Whether rows that lose when they come are stored all the same.
    pub keeps_losers: bool,
    /// BOOLEAN: tells of each row that is stored whether it came too late to win, whatever it brings. Only with [`Keep::Last`], and with `keeps_losers`.
    pub late: Option<ColumnId>,
    /// Whether a row that takes the place of one that is seen is merged with it, as [`Column::merge`] says. Only with [`Keep::Last`].
    pub merges: bool,
    /// How long keys are known; `None`: for ever.
    pub ages: Option<KeyAges>,
}

/// How long keys are known by the times of their rows: what came tells what is old, never a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyAges {
    /// DATE, TIMESTAMP or TIMESTAMPTZ.
    pub column: ColumnId,
    /// Rows of one key that are further apart are rows of two keys, and a row that comes so far behind the newest of its partition is not seen
    /// (`winners::ages`). Microseconds; `None`: for ever.
    pub key_us: Option<i64>,
    /// So far behind the newest row of its partition a tombstone may be forgotten. Microseconds; `None`: for ever.
    pub tombstone_us: Option<i64>,
}

impl KeySpec {
    /// The schema that rows have when they come to a table of this key. One that merges rows takes NULL for a value that was not given, so that a
    /// default is nothing that a row brings: it fills what is NULL when its key is new.
    pub fn arriving(&self, schema: &TableSchema) -> TableSchema {
        let mut arriving = schema.clone();
        // No row need bring what is found out when it comes.
        if let Some(late) = arriving.columns.iter_mut().find(|column| Some(column.id) == self.late) {
            (late.default, late.nullable) = (None, true);
        }
        let of_merged = |column: &&mut Column| self.merges && !self.needs(column.id) && column.default.is_some();
        for column in arriving.columns.iter_mut().filter(of_merged) {
            (column.default, column.nullable) = (None, true);
        }
        arriving
    }

    /// Whether the column is one that the key, the rank or the age of rows is made of, so that it cannot be dropped or get another type.
    pub fn needs(&self, column: ColumnId) -> bool {
        self.columns.contains(&column)
            || self.version == Some(column)
            || self.delete == Some(column)
            || self.ages.is_some_and(|ages| ages.column == column)
    }

    /// The schema that segments are written under: the table's, and the columns of the provenance. Texts of the key are not compressed unless
    /// somebody said so: one of them is read for each row that meets its key.
    pub fn written(&self, schema: &TableSchema) -> TableSchema {
        let mut written = schema.clone();
        for column in written.columns.iter_mut().filter(|column| self.columns.contains(&column.id)) {
            if column.compression.is_default() {
                column.compression = crate::schema::Compression::None;
            }
        }
        written.columns.extend(provenance::columns());
        written
    }
}

/// Whether a column of the type may be of a key or rank its rows: all but JSONB and arrays.
pub fn can_be_ranked(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Jsonb | DataType::Array(_))
}
