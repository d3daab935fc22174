//! Dead letters of a pipeline once more: after the cause is gone (a service that refused rows knows them now, a value that a row is divided by was corrected in a table).
//!
//! ```text
//! file of letters ─ decode, checks ─► machine ─┬─ rows ──────► log ─┐
//!                                              └─ still bad ► letters ┴─ one checkpoint, which forgets the old file
//! ```
//!
//! What always holds: a letter is in `rt.dlq`, or what came of it is in the log, never both and never neither, also after a crash at any moment: until the checkpoint the old file counts, and
//! the log is cut at the one before. Rows are late by the watermark of now.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tidemill_storage::ids::StreamId;

use super::{super::machine::Arrival, runner::Runner};
use crate::{
    Error, Result,
    commit::DeadLetterRecord,
    consumer::messages_of,
    dead_letters::{DeadLetter, DeadLetterReader},
    decode::decode_batch,
    message::SourceBatch,
};

/// What somebody asked for, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Replay(Mutex<Asked>);

#[derive(Debug, Default)]
enum Asked {
    #[default]
    Nothing,
    Wanted,
    Begun,
    Done(Result<u64>),
}

impl Replay {
    pub(super) fn want(&self) {
        *self.0.lock() = Asked::Wanted;
    }

    /// Nobody waits for it any longer. False when it has begun.
    pub(super) fn withdraw(&self) -> bool {
        let mut asked = self.0.lock();
        let is_wanted = matches!(*asked, Asked::Wanted);
        if is_wanted {
            *asked = Asked::Nothing;
        }
        is_wanted
    }

    pub(super) fn done(&self) -> Option<Result<u64>> {
        let mut asked = self.0.lock();
        match std::mem::take(&mut *asked) {
            Asked::Done(done) => Some(done),
            other => {
                *asked = other;
                None
            }
        }
    }

    fn begin(&self) -> bool {
        let mut asked = self.0.lock();
        let is_wanted = matches!(*asked, Asked::Wanted);
        if is_wanted {
            *asked = Asked::Begun;
        }
        is_wanted
    }
}

/// One file of letters, as the machine takes it.
struct Again {
    batches: Vec<(usize, SourceBatch)>,
    /// Letters that are not taken.
    kept: Vec<DeadLetter>,
    letters: u64,
}

impl Runner {
    /// Takes dead letters again, when somebody asked for that. An error is one of the machine.
    pub(super) fn replay(&mut self) -> Result<()> {
        if !self.shared.replay.begin() {
            return Ok(());
        }
        let mut broken = None;
        let done = self.replay_all(&mut broken);
        *self.shared.replay.0.lock() = Asked::Done(done);
        self.shared.ring();
        broken.map_or(Ok(()), Err)
    }

    /// The number of letters that became rows, or that the pipeline's conditions leave out.
    fn replay_all(&mut self, broken: &mut Option<Error>) -> Result<u64> {
        // Letters that wait come into a file first.
        self.finish_writing();
        self.checkpoint_now(false)?;
        let mut resolved = 0;
        for file in self.checkpoints.letters()? {
            let again = self.read_again(&file)?;
            if again.letters == 0 {
                continue;
            }
            let applied = self.apply(Arrival::Again { batches: again.batches });
            let rejected = applied.inspect_err(|error| *broken = Some(error.clone()))?;
            self.shared.letters.push(again.kept);
            self.checkpoints.replace_letters(file.file);
            resolved += again.letters.saturating_sub(rejected);
        }
        self.give(0).and_then(|()| self.checkpoint_now(false)).inspect_err(|error| *broken = Some(error.clone()))?;
        Ok(resolved)
    }

    /// Decodes the letters of a file without changing anything.
    fn read_again(&self, file: &DeadLetterRecord) -> Result<Again> {
        let mut again = Again { batches: Vec::new(), kept: Vec::new(), letters: 0 };
        // Of one message there may be several letters, each with a row of it: those of one round have different offsets.
        let mut rounds: Vec<BTreeMap<StreamId, BTreeMap<u64, DeadLetter>>> = Vec::new();
        for letter in DeadLetterReader::open(&self.directory.join(&file.file))? {
            let letter = letter?;
            let place = self.inputs.all().iter().position(|input| input.id == letter.stream.source);
            // Of a message that was cut the rest is gone; letters of sinks are of the log behind the pipeline.
            let whole = letter.raw_length == letter.reject.raw.len() as u64;
            let Some(place) = place.filter(|_| whole) else {
                again.kept.push(letter);
                continue;
            };
            if self.plan.lanes_of(place) > 1 {
                let name = &self.inputs.all()[place].name;
                return Err(Error::Unsupported {
                    message: format!(
                        "dead letters of source '{name}' cannot be replayed: pipeline '{}' reads it more than once, and one way may have taken what another did not",
                        self.shared.name
                    ),
                    hint: Some("read the source once in each pipeline".into()),
                });
            }
            let (stream, offset) = (letter.stream, letter.reject.offset);
            let is_free = |round: &BTreeMap<StreamId, BTreeMap<u64, DeadLetter>>| {
                !round.get(&stream).is_some_and(|of| of.contains_key(&offset))
            };
            let round = rounds.iter().position(is_free).unwrap_or(rounds.len());
            if round == rounds.len() {
                rounds.push(BTreeMap::new());
            }
            rounds[round].entry(stream).or_default().insert(offset, letter);
            again.letters += 1;
        }
        for (stream, letters) in rounds.into_iter().flatten() {
            let Some(place) = self.inputs.all().iter().position(|input| input.id == stream.source) else { continue };
            let input = &self.inputs.all()[place];
            let mut decoder = (input.decoder)()?;
            let mut rest = Some(messages_of(stream, &letters)?);
            while let Some(batch) = rest {
                let decoded;
                (decoded, rest) = decode_batch(&mut *decoder, stream, batch)?;
                again.batches.push((place, input.checks.apply(decoded)));
            }
        }
        Ok(again)
    }
}
