//! WITH options of a sink, from text to types.
//!
//! | option | meaning |
//! |---|---|
//! | `connector` | `kafka`; required |
//! | `format` | `json` (default), `csv`, `raw`, `debezium-json`, `avro`, `protobuf` |
//! | `delete_column` | of `debezium-json`: the BOOLEAN column that is true in rows of what was deleted; `__deleted` by default |
//! | `csv.delimiter`, `csv.quote`, `csv.null` | as those of a source |
//! | `schema_registry`, `schema_registry.basic_auth.user_info` | where the schema of `avro` and `protobuf` is registered |
//! | `subject` | under which; `<topic>-value` by default |
//! | `schema_name` | the full name of the record or message; by default the topic's, with underscores for what names cannot have |
//! | `delivery` | `exactly_once` (default) or `at_least_once` |
//! | `key` | columns that make the key of a record: the text of one, a JSON object of several |
//! | `headers` | columns that go into headers, as text |
//! | `timestamp` | the column that is the time of a record; by default the time of sending is |
//! | `value_columns` | `all` (default), or `rest`: without those of `key` and `headers` |
//! | `commit_interval` | how far commits are apart while rows come: `100ms` by default |
//! | `backlog` | bytes that may wait for a sink that takes nothing before the pipeline stands still: `1GB` by default |
//! | … | those of the connector (in its own folder) |

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Connector, ShapeOptions,
    form::{Registration, SinkFormat},
    kafka,
    kafka::KafkaSinkOptions,
};
use crate::{
    Error, Result,
    decode::{Format, SchemaSource},
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
        if options.text("timestamp_format").is_some() {
            return Err(Error::Definition {
                message: "option 'timestamp_format' belongs to sources".into(),
                hint: Some("a sink writes times as ISO 8601, or as its schema says".into()),
            });
        }
        let format = options.format()?;
        let (subject, name) = (options.text("subject"), options.text("schema_name"));
        let delivery = match options.text("delivery").map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            None | Some("exactly_once") => Delivery::ExactlyOnce,
            Some("at_least_once") => Delivery::AtLeastOnce,
            Some(other) => return Err(wrong("delivery", other, "exactly_once or at_least_once")),
        };
        let list = |text: Option<String>| -> Vec<String> {
            let text = text.unwrap_or_default();
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let mut shape = ShapeOptions {
            format: SinkFormat::Json,
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
        shape.format = sink_format(format, &kafka.topic, subject, name)?;
        Ok(Self { kafka, delivery, shape, commit_interval, backlog })
    }

    /// Makes the connector; waits for nobody.
    pub fn connect(&self) -> Arc<dyn Connector> {
        kafka::connect(&self.kafka)
    }
}

/// A source's format as a sink has it.
fn sink_format(format: Format, topic: &str, subject: Option<String>, name: Option<String>) -> Result<SinkFormat> {
    let refused = |option: &str, why: &str, hint: &str| {
        Err(Error::Definition { message: format!("option '{option}' {why}"), hint: Some(hint.into()) })
    };
    let is_registered = matches!(format, Format::Avro { .. } | Format::Protobuf { .. });
    for (option, given) in [("subject", &subject), ("schema_name", &name)] {
        if given.is_some() && !is_registered {
            return refused(
                option,
                "belongs to formats with a schema",
                "leave it out, or say format = 'avro' or 'protobuf'",
            );
        }
    }
    let registration = |schema: SchemaSource, format: &str| match schema {
        SchemaSource::Registry(address) => {
            let name = name.clone().unwrap_or_else(|| Registration::name_of(topic));
            let is_name = |part: &str| !part.is_empty() && Registration::name_of(part) == part;
            if !name.split('.').all(is_name) {
                return Err(wrong("schema_name", &name, "a name as in com.shop.Order"));
            }
            let subject = subject.clone().filter(|subject| !subject.trim().is_empty());
            Ok(Registration { address, subject: subject.unwrap_or_else(|| format!("{topic}-value")), name })
        }
        SchemaSource::Given { .. } => Err(Error::Definition {
            message: format!(
                "a sink of format '{format}' makes its schema of its columns, and takes no option 'schema'"
            ),
            hint: Some("give the registry that it goes to: schema_registry = 'http://host:port'".into()),
        }),
    };
    Ok(match format {
        Format::Json { .. } => SinkFormat::Json,
        Format::Raw => SinkFormat::Raw,
        Format::Csv { options, .. } if options.header.is_some() => {
            return refused("csv.header", "belongs to sources", "a sink writes its columns in their order");
        }
        Format::Csv { options, .. } => SinkFormat::Csv(options),
        Format::Avro { schema, .. } => SinkFormat::Avro(registration(schema, "avro")?),
        Format::Protobuf { schema, .. } => SinkFormat::Protobuf(registration(schema, "protobuf")?),
        Format::DebeziumJson { options, .. } if options.decimals.is_some() => {
            return refused("decimal.handling.mode", "belongs to sources", "a sink writes decimals with all digits");
        }
        Format::DebeziumJson { options, .. } => SinkFormat::Debezium(options.delete_column),
    })
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
            ("subject", "s"),
            ("schema_name", "N"),
            ("timestamp_format", "ms"),
        ] {
            let Err(Error::Definition { message, hint }) = parse(&[(key, value)]) else { panic!("{key} = {value}") };
            assert!(message.contains(key) && hint.is_some(), "{key}: {message}");
        }
        assert!(parse(&[("csv.delimiter", ";")]).is_err() && parse(&[("schema_registry", "http://r:1")]).is_err());
        let debezium = ("format", "debezium-json");
        let format = parse(&[debezium, ("delete_column", "gone")]).unwrap().shape.format;
        assert_eq!(format, SinkFormat::Debezium("gone".into()));
        assert!(parse(&[debezium, ("decimal.handling.mode", "string")]).is_err());
        assert!(matches!(parse(&[("properties.security.protocol", "SSL")]), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn formats_with_a_schema_say_where_it_goes() {
        let registry = ("schema_registry", "http://r:1/api");
        let plain = parse(&[("format", "avro"), registry]).unwrap().shape.format;
        let SinkFormat::Avro(plain) = plain else { panic!("{plain:?}") };
        assert_eq!((plain.subject.as_str(), plain.name.as_str()), ("t-value", "t"));
        let named = parse(&[("format", "protobuf"), registry, ("subject", "s"), ("schema_name", "com.shop.Order")]);
        let SinkFormat::Protobuf(named) = named.unwrap().shape.format else { panic!("protobuf") };
        assert_eq!((named.subject.as_str(), named.name.as_str()), ("s", "com.shop.Order"));
        assert!(matches!(
            parse(&[("format", "csv"), ("csv.delimiter", ";")]).unwrap().shape.format,
            SinkFormat::Csv(_)
        ));
        for more in [
            &[("format", "avro")][..],
            &[("format", "avro"), ("schema", "\"int\"")],
            &[("format", "avro"), registry, ("schema_name", "a-b")],
            &[("format", "csv"), ("csv.header", "a,b")],
        ] {
            let Err(Error::Definition { hint, .. }) = parse(more) else { panic!("{more:?}") };
            assert!(hint.is_some(), "{more:?}");
        }
    }
}
