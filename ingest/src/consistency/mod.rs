//! `rt.consistency_check('table')`: whether a table has what its sources have, no row too few and none twice.
//!
//! ```text
//! source:  messages below the committed offsets ─ decode, checks, transform, as consumption does ─► rows ┐
//! table:   all rows that are stored, also those that nobody sees ────────────────────────────────────────┴─► counts and hashes of each range of offsets
//! ```
//!
//! Nothing that ingestion knows is believed but what it committed: messages are read again, and which row of a key wins is found out anew from all rows
//! (`keyed`). Tables without a key do not know where a single row came from; their segments know which offsets they account for (`appended`). What a source
//! does not have any more cannot be compared, and is said so. What statements and retention took away is known by its number and offsets
//! ([`crate::commit::Account`]).

mod appended;
mod content;
mod keyed;
mod topic;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tidemill_storage::{
    ids::{ColumnId, OffsetRange, PartitionId, SegmentId, StreamId},
    row_set::RowSet,
    table::PartitionView,
};

use crate::{
    Error, Result,
    commit::{Account, SegmentRecord},
    consumer::{feed::FeedState, table::TableShared},
    dead_letters::DeadLetterReader,
    source::Start,
};

/// So often the log and the files are read again until they say the same.
const TRIES: usize = 100;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Equal,
    /// As many rows as there must be; there is nothing to compare their values with.
    Counted,
    Differs,
    /// The source does not have it any more, or cannot be asked.
    NotComparable,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Counted => "counted",
            Self::Differs => "differs",
            Self::NotComparable => "not comparable",
        }
    }
}

/// One range of offsets, one segment, or all of the table.
#[derive(Clone, Debug)]
pub struct Line {
    pub partition: Option<PartitionId>,
    pub segment: Option<SegmentId>,
    /// Name of the source, and which of its partitions.
    pub source: Option<(String, u32)>,
    /// Half open.
    pub offsets: Option<(u64, u64)>,
    /// Rows that the messages are, without those that are dead letters.
    pub source_rows: Option<u64>,
    /// Rows of them that are stored; of a table with a key those that win.
    pub table_rows: Option<u64>,
    /// Rows of messages that lost against others of their key.
    pub superseded: u64,
    /// Rows that statements or retention took away.
    pub removed: u64,
    pub missing: u64,
    /// Rows that no message is.
    pub extra: u64,
    /// Sums of the hashes of rows: the same whatever the order is.
    pub hashes: Option<(u64, u64)>,
    pub verdict: Verdict,
    pub detail: Option<String>,
}

impl Line {
    fn new(verdict: Verdict) -> Self {
        Self {
            partition: None,
            segment: None,
            source: None,
            offsets: None,
            source_rows: None,
            table_rows: None,
            superseded: 0,
            removed: 0,
            missing: 0,
            extra: 0,
            hashes: None,
            verdict,
            detail: None,
        }
    }
}

/// What is committed of a table at one moment.
struct Committed {
    /// By partition: the view, and the records of the segments that are committed in it.
    partitions: Vec<(PartitionId, Arc<PartitionView>, Vec<SegmentRecord>)>,
    /// Of each stream the first offset that is not committed everywhere.
    positions: BTreeMap<StreamId, u64>,
    account: Account,
    letters: topic::Letters,
    /// Rows that statements deleted.
    deleted: BTreeMap<(PartitionId, SegmentId), RowSet>,
    /// Rows that win no more, since what beat them is gone.
    lost: BTreeMap<(PartitionId, SegmentId), RowSet>,
    /// Columns that the table was made with, and messages bring now.
    compared: Vec<ColumnId>,
}

impl Committed {
    /// The first offset of a stream that anything accounts for.
    fn first(&self, stream: StreamId) -> Option<u64> {
        let of_segments = self.partitions.iter().flat_map(|(.., records)| records).flat_map(|record| &record.offsets);
        let ranges = of_segments.chain(&self.account.offsets).filter(|range| range.stream == stream);
        ranges.map(|range| range.from).min()
    }
}

/// A feed, and of each of its streams the offsets that can be compared.
struct Readable {
    feed: Arc<FeedState>,
    streams: BTreeMap<u32, (u64, u64)>,
    /// Why nothing can be.
    refused: Option<String>,
}

