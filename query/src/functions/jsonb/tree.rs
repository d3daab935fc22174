//! A JSON document in memory, and its one text: `{"a": 1, "bb": [true, null]}`. Keys stand by length and then bytes, numbers are as numeric prints
//! them, as jsonb has both.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::de::IgnoredAny;
use tidemill_storage::digits::DOCUMENT_BYTES_MAX;

use super::number;
use crate::SqlError;

#[derive(Clone, Debug)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// As numeric prints it.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    /// In the order of [`key_order`], each key once.
    Object(Vec<(String, Json)>),
}

/// Shorter keys first.
pub(crate) fn key_order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

impl FromStr for Json {
    type Err = SqlError;

    fn from_str(text: &str) -> Result<Self, SqlError> {
        // Grammar and depth are checked here; what follows may rely on both.
        if depth(text) > DEPTH_MAX {
            return Err(SqlError::new("54001", "the JSON document is nested too deeply")
                .with_detail(format!("It has more than {DEPTH_MAX} levels.")));
        }
        if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
            return Err(SqlError::new("22P02", "invalid input syntax for type json").with_detail(error.to_string()));
        }
        read(&mut text.trim_start(), &mut { DOCUMENT_BYTES_MAX })
    }
}

/// Levels of a document: what walks it does so by recursion.
const DEPTH_MAX: usize = 1000;

/// Arrays and objects that are open at one place, at most, whether they are well-formed or not.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest) = (0usize, 0);
    let mut bytes = text.bytes();
    let mut is_string = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if is_string => drop(bytes.next()),
            b'"' => is_string = !is_string,
            b'[' | b'{' if !is_string => {
                open += 1;
                deepest = deepest.max(open);
            }
            b']' | b'}' if !is_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// `room` is what the document's numbers may still take when they are written out.
fn read(rest: &mut &str, room: &mut usize) -> Result<Json, SqlError> {
    Ok(match rest.as_bytes().first() {
        Some(b'{') => {
            let mut members = Vec::new();
            *rest = rest[1..].trim_start();
            while !rest.starts_with('}') && !rest.is_empty() {
                let key = string(rest)?;
                *rest = rest.trim_start();
                *rest = rest.strip_prefix(':').unwrap_or(rest).trim_start();
                members.push((key, read(rest, room)?));
                after_item(rest);
            }
            *rest = rest.get(1..).unwrap_or("");
            Json::object(members)
        }
        Some(b'[') => {
            let mut items = Vec::new();
            *rest = rest[1..].trim_start();
            while !rest.starts_with(']') && !rest.is_empty() {
                items.push(read(rest, room)?);
                after_item(rest);
            }
            *rest = rest.get(1..).unwrap_or("");
            Json::Array(items)
        }
        Some(b'"') => Json::Text(string(rest)?),
        _ => {
            let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
            let (token, after) = rest.split_at(end);
            *rest = after;
            match token {
                "null" => Json::Null,
                "true" => Json::Bool(true),
                "false" => Json::Bool(false),
                digits => {
                    let number = number::plain(digits)?;
                    *room = room.checked_sub(number.len()).ok_or_else(|| {
                        SqlError::new("54000", "the JSON document is too large").with_detail(format!(
                            "With its numbers written out it has more than {DOCUMENT_BYTES_MAX} bytes."
                        ))
                    })?;
                    Json::Number(number)
                }
            }
        }
    })
}

fn after_item(rest: &mut &str) {
    *rest = rest.trim_start();
    *rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
}

fn string(rest: &mut &str) -> Result<String, SqlError> {
    let (token, after) = rest.split_at(string_length(rest));
    *rest = after;
    if !token.contains('\\') {
        return Ok(token.trim_matches('"').to_owned());
    }
    // The grammar was right, so what is left is half of a surrogate pair.
    let text: String = serde_json::from_str(token).map_err(|_| {
        SqlError::new("22P02", "invalid input syntax for type json")
            .with_detail("Unicode low surrogate must follow a high surrogate.")
    })?;
    if text.contains('\0') {
        return Err(SqlError::new("22P05", "unsupported Unicode escape sequence")
            .with_detail("\\u0000 cannot be converted to text."));
    }
    Ok(text)
}

/// Bytes of the string token at the start, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

