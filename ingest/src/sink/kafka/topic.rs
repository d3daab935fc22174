//! The topic itself: whether it is there, making it, and how long a record of it may be.

use futures::executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::KafkaSinkOptions;
use crate::{Error, Result};

/// What brokers take when nobody says otherwise.
const MESSAGE_BYTES_MAX: usize = 1_048_588;

/// What every client of the sink is made of.
pub(super) fn config(options: &KafkaSinkOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "tidemill").set("socket.keepalive.enable", "true").set("reconnect.backoff.max.ms", "2000");
    for (key, value) in &options.properties {
        config.set(key, value);
    }
    config.set("bootstrap.servers", &options.brokers).set("allow.auto.create.topics", "false");
    config
}

/// What of a client's settings librdkafka does not take.
pub(super) fn refused(options: &KafkaSinkOptions, error: KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, reason, key, value) => Error::Definition {
            message: format!("option 'properties.{key}' cannot be '{value}': {reason}"),
            hint: Some("properties.<key> takes the settings of librdkafka".into()),
        },
        other => {
            Error::Definition { message: format!("kafka client for topic '{}': {other}", options.topic), hint: None }
        }
    }
}

/// Says which thing at which broker did not go well.
pub(super) fn failed(options: &KafkaSinkOptions, what: &str, error: &KafkaError) -> Error {
    let reason = match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::Resolve,
        ) => {
            return Error::Unavailable(format!(
                "no kafka broker at {} answers within {:?}: {what} of topic '{}'",
                options.brokers, options.timeout, options.topic
            ));
        }
        Some(code) => format!("{code}"),
        None => error.to_string(),
    };
    Error::Unavailable(format!("kafka topic '{}' at {}: {what}: {reason}", options.topic, options.brokers))
}

/// Finds the topic, and makes it when it is not there and the options say so. Blocks.
pub(super) fn find(options: &KafkaSinkOptions) -> Result<()> {
    match (is_there(options)?, options.create) {
        (true, _) => Ok(()),
        (false, None) => Err(Error::Missing(format!(
            "kafka topic '{}' does not exist at {}; make it there, or say create_topic = 'true'",
            options.topic, options.brokers
        ))),
        (false, Some((partitions, replication))) => create(options, partitions, replication),
    }
}

fn is_there(options: &KafkaSinkOptions) -> Result<bool> {
    let client: BaseConsumer = config(options).create().map_err(|error| refused(options, error))?;
    let metadata = client
        .fetch_metadata(Some(&options.topic), options.timeout)
        .map_err(|error| failed(options, "looking for it", &error))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == options.topic) else { return Ok(false) };
    match topic.error().map(RDKafkaErrorCode::from) {
        None => Ok(!topic.partitions().is_empty()),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(false),
        Some(code) => Err(failed(options, "looking for it", &KafkaError::MetadataFetch(code))),
    }
}

fn admin(options: &KafkaSinkOptions) -> Result<AdminClient<DefaultClientContext>> {
    config(options).create().map_err(|error| refused(options, error))
}

fn create(options: &KafkaSinkOptions, partitions: i32, replication: Option<i32>) -> Result<()> {
    let topic = NewTopic::new(&options.topic, partitions, TopicReplication::Fixed(replication.unwrap_or(-1)));
    let limits = AdminOptions::new().operation_timeout(Some(options.timeout)).request_timeout(Some(options.timeout));
    let made = block_on(admin(options)?.create_topics([&topic], &limits));
    let made = made.map_err(|error| failed(options, "making it", &error))?;
    for result in made {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(options, "making it", &KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// Bytes that the broker takes as one batch; what is usual where it does not tell.
pub(super) fn message_bytes_max(options: &KafkaSinkOptions) -> usize {
    let limits = AdminOptions::new().request_timeout(Some(options.timeout));
    let ask = || {
        let told =
            block_on(admin(options).ok()?.describe_configs([&ResourceSpecifier::Topic(&options.topic)], &limits));
        let resource = told.ok()?.into_iter().next()?.ok()?;
        resource.get("max.message.bytes")?.value.as_ref()?.parse().ok()
    };
    ask().unwrap_or(MESSAGE_BYTES_MAX)
}
