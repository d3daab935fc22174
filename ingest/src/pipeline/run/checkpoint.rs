//! Checkpoints: how far a pipeline has read, what it holds, and how far its log may be committed, as one record of the metadata log.
//!
//! ```text
//! runner   picture of the machine ─┐       where the state is large and little came, the arrivals since the one before (`diary`) in its place
//! writer                           └─► state file, synced ─► log behind the pipeline, synced ─► copies in a deep store, if there is one ─► record ─► older ones go
//! ```
//!
//! | a crash after | leaves | and then |
//! |---|---|---|
//! | the state file | a file that no record names | it is deleted at start |
//! | the copies | objects that no record names | the next checkpoint deletes them |
//! | the sync of the log | rows past the last record's end | they are cut off, and derived again |
//! | the record | everything in place | the next start goes on from it |

use std::{collections::BTreeSet, fs, path::Path};

use serde::{Deserialize, Serialize};
use tidemill_storage::ids::{SegmentId, StreamId, TableId};

use super::{
    super::{
        machine::{Arrival, Picture, state_file, state_file::StateFile},
        tables::Answers,
    },
    copies::Copies,
    diary::{self, Diary},
    spilled::{self, Spilled},
};
use crate::{
    Result,
    commit::DeadLetterRecord,
    dead_letters::{self, DeadLetter},
    source::log::Log,
};

/// Checkpoints that are kept.
pub const KEPT: usize = 3;

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    pub pipeline: TableId,
    /// Counted from 1.
    pub id: u64,
    pub at_us: i64,
    pub duration_us: i64,
    /// A picture of the machine, of this checkpoint or of one before.
    pub state: StateFile,
    /// Files that the picture names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spilled: Vec<StateFile>,
    /// What came since that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diary: Option<Diary>,
    pub groups: u64,
    /// The end of the log behind the pipeline.
    pub end: u64,
    pub positions: Vec<(StreamId, u64)>,
    /// How far its rows are known to be in its sinks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delivered: Vec<(TableId, u64)>,
    /// When the pipeline was opened that made it, and those before it (microseconds since 1970), oldest first: who delivers into sinks signs with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lineage: Vec<i64>,
    /// Of the messages since the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<DeadLetterRecord>,
    /// Files of dead letters before it that were taken again: what of them is still a letter is in its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replayed: Vec<String>,
}

/// Where checkpoints are kept. Each call is one transaction; when it returns, it survives a power loss.
pub trait CheckpointLog: Send + Sync {
    /// The checkpoints of a pipeline that are kept, oldest first.
    fn checkpoints(&self, pipeline: TableId) -> Result<Vec<CheckpointRecord>>;

    /// Files of dead letters of a pipeline, oldest first.
    fn dead_letters(&self, pipeline: TableId) -> Result<Vec<DeadLetterRecord>>;

    /// Adds a checkpoint that follows the one of id `after` (0: none), keeps the last `kept`, and forgets the files of dead letters that it replayed. Those after `after` are forgotten, with their dead letters.
    /// Refuses when the pipeline is gone.
    fn record(&self, checkpoint: &CheckpointRecord, after: u64, kept: usize) -> Result<()>;

    /// Forgets the checkpoints after `to`, with their dead letters.
    fn go_back(&self, pipeline: TableId, to: u64) -> Result<()>;
}

/// What a checkpoint is made of.
pub(super) struct Draft {
    pub(super) content: Content,
    pub(super) letters: Vec<DeadLetter>,
    /// A file that is being written for a later one.
    pub(super) spared: Option<String>,
}

pub(super) enum Content {
    Picture(Picture),
    /// What came since the checkpoint before, whose picture and diary the record has.
    Arrivals(Vec<(Arrival, Answers)>),
}

/// Carries a checkpoint out.
#[expect(clippy::too_many_arguments, reason = "what a checkpoint is made of, and where it goes")]
pub(super) fn write(
    directory: &Path,
    sink: &Log,
    log: &dyn CheckpointLog,
    diaries: &mut diary::Writer,
    mut copies: Option<&mut Copies>,
    spilled: &Spilled,
    draft: &Draft,
    mut record: CheckpointRecord,
    after: u64,
    now_us: &dyn Fn() -> i64,
) -> Result<CheckpointRecord> {
    let begun_us = now_us();
    match &draft.content {
        Content::Picture(picture) => {
            record.spilled = picture.spilled()?;
            record.state = state_file::write(directory, &file_name(record.id), picture)?;
            record.diary = None;
        }
        Content::Arrivals(arrivals) => {
            // No other opening of the pipeline writes one of that name.
            let mark = record.lineage.last().copied().unwrap_or_default();
            let name = format!("c{:020}-{mark}.diary", record.id);
            record.diary = Some(diaries.add(directory, &name, record.diary.as_ref(), arrivals)?);
        }
    }
    record.dead_letters = match draft.letters.is_empty() {
        true => None,
        false => Some(dead_letters::write(directory, SegmentId(record.id), &draft.letters)?),
    };
    fail::fail_point!("checkpoint::before_sync", |_| Err(crate::Error::Unavailable("failpoint".into())));
    sink.sync()?;
    if let Some(copies) = &mut copies {
        copies.keep(directory, &record)?;
    }
    fail::fail_point!("checkpoint::before_log", |_| Err(crate::Error::Unavailable("failpoint".into())));
    record.duration_us = now_us() - begun_us;
    // Before a replay there is no going back: its letters would be gone.
    log.record(&record, after, if record.replayed.is_empty() { KEPT } else { 1 })?;
    fail::fail_point!("checkpoint::after_log", |_| Err(crate::Error::Unavailable("failpoint".into())));
    let kept = log.checkpoints(record.pipeline)?;
    let letters = log.dead_letters(record.pipeline)?;
    clean(directory, &kept, &letters, draft.spared.as_deref(), Some(spilled));
    if let Some(copies) = copies {
        copies.clean(&kept, &letters);
    }
    Ok(record)
}

pub(super) fn file_name(id: u64) -> String {
    format!("c{id:020}.state")
}

/// Deletes what no record names, but for a file that is being written, and of spilled state what nobody has either.
pub(super) fn clean(
    directory: &Path,
    kept: &[CheckpointRecord],
    letters: &[DeadLetterRecord],
    spared: Option<&str>,
    spilled: Option<&Spilled>,
) {
    let states = kept.iter().map(|record| record.state.file.as_str());
    let diaries = kept.iter().filter_map(|record| record.diary.as_ref()).map(|diary| diary.file.as_str());
    let of_states = kept.iter().flat_map(|record| &record.spilled).map(|file| file.file.as_str());
    let named: BTreeSet<&str> =
        states.chain(diaries).chain(of_states).chain(letters.iter().map(|letters| letters.file.as_str())).collect();
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_ours =
            [".state", ".diary", ".dead", ".tmp", spilled::ENDING].iter().any(|ending| name.ends_with(ending));
        let is_spared = spared.is_some_and(|spared| name.starts_with(spared));
        if is_ours
            && !is_spared
            && !named.contains(name)
            && !spilled.is_some_and(|spilled| spilled.has(name))
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(name, %error, "a file that nothing names stays until the next checkpoint");
        }
    }
}
