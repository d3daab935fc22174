//! What a source's WITH options say about its format.
//!
//! | option | formats | meaning |
//! |---|---|---|
//! | `format` | | `json` (default), `csv`, `raw`, `avro` |
//! | `timestamp_format` | json, csv, avro | what numbers in time columns count: `auto` (default), `s`, `ms`, `us`, `ns` |
//! | `csv.delimiter` | csv | one character, `,` by default; `\t` for a tab |
//! | `csv.quote` | csv | one character, `"` by default |
//! | `csv.header` | csv | names of the fields in order, separated by commas; without it columns are taken by position |
//! | `csv.null` | csv | the unquoted text that means NULL; empty by default |
//! | `avro.schema` | avro | the writer's schema as JSON; required |

use std::collections::BTreeMap;

use super::EpochUnit;
use crate::{Error, Result};

const CSV_OPTIONS: [&str; 4] = ["csv.delimiter", "csv.quote", "csv.header", "csv.null"];
const AVRO_OPTIONS: [&str; 1] = ["avro.schema"];

/// How the bytes of a source's messages are to be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// One JSON object per message.
    Json { epoch: EpochUnit },
    /// One line per message.
    Csv { options: CsvOptions, epoch: EpochUnit },
    /// The bytes as they are, in one TEXT or BYTEA column.
    Raw,
    /// One bare Avro datum per message, all written with one schema.
    Avro { schema: String, epoch: EpochUnit },
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

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: b',', quote: b'"', header: None, null: String::new() }
    }
}

impl Format {
    /// Takes the format's options out of `options` and leaves all others there. `Definition` for a wrong value, for an unknown option
    /// that begins with a format's name (`csv.` and so on) and for a format that is not there.
    pub fn take(options: &mut BTreeMap<String, String>) -> Result<Self> {
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
            "avro" => Self::Avro {
                schema: options.remove("avro.schema").ok_or_else(|| Error::Definition {
                    message: "format 'avro' needs the writer's schema".into(),
                    hint: Some("give it as option \"avro.schema\" = '{\"type\": \"record\", …}'".into()),
                })?,
                epoch,
            },
            "protobuf" | "debezium-json" => {
                return Err(Error::Definition {
                    message: format!("format '{name}' is not supported yet"),
                    hint: Some("supported formats are json, csv, raw and avro".into()),
                });
            }
            _ => return Err(wrong("format", &name, "json, csv, raw or avro")),
        };
        let prefixed = options.keys().find(|key| ["json.", "csv.", "raw.", "avro."].iter().any(|p| key.starts_with(p)));
        if let Some(key) = prefixed {
            let known: Vec<&str> = match format {
                Self::Csv { .. } => CSV_OPTIONS.to_vec(),
                Self::Avro { .. } => AVRO_OPTIONS.to_vec(),
                Self::Json { .. } | Self::Raw => Vec::new(),
            };
            return Err(Error::Definition {
                message: format!("unknown option '{key}' for format '{name}'"),
                hint: nearest(key, &known).map(|near| format!("did you mean '{near}'?")),
            });
        }
        if options.contains_key("schema_registry") {
            return Err(Error::Definition {
                message: "option 'schema_registry' is not supported yet".into(),
                hint: Some("give the writer's schema as option \"avro.schema\"".into()),
            });
        }
        Ok(format)
    }

    /// Every option that [`Format::take`] may take, for messages about unknown ones.
    pub fn option_names() -> impl Iterator<Item = &'static str> {
        ["format", "timestamp_format"].into_iter().chain(CSV_OPTIONS).chain(AVRO_OPTIONS)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Json { .. } => "json",
            Self::Csv { .. } => "csv",
            Self::Raw => "raw",
            Self::Avro { .. } => "avro",
        }
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
    fn refuses_with_the_nearest_known() {
        let (format, _) = take(&[("format", "csv"), ("csv.delimeter", ";")]);
        let Err(Error::Definition { message, hint }) = format else { panic!("{format:?}") };
        assert_eq!(message, "unknown option 'csv.delimeter' for format 'csv'");
        assert_eq!(hint.unwrap(), "did you mean 'csv.delimiter'?");
        for bad in [
            &[("format", "protobuf")][..],
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
