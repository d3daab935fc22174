//! Dead letters of a pipeline on their way into a checkpoint.

use parking_lot::Mutex;

use crate::dead_letters::DeadLetter;

#[derive(Debug, Default)]
pub(super) struct Letters(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    letters: Vec<DeadLetter>,
    /// How many there ever were, and how many of these are in checkpoints.
    pushed: u64,
    kept: u64,
    /// The last checkpoint whose letters are no more among these.
    settled: u64,
}

impl Letters {
    /// The number that [`Letters::kept`] reaches when all of these are in a checkpoint.
    pub(super) fn push(&self, letters: Vec<DeadLetter>) -> u64 {
        let mut waiting = self.0.lock();
        waiting.pushed += letters.len() as u64;
        waiting.letters.extend(letters);
        waiting.pushed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().letters.is_empty()
    }

    /// Those that are in no checkpoint.
    pub(super) fn all(&self) -> Vec<DeadLetter> {
        self.0.lock().letters.clone()
    }

    /// Goes on behind a checkpoint.
    pub(super) fn begin(&self, checkpoint: u64) {
        self.0.lock().settled = checkpoint;
    }

    /// Those that are in no checkpoint up to one, and that one. A later one may be written already, and not be known here.
    pub(super) fn behind(&self) -> (u64, Vec<DeadLetter>) {
        let waiting = self.0.lock();
        (waiting.settled, waiting.letters.clone())
    }

    /// The first `count` are in a checkpoint.
    pub(super) fn keep(&self, count: usize, checkpoint: u64) {
        let mut waiting = self.0.lock();
        waiting.settled = checkpoint;
        let count = count.min(waiting.letters.len());
        waiting.letters.drain(..count);
        waiting.kept += count as u64;
    }

    pub(super) fn kept(&self) -> u64 {
        self.0.lock().kept
    }
}
