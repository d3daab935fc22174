//! A committed segment: an immutable file, mapped, its columns decoded where a query needs them.
use std::{path::Path, sync::Arc};

use crate::{Error, Result, ids::SegmentId, segment::Segment};

/// What the commit record says of the file; anything else is not that file.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub id: SegmentId,
    pub bytes: u64,
    /// [`super::builder::SealedFile::checksum`].
    pub checksum: u32,
}

/// Opens a segment file: maps it and reads its footer. Sections are verified when first used.
pub fn open(path: &Path, expected: &Expected) -> Result<Arc<dyn Segment>> {
    let _ = (path, expected);
    Err(Error::Invalid("opening segment files is not there yet".into()))
}
