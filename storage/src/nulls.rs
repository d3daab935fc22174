//! Which rows of a column are null: a roaring bitmap of the null rows in the portable serialisation, there only when a column has
//! some of both kinds. (A column without nulls has no such section; one of nothing but nulls is an encoding of its own.)
//!
//! In memory the bitmap is expanded once, at its first use, to one bit per row, so that the null buffer of any run of rows
//! is a slice of it.

use std::{ops::Range, sync::OnceLock};

use arrow::{
    array::{Array, ArrayRef},
    buffer::{BooleanBuffer, Buffer, NullBuffer},
};
use roaring::RoaringBitmap;

use crate::{Error, Result, forward::format::corrupt};

/// The bitmap of the null rows of consecutive chunks; `None` when there are none.
pub(crate) fn encode(chunks: &[ArrayRef]) -> Result<Option<Vec<u8>>> {
    let mut bitmap = RoaringBitmap::new();
    let mut start = 0u32;
    for chunk in chunks {
        if let Some(nulls) = chunk.nulls().filter(|nulls| nulls.null_count() > 0) {
            let rows = (!nulls.inner()).set_indices_u32().map(|row| start + row).collect::<Vec<_>>();
            bitmap.append(rows).map_err(|error| Error::Invalid(format!("null rows out of order: {error}")))?;
        }
        start += chunk.len() as u32;
    }
    if bitmap.is_empty() {
        return Ok(None);
    }
    bitmap.optimize();
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    bitmap.serialize_into(&mut bytes).map_err(|error| Error::io("serialise null rows", "", &error))?;
    Ok(Some(bytes))
}

/// The null rows of a column that has some.
#[derive(Debug)]
pub(crate) struct Nulls {
    rows: u32,
    bitmap: RoaringBitmap,
    valid: OnceLock<BooleanBuffer>,
}

impl Nulls {
    pub(crate) fn open(section: &Buffer, rows: u32) -> Result<Self> {
        let mut bytes = section.as_slice();
        let bitmap = RoaringBitmap::deserialize_from(&mut bytes)
            .map_err(|error| corrupt("null rows", "a roaring bitmap", error))?;
        if !bytes.is_empty() {
            return Err(corrupt("null rows", "nothing after the bitmap", format!("{} bytes", bytes.len())));
        }
        if let Some(last) = bitmap.max().filter(|last| *last >= rows) {
            return Err(corrupt("null rows", format!("rows below {rows}"), last));
        }
        Ok(Self { rows, bitmap, valid: OnceLock::new() })
    }

    pub(crate) fn count(&self) -> u64 {
        self.bitmap.len()
    }

    /// Whether no row behind a null one has a value.
    pub(crate) fn are_last(&self) -> bool {
        self.bitmap.min().is_none_or(|first| u64::from(self.rows - first) == self.bitmap.len())
    }

    fn valid(&self) -> &BooleanBuffer {
        self.valid.get_or_init(|| {
            let mut words = vec![u64::MAX; (self.rows as usize).div_ceil(64)];
            for row in &self.bitmap {
                words[row as usize / 64] &= !(1 << (row % 64));
            }
            BooleanBuffer::new(Buffer::from_vec(words), 0, self.rows as usize)
        })
    }

    /// One bit per row of the range, set where the row is not null.
    pub(crate) fn valid_range(&self, rows: Range<usize>) -> BooleanBuffer {
        self.valid().slice(rows.start, rows.len())
    }

    /// The null buffer of the range; `None` when no row of it is null.
    pub(crate) fn range(&self, rows: Range<usize>) -> Option<NullBuffer> {
        Some(NullBuffer::new(self.valid_range(rows))).filter(|nulls| nulls.null_count() > 0)
    }
}
