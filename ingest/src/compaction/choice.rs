//! Which segments are worth being written again.
//!
//! 1. One that statements deleted rows of, a while after they did: so that deleted bytes leave the disk.
//! 2. One of whose rows a good part is not valid.
//! 3. One that has tombstones which are old enough to be forgotten.
//! 4. Small neighbours, as soon as they are several and the largest is no more than half of them: a row is written again once for each doubling of its
//!    segment, not once for each new neighbour.

use tidemill_storage::ids::SegmentId;

/// Of a hundred rows so many are not valid.
const STALE_PERCENT: u64 = 30;
/// A segment is small below this share of the wished size.
const SMALL_SHARE: u64 = 4;
/// Neighbours that are put together at least.
const NEIGHBOURS_MIN: usize = 4;
/// How long deleted rows stay in their file, at least: statements often come in series.
pub(crate) const PURGE_AFTER_US: i64 = 60_000_000;
/// How long small segments are left alone.
const SETTLED_AFTER_US: i64 = 60_000_000;

/// What is known of a committed segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) id: SegmentId,
    pub(crate) rows: u32,
    pub(crate) bytes: u64,
    /// Rows that are not there for readers.
    pub(crate) invalid: u32,
    /// How long it has had rows that statements deleted and that are still in the file.
    pub(crate) deleted_us: Option<i64>,
    /// How long it has been committed.
    pub(crate) age_us: i64,
    /// All its rows are old enough for tombstones to be forgotten, and it may have some.
    pub(crate) forgets: bool,
    /// Its keys have left the key map: beside those that have not they would come back.
    pub(crate) left: bool,
}

impl Facts {
    fn live(&self) -> (u64, u64) {
        let rows = u64::from(self.rows - self.invalid.min(self.rows));
        (rows, self.bytes / u64::from(self.rows.max(1)) * rows)
    }

    fn is_stale(&self) -> bool {
        u64::from(self.invalid) * 100 >= u64::from(self.rows) * STALE_PERCENT && self.invalid > 0
    }
}

/// The size that segments are wished to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wished {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Purge,
    Stale,
    Forgotten,
    Small,
    /// Somebody named rows of it that are to be in no file: see `consumer/erasing.rs`. Never chosen here.
    Erased,
}

/// When segments are written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// When that is worth it.
    InTime,
    /// Whatever can be gained, however young. Rows leave segments up to this one, which were there when it was asked for: those that come meanwhile, and
    /// those just written, lose rows for as long as rows come.
    AtOnce { last: SegmentId },
}

/// The next segments to be written again as one, in the order of their rows.
pub(crate) fn choose(segments: &[Facts], wished: Wished, when: When) -> Option<(Why, Vec<SegmentId>)> {
    let at_once = when != When::InTime;
    let cleaned = || {
        segments.iter().filter(|facts| match when {
            When::InTime => true,
            When::AtOnce { last } => facts.id <= last,
        })
    };
    let is_due = |facts: &&Facts| facts.deleted_us.is_some_and(|since| at_once || since >= PURGE_AFTER_US);
    if let Some(facts) = cleaned().find(is_due) {
        return Some((Why::Purge, vec![facts.id]));
    }
    let is_stale = |facts: &&Facts| facts.is_stale() && (at_once || facts.age_us >= SETTLED_AFTER_US);
    if let Some(facts) = cleaned().find(is_stale) {
        return Some((Why::Stale, vec![facts.id]));
    }
    if let Some(facts) = cleaned().find(|facts| facts.forgets && (at_once || facts.age_us >= SETTLED_AFTER_US)) {
        return Some((Why::Forgotten, vec![facts.id]));
    }
    (0..segments.len()).find_map(|start| neighbours(&segments[start..], wished, at_once)).map(|ids| (Why::Small, ids))
}

