//! Regular expressions that split and match: `regexp_split_to_array`, `regexp_matches`, `regexp_substr`.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, ListBuilder, StringViewArray, StringViewBuilder},
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};
use regex::{Regex, RegexBuilder};

use super::{
    rows::REGEXP_MATCHES,
    simple::{Call, Returns, Simple, any_of},
};
use crate::SqlError;

/// Bytes of one compiled expression.
const COMPILED_MAX: usize = 10 << 20;

/// A pattern of SIMILAR TO as a regular expression.
pub(crate) const SIMILAR: &str = "tidemill_similar";

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let texts = || DataType::new_list(DataType::Utf8View, true);
    vec![
        Simple::udf("regexp_split_to_array", any_of(&[2, 3], Immutable), Returns::Type(texts()), split),
        Simple::udf(
            REGEXP_MATCHES,
            any_of(&[2, 3], Immutable),
            Returns::Type(DataType::new_list(texts(), true)),
            matches,
        ),
        Simple::udf(SIMILAR, any_of(&[1, 2], Immutable), Returns::Type(DataType::Utf8View), similar),
        Simple::udf("regexp_substr", any_of(&[2], Immutable), Returns::Type(DataType::Utf8View), substring),
    ]
}

/// The regular expression that means what a pattern of SIMILAR TO does, given with its escape character.
fn similar(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let patterns = call.text(0)?;
    let escapes = if call.arrays.len() == 2 { Some(call.text(1)?) } else { None };
    let rows = (0..call.rows).map(|row| {
        let escape = match &escapes {
            Some(escapes) if escapes.is_null(row) => return Ok(None),
            Some(escapes) => escapes.value(row),
            None => "\\",
        };
        if patterns.is_null(row) {
            return Ok(None);
        }
        let mut characters = escape.chars();
        let (escape, more) = (characters.next(), characters.next());
        if more.is_some() {
            return Err(SqlError::new("22019", "invalid escape string")
                .with_hint("Escape string must be empty or one character."));
        }
        Ok(Some(similar_pattern(patterns.value(row), escape)))
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, SqlError>>()?))
}

fn similar_pattern(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::from("^(?s:");
    let mut in_class = false;
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            c if Some(c) == escape => {
                if let Some(next) = characters.next() {
                    out.push_str(&regex::escape(next.encode_utf8(&mut [0; 4])));
                }
            }
            '%' if !in_class => out.push_str(".*"),
            '_' if !in_class => out.push('.'),
            '.' | '^' | '$' if !in_class => {
                out.push('\\');
                out.push(c);
            }
            '\\' => out.push_str("\\\\"),
            '[' if !in_class => {
                in_class = true;
                out.push('[');
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            other => out.push(other),
        }
    }
    out.push_str(")$");
    out
}

/// A compiled expression and whether all matches are meant.
pub(super) struct Compiled {
    pub(super) regex: Regex,
    pub(super) all: bool,
}

pub(super) fn compiled(pattern: &str, flags: &str) -> Result<Compiled, SqlError> {
    let mut builder = RegexBuilder::new(pattern);
    // A dot is any character, and ^ and $ are the ends of the text, unless told otherwise.
    builder.dot_matches_new_line(true).size_limit(COMPILED_MAX);
    let mut all = false;
    for flag in flags.chars() {
        match flag {
            'g' => all = true,
            'i' => {
                builder.case_insensitive(true);
            }
            'c' => {
                builder.case_insensitive(false);
            }
            'n' | 'm' => {
                builder.dot_matches_new_line(false).multi_line(true);
            }
            's' => {
                builder.dot_matches_new_line(true).multi_line(false);
            }
            'x' => {
                builder.ignore_whitespace(true);
            }
            other => {
                return Err(SqlError::invalid_parameter(format!("invalid regular expression option: \"{other}\"")));
            }
        }
    }
    let regex = builder.build().map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        SqlError::new("2201B", format!("invalid regular expression: {reason}"))
    })?;
    Ok(Compiled { regex, all })
}

