//! Functions of text: `concat`, `format`, `substring(x from pattern)`, `upper` and `lower`.

use std::{fmt::Write, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, StringViewArray, StringViewBuilder},
    compute::{cast, regexp_match},
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Signature, Volatility},
};

use super::{
    pieces,
    simple::{self, Call, Returns, Simple, any},
    text_output,
};
use crate::SqlError;

/// `text` as a `varchar(n)`: its first n characters.
pub(crate) const CUT: &str = "tidemill_cut";

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    use Volatility::{Immutable, Stable};
    let text = || Returns::Type(DataType::Utf8View);
    vec![
        Simple::udf(CUT, any(2, Immutable), text(), |call| {
            let (texts, lengths) = (call.text(0)?, call.cast(1, &DataType::Int64)?);
            let lengths = lengths.as_primitive::<arrow::datatypes::Int64Type>();
            let cut = texts.iter().zip(lengths.iter()).map(|(text, length)| {
                let (text, length) = (text?, usize::try_from(length?).unwrap_or(0));
                Some(text.char_indices().nth(length).map_or(text, |(end, _)| &text[..end]))
            });
            Ok(Arc::new(cut.collect::<StringViewArray>()))
        }),
        Simple::udf("concat", Signature::variadic_any(Stable), text(), |call| joined(call, 0, |_| Some(String::new()))),
        Simple::udf("concat_ws", Signature::variadic_any(Stable), text(), |call| {
            let separators = call.text(0)?;
            joined(call, 1, |row| separators.is_valid(row).then(|| separators.value(row).to_owned()))
        }),
        Simple::udf("format", Signature::variadic_any(Stable), text(), format_rows),
        Simple::udf("upper", any(1, Immutable), text(), |call| cased(call, "upper", |c| one(c, c.to_uppercase()))),
        Simple::udf("lower", any(1, Immutable), text(), |call| cased(call, "lower", |c| one(c, c.to_lowercase()))),
        substring_pattern(),
    ]
}

/// `c` in the other case where that is one character; ß and its like stay.
fn one(c: char, mut changed: impl Iterator<Item = char>) -> char {
    match (changed.next(), changed.next()) {
        (Some(changed), None) => changed,
        _ => c,
    }
}

fn cased(call: &Call<'_>, function: &str, change: impl Fn(char) -> char) -> Result<ArrayRef, DataFusionError> {
    pieces::check(call, 0, function)?;
    if pieces::is_bytes(call.arrays[0].data_type()) {
        return Err(pieces::no_function(function, &call.fields[0]).into());
    }
    let texts = call.text(0)?;
    let changed = texts.iter().map(|text| text.map(|text| text.chars().map(&change).collect::<String>()));
    Ok(Arc::new(changed.collect::<StringViewArray>()))
}

/// Each argument as the text that PostgreSQL's output functions give: a boolean is `t` or `f`.
pub(super) fn outputs(call: &Call<'_>, from: usize) -> Result<Vec<StringViewArray>, DataFusionError> {
    let zone = call.zone()?;
    call.arrays[from.min(call.arrays.len())..]
        .iter()
        .map(|array| match array.data_type() {
            DataType::Boolean => Ok(array
                .as_boolean()
                .iter()
                .map(|value| value.map(|value| if value { "t" } else { "f" }))
                .collect::<StringViewArray>()),
            DataType::Null => Ok(StringViewArray::new_null(array.len())),
            _ => simple::text(&text_output::column(array, zone)?),
        })
        .collect()
}

/// The arguments that are not NULL, with what `separator` gives for the row between them.
fn joined(
    call: &Call<'_>,
    from: usize,
    separator: impl Fn(usize) -> Option<String>,
) -> Result<ArrayRef, DataFusionError> {
    let columns = outputs(call, from)?;
    let mut builder = StringViewBuilder::with_capacity(call.rows);
    for row in 0..call.rows {
        let Some(separator) = separator(row) else {
            builder.append_null();
            continue;
        };
        let parts: Vec<&str> = columns.iter().filter(|c| c.is_valid(row)).map(|c| c.value(row)).collect();
        builder.append_value(parts.join(&separator));
    }
    Ok(Arc::new(builder.finish()))
}

