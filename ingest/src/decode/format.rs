//! What a source's WITH options say about its format.
//!
//! | option | formats | meaning |
//! |---|---|---|
//! | `format` | | `json` (default), `csv`, `raw`, `avro`, `protobuf`, `debezium-json` |
//! | `timestamp_format` | all but raw | what plain numbers in time columns count: `auto` (default), `s`, `ms`, `us`, `ns` |
//! | `csv.delimiter` | csv | one character, `,` by default; `\t` for a tab |
//! | `csv.quote` | csv | one character, `"` by default |
//! | `csv.header` | csv | names of the fields in order, separated by commas; without it columns are taken by position |
//! | `csv.null` | csv | the unquoted text that means NULL; empty by default |
//! | `schema_registry` | avro, protobuf | `http://host:port` of a registry: messages have Confluent's frame with the id of their schema |
//! | `schema_registry.basic_auth.user_info` | avro, protobuf | `user:password` for the registry |
//! | `schema` | avro, protobuf | without a registry, the schema of all messages (see [`SchemaSource::Given`]) |
//! | `message` | protobuf | with `schema`, the full name of the messages' type; may be left out when the schema has one |
//! | `delete_column` | debezium-json | the BOOLEAN column that is true in rows of what was deleted; `__deleted` by default |
//! | `decimal.handling.mode` | debezium-json | how Debezium writes decimals, for messages without their schema: `precise`, `string`, `double` |
//!
//! Flink's words for these are taken, too: format `avro-confluent` with `avro-confluent.url`, `protobuf.message-class-name`,
//! `debezium-json.schema-include` (whatever it says: each message tells itself whether its schema is there).

use std::collections::BTreeMap;

use super::{EpochUnit, registry::RegistryAddress};
use crate::{Error, Result};

const CSV_OPTIONS: [&str; 4] = ["csv.delimiter", "csv.quote", "csv.header", "csv.null"];
const SCHEMA_OPTIONS: [&str; 4] = ["schema_registry", USER_INFO, "schema", "message"];
const USER_INFO: &str = "schema_registry.basic_auth.user_info";
const DEBEZIUM_OPTIONS: [&str; 2] = ["delete_column", "decimal.handling.mode"];
const SCHEMA_INCLUDE: &str = "debezium-json.schema-include";
const FORMATS: &str = "json, csv, raw, avro, protobuf or debezium-json";
/// Words of other systems and ours for the same.
const ALIASES: [(&str, &str); 6] = [
    ("avro-confluent.url", "schema_registry"),
    ("avro-confluent.schema-registry.url", "schema_registry"),
    ("avro-confluent.basic-auth.user-info", USER_INFO),
    ("avro.schema", "schema"),
    ("protobuf.message-class-name", "message"),
    ("protobuf.schema", "schema"),
];

/// How the bytes of a source's messages are to be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// One JSON object per message.
    Json { epoch: EpochUnit },
    /// One line per message.
    Csv { options: CsvOptions, epoch: EpochUnit },
    /// The bytes as they are, in one TEXT or BYTEA column.
    Raw,
    /// One Avro datum per message.
    Avro { schema: SchemaSource, epoch: EpochUnit },
    /// One Protobuf message per message.
    Protobuf { schema: SchemaSource, epoch: EpochUnit },
    /// One change of a row per message, as Debezium writes it in JSON.
    DebeziumJson { options: DebeziumOptions, epoch: EpochUnit },
}

/// Where the schemas of messages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaSource {
    /// Each message carries the id of its schema in a registry.
    Registry(RegistryAddress),
    /// All messages are written with one schema.
    Given {
        /// The schema itself, `base64:` and its bytes, or the path of its file; see [`super::settle_schema`].
        schema: String,
        /// The messages' type, for Protobuf.
        message: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct CsvOptions {
    pub delimiter: u8,
    pub quote: u8,
    /// Names of the fields in order; `None` takes columns by position.
    pub header: Option<Vec<String>>,
    /// The unquoted text that means NULL.
    pub null: String,
}

/// What a source says of its change stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebeziumOptions {
    /// The BOOLEAN column that is true in rows of what was deleted.
    pub delete_column: String,
    /// How decimals are written where no schema tells; `None` refuses those that are strings.
    pub decimals: Option<DecimalMode>,
}

