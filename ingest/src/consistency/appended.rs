//! Tables without a key: a segment has the rows of the messages that it accounts for.
//!
//! That holds for each segment as long as nothing but consumption wrote the table. Rows that statements changed, and dead letters that were replayed, are in
//! segments of their own; rows that were deleted are missing in those that compaction wrote. Then the table as a whole has
//! *rows of messages − those that were taken away + those that statements made*, and what differs cannot be told by its place.

use std::sync::atomic::AtomicBool;

use tidemill_storage::ids::{OffsetRange, PartitionId, SegmentId};

use super::{
    Committed, Line, Readable, Verdict,
    content::{Content, stored},
    covers, topic,
};
use crate::{Result, consumer::table::TableShared};

#[derive(Default)]
struct Sum {
    rows: u64,
    hash: u64,
}

impl Sum {
    fn add(&mut self, hashes: &[u64]) {
        self.rows += hashes.len() as u64;
        self.hash = hashes.iter().fold(self.hash, |sum, hash| sum.wrapping_add(*hash));
    }
}

/// What is in no segment that is compared.
struct Beside {
    /// Rows of messages that the sources do not have any more.
    passed_over: Sum,
    /// Rows of segments that no messages are accounted for in: made by statements, replayed.
    loose: Sum,
    /// Rows of messages that no segment accounts for.
    elsewhere: Sum,
    /// Rows of messages whose segments are gone.
    removed: u64,
    /// Nobody knows how many rows that are gone the sources had.
    unknown: bool,
}

/// A segment, what it has, and what messages say that it has.
struct Compared {
    id: (PartitionId, SegmentId),
    offsets: Vec<OffsetRange>,
    /// Rows of sources of rows whose offsets count rows: INSERT, pipelines.
    counted: u64,
    stored: Sum,
    wanted: Sum,
}

pub(super) fn check(
    table: &TableShared,
    committed: &Committed,
    readable: &[Readable],
    cancelled: &AtomicBool,
) -> Result<Vec<Line>> {
    let schema = table.table.schema();
    let content = Content::new(&schema, committed, &[])?;
    let low = |range: &OffsetRange| {
        let source = readable.iter().find(|source| source.feed.feed.source == range.stream.source)?;
        source.streams.get(&range.stream.partition).map(|(from, _)| *from)
    };
    // Logs of rows count them by their offsets, and keep them no longer than the table needs them.
    let is_log = |range: &OffsetRange| {
        readable.iter().any(|source| {
            source.feed.feed.source == range.stream.source && source.feed.feed.connector.offsets_are_rows()
        })
    };
    let letters = |range: &OffsetRange| -> u64 {
        let (from, to) = ((range.stream, range.from), (range.stream, range.to));
        committed.letters.range(from..to).map(|(_, letters)| letters).sum()
    };
    let mut passed: Vec<OffsetRange> = Vec::new();
    let (mut compared, mut passed_over, mut loose) = (Vec::new(), Sum::default(), Sum::default());
    for (partition, view, records) in &committed.partitions {
        for segment in view.segments() {
            let Some(record) = records.iter().find(|record| record.id == segment.id()) else { continue };
            let mut sum = Sum::default();
            stored(segment, &schema, cancelled, |_, rows| {
                sum.add(&content.hashes(&schema, &rows)?);
                Ok(())
            })?;
            let ranges = || record.offsets.iter().filter(|range| range.from < range.to);
            if ranges().next().is_none() {
                (loose.rows, loose.hash) = (loose.rows + sum.rows, loose.hash.wrapping_add(sum.hash));
            } else if ranges().all(|range| is_log(range) || low(range).is_some_and(|low| low <= range.from)) {
                let counted =
                    ranges().filter(|range| is_log(range)).map(|range| range.to - range.from - letters(range)).sum();
                let offsets = ranges().copied().collect();
                let id = (*partition, record.id);
                compared.push(Compared { id, offsets, counted, stored: sum, wanted: Sum::default() });
            } else {
                passed_over.rows += sum.rows;
                passed.extend(ranges());
            }
        }
    }
    let mut elsewhere = Sum::default();
    let mut removed = 0;
    for source in readable {
        if source.feed.feed.connector.offsets_are_rows() {
            continue;
        }
        topic::read(source, &committed.letters, cancelled, |batch| {
            let hashes = content.hashes(batch.schema, &batch.rows)?;
            // Of very many segments few are about these messages.
            let (Some(first), Some(last)) = (batch.offsets.first(), batch.offsets.last()) else { return Ok(()) };
            let is_near =
                |range: &OffsetRange| range.stream == batch.stream && range.from <= *last && range.to > *first;
            let mut near: Vec<&mut Compared> =
                compared.iter_mut().filter(|one| one.offsets.iter().any(is_near)).collect();
            for (offset, hash) in batch.offsets.iter().zip(&hashes) {
                let mut is_covered = false;
                for segment in near.iter_mut().filter(|one| covers(&one.offsets, batch.stream, *offset)) {
                    segment.wanted.add(&[*hash]);
                    is_covered = true;
                }
                // A segment that is not compared may be of several sources.
                if !is_covered && !covers(&passed, batch.stream, *offset) {
                    match covers(&committed.account.offsets, batch.stream, *offset) {
                        true => removed += 1,
                        false => elsewhere.add(&[*hash]),
                    }
                }
            }
            Ok(())
        })?;
    }
    // Rows of logs that are gone with their segments, and whether anything is that nobody can count any more.
    let mut unknown = passed_over.rows > 0;
    for range in &committed.account.offsets {
        if is_log(range) {
            removed += range.to - range.from - covered(range, &compared);
        } else {
            unknown |= low(range).is_none_or(|low| low > range.from);
        }
    }
    Ok(lines(committed, readable, compared, &Beside { passed_over, loose, elsewhere, removed, unknown }))
}

