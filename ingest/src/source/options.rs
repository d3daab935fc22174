//! WITH options of a source, from text to types.
//!
//! | option | meaning |
//! |---|---|
//! | `connector` | `kafka`, `file`, `generator` or `log`; required |
//! | `start` | where partitions begin that have no committed offset (see [`Start`]); `earliest` by default |
//! | `stop` | where a bounded read ends: `latest`, `timestamp:…` or `offsets:{…}` |
//! | `on_error` | `dlq` (default), `skip` or `stop` |
//! | `subject` | of formats json, avro and protobuf: whose schemas in the server's own registry the messages are of |
//! | … | the options of the format ([`Format::take`]) and of the connector (in its own folder) |
//!
//! Every option is taken exactly once; what is left over is unknown and refused, with the nearest known one as a hint.

use std::{collections::BTreeMap, fmt::Display, str::FromStr, sync::Arc};

use tidemill_storage::{clock::Clock, ids::SourceId};

use super::{
    Connector, Start,
    bounded::Bounded,
    file::{FileFormat, FileOptions},
    generator::{self, GeneratorOptions},
    kafka::{KafkaOptions, flink_start},
    log::Log,
};
use crate::{
    Error, Result,
    dead_letters::OnError,
    decode::{Format, SchemaSource, SourceColumn, nearest, settle_schema},
};

const COMMON: [&str; 4] = ["connector", "start", "stop", "on_error"];
const CONNECTORS: &str = "kafka, file, generator or log";

/// What CREATE SOURCE … WITH (…) says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceOptions {
    pub connector: ConnectorOptions,
    /// How messages are decoded; `None` when the connector brings rows.
    pub format: Option<Format>,
    pub start: Start,
    /// Where a bounded read ends; `None` reads on for ever. Anything but offsets is still to be settled (see [`Self::settled_stop`]).
    pub stop: Option<Start>,
    pub on_error: OnError,
    /// Whose schemas messages are of, where it is said.
    pub subject: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ConnectorOptions {
    Kafka(KafkaOptions),
    File(FileOptions),
    Generator(GeneratorOptions),
    Log,
}

/// What a connector needs to know besides its options.
#[derive(Clone, Debug)]
pub struct ConnectContext {
    pub source: SourceId,
    /// Name of the source, for messages and for the default consumer group.
    pub name: String,
    pub columns: Vec<SourceColumn>,
    pub clock: Arc<dyn Clock>,
    /// The log behind a `log` source.
    pub log: Option<Arc<Log>>,
}

/// A source that can be read.
#[derive(Clone, Debug)]
pub struct Connected {
    pub connector: Arc<dyn Connector>,
    /// How its messages are decoded, with what the connector found out (the header of a CSV file); `None` when it brings rows.
    pub format: Option<Format>,
}

impl SourceOptions {
    /// Writes into the options of a new source what must stay the same over restarts: the event time at which a generator begins,
    /// which files a directory or pattern stands for, and the schema that a file holds.
    pub fn settle(options: &mut BTreeMap<String, String>, now_us: i64) {
        match options.get("connector").map(|connector| connector.trim().to_ascii_lowercase()).as_deref() {
            Some("generator") => {
                options.entry("epoch".into()).or_insert_with(|| (now_us / 1000).to_string());
            }
            Some("file") => super::file::settle(options),
            Some("kafka") => settle_schema(options),
            _ => {}
        }
    }

