//! After a start: the last sound checkpoint of a pipeline, and the log behind it as that checkpoint left it.
//!
//! What of it is missing or damaged is fetched from the deep store, if there is one. A checkpoint whose state is damaged all the same is passed over for the one before it, as long as no table has committed rows of the log past that one: these rows would come
//! twice. Otherwise the pipeline does not start and says which file is at fault; it never begins with empty hands.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tidemill_storage::{
    ids::{SourceId, TableId},
    schema::TableSchema,
};

use super::{
    checkpoint::{self, CheckpointLog, CheckpointRecord},
    copies,
    output::Output,
};
use crate::{
    Error, Result,
    deep_store::DeepStore,
    events::{Event, EventSink, Severity},
    source::log::{Log, LogOptions},
};

/// What is needed to find out where a pipeline goes on.
pub struct Opening<'a> {
    pub id: TableId,
    pub name: &'a str,
    /// What the log behind it is called as a source.
    pub log: SourceId,
    pub directory: PathBuf,
    /// Where its checkpoints are copied to.
    pub deep_store: Option<&'a DeepStore>,
    /// The columns of its output.
    pub schema: &'a TableSchema,
    /// Tables and sinks.
    pub targets: &'a [TableId],
    /// The furthest that a partition of a target has committed the log.
    pub committed: u64,
    pub checkpoints: &'a dyn CheckpointLog,
    pub events: &'a dyn EventSink,
    pub now_us: i64,
}

/// Where a pipeline goes on.
pub struct Opened {
    pub output: Arc<Output>,
    /// The one that it goes on from.
    pub(crate) from: Option<CheckpointRecord>,
    /// The last one that was ever made.
    pub(crate) newest: u64,
}

impl Opened {
    /// To go on from the last of these checkpoints with a log that ends where it does.
    pub fn again(output: &Arc<Output>, known: &[CheckpointRecord]) -> Option<Self> {
        let last = known.last().filter(|last| last.end == output.log.end())?;
        Some(Self { output: Arc::clone(output), from: Some(last.clone()), newest: last.id })
    }
}

/// Finds the last sound checkpoint, and cuts the log behind it. Blocks.
pub fn open(opening: &Opening<'_>) -> Result<Opened> {
    let directory = &opening.directory;
    std::fs::create_dir_all(directory)
        .map_err(|error| tidemill_storage::Error::io("making the directory of a pipeline", directory, &error))?;
    let known = opening.checkpoints.checkpoints(opening.id)?;
    let from = last_sound(opening, &known)?;
    let end = from.as_ref().map_or(0, |record| record.end);
    let log = Log::open_at(log_directory(directory), LogOptions::default(), Arc::new(opening.schema.clone()), end)?;
    let letters = opening.checkpoints.dead_letters(opening.id)?;
    checkpoint::clean(directory, &known, &letters, None, None);
    if let Some(store) = opening.deep_store {
        tell_fetched(opening, &copies::restore_letters(directory, &letters, store));
    }
    let newest = known.last().map_or(0, |record| record.id);
    let output = Output::new(opening.name, log, opening.log, end, opening.targets);
    Ok(Opened { output, from, newest })
}

fn tell_fetched(opening: &Opening<'_>, errors: &[Error]) {
    for error in errors {
        let url = opening.deep_store.map_or("", DeepStore::url);
        let message = format!("a file of pipeline '{}' was fetched from {url}: {error}", opening.name);
        tell(opening, Severity::Warning, "checkpoint_fetched", message);
    }
}

fn tell(opening: &Opening<'_>, severity: Severity, kind: &'static str, message: String) {
    let at_us = opening.now_us;
    opening.events.record(Event { at_us, severity, kind, table: None, partition: None, stream: None, message });
}

fn log_directory(directory: &Path) -> PathBuf {
    directory.join("log")
}

fn last_sound(opening: &Opening<'_>, known: &[CheckpointRecord]) -> Result<Option<CheckpointRecord>> {
    let mut damaged: Option<Error> = None;
    for record in known.iter().rev() {
        if let Some(error) = &damaged
            && record.end < opening.committed
        {
            return Err(Error::Unavailable(format!(
                "checkpoint {} of pipeline '{}' would be next, but its tables have rows past it: {error}",
                record.id, opening.name
            )));
        }
        match copies::restore(&opening.directory, record, opening.deep_store) {
            Ok(fetched) => {
                tell_fetched(opening, &fetched);
                if let Some(error) = damaged {
                    let message = format!(
                        "pipeline '{}' goes on from checkpoint {}, since a later one is damaged: {error}",
                        opening.name, record.id
                    );
                    tell(opening, Severity::Page, "checkpoint_damaged", message);
                }
                return Ok(Some(record.clone()));
            }
            Err(error) => damaged = damaged.or(Some(error)),
        }
    }
    match damaged {
        Some(error) => Err(error),
        None => Ok(None),
    }
}
