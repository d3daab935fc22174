//! The head section of an encoded column: the parameters of its encoding and, depth first, of the columns inside it.
//!
//! All numbers are little-endian. The bytes are described in `storage/README.md`, "Column encodings".

use arrow::buffer::Buffer;

use crate::{Error, Result};

/// Sections of one column at most: a head, and what the deepest encoding (a list of dictionary runs) takes.
pub const SECTIONS_MAX: usize = 24;

/// The bytes contradict the format. The path is not known here; whoever opened the file adds it ([`Error::at`]).
pub(crate) fn corrupt(what: impl Into<String>, expected: impl ToString, found: impl ToString) -> Error {
    Error::corrupt("", what, expected, found)
}

/// Collects the head and the data sections of a column.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    head: Vec<u8>,
    sections: Vec<Vec<u8>>,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.head.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.head.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn section(&mut self, bytes: Vec<u8>) {
        self.sections.push(bytes);
    }

    /// The bytes that this column takes on disk, padding aside.
    pub(crate) fn bytes(&self) -> usize {
        self.head.len() + self.sections.iter().map(Vec::len).sum::<usize>()
    }

    pub(crate) fn head(&mut self) -> &mut [u8] {
        &mut self.head
    }

    pub(crate) fn sections(&self) -> &[Vec<u8>] {
        &self.sections
    }

    /// Puts another section in the place of the one at an index.
    pub(crate) fn replace_section(&mut self, index: usize, section: Vec<u8>) {
        self.sections[index] = section;
    }

    /// Puts `inner` behind what was written so far.
    pub(crate) fn append(&mut self, inner: Self) {
        self.head.extend(inner.head);
        self.sections.extend(inner.sections);
    }

    /// The head first, then the data sections in order.
    pub(crate) fn finish(self) -> Vec<Vec<u8>> {
        let mut sections = vec![self.head];
        sections.extend(self.sections);
        sections
    }
}

/// Reads what a [`Writer`] wrote, trusting nothing.
#[derive(Debug)]
pub(crate) struct Reader {
    head: Buffer,
    at: usize,
    sections: std::vec::IntoIter<Buffer>,
}

impl Reader {
    pub(crate) fn new(sections: Vec<Buffer>) -> Result<Self> {
        if sections.len() > SECTIONS_MAX {
            return Err(corrupt("column", format!("at most {SECTIONS_MAX} sections"), sections.len()));
        }
        let mut sections = sections.into_iter();
        let head = sections.next().ok_or_else(|| corrupt("column", "a head section", "no sections"))?;
        Ok(Self { head, at: 0, sections })
    }

    fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self.head.as_slice().get(self.at..).and_then(|rest| rest.first_chunk::<N>()).ok_or_else(|| {
            corrupt(
                format!("column head, {what}"),
                format!("{N} bytes at {}", self.at),
                format!("{} bytes in all", self.head.len()),
            )
        })?;
        self.at += N;
        Ok(*bytes)
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8> {
        self.take::<1>(what).map(|bytes| bytes[0])
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32> {
        self.take(what).map(u32::from_le_bytes)
    }

    pub(crate) fn section(&mut self, what: &str) -> Result<Buffer> {
        self.sections.next().ok_or_else(|| corrupt(what, "a section", "no more sections"))
    }

    /// The next section, which must have exactly `bytes` bytes.
    pub(crate) fn section_of(&mut self, what: &str, bytes: u64) -> Result<Buffer> {
        let section = self.section(what)?;
        if section.len() as u64 != bytes {
            return Err(corrupt(what, format!("{bytes} bytes"), section.len()));
        }
        Ok(section)
    }

    /// After the last column: nothing may be left over.
    pub(crate) fn finish(self) -> Result<()> {
        let (head, sections) = (self.head.len() - self.at, self.sections.len());
        if head != 0 || sections != 0 {
            return Err(corrupt("column", "nothing after its last part", format!("{head} bytes, {sections} sections")));
        }
        Ok(())
    }
}

/// `buffer` if its start is aligned for `T`, else a copy that is. Sections of a mapped file are aligned; other callers' may not be.
pub(crate) fn aligned<T>(buffer: Buffer) -> Buffer {
    if buffer.as_ptr().align_offset(align_of::<T>()) == 0 { buffer } else { Buffer::from_slice_ref(buffer.as_slice()) }
}
