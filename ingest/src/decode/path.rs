//! Where in a nested message a column's value stands: a small part of JSONPath.

use std::fmt;

use crate::{Error, Result};

/// Longest path of a column.
pub(super) const PATH_STEPS_MAX: usize = 32;

/// One step into a JSON value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathStep {
    /// The field of an object.
    Field(String),
    /// The element of an array, counted from 0.
    Index(usize),
}

impl fmt::Display for PathStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) if is_plain(name) => write!(f, ".{name}"),
            Self::Field(name) => write!(f, "['{}']", name.replace('\\', "\\\\").replace('\'', "\\'")),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-' || c == '@')
}

/// Reads `$`, `$.actor.login`, `$.a.b[0]`, `$['odd name'].x`. The leading `$` may be left out (`actor.login`). Inside quotes a
/// backslash takes the next character as it is. `$` alone is the whole message: no steps. Wildcards, slices and filters are
/// refused with `Definition`.
pub fn parse_path(text: &str) -> Result<Vec<PathStep>> {
    let fail = |what: &str| Error::Definition {
        message: format!("path '{text}' cannot be read: {what}"),
        hint: Some("a path looks like $.actor.login, $.items[0].price or $['odd name']; $ is the whole message".into()),
    };
    let mut rest = match text.trim().strip_prefix('$') {
        Some(rest) => rest.to_owned(),
        None if text.trim().is_empty() => return Err(fail("it is empty")),
        None if text.trim().starts_with('[') => text.trim().to_owned(),
        None => format!(".{}", text.trim()),
    };
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let after;
        if let Some(field) = rest.strip_prefix('.') {
            let end = field.find(['.', '[']).unwrap_or(field.len());
            let name = &field[..end];
            if name.is_empty() {
                return Err(fail("a field name is missing after a point"));
            }
            if !is_plain(name) {
                return Err(fail("a field name with other characters than letters, digits, _, - and @ needs ['…']"));
            }
            steps.push(PathStep::Field(name.to_owned()));
            after = field[end..].to_owned();
        } else if let Some(inner) = rest.strip_prefix('[') {
            if let Some(quote) = inner.chars().next().filter(|c| *c == '\'' || *c == '"') {
                let (name, end) = quoted(inner, quote).ok_or_else(|| fail("a quote is not closed"))?;
                steps.push(PathStep::Field(name));
                after = inner[end..].strip_prefix(']').ok_or_else(|| fail("']' is missing"))?.to_owned();
            } else {
                let end = inner.find(']').ok_or_else(|| fail("']' is missing"))?;
                let index = inner[..end].trim();
                if index.is_empty() || !index.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(fail("between [ and ] stands a number from 0 on or a quoted name"));
                }
                steps.push(PathStep::Index(index.parse().map_err(|_| fail("the index is too large"))?));
                after = inner[end + 1..].to_owned();
            }
        } else {
            return Err(fail("after '$' comes a point or a bracket"));
        }
        rest = after;
        if steps.len() > PATH_STEPS_MAX {
            return Err(fail(&format!("it has more than {PATH_STEPS_MAX} steps")));
        }
    }
    Ok(steps)
}

/// The name inside quotes and the position after the closing one.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.push(chars.next()?.1),
            c if c == quote => return Some((name, at + c.len_utf8())),
            c => name.push(c),
        }
    }
    None
}

/// The path as it is written: `$.a[0]`.
pub(super) fn display_path(path: &[PathStep]) -> String {
    std::iter::once("$".to_owned()).chain(path.iter().map(ToString::to_string)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> PathStep {
        PathStep::Field(name.into())
    }

    #[test]
    fn reads_what_it_promises() {
        assert_eq!(parse_path("$").unwrap(), vec![]);
        assert_eq!(parse_path("$.actor.login").unwrap(), vec![field("actor"), field("login")]);
        assert_eq!(parse_path("actor.login").unwrap(), vec![field("actor"), field("login")]);
        assert_eq!(parse_path("$.a.b[0][12].c").unwrap().len(), 5);
        assert_eq!(parse_path("$['odd name'][\"it's\"]").unwrap(), vec![field("odd name"), field("it's")]);
        assert_eq!(parse_path(r"$['it\'s \\']").unwrap(), vec![field(r"it's \")]);
        assert_eq!(parse_path("$[3]").unwrap(), vec![PathStep::Index(3)]);
        assert_eq!(parse_path("$['']").unwrap(), vec![field("")]);
    }

    #[test]
    fn refuses_the_rest() {
        let long = format!("${}", ".a".repeat(PATH_STEPS_MAX + 1));
        for bad in [
            "",
            " ",
            "$.",
            "$..a",
            "$a",
            "$.a[",
            "$.a[]",
            "$.a[-1]",
            "$.a[*]",
            "$.*",
            "$['a",
            "$['a'",
            "$.a b",
            "$[99999999999999999999]",
            &long,
        ] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["$.a.b[0]", "$['odd name'].x", r"$['it\'s']", "$['']"] {
            let steps = parse_path(text).unwrap();
            let printed: String = steps.iter().map(ToString::to_string).collect();
            assert_eq!(parse_path(&format!("${printed}")).unwrap(), steps);
        }
    }
}
