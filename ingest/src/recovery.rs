//! After a start: what the metadata log says, made true again in memory and on disk.
//!
//! The log decides. A file that it names is opened (its footer; columns are verified at first use); a file that is missing or is not what
//! the log says is fetched from the deep store, if there is one, or else *quarantined*: queries that need it fail with its name, everything else goes on. A file of ours that the log does not
//! name is what a crash left between two steps, and is deleted. Index files are derived from segments and stand in no log: one whose segment
//! and index are known is taken if it is whole, and built anew in the background if not.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemill_storage::{
    Error as StorageError,
    ids::{PartitionId, SegmentId},
    index::{INDEX_ENDING, IndexSpec, file_name},
    segment::{
        Segment,
        committed::{CommittedSegment, Expected, Watcher, open_watched},
        quarantined::QuarantinedSegment,
    },
    table::Table,
};

use crate::{
    Error, Result,
    commit::{MetadataLog, PartitionState},
    deep_store::{DeepStore, segments::object_in_partition},
    quarantine::{NOTE_ENDING, note_name, remove_note},
};

/// A partition as the log has it.
pub(crate) struct Recovered {
    pub(crate) state: PartitionState,
    /// As long as `state.segments`, in the same order.
    pub(crate) segments: Vec<Arc<dyn Segment>>,
    /// Segments whose file is missing or damaged, and why.
    pub(crate) quarantined: Vec<(SegmentId, String)>,
    /// Those that were, and were put right by a copy.
    pub(crate) fetched: Vec<(SegmentId, String)>,
}

/// Is told of damage that may still be put right.
#[derive(Debug)]
struct Nobody;

impl Watcher for Nobody {
    fn quarantined(&self, _: SegmentId, _: &StorageError) {}
}

/// Endings of the names of our files; others in the directory are not ours to delete.
const ENDINGS: [&str; 5] = [".seg", ".dead", INDEX_ENDING, NOTE_ENDING, ".tmp"];

/// Of the files in a partition's directory, those that are to be deleted.
fn orphans(found: Vec<String>, state: &PartitionState, indexes: &[IndexSpec]) -> Vec<String> {
    let named = |file: &String| {
        indexes.iter().any(|spec| state.segments.iter().any(|segment| file_name(&segment.file, spec.id) == *file))
            || state.segments.iter().any(|segment| segment.file == *file || note_name(&segment.file) == *file)
            || state.dead_letters.iter().any(|letters| letters.file == *file)
    };
    found.into_iter().filter(|file| ENDINGS.iter().any(|ending| file.ends_with(ending)) && !named(file)).collect()
}