/// Runs `each` on every row whose arguments are not NULL.
fn rows(
    call: &Call<'_>,
    mut each: impl FnMut(Option<(&Compiled, &str)>) -> Result<(), DataFusionError>,
) -> Result<(), DataFusionError> {
    let columns: Vec<StringViewArray> =
        (0..call.arrays.len()).map(|index| call.text(index)).collect::<Result<_, _>>()?;
    let mut known: HashMap<(String, String), Compiled> = HashMap::new();
    for row in 0..call.rows {
        if columns.iter().any(|column| column.is_null(row)) {
            each(None)?;
            continue;
        }
        let key = (columns[1].value(row).to_owned(), columns.get(2).map_or("", |flags| flags.value(row)).to_owned());
        let expression = match known.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let made = compiled(&entry.key().0, &entry.key().1)?;
                entry.insert(made)
            }
        };
        each(Some((expression, columns[0].value(row))))?;
    }
    Ok(())
}

fn split(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let mut out = ListBuilder::new(StringViewBuilder::new());
    rows(call, |row| {
        let Some((expression, text)) = row else {
            out.append(false);
            return Ok(());
        };
        if expression.all {
            let message = "regexp_split_to_array() does not support the \"global\" option";
            return Err(SqlError::invalid_parameter(message).into());
        }
        for part in parts(&expression.regex, text) {
            out.values().append_value(part);
        }
        out.append(true);
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}

/// Between the matches. A match of nothing at either end, or behind another match, splits nothing.
fn parts<'a>(regex: &Regex, text: &'a str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for found in regex.find_iter(text) {
        if found.is_empty() && (found.start() == start || found.start() == text.len()) {
            continue;
        }
        parts.push(&text[start..found.start()]);
        start = found.end();
    }
    parts.push(&text[start..]);
    parts
}

/// Each match as its groups, or as the whole where there are none.
fn matches(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let mut out = ListBuilder::new(ListBuilder::new(StringViewBuilder::new()));
    rows(call, |row| {
        let Some((expression, text)) = row else {
            out.append(false);
            return Ok(());
        };
        let count = if expression.all { usize::MAX } else { 1 };
        for found in expression.regex.captures_iter(text).take(count) {
            let groups = out.values();
            let first = usize::from(found.len() > 1);
            for group in found.iter().skip(first) {
                groups.values().append_option(group.map(|group| group.as_str()));
            }
            groups.append(true);
        }
        out.append(true);
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}

fn substring(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let mut out = StringViewBuilder::new();
    rows(call, |row| {
        out.append_option(row.and_then(|(expression, text)| expression.regex.find(text)).map(|found| found.as_str()));
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_postgresql_15_does() {
        for (text, pattern, wanted) in [
            ("hello world", r"\s+", vec!["hello", "world"]),
            ("abc", "", vec!["a", "b", "c"]),
            ("the quick", r"\s*", vec!["t", "h", "e", "q", "u", "i", "c", "k"]),
            ("a,b,", ",", vec!["a", "b", ""]),
            ("", ",", vec![""]),
            ("a\nb", ".b", vec!["a", ""]),
        ] {
            assert_eq!(parts(&compiled(pattern, "").unwrap().regex, text), wanted, "{text} {pattern}");
        }
        for (pattern, wanted) in [
            ("%(b|d)%", "^(?s:.*(b|d).*)$"),
            ("a_c.", r"^(?s:a.c\.)$"),
            (r"100\%", "^(?s:100%)$"),
            ("[a%]+", "^(?s:[a%]+)$"),
        ] {
            assert_eq!(similar_pattern(pattern, Some('\\')), wanted);
        }
        assert_eq!(compiled("(", "").map(|_| ()).unwrap_err().sqlstate, "2201B");
        assert_eq!(compiled("a", "q").map(|_| ()).unwrap_err().sqlstate, "22023");
    }
}
