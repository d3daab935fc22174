//! From a document, or a question about documents, to terms.

use std::ops::Bound;

use super::{
    super::lexicon::{TermRange, after, only},
    paths::{JsonPaths, Place},
};
use crate::documents::{Step, ValueTest};

/// Levels whose values are told apart.
pub(super) const DEPTH_MAX: usize = 16;
/// Longer keys and texts are cut to this many bytes.
const BYTES_MAX: usize = 64;

/// After the path, which ends with each step's own end, comes one of these. Scalars before deeper steps.
const NULL: u8 = 0x10;
const BOOLEAN: u8 = 0x20;
const NUMBER: u8 = 0x30;
const TEXT: u8 = 0x40;
/// An object or array of nothing.
const EMPTY: u8 = 0x50;
/// Something too deep.
const DEEP: u8 = 0x51;
const KEY: u8 = 0x60;
const ELEMENT: u8 = 0x61;
/// Of documents that are none.
const UNREADABLE: u8 = 0xff;

/// Calls `each` with the terms of a document, possibly one several times; with those that `paths` leave, if there are any.
pub(super) fn of_document(text: &str, paths: Option<&JsonPaths>, each: &mut dyn FnMut(&[u8])) {
    let mut walk = Walk {
        text: text.as_bytes(),
        at: 0,
        path: Vec::with_capacity(64),
        paths,
        keys: Vec::new(),
        is_known: paths.is_none_or(|paths| paths.place(&[""; 0]) == Place::Known),
        levels: paths.map_or(DEPTH_MAX, JsonPaths::levels),
        each,
    };
    let whole = walk.value(0).and_then(|()| {
        walk.blanks();
        (walk.at == walk.text.len()).then_some(())
    });
    if whole.is_none() {
        (walk.each)(&[UNREADABLE]);
    }
}

/// The documents that no question leaves out.
pub(super) fn unreadable() -> TermRange {
    (vec![UNREADABLE], Bound::Unbounded)
}

/// The terms of which a document has one, at least, if it has such a value at the path.
/// `levels` are those of the documents.
pub(super) fn of_question(path: &[Step], value: &ValueTest, levels: usize) -> Vec<TermRange> {
    let mut prefix = Vec::with_capacity(64);
    for step in path.iter().take(levels) {
        push_step(&mut prefix, step);
    }
    if path.len() > levels {
        return vec![below(prefix)];
    }
    let with = |tag: u8, rest: &[u8]| [prefix.as_slice(), &[tag], rest].concat();
    // What deep documents hold is not known.
    let mut ranges = vec![only(with(DEEP, &[]))];
    match value {
        ValueTest::Exists => return vec![below(prefix)],
        ValueTest::Null => ranges.push(only(with(NULL, &[]))),
        ValueTest::Boolean(value) => ranges.push(only(with(BOOLEAN, &[u8::from(*value)]))),
        ValueTest::Number { low, high } => ranges.push(numbers(&prefix, *low, *high)),
        ValueTest::String(text) => ranges.push(only(with(TEXT, cut(text.as_bytes())))),
        ValueTest::Text(text) => {
            ranges.push(only(with(TEXT, cut(text.as_bytes()))));
            match text.as_bytes().first() {
                Some(b't' | b'f') => ranges.push((with(BOOLEAN, &[]), Bound::Excluded(with(NUMBER, &[])))),
                // All that is written in brackets.
                Some(b'{' | b'[') => ranges.push((with(EMPTY, &[]), after(&prefix))),
                _ => {
                    if let Some(number) = text.parse().ok().filter(|number: &f64| !number.is_nan()) {
                        ranges.push(numbers(&prefix, number, number));
                    }
                }
            }
        }
        ValueTest::Cast { low, high } => {
            // What is no number but text may read as one, or must fail.
            ranges = vec![
                (with(NULL + 1, &[]), Bound::Excluded(with(NUMBER, &[]))),
                numbers(&prefix, *low, *high),
                (with(NUMBER + 1, &[]), after(&prefix)),
            ];
        }
    }
    ranges
}

/// All terms that begin like this. No step and no tag is 0xff.
fn below(prefix: Vec<u8>) -> TermRange {
    let end = after(&prefix);
    (prefix, end)
}

fn numbers(prefix: &[u8], low: f64, high: f64) -> TermRange {
    let term = |number: f64| [prefix, &[NUMBER], &of_number(number)].concat();
    let mut end = term(high);
    end.push(0);
    (term(low), Bound::Excluded(end))
}

/// Bytes in the order of the numbers; NaN is none of JSON.
fn of_number(number: f64) -> [u8; 8] {
    let bits = (number + 0.0).to_bits();
    let turned = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    turned.to_be_bytes()
}

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(BYTES_MAX)]
}

