//! JSONB: any JSON value in the one form that Postgres prints it in.
//!
//! Of members with the same name the last one counts; members are sorted by the length of their names in bytes, then by
//! bytes; a blank follows each comma and colon; numbers are written out with their digits ([`Decimal::write_plain`]); strings have
//! only the escapes they need. Equal values have equal text.

use tidemill_storage::digits::DOCUMENT_BYTES_MAX;

use super::{
    scan::{DEPTH_MAX, Kind, Scanner, Span},
    string::unescape,
};
use crate::decode::number::{Decimal, Misfit};

enum Node<'a> {
    /// `null`, `true`, `false`.
    Word(&'a str),
    Number(&'a str),
    String(String),
    Object(Vec<(String, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

/// Appends the canonical form of `text`, which is one JSON value, to `out`. After a refusal `out` holds rubbish.
pub(in crate::decode) fn canonical(text: &str, out: &mut String) -> Result<(), Misfit> {
    let mut scanner = Scanner::new(text);
    let node = parse(&mut scanner, text, 0)?;
    scanner.end().map_err(|_| Misfit::Syntax)?;
    write(node, out)
}

/// Depth of recursion is at most [`DEPTH_MAX`].
fn parse<'a>(scanner: &mut Scanner<'a>, text: &'a str, depth: u32) -> Result<Node<'a>, Misfit> {
    let syntax = |_| Misfit::Syntax;
    let byte = scanner.peek();
    if matches!(byte, b'{' | b'[') && depth >= DEPTH_MAX {
        return Err(Misfit::Syntax);
    }
    match byte {
        b'{' => {
            let mut members = Vec::new();
            if !scanner.open(b'}') {
                loop {
                    let key = scanner.key().map_err(syntax)?;
                    members.push((string(key, text)?, parse(scanner, text, depth + 1)?));
                    if !scanner.more(b'}').map_err(syntax)? {
                        break;
                    }
                }
            }
            // Stable, so that of equal names the last in the text is the last here.
            members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
            Ok(Node::Object(members))
        }
        b'[' => {
            let mut elements = Vec::new();
            if !scanner.open(b']') {
                loop {
                    elements.push(parse(scanner, text, depth + 1)?);
                    if !scanner.more(b']').map_err(syntax)? {
                        break;
                    }
                }
            }
            Ok(Node::Array(elements))
        }
        _ => {
            let span = scanner.value(depth).map_err(syntax)?;
            Ok(match span.kind {
                Kind::Number => Node::Number(&text[span.start..span.end]),
                Kind::PlainString | Kind::EscapedString => Node::String(string(span, text)?),
                _ => Node::Word(&text[span.start..span.end]),
            })
        }
    }
}

fn string(span: Span, text: &str) -> Result<String, Misfit> {
    let inner = &text[span.start + 1..span.end - 1];
    if span.kind == Kind::PlainString {
        return Ok(inner.to_owned());
    }
    let mut decoded = String::with_capacity(inner.len());
    unescape(inner, &mut decoded)?;
    Ok(decoded)
}

fn write(node: Node<'_>, out: &mut String) -> Result<(), Misfit> {
    match node {
        Node::Word(word) => out.push_str(word),
        Node::Number(text) => Decimal::parse(text).ok_or(Misfit::Syntax)?.write_plain(out)?,
        Node::String(text) => write_string(&text, out),
        Node::Object(members) => {
            out.push('{');
            let mut is_first = true;
            let mut members = members.into_iter().peekable();
            while let Some((name, value)) = members.next() {
                if members.peek().is_some_and(|(next, _)| *next == name) {
                    continue;
                }
                if !std::mem::take(&mut is_first) {
                    out.push_str(", ");
                }
                write_string(&name, out);
                out.push_str(": ");
                write(value, out)?;
            }
            out.push('}');
        }
        Node::Array(elements) => {
            out.push('[');
            for (at, element) in elements.into_iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write(element, out)?;
            }
            out.push(']');
        }
    }
    if out.len() > DOCUMENT_BYTES_MAX { Err(Misfit::Size) } else { Ok(()) }
}

/// As BYTEA is written, in quotes.
pub(crate) fn write_bytes(bytes: &[u8], out: &mut String) {
    use std::fmt::Write as _;

    out.push_str("\"\\\\x");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out.push('"');
}

/// Writes a JSON string with only the escapes it needs.
pub(crate) fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x8 => out.push_str("\\b"),
            0xC => out.push_str("\\f"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(DIGITS[usize::from(control >> 4)]));
                out.push(char::from(DIGITS[usize::from(control & 15)]));
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}
