//! Columns of schemas: Avro's records and Protobuf's messages. Of several versions the newest counts, and older ones for what it does not have.

use std::collections::BTreeSet;

use super::{
    super::{
        SchemaSource, avro, given, protobuf,
        registry::{Client, Registered, RegistryAddress, frame},
    },
    Found,
};
use crate::{Error, Result, message::MessageBatch};

/// Schemas of one sample that are looked at, the newest first.
const SCHEMAS_MAX: usize = 20;

pub(super) fn avro(schema: &SchemaSource, topic: Option<&str>, sample: &[MessageBatch]) -> Result<Vec<Found>> {
    let unusable = |reason: String| Error::Definition {
        message: format!("the Avro schema cannot be used: {reason}"),
        hint: Some("write the columns in parentheses".into()),
    };
    match schema {
        SchemaSource::Given { schema, .. } => avro::columns(&given::avro(schema)?, &[]).map_err(unusable),
        SchemaSource::Registry(address) => {
            let mut found = Vec::new();
            for registered in registered(address, topic, sample)?.iter().filter(|registered| registered.is_avro()) {
                let texts: Vec<&str> = registered.references.iter().map(|(_, text)| text.as_str()).collect();
                merge(&mut found, avro::columns(&registered.text, &texts).map_err(unusable)?);
            }
            Ok(found)
        }
    }
}

pub(super) fn protobuf(schema: &SchemaSource, topic: Option<&str>, sample: &[MessageBatch]) -> Result<Vec<Found>> {
    let unusable = |reason: String| Error::Definition {
        message: format!("the Protobuf schema cannot be used: {reason}"),
        hint: Some("write the columns in parentheses".into()),
    };
    match schema {
        SchemaSource::Given { schema, message } => {
            protobuf::columns_of_given(&given::protobuf(schema)?, message.as_deref())
        }
        SchemaSource::Registry(address) => {
            let mut found = Vec::new();
            let path = sample
                .iter()
                .flat_map(|batch| batch.messages.iter().map(|message| batch.payload(message)))
                .find_map(|payload| protobuf::path_of(frame(payload).ok()?.1));
            let path = path.unwrap_or_else(|| vec![0]);
            for registered in registered(address, topic, sample)?.iter().filter(|registered| registered.is_protobuf()) {
                merge(&mut found, protobuf::columns_of_registered(registered, &path).map_err(unusable)?);
            }
            Ok(found)
        }
    }
}

/// The schemas of the sample's messages, the newest first; without messages, the newest of the topic's subject. Blocks.
fn registered(address: &RegistryAddress, topic: Option<&str>, sample: &[MessageBatch]) -> Result<Vec<Registered>> {
    let payloads = sample.iter().flat_map(|batch| batch.messages.iter().map(|message| batch.payload(message)));
    let ids: BTreeSet<u32> = payloads.filter_map(|payload| frame(payload).ok().map(|(id, _)| id)).collect();
    let client = Client::new(address.clone());
    let mut found = Vec::new();
    for id in ids.into_iter().rev().take(SCHEMAS_MAX) {
        // One that the registry does not have makes its messages dead letters, and no column.
        found.extend(client.schema(id)?.ok());
    }
    if let Some(topic) = topic.filter(|_| found.is_empty()) {
        found.extend(client.latest(&format!("{topic}-value"))?);
    }
    Ok(found)
}

/// Adds columns that are not there yet.
fn merge(found: &mut Vec<Found>, more: Vec<Found>) {
    for one in more {
        let is_known = |known: &Found| known.path.starts_with(&one.path) || one.path.starts_with(&known.path);
        if !found.iter().any(is_known) {
            found.push(one);
        }
    }
}