fn push_step(path: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Element => path.push(ELEMENT),
        Step::Key(key) => push_key(path, key.as_bytes()),
    }
}

fn push_key(path: &mut Vec<u8>, key: &[u8]) {
    path.push(KEY);
    path.extend(cut(key).iter().map(|byte| (*byte).max(1)));
    path.push(0);
}

struct Walk<'a, 'b> {
    text: &'a [u8],
    at: usize,
    path: Vec<u8>,
    paths: Option<&'a JsonPaths>,
    /// Of the path, where there are `paths`.
    keys: Vec<String>,
    /// Whether values at the path are told.
    is_known: bool,
    levels: usize,
    each: &'b mut dyn FnMut(&[u8]),
}

/// Each gives `None` for what is no JSON.
impl Walk<'_, '_> {
    fn blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<u8> {
        self.blanks();
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then(|| self.at += 1)
    }

    fn found(&mut self, tag: u8, rest: &[u8]) {
        if !self.is_known {
            return;
        }
        let length = self.path.len();
        self.path.push(tag);
        self.path.extend_from_slice(rest);
        (self.each)(&self.path);
        self.path.truncate(length);
    }

    /// Depth of recursion is at most [`DEPTH_MAX`].
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.next()? {
            b'{' | b'[' if depth == self.levels => {
                self.found(DEEP, &[]);
                self.skip()
            }
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => {
                let text = self.string()?;
                self.found(TEXT, cut(&text));
                Some(())
            }
            b'n' => self.word(b"null", NULL, &[]),
            b't' => self.word(b"true", BOOLEAN, &[1]),
            b'f' => self.word(b"false", BOOLEAN, &[0]),
            _ => {
                let rest = &self.text[self.at..];
                let is_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let length = rest.iter().take_while(|byte| is_number(byte)).count();
                let number: f64 = std::str::from_utf8(&rest[..length]).ok()?.parse().ok()?;
                self.at += length;
                self.found(NUMBER, &of_number(number));
                Some(())
            }
        }
    }

    fn word(&mut self, word: &[u8], tag: u8, rest: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            self.found(tag, rest);
        })
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.take(b'{')?;
        if self.next()? == b'}' {
            self.found(EMPTY, &[]);
            return self.take(b'}');
        }
        loop {
            self.blanks();
            let key = self.string()?;
            self.take(b':')?;
            let length = self.path.len();
            push_key(&mut self.path, &key);
            match self.paths {
                None => self.value(depth + 1)?,
                Some(paths) => {
                    self.keys.push(String::from_utf8_lossy(&key).into_owned());
                    let above = std::mem::replace(&mut self.is_known, paths.place(&self.keys) == Place::Known);
                    self.value(depth + 1)?;
                    self.is_known = above;
                    self.keys.pop();
                }
            }
            self.path.truncate(length);
            if self.next()? == b'}' {
                return self.take(b'}');
            }
            self.take(b',')?;
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.take(b'[')?;
        if self.next()? == b']' {
            self.found(EMPTY, &[]);
            return self.take(b']');
        }
        loop {
            self.path.push(ELEMENT);
            self.value(depth + 1)?;
            self.path.pop();
            if self.next()? == b']' {
                return self.take(b']');
            }
            self.take(b',')?;
        }
    }

    /// Past an object or array, whatever it holds.
    fn skip(&mut self) -> Option<()> {
        let mut open = 0usize;
        loop {
            match self.next()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return Some(());
            }
        }
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        if *self.text.get(self.at)? != b'"' {
            return None;
        }
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(out),
                b'\\' => {
                    let escaped = *self.text.get(self.at)?;
                    self.at += 1;
                    match escaped {
                        b'n' => out.push(b'\n'),
                        b't' => out.push(b'\t'),
                        b'r' => out.push(b'\r'),
                        b'b' => out.push(8),
                        b'f' => out.push(12),
                        b'u' => {
                            let mut unit = u32::from(self.hex()?);
                            if (0xd800..0xdc00).contains(&unit) && self.text[self.at..].starts_with(b"\\u") {
                                self.at += 2;
                                unit = 0x1_0000 + ((unit - 0xd800) << 10) + (u32::from(self.hex()?) & 0x3ff);
                            }
                            let character = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                        }
                        plain => out.push(plain),
                    }
                }
                plain => out.push(plain),
            }
        }
    }

    fn hex(&mut self) -> Option<u16> {
        let digits = std::str::from_utf8(self.text.get(self.at..self.at + 4)?).ok()?;
        self.at += 4;
        u16::from_str_radix(digits, 16).ok()
    }
}
