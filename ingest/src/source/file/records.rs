//! Lines and CSV records of a file, one after the other, with their numbers as offsets.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use super::{object::text, unfit, unreadable};
use crate::{Error, Result};

/// Most bytes of one record: a stray quote must not read a whole file into memory.
const RECORD_BYTES_MAX: usize = 64 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How records end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    /// Delimiter and quote of CSV; without them a record is a line.
    pub(super) quoting: Option<(u8, u8)>,
    /// Names that each file must begin with; the first record is no data then.
    pub(super) header: Option<Vec<String>>,
}

pub(super) struct Records {
    path: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    quoting: Option<(u8, u8)>,
    /// Number of the next record.
    next: u64,
    record: Vec<u8>,
}

impl Records {
    /// Goes to record `offset`. Fails when the file has another header, or fewer records.
    pub(super) fn open(path: &Path, dialect: &Dialect, offset: u64) -> Result<Self> {
        let mut records = Self::begin(path, dialect.quoting)?;
        if let (Some(wanted), Some((delimiter, quote))) = (&dialect.header, dialect.quoting) {
            let found = records.names(delimiter, quote)?;
            if found != *wanted {
                return Err(unfit(
                    path,
                    format_args!("its header is {}, but the first file's is {}", found.join(","), wanted.join(",")),
                    Some("all CSV files of a source have the same header"),
                ));
            }
        }
        while records.next < offset {
            if !records.advance()? {
                let reason = format!("it has {} records, but {offset} is the next to read", records.next);
                return Err(unfit(path, reason, Some("it became shorter since it was read")));
            }
        }
        Ok(records)
    }

    /// Hands over records until `max_records` or `max_bytes` is reached or the file ends; the offset after the last one. Empty lines are
    /// counted and left out.
    pub(super) fn read(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        mut take: impl FnMut(u64, &[u8]),
    ) -> Result<u64> {
        let max_bytes = max_bytes.min(1 << 30);
        let (mut records, mut bytes) = (0, 0);
        while records < max_records && bytes < max_bytes {
            let offset = self.next;
            if !self.advance()? {
                break;
            }
            records += 1;
            if !self.record.iter().all(u8::is_ascii_whitespace) {
                bytes += self.record.len();
                take(offset, &self.record);
            }
        }
        Ok(self.next)
    }

    /// Records up to the end of the file, those before included.
    pub(super) fn count(mut self) -> Result<u64> {
        while self.advance()? {}
        Ok(self.next)
    }

    fn begin(path: &Path, quoting: Option<(u8, u8)>) -> Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 18, text(path)?);
        let start = reader.fill_buf().map_err(|error| unreadable("reading file", path, &error))?;
        if start.starts_with(BYTE_ORDER_MARK) {
            reader.consume(BYTE_ORDER_MARK.len());
        }
        Ok(Self { path: path.to_owned(), reader, quoting, next: 0, record: Vec::new() })
    }

    /// The names of the first record, which is no data.
    fn names(&mut self, delimiter: u8, quote: u8) -> Result<Vec<String>> {
        if !self.advance()? {
            return Err(unfit(&self.path, "it is empty, but should begin with a header", None));
        }
        self.next = 0;
        let names = split(&self.record, delimiter, quote);
        String::from_utf8(self.record.clone()).map_err(|_| unfit(&self.path, "its header is not UTF-8", None))?;
        Ok(names)
    }

    /// Reads the next record into `record`, without its line end; false at the end of the file.
    fn advance(&mut self) -> Result<bool> {
        self.record.clear();
        let mut quotes = self.quoting.map(|(delimiter, quote)| Quotes { delimiter, quote, state: State::FieldStart });
        loop {
            let start = self.record.len();
            let room = (RECORD_BYTES_MAX + 1).saturating_sub(start) as u64;
            let read = (&mut self.reader).take(room).read_until(b'\n', &mut self.record);
            let read = read.map_err(|error| unreadable("reading file", &self.path, &error))?;
            if self.record.len() > RECORD_BYTES_MAX {
                return Err(self.too_long());
            }
            if read == 0 {
                if start == 0 {
                    return Ok(false);
                }
                break;
            }
            let open = quotes.as_mut().is_some_and(|quotes| quotes.open_after(&self.record[start..]));
            if !open {
                break;
            }
        }
        if self.record.ends_with(b"\n") {
            self.record.pop();
            if self.record.ends_with(b"\r") {
                self.record.pop();
            }
        }
        self.next += 1;
        Ok(true)
    }

    fn too_long(&self) -> Error {
        let reason = format!("record {} is longer than {RECORD_BYTES_MAX} bytes", self.next);
        let hint = self.quoting.map(|_| "is a quote missing before it?");
        unfit(&self.path, reason, hint)
    }
}

/// The header of a CSV file.
pub(super) fn header(path: &Path, delimiter: u8, quote: u8) -> Result<Vec<String>> {
    Records::begin(path, Some((delimiter, quote)))?.names(delimiter, quote)
}

/// Follows the quotes of a record, which may hide line ends.
struct Quotes {
    delimiter: u8,
    quote: u8,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Bare,
    Quoted,
    /// Behind a quote inside quotes: the end of the field, or half of a doubled quote.
    QuoteInQuoted,
}

impl Quotes {
    /// Whether a quoted field goes on behind `bytes`.
    fn open_after(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            self.state = match (self.state, *byte) {
                (State::Quoted, byte) if byte == self.quote => State::QuoteInQuoted,
                (State::Quoted, _) => State::Quoted,
                (State::FieldStart | State::QuoteInQuoted, byte) if byte == self.quote => State::Quoted,
                (_, byte) if byte == self.delimiter => State::FieldStart,
                _ => State::Bare,
            };
        }
        self.state == State::Quoted
    }
}

fn split(record: &[u8], delimiter: u8, quote: u8) -> Vec<String> {
    let mut quotes = Quotes { delimiter, quote, state: State::FieldStart };
    let mut fields = vec![Vec::new()];
    for byte in record {
        let before = quotes.state;
        quotes.open_after(&[*byte]);
        match (before, quotes.state) {
            (_, State::FieldStart) => fields.push(Vec::new()),
            // Quotes themselves, the second of a doubled one excepted.
            (State::FieldStart, State::Quoted) | (State::Quoted, State::QuoteInQuoted) => {}
            _ => fields.last_mut().into_iter().for_each(|field| field.push(*byte)),
        }
    }
    fields.into_iter().map(|field| String::from_utf8_lossy(&field).trim().to_owned()).collect()
}
