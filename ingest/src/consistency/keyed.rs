//! Tables with a key: each row of a message has lost against another row of its key that is stored, or is stored itself, as what wins.
//!
//! Which row of a key wins is what all stored rows say, by their ranks; neither the key map nor what readers see is asked. Where keys are very many they are
//! looked at in several passes, each with a share of them by hash.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, atomic::AtomicBool},
};

use arrow::{array::AsArray, datatypes::Int64Type};
use tidemill_storage::{
    hash,
    ids::StreamId,
    schema::TableSchema,
    upsert::{Identities, IdentityReader, Keep, KeySpec, Provenance, provenance_ids},
};

use super::{
    Committed, Line, Readable, Verdict,
    content::{Content, arrays, stored},
    topic,
};
use crate::{Result, consumer::table::TableShared, route};

/// Rows that are held in memory for one pass: some 100 bytes each.
const KEYS_PER_PASS: u64 = 4_000_000;
/// Ranges of offsets that a stream is told in.
const RANGES_MAX: u64 = 16;
/// From here on the last part of a rank tells that a statement made the row.
const CHANGED: i64 = 1 << 32;

/// The row of a key that wins.
struct Winner {
    /// Version and origin, without the place within the message: a message that is read again may have its rows in other partitions.
    rank: Box<[u8]>,
    ordinal: i64,
    stream: StreamId,
    offset: u64,
    content: u64,
    /// Nobody sees it, because it deletes its key.
    tombstone: bool,
    seen: u8,
    /// A message that it is was found.
    found: bool,
}

/// What is known of a range of offsets of one stream.
#[derive(Default)]
struct Range {
    line: Counts,
    hashes: (u64, u64),
}

#[derive(Default)]
struct Counts {
    source: u64,
    winners: u64,
    superseded: u64,
    /// Of keys of which nothing is stored.
    unknown: u64,
    missing: u64,
    different: u64,
    extra: u64,
}

struct Check<'a> {
    table: &'a TableShared,
    key: &'a KeySpec,
    committed: &'a Committed,
    readable: &'a [Readable],
    cancelled: &'a AtomicBool,
    written: Arc<TableSchema>,
    content: Content,
    identities: IdentityReader,
}

pub(super) fn check(
    table: &TableShared,
    key: &KeySpec,
    committed: &Committed,
    readable: &[Readable],
    cancelled: &AtomicBool,
) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for source in readable {
        if let Some(reason) = &source.refused {
            let mut line = Line::new(Verdict::NotComparable);
            (line.source, line.detail) = (Some((source.feed.feed.name.clone(), 0)), Some(reason.clone()));
            lines.push(line);
        }
    }
    if key.ages.is_some_and(|ages| ages.key_us.is_some()) {
        let mut line = Line::new(Verdict::NotComparable);
        line.detail = Some("with key_ttl rows of one key may be seen beside each other".into());
        lines.push(line);
        return Ok(lines);
    }
    let schema = table.table.schema();
    let written = Arc::new(key.written(&schema));
    // Of rows that are merged only the key is what a message says.
    let left_out: Vec<_> = match key.merges {
        true => schema.columns.iter().map(|c| c.id).filter(|id| !key.columns.contains(id)).collect(),
        false => key.late.into_iter().collect(),
    };
    let check = Check {
        table,
        key,
        committed,
        readable,
        cancelled,
        content: Content::new(&schema, committed, &left_out)?,
        identities: IdentityReader::new(key, &written)?,
        written,
    };
    let stored: u64 =
        committed.partitions.iter().flat_map(|(_, view, _)| view.segments()).map(|s| u64::from(s.rows())).sum();
    let passes = stored.div_ceil(KEYS_PER_PASS).max(1);
    let mut ranges = BTreeMap::new();
    let mut keys = Keys::default();
    for pass in 0..passes {
        let winners = check.winners((pass, passes), &mut keys)?;
        check.compare(winners, (pass, passes), &mut keys, &mut ranges)?;
    }
    lines.extend(check.lines(&keys, ranges));
    lines.push(check.of_map(&keys));
    Ok(lines)
}

/// What stored rows say of keys.
#[derive(Default)]
struct Keys {
    keys: u64,
    seen: u64,
    /// Keys with several rows that readers see, or with one that does not win.
    wrong: u64,
    /// Keys of messages of which nothing is stored.
    unknown: HashSet<u128>,
    /// Such messages beyond those that fit there: their keys are counted once for each.
    uncounted: u64,
}

impl Keys {
    fn forgotten(&mut self, key: u128) {
        match (self.unknown.len() as u64) < KEYS_PER_PASS {
            true => _ = self.unknown.insert(key),
            false => self.uncounted += u64::from(!self.unknown.contains(&key)),
        }
    }
}