/// Small segments from the first on that together are worth it and not too large.
fn neighbours(segments: &[Facts], wished: Wished, at_once: bool) -> Option<Vec<SegmentId>> {
    let (mut rows, mut bytes, mut largest) = (0, 0, 0);
    let mut taken = Vec::new();
    for facts in segments {
        let (live_rows, live_bytes) = facts.live();
        let is_small = live_rows <= wished.rows / SMALL_SHARE && live_bytes <= wished.bytes / SMALL_SHARE;
        let fits = rows + live_rows <= wished.rows && bytes + live_bytes <= wished.bytes;
        if !is_small || !fits || facts.left != segments[0].left || !(at_once || facts.age_us >= SETTLED_AFTER_US) {
            break;
        }
        (rows, bytes, largest) = (rows + live_rows, bytes + live_bytes, live_rows.max(largest));
        taken.push(facts.id);
    }
    let is_worth_it = match at_once {
        true => taken.len() > 1,
        false => taken.len() >= NEIGHBOURS_MIN && largest * 2 <= rows,
    };
    is_worth_it.then_some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISHED: Wished = Wished { rows: 1000, bytes: 100_000 };

    fn segment(id: u64, rows: u32, invalid: u32) -> Facts {
        let (bytes, age_us) = (u64::from(rows) * 50, 2 * SETTLED_AFTER_US);
        Facts { id: SegmentId(id), rows, bytes, invalid, deleted_us: None, age_us, forgets: false, left: false }
    }

    fn chosen(segments: &[Facts], at_once: bool) -> Option<(Why, Vec<u64>)> {
        let when = if at_once { When::AtOnce { last: SegmentId(u64::MAX) } } else { When::InTime };
        choose(segments, WISHED, when).map(|(why, ids)| (why, ids.iter().map(|id| id.0).collect()))
    }

    /// Three sessions that update kept `rt.compact` from ever coming back: each segment that it wrote lost rows before it looked again.
    #[test]
    fn at_once_is_what_was_there_when_it_was_asked_for() {
        let mut segments = [segment(1, 1000, 900), segment(7, 1000, 900), segment(8, 1000, 1)];
        segments[2].deleted_us = Some(0);
        let chosen = |segments: &[Facts]| {
            choose(segments, WISHED, When::AtOnce { last: SegmentId(5) }).map(|(why, ids)| (why, ids.len()))
        };
        assert_eq!(chosen(&segments), Some((Why::Stale, 1)));
        assert_eq!(chosen(&segments[1..]), None);
        assert_eq!(chosen(&[segment(7, 100, 0), segment(8, 100, 0)]), Some((Why::Small, 2)));
    }

    #[test]
    fn deleted_rows_go_first_and_after_a_while() {
        let mut segments = [segment(1, 1000, 900), segment(2, 1000, 1)];
        segments[1].deleted_us = Some(PURGE_AFTER_US - 1);
        assert_eq!(chosen(&segments, false), Some((Why::Stale, vec![1])));
        assert_eq!(chosen(&segments, true), Some((Why::Purge, vec![2])));
        segments[1].deleted_us = Some(PURGE_AFTER_US);
        assert_eq!(chosen(&segments, false), Some((Why::Purge, vec![2])));
        assert_eq!(chosen(&[segment(1, 1000, 299)], true), None);
        let mut forgets = [segment(1, 1000, 299), segment(2, 1000, 300)];
        forgets[0].forgets = true;
        assert_eq!(chosen(&forgets, false), Some((Why::Stale, vec![2])));
        assert_eq!(chosen(&forgets[..1], false), Some((Why::Forgotten, vec![1])));
        forgets[0].age_us = 0;
        assert_eq!(chosen(&forgets[..1], false), None);
    }

    #[test]
    fn small_neighbours_are_put_together_when_they_are_several() {
        let small = |ids: std::ops::Range<u64>| ids.map(|id| segment(id, 100, 0)).collect::<Vec<_>>();
        assert_eq!(chosen(&small(1..4), false), None);
        assert_eq!(chosen(&small(1..4), true), Some((Why::Small, vec![1, 2, 3])));
        assert_eq!(chosen(&small(1..6), false), Some((Why::Small, vec![1, 2, 3, 4, 5])));
        // No more than one segment holds; a large one in between parts them.
        assert_eq!(chosen(&small(1..30), false).unwrap().1.len(), 10);
        let mut parted = small(1..9);
        parted[3] = segment(4, 800, 0);
        assert_eq!(chosen(&parted, false), Some((Why::Small, vec![5, 6, 7, 8])));
        let mut left = small(1..9);
        left[..3].iter_mut().for_each(|facts| facts.left = true);
        assert_eq!(chosen(&left, false), Some((Why::Small, vec![4, 5, 6, 7, 8])));
        assert_eq!(chosen(&left, true), Some((Why::Small, vec![1, 2, 3])));
        // One that is much larger than the others would be written again for each few of them.
        let uneven = [segment(1, 240, 0), segment(2, 10, 0), segment(3, 10, 0), segment(4, 10, 0), segment(5, 10, 0)];
        assert_eq!(chosen(&uneven, false), Some((Why::Small, vec![2, 3, 4, 5])));
        let mut young = small(1..6);
        young.iter_mut().for_each(|facts| facts.age_us = 1);
        assert_eq!(chosen(&young, false), None);
    }

    /// However segments of one size come, a row is written again a few times and their number stays small.
    #[test]
    fn rows_are_written_again_once_for_each_doubling() {
        let (mut segments, mut next, mut written) = (Vec::new(), 1000, 0u64);
        let wished = Wished { rows: 100_000, bytes: 1 << 40 };
        for id in 0..1000 {
            segments.push(segment(id, 100, 0));
            while let Some((_, ids)) = choose(&segments, wished, When::InTime) {
                let is_taken = |facts: &Facts| ids.contains(&facts.id);
                let at = segments.iter().position(is_taken).unwrap();
                let rows: u32 = segments.iter().filter(|facts| is_taken(facts)).map(|facts| facts.rows).sum();
                segments.retain(|facts| !is_taken(facts));
                next += 1;
                segments.insert(at, segment(next, rows, 0));
                written += u64::from(rows);
            }
        }
        assert!(segments.len() < 25, "{} segments", segments.len());
        assert!(written < 8 * 100_000, "each row was written {} times", written / 100_000);
    }
}
