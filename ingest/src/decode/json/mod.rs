//! JSON objects straight into columns.
//!
//! ```text
//! message ─ UTF-8? ─► walk along the paths of the columns ─► one span per column ─► convert ─► append
//!                     (checks the grammar of everything)     (last of equal names)
//! ```
//!
//! Nothing is appended before the whole message is known to be JSON. A value that does not fit turns its row into a reject. The
//! plain twin, over `serde_json`, is in the tests.

pub(crate) mod jsonb;
mod scan;
mod string;
mod tree;

#[cfg(test)]
mod tests;

use self::{scan::Scanner, string::unescape};
pub(super) use self::{
    scan::{Kind, Span},
    tree::Tree,
};
use super::{
    Decoded, Decoder, SourceColumn,
    column::Column,
    number::Misfit,
    rows::{Fault, Rows},
    value::Value,
};
use crate::{Result, message::MessageBatch};

pub(super) struct JsonDecoder {
    tree: Tree,
    columns: Vec<SourceColumn>,
    rows: Rows,
    found: Vec<Option<Span>>,
    /// For strings with escapes, reused.
    scratch: String,
}

impl JsonDecoder {
    pub(super) fn new(columns: &[SourceColumn]) -> Self {
        Self {
            tree: Tree::new(columns.iter().map(|column| &column.path[..])),
            columns: columns.to_vec(),
            rows: Rows::new(columns),
            found: vec![None; columns.len()],
            scratch: String::new(),
        }
    }

    fn row(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let text = find(&self.tree, payload, &mut self.found)?;
        for (at, span) in self.found.iter().enumerate() {
            let span = match span {
                Some(Span { kind: Kind::Null, .. }) | None => {
                    let spec = &self.columns[at];
                    if !spec.nullable {
                        return Err(Fault::not_null(spec, span.is_some()));
                    }
                    self.rows.column(at).append_null();
                    continue;
                }
                Some(span) => *span,
            };
            append(self.rows.column(at), span, text, &mut self.scratch)?;
        }
        Ok(())
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, messages: &MessageBatch) -> Result<Decoded> {
        while let Some(message) = self.rows.next(messages) {
            let result = self.row(messages.payload(message));
            self.rows.end_row(result, messages, message);
        }
        Ok(self.rows.finish())
    }
}

/// Finds the values of a message, which must be one JSON object, as [`Tree::find`] does. Gives its text.
pub(super) fn find<'a>(tree: &Tree, payload: &'a [u8], found: &mut [Option<Span>]) -> Result<&'a str, Fault> {
    let text = utf8(payload)?;
    // RFC 8259 lets a reader ignore a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.is_empty() {
        return Err(Fault::message("the message is empty"));
    }
    tree.find(text, found).map_err(|error| Fault::message(error.to_string()))?;
    Ok(text)
}

fn append(column: &mut Column, span: Span, text: &str, scratch: &mut String) -> Result<(), Fault> {
    match value(span, text, scratch) {
        Ok(value) => column.append(value).map_err(Fault::from),
        Err(misfit) => Err(column.refusal(Value::Json(span.of(text)), misfit).into()),
    }
}

/// The value that stands at `span`.
pub(super) fn value<'a>(span: Span, text: &'a str, scratch: &'a mut String) -> Result<Value<'a>, Misfit> {
    Ok(match span.kind {
        Kind::Null => Value::Null,
        Kind::True => Value::Boolean(true),
        Kind::False => Value::Boolean(false),
        Kind::Number => Value::Number(span.of(text)),
        Kind::PlainString => Value::String(&text[span.start + 1..span.end - 1]),
        Kind::EscapedString => {
            scratch.clear();
            unescape(&text[span.start + 1..span.end - 1], scratch)?;
            Value::String(scratch)
        }
        Kind::Object | Kind::Array => Value::Json(span.of(text)),
    })
}

/// Calls `each` for every element of the JSON array `text`; `Kind` when it is another value.
pub(super) fn for_each_element<E: From<Misfit>>(
    text: &str,
    each: &mut dyn FnMut(Value<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let syntax = |_| E::from(Misfit::Syntax);
    let mut scanner = Scanner::new(text);
    let mut scratch = String::new();
    if scanner.peek() != b'[' {
        return Err(Misfit::Kind.into());
    }
    if !scanner.open(b']') {
        loop {
            let span = scanner.value(1).map_err(syntax)?;
            each(value(span, text, &mut scratch)?)?;
            if !scanner.more(b']').map_err(syntax)? {
                break;
            }
        }
    }
    scanner.end().map_err(syntax)
}

/// The message as text, or where it stops being UTF-8.
pub(super) fn utf8(payload: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(payload)
        .map_err(|error| Fault::message(format!("the message is not valid UTF-8 from byte {} on", error.valid_up_to())))
}
