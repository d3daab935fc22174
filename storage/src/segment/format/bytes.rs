//! Little-endian writing, and reading that trusts nothing.

use std::path::Path;

use crate::{Error, Result};

/// Grows a byte string, field by field.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) out: Vec<u8>,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i128(&mut self, value: i128) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Length as u32, then the bytes.
    pub(crate) fn bytes(&mut self, value: &[u8]) -> Result<()> {
        let length = u32::try_from(value.len())
            .map_err(|_| Error::Invalid(format!("{} bytes are too many for a footer field", value.len())))?;
        self.u32(length);
        self.out.extend_from_slice(value);
        Ok(())
    }
}

/// Takes fields off the front of a byte string. Each error names the field and its position in the file.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    path: &'a Path,
    rest: &'a [u8],
    /// Position in the file of the first byte of `rest`.
    position: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(path: &'a Path, bytes: &'a [u8], position: u64) -> Self {
        Self { path, rest: bytes, position }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn corrupt(&self, field: &str, expected: impl ToString, found: impl ToString) -> Error {
        Error::corrupt(self.path, format!("footer, {field} (before byte {})", self.position), expected, found)
    }

    pub(crate) fn take(&mut self, length: usize, field: &str) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| self.corrupt(field, format!("{length} more bytes"), format!("{} bytes", self.rest.len())))?;
        self.rest = rest;
        self.position += length as u64;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, field)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self, field: &str) -> Result<u8> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &str) -> Result<u16> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &str) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &str) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self, field: &str) -> Result<i64> {
        self.array(field).map(i64::from_le_bytes)
    }

    pub(crate) fn i128(&mut self, field: &str) -> Result<i128> {
        self.array(field).map(i128::from_le_bytes)
    }

    /// A byte that is 0 or 1.
    pub(crate) fn flag(&mut self, field: &str) -> Result<bool> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.corrupt(field, "0 or 1", other)),
        }
    }

    /// A count of things of which each takes at least `each` bytes: so never more than the rest can hold.
    pub(crate) fn count(&mut self, each: usize, field: &str) -> Result<usize> {
        let count = self.u32(field)? as usize;
        let most = self.rest.len() / each.max(1);
        if count > most { Err(self.corrupt(field, format!("at most {most}"), count)) } else { Ok(count) }
    }

    pub(crate) fn bytes(&mut self, field: &str) -> Result<&'a [u8]> {
        let length = self.u32(field)? as usize;
        self.take(length, field)
    }

    pub(crate) fn text(&mut self, field: &str) -> Result<&'a str> {
        let bytes = self.bytes(field)?;
        std::str::from_utf8(bytes).map_err(|error| self.corrupt(field, "UTF-8", error))
    }
}
