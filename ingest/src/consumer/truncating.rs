//! TRUNCATE: all rows of tables go, in one step, and their files with them.
//!
//! ```text
//! no statement changes rows, no rows come ─► seal ─► all partitions locked ─► one transaction: no segments ─► one moment for readers ─► files deleted
//! ```
//!
//! What was read is committed first, so that offsets and dead letters are as they would be without the statement: nothing that went comes again. Keys
//! are forgotten with the rows.
//!
//! | a crash after | leaves | and then |
//! |---|---|---|
//! | the seal | all rows | nothing happened |
//! | the transaction | files that nothing names | they are deleted at start |

use std::sync::Arc;

use parking_lot::MutexGuard;
use tidemill_storage::{ids::SegmentId, segment::Segment, table::PreparedClearing, upsert::KEY_MAP_FILE};

use super::{
    TableIngest,
    partition::{PartitionIngest, State},
};
use crate::{Error, Result, events::Severity, runtime::blocking};

/// A partition that is about to be empty.
struct Part<'a> {
    ingest: &'a Arc<PartitionIngest>,
    state: MutexGuard<'a, State>,
    prepared: PreparedClearing,
}

/// Takes all rows of the tables away, of all of them or, on an error, of none; durable and visible at return.
pub async fn truncate(tables: &[Arc<TableIngest>]) -> Result<()> {
    let mut tables = tables.to_vec();
    // Everybody who holds several holds them in this order.
    tables.sort_by_key(|table| table.shared.id);
    tables.dedup_by_key(|table| table.shared.id);
    let mut held = Vec::with_capacity(tables.len());
    for table in &tables {
        held.push((table.turn().await, table.still().await));
    }
    for table in &tables {
        table.seal().await?;
    }
    let outcome = blocking(move || clear(&tables)).await;
    drop(held);
    outcome
}

/// While no rows come and no statement changes any.
fn clear(tables: &[Arc<TableIngest>]) -> Result<()> {
    let Some(first) = tables.first() else { return Ok(()) };
    let log = &first.shared.runtime.log;
    let all: Vec<_> = tables.iter().map(|table| table.shared.partitions()).collect();
    let mut parts = Vec::new();
    for (table, partitions) in tables.iter().zip(&all) {
        for ingest in partitions.iter() {
            let state = ingest.state.lock();
            if state.closed {
                return Err(Error::Unavailable(format!("table '{}' is being closed", table.shared.name)));
            }
            if state.writer.consuming().rows() > 0 || !state.jobs.is_empty() {
                return Err(Error::Unavailable(format!("rows of table '{}' are not committed yet", table.shared.name)));
            }
            let prepared = state.writer.prepare_clearing(&state.schema)?;
            parts.push(Part { ingest, state, prepared });
        }
    }
    fail::fail_point!("truncate::sealed", |_| Err(Error::Unavailable("failpoint truncate::sealed".into())));
    let ids: Vec<_> = tables.iter().map(|table| table.shared.id).collect();
    if let Err(error) = log.truncate(&ids) {
        // It may have taken place all the same. Where the log cannot tell, files stay: the next start knows what is to be there.
        let mut is_done = true;
        for part in &parts {
            is_done &= log.partition(part.ingest.table, part.ingest.id)?.segments.is_empty();
        }
        if !is_done {
            return Err(error);
        }
    }
    fail::fail_point!("truncate::logged", |_| Err(Error::Unavailable("failpoint truncate::logged".into())));
    let mut files = Vec::new();
    let mut parts = parts.into_iter().peekable();
    for table in tables {
        let (mut segments, mut rows) = (0, 0);
        let together = table.shared.table.publishing();
        while let Some(Part { ingest, mut state, prepared }) =
            parts.next_if(|part| part.ingest.table == table.shared.id)
        {
            let gone: Vec<SegmentId> = state.segments.iter().map(|record| record.id).collect();
            segments += gone.len();
            rows += state.segments.iter().map(|record| u64::from(record.rows)).sum::<u64>();
            files.extend(state.segments.iter().map(|record| (ingest, record.file.clone())));
            state.forget(&gone);
            state.key_map.forget();
            state.writer.clear(prepared);
        }
        drop(together);
        let message =
            format!("all rows of table '{}' were taken away: {segments} segments ({rows} rows)", table.shared.name);
        table.shared.event(Severity::Info, "truncated_table", message);
    }
    // Readers that still hold a segment keep its pages: an unlinked file lives until its last map is gone.
    files.iter().for_each(|(ingest, file)| ingest.remove_segment_file(file));
    for ingest in all.iter().flat_map(|partitions| partitions.iter()) {
        ingest.remove_file(KEY_MAP_FILE);
    }
    Ok(())
}
