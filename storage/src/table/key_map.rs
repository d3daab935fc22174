//! The key map of a partition in a file beside its segments: written now and then, taken back at a start.

use std::{collections::HashSet, fs, path::Path, sync::Arc};

use super::{Partition, PartitionWriter};
use crate::{
    Error, Result,
    ids::{SegmentId, TableId},
    row_set::RowSet,
    schema::TableSchema,
    segment::{Segment, SegmentState},
    upsert::{CAPTURED_SHARDS, Capture, Restored, Unfinished, Winners, temporary},
};

/// Where the key map of a partition is kept, and of which table it is.
#[derive(Clone, Copy, Debug)]
pub struct KeyMapFile<'a> {
    /// Of the partition. The file is [`crate::upsert::KEY_MAP_FILE`].
    pub directory: &'a Path,
    pub table: TableId,
}

/// What became of a file at a start.
#[derive(Debug)]
pub enum KeyMapUse {
    /// There was none.
    None,
    Taken(WrittenKeyMap),
    /// It is damaged, or about another table; it may be deleted.
    Refused(Error),
    /// Segments that it may be about cannot be read: it stays for the time when they can.
    Kept,
}

/// What a file is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenKeyMap {
    /// Segments whose keys need not be read again.
    pub segments: Vec<SegmentId>,
    pub keys: u64,
}

impl KeyMapUse {
    /// Those whose keys are known.
    pub(super) fn segments(&self) -> HashSet<SegmentId> {
        match self {
            Self::Taken(file) => file.segments.iter().copied().collect(),
            _ => HashSet::new(),
        }
    }
}

impl KeyMapFile<'_> {
    #[expect(clippy::too_many_arguments, reason = "what a partition is opened with")]
    pub(super) fn restore(
        &self,
        winners: &mut Winners,
        partition: &Partition,
        schema: &TableSchema,
        next: SegmentId,
        deleted: &[(SegmentId, RowSet)],
        lost: &[(SegmentId, RowSet)],
        left: &[(SegmentId, i64)],
    ) -> KeyMapUse {
        let view = partition.view();
        if view.has_damage() {
            return KeyMapUse::Kept;
        }
        let has_left = |segment: &&Arc<dyn Segment>| left.iter().any(|(id, _)| *id == segment.id());
        let present: Vec<_> = view.segments().filter(|segment| !has_left(segment)).collect();
        match winners.restore(self.directory, (self.table, partition.id()), schema, &present, next, deleted, lost) {
            Ok(None) => KeyMapUse::None,
            Ok(Some(Restored { segments, keys })) => KeyMapUse::Taken(WrittenKeyMap { segments, keys }),
            Err(error) => KeyMapUse::Refused(error),
        }
    }

    /// Writes the key map down. `with` lets a function have the partition's writer for a moment, again and again: between that others may have it. When
    /// `with` returns false, it is not to be had any more. `None`: nothing was written, because of that, or because segments went meanwhile or are
    /// damaged, or there is no key.
    pub fn write(
        &self,
        schema: &TableSchema,
        mut with: impl FnMut(&mut dyn FnMut(&mut PartitionWriter)) -> bool,
    ) -> Result<Option<WrittenKeyMap>> {
        let mut capture = None;
        with(&mut |writer| {
            if !writer.partition().view().has_damage() {
                capture = writer.winners.as_mut().map(Winners::begin_capture);
            }
        });
        let Some(mut capture) = capture else { return Ok(None) };
        let temporary = temporary(self.directory);
        let written = self.write_shards(&mut capture, &temporary, &mut with);
        let mut captured = Ok(None);
        // Also after an error: the writer is not to go on remembering.
        with(&mut |writer| {
            let partition = writer.partition().id();
            if let Some(winners) = &mut writer.winners {
                captured = winners.end_capture(&capture, schema, self.table, partition);
            }
        });
        let finished = written.and_then(|file| match (file, captured?) {
            (Some(file), Some(captured)) => captured.finish(file).map(Some),
            _ => Ok(None),
        });
        if !matches!(finished, Ok(Some(_))) {
            // What stays is deleted at the next start.
            let _ = fs::remove_file(&temporary);
        }
        Ok(finished?.map(|_| WrittenKeyMap { segments: capture.segments().collect(), keys: capture.keys }))
    }

    fn write_shards<'a>(
        &'a self,
        capture: &mut Capture,
        temporary: &'a Path,
        with: &mut impl FnMut(&mut dyn FnMut(&mut PartitionWriter)) -> bool,
    ) -> Result<Option<Unfinished<'a>>> {
        let mut file = Unfinished::create(self.directory, temporary)?;
        let mut bytes = Vec::new();
        for shard in 0..CAPTURED_SHARDS {
            let mut goes_on = true;
            bytes.clear();
            let is_there = with(&mut |writer| {
                goes_on = writer.winners.as_ref().is_some_and(|known| known.capture(capture, shard, &mut bytes));
            });
            if !is_there || !goes_on {
                return Ok(None);
            }
            file.section(&bytes)?;
        }
        Ok(Some(file))
    }
}

#[cfg(any(test, feature = "testing"))]
impl PartitionWriter {
    /// Fingerprints, and the rows that stand for them, ascending.
    pub fn key_map_entries(&self) -> Vec<(u64, SegmentId, u32)> {
        self.winners.as_ref().map_or_else(Vec::new, Winners::entries)
    }
}

impl super::PartitionView {
    fn has_damage(&self) -> bool {
        self.segments().any(|segment| segment.state() == SegmentState::Quarantined)
    }
}
