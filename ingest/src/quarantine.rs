//! A committed segment that turns out damaged while the server runs: told to `rt.events` once.

use std::sync::Arc;

use tidemill_storage::{
    Error as StorageError,
    clock::Clock,
    ids::{PartitionId, SegmentId, TableId},
    segment::committed::Watcher,
};

use crate::{
    events::{Event, EventSink, Severity},
    runtime::IngestRuntime,
};

/// Watches the segments of one partition.
#[derive(Debug)]
pub(crate) struct Alarm {
    events: Arc<dyn EventSink>,
    clock: Arc<dyn Clock>,
    table: TableId,
    table_name: String,
    partition: PartitionId,
}

impl Alarm {
    pub(crate) fn watcher(
        runtime: &IngestRuntime,
        table: TableId,
        table_name: &str,
        partition: PartitionId,
    ) -> Arc<dyn Watcher> {
        let (events, clock) = (Arc::clone(&runtime.events), Arc::clone(&runtime.clock));
        Arc::new(Self { events, clock, table, table_name: table_name.to_owned(), partition })
    }
}

impl Watcher for Alarm {
    fn quarantined(&self, segment: SegmentId, error: &StorageError) {
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
