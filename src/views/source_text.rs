//! The CREATE SOURCE that a source's definition is.

use std::fmt::Write as _;

use datafusion::sql::sqlparser::tokenizer::Token;

use super::ingestion::hide_secret;
use crate::{catalog::definition::SourceDefinition, sql::tokens::is_reserved};

/// Words that begin an element of a definition which is no column.
const BEGINNINGS: [&str; 8] = ["constraint", "primary", "watermark", "check", "unique", "foreign", "exclude", "like"];

/// Without passwords; what is left out of a definition by default is left out here.
pub(crate) fn create_source(source: &SourceDefinition) -> String {
    let mut out = format!("CREATE SOURCE {} (", name(&source.name));
    let key: Vec<String> =
        source.columns.iter().filter(|column| column.in_key).map(|column| name(&column.name)).collect();
    let mut elements: Vec<String> = source
        .columns
        .iter()
        .map(|column| {
            let mut text = format!("{} {}", name(&column.name), column.data_type.to_string().to_uppercase());
            if !column.nullable && !column.in_key {
                text.push_str(" NOT NULL");
            }
            if let Some(path) = &column.path {
                let _ = write!(text, " PATH {}", literal(path));
            }
            if let Some(epoch) = &column.epoch {
                let _ = write!(text, " EPOCH {}", literal(epoch));
            }
            text
        })
        .collect();
    if !key.is_empty() {
        elements.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    elements.extend(
        source
            .watermark
            .iter()
            .map(|watermark| format!("WATERMARK FOR {} AS {}", name(&watermark.column), watermark.expression)),
    );
    elements.extend(
        source.checks.iter().map(|check| format!("CONSTRAINT {} CHECK ({})", name(&check.name), check.expression)),
    );
    for (at, element) in elements.iter().enumerate() {
        out += if at == 0 { "\n    " } else { ",\n    " };
        out += element;
    }
    let options = source.options.iter().map(|(key, value)| {
        let key = if is_plain(key) { key.clone() } else { literal(key) };
        format!("{key} = {}", literal(&hide_secret(&key, value)))
    });
    let _ = write!(out, "\n) WITH ({})", options.collect::<Vec<_>>().join(", "));
    out
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A name in quotes where it needs them: what is no plain word, words that are reserved, and those that begin other things than columns.
fn name(name: &str) -> String {
    let is_reserved = matches!(Token::make_word(name, None), Token::Word(word) if is_reserved(word.keyword));
    match is_plain(name) && !is_reserved && !BEGINNINGS.contains(&name) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
