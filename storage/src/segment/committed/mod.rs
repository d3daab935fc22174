//! A committed segment: an immutable file, mapped, its columns opened when a query first needs them and decoded where it needs them.
//!
//! What always holds: bytes are handed out only after the checksum of their section was right (once, at the column's first use) and
//! after the map was found sound once they were read; what is handed out does not point into the map, so that nothing can change it
//! afterwards. A segment that failed either is *quarantined*: it goes on failing, and nothing else does.

mod aggregate;
mod detach;
mod distinct;
mod filter;
mod indexes;
mod lookup;
mod masked;
mod scan;
mod sorted;
pub(crate) mod star;
mod take;

use std::{
    fmt,
    ops::Range,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arrow::{array::ArrayRef, buffer::Buffer};

use super::{
    ColumnStats, Lineage, Segment, SegmentState,
    format::{self, Footer, Section},
    inspect::{buffers, check_section},
};
use crate::{
    Error, Result,
    aggregate::{AggregateRequest, Aggregation, MergedGroups, metadata},
    forward::ColumnReader,
    ids::{ColumnId, IndexId, OffsetRange, SegmentId},
    mmap::MappedFile,
    scan::{BatchIterator, ScanMetrics, ScanRequest},
    schema::TableSchema,
    upsert::Validity,
};

/// Sections up to this size are copied to the heap when their column is opened. So what they hold (small dictionaries above all) can be
/// part of what a scan hands out, without a copy for each batch.
const COPIED_BYTES_MAX: u64 = 64 * 1024;

/// The next serial.
static SERIALS: AtomicU64 = AtomicU64::new(0);

/// What the commit record says of the file; anything else is not that file.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub id: SegmentId,
    pub bytes: u64,
    /// [`super::builder::SealedFile::checksum`].
    pub checksum: u32,
}

/// Is told when an open segment turns out to be damaged: once, by the query that found it. Must be quick and must not fail.
pub trait Watcher: Send + Sync + fmt::Debug {
    fn quarantined(&self, segment: SegmentId, error: &Error);
}

/// As [`open`]; from then on `watcher` is told of damage that is found.
pub fn open_watched(path: &Path, expected: &Expected, watcher: Arc<dyn Watcher>) -> Result<Arc<dyn Segment>> {
    Ok(Arc::new(CommittedSegment { watcher: Some(watcher), ..opened(path, expected)? }))
}

/// Opens a segment file: maps it and reads its footer, a fraction of a millisecond. Sections are verified when first used. Errors: `Io`;
/// `Corrupt` for damaged bytes and for a file that is not the expected one.
pub fn open(path: &Path, expected: &Expected) -> Result<Arc<dyn Segment>> {
    Ok(Arc::new(opened(path, expected)?))
}

fn opened(path: &Path, expected: &Expected) -> Result<CommittedSegment> {
    let file = MappedFile::open(path)?;
    if file.length() as u64 != expected.bytes {
        return Err(Error::corrupt(path, "file length", expected.bytes, file.length()));
    }
    let (trailer, footer) = format::read_footer(path, file.bytes())?;
    file.check()?;
    if trailer.footer_crc != expected.checksum {
        let what = "footer, CRC-32C in the commit record";
        return Err(Error::corrupt(path, what, format::hex(expected.checksum), format::hex(trailer.footer_crc)));
    }
    if footer.id != expected.id {
        return Err(Error::corrupt(path, "footer, segment id", expected.id, footer.id));
    }
    Ok(CommittedSegment::new(file, footer, expected.checksum))
}

/// See [`open`]. Its methods are about the indexes beside it.
#[derive(Debug)]
pub struct CommittedSegment {
    file: Arc<MappedFile>,
    id: SegmentId,
    checksum: u32,
    rows: u32,
    schema: Arc<TableSchema>,
    offsets: Vec<OffsetRange>,
    /// By index in the schema.
    stats: Box<[ColumnStats]>,
    columns: Box<[CommittedColumn]>,
    /// A section or a value was not what it must be.
    damaged: AtomicBool,
    watcher: Option<Arc<dyn Watcher>>,
    indexes: indexes::Indexes,
    /// No other opened segment of this process has it, whatever their ids.
    serial: u64,
    lineage: OnceLock<Lineage>,
}

