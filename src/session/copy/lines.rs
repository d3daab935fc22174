//! Rows of the text and CSV formats, cut out of a stream of bytes that comes in pieces of any size.

use bytes::{Buf, BytesMut};

use super::options::{Format, Options};
use crate::session::error::{Result, SqlError, state};

/// Bytes of one row.
pub const ROW_BYTES_MAX: usize = 256 << 20;

/// One field: `None` is NULL.
pub type Fields = Vec<Option<Vec<u8>>>;

/// What comes next in the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Row(Fields),
    /// More bytes are needed.
    More,
    /// The end mark `\.`: what comes after it is not data.
    End,
}

/// Cuts rows. Keeps what is no whole row yet.
#[derive(Debug)]
pub struct Lines {
    options: Options,
    buffer: BytesMut,
    /// Bytes of the buffer known to hold no end of the row, and whether they end inside quotes (CSV).
    scanned: usize,
    in_quotes: bool,
    /// The line the last row began at, from 1.
    pub line: u64,
    next_line: u64,
    ended: bool,
}

impl Lines {
    pub fn new(options: Options) -> Self {
        Self { options, buffer: BytesMut::new(), scanned: 0, in_quotes: false, line: 0, next_line: 1, ended: false }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if !self.ended {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// `last`: no more bytes will come, so what is left is a row.
    pub fn next(&mut self, last: bool) -> Result<Next> {
        if self.ended {
            return Ok(Next::End);
        }
        let Some(end) = self.end_of_row() else {
            if self.buffer.len() > ROW_BYTES_MAX {
                return Err(SqlError::new(
                    state::PROGRAM_LIMIT_EXCEEDED,
                    format!("a row of COPY is longer than {ROW_BYTES_MAX} bytes"),
                ));
            }
            if !last || self.buffer.is_empty() {
                return Ok(Next::More);
            }
            self.line = self.next_line;
            if self.in_quotes {
                return Err(SqlError::new(state::BAD_COPY_FILE_FORMAT, "unterminated CSV quoted field"));
            }
            let row = self.buffer.split().freeze();
            self.scanned = 0;
            return self.row(&row);
        };
        self.line = self.next_line;
        let row = self.buffer.split_to(end).freeze();
        self.buffer.advance(1);
        self.scanned = 0;
        self.next_line += 1 + row.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.row(&row)
    }

    fn row(&mut self, row: &[u8]) -> Result<Next> {
        let row = row.strip_suffix(b"\r").unwrap_or(row);
        if row == b"\\." {
            self.ended = true;
            self.buffer.clear();
            return Ok(Next::End);
        }
        Ok(Next::Row(match self.options.format {
            Format::Csv => self.csv(row)?,
            _ => self.text(row)?,
        }))
    }

    /// The newline that ends the first row of the buffer.
    fn end_of_row(&mut self) -> Option<usize> {
        if self.options.format != Format::Csv {
            let mut from = self.scanned;
            while let Some(at) = self.buffer[from..].iter().position(|byte| *byte == b'\n') {
                let at = from + at;
                let backslashes = self.buffer[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                // A newline after a backslash is data.
                if backslashes % 2 == 0 {
                    return Some(at);
                }
                from = at + 1;
            }
            self.scanned = self.buffer.len();
            return None;
        }
        let (quote, escape) = (self.options.quote, self.options.escape);
        let mut at = self.scanned;
        while at < self.buffer.len() {
            let byte = self.buffer[at];
            if self.in_quotes && byte == escape && escape != quote {
                // The escaped byte is looked at together with its escape.
                if at + 1 == self.buffer.len() {
                    break;
                }
                at += 1;
            } else if byte == quote {
                self.in_quotes = !self.in_quotes;
            } else if byte == b'\n' && !self.in_quotes {
                return Some(at);
            }
            at += 1;
        }
        self.scanned = at;
        None
    }

    fn text(&self, row: &[u8]) -> Result<Fields> {
        let mut fields = Vec::new();
        let mut start = 0;
        let mut at = 0;
        loop {
            if at < row.len() && row[at] == b'\\' {
                at += 2;
                continue;
            }
            if at >= row.len() || row[at] == self.options.delimiter {
                let raw = &row[start..at.min(row.len())];
                fields.push((raw != self.options.null.as_bytes()).then(|| unescaped(raw)));
                if at >= row.len() {
                    return Ok(fields);
                }
                start = at + 1;
            }
            at += 1;
        }
    }

    fn csv(&self, row: &[u8]) -> Result<Fields> {
        let Options { quote, escape, delimiter, .. } = self.options;
        let mut fields = Vec::new();
        let mut value = Vec::new();
        let mut in_quotes = false;
        let mut was_quoted = false;
        let mut bytes = row.iter().copied().peekable();
        loop {
            let byte = bytes.next();
            match byte {
                Some(byte) if in_quotes => {
                    let escapes = byte == escape && bytes.peek().is_some_and(|next| *next == quote || *next == escape);
                    if escapes {
                        value.extend(bytes.next());
                    } else if byte == quote {
                        in_quotes = false;
                    } else {
                        value.push(byte);
                    }
                }
                Some(byte) if byte == quote => {
                    in_quotes = true;
                    was_quoted = true;
                }
                Some(byte) if byte != delimiter => value.push(byte),
                _ => {
                    if in_quotes {
                        return Err(SqlError::new(state::BAD_COPY_FILE_FORMAT, "unterminated CSV quoted field"));
                    }
                    // Quotes make an empty string of what would be NULL; FORCE_NULL and FORCE_NOT_NULL are for the reader.
                    let value = std::mem::take(&mut value);
                    let is_null = !was_quoted && value == self.options.null.as_bytes();
                    fields.push((!is_null).then_some(value));
                    was_quoted = false;
                    if byte.is_none() {
                        return Ok(fields);
                    }
                }
            }
        }
    }
}

/// Backslash escapes of the text format.
fn unescaped(raw: &[u8]) -> Vec<u8> {
    if !raw.contains(&b'\\') {
        return raw.to_vec();
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let digit = |byte: u8, radix| (byte as char).to_digit(radix);
        match bytes.next() {
            None => out.push(b'\\'),
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'v') => out.push(11),
            Some(first @ b'0'..=b'7') => {
                let mut value = u32::from(first - b'0');
                for _ in 0..2 {
                    let Some(next) = bytes.peek().and_then(|byte| digit(*byte, 8)) else { break };
                    value = value * 8 + next;
                    bytes.next();
                }
                out.push(value as u8);
            }
            Some(b'x') if bytes.peek().is_some_and(|byte| digit(*byte, 16).is_some()) => {
                let mut value = 0;
                for _ in 0..2 {
                    let Some(next) = bytes.peek().and_then(|byte| digit(*byte, 16)) else { break };
                    value = value * 16 + next;
                    bytes.next();
                }
                out.push(value as u8);
            }
            Some(other) => out.push(other),
        }
    }
    out
}
