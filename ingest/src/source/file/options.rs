//! WITH options of file sources.
//!
//! | option | meaning |
//! |---|---|
//! | `path` | a file, a directory, a pattern (`/data/*.csv`) or a `file://` URL of one of these; required |
//! | `format` | `ndjson` (or `json`), `csv`, `parquet` or `avro` (container files); by the file's name where it is not given |
//! | `header` | csv: whether each file begins with a line of column names; `false` by default |

use super::super::options::{OptionReader, wrong};
use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    Ndjson,
    Csv,
    Parquet,
    Avro,
}

impl FileFormat {
    const WANTED: &str = "ndjson, csv, parquet or avro";

    fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "ndjson" | "json" | "jsonl" => Self::Ndjson,
            "csv" => Self::Csv,
            "parquet" => Self::Parquet,
            "avro" => Self::Avro,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// As given; `file://` URLs have become paths.
    pub path: String,
    pub format: FileFormat,
    /// Whether each CSV file begins with a line of column names.
    pub header: bool,
}

impl FileOptions {
    pub(in crate::source) fn take(options: &mut OptionReader) -> Result<Self> {
        let given = options.required("path", "file", "a file, a directory or a pattern like /data/*.csv")?;
        let path = match given.split_once("://") {
            None => given.clone(),
            Some(("file", rest)) if rest.starts_with('/') => percent_decoded(rest).ok_or_else(|| {
                wrong("path", &given, "a file:// URL whose percent signs each stand before two hex digits")
            })?,
            Some(_) => return Err(wrong("path", &given, "a path of this machine, or a file:///… URL of one")),
        };
        let format = match options.text("format") {
            Some(name) => FileFormat::parse(&name).ok_or_else(|| wrong("format", &name, FileFormat::WANTED))?,
            None => {
                path.rsplit_once('.').and_then(|(_, end)| FileFormat::parse(end)).ok_or_else(|| Error::Definition {
                    message: "connector 'file' needs the option 'format': the path does not end in a known one".into(),
                    hint: Some(format!("it takes {}", FileFormat::WANTED)),
                })?
            }
        };
        let header = options.boolean("header")?;
        if header.is_some() && format != FileFormat::Csv {
            return Err(Error::Definition {
                message: "option 'header' is for csv files".into(),
                hint: Some("leave it out, or give format = 'csv'".into()),
            });
        }
        Ok(Self { path, format, header: header.unwrap_or(false) })
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pairs: &[(&str, &str)]) -> Result<FileOptions> {
        let mut reader = OptionReader::of(pairs);
        let options = FileOptions::take(&mut reader)?;
        reader.finish()?;
        Ok(options)
    }

    #[test]
    fn reads_paths_urls_and_formats() {
        let options = take(&[("path", "file:///tmp/a%20b.csv"), ("header", "true")]).unwrap();
        assert_eq!(options, FileOptions { path: "/tmp/a b.csv".into(), format: FileFormat::Csv, header: true });
        assert_eq!(take(&[("path", "/tmp/x.jsonl")]).unwrap().format, FileFormat::Ndjson);
        assert_eq!(take(&[("path", "/tmp/dir"), ("format", "Parquet")]).unwrap().format, FileFormat::Parquet);
    }

    #[test]
    fn refuses() {
        for bad in [
            &[][..],
            &[("path", "/tmp/dir")],
            &[("path", "s3://bucket/x.csv")],
            &[("path", "file://host/x.csv")],
            &[("path", "file:///x%2.csv")],
            &[("path", "/x.csv"), ("format", "xml")],
            &[("path", "/x.csv"), ("header", "maybe")],
            &[("path", "/x.parquet"), ("header", "true")],
        ] {
            assert!(matches!(take(bad), Err(Error::Definition { .. })), "{bad:?}");
        }
    }
}
