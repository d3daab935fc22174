//! Roaring bitmaps as they lie on disk, added to rows without making them first.
//!
//! The layout is roaring's portable one (https://github.com/RoaringBitmap/RoaringFormatSpec): containers of 65,536 rows each, as the positions
//! that are set, as runs, or as a bit per row. A container of bits goes into a mask 64 rows at a time, whatever the number of rows in it.

use std::ops::Range;

use super::postings::u32_at;
use crate::{Result, bitpack::Bitmask, forward::format::corrupt};

/// Cookies: containers of positions and bits only; with the number of containers, and a bit for each that has runs.
const PLAIN: u32 = 12346;
const WITH_RUNS: u32 = 12347;
/// Bitmaps with runs of fewer containers do not say where each of them lies.
const PLACES_MIN: usize = 4;
/// With more rows than these a container has a bit for each of its rows.
const POSITIONS_MAX: usize = 4096;
/// Rows of a container.
const SPAN: u32 = 1 << 16;

/// Adds the rows of a serialized bitmap, as far as they lie in `rows`, to `out`, whose bit 0 is row `base`, a multiple of 64. Rows at or beyond
/// `segment_rows` are an error.
pub(super) fn add(bitmap: &[u8], segment_rows: u32, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Result<()> {
    let mut rest = Bytes(bitmap);
    let cookie = rest.u32()?;
    let (containers, runs) = match cookie & 0xffff {
        WITH_RUNS => {
            let containers = (cookie >> 16) as usize + 1;
            (containers, rest.take(containers.div_ceil(8))?)
        }
        _ if cookie == PLAIN => (rest.u32()? as usize, &[][..]),
        _ => return Err(corrupt("cookie of a bitmap", format!("{PLAIN} or {WITH_RUNS}"), cookie)),
    };
    let heads = rest.take(containers.saturating_mul(4))?;
    if runs.is_empty() || containers >= PLACES_MIN {
        rest.take(containers.saturating_mul(4))?;
    }
    let mut target = Target { segment_rows, rows, base, out };
    for (at, head) in heads.as_chunks::<4>().0.iter().enumerate() {
        let first = u32::from(u16::from_le_bytes([head[0], head[1]])) * SPAN;
        let count = usize::from(u16::from_le_bytes([head[2], head[3]])) + 1;
        if runs.get(at / 8).is_some_and(|bits| bits >> (at % 8) & 1 == 1) {
            let count = rest.u16()?;
            for run in rest.take(usize::from(count) * 4)?.as_chunks::<4>().0 {
                let start = first + u32::from(u16::from_le_bytes([run[0], run[1]]));
                target.run(start..start.saturating_add(u32::from(u16::from_le_bytes([run[2], run[3]])) + 1))?;
            }
        } else if count <= POSITIONS_MAX {
            for position in rest.take(count * 2)?.as_chunks::<2>().0 {
                target.row(first + u32::from(u16::from_le_bytes(*position)))?;
            }
        } else {
            target.bits(first, rest.take(SPAN as usize / 8)?)?;
        }
    }
    Ok(())
}

/// Where rows go.
struct Target<'a> {
    segment_rows: u32,
    rows: &'a Range<u32>,
    base: u32,
    out: &'a mut Bitmask,
}

impl Target<'_> {
    fn row(&mut self, row: u32) -> Result<()> {
        self.check(row)?;
        if self.rows.contains(&row) {
            self.out.set((row - self.base) as usize);
        }
        Ok(())
    }

    fn run(&mut self, run: Range<u32>) -> Result<()> {
        self.check(run.end - 1)?;
        let (start, end) = (run.start.max(self.rows.start), run.end.min(self.rows.end));
        if start < end {
            self.out.set_in((start - self.base) as usize..(end - self.base) as usize);
        }
        Ok(())
    }

    /// 64 rows at a time: mask and container begin at multiples of them.
    fn bits(&mut self, first: u32, bytes: &[u8]) -> Result<()> {
        let words = || bytes.as_chunks::<8>().0.iter().zip((first..).step_by(64));
        if u64::from(first) + u64::from(SPAN) > u64::from(self.segment_rows) {
            let last = words().filter(|(word, _)| **word != [0; 8]).last();
            if let Some((word, start)) = last {
                self.check(start.saturating_add(63 - u64::from_le_bytes(*word).leading_zeros()))?;
            }
        }
        let below = |row: u32| u64::MAX.checked_shl(row).map_or(u64::MAX, |above| !above);
        let skipped = (self.base.saturating_sub(first) / 64) as usize;
        for (word, start) in words().skip(skipped).take_while(|(_, start)| *start < self.rows.end) {
            let mut word = u64::from_le_bytes(*word);
            word &= !below(self.rows.start.saturating_sub(start)) & below(self.rows.end - start);
            self.out.words_mut()[((start - self.base) / 64) as usize] |= word;
        }
        Ok(())
    }

    fn check(&self, row: u32) -> Result<()> {
        match row < self.segment_rows {
            true => Ok(()),
            false => Err(corrupt("rows of a common key", format!("rows below {}", self.segment_rows), row)),
        }
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| corrupt("rows of a common key", format!("{count} more bytes"), self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32_at(self.take(4)?, 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roaring::RoaringBitmap;

    use super::*;

    const ROWS: u32 = 400_000;

    /// Of containers of each kind: runs, bits, positions.
    fn bitmaps() -> impl Strategy<Value = RoaringBitmap> {
        let run =
            (0..ROWS, 1u32..90_000).prop_map(|(start, len)| RoaringBitmap::from_iter(start..(start + len).min(ROWS)));
        let every = (0..ROWS, 2usize..9, 1u32..200_000)
            .prop_map(|(start, step, len)| RoaringBitmap::from_iter((start..(start + len).min(ROWS)).step_by(step)));
        let some = prop::collection::vec(0..ROWS, 0..200).prop_map(RoaringBitmap::from_iter);
        (prop::collection::vec(prop_oneof![run, every, some], 0..5), any::<bool>()).prop_map(|(parts, optimize)| {
            let mut all = parts.into_iter().fold(RoaringBitmap::new(), |all, part| all | part);
            if optimize {
                all.optimize();
            }
            all
        })
    }

    fn bytes(bitmap: &RoaringBitmap) -> Vec<u8> {
        let mut bytes = Vec::new();
        bitmap.serialize_into(&mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn rows_are_those_of_the_bitmap(bitmap in bitmaps(), (a, b) in (0..=ROWS, 0..=ROWS)) {
            let rows = a.min(b)..a.max(b);
            let base = rows.start & !63;
            let mut out = Bitmask::none((rows.end - base) as usize);
            add(&bytes(&bitmap), ROWS, &rows, base, &mut out).unwrap();
            let expected: Vec<usize> = bitmap.range(rows).map(|row| (row - base) as usize).collect();
            prop_assert_eq!(out.iter().collect::<Vec<_>>(), expected);
            if let Some(last) = bitmap.max() {
                prop_assert!(add(&bytes(&bitmap), last, &(0..1), 0, &mut Bitmask::none(1)).is_err());
            }
        }

        #[test]
        fn hostile_bytes_are_an_error_or_some_rows(
            bitmap in bitmaps(), cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bits in 1u8..,
        ) {
            let mut bytes = bytes(&bitmap);
            let mut out = Bitmask::none(ROWS as usize);
            let _ = add(&bytes[..cut.index(bytes.len())], ROWS, &(0..ROWS), 0, &mut out);
            let at = at.index(bytes.len().min(60));
            bytes[at] ^= bits;
            let _ = add(&bytes, ROWS, &(0..ROWS), 0, &mut out);
        }
    }
}
