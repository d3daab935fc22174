//! Dead letters of a sink: rows that it does not take, each once, also over a crash.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use tidemill_storage::ids::{SourceId, StreamId, TableId};

use super::super::CheckpointLog;
use crate::{
    Result,
    dead_letters::{DeadLetter, DeadLetterBuffer, DeadLetterReader},
};

/// Whose letters these are. The log behind a pipeline is one stream: as partition a letter has the number of its sink, which stays when the sink gets another name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) log: SourceId,
    pub(super) sink: TableId,
    pub(super) name: &'a str,
}

impl Owner<'_> {
    pub(super) fn stream(&self) -> StreamId {
        StreamId { source: self.log, partition: u32::try_from(self.sink.0).unwrap_or(0) }
    }

    pub(super) fn has(&self, letter: &DeadLetter) -> bool {
        let stream = self.stream();
        // Older letters have the name alone.
        letter.stream.source == self.log
            && (letter.stream == stream || letter.stream.partition == 0 && letter.source == self.name)
    }
}

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
    pub(super) fn known(&mut self, pipeline: TableId, owner: &Owner<'_>) -> Result<&mut BTreeSet<u64>> {
        if self.known.is_none() {
            let mut known = BTreeSet::new();
            for record in self.log.dead_letters(pipeline)? {
                for letter in DeadLetterReader::open(&self.directory.join(record.file))? {
                    let letter = letter?;
                    if owner.has(&letter) {
                        known.insert(letter.reject.offset);
                    }
                }
            }
            known.extend(self.buffer.letters().iter().map(|letter| letter.reject.offset));
            self.known = Some(known);
        }
        Ok(self.known.get_or_insert_default())
    }

    /// Whether a file of letters counts.
    pub(super) fn has_file(&self, pipeline: TableId, file: &str) -> Result<bool> {
        Ok(self.log.dead_letters(pipeline)?.iter().any(|record| record.file == file))
    }
}
