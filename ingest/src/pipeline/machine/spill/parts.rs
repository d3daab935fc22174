//! Which part of the hashes a group is in.

use arrow::{
    array::{ArrayRef, AsArray, UInt32Array},
    datatypes::{DataType as ArrowType, Float32Type, Float64Type, SchemaRef},
    row::{RowConverter, SortField},
};
use datafusion::common::DataFusionError;
use std::sync::Arc;

use super::{super::groups::Dump, Share};

type Result<T> = std::result::Result<T, DataFusionError>;

/// Rows whose keys are made bytes at a time.
const ROWS: usize = 64 << 10;

/// Hashes of keys, the same in every process: files are parted by them.
pub(crate) struct Parting {
    keys: RowConverter,
    /// Whether the bytes of keys are those that rows of them have elsewhere.
    is_plain: bool,
}

/// Groups by their parts.
pub(crate) struct Parted {
    dump: Dump,
    /// Rows, those of one part behind those of the one before, each in their order.
    order: UInt32Array,
    /// Where parts begin, and where the last one ends.
    bounds: Vec<usize>,
}

/// The part that a hash is in, of 2^bits.
pub(crate) fn part_of(hash: u32, bits: u8) -> usize {
    (u64::from(hash) >> (32 - u32::from(bits))) as usize
}

/// The hash of a key, which is a row's bytes.
pub(crate) fn hash_of(key: &[u8]) -> u32 {
    // A checksum of numbers that follow one another differs in few bits.
    crc32c::crc32c(key).wrapping_mul(0x9E37_79B1)
}

impl Parting {
    pub(crate) fn new(keys: &SchemaRef) -> Result<Self> {
        let fields = keys.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let is_float = |data_type: &ArrowType| matches!(data_type, ArrowType::Float32 | ArrowType::Float64);
        let is_plain = !keys.fields().iter().any(|field| is_float(field.data_type()));
        Ok(Self { keys: RowConverter::new(fields.collect())?, is_plain })
    }

    /// Whether the bytes of keys are those that rows of them have elsewhere.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    pub(crate) fn hashes(&self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let mut hashes = Vec::with_capacity(rows);
        for from in (0..rows).step_by(ROWS) {
            let some: Vec<ArrayRef> =
                keys.iter().map(|column| plain(&column.slice(from, ROWS.min(rows - from)))).collect();
            let rows = self.keys.convert_columns(&some)?;
            hashes.extend(rows.iter().map(|row| hash_of(row.as_ref())));
        }
        Ok(hashes)
    }

    /// The parts of 2^bits that have one of these keys, which are rows' bytes.
    pub(crate) fn parts_with<'a>(&self, keys: impl Iterator<Item = &'a [u8]>, bits: u8) -> Vec<bool> {
        let mut parts = vec![!self.is_plain; 1 << bits];
        keys.for_each(|key| parts[part_of(hash_of(key), bits)] = true);
        parts
    }

    /// The groups that count.
    pub(super) fn only(&self, dump: Dump, share: Share) -> Result<Option<Dump>> {
        let hashes = self.hashes(&dump.keys, dump.groups)?;
        let rows: UInt32Array =
            (0u32..).zip(hashes).filter_map(|(row, hash)| share.has(hash).then_some(row)).collect::<Vec<_>>().into();
        match rows.len() {
            0 => Ok(None),
            groups if groups == dump.groups => Ok(Some(dump)),
            _ => dump.take(&rows).map(Some),
        }
    }

    /// Groups by the parts from `first` on, `count` of 2^bits; all of them are in these.
    pub(crate) fn part(&self, dump: Dump, bits: u8, first: usize, count: usize) -> Result<Parted> {
        let hashes = self.hashes(&dump.keys, dump.groups)?;
        let mut bounds = vec![0; count + 1];
        let parts: Vec<usize> = hashes.iter().map(|hash| part_of(*hash, bits)).collect();
        for part in &parts {
            let at = part.checked_sub(first).filter(|at| *at < count);
            bounds[at.ok_or_else(|| super::super::foreign("a group among those of other hashes"))? + 1] += 1;
        }
        for at in 0..count {
            bounds[at + 1] += bounds[at];
        }
        let (mut next, mut order) = (bounds.clone(), vec![0; parts.len()]);
        for (row, part) in (0u32..).zip(&parts) {
            let place = &mut next[part - first];
            order[*place] = row;
            *place += 1;
        }
        Ok(Parted { dump, order: order.into(), bounds })
    }
}

impl Parted {
    /// The groups of a part, counted from the first; `None` without any.
    pub(crate) fn get(&self, part: usize) -> Result<Option<Dump>> {
        let groups = self.bounds[part + 1] - self.bounds[part];
        if groups == 0 {
            return Ok(None);
        }
        if groups == self.dump.groups {
            return Ok(Some(self.dump.clone()));
        }
        self.dump.take(&self.order.slice(self.bounds[part], groups)).map(Some)
    }
}

/// Numbers that are one key have the same bytes.
fn plain(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        ArrowType::Float64 => {
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        ArrowType::Float32 => {
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        _ => Arc::clone(column),
    }
}