#[derive(Debug)]
struct CommittedColumn {
    encoding: u8,
    sections: Box<[Section]>,
    /// Bytes of all sections.
    bytes: u64,
    /// Opened and verified, or why not, for ever.
    reader: OnceLock<Result<ColumnReader>>,
}

impl CommittedSegment {
    fn new(file: Arc<MappedFile>, footer: Footer, checksum: u32) -> Self {
        let mut stats = Vec::with_capacity(footer.columns.len());
        let mut columns = Vec::with_capacity(footer.columns.len());
        for column in footer.columns {
            stats.push(column.stats);
            columns.push(CommittedColumn {
                encoding: column.encoding,
                bytes: column.sections.iter().map(|section| section.length).sum(),
                sections: column.sections.into(),
                reader: OnceLock::new(),
            });
        }
        Self {
            file,
            id: footer.id,
            checksum,
            rows: footer.rows,
            schema: Arc::new(footer.schema),
            offsets: footer.offsets,
            stats: stats.into(),
            columns: columns.into(),
            damaged: AtomicBool::new(false),
            watcher: None,
            indexes: indexes::Indexes::default(),
            serial: SERIALS.fetch_add(1, Ordering::Relaxed),
            lineage: OnceLock::new(),
        }
    }

    /// [`super::builder::SealedFile::checksum`].
    pub(crate) fn checksum(&self) -> u32 {
        self.checksum
    }

    /// The rows are those of a segment that readers know, in the same order. To be said before any reader has this one.
    pub(crate) fn continue_lineage(&self, known: Lineage) {
        let _ = self.lineage.set(known);
    }

    /// What tells the segment from all others that this process opened; `None` when its bytes are not to be trusted any more.
    pub(crate) fn serial(&self) -> Option<u64> {
        (!self.damaged.load(Ordering::Relaxed) && self.file.check().is_ok()).then_some(self.serial)
    }

    /// The column at an index of the schema, verified.
    fn reader(&self, index: usize) -> Result<&ColumnReader> {
        let column = &self.columns[index];
        column.reader.get_or_init(|| self.open_column(index)).as_ref().map_err(|error| self.failed(error.clone()))
    }

    /// Reads all columns and checks their sums. Errors: `Corrupt` and `Poisoned`; the segment is then quarantined.
    pub fn verify(&self) -> Result<()> {
        (0..self.columns.len()).try_for_each(|index| self.reader(index).map(|_| ()))
    }

    fn open_column(&self, index: usize) -> Result<ColumnReader> {
        let (column, data) = (&self.schema.columns[index], &self.columns[index]);
        let buffers = data
            .sections
            .iter()
            .enumerate()
            .map(|(at, section)| self.open_section(section, &format!("column {}, section {at}", column.name)))
            .collect::<Result<Vec<_>>>()?;
        // A checksum over zeros from a file that shrank is no verdict on the bytes.
        self.file.check()?;
        ColumnReader::open(&column.data_type, data.encoding, self.rows, buffers)
            .map_err(|error| self.named(error, index))
    }

    fn open_section(&self, section: &Section, what: &str) -> Result<Buffer> {
        let range = section.offset as usize..section.end() as usize;
        self.file.will_need(range.clone());
        let checked = check_section(&self.file, section, what);
        self.file.check()?;
        checked?;
        let buffer = self.file.buffer(range).ok_or_else(|| {
            Error::corrupt(self.file.path(), what, format!("an end before {}", self.file.length()), section.end())
        })?;
        Ok(if section.length <= COPIED_BYTES_MAX { Buffer::from_slice_ref(buffer.as_slice()) } else { buffer })
    }

    /// Adds file and column to an error of a codec.
    fn named(&self, error: Error, index: usize) -> Error {
        error.at(self.file.path(), &format!("column {}", self.schema.columns[index].name))
    }

