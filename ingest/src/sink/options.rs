//! WITH options of a sink, from text to types.
//!
//! | option | meaning |
//! |---|---|
//! | `connector` | `kafka`; required |
//! | `format` | `json` |
//! | `delivery` | `exactly_once` (default) or `at_least_once` |
//! | `key` | columns that make the key of a record: the text of one, a JSON object of several |
//! | `headers` | columns that go into headers, as text |
//! | `timestamp` | the column that is the time of a record; by default the time of sending is |
//! | `value_columns` | `all` (default), or `rest`: without those of `key` and `headers` |
//! | `commit_interval` | how far commits are apart while rows come: `100ms` by default |
//! | `backlog` | bytes that may wait for a sink that takes nothing before the pipeline stands still: `1GB` by default |
//! | … | those of the connector (in its own folder) |

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Connector, ShapeOptions, kafka, kafka::KafkaSinkOptions};
use crate::{
    Error, Result,
    source::{OptionReader, parse_duration, wrong},
};

const CONNECTORS: &str = "kafka";

/// Whether records can come more than once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    #[default]
    ExactlyOnce,
    /// After a crash some come again.
    AtLeastOnce,
}

impl Delivery {
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::AtLeastOnce => "at_least_once",
        }
    }
}

/// What CREATE SINK … WITH (…) says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkOptions {
    pub kafka: KafkaSinkOptions,
    pub delivery: Delivery,
    pub shape: ShapeOptions,
    pub commit_interval: Duration,
    /// Bytes.
    pub backlog: u64,
}

impl SinkOptions {
    /// Checks every option; touches nothing outside. Keys are expected in lower case.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self> {
        let mut options = OptionReader::all(options.clone());
        let connector = options.text("connector").ok_or_else(|| Error::Definition {
            message: "a sink needs the option 'connector'".into(),
            hint: Some(format!("it takes {CONNECTORS}")),
        })?;
        if !connector.trim().eq_ignore_ascii_case("kafka") {
            return Err(wrong("connector", &connector, CONNECTORS));
        }
        match options.text("format").map(|format| format.trim().to_ascii_lowercase()).as_deref() {
            None | Some("json") => {}
            Some(known @ ("avro" | "protobuf" | "csv" | "raw" | "debezium-json")) => {
                return Err(Error::Unsupported {
                    message: format!("option 'format' of a sink cannot be '{known}' yet"),
                    hint: Some("it takes json".into()),
                });
            }
            Some(other) => return Err(wrong("format", other, "json")),
        }
        let delivery = match options.text("delivery").map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            None | Some("exactly_once") => Delivery::ExactlyOnce,
            Some("at_least_once") => Delivery::AtLeastOnce,
            Some(other) => return Err(wrong("delivery", other, "exactly_once or at_least_once")),
        };
        let list = |text: Option<String>| -> Vec<String> {
            let text = text.unwrap_or_default();
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let shape = ShapeOptions {
            key: list(options.text("key")),
            headers: list(options.text("headers")),
            timestamp: options.text("timestamp").map(|name| name.trim().to_owned()),
            is_rest: match options.text("value_columns").map(|text| text.trim().to_ascii_lowercase()).as_deref() {
                None | Some("all") => false,
                Some("rest") => true,
                Some(other) => return Err(wrong("value_columns", other, "all or rest")),
            },
        };
        let commit_interval = match options.text("commit_interval") {
            None => Duration::from_millis(100),
            Some(text) => parse_duration(&text)
                .filter(|interval| (1..=60_000).contains(&interval.as_millis()))
                .ok_or_else(|| wrong("commit_interval", &text, "a time between 1ms and 60s, as in 100ms"))?,
        };
        let backlog = match options.text("backlog") {
            None => 1 << 30,
            Some(text) => parse_bytes(&text)
                .filter(|bytes| *bytes >= 1 << 20)
                .ok_or_else(|| wrong("backlog", &text, "a size of 1MB or more, as in 1GB"))?,
        };
        let kafka = KafkaSinkOptions::take(&mut options)?;
        options.finish()?;
        Ok(Self { kafka, delivery, shape, commit_interval, backlog })
    }

    /// Makes the connector; waits for nobody.
    pub fn connect(&self) -> Arc<dyn Connector> {
        kafka::connect(&self.kafka)
    }
}

/// `256MB`; a kilobyte is 1024 bytes, as in Postgres.
fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let shift = match text[split..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kb" => 10,
        "mb" => 20,
        "gb" => 30,
        "tb" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[(&str, &str)]) -> Result<SinkOptions> {
        let least = [("connector", "kafka"), ("brokers", "b:1"), ("topic", "t")];
        let all = least.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        SinkOptions::parse(&all.collect())
    }

    #[test]
    fn takes_what_it_knows() {
        let plain = parse(&[]).unwrap();
        assert_eq!((plain.delivery, plain.commit_interval), (Delivery::ExactlyOnce, Duration::from_millis(100)));
        let all = parse(&[
            ("format", "JSON"),
            ("delivery", "at_least_once"),
            ("key", "a, b"),
            ("headers", "c"),
            ("timestamp", "ts"),
            ("value_columns", "rest"),
            ("commit_interval", "1s"),
            ("backlog", "2 MB"),
            ("create_topic", "true"),
            ("partitions", "3"),
            ("transaction_timeout", "2 minutes"),
            ("properties.compression.type", "zstd"),
        ])
        .unwrap();
        assert_eq!((all.delivery, all.backlog), (Delivery::AtLeastOnce, 2 << 20));
        assert_eq!((all.shape.key, all.shape.is_rest), (vec!["a".to_owned(), "b".to_owned()], true));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (key, value) in [
            ("delivery", "often"),
            ("format", "xml"),
            ("value_columns", "some"),
            ("commit_interval", "0ms"),
            ("backlog", "1kB"),
            ("partitions", "0"),
            ("brokr", "x"),
            ("properties.transactional.id", "mine"),
            ("properties.enable.idempotence", "false"),
            ("transaction_timeout", "1ms"),
        ] {
            let Err(Error::Definition { message, hint }) = parse(&[(key, value)]) else { panic!("{key} = {value}") };
            assert!(message.contains(key) && hint.is_some(), "{key}: {message}");
        }
        assert!(matches!(parse(&[("format", "avro")]), Err(Error::Unsupported { .. })));
        assert!(matches!(parse(&[("properties.security.protocol", "SSL")]), Err(Error::Unsupported { .. })));
    }
}
