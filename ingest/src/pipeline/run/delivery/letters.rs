//! Dead letters of a sink: rows that it does not take, each once, also over a crash.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use tidemill_storage::ids::{StreamId, TableId};

use super::super::CheckpointLog;
use crate::{
    Result,
    dead_letters::{DeadLetterBuffer, DeadLetterReader},
};

/// Dead letters of a sink.
pub(super) struct Letters {
    pub(super) log: Arc<dyn CheckpointLog>,
    pub(super) directory: PathBuf,
    /// Rows that are among them already.
    pub(super) known: Option<BTreeSet<u64>>,
    pub(super) buffer: DeadLetterBuffer,
}

impl Letters {
    /// Rows of the log that are among the letters of a sink, in checkpoints or on their way there.
    pub(super) fn known(&mut self, pipeline: TableId, sink: &str, stream: StreamId) -> Result<&mut BTreeSet<u64>> {
        if self.known.is_none() {
            let mut known = BTreeSet::new();
            for record in self.log.dead_letters(pipeline)? {
                for letter in DeadLetterReader::open(&self.directory.join(record.file))? {
                    let letter = letter?;
                    if letter.stream == stream && letter.source == sink {
                        known.insert(letter.reject.offset);
                    }
                }
            }
            known.extend(self.buffer.letters().iter().map(|letter| letter.reject.offset));
            self.known = Some(known);
        }
        Ok(self.known.get_or_insert_default())
    }
}