fn format_rows(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let formats = call.text(0)?;
    let columns = outputs(call, 1)?;
    let mut builder = StringViewBuilder::with_capacity(call.rows);
    for row in 0..call.rows {
        if formats.is_null(row) {
            builder.append_null();
            continue;
        }
        let arguments: Vec<Option<&str>> = columns.iter().map(|c| c.is_valid(row).then(|| c.value(row))).collect();
        builder.append_value(formatted(formats.value(row), &arguments)?);
    }
    Ok(Arc::new(builder.finish()))
}

/// `%s`, `%I`, `%L`, `%%` and `%n$s`.
fn formatted(format: &str, arguments: &[Option<&str>]) -> Result<String, SqlError> {
    let mut out = String::new();
    let mut next = 0;
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if let (1.., Some(after)) = (digits, rest[digits..].strip_prefix('$')) {
            let position: usize = rest[..digits].parse().unwrap_or(0);
            next = position.checked_sub(1).ok_or_else(|| {
                SqlError::invalid_parameter("format specifies argument 0, but arguments are numbered from 1")
            })?;
            rest = after;
        } else if digits > 0 || rest.starts_with(['-', '*']) {
            return Err(SqlError::not_supported("a width in format()"));
        }
        let Some(kind) = rest.chars().next() else {
            return Err(SqlError::invalid_parameter("unterminated format() type specifier")
                .with_hint("For a single \"%\" use \"%%\"."));
        };
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(SqlError::invalid_parameter(format!("unrecognized format() type specifier \"{kind}\""))
                .with_hint("For a single \"%\" use \"%%\"."));
        }
        let value = arguments.get(next).ok_or_else(|| SqlError::invalid_parameter("too few arguments for format()"))?;
        next += 1;
        match (kind, value) {
            ('s', value) => out.push_str(value.unwrap_or_default()),
            ('L', None) => out.push_str("NULL"),
            ('L', Some(value)) if value.contains('\\') => {
                let _ = write!(out, "E'{}'", value.replace('\\', "\\\\").replace('\'', "''"));
            }
            ('L', Some(value)) => {
                let _ = write!(out, "'{}'", value.replace('\'', "''"));
            }
            (_, None) => {
                return Err(SqlError::new("22004", "null values cannot be formatted as an SQL identifier"));
            }
            (_, Some(value)) => out.push_str(&identifier(value)),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// In quotes where it needs them: anything but small letters, digits and underscores, or a word of the grammar.
fn identifier(name: &str) -> String {
    use datafusion::sql::sqlparser::keywords::{
        RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_IDENTIFIER, RESERVED_FOR_TABLE_ALIAS,
    };
    let reserved = RESERVED_FOR_COLUMN_ALIAS
        .iter()
        .chain(RESERVED_FOR_TABLE_ALIAS)
        .chain(RESERVED_FOR_IDENTIFIER)
        .any(|keyword| format!("{keyword:?}").eq_ignore_ascii_case(name));
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain && !reserved { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// `substring(x from 'o(.)b')`: what the first group matches, or the whole match.
pub(crate) fn substring_pattern() -> Arc<ScalarUDF> {
    Simple::udf("substring_pattern", any(2, Volatility::Immutable), Returns::Type(DataType::Utf8View), |call| {
        let matches = regexp_match(&call.text(0)?, &call.text(1)?, None)?;
        let lists = matches.as_list::<i32>();
        let mut builder = StringViewBuilder::with_capacity(call.rows);
        for row in 0..call.rows {
            if lists.is_null(row) || lists.value(row).is_empty() {
                builder.append_null();
                continue;
            }
            let groups = cast(&lists.value(row), &DataType::Utf8View)?;
            let groups = groups.as_string_view();
            builder.append_option(groups.is_valid(0).then(|| groups.value(0)));
        }
        Ok(Arc::new(builder.finish()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_takes_arguments_in_turn_or_by_number() {
        let arguments = [Some("a"), Some("B c"), None];
        assert_eq!(formatted("%s %I 100%%", &arguments).unwrap(), "a \"B c\" 100%");
        assert_eq!(formatted("%2$s %1$s %s", &arguments).unwrap(), "B c a B c");
        assert_eq!(formatted("%3$L", &arguments).unwrap(), "NULL");
        assert_eq!(formatted("%I", &[Some("select")]).unwrap(), "\"select\"");
        for format in ["%", "%d", "%s %s %s %s"] {
            assert_eq!(formatted(format, &arguments).unwrap_err().sqlstate, "22023", "{format}");
        }
        assert_eq!(formatted("%10s", &arguments).unwrap_err().sqlstate, "0A000");
    }
}
