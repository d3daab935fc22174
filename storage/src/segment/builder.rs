//! Sealing: one consuming segment written as one immutable file.
use std::path::{Path, PathBuf};

use crate::{
    Error, Result,
    ids::{OffsetRange, PartitionId, SchemaVersion, TableId},
    segment::consuming::ConsumingSegment,
};

/// What a segment file says of itself beside its rows.
#[derive(Clone, Copy, Debug)]
pub struct SealContext {
    pub table: TableId,
    pub partition: PartitionId,
    /// Wall clock, microseconds since 1970-01-01T00:00:00Z.
    pub created_at_us: i64,
}

/// A complete, synced and verified segment file that nothing names yet.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedFile {
    pub path: PathBuf,
    pub bytes: u64,
    /// CRC-32C of the footer, which holds the CRC-32C of every section: it stands for every byte of the file.
    pub checksum: u32,
    pub rows: u32,
    pub schema_version: SchemaVersion,
    /// Smallest and largest value of the time column, in its own unit (days or microseconds).
    pub time_range: Option<(i64, i64)>,
    pub offsets: Vec<OffsetRange>,
}

/// Writes `segment` as the file `name` in `dir`: temporary name, fsync, rename, fsync of the directory, reopen, verify.
/// When it fails, the file is not there or may be deleted; a second try starts from the beginning. Blocks on disk: call it on a
/// thread that may wait.
pub fn seal(segment: &ConsumingSegment, dir: &Path, name: &str, context: &SealContext) -> Result<SealedFile> {
    let _ = (segment, dir, name, context);
    Err(Error::Invalid("sealing is not there yet".into()))
}