    /// Checks every option; touches nothing outside. Keys are expected in lower case.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self> {
        let mut taken = options.clone();
        let connector = taken.remove("connector").ok_or_else(|| Error::Definition {
            message: "a source needs the option 'connector'".into(),
            hint: Some(format!("it takes {CONNECTORS}")),
        })?;
        let on_error = taken.remove("on_error").map_or(Ok(OnError::default()), |text| OnError::parse(&text))?;
        let mut options = OptionReader { left: taken, known: COMMON.to_vec() };
        let explicit_start = options.text("start");
        let mut start = explicit_start
            .as_deref()
            .map_or(Ok(Start::Earliest), |text| text.parse().map_err(|wanted| wrong("start", text, wanted)))?;
        let stop = options.text("stop").map(|text| parse_stop(&text)).transpose()?;
        let connector = connector.trim().to_ascii_lowercase();
        if start == Start::Committed && connector != "kafka" {
            return Err(wrong("start", "committed", "committed for kafka sources only"));
        }
        let (connector, format) = match connector.as_str() {
            "kafka" => {
                let format = options.format()?;
                if let Some(flinks) = flink_start(&mut options)? {
                    if explicit_start.is_some() {
                        return Err(Error::Definition {
                            message: "options 'start' and 'scan.startup.mode' say the same thing".into(),
                            hint: Some("give one of them".into()),
                        });
                    }
                    start = flinks;
                }
                (ConnectorOptions::Kafka(KafkaOptions::take(&mut options)?), Some(format))
            }
            "file" => {
                let file = FileOptions::take(&mut options)?;
                let format = match file.format {
                    FileFormat::Ndjson => Some(options.format_named("json")?),
                    FileFormat::DebeziumJson => Some(options.format_named("debezium-json")?),
                    FileFormat::Csv => Some(options.format_named("csv")?),
                    FileFormat::Parquet | FileFormat::Avro => None,
                };
                (ConnectorOptions::File(file), format)
            }
            "generator" => (ConnectorOptions::Generator(GeneratorOptions::take(&mut options)?), None),
            "log" => (ConnectorOptions::Log, None),
            _ => return Err(wrong("connector", &connector, CONNECTORS)),
        };
        let subject = options.text("subject").filter(|subject| !subject.trim().is_empty());
        if subject.is_some() && !format.as_ref().is_some_and(has_subject) {
            return Err(Error::Definition {
                message: "option 'subject' belongs to messages whose schemas are registered".into(),
                hint: Some(
                    "leave it out, or say format = 'json', or 'avro' or 'protobuf' with a schema_registry".into(),
                ),
            });
        }
        options.finish()?;
        Ok(Self { connector, format, start, stop, on_error, subject })
    }

    /// The columns of a source that is created without any; `None` when the connector cannot know them.
    pub fn default_columns(&self) -> Option<Vec<SourceColumn>> {
        match self.connector {
            ConnectorOptions::Generator(_) => Some(generator::columns()),
            _ => None,
        }
    }

    /// Makes the connector. May read files (a CSV header), but waits for no broker.
    pub fn connect(&self, context: &ConnectContext) -> Result<Connected> {
        let mut format = self.format.clone();
        let connector: Arc<dyn Connector> = match &self.connector {
            ConnectorOptions::Kafka(options) => super::kafka::connect(options, context)?,
            ConnectorOptions::File(options) => super::file::connect(options, context, &mut format)?,
            ConnectorOptions::Generator(options) => generator::connect(options, context)?,
            ConnectorOptions::Log => {
                let log = context.log.as_ref().ok_or_else(|| Error::Definition {
                    message: "connector 'log' belongs to a table's own log".into(),
                    hint: Some("use INSERT, COPY or HTTP push on a table; they go through its log".into()),
                })?;
                log.connector(context.source)
            }
        };
        let connector = match &self.stop {
            Some(Start::Offsets(stops)) => Arc::new(Bounded::new(connector, stops.clone())),
            _ => connector,
        };
        Ok(Connected { connector, format })
    }

    /// The option `stop` in offsets, which stay the same over restarts and whatever is written later; `None` when it needs no settling.
    /// Blocks: asks the source.
    pub fn settled_stop(&self, connector: &dyn Connector, now_ms: i64) -> Result<Option<String>> {
        let stop = match &self.stop {
            None | Some(Start::Offsets(_)) => return Ok(None),
            Some(Start::TimestampMs(ms)) if *ms > now_ms => {
                return Err(wrong("stop", &Start::TimestampMs(*ms).to_string(), "a time that has passed"));
            }
            Some(stop) => stop,
        };
        let offsets = connector.resolve(stop, &connector.partitions()?)?;
        Ok(Some(Start::Offsets(offsets).to_string()))
    }
}

/// Whether the schemas of messages change from one to the next.
fn has_subject(format: &Format) -> bool {
    match format {
        Format::Json { .. } => true,
        Format::Avro { schema, .. } | Format::Protobuf { schema, .. } => matches!(schema, SchemaSource::Registry(_)),
        Format::Csv { .. } | Format::Raw | Format::DebeziumJson { .. } => false,
    }
}

fn parse_stop(text: &str) -> Result<Start> {
    match text.parse() {
        Ok(stop @ (Start::Latest | Start::TimestampMs(_) | Start::Offsets(_))) => Ok(stop),
        _ => Err(wrong("stop", text, "latest, timestamp:<ISO 8601 or milliseconds> or offsets:{partition:offset, …}")),
    }
}

/// Options being taken one by one.
#[derive(Debug)]
pub(crate) struct OptionReader {
    left: BTreeMap<String, String>,
    /// Every key that was asked for.
    known: Vec<&'static str>,
}