impl Default for DebeziumOptions {
    fn default() -> Self {
        Self { delete_column: "__deleted".into(), decimals: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalMode {
    /// The digits as an integer, in bytes.
    Precise,
    /// As text, or as a JSON number.
    Digits,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: b',', quote: b'"', header: None, null: String::new() }
    }
}

impl Format {
    /// Takes the format's options out of `options` and leaves all others there. `Definition` for a wrong value, for an unknown option
    /// that begins with a format's name (`csv.` and so on) and for a format that is not there. Reads no file and asks no registry.
    pub fn take(options: &mut BTreeMap<String, String>) -> Result<Self> {
        for (alias, name) in ALIASES {
            if let Some(value) = options.remove(alias)
                && options.insert(name.into(), value).is_some()
            {
                return Err(Error::Definition {
                    message: format!("options '{alias}' and '{name}' say the same thing"),
                    hint: Some("give one of them".into()),
                });
            }
        }
        let name = options.remove("format").unwrap_or_else(|| "json".into()).to_ascii_lowercase();
        let epoch = match options.remove("timestamp_format") {
            None => EpochUnit::ByMagnitude,
            Some(text) => {
                EpochUnit::parse(&text).ok_or_else(|| wrong("timestamp_format", &text, "auto, s, ms, us or ns"))?
            }
        };
        let format = match name.as_str() {
            "json" => Self::Json { epoch },
            "csv" => Self::Csv { options: csv_options(options)?, epoch },
            "raw" => Self::Raw,
            "avro" => Self::Avro { schema: schema_source(options, "avro")?, epoch },
            "avro-confluent" if !options.contains_key("schema_registry") => {
                return Err(Error::Definition {
                    message: "format 'avro-confluent' needs a schema registry".into(),
                    hint: Some("give its address as schema_registry = 'http://host:port'".into()),
                });
            }
            "avro-confluent" => Self::Avro { schema: schema_source(options, "avro")?, epoch },
            "protobuf" => Self::Protobuf { schema: schema_source(options, "protobuf")?, epoch },
            "debezium-json" => Self::DebeziumJson { options: debezium_options(options)?, epoch },
            _ => return Err(wrong("format", &name, FORMATS)),
        };
        let prefixes =
            ["json.", "csv.", "raw.", "avro.", "avro-confluent.", "protobuf.", "debezium-json.", "schema_registry."];
        let prefixed = options.keys().find(|key| {
            prefixes.iter().any(|prefix| key.starts_with(prefix))
                || SCHEMA_OPTIONS.iter().chain(&DEBEZIUM_OPTIONS).any(|option| key == option)
        });
        if let Some(key) = prefixed {
            let known: Vec<&str> = match format {
                Self::Csv { .. } => CSV_OPTIONS.to_vec(),
                Self::Avro { .. } | Self::Protobuf { .. } => SCHEMA_OPTIONS.to_vec(),
                Self::DebeziumJson { .. } => [&DEBEZIUM_OPTIONS[..], &[SCHEMA_INCLUDE]].concat(),
                Self::Json { .. } | Self::Raw => Vec::new(),
            };
            return Err(Error::Definition {
                message: format!("unknown option '{key}' for format '{name}'"),
                hint: nearest(key, &known).filter(|near| near != key).map(|near| format!("did you mean '{near}'?")),
            });
        }
        Ok(format)
    }

    /// Every option that [`Format::take`] may take, for messages about unknown ones.
    pub fn option_names() -> impl Iterator<Item = &'static str> {
        ["format", "timestamp_format"].into_iter().chain(CSV_OPTIONS).chain(SCHEMA_OPTIONS).chain(DEBEZIUM_OPTIONS)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Json { .. } => "json",
            Self::Csv { .. } => "csv",
            Self::Raw => "raw",
            Self::Avro { .. } => "avro",
            Self::Protobuf { .. } => "protobuf",
            Self::DebeziumJson { .. } => "debezium-json",
        }
    }
}

/// Exactly one of a registry and a schema.
fn schema_source(options: &mut BTreeMap<String, String>, format: &str) -> Result<SchemaSource> {
    let is_protobuf = format == "protobuf";
    let schema = options.remove("schema").filter(|schema| !schema.trim().is_empty());
    let registry = options.remove("schema_registry");
    match (registry, schema) {
        (Some(_), Some(_)) => Err(Error::Definition {
            message: "options 'schema_registry' and 'schema' exclude each other".into(),
            hint: Some("with a registry each message says what schema it was written with".into()),
        }),
        (Some(url), None) => {
            if is_protobuf && options.contains_key("message") {
                return Err(Error::Definition {
                    message: "options 'schema_registry' and 'message' exclude each other".into(),
                    hint: Some("with a registry each message says what type it is of".into()),
                });
            }
            let user_info = options.remove(USER_INFO);
            RegistryAddress::parse(&url, user_info.as_deref()).map(SchemaSource::Registry)
        }
        (None, Some(schema)) => {
            let message = if is_protobuf { options.remove("message") } else { None };
            Ok(SchemaSource::Given { schema, message })
        }
        (None, None) => Err(Error::Definition {
            message: format!("format '{format}' needs the schema that messages are written with"),
            hint: Some(format!(
                "give schema_registry = 'http://host:port' or schema = '{}'",
                if is_protobuf {
                    "<a .proto, or the path of a .proto or of a FileDescriptorSet>"
                } else {
                    "<JSON, or the path of an .avsc>"
                }
            )),
        }),
    }
}

