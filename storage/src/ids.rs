//! Identifiers. Each is a number that is never used twice in the life of a data directory.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $repr:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(/// A table. Survives renames.
    TableId, u64);
id!(/// A source. Survives renames; a source dropped and created again is another one.
    SourceId, u64);
id!(/// A column of one table. Survives renames and type changes; never reused after DROP COLUMN.
    ColumnId, u32);
id!(/// A partition of one table, counted from 0.
    PartitionId, u32);
id!(/// A segment of one partition: a sequence number, growing in the order in which segments were begun.
    SegmentId, u64);
id!(/// An index of one table. It is also the index's object id in `pg_class`.
    IndexId, u32);
id!(/// A version of a table's schema, counted from 1.
    SchemaVersion, u32);

/// One partition of one source: the unit of order and of offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId {
    pub source: SourceId,
    pub partition: u32,
}

/// The messages of a stream from `from` (included) to `to` (excluded). Transaction markers and compacted-away
/// messages inside the range have no rows; the range still covers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OffsetRange {
    pub stream: StreamId,
    pub from: u64,
    pub to: u64,
}