impl TableShared {
    /// Compares what is committed with the sources. Blocks, for as long as all of it takes to be read; ends with an error soon after `cancelled` is true.
    pub(crate) fn check_consistency(&self, original: &[ColumnId], cancelled: &AtomicBool) -> Result<Vec<Line>> {
        let mut committed = self.committed(cancelled)?;
        let feeds: Vec<_> = self.feeds.read().values().cloned().collect();
        // What came to the table later has defaults in older rows, and messages may have values; what has another name by now messages bring no more.
        let is_brought = |id: &ColumnId| {
            let readable = feeds.iter().filter(|feed| !feed.feed.connector.offsets_are_rows());
            readable.into_iter().all(|feed| feed.transform.load().transform.brings(*id))
        };
        committed.compared = original.iter().copied().filter(is_brought).collect();
        let mut readable = Vec::new();
        for feed in feeds {
            readable.push(Readable::new(feed, &committed));
        }
        match self.table.key() {
            Some(key) => keyed::check(self, key, &committed, &readable, cancelled),
            None => appended::check(self, &committed, &readable, cancelled),
        }
    }

    fn committed(&self, cancelled: &AtomicBool) -> Result<Committed> {
        let mut all = Committed {
            partitions: Vec::new(),
            positions: BTreeMap::new(),
            account: Account::default(),
            letters: BTreeMap::new(),
            deleted: BTreeMap::new(),
            lost: BTreeMap::new(),
            compared: Vec::new(),
        };
        for partition in self.partitions().iter() {
            // Letters of a file that is replaced meanwhile, or segments: then it is looked at again.
            let mut tries = 0;
            let (view, state, letters) = loop {
                go_on(cancelled)?;
                tries += 1;
                let files = partition.dead_letter_files();
                let view = partition.partition.view();
                let state = self.runtime.log.partition(self.id, partition.id)?;
                let ids = |view: &PartitionView| -> BTreeSet<SegmentId> {
                    view.segments().filter(|s| s.as_committed().is_some()).map(|s| s.id()).collect()
                };
                let is_same = ids(&view) == state.segments.iter().map(|record| record.id).collect();
                let letters: Result<Vec<_>> = files.iter().map(|file| DeadLetterReader::open(file.path())).collect();
                match letters {
                    Ok(letters) if is_same => break (view, state, letters),
                    Err(error) if tries > TRIES => return Err(error),
                    Ok(_) if tries > TRIES => {
                        let there = ids(&view);
                        let missing = state.segments.iter().filter(|record| !there.contains(&record.id));
                        let files: Vec<&str> = missing.map(|record| record.file.as_str()).collect();
                        return Err(Error::Unavailable(format!(
                            "partition {} of table '{}' has segments that cannot be read ({}); see rt.segments",
                            partition.id,
                            self.name,
                            files.join(", ")
                        )));
                    }
                    _ => std::thread::sleep(std::time::Duration::from_millis(5)),
                }
            };
            for letter in letters.into_iter().flatten() {
                let letter = letter?;
                *all.letters.entry((letter.stream, letter.reject.offset)).or_default() += 1;
            }
            all.lost.extend(state.lost.into_iter().map(|(segment, rows)| ((partition.id, segment), rows)));
            all.deleted.extend(state.deleted.into_iter().map(|(segment, rows)| ((partition.id, segment), rows)));
            for (stream, offset) in state.positions {
                let known = all.positions.entry(stream).or_insert(offset);
                *known = (*known).min(offset);
            }
            all.account.add(&state.account);
            all.partitions.push((partition.id, view, state.segments));
        }
        Ok(all)
    }
}

impl Readable {
    fn new(feed: Arc<FeedState>, committed: &Committed) -> Self {
        let positions = &committed.positions;
        let of_feed = |id: &StreamId| id.source == feed.feed.source;
        let mut streams = BTreeMap::new();
        let mut refused = None;
        for (id, position) in positions.iter().filter(|(id, _)| of_feed(id)) {
            match feed.feed.connector.watermarks(id.partition) {
                Ok(marks) => {
                    // Messages before the start were never read: what is accounted for tells where that was.
                    let low = match feed.feed.start {
                        Start::Earliest => marks.low,
                        _ => marks.low.max(committed.first(*id).unwrap_or(*position)),
                    };
                    if low < *position {
                        streams.insert(id.partition, (low, *position));
                    }
                }
                Err(error) => refused = Some(error.to_string()),
            }
        }
        Self { feed, streams, refused }
    }

    fn id(&self, partition: u32) -> StreamId {
        StreamId { source: self.feed.feed.source, partition }
    }
}

fn go_on(cancelled: &AtomicBool) -> Result<()> {
    match cancelled.load(Ordering::Relaxed) {
        true => Err(Error::Unavailable("the check was cancelled".into())),
        false => Ok(()),
    }
}

fn covers(ranges: &[OffsetRange], stream: StreamId, offset: u64) -> bool {
    ranges.iter().any(|range| range.stream == stream && (range.from..range.to).contains(&offset))
}