fn debezium_options(options: &mut BTreeMap<String, String>) -> Result<DebeziumOptions> {
    let mut debezium = DebeziumOptions::default();
    if let Some(name) = options.remove("delete_column") {
        debezium.delete_column = name;
    }
    if let Some(mode) = options.remove("decimal.handling.mode") {
        debezium.decimals = Some(match mode.to_ascii_lowercase().as_str() {
            "precise" => DecimalMode::Precise,
            "string" | "double" => DecimalMode::Digits,
            _ => return Err(wrong("decimal.handling.mode", &mode, "precise, string or double")),
        });
    }
    match options.remove(SCHEMA_INCLUDE) {
        Some(text) if text.parse::<bool>().is_err() => Err(wrong(SCHEMA_INCLUDE, &text, "true or false")),
        _ => Ok(debezium),
    }
}

fn csv_options(options: &mut BTreeMap<String, String>) -> Result<CsvOptions> {
    let mut csv = CsvOptions::default();
    if let Some(text) = options.remove("csv.delimiter") {
        csv.delimiter = one_byte("csv.delimiter", &text)?;
    }
    if let Some(text) = options.remove("csv.quote") {
        csv.quote = one_byte("csv.quote", &text)?;
    }
    if csv.delimiter == csv.quote {
        return Err(wrong("csv.quote", &char::from(csv.quote).to_string(), "another character than the delimiter"));
    }
    if let Some(text) = options.remove("csv.null") {
        csv.null = text;
    }
    if let Some(text) = options.remove("csv.header") {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(wrong("csv.header", &text, &format!("different names; '{}' stands there twice", twice.1)));
        }
        csv.header = Some(names);
    }
    Ok(csv)
}

fn one_byte(option: &str, text: &str) -> Result<u8> {
    match text {
        "\\t" => Ok(b'\t'),
        _ => match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Ok(*byte),
            _ => Err(wrong(option, text, "one ASCII character")),
        },
    }
}

fn wrong(option: &str, value: &str, wanted: &str) -> Error {
    Error::Definition {
        message: format!("option '{option}' has the value '{value}'"),
        hint: Some(format!("it takes {wanted}")),
    }
}