fn lines(committed: &Committed, readable: &[Readable], compared: Vec<Compared>, beside: &Beside) -> Vec<Line> {
    let Beside { passed_over, loose, elsewhere, removed, unknown } = beside;
    let removed = *removed;
    let account = &committed.account;
    let is_plain = loose.rows == 0 && account.made == 0 && account.removed == 0 && passed_over.rows == 0;
    let mut lines = Vec::new();
    let (mut wanted, mut found) = (elsewhere.rows, loose.rows);
    let mut sums = (elsewhere.hash, loose.hash);
    let mut all_hashed = true;
    for one in compared {
        let expected = one.wanted.rows + one.counted;
        wanted += expected;
        found += one.stored.rows;
        sums = (sums.0.wrapping_add(one.wanted.hash), sums.1.wrapping_add(one.stored.hash));
        all_hashed &= one.counted == 0;
        let is_right = expected == one.stored.rows && (one.counted > 0 || one.wanted.hash == one.stored.hash);
        let mut line = Line::new(match (is_right, one.counted) {
            (true, 0) => Verdict::Equal,
            (true, _) => Verdict::Counted,
            (false, _) => Verdict::Differs,
        });
        (line.partition, line.segment) = (Some(one.id.0), Some(one.id.1));
        if let [range] = one.offsets[..] {
            let source = readable.iter().find(|source| source.feed.feed.source == range.stream.source);
            let name = source.map_or_else(String::new, |source| source.feed.feed.name.clone());
            (line.source, line.offsets) = (Some((name, range.stream.partition)), Some((range.from, range.to)));
        }
        (line.source_rows, line.table_rows) = (Some(expected), Some(one.stored.rows));
        line.missing = expected.saturating_sub(one.stored.rows);
        line.extra = one.stored.rows.saturating_sub(expected);
        line.hashes = (one.counted == 0).then_some((one.wanted.hash, one.stored.hash));
        // What statements and replays did is not to be told from what went wrong, segment by segment.
        if is_plain || line.verdict != Verdict::Differs {
            lines.push(line);
        }
    }
    for source in readable {
        if let Some(reason) = &source.refused {
            let mut line = Line::new(Verdict::NotComparable);
            (line.source, line.detail) = (Some((source.feed.feed.name.clone(), 0)), Some(reason.clone()));
            lines.push(line);
        }
    }
    let mut total = Line::new(Verdict::Equal);
    let taken = account.removed.saturating_sub(removed.min(account.removed));
    let expected = (wanted + account.made).saturating_sub(taken);
    (total.source_rows, total.table_rows) = (Some(wanted + removed), Some(found));
    total.removed = account.removed;
    total.missing = expected.saturating_sub(found);
    total.extra = found.saturating_sub(expected);
    let is_untouched = account.made == 0 && account.removed == 0;
    total.hashes = (all_hashed && is_untouched && passed_over.rows == 0).then_some(sums);
    let mut notes = Vec::new();
    if passed_over.rows > 0 {
        notes.push(format!("{} rows are of messages that the sources do not have any more", passed_over.rows));
    }
    if account.removed > 0 {
        notes.push(format!("{} rows were taken away by statements or retention", account.removed));
    }
    if account.made > 0 {
        notes.push(format!("{} rows were made by UPDATE", account.made));
    }
    let is_counted = total.missing == 0 && total.extra == 0;
    total.verdict = match total.hashes {
        // What of these was taken away nobody knows.
        // Whose letters were replayed after their messages were taken away nobody knows.
        None if (*unknown || loose.rows > 0) && !is_untouched && !is_counted => {
            (total.missing, total.extra) = (0, 0);
            Verdict::NotComparable
        }
        None if is_counted => Verdict::Counted,
        Some((source, table)) if is_counted && source == table => Verdict::Equal,
        _ => Verdict::Differs,
    };
    total.detail = (!notes.is_empty()).then(|| notes.join("; "));
    lines.push(total);
    lines
}

/// How many offsets of a range segments account for.
fn covered(range: &OffsetRange, compared: &[Compared]) -> u64 {
    let mut parts: Vec<(u64, u64)> = compared
        .iter()
        .flat_map(|one| &one.offsets)
        .filter(|known| known.stream == range.stream)
        .map(|known| (known.from.max(range.from), known.to.min(range.to)))
        .filter(|(from, to)| from < to)
        .collect();
    parts.sort_unstable();
    let (mut sum, mut end) = (0, 0);
    for (from, to) in parts {
        sum += to.saturating_sub(from.max(end));
        end = end.max(to);
    }
    sum
}
