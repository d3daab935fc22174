//! Tuples of the binary format, cut out of a stream of bytes that comes in pieces of any size.

use bytes::{Buf, Bytes, BytesMut};

use crate::session::error::{Result, SqlError, state};

pub const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
const FIELD_BYTES_MAX: usize = 256 << 20;
const EXTENSION_BYTES_MAX: usize = 1 << 20;

/// Cuts tuples.
#[derive(Debug, Default)]
pub struct Tuples {
    buffer: BytesMut,
    has_header: bool,
    ended: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Tuple(Vec<Option<Bytes>>),
    More,
    End,
}

fn wrong(message: &str) -> SqlError {
    SqlError::new(state::BAD_COPY_FILE_FORMAT, message)
}

impl Tuples {
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.ended {
            return if bytes.is_empty() { Ok(()) } else { Err(wrong("received copy data after EOF marker")) };
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next tuple of `columns` fields.
    pub fn next(&mut self, columns: usize) -> Result<Next> {
        if self.ended {
            return Ok(Next::End);
        }
        if !self.has_header {
            let known = self.buffer.len().min(SIGNATURE.len());
            if self.buffer[..known] != SIGNATURE[..known] {
                return Err(wrong("COPY file signature not recognized"));
            }
            if self.buffer.len() < SIGNATURE.len() + 8 {
                return Ok(Next::More);
            }
            let mut rest = &self.buffer[SIGNATURE.len()..];
            let flags = rest.get_u32();
            if flags & 0xffff_0000 != 0 {
                return Err(wrong("unrecognized critical flags in COPY file header"));
            }
            let extension = rest.get_u32() as usize;
            if extension > EXTENSION_BYTES_MAX {
                return Err(wrong("invalid COPY file header (wrong length)"));
            }
            if rest.len() < extension {
                return Ok(Next::More);
            }
            self.buffer.advance(SIGNATURE.len() + 8 + extension);
            self.has_header = true;
        }
        // First looked through, then taken, so that half a tuple stays where it is.
        let mut rest = &self.buffer[..];
        if rest.len() < 2 {
            return Ok(Next::More);
        }
        let count = rest.get_i16();
        if count == -1 {
            self.ended = true;
            return if rest.is_empty() { Ok(Next::End) } else { Err(wrong("received copy data after EOF marker")) };
        }
        if usize::try_from(count).ok() != Some(columns) {
            return Err(wrong(&format!("row field count is {count}, expected {columns}")));
        }
        let mut total = 2;
        for _ in 0..columns {
            if rest.len() < 4 {
                return Ok(Next::More);
            }
            let length = rest.get_i32();
            total += 4;
            if length == -1 {
                continue;
            }
            let length = usize::try_from(length).ok().filter(|length| *length <= FIELD_BYTES_MAX);
            let length = length.ok_or_else(|| wrong("invalid field size"))?;
            if rest.len() < length {
                return Ok(Next::More);
            }
            rest.advance(length);
            total += length;
        }
        let mut tuple = self.buffer.split_to(total).freeze();
        tuple.advance(2);
        let fields = (0..columns)
            .map(|_| match tuple.get_i32() {
                -1 => None,
                length => Some(tuple.split_to(length as usize)),
            })
            .collect();
        Ok(Next::Tuple(fields))
    }

    /// Whether the stream may end here: PostgreSQL's end mark may be missing, half a tuple may not be there.
    pub fn finish(&self) -> Result<()> {
        if self.ended || (self.has_header && self.buffer.is_empty()) {
            Ok(())
        } else {
            Err(wrong("unexpected EOF in COPY data"))
        }
    }
}
