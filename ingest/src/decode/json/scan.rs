//! A strict JSON scanner over text: it finds where values begin and end, checks the grammar of all it passes, and decodes nothing.
//!
//! Strings are passed eight bytes at a time. Nesting is counted in a bit set, not on the stack, so no input can overflow it.
//! Numbers stay text: that is why none of the ready parsers serves, which hand out floats.

use std::fmt;

/// Deepest nesting of objects and arrays.
pub(super) const DEPTH_MAX: u32 = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) enum Kind {
    Null,
    True,
    False,
    Number,
    /// With at least one escape.
    EscapedString,
    PlainString,
    Object,
    Array,
}

/// Where a value stands; of a string, with its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) struct Span {
    pub(in crate::decode) kind: Kind,
    pub(in crate::decode) start: usize,
    pub(in crate::decode) end: usize,
}

impl Span {
    pub(in crate::decode) fn of(self, text: &str) -> &str {
        &text[self.start..self.end]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) struct SyntaxError {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid JSON at byte {}: {}", self.at, self.what)
    }
}

type Result<T> = std::result::Result<T, SyntaxError>;

#[derive(Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Scanner<'a> {
    /// `bytes` are those of a `str`.
    pub(super) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), at: 0 }
    }

    pub(super) fn fail<T>(&self, what: &'static str) -> Result<T> {
        Err(SyntaxError {
            at: self.at,
            what: if self.at >= self.bytes.len() { "the text ends too early" } else { what },
        })
    }

    /// The next byte that is not blank, without taking it; 0 at the end.
    #[inline]
    pub(super) fn peek(&mut self) -> u8 {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return *byte,
                None => return 0,
            }
        }
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Result<()> {
        if self.peek() == byte {
            self.at += 1;
            Ok(())
        } else {
            self.fail(what)
        }
    }

    /// Nothing but blanks may follow.
    pub(super) fn end(&mut self) -> Result<()> {
        self.peek();
        if self.at == self.bytes.len() { Ok(()) } else { self.fail("more text after the value") }
    }

    /// After a member or element: true when another follows, false when `close` ended the container.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Result<bool> {
        match self.peek() {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            byte if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => self.fail("expected a comma or the end of the object or array"),
        }
    }

    /// Takes an opening bracket; true when the container closes at once.
    #[inline]
    pub(super) fn open(&mut self, close: u8) -> bool {
        self.at += 1;
        let is_empty = self.peek() == close;
        self.at += usize::from(is_empty);
        is_empty
    }

    /// A member's name and the colon after it.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Span> {
        if self.peek() != b'"' {
            return self.fail("expected a member name in double quotes");
        }
        let key = self.string()?;
        self.expect(b':', "expected a colon after the member name")?;
        Ok(key)
    }

    /// Any value, `depth` containers deep.
    #[inline]
    pub(super) fn value(&mut self, depth: u32) -> Result<Span> {
        match self.peek() {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b'{' | b'[' => self.container(depth),
            b't' => self.word("true", Kind::True),
            b'f' => self.word("false", Kind::False),
            b'n' => self.word("null", Kind::Null),
            _ => self.fail("expected a value"),
        }
    }

    fn word(&mut self, word: &'static str, kind: Kind) -> Result<Span> {
        let start = self.at;
        let end = start + word.len();
        if self.bytes.get(start..end) != Some(word.as_bytes()) {
            return Err(SyntaxError { at: start, what: "expected a value" });
        }
        self.at = end;
        Ok(Span { kind, start, end })
    }

    #[inline]
    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.at - start
    }

    #[inline]
    fn number(&mut self) -> Result<Span> {
        let start = self.at;
        if self.bytes[start] == b'-' {
            self.at += 1;
        }
        let first = self.at;
        let count = self.digits();
        if count == 0 {
            return self.fail("expected a digit");
        }
        if count > 1 && self.bytes[first] == b'0' {
            return Err(SyntaxError { at: first, what: "a number does not begin with 0" });
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return self.fail("expected a digit after the decimal point");
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return self.fail("expected a digit in the exponent");
            }
        }
        Ok(Span { kind: Kind::Number, start, end: self.at })
    }

    /// A string; the scanner stands on its opening quote.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Span> {
        let start = self.at;
        let mut kind = Kind::PlainString;
        self.at += 1;
        loop {
            self.plain_run();
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Span { kind, start, end: self.at });
                }
                Some(b'\\') => {
                    kind = Kind::EscapedString;
                    self.escape()?;
                }
                Some(_) => return self.fail("a control character inside a string"),
                None => return self.fail(""),
            }
        }
    }

    /// Passes bytes that stand for themselves, up to a quote, a backslash, a control character or the end.
    #[inline]
    fn plain_run(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        // The high bit of each byte that is zero; exact for the lowest such byte, which is the one asked for.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        while let Some(chunk) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_le_bytes(*chunk);
            let below_blank = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
            let found = zeros(word ^ (ONES * b'"' as u64)) | zeros(word ^ (ONES * b'\\' as u64)) | below_blank;
            if found != 0 {
                self.at += (found.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while let Some(byte) = self.bytes.get(self.at) {
            if matches!(byte, b'"' | b'\\' | 0..0x20) {
                return;
            }
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<()> {
        self.at += 1;
        match self.bytes.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    match self.bytes.get(self.at) {
                        Some(byte) if byte.is_ascii_hexdigit() => self.at += 1,
                        _ => return self.fail("expected four hexadecimal digits after \\u"),
                    }
                }
            }
            _ => return self.fail("an escape that JSON does not have"),
        }
        Ok(())
    }

    /// An object or array with all that is in it; the scanner stands on its bracket.
    fn container(&mut self, depth: u32) -> Result<Span> {
        let start = self.at;
        let kind = if self.bytes[start] == b'{' { Kind::Object } else { Kind::Array };
        // One bit for each open container, the innermost lowest: 1 for an object.
        let mut open: u128 = 0;
        let mut count = 0;
        loop {
            // Stands before a value.
            let byte = self.peek();
            if matches!(byte, b'{' | b'[') {
                if depth + count >= DEPTH_MAX {
                    return self.fail("nested more than 128 deep");
                }
                let is_object = byte == b'{';
                if !self.open(if is_object { b'}' } else { b']' }) {
                    open = open << 1 | u128::from(is_object);
                    count += 1;
                    if is_object {
                        self.key()?;
                    }
                    continue;
                }
            } else {
                self.value(depth)?;
            }
            // Stands after a value.
            loop {
                if count == 0 {
                    return Ok(Span { kind, start, end: self.at });
                }
                let is_object = open & 1 == 1;
                if self.more(if is_object { b'}' } else { b']' })? {
                    if is_object {
                        self.key()?;
                    }
                    break;
                }
                open >>= 1;
                count -= 1;
            }
        }
    }
}
