//! `rt.catalog_log` and `rt.catalog_at(version)`: what was defined, and when.

use serde::Serialize;
use serde_json::Value;
use tidemill_query::SqlError;

use super::{
    Rows,
    ingestion::hide_secret,
    rows::{
        Cell,
        Kind::{self, Int, Text, Time},
    },
};
use crate::{catalog::database::DatabaseError, server::instance::Instance};

pub(super) const LOG: &[(&str, Kind)] =
    &[("version", Int), ("at", Time), ("change", Text), ("object", Text), ("definition", Text)];

/// Every change of a definition.
pub(super) fn log(instance: &Instance) -> Result<Rows, SqlError> {
    let changes = instance.catalog.changes().map_err(|error| failed(&error))?;
    let row = |(version, record): (u64, crate::catalog::database::LogRecord)| {
        vec![
            version.into(),
            Cell::Time(record.at_us),
            record.kind.into(),
            record.body["name"].as_str().into(),
            shown(record.body).into(),
        ]
    };
    Ok(changes.into_iter().map(row).collect())
}

pub(super) const AT: &[(&str, Kind)] = &[("kind", Text), ("name", Text), ("version", Int), ("definition", Text)];

/// What was defined right after change `version`.
pub(super) fn at(instance: &Instance, version: i64) -> Result<Rows, SqlError> {
    let version = u64::try_from(version)
        .map_err(|_| SqlError::new("22023", format!("the catalog has no version {version}: they count from 0")))?;
    let definitions = instance.catalog.at(version).map_err(|error| match error {
        DatabaseError::Refused(message) => SqlError::new("22023", message)
            .with_hint("SELECT max(version) FROM rt.catalog_log tells the last change of a definition."),
        other => failed(&other),
    })?;
    let row = |kind: &str, name: &str, version: u64, definition: String| {
        vec![kind.into(), name.into(), version.into(), definition.into()]
    };
    let sources = definitions.sources.values().map(|source| row("source", &source.name, source.version, json(source)));
    let tables = definitions.tables.values().map(|table| row("table", &table.name, table.version, json(table)));
    let views = definitions.views.values().map(|view| row("view", &view.name, view.version, json(view)));
    let pipelines = definitions.pipelines.values();
    let pipelines = pipelines.map(|pipeline| row("pipeline", &pipeline.name, pipeline.version, json(pipeline)));
    let sinks = definitions.sinks.values().map(|sink| row("sink", &sink.name, sink.version, json(sink)));
    let functions = definitions.functions.values();
    let functions = functions.map(|function| row("function", &function.name, function.version, json(function)));
    Ok(sources.chain(tables).chain(views).chain(pipelines).chain(sinks).chain(functions).collect())
}

fn json(definition: &impl Serialize) -> String {
    serde_json::to_value(definition).map(shown).unwrap_or_default()
}

/// A definition as text, without what opens doors.
fn shown(mut definition: Value) -> String {
    if let Some(options) = definition.get_mut("options").and_then(Value::as_object_mut) {
        for (key, value) in options {
            if let Some(text) = value.as_str() {
                *value = hide_secret(key, text).into();
            }
        }
    }
    definition.to_string()
}

pub(super) fn failed(error: &DatabaseError) -> SqlError {
    SqlError::new("58030", format!("the metadata log cannot be read: {error}"))
}