/// Opens what is committed of one partition and cleans its directory, which is made where it is missing.
pub(crate) fn recover(
    log: &dyn MetadataLog,
    table: &Table,
    partition: PartitionId,
    directory: &Path,
    watcher: &Arc<dyn Watcher>,
    copies: Option<&DeepStore>,
) -> Result<Recovered> {
    let state = log.partition(table.id(), partition)?;
    let indexes = table.indexes();
    fs::create_dir_all(directory).map_err(|error| failed("making", directory, &error))?;
    let found = names(directory)?;
    let noted: HashSet<String> = found.iter().filter(|name| name.ends_with(NOTE_ENDING)).cloned().collect();
    for orphan in orphans(found, &state, &indexes) {
        let path = directory.join(&orphan);
        tracing::info!(?path, "deleting a file that was never committed");
        fs::remove_file(&path).map_err(|error| failed("deleting", &path, &error))?;
    }
    let mut segments = Vec::with_capacity(state.segments.len());
    let (mut quarantined, mut fetched) = (Vec::new(), Vec::new());
    for record in &state.segments {
        let path = directory.join(&record.file);
        let expected = Expected { id: record.id, bytes: record.bytes, checksum: record.checksum };
        let open = |watcher: &Arc<dyn Watcher>| {
            let segment = open_watched(&path, &expected, Arc::clone(watcher))?;
            match segment.rows() == record.rows {
                true => Ok(segment),
                false => Err(StorageError::corrupt(&path, "rows", record.rows, segment.rows())),
            }
        };
        let verified = |segment: Arc<dyn Segment>| {
            segment.as_committed().map_or(Ok(()), CommittedSegment::verify).map(|()| segment)
        };
        let is_noted = noted.contains(&note_name(&record.file));
        let mut opened = match copies {
            // Whoever could put it right needs not be told yet.
            Some(_) if is_noted => open(&(Arc::new(Nobody) as _)).and_then(verified).and_then(|_| open(watcher)),
            _ => open(watcher),
        };
        if let (Err(error), Some(copies)) = (&opened, copies) {
            match copies.fetch(&[object_in_partition(record)], &path) {
                Ok(()) => {
                    let error = error.to_string();
                    opened = open(watcher).and_then(verified);
                    if opened.is_ok() {
                        fetched.push((record.id, error));
                    }
                }
                Err(error) => {
                    tracing::warn!(segment = record.id.0, %error, "there is no copy of a damaged segment either");
                    // As it is without copies: what of it is sound can be read.
                    opened = if is_noted { open(watcher) } else { opened };
                }
            }
        }
        if let Ok(segment) = &opened {
            attach(segment, &indexes);
            if is_noted {
                // What is still damaged tells the watcher.
                match segment.as_committed().map_or(Ok(()), CommittedSegment::verify) {
                    Ok(()) => remove_note(directory, &record.file),
                    Err(error) => tracing::debug!(segment = record.id.0, %error, "still damaged"),
                }
            }
        }
        segments.push(opened.unwrap_or_else(|error| {
            quarantined.push((record.id, error.to_string()));
            let schema = table.schema();
            // Of another version, it may be about another column; and what it holds may have won against rows of other times.
            let is_about = record.schema_version == schema.version && table.key().is_none();
            let time_range = record.time_range.filter(|_| is_about);
            Arc::new(QuarantinedSegment::new(
                record.id,
                record.rows,
                record.bytes,
                schema,
                record.offsets.clone(),
                time_range,
                error,
            ))
        }));
    }
    Ok(Recovered { state, segments, quarantined, fetched })
}

/// Gives a segment the indexes whose files are there and whole.
pub(crate) fn attach(segment: &Arc<dyn Segment>, indexes: &[IndexSpec]) {
    let Some(committed) = segment.as_committed() else { return };
    for spec in indexes {
        if let Err(error) = committed.attach_index(spec) {
            tracing::warn!(index = spec.name, segment = segment.id().0, %error, "an index is built again");
        }
    }
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).map_err(|error| failed("listing", directory, &error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed("listing", directory, &error))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn failed(action: &'static str, path: impl Into<PathBuf>, error: &io::Error) -> Error {
    Error::Storage(StorageError::io(action, path, error))
}

#[cfg(test)]
mod tests {
    use tidemill_storage::ids::{IndexId, SchemaVersion};

    use super::*;
    use crate::commit::{DeadLetterRecord, SegmentRecord};

    #[test]
    fn deletes_what_the_log_does_not_name_and_nothing_else() {
        let segment = SegmentRecord {
            id: SegmentId(1),
            file: "s1.seg".into(),
            bytes: 0,
            checksum: 0,
            rows: 0,
            schema_version: SchemaVersion(1),
            time_range: None,
            offsets: Vec::new(),
            committed_at_us: 0,
            tombstones: 0,
            purged: 0,
            keys_left_us: None,
        };
        let letters = DeadLetterRecord { file: "d1.dead".into(), bytes: 0, checksum: 0, rows: 0 };
        let state = PartitionState { segments: vec![segment], dead_letters: vec![letters], ..Default::default() };
        let index = IndexSpec {
            id: IndexId(7),
            name: "i".into(),
            kind: tidemill_storage::index::IndexKind::Inverted,
            columns: Vec::new(),
        };
        let ours = ["s1.seg", "s2.seg", "s1.seg.tmp", "d1.dead", "d2.dead"];
        let notes = ["s1.seg.quarantined", "s2.seg.quarantined"];
        let of_indexes = ["s1.7.index", "s1.8.index", "s2.7.index", "s1.7.index.tmp"];
        let found =
            ours.iter().chain(&of_indexes).chain(&notes).chain(&["notes.txt"]).map(|name| (*name).to_owned()).collect();
        let expected =
            ["s2.seg", "s1.seg.tmp", "d2.dead", "s1.8.index", "s2.7.index", "s1.7.index.tmp", "s2.seg.quarantined"];
        assert_eq!(orphans(found, &state, &[index]), expected);
    }
}