impl OptionReader {
    pub(crate) fn all(options: BTreeMap<String, String>) -> Self {
        Self { left: options, known: Vec::new() }
    }

    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        let left = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self::all(left)
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        self.left.remove(key)
    }

    /// Fails when the option is absent or empty.
    pub(crate) fn required(&mut self, key: &'static str, connector: &str, wanted: &str) -> Result<String> {
        let text = self.text(key).unwrap_or_default();
        if text.trim().is_empty() {
            // It may be there, misspelt.
            if let Some(near) = self.left.keys().find(|near| nearest(near, &[key]).is_some()) {
                return Err(unknown(near, &format!("did you mean '{key}'?")));
            }
            return Err(Error::Definition {
                message: format!("connector '{connector}' needs the option '{key}'"),
                hint: Some(format!("it takes {wanted}")),
            });
        }
        Ok(text)
    }

    /// A value that `check` accepts.
    pub(crate) fn value<T: FromStr>(
        &mut self,
        key: &'static str,
        wanted: impl Display,
        check: impl Fn(&T) -> bool,
    ) -> Result<Option<T>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        match text.trim().parse::<T>() {
            Ok(value) if check(&value) => Ok(Some(value)),
            _ => Err(wrong(key, &text, wanted)),
        }
    }

    pub(crate) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Ok(Some(true)),
            "false" | "off" | "no" | "0" => Ok(Some(false)),
            _ => Err(wrong(key, &text, "true or false")),
        }
    }

    /// Takes every option whose key begins with `prefix`; the keys come without it.
    pub(crate) fn prefixed(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let keys: Vec<String> = self.left.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        keys.into_iter().filter_map(|key| Some((key[prefix.len()..].to_owned(), self.left.remove(&key)?))).collect()
    }

    pub(crate) fn format(&mut self) -> Result<Format> {
        self.known.extend(Format::option_names());
        Format::take(&mut self.left)
    }

    fn format_named(&mut self, name: &str) -> Result<Format> {
        self.left.insert("format".into(), name.into());
        self.format()
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<()> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(key) => Err(match nearest(key, &self.known) {
                Some(near) => unknown(key, &format!("did you mean '{near}'?")),
                None => unknown(key, &format!("known options are {}", self.known.join(", "))),
            }),
        }
    }
}

fn unknown(key: &str, hint: &str) -> Error {
    Error::Definition { message: format!("unknown option '{key}'"), hint: Some(hint.into()) }
}

pub(crate) fn wrong(key: &str, value: &str, wanted: impl Display) -> Error {
    Error::Definition {
        message: format!("option '{key}' has the value '{value}'"),
        hint: Some(format!("it takes {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<SourceOptions> {
        SourceOptions::parse(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    fn refused(pairs: &[(&str, &str)]) -> (String, String) {
        match parse(pairs) {
            Err(Error::Definition { message, hint }) => (message, hint.unwrap_or_default()),
            other => panic!("{pairs:?} gave {other:?}"),
        }
    }

    #[test]
    fn takes_common_format_and_connector_options_apart() {
        let options = parse(&[
            ("connector", "kafka"),
            ("brokers", "127.0.0.1:9092"),
            ("topic", "t"),
            ("format", "json"),
            ("start", "offsets:{0:15}"),
            ("on_error", "skip"),
        ])
        .unwrap();
        assert_eq!(options.on_error, OnError::Skip);
        assert_eq!(options.start, Start::Offsets(BTreeMap::from([(0, 15)])));
        assert!(matches!(options.format, Some(Format::Json { .. })));
        assert!(matches!(options.connector, ConnectorOptions::Kafka(_)));
        assert!(options.default_columns().is_none());
        assert!(parse(&[("connector", "generator")]).unwrap().default_columns().is_some());
    }

    #[test]
    fn names_the_wrong_option_and_what_it_takes() {
        let kafka = [("connector", "kafka"), ("brokers", "b:1"), ("topic", "t")];
        let with = |pair| [kafka.as_slice(), &[pair]].concat();
        assert_eq!(refused(&with(("topci", "x"))), ("unknown option 'topci'".into(), "did you mean 'topic'?".into()));
        let broker = [("connector", "kafka"), ("broker", "b:1"), ("topic", "t")];
        assert_eq!(refused(&broker), ("unknown option 'broker'".into(), "did you mean 'brokers'?".into()));
        assert!(refused(&with(("frobnicate", "x"))).1.starts_with("known options are connector, start"));
        let (message, hint) = refused(&with(("start", "frist")));
        assert_eq!(message, "option 'start' has the value 'frist'");
        assert!(hint.contains("earliest") && hint.contains(crate::source::start::WANTED), "{hint}");
        assert!(refused(&[]).0.contains("'connector'"));
        assert!(refused(&[("connector", "kafak")]).1.contains("kafka"));
        assert!(refused(&[("connector", "generator"), ("format", "json")]).0.contains("'format'"));
        assert!(refused(&[("connector", "generator"), ("start", "committed")]).1.contains("kafka"));
        assert!(refused(&[("connector", "kafka"), ("topic", "t")]).0.contains("'brokers'"));
    }
}
