//! WITH options of file sources.
//!
//! | option | meaning |
//! |---|---|
//! | `path` | a file (ndjson and csv also packed: `.gz`, `.zst`), a directory, a pattern (`/data/*.csv`) or a `file://` URL of one of these; required |
//! | `format` | `ndjson` (or `json`), `debezium-json`, `csv`, `parquet` or `avro` (container files); by the file's name where it is not given |
//! | `header` | csv: whether each file begins with a line of column names; `false` by default |
//! | `files` | one path per line; written by [`settle`], not by people |

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    super::options::{OptionReader, wrong},
    object::Packing,
    unreadable,
};
use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    Ndjson,
    /// Lines, each a change of a row.
    DebeziumJson,
    Csv,
    Parquet,
    Avro,
}

impl FileFormat {
    const WANTED: &str = "ndjson, debezium-json, csv, parquet or avro";

    fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "ndjson" | "json" | "jsonl" => Self::Ndjson,
            "debezium-json" => Self::DebeziumJson,
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
    /// The files that `path` stood for when the source was made.
    pub files: Option<Vec<PathBuf>>,
}

/// Writes down which files a new source has, so that files that come later do not move the partitions. A path that names no file yet is
/// left for [`FileOptions::list`] to complain about.
pub(in crate::source) fn settle(options: &mut BTreeMap<String, String>) {
    let mut reader = OptionReader::all(options.clone());
    let listed = FileOptions::take(&mut reader).and_then(|file| file.list());
    if let (Ok(files), false) = (listed, options.contains_key("files")) {
        // A path with a line break cannot be written down; such files are listed anew each time.
        let names: Option<Vec<&str>> =
            files.iter().map(|file| file.to_str().filter(|name| !name.contains('\n'))).collect();
        if let Some(names) = names {
            options.insert("files".into(), names.join("\n"));
        }
    }
}

impl FileOptions {
    /// The files, sorted by name; at least one. Hidden files are left out.
    pub(in crate::source) fn list(&self) -> Result<Vec<PathBuf>> {
        if let Some(files) = &self.files {
            return Ok(files.clone());
        }
        let path = Path::new(&self.path);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let pattern = if name.contains(['*', '?']) { Some(name) } else { None };
        if pattern.is_none() {
            let kind = std::fs::metadata(path).map_err(|error| unreadable("opening file", path, &error))?;
            if !kind.is_dir() {
                return Ok(vec![path.to_owned()]);
            }
        }
        let directory = match pattern {
            None => path,
            Some(_) => path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        };
        if directory.to_str().is_some_and(|directory| directory.contains(['*', '?'])) {
            return Err(wrong("path", &self.path, "a pattern in the last part of the path only"));
        }
        let fail = |error: std::io::Error| unreadable("listing directory", directory, &error);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(fail)? {
            let file = entry.map_err(fail)?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let wanted =
                !name.starts_with('.') && pattern.is_none_or(|pattern| matches(pattern.as_bytes(), name.as_bytes()));
            if wanted && std::fs::metadata(&file).map_err(fail)?.is_file() {
                files.push(file);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(Error::Unavailable(format!("there is no file at {}", self.path)));
        }
        Ok(files)
    }

    pub(in crate::source) fn take(options: &mut OptionReader) -> Result<Self> {
        let given = options.required("path", "file", "a file, a directory or a pattern like /data/*.csv")?;
        let path = match given.split_once("://") {
            None => given.clone(),
            Some(("file", rest)) if rest.starts_with('/') => percent_decoded(rest).ok_or_else(|| {
                wrong("path", &given, "a file:// URL whose percent signs each stand before two hex digits")
            })?,
            Some((scheme @ ("s3" | "s3a" | "gs" | "az" | "abfss" | "http" | "https" | "hdfs"), _)) => {
                return Err(Error::Unsupported {
                    message: format!("option 'path' cannot begin with '{scheme}://' yet"),
                    hint: Some("it takes a path of this machine, or a file:///… URL of one".into()),
                });
            }
            Some(_) => return Err(wrong("path", &given, "a path of this machine, or a file:///… URL of one")),
        };
        let format =
            match options.text("format") {
                Some(name) => FileFormat::parse(&name).ok_or_else(|| wrong("format", &name, FileFormat::WANTED))?,
                None => Packing::of(&path).1.rsplit_once('.').and_then(|(_, end)| FileFormat::parse(end)).ok_or_else(
                    || Error::Definition {
                        message: "connector 'file' needs the option 'format': the path does not end in a known one"
                            .into(),
                        hint: Some(format!("it takes {}", FileFormat::WANTED)),
                    },
                )?,
            };
        if Packing::of(&path).0 != Packing::Plain && matches!(format, FileFormat::Parquet | FileFormat::Avro) {
            return Err(wrong("path", &given, "a file of this format as it is: it packs its own contents"));
        }
        let header = options.boolean("header")?;
        if header.is_some() && format != FileFormat::Csv {
            return Err(Error::Definition {
                message: "option 'header' is for csv files".into(),
                hint: Some("leave it out, or give format = 'csv'".into()),
            });
        }
        let files = options.text("files").map(|files| files.split('\n').map(PathBuf::from).collect::<Vec<_>>());
        Ok(Self { path, format, header: header.unwrap_or(false), files })
    }
}

/// `*` stands for any bytes, `?` for one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and what of the name it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(byte), _) if *byte == b'?' || *byte == name[n] => (p, n) = (p + 1, n + 1),
            (_, Some((at, taken))) => {
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
            _ => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
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
        assert_eq!(
            options,
            FileOptions { path: "/tmp/a b.csv".into(), format: FileFormat::Csv, header: true, files: None }
        );
        assert_eq!(take(&[("path", "/tmp/x.jsonl")]).unwrap().format, FileFormat::Ndjson);
        assert_eq!(take(&[("path", "/tmp/dir"), ("format", "Parquet")]).unwrap().format, FileFormat::Parquet);
    }

    #[test]
    fn patterns_match_as_a_shell_would() {
        for (pattern, name, wanted) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "a.csv.gz", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn refuses() {
        for bad in [
            &[][..],
            &[("path", "/tmp/dir")],
            &[("path", "/x.parquet.gz")],
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
