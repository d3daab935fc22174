//! CREATE SOURCE … INFER: columns from a sample of the messages.

use std::sync::Arc;

use tidemill_ingest::{
    Error,
    decode::infer::{InferredColumn, infer},
    source::{ConnectorOptions, sample},
};

use crate::{
    catalog::{definition::SourceColumnDefinition, definition::SourceDefinition},
    runtime,
    server::{instance::Instance, live},
    session::error::{Result, SqlError, state},
    sql::ast::Infer,
};

/// What INFER would make of a source that is there, and of which messages.
pub(crate) async fn inferred_columns(
    instance: &Arc<Instance>,
    source: &SourceDefinition,
    sample: usize,
) -> Result<(Vec<SourceColumnDefinition>, String)> {
    let inferred = columns(instance, source, Infer { sample, position: 0 }).await;
    inferred.map_err(|error| SqlError { position: None, ..error })
}

/// Columns that fit what is in a source now, and what to tell the user of them.
pub(super) async fn columns(
    instance: &Arc<Instance>,
    source: &SourceDefinition,
    wanted: Infer,
) -> Result<(Vec<SourceColumnDefinition>, String)> {
    let (clock, source) = (Arc::clone(&instance.clock), source.clone());
    let inferred = runtime::blocking(move || {
        let (options, _) = live::source_options(&source)?;
        let connected = live::connect(&source, &clock)?;
        let format = connected.format.ok_or_else(|| Error::Unsupported {
            message: "the source has columns with types of their own, and nothing to infer".into(),
            hint: Some("leave INFER out; write the columns in parentheses where it needs them".into()),
        })?;
        let topic = match &options.connector {
            ConnectorOptions::Kafka(options) => Some(options.topic.as_str()),
            _ => None,
        };
        let messages = sample(&*connected.connector, &*clock, wanted.sample)?;
        infer(&format, topic, &messages)
    });
    let inferred = inferred.await.map_err(|error| match error {
        Error::Unavailable(message) | Error::Missing(message) => {
            SqlError::new(state::CANNOT_ESTABLISH_CONNECTION, message)
        }
        error => SqlError::from(error).at(wanted.position),
    })?;
    let said = match inferred.unreadable {
        0 => format!("{} messages, all of which are rows of them", inferred.messages),
        some => format!("{} messages, {some} of which are no rows of them", inferred.messages),
    };
    let column = |column: InferredColumn| SourceColumnDefinition {
        name: column.name,
        data_type: column.data_type,
        nullable: true,
        path: column.path,
        epoch: column.epoch.map(str::to_owned),
        in_key: false,
    };
    Ok((inferred.columns.into_iter().map(column).collect(), said))
}
