//! Rows listed by key: the heart of inverted indexes, and of ranges over dictionaries.
//!
//! ```text
//! keys:    0        1     2           3
//! starts:  0        3     4           4      7       packed; where each key's rows begin
//! rows:   [2 9 11] [5]   (common)    [1 3 8]         packed, ascending within a key
//! common:  key 2 → roaring bitmap                    of each key that has more than a 32nd of the rows
//! ```
//!
//! A row costs as many bits as its number has, whatever the number of keys; keys beside each other are one run of rows. A key that is
//! so common that its list would take more than a bit per row is a roaring bitmap instead, where runs of rows cost next to nothing, and all others a bit.

use std::ops::Range;

use arrow::buffer::Buffer;
use roaring::RoaringBitmap;

use super::bits;
use crate::{
    Error, Result,
    bitpack::{Bitmask, PADDING, Packed, pack, width_of},
    forward::format::corrupt,
};

/// A key with more than one in this many rows is common.
const COMMON_SHARE: u32 = 32;
/// In small segments even that is a short list.
const COMMON_ROWS_MIN: u32 = 128;
/// key u32 · rows u32 · start u32 · length u32
const ENTRY_BYTES: usize = 16;
const HEAD_BYTES: usize = 12;
/// Rows that are unpacked at a time.
const STEP: usize = 1024;

/// The sections of the postings: head, starts, rows, common. `keys_of` has the key of each row, or `keys` where it has none.
pub(super) fn encode(keys_of: &[u32], keys: u32) -> Result<Vec<Vec<u8>>> {
    encode_each(keys_of.len() as u32, keys, |out| {
        keys_of.iter().enumerate().filter(|(_, key)| **key < keys).for_each(|(row, key)| out(row as u32, *key));
    })
}

/// As [`encode`], of rows that have several keys or none: `each` calls with row and key, the rows ascending, each key of a row once. It is asked twice.
pub(super) fn encode_each(rows: u32, keys: u32, each: impl Fn(&mut dyn FnMut(u32, u32))) -> Result<Vec<Vec<u8>>> {
    let mut counts = vec![0u32; keys as usize];
    each(&mut |_, key| counts[key as usize] += 1);
    let is_common = |count: u32| count > (rows / COMMON_SHARE).max(COMMON_ROWS_MIN);
    let mut bitmaps: Vec<(u32, RoaringBitmap)> =
        (0..keys).filter(|key| is_common(counts[*key as usize])).map(|key| (key, RoaringBitmap::new())).collect();
    // Where the next row of each key goes.
    let mut places = Vec::with_capacity(keys as usize);
    let mut listed = 0u32;
    for count in &counts {
        places.push(listed);
        if !is_common(*count) {
            listed += count;
        }
    }
    let mut starts = Vec::new();
    let starts_width = width_of(u64::from(listed));
    pack(places.iter().chain([&listed]).map(|start| u64::from(*start)), starts_width, &mut starts);
    starts.resize(starts.len() + PADDING, 0);

    let mut order = vec![0u32; listed as usize];
    let mut common_rows: Vec<Vec<u32>> = vec![Vec::new(); bitmaps.len()];
    each(&mut |row, key| {
        if is_common(counts[key as usize]) {
            let at = bitmaps.partition_point(|(common, _)| *common < key);
            common_rows[at].push(row);
        } else {
            let place = &mut places[key as usize];
            order[*place as usize] = row;
            *place += 1;
        }
    });
    let mut packed = Vec::new();
    pack(order.iter().map(|row| u64::from(*row)), row_width(rows), &mut packed);
    packed.resize(packed.len() + PADDING, 0);

    let (mut directory, mut data) = (Vec::new(), Vec::new());
    for ((key, bitmap), rows) in bitmaps.iter_mut().zip(&common_rows) {
        bitmap
            .append(rows.iter().copied())
            .map_err(|error| Error::Invalid(format!("rows of a key out of order: {error}")))?;
        bitmap.optimize();
        let start = data.len();
        bitmap.serialize_into(&mut data).map_err(|error| Error::io("serialise rows", "", &error))?;
        for field in [*key, rows.len() as u32, start as u32, (data.len() - start) as u32] {
            directory.extend_from_slice(&field.to_le_bytes());
        }
    }
    let mut head = Vec::with_capacity(HEAD_BYTES);
    for field in [keys, listed, bitmaps.len() as u32] {
        head.extend_from_slice(&field.to_le_bytes());
    }
    directory.extend_from_slice(&data);
    Ok(vec![head, starts, packed, directory])
}

