//! `regexp_replace(text, pattern, replacement [, start [, n]] [, flags])`.
//!
//! DataFusion's knows neither `\&`, the whole match, nor a start.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder},
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};
use regex::Regex;

use super::{
    regexp::{Compiled, compiled},
    simple::{Call, Returns, Simple, any_of},
};
use crate::SqlError;

/// Bytes of the texts of one batch, so that few bytes cannot become very many.
const BYTES_MAX: usize = 256 << 20;

pub(crate) fn udf() -> Arc<ScalarUDF> {
    Simple::udf("regexp_replace", any_of(&[3, 4, 5, 6], Immutable), Returns::Type(DataType::Utf8View), replace)
}

/// What is put in the place of a match.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(Cow<'a, str>),
    /// The whole match is group 0.
    Group(usize),
}

/// `\1` to `\9` and `\&` are groups, `\\` is a backslash; before anything else a backslash is one, too.
fn pieces(replacement: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = replacement;
    while let Some(at) = rest.find('\\') {
        let (before, after) = rest.split_at(at);
        if !before.is_empty() {
            pieces.push(Piece::Text(before.into()));
        }
        let (piece, taken) = match after.as_bytes().get(1) {
            Some(digit @ b'1'..=b'9') => (Piece::Group(usize::from(digit - b'0')), 2),
            Some(b'&') => (Piece::Group(0), 2),
            Some(b'\\') => (Piece::Text("\\".into()), 2),
            _ => (Piece::Text("\\".into()), 1),
        };
        pieces.push(piece);
        rest = &after[taken..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    pieces
}

/// Replaces match number `nth` at or after byte `start`, counted from 1, or all where it is 0.
fn replaced(regex: &Regex, text: &str, pieces: &[Piece<'_>], start: usize, nth: usize, out: &mut String) {
    let (mut copied, mut from, mut count) = (0, start, 0);
    let mut groups = regex.capture_locations();
    while from <= text.len() {
        let Some(found) = regex.captures_read_at(&mut groups, text, from) else { break };
        count += 1;
        if nth == 0 || count == nth {
            out.push_str(&text[copied..found.start()]);
            for piece in pieces {
                match piece {
                    Piece::Text(piece) => out.push_str(piece),
                    Piece::Group(group) => {
                        if let Some((start, end)) = groups.get(*group) {
                            out.push_str(&text[start..end]);
                        }
                    }
                }
            }
            copied = found.end();
            if nth > 0 {
                break;
            }
        }
        from = found.end();
        if found.is_empty() {
            // As PostgreSQL does: also behind another match there may be one of nothing.
            from += text[from..].chars().next().map_or(1, char::len_utf8);
        }
    }
    out.push_str(&text[copied..]);
}

fn replace(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let count = call.arrays.len();
    // The fourth is flags or a start; numbers that are followed by more are a start and a count.
    let numbers = if count == 4 && !call.arrays[3].data_type().is_integer() { 0 } else { (count - 3).min(2) };
    let [texts, patterns, replacements] = [call.text(0)?, call.text(1)?, call.text(2)?];
    let number = |index: usize| -> Result<Option<ArrayRef>, DataFusionError> {
        if index < numbers { call.cast(3 + index, &DataType::Int64).map(Some) } else { Ok(None) }
    };
    let (starts, nths) = (number(0)?, number(1)?);
    let flags: Option<StringViewArray> = if count > 3 + numbers { Some(call.text(count - 1)?) } else { None };
    let mut known: HashMap<(&str, &str), Compiled> = HashMap::new();
    let mut out = StringViewBuilder::new();
    let mut replacement: (Option<&str>, Vec<Piece<'_>>) = (None, Vec::new());
    let (mut text, mut bytes) = (String::new(), 0);
    for row in 0..call.rows {
        let is_null = |array: &dyn Array| array.is_null(row);
        let mut counts = starts.iter().chain(&nths);
        if [&texts, &patterns, &replacements].into_iter().chain(&flags).any(|texts| is_null(texts))
            || counts.any(|numbers| is_null(numbers.as_ref()))
        {
            out.append_null();
            continue;
        }
        let positive = |numbers: &Option<ArrayRef>, least: i64, name: &str| -> Result<Option<usize>, SqlError> {
            let Some(numbers) = numbers else { return Ok(None) };
            let value = numbers.as_primitive::<Int64Type>().value(row);
            let fits = usize::try_from(value).ok().filter(|_| value >= least);
            fits.map(Some)
                .ok_or_else(|| SqlError::invalid_parameter(format!("invalid value for parameter \"{name}\": {value}")))
        };
        let start = positive(&starts, 1, "start")?.unwrap_or(1);
        let nth = positive(&nths, 0, "n")?;
        let key = (patterns.value(row), flags.as_ref().map_or("", |flags| flags.value(row)));
        let expression = match known.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(compiled(key.0, key.1)?),
        };
        if replacement.0 != Some(replacements.value(row)) {
            replacement = (Some(replacements.value(row)), pieces(replacements.value(row)));
        }
        let given = texts.value(row);
        // Behind the end there is nothing to find.
        let Some(start) = given.char_indices().map(|(at, _)| at).chain([given.len()]).nth(start - 1) else {
            out.append_value(given);
            continue;
        };
        let nth = nth.unwrap_or(usize::from(!expression.all));
        text.clear();
        replaced(&expression.regex, given, &replacement.1, start, nth, &mut text);
        bytes += text.len();
        if bytes > BYTES_MAX {
            return Err(SqlError::new("54000", "the texts that regexp_replace makes are too long").into());
        }
        out.append_value(&text);
    }
    Ok(Arc::new(out.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each answer was taken from PostgreSQL 15.
    #[test]
    fn replaces_as_postgresql_does() {
        for (text, pattern, with, nth, wanted) in [
            ("abc", "b", r"[\&]", 1, "a[b]c"),
            ("abc", "b", r"\&\&", 1, "abbc"),
            ("abc", "(b)(c)", r"\2\1\\&", 1, r"acb\&"),
            ("abc", "b", r"\x", 1, r"a\xc"),
            ("abc", "b", "$0&\\0", 1, "a$0&\\0c"),
            ("ab", "b*", "-", 0, "-a--"),
            ("abc", "x*", "-", 0, "-a-b-c-"),
            ("abcabc", "(a)|b", r"[\1]", 0, "[a][]c[a][]c"),
            ("abcabcabc", "b", "X", 2, "abcaXcabc"),
            ("aé𝄞b", ".", "x", 3, "aéxb"),
            ("", "^", "x", 0, "x"),
        ] {
            let mut out = String::new();
            replaced(&compiled(pattern, "").unwrap().regex, text, &pieces(with), 0, nth, &mut out);
            assert_eq!(out, wanted, "{text} {pattern} {with}");
        }
        assert_eq!(pieces("a\\"), [Piece::Text("a".into()), Piece::Text("\\".into())]);
    }
}