impl Check<'_> {
    /// The winners of the keys of one pass, by the hash of their keys.
    fn winners(&self, (pass, passes): (u64, u64), keys: &mut Keys) -> Result<HashMap<u128, Winner>> {
        let mut winners: HashMap<u128, Winner> = HashMap::new();
        let origin: Vec<_> = provenance_ids().collect();
        let mut wrong = Vec::new();
        for (partition, view, _) in &self.committed.partitions {
            for segment in view.segments() {
                let deleted = self.committed.deleted.get(&(*partition, segment.id()));
                let lost = self.committed.lost.get(&(*partition, segment.id()));
                let validity = view.validities().of(segment.id());
                stored(segment, &self.written, self.cancelled, |first, rows| {
                    let of_key = self.identities.read(&arrays(&self.written, &rows, self.identities.columns())?)?;
                    let content = self.content.hashes(&self.written, &rows)?;
                    let from = arrays(&self.written, &rows, &origin)?;
                    let from: Vec<_> = from.iter().map(|column| column.as_primitive::<Int64Type>()).collect();
                    for (row, content) in content.into_iter().enumerate() {
                        let key = key_hash(&of_key, row);
                        let is_lost = lost.is_some_and(|lost| lost.contains(first + row as u32));
                        if key as u64 % passes != pass || is_lost {
                            continue;
                        }
                        let seen = validity.is_none_or(|validity| validity.is_valid(first + row as u32));
                        let ordinal = from[3].value(row);
                        let candidate = Winner {
                            rank: without_ordinal(of_key.rank(row)).into(),
                            ordinal,
                            stream: StreamId {
                                source: tidemill_storage::ids::SourceId(from[0].value(row) as u64),
                                partition: from[1].value(row) as u32,
                            },
                            offset: from[2].value(row) as u64,
                            content,
                            tombstone: of_key.deletes(row)
                                || deleted.is_some_and(|deleted| deleted.contains(first + row as u32)),
                            seen: u8::from(seen),
                            found: false,
                        };
                        match winners.entry(key) {
                            std::collections::hash_map::Entry::Vacant(place) => _ = place.insert(candidate),
                            std::collections::hash_map::Entry::Occupied(mut known) => {
                                let known = known.get_mut();
                                let both = known.seen.saturating_add(candidate.seen);
                                // A message that was read twice is there twice, and one of them is seen.
                                let is_twin = candidate.rank == known.rank && candidate.ordinal == known.ordinal;
                                if self.beats(&candidate, known) || is_twin && candidate.seen > 0 {
                                    *known = candidate;
                                }
                                known.seen = both;
                            }
                        }
                    }
                    Ok(())
                })?;
            }
        }
        for (key, winner) in &winners {
            keys.keys += 1;
            keys.seen += u64::from(winner.seen);
            // Seen once, and it is the one that wins; or not at all, because that deletes the key.
            if winner.seen != u8::from(!winner.tombstone) {
                wrong.push(*key);
            }
        }
        keys.wrong += wrong.len() as u64;
        Ok(winners)
    }

    fn beats(&self, one: &Winner, other: &Winner) -> bool {
        let order = one.rank.cmp(&other.rank).then(one.ordinal.cmp(&other.ordinal));
        order
            == match self.key.keep {
                Keep::Last => Ordering::Greater,
                Keep::First => Ordering::Less,
            }
    }

    fn compare(
        &self,
        mut winners: HashMap<u128, Winner>,
        (pass, passes): (u64, u64),
        keys: &mut Keys,
        ranges: &mut BTreeMap<(StreamId, u64), Range>,
    ) -> Result<()> {
        let partitions = self.table.partitions().len() as u32;
        for source in self.readable {
            topic::read(source, &self.committed.letters, self.cancelled, |batch| {
                for (rows, offsets) in route::split(self.key, batch.schema, &batch.rows, &batch.offsets, partitions)? {
                    let provenance = Provenance::of(batch.stream, &offsets);
                    let mut columns = rows.columns().to_vec();
                    columns.extend(provenance.columns().iter().cloned());
                    let written = self.key.written(batch.schema);
                    let with_origin = arrow::array::RecordBatch::try_new(written.arrow(), columns)?;
                    let of_key = self.identities.read(&arrays(&written, &with_origin, self.identities.columns())?)?;
                    let content = self.content.hashes(batch.schema, &rows)?;
                    for (row, offset) in offsets.iter().enumerate() {
                        let key = key_hash(&of_key, row);
                        if key as u64 % passes != pass {
                            continue;
                        }
                        let range =
                            ranges.entry((batch.stream, self.range_of(source, batch.stream, *offset))).or_default();
                        range.line.source += 1;
                        let Some(winner) = winners.get_mut(&key) else {
                            range.line.unknown += 1;
                            keys.forgotten(key);
                            continue;
                        };
                        let order = without_ordinal(of_key.rank(row)).cmp(&winner.rank);
                        let order = if self.key.keep == Keep::First { order.reverse() } else { order };
                        match order {
                            Ordering::Less => range.line.superseded += 1,
                            // What beat the stored one may have been taken away.
                            Ordering::Greater => {
                                range.line.unknown += 1;
                                keys.forgotten(key);
                            }
                            Ordering::Equal if winner.ordinal.abs() >= CHANGED / 2 => {
                                winner.found = true;
                                range.line.superseded += 1;
                            }
                            // Several rows of a message have one key: the last one wins.
                            Ordering::Equal if winner.found => range.line.superseded += 1,
                            Ordering::Equal => {
                                winner.found = true;
                                range.line.winners += 1;
                                if winner.tombstone || self.key.merges {
                                    continue;
                                }
                                range.hashes.0 = range.hashes.0.wrapping_add(content[row]);
                                range.hashes.1 = range.hashes.1.wrapping_add(winner.content);
                                range.line.different += u64::from(content[row] != winner.content);
                            }
                        }
                    }
                }
                Ok(())
            })?;
            for winner in winners.values().filter(|winner| winner.stream.source == source.feed.feed.source) {
                let is_read = source
                    .streams
                    .get(&winner.stream.partition)
                    .is_some_and(|(from, to)| (*from..*to).contains(&winner.offset));
                if is_read && !winner.found && winner.ordinal.abs() < CHANGED / 2 {
                    let at = self.range_of(source, winner.stream, winner.offset);
                    ranges.entry((winner.stream, at)).or_default().line.extra += 1;
                }
            }
        }
        Ok(())
    }

    /// Where the range of an offset begins.
    fn range_of(&self, source: &Readable, stream: StreamId, offset: u64) -> u64 {
        let (from, to) = source.streams.get(&stream.partition).copied().unwrap_or_default();
        let size = ((to - from) / RANGES_MAX).max(1024).next_power_of_two();
        (offset / size * size).max(from)
    }

    fn lines(&self, keys: &Keys, ranges: BTreeMap<(StreamId, u64), Range>) -> Vec<Line> {
        // Whose keys were forgotten nobody knows any more, but how many of them there are.
        let is_forgotten = keys.unknown.len() as u64 + keys.uncounted <= self.committed.account.removed;
        let mut lines = Vec::new();
        let mut ranges = ranges.into_iter().peekable();
        while let Some(((stream, from), Range { line: counts, hashes })) = ranges.next() {
            let Some(source) = self.readable.iter().find(|source| source.feed.feed.source == stream.source) else {
                continue;
            };
            let end = source.streams.get(&stream.partition).map_or(0, |(_, to)| *to);
            let to = ranges.peek().filter(|((next, _), _)| *next == stream).map_or(end, |((_, from), _)| *from);
            let (removed, missing) = match is_forgotten {
                true => (counts.unknown, counts.missing),
                false => (0, counts.missing + counts.unknown),
            };
            let is_right = missing == 0 && counts.extra == 0 && counts.different == 0;
            let mut line = Line::new(if is_right { Verdict::Equal } else { Verdict::Differs });
            line.source = Some((source.feed.feed.name.clone(), stream.partition));
            line.offsets = Some((from, to));
            (line.source_rows, line.table_rows) = (Some(counts.source), Some(counts.winners + counts.extra));
            (line.superseded, line.removed) = (counts.superseded, removed);
            (line.missing, line.extra) = (missing, counts.extra);
            line.hashes = Some(hashes);
            line.detail = (counts.different > 0)
                .then(|| format!("{} rows have other values than their messages", counts.different));
            lines.push(line);
        }
        lines
    }

    /// Whether readers see what wins.
    fn of_map(&self, keys: &Keys) -> Line {
        let mut line = Line::new(if keys.wrong == 0 { Verdict::Equal } else { Verdict::Differs });
        line.table_rows = Some(keys.seen);
        line.extra = keys.wrong;
        line.detail = Some(match keys.wrong {
            0 => format!("{} keys, each of them seen once or deleted", keys.keys),
            wrong => format!("{} keys, {wrong} of which are not seen as what wins", keys.keys),
        });
        line
    }
}

fn key_hash(identities: &Identities, row: usize) -> u128 {
    let key = identities.key(row);
    u128::from(hash::of_bytes(key)) << 64 | u128::from(identities.fingerprint(row))
}

/// A rank without its last part: a byte that tells NULL, and eight of the number.
fn without_ordinal(rank: &[u8]) -> &[u8] {
    &rank[..rank.len().saturating_sub(9)]
}