pub(super) fn row_width(rows: u32) -> u8 {
    width_of(u64::from(rows.saturating_sub(1)))
}

/// A key that is a bitmap.
#[derive(Clone, Copy, Debug)]
struct Common {
    key: u32,
    rows: u32,
    start: usize,
    length: usize,
}

#[derive(Debug)]
pub(crate) struct Postings {
    segment_rows: u32,
    keys: u32,
    listed: u32,
    starts: Buffer,
    rows: Buffer,
    /// Ascending by key.
    common: Vec<Common>,
    bitmaps: Buffer,
}

impl Postings {
    /// Opens the sections that [`encode`] made for a segment of `rows` rows.
    pub(super) fn open(sections: &[Buffer], segment_rows: u32) -> Result<Self> {
        let opened = Self::open_lists(sections, segment_rows)?;
        if opened.listed > segment_rows {
            return Err(corrupt("listed rows", format!("at most {segment_rows}"), opened.listed));
        }
        Ok(opened)
    }

    /// As [`Self::open`], of what [`encode_each`] made.
    pub(super) fn open_lists(sections: &[Buffer], segment_rows: u32) -> Result<Self> {
        let [head, starts, rows, bitmaps] = sections else {
            return Err(corrupt("sections of the rows by key", 4, sections.len()));
        };
        if head.len() != HEAD_BYTES {
            return Err(corrupt("head of the rows by key", format!("{HEAD_BYTES} bytes"), head.len()));
        }
        let (keys, listed, count) = (u32_at(head, 0), u32_at(head, 4), u32_at(head, 8) as usize);
        let directory = count.checked_mul(ENTRY_BYTES).filter(|bytes| *bytes <= bitmaps.len());
        let Some(directory) = directory else {
            return Err(corrupt("common keys", format!("room in {} bytes", bitmaps.len()), count));
        };
        let data = bitmaps.slice(directory);
        let mut common: Vec<Common> = Vec::with_capacity(count);
        for at in (0..directory).step_by(ENTRY_BYTES) {
            let field = |index: usize| u32_at(bitmaps, at + index * 4);
            let entry = Common { key: field(0), rows: field(1), start: field(2) as usize, length: field(3) as usize };
            let follows = common.last().is_none_or(|last| last.key < entry.key) && entry.key < keys;
            if !follows || entry.start + entry.length > data.len() || entry.rows > segment_rows {
                return Err(corrupt("common keys", "ascending keys inside the section", format!("{entry:?}")));
            }
            common.push(entry);
        }
        let made =
            Self { segment_rows, keys, listed, starts: starts.clone(), rows: rows.clone(), common, bitmaps: data };
        if made.packed_starts().is_none() {
            return Err(corrupt(
                "starts",
                format!("{} of them", u64::from(keys) + 1),
                format!("{} bytes", starts.len()),
            ));
        }
        if made.packed_rows().is_none() {
            return Err(corrupt("listed rows", listed, format!("{} bytes", rows.len())));
        }
        Ok(made)
    }

    pub(crate) fn keys(&self) -> u32 {
        self.keys
    }

    fn packed_starts(&self) -> Option<Packed<'_>> {
        Packed::new(&self.starts, width_of(u64::from(self.listed)), self.keys as usize + 1)
    }

    fn packed_rows(&self) -> Option<Packed<'_>> {
        Packed::new(&self.rows, row_width(self.segment_rows), self.listed as usize)
    }

    /// Where the lists of the keys lie.
    fn places(&self, keys: &Range<u32>) -> Result<Range<usize>> {
        let starts = self.packed_starts().ok_or_else(gone)?;
        if keys.start > keys.end || keys.end > self.keys {
            return Err(Error::Invalid(format!("keys {keys:?} of {}", self.keys)));
        }
        let (from, to) = (starts.get(keys.start as usize) as usize, starts.get(keys.end as usize) as usize);
        if from > to || to > self.listed as usize {
            return Err(corrupt("starts", format!("ascending to {}", self.listed), format!("{from} and {to}")));
        }
        Ok(from..to)
    }

    fn common_in(&self, keys: &Range<u32>) -> &[Common] {
        let first = self.common.partition_point(|common| common.key < keys.start);
        let last = self.common.partition_point(|common| common.key < keys.end);
        &self.common[first..last.max(first)]
    }

    /// How many of some keys are bitmaps, and the rows of these.
    pub(crate) fn bitmaps(&self, keys: &Range<u32>) -> (u64, u64) {
        let common = self.common_in(keys);
        (common.len() as u64, common.iter().map(|common| u64::from(common.rows)).sum())
    }

    /// Rows of some keys.
    pub(crate) fn count(&self, keys: &Range<u32>) -> Result<u64> {
        Ok(self.places(keys)?.len() as u64 + self.bitmaps(keys).1)
    }

    /// Adds the rows of some keys, as far as they lie in `rows`, to `out`, whose bit 0 is row `base`.
    pub(crate) fn add(&self, keys: Range<u32>, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Result<()> {
        let mut places = self.places(&keys)?;
        let packed = self.packed_rows().ok_or_else(gone)?;
        if keys.len() == 1 {
            // Ascending: only what lies inside is looked at.
            let point = |row: u32| {
                let (mut low, mut high) = (places.start, places.end);
                while low < high {
                    let middle = (low + high) / 2;
                    if packed.get(middle) < u64::from(row) { low = middle + 1 } else { high = middle }
                }
                low
            };
            places = point(rows.start)..point(rows.end);
        }
        add_packed(&packed, places, self.segment_rows, rows, base, out)?;
        for common in self.common_in(&keys) {
            let bytes = &self.bitmaps[common.start..common.start + common.length];
            bits::add(bytes, self.segment_rows, rows, base, out)?;
        }
        Ok(())
    }
}

