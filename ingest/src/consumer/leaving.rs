//! Keys that leave the key map because they are old (`key_ttl`): segment by segment, when its newest row is old enough.
//!
//! | a crash | leaves | and then |
//! |---|---|---|
//! | before the transaction | nothing | the keys are read at the start, and leave after it |
//! | after it | a segment whose keys have left, and which of its rows are valid | no key of it is read |

use std::sync::Arc;

use super::{partition::PartitionIngest, table::TableShared};
use crate::{Result, commit::PartitionChange, events::Severity};

impl TableShared {
    /// Lets old keys of a partition go; of how many segments. Blocks.
    pub(crate) fn leave_keys(&self, partition: &Arc<PartitionIngest>) -> Result<usize> {
        if self.table.key().is_none_or(|key| key.ages.is_none()) {
            return Ok(0);
        }
        // No segments are put together meanwhile.
        let closed = self.compacting.lock();
        if *closed { Ok(0) } else { partition.leave_keys() }
    }
}

impl PartitionIngest {
    fn leave_keys(&self) -> Result<usize> {
        let (old, view) = (self.state.lock().writer.may_leave(), self.partition.view());
        let (mut segments, mut keys) = (0, 0);
        for id in old {
            let Some(segment) = view.segments().find(|segment| segment.id() == id) else { continue };
            // Most of the work, while rows go on coming.
            let fingerprints = self.partition.key_fingerprints(segment.as_ref())?;
            // Rows in memory that lost against these are lost with the commit of their segment: none is on its way meanwhile.
            let _working = self.working.lock();
            let mut state = self.state.lock();
            if state.closed {
                break;
            }
            let Some(prepared) = state.writer.prepare_leaving(id, &fingerprints)? else { continue };
            let left = vec![(id, prepared.newest_us())];
            let change =
                PartitionChange { partition: self.id, lost: prepared.lost().to_vec(), left, ..Default::default() };
            fail::fail_point!("keys::before_log", |_| Err(crate::Error::Unavailable(
                "failpoint keys::before_log".into()
            )));
            self.runtime.log.change(self.table, &[change])?;
            fail::fail_point!("keys::after_log", |_| Err(crate::Error::Unavailable(
                "failpoint keys::after_log".into()
            )));
            let before = state.writer.keys().keys;
            state.writer.leave(&prepared);
            keys += before - state.writer.keys().keys;
            segments += 1;
            if let Some(record) = state.segments.iter_mut().find(|record| record.id == id) {
                record.keys_left_us = Some(prepared.newest_us());
            }
        }
        if segments > 0 {
            metrics::counter!("tidemill_keys_left_total").increment(keys);
            let message = format!(
                "{keys} keys of {segments} segments of table '{}' partition {} are older than its key_ttl and left the key map; their rows stay",
                self.table_name, self.id
            );
            self.event(Severity::Info, "keys_left", None, message);
        }
        Ok(segments)
    }
}
