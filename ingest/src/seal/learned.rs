//! How many rows make a file of the wanted size: learned from the segments of the partition that were committed before.
//!
//! Nobody knows that ahead: it depends on the encodings that the values happen to allow, and on how well ever larger dictionaries share. So
//! the first segment is a small one, and each later one is measured by those before it.

use crate::commit::SegmentRecord;

/// Rows of the first segment.
const FIRST_ROWS: u64 = 100_000;
/// A segment has at most so many times the rows of the largest before it: what is known of small segments is little.
const GROWTH_MAX: u64 = 4;
/// Weight of a segment that is as large as was wanted, of 1.
const WEIGHT: f64 = 0.5;

/// What a partition's segments have been like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Learned {
    /// Bytes of a file for each row; `None`: there was no file yet.
    bytes_per_row: Option<f64>,
    /// Rows of the largest segment so far.
    largest: u64,
}

impl Learned {
    /// Of what was committed, oldest first; `wanted`: bytes that files shall have.
    pub(crate) fn of(segments: &[SegmentRecord], wanted: u64) -> Self {
        let mut learned = Self::default();
        segments.iter().for_each(|segment| learned.learn(segment.rows.into(), segment.bytes, wanted));
        learned
    }

    /// Learns of a segment's file. Segments that ended early (by age, by `rt.seal`) say less than large ones.
    pub(crate) fn learn(&mut self, rows: u64, bytes: u64, wanted: u64) {
        if rows == 0 {
            return;
        }
        let here = bytes as f64 / rows as f64;
        let weight = WEIGHT * (bytes as f64 / wanted.max(1) as f64).min(1.0);
        self.bytes_per_row = Some(self.bytes_per_row.map_or(here, |known| known + weight * (here - known)));
        self.largest = self.largest.max(rows);
    }

    /// Rows after which a segment makes a file of about `bytes`.
    pub(crate) fn rows(&self, bytes: u64) -> u64 {
        match self.bytes_per_row {
            None => FIRST_ROWS,
            Some(per_row) => {
                let rows = (bytes as f64 / per_row.max(1e-3)) as u64;
                rows.clamp(1, self.largest.max(FIRST_ROWS / GROWTH_MAX).saturating_mul(GROWTH_MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of rows that cost 10 bytes each and 2 kB once: the sizes that come out.
    fn files(learned: &mut Learned, target: u64, per_row: u64, count: usize) -> Vec<u64> {
        let file = |learned: &mut Learned| {
            let rows = learned.rows(target);
            let bytes = 2_000 + rows * per_row;
            learned.learn(rows, bytes, target);
            bytes
        };
        (0..count).map(|_| file(learned)).collect()
    }

    #[test]
    fn files_come_near_the_size() {
        let mut learned = Learned::default();
        let target = 64 << 20;
        let sizes = files(&mut learned, target, 10, 6);
        assert_eq!(sizes[0], 2_000 + FIRST_ROWS * 10);
        assert!(sizes[..4].windows(2).all(|pair| pair[1] <= pair[0] * GROWTH_MAX), "{sizes:?}");
        assert!(sizes[5].abs_diff(target) < target / 20, "{sizes:?}");
        // Rows become ten times as long.
        let sizes = files(&mut learned, target, 100, 8);
        assert!(sizes[0] > target * 9 && sizes[7].abs_diff(target) < target / 20, "{sizes:?}");
        // One that ended after a few rows says nothing of the others.
        learned.learn(10, 4_000, target);
        let sizes = files(&mut learned, target, 100, 1);
        assert!(sizes[0].abs_diff(target) < target / 20, "{sizes:?}");
    }

    #[test]
    fn rows_are_never_none() {
        let mut learned = Learned::default();
        learned.learn(0, 0, 1 << 20);
        assert_eq!(learned.rows(1 << 20), FIRST_ROWS);
        learned.learn(1, 1 << 30, 1 << 20);
        assert_eq!(learned.rows(1 << 20), 1);
        let mut small = Learned::default();
        small.learn(1_000_000, 1, 1 << 20);
        assert_eq!(small.rows(u64::MAX), 4_000_000);
    }
}