/// Adds the packed rows at `places`, as far as they lie in `rows`, to `out`, whose bit 0 is row `base`.
pub(super) fn add_packed(
    packed: &Packed<'_>,
    places: Range<usize>,
    segment_rows: u32,
    rows: &Range<u32>,
    base: u32,
    out: &mut Bitmask,
) -> Result<()> {
    let mut buffer = [0u32; STEP];
    let mut largest = 0;
    for from in places.clone().step_by(STEP) {
        let found = &mut buffer[..STEP.min(places.end - from)];
        packed.unpack_u32(from, found);
        for row in found {
            largest = largest.max(*row);
            if rows.contains(row) {
                out.set((*row - base) as usize);
            }
        }
    }
    if largest >= segment_rows && !places.is_empty() {
        return Err(corrupt("listed rows", format!("rows below {segment_rows}"), largest));
    }
    Ok(())
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn gone() -> Error {
    Error::Invalid("invariant: the length of the rows by key was checked when they were opened".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opened(keys_of: &[u32], keys: u32) -> Postings {
        let sections: Vec<Buffer> = encode(keys_of, keys).unwrap().into_iter().map(Buffer::from_vec).collect();
        Postings::open(&sections, keys_of.len() as u32).unwrap()
    }

    proptest! {
        #[test]
        fn each_key_has_its_rows(
            keys_of in prop::collection::vec(prop_oneof![0u32..8, Just(3), 0u32..40], 0..2000),
            picks in prop::collection::vec((0u32..40, 0u32..40, 0u32..2000, 0u32..2000), 1..8),
        ) {
            let keys = 39;
            let postings = opened(&keys_of, keys);
            for (a, b, c, d) in picks {
                let wanted = a.min(b)..a.max(b).min(keys);
                let rows = keys_of.len() as u32;
                let range = c.min(d).min(rows)..c.max(d).min(rows);
                let base = range.start & !63;
                let mut out = Bitmask::none((range.end - base) as usize);
                if wanted.start > wanted.end { continue; }
                postings.add(wanted.clone(), &range, base, &mut out).unwrap();
                let expected: Vec<usize> = (range.start..range.end)
                    .filter(|row| wanted.contains(&keys_of[*row as usize]))
                    .map(|row| (row - base) as usize).collect();
                prop_assert_eq!(out.iter().collect::<Vec<_>>(), expected);
                let count = keys_of.iter().filter(|key| wanted.contains(key)).count() as u64;
                prop_assert_eq!(postings.count(&wanted).unwrap(), count);
            }
        }
    }

    #[test]
    fn a_row_beyond_the_segment_is_an_error() {
        let sections: Vec<Buffer> = encode(&[0, 1, 0, 1, 0], 2).unwrap().into_iter().map(Buffer::from_vec).collect();
        let postings = Postings::open(&sections, 5).unwrap();
        let mut forged = sections.clone();
        forged[2] = Buffer::from_vec(vec![0xff; sections[2].len()]);
        let forged = Postings::open(&forged, 5).unwrap();
        let mut out = Bitmask::none(5);
        assert!(forged.add(0..2, &(0..5), 0, &mut out).is_err());
        assert!(postings.add(0..2, &(0..5), 0, &mut out).is_ok());
        assert!(Postings::open(&sections, 3).is_err());
        assert!(Postings::open(&sections[..3], 5).is_err());
    }
}