    /// Remembers that the segment is damaged, if that is what the error says. A file that shrank under us reads as nonsense: then that is
    /// the error.
    fn failed(&self, error: Error) -> Error {
        let error = self.file.check().err().unwrap_or(error);
        if matches!(error, Error::Corrupt { .. } | Error::Poisoned { .. }) && !self.damaged.swap(true, Ordering::SeqCst)
        {
            match &self.watcher {
                Some(watcher) => watcher.quarantined(self.id, &error),
                None => tracing::error!(segment = self.id.0, %error, "segment quarantined"),
            }
        }
        error
    }
}

impl Segment for CommittedSegment {
    fn answering_tree(&self, request: &AggregateRequest) -> Option<(IndexId, u32)> {
        self.star_tree(request).map(|tree| (tree, 0))
    }

    fn answers_by_metadata(&self, request: &AggregateRequest) -> bool {
        distinct::is_known(self, None, request) || metadata::answers_all(self, None, request)
    }

    fn id(&self) -> SegmentId {
        self.id
    }

    fn state(&self) -> SegmentState {
        if self.damaged.load(Ordering::SeqCst) || self.file.is_poisoned() {
            SegmentState::Quarantined
        } else {
            SegmentState::Committed
        }
    }

    fn rows(&self) -> u32 {
        self.rows
    }

    fn lineage(&self) -> Lineage {
        *self.lineage.get_or_init(Lineage::new)
    }

    fn bytes(&self) -> u64 {
        self.file.length() as u64
    }

    fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    fn offsets(&self) -> &[OffsetRange] {
        &self.offsets
    }

    fn stats(&self, column: ColumnId) -> Option<&ColumnStats> {
        self.schema.index_of(column).map(|index| &self.stats[index])
    }

    fn encoding(&self, column: ColumnId) -> Option<String> {
        let index = self.schema.index_of(column)?;
        let damaged = |_| "damaged".to_owned();
        let data = &self.columns[index];
        if let Some(opened) = data.reader.get() {
            return Some(opened.as_ref().map_or_else(|error| damaged(error.clone()), ColumnReader::encoding_name));
        }
        // Listing the segments must not read all their data: the name alone needs no checksum.
        let reader = buffers(&self.file, &data.sections).and_then(|buffers| {
            ColumnReader::open(&self.schema.columns[index].data_type, data.encoding, self.rows, buffers)
        });
        Some(reader.map_or_else(damaged, |reader| reader.encoding_name()))
    }

    fn column_bytes(&self, column: ColumnId) -> Option<u64> {
        self.schema.index_of(column).map(|index| self.columns[index].bytes)
    }

    fn take(&self, columns: &[ColumnId], rows: &[u32]) -> Result<Vec<ArrayRef>> {
        self.values_of(columns, rows).map_err(|error| self.failed(error))
    }

    fn masked(self: Arc<Self>, validity: Arc<Validity>) -> Arc<dyn Segment> {
        Arc::new(masked::MaskedSegment::new(self, validity))
    }

    fn scan(
        self: Arc<Self>,
        rows: Range<u32>,
        request: Arc<ScanRequest>,
        metrics: Arc<ScanMetrics>,
    ) -> Result<BatchIterator> {
        self.contains(&rows)?;
        Ok(Box::new(scan::CommittedScan::new(self, rows, None, request, metrics)?))
    }

    fn aggregate(
        self: Arc<Self>,
        rows: Range<u32>,
        request: Arc<AggregateRequest>,
        metrics: Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>> {
        self.contains(&rows)?;
        aggregate::begin(&self, rows, None, &request, &metrics)
    }

    fn renew_star_trees(self: Arc<Self>, validity: &Validity) -> Result<usize> {
        self.renew(validity)
    }

    fn aggregate_into(
        self: Arc<Self>,
        rows: Range<u32>,
        groups: MergedGroups,
        metrics: Arc<ScanMetrics>,
    ) -> Result<Box<dyn Aggregation>> {
        self.contains(&rows)?;
        aggregate::go_on_with(groups, &self, rows, None, &metrics)
    }

    fn as_committed(&self) -> Option<&CommittedSegment> {
        Some(self)
    }
}

#[cfg(test)]
mod tests;
