//! A committed segment that turns out damaged while the server runs: told to `rt.events` once, and noted in a file beside the segment, so that the
//! next start reads it to the end and tells again, instead of taking it for sound until some query stumbles. A segment whose file was put right
//! meanwhile (from a copy, say) is sound again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemill_storage::{
    Error as StorageError,
    clock::Clock,
    ids::{PartitionId, SegmentId, TableId},
    segment::committed::Watcher,
};

use crate::{
    consumer::committing::segment_file,
    events::{Event, EventSink, Severity},
    runtime::IngestRuntime,
};

/// Ending of the note's name, after the segment file's name.
pub(crate) const NOTE_ENDING: &str = ".quarantined";

/// Name of the note on a segment file.
pub(crate) fn note_name(segment_file: &str) -> String {
    format!("{segment_file}{NOTE_ENDING}")
}

/// Forgets that a segment was damaged.
pub(crate) fn remove_note(directory: &Path, segment_file: &str) {
    let path = directory.join(note_name(segment_file));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(?path, %error, "the note on a segment that is not damaged stays until the next start");
        }
        _ => {}
    }
}

/// Watches the segments of one partition.
#[derive(Debug)]
pub(crate) struct Alarm {
    events: Arc<dyn EventSink>,
    clock: Arc<dyn Clock>,
    table: TableId,
    table_name: String,
    partition: PartitionId,
    directory: PathBuf,
}

impl Alarm {
    pub(crate) fn watcher(
        runtime: &IngestRuntime,
        table: TableId,
        table_name: &str,
        partition: PartitionId,
        directory: &Path,
    ) -> Arc<dyn Watcher> {
        let (events, clock) = (Arc::clone(&runtime.events), Arc::clone(&runtime.clock));
        let (table_name, directory) = (table_name.to_owned(), directory.to_owned());
        Arc::new(Self { events, clock, table, table_name, partition, directory })
    }
}

impl Watcher for Alarm {
    fn quarantined(&self, segment: SegmentId, error: &StorageError) {
        let note = self.directory.join(note_name(&segment_file(segment)));
        if let Err(failure) = fs::write(&note, error.to_string()) {
            tracing::warn!(path = ?note, %failure, "that a segment is damaged is not remembered over a restart");
        }
        self.events.record(Event {
            at_us: self.clock.now_us(),
            severity: Severity::Page,
            kind: "quarantined",
            table: Some(self.table),
            partition: Some(self.partition),
            stream: None,
            message: format!("segment {segment} of table '{}' is quarantined: {error}", self.table_name),
        });
    }
}
