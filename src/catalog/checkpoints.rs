//! Checkpoints of pipelines, kept in the metadata file.
//!
//! ```text
//!   pipeline_known         pipeline → ()                         those that may make checkpoints
//!   pipeline_checkpoints   (pipeline, checkpoint) → JSON CheckpointRecord
//!   pipeline_letters       (pipeline, checkpoint) → JSON DeadLetterRecord
//! ```
//!
//! A checkpoint is one transaction, and no record of the log of changes: there are very many, and of old ones nobody wants to know.

use std::sync::Arc;

use redb::{ReadableTable, TableDefinition};
use tidemill_ingest::{
    Error, Result,
    commit::DeadLetterRecord,
    pipeline::run::{CheckpointLog, CheckpointRecord},
};
use tidemill_storage::ids::TableId;

use super::database::{self, Change, Database, DatabaseError};

const KNOWN: TableDefinition<u64, ()> = TableDefinition::new("pipeline_known");
const CHECKPOINTS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("pipeline_checkpoints");
const LETTERS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("pipeline_letters");

/// Makes a pipeline known, in the transaction that defines it.
pub(super) fn create(change: &Change<'_>, pipeline: TableId) -> database::Result<()> {
    change.transaction().open_table(KNOWN)?.insert(pipeline.0, ())?;
    Ok(())
}

/// Makes a checkpoint the only one of a pipeline, in the transaction that gives the pipeline another query.
pub(super) fn replace(change: &Change<'_>, checkpoint: &CheckpointRecord) -> database::Result<()> {
    let pipeline = checkpoint.pipeline.0;
    let mut checkpoints = change.transaction().open_table(CHECKPOINTS)?;
    checkpoints.retain_in((pipeline, 0)..=(pipeline, u64::MAX), |_, _| false)?;
    checkpoints.insert((pipeline, checkpoint.id), serde_json::to_vec(checkpoint)?.as_slice())?;
    Ok(())
}

/// Forgets all checkpoints of a pipeline, in the transaction that drops it.
pub(super) fn forget(change: &Change<'_>, pipeline: TableId) -> database::Result<()> {
    let transaction = change.transaction();
    transaction.open_table(KNOWN)?.remove(pipeline.0)?;
    let all = (pipeline.0, 0)..=(pipeline.0, u64::MAX);
    transaction.open_table(CHECKPOINTS)?.retain_in(all.clone(), |_, _| false)?;
    transaction.open_table(LETTERS)?.retain_in(all, |_, _| false)?;
    Ok(())
}

/// [`CheckpointLog`] over the metadata file.
#[derive(Debug)]
pub struct RedbCheckpoints {
    database: Arc<Database>,
}

impl RedbCheckpoints {
    pub fn open(database: Arc<Database>) -> database::Result<Self> {
        database.write(|change| {
            let transaction = change.transaction();
            transaction.open_table(KNOWN)?;
            transaction.open_table(CHECKPOINTS)?;
            transaction.open_table(LETTERS)?;
            Ok(())
        })?;
        Ok(Self { database })
    }

    fn all<T: serde::de::DeserializeOwned>(
        &self,
        table: TableDefinition<(u64, u64), &[u8]>,
        pipeline: TableId,
    ) -> Result<Vec<T>> {
        let read = self.database.read(|transaction| {
            let mut all = Vec::new();
            for entry in transaction.open_table(table)?.range((pipeline.0, 0)..=(pipeline.0, u64::MAX))? {
                all.push(serde_json::from_slice(entry?.1.value())?);
            }
            Ok(all)
        });
        read.map_err(|error| Error::Commit(error.to_string()))
    }
}

impl CheckpointLog for RedbCheckpoints {
    fn checkpoints(&self, pipeline: TableId) -> Result<Vec<CheckpointRecord>> {
        self.all(CHECKPOINTS, pipeline)
    }

    fn dead_letters(&self, pipeline: TableId) -> Result<Vec<DeadLetterRecord>> {
        self.all(LETTERS, pipeline)
    }

    fn record(&self, checkpoint: &CheckpointRecord, after: u64, kept: usize) -> Result<()> {
        let pipeline = checkpoint.pipeline.0;
        let written = self.database.write(|change| {
            let transaction = change.transaction();
            if transaction.open_table(KNOWN)?.get(pipeline)?.is_none() {
                return Err(DatabaseError::Refused(format!("pipeline {pipeline} is gone")));
            }
            let mut checkpoints = transaction.open_table(CHECKPOINTS)?;
            let mut letters = transaction.open_table(LETTERS)?;
            let later = (pipeline, after + 1)..=(pipeline, u64::MAX);
            checkpoints.retain_in(later.clone(), |_, _| false)?;
            letters.retain_in(later, |_, _| false)?;
            let key = (pipeline, checkpoint.id);
            checkpoints.insert(key, serde_json::to_vec(checkpoint)?.as_slice())?;
            let is_replayed = |bytes: &[u8]| match serde_json::from_slice::<DeadLetterRecord>(bytes) {
                Ok(record) => checkpoint.replayed.contains(&record.file),
                Err(_) => false,
            };
            if !checkpoint.replayed.is_empty() {
                letters.retain_in((pipeline, 0)..=(pipeline, u64::MAX), |_, bytes| !is_replayed(bytes))?;
            }
            if let Some(of_checkpoint) = &checkpoint.dead_letters {
                letters.insert(key, serde_json::to_vec(of_checkpoint)?.as_slice())?;
            }
            let known: Vec<(u64, u64)> = checkpoints
                .range((pipeline, 0)..=(pipeline, u64::MAX))?
                .map(|entry| Ok(entry?.0.value()))
                .collect::<database::Result<_>>()?;
            for old in &known[..known.len().saturating_sub(kept)] {
                checkpoints.remove(old)?;
            }
            Ok(())
        });
        written.map_err(|error| Error::Commit(error.to_string()))
    }

    fn go_back(&self, pipeline: TableId, to: u64) -> Result<()> {
        let written = self.database.write(|change| {
            let transaction = change.transaction();
            let later = (pipeline.0, to + 1)..=(pipeline.0, u64::MAX);
            transaction.open_table(CHECKPOINTS)?.retain_in(later.clone(), |_, _| false)?;
            transaction.open_table(LETTERS)?.retain_in(later, |_, _| false)?;
            Ok(())
        });
        written.map_err(|error| Error::Commit(error.to_string()))
    }
}
