//! Dead letters that a sink has sent again: a checkpoint forgets them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::runner::Runner;
use crate::{Result, dead_letters::DeadLetterReader, sink::Resent};

/// What came of it, once it is known.
pub(super) type Forgotten = Arc<Mutex<Option<Result<()>>>>;

/// What deliveries ask the runner, whose the checkpoints are.
#[derive(Debug, Default)]
pub(super) struct Forgetting(Mutex<Vec<(Resent, Forgotten)>>);

impl Forgetting {
    pub(super) fn ask(&self, resent: Resent) -> Forgotten {
        let forgotten = Forgotten::default();
        self.0.lock().push((resent, Arc::clone(&forgotten)));
        forgotten
    }
}

impl Runner {
    /// Makes a checkpoint without the letters that were sent again.
    pub(super) fn forget_resent(&mut self) {
        let asked = std::mem::take(&mut *self.shared.forgetting.0.lock());
        if asked.is_empty() {
            return;
        }
        let done = self.forget(asked.iter().map(|(resent, _)| resent));
        for (_, forgotten) in asked {
            *forgotten.lock() = Some(done.clone());
        }
    }

    fn forget<'r>(&mut self, all: impl Iterator<Item = &'r Resent>) -> Result<()> {
        // Letters that wait come into a file first.
        self.finish_writing();
        self.checkpoint_now(false)?;
        for resent in all {
            // One that is not there was forgotten before.
            let Some(file) = self.checkpoints.letters()?.into_iter().find(|record| record.file == resent.file) else {
                continue;
            };
            let mut kept = Vec::new();
            for (at, letter) in DeadLetterReader::open(&self.directory.join(&file.file))?.enumerate() {
                let letter = letter?;
                if !resent.has(at as u32) {
                    kept.push(letter);
                }
            }
            self.shared.letters.push(kept);
            self.checkpoints.replace_letters(file.file);
        }
        self.is_dirty = true;
        self.checkpoint_now(false)
    }
}