impl Json {
    /// The last of equal keys is kept.
    pub(crate) fn object(mut members: Vec<(String, Self)>) -> Self {
        members.sort_by(|(a, _), (b, _)| key_order(a, b));
        let mut kept: Vec<(String, Self)> = Vec::with_capacity(members.len());
        for member in members {
            match kept.last_mut() {
                Some(last) if last.0 == member.0 => *last = member,
                _ => kept.push(member),
            }
        }
        Self::Object(kept)
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    pub(crate) fn is_scalar(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }

    pub(crate) fn member(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Counted from 0, or from the end with a negative `index`.
    pub(crate) fn item(&self, index: i64) -> Option<&Self> {
        match self {
            Self::Array(items) => items.get(place(items.len(), index)?),
            _ => None,
        }
    }

    /// What a path of keys and numbers leads to.
    pub(crate) fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Self> {
        path.into_iter().try_fold(self, |value, step| match value {
            Self::Object(_) => value.member(step),
            Self::Array(_) => value.item(step.trim().parse().ok()?),
            _ => None,
        })
    }

    /// As `->>` gives it: text without quotes, `null` as NULL.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// Lines and four spaces a level, as `jsonb_pretty` writes.
    pub(crate) fn pretty(&self) -> String {
        let mut out = String::new();
        self.write_pretty(0, &mut out);
        out
    }

    fn write_pretty(&self, level: usize, out: &mut String) {
        let line = |level: usize, out: &mut String| {
            out.push('\n');
            out.push_str(&"    ".repeat(level));
        };
        match self {
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    line(level + 1, out);
                    item.write_pretty(level + 1, out);
                }
                line(level, out);
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (key, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    line(level + 1, out);
                    out.push_str(&quoted(key));
                    out.push_str(": ");
                    value.write_pretty(level + 1, out);
                }
                line(level, out);
                out.push('}');
            }
            scalar => out.push_str(&scalar.to_string()),
        }
    }
}

/// The place that `index` means among `length` items.
pub(crate) fn place(length: usize, index: i64) -> Option<usize> {
    let index = if index < 0 { index.checked_add(i64::try_from(length).ok()?)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(digits) => f.write_str(digits),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Array(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    item.fmt(f)?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (index, (key, value)) in members.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{}: {value}", quoted(key))?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_as_postgresql_prints() {
        for (given, printed) in [
            (r#"{"b":1,"a":2,"aa":3}"#, r#"{"a": 2, "b": 1, "aa": 3}"#),
            (r#" { "a" : [ 1 ,2.50, {} ] } "#, r#"{"a": [1, 2.50, {}]}"#),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
            (r#""A\n\"""#, r#""A\n\"""#),
            (r#""\u00e9\ud83d\ude00""#, "\"é😀\""),
            ("12345678901234567890.10", "12345678901234567890.10"),
            ("[1e5, -0]", "[100000, 0]"),
            ("[]", "[]"),
            ("null", "null"),
            (
                r#"{"a":{"z":1},"b":{"x":{"y":[true,false,null]}}}"#,
                r#"{"a": {"z": 1}, "b": {"x": {"y": [true, false, null]}}}"#,
            ),
        ] {
            assert_eq!(given.parse::<Json>().unwrap().to_string(), printed);
        }
        let refused = |text: &str| text.parse::<Json>().unwrap_err().sqlstate;
        for bad in ["", "{", "{a:1}", "[1,]", "01", "nul", "\"\u{1}\"", r#""\ud800""#, r#"["\ude00\ud800"]"#] {
            assert_eq!(refused(bad), "22P02", "{bad}");
        }
        assert_eq!(refused(r#"{"\u0000": 1}"#), "22P05");
        assert_eq!(refused(&"[".repeat(10_000)), "54001");
        // Six kilobytes would become 78 MB, and a megabyte twelve billion.
        assert_eq!(refused(&format!("[{}0]", "1e131071,".repeat(600))), "54000");
    }

    #[test]
    fn paths_go_by_key_and_by_place() {
        let document: Json = r#"{"a":[{"b":"x"},2]}"#.parse().unwrap();
        let at = |path: &[&str]| document.at(path.iter().copied()).map(Json::to_string);
        assert_eq!(at(&["a", "0", "b"]).as_deref(), Some("\"x\""));
        assert_eq!(at(&["a", "-1"]).as_deref(), Some("2"));
        assert_eq!(at(&["a", "2"]), None);
        assert_eq!(at(&["a", "b"]), None);
        assert_eq!(at(&[]).as_deref(), Some(r#"{"a": [{"b": "x"}, 2]}"#));
    }
}
