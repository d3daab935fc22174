//! The definitions as they were: read from the log of changes, which is never edited.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tidemill_storage::ids::{SourceId, TableId};

use super::{
    database::{Database, DatabaseError, LogRecord, Result},
    store::Definitions,
};

/// Log records read at a time.
const PAGE: usize = 4096;

/// Every change of a definition, oldest first, up to version `last`.
pub(super) fn changes(database: &Database, last: u64) -> Result<Vec<(u64, LogRecord)>> {
    let mut changes = Vec::new();
    let mut from = 1;
    loop {
        let page = database.log(from, PAGE)?;
        let Some((end, _)) = page.last() else { return Ok(changes) };
        from = end + 1;
        let wanted = page.into_iter().filter(|(version, record)| {
            let kinds = ["source.", "table.", "view.", "pipeline.", "sink.", "function.", "rule."];
            *version <= last && kinds.iter().any(|kind| record.kind.starts_with(kind))
        });
        changes.extend(wanted);
        if from > last {
            return Ok(changes);
        }
    }
}

/// The definitions right after change `version`; before the first change there are none.
pub(super) fn definitions_at(database: &Database, version: u64) -> Result<Definitions> {
    let present = database.version()?;
    if version > present {
        return Err(DatabaseError::Refused(format!("the catalog has version {present}, there is no {version} yet")));
    }
    let mut definitions = Definitions::default();
    for (_, record) in changes(database, version)? {
        match record.kind.as_str() {
            "source.create" | "source.alter" => {
                let source: super::definition::SourceDefinition = read(&record)?;
                definitions.sources.insert(source.id, Arc::new(source));
            }
            "table.create" | "table.alter" => {
                let table: super::definition::TableDefinition = read(&record)?;
                definitions.tables.insert(table.id, Arc::new(table));
            }
            "view.create" | "view.alter" => {
                let view: super::definition::ViewDefinition = read(&record)?;
                definitions.views.insert(view.oid, Arc::new(view));
            }
            "pipeline.create" | "pipeline.alter" => {
                let pipeline: super::definition::PipelineDefinition = read(&record)?;
                definitions.pipelines.insert(pipeline.id, Arc::new(pipeline));
            }
            "sink.create" | "sink.alter" => {
                let sink: super::definition::SinkDefinition = read(&record)?;
                definitions.sinks.insert(sink.id, Arc::new(sink));
            }
            "function.create" | "function.alter" => {
                let function: super::definition::FunctionDefinition = read(&record)?;
                definitions.functions.insert(function.oid, Arc::new(function));
            }
            "rule.create" | "rule.alter" => {
                let rule: super::definition::RuleDefinition = read(&record)?;
                definitions.rules.insert(rule.oid, Arc::new(rule));
            }
            "rule.drop" => {
                definitions.rules.retain(|oid, _| u64::from(*oid) != dropped(&record));
            }
            "function.drop" => {
                definitions.functions.retain(|oid, _| u64::from(*oid) != dropped(&record));
            }
            "sink.drop" => {
                definitions.sinks.remove(&TableId(dropped(&record)));
            }
            "pipeline.drop" => {
                definitions.pipelines.remove(&TableId(dropped(&record)));
            }
            "view.drop" => {
                definitions.views.retain(|oid, _| u64::from(*oid) != dropped(&record));
            }
            "source.drop" => {
                definitions.sources.remove(&SourceId(dropped(&record)));
            }
            "table.drop" => {
                definitions.tables.remove(&TableId(dropped(&record)));
            }
            _ => {}
        }
    }
    Ok(definitions)
}

fn read<T: DeserializeOwned>(record: &LogRecord) -> Result<T> {
    Ok(T::deserialize(&record.body)?)
}

fn dropped(record: &LogRecord) -> u64 {
    record.body["id"].as_u64().unwrap_or(0)
}
