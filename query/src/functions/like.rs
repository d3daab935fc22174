//! `LIKE … ESCAPE 'c'`: the pattern put into the form whose escape is the backslash, which is what matching knows.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringViewArray},
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use super::simple::{Returns, Simple, any};
use crate::SqlError;

/// Takes a pattern and its escape.
pub(crate) const PATTERN: &str = "tidemill_like_pattern";

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![Simple::udf(PATTERN, any(2, Immutable), Returns::Type(DataType::Utf8View), |call| {
        let (patterns, escapes) = (call.text(0)?, call.text(1)?);
        let converted: StringViewArray = patterns
            .iter()
            .zip(escapes.iter())
            .map(|pair| match pair {
                (Some(pattern), Some(escape)) => Ok::<_, DataFusionError>(Some(convert(pattern, escape)?)),
                _ => Ok(None),
            })
            .collect::<Result<_, _>>()?;
        Ok(Arc::new(converted) as ArrayRef)
    })]
}

fn convert(pattern: &str, escape: &str) -> Result<String, SqlError> {
    let mut chars = escape.chars();
    let escape = chars.next();
    if chars.next().is_some() {
        return Err(
            SqlError::new("22019", "invalid escape string").with_hint("Escape string must be empty or one character.")
        );
    }
    let mut converted = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            let escaped = chars
                .next()
                .ok_or_else(|| SqlError::new("22025", "LIKE pattern must not end with escape character"))?;
            converted.push('\\');
            converted.push(escaped);
        } else {
            if c == '\\' {
                converted.push('\\');
            }
            converted.push(c);
        }
    }
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escape_becomes_a_backslash() {
        for (pattern, escape, wanted) in [
            ("pg/_%", "/", "pg\\_%"),
            ("a//b", "/", "a\\/b"),
            ("a\\b_", "/", "a\\\\b_"),
            ("a\\b_", "", "a\\\\b_"),
            ("a\\_", "\\", "a\\_"),
        ] {
            assert_eq!(convert(pattern, escape).unwrap(), wanted, "{pattern} ESCAPE {escape}");
        }
        assert_eq!(convert("a/", "/").unwrap_err().sqlstate, "22025");
        assert_eq!(convert("a", "//").unwrap_err().sqlstate, "22019");
    }
}