/// The known name closest to `name`, when one is close.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pairs: &[(&str, &str)]) -> (Result<Format>, BTreeMap<String, String>) {
        let mut options = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        (Format::take(&mut options), options)
    }

    #[test]
    fn takes_its_own_and_leaves_the_rest() {
        let (format, rest) = take(&[("format", "json"), ("timestamp_format", "ms"), ("topic", "t")]);
        assert_eq!(format.unwrap(), Format::Json { epoch: EpochUnit::Milliseconds });
        assert_eq!(rest.keys().collect::<Vec<_>>(), ["topic"]);

        let (format, rest) =
            take(&[("format", "csv"), ("csv.delimiter", "\\t"), ("csv.header", "a, b"), ("csv.null", "NULL")]);
        let Format::Csv { options, .. } = format.unwrap() else { panic!("csv was asked for") };
        assert_eq!(options.delimiter, b'\t');
        assert_eq!(options.header.unwrap(), ["a", "b"]);
        assert_eq!(options.null, "NULL");
        assert!(rest.is_empty());
    }

    #[test]
    fn schemas_are_given_or_registered() {
        let given = |format| SchemaSource::Given { schema: "x".into(), message: format };
        let registry = SchemaSource::Registry(RegistryAddress::parse("http://registry:8081", None).unwrap());
        let epoch = EpochUnit::ByMagnitude;
        let avro = |schema| Format::Avro { schema, epoch };
        let protobuf = |schema| Format::Protobuf { schema, epoch };
        let url = "http://registry:8081";
        for (pairs, wanted) in [
            (&[("format", "avro"), ("schema", "x")][..], avro(given(None))),
            (&[("format", "avro"), ("avro.schema", "x")], avro(given(None))),
            (&[("format", "avro"), ("schema_registry", url)], avro(registry.clone())),
            (&[("format", "avro-confluent"), ("avro-confluent.url", url)], avro(registry.clone())),
            (&[("format", "protobuf"), ("schema", "x"), ("message", "a.B")], protobuf(given(Some("a.B".into())))),
            (&[("format", "protobuf"), ("schema", "x")], protobuf(given(None))),
            (&[("format", "Protobuf"), ("schema_registry", url)], protobuf(registry)),
        ] {
            let (format, rest) = take(pairs);
            assert_eq!(format.unwrap(), wanted, "{pairs:?}");
            assert!(rest.is_empty(), "{pairs:?}");
        }
    }

    #[test]
    fn change_streams_have_few_options() {
        let (format, rest) = take(&[("format", "debezium-json"), (SCHEMA_INCLUDE, "true"), ("timestamp_format", "us")]);
        let epoch = EpochUnit::Microseconds;
        assert_eq!(format.unwrap(), Format::DebeziumJson { options: DebeziumOptions::default(), epoch });
        assert!(rest.is_empty());
        for (mode, decimals) in
            [("precise", DecimalMode::Precise), ("String", DecimalMode::Digits), ("double", DecimalMode::Digits)]
        {
            let pairs = [("format", "debezium-json"), ("delete_column", "gone"), ("decimal.handling.mode", mode)];
            let Format::DebeziumJson { options, .. } = take(&pairs).0.unwrap() else { panic!("{mode}") };
            assert_eq!(options, DebeziumOptions { delete_column: "gone".into(), decimals: Some(decimals) });
        }
        let Err(Error::Definition { hint, .. }) =
            take(&[("format", "debezium-json"), ("debezium-json.schema-included", "true")]).0
        else {
            panic!("an unknown option")
        };
        assert_eq!(hint.unwrap(), "did you mean 'debezium-json.schema-include'?");
    }

    #[test]
    fn refuses_with_the_nearest_known() {
        let (format, _) = take(&[("format", "csv"), ("csv.delimeter", ";")]);
        let Err(Error::Definition { message, hint }) = format else { panic!("{format:?}") };
        assert_eq!(message, "unknown option 'csv.delimeter' for format 'csv'");
        assert_eq!(hint.unwrap(), "did you mean 'csv.delimiter'?");
        let (format, _) = take(&[("format", "avro"), ("schema_registry", "http://x"), ("schema_registri", "y")]);
        assert!(format.is_ok(), "what is no format's is left for others to refuse");
        let https = take(&[("format", "avro"), ("schema_registry", "https://registry:8081")]).0;
        assert!(matches!(https, Err(Error::Unsupported { .. })), "{https:?}");
        for bad in [
            &[("format", "protobuf")][..],
            &[("format", "debezium-json"), ("decimal.handling.mode", "exact")],
            &[("format", "debezium-json"), (SCHEMA_INCLUDE, "maybe")],
            &[("format", "debezium-json"), ("debezium-json.ignore-parse-errors", "true")],
            &[("format", "json"), ("delete_column", "gone")],
            &[("format", "avro-confluent")],
            &[("format", "avro-confluent"), ("schema", "\"int\"")],
            &[("format", "avro"), ("schema", " ")],
            &[("format", "avro"), ("schema", "\"int\""), ("message", "m")],
            &[("format", "avro"), ("schema", "\"int\""), ("avro.schema", "\"int\"")],
            &[("format", "avro"), ("schema", "\"int\""), (USER_INFO, "u:p")],
            &[("format", "avro"), ("schema_registry", "registry:8081")],
            &[("format", "avro"), ("schema_registry", "http://u:p@x"), (USER_INFO, "u:p")],
            &[("format", "protobuf"), ("schema_registry", "http://x"), ("message", "m")],
            &[("format", "json"), ("schema_registry", "http://x")],
            &[("format", "json"), ("schema", "x")],
            &[("format", "jsn")],
            &[("format", "avro")],
            &[("timestamp_format", "weeks")],
            &[("format", "csv"), ("csv.quote", ",")],
            &[("format", "csv"), ("csv.quote", "ab")],
            &[("format", "csv"), ("csv.header", "a,b,a")],
            &[("format", "json"), ("csv.quote", "'")],
            &[("format", "avro"), ("avro.schema", "\"int\""), ("schema_registry", "http://x")],
        ] {
            assert!(matches!(take(bad).0, Err(Error::Definition { .. })), "{bad:?}");
        }
    }
}
