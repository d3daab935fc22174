//! Sealing: one consuming segment written as one immutable file.
//!
//! ```text
//! encode column by column ─► <name>.tmp ─► fsync ─► rename to <name> ─► fsync of the directory ─► open again, verify every byte
//! ```
//!
//! What a crash leaves: before the rename a `.tmp` file, after it a file that no commit record names. Both may be deleted. A failed fsync
//! is final: the kernel may have dropped the bytes and called the pages clean, so the file is given up and never synced again; the
//! next try writes a new one.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::array::{Array, ArrayRef};

use super::{
    ColumnStats, Segment,
    format::{self, ColumnFooter, Footer, Section, Trailer},
    inspect,
    order::Order,
};
use crate::{
    Error, Result,
    forward::{EncodeOptions, encode_column},
    ids::{ColumnId, OffsetRange, PartitionId, SchemaVersion, TableId},
    scalar::Scalar,
    segment::consuming::ConsumingSegment,
};

/// What a segment file says of itself beside its rows.
#[derive(Clone, Copy, Debug)]
pub struct SealContext {
    pub table: TableId,
    pub partition: PartitionId,
    /// Wall clock, microseconds since 1970-01-01T00:00:00Z.
    pub created_at_us: i64,
}

/// A complete, synced and verified segment file that nothing names yet.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedFile {
    pub path: PathBuf,
    pub bytes: u64,
    /// CRC-32C of the footer, which holds the CRC-32C of every section: it stands for every byte of the file.
    pub checksum: u32,
    pub rows: u32,
    pub schema_version: SchemaVersion,
    /// Smallest and largest value of the time column, in its own unit (days or microseconds).
    pub time_range: Option<(i64, i64)>,
    pub offsets: Vec<OffsetRange>,
    /// Which row of the consuming segment each row of the file was, where they are in another order.
    pub order: Option<Arc<[u32]>>,
}

/// Name of the file while it is being written.
pub fn temporary_name(name: &str) -> String {
    format!("{name}.tmp")
}

/// Writes `segment` as the file `name` in `dir` and proves that it is there. A file of that name, or of its temporary name, is replaced.
///
/// When it fails, files of both names may be left and are not to be used; another call starts from the beginning. Blocks on
/// processor and disk: call it on a thread that may wait. Memory: one encoded column at a time.
pub fn seal(segment: &ConsumingSegment, dir: &Path, name: &str, context: &SealContext) -> Result<SealedFile> {
    seal_sorted(segment, dir, name, context, &[])
}

/// As [`seal`], with the rows in the order of the values of `by`, the first column first; equal ones as they came. Also takes 50 to 70 bytes
/// of memory a row.
pub fn seal_sorted(
    segment: &ConsumingSegment,
    dir: &Path,
    name: &str,
    context: &SealContext,
    by: &[ColumnId],
) -> Result<SealedFile> {
    let temporary = dir.join(temporary_name(name));
    let path = dir.join(name);
    let order = Order::of(segment, by)?;
    let written = write_file(segment, &temporary, context, order.as_ref())?;

    fail_io("seal::rename", "rename", &temporary)?;
    fs::rename(&temporary, &path).map_err(|error| Error::io("rename", &temporary, &error))?;
    fail_io("seal::sync_dir", "sync the directory", dir)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| Error::io("sync the directory", dir, &error))?;

    fail_io("seal::verify", "verify", &path)?;
    verify(&path, &written)?;
    Ok(SealedFile {
        path,
        bytes: written.trailer.file_bytes,
        checksum: written.trailer.footer_crc,
        rows: segment.rows(),
        schema_version: segment.schema().version,
        time_range: written.footer.time_range,
        offsets: segment.offsets().to_vec(),
        order: order.map(|order| order.rows(segment).into()),
    })
}

struct Written {
    footer: Footer,
    trailer: Trailer,
}

fn write_file(
    segment: &ConsumingSegment,
    path: &Path,
    context: &SealContext,
    order: Option<&Order>,
) -> Result<Written> {
    fail_io("seal::create", "create", path)?;
    let mut out = Output::create(path)?;
    out.write(&format::header())?;

    let schema = segment.schema();
    let mut columns = Vec::with_capacity(schema.columns.len());
    for (index, column) in schema.columns.iter().enumerate() {
        let mut chunks: Vec<ArrayRef> =
            segment.chunks().map(|chunk| ArrayRef::clone(chunk.batch().column(index))).collect();
        if let Some(order) = order {
            chunks = order.apply(&chunks)?;
        }
        let nulls: usize = chunks.iter().map(|chunk| chunk.null_count()).sum();
        if nulls > 0 && !column.nullable {
            return Err(Error::Invalid(format!("column {} is NOT NULL and holds {nulls} nulls", column.name)));
        }
        let options = EncodeOptions { compression: column.compression, ..EncodeOptions::default() };
        let encoded = encode_column(&column.data_type, &chunks, &options)?;
        if encoded.rows != segment.rows() {
            return Err(Error::Invalid(format!(
                "column {} was encoded with {} rows instead of {}",
                column.name,
                encoded.rows,
                segment.rows()
            )));
        }
        fail_io("seal::write", "write", path)?;
        let sections = encoded.sections.iter().map(|bytes| out.section(bytes)).collect::<Result<Vec<_>>>()?;
        columns.push(ColumnFooter { encoding: encoded.encoding as u8, stats: encoded.stats, sections });
    }
    out.pad()?;

    let footer = Footer {
        table: context.table,
        partition: context.partition,
        id: segment.id(),
        created_at_us: context.created_at_us,
        rows: segment.rows(),
        time_range: time_range(segment, &columns),
        offsets: segment.offsets().to_vec(),
        schema: schema.as_ref().clone(),
        columns,
    };
    let bytes = footer.encode()?;
    let footer_bytes = u32::try_from(bytes.len())
        .ok()
        .filter(|length| *length <= format::FOOTER_BYTES_MAX)
        .ok_or_else(|| Error::Invalid(format!("a footer of {} bytes is too long", bytes.len())))?;
    let trailer = Trailer {
        file_bytes: out.position + bytes.len() as u64 + format::TRAILER_BYTES as u64,
        footer_bytes,
        footer_crc: crc32c::crc32c(&bytes),
        version: format::VERSION,
    };
    out.write(&bytes)?;
    out.write(&trailer.encode())?;

    fail_io("seal::sync_file", "sync", path)?;
    out.sync()?;
    Ok(Written { footer, trailer })
}

/// Reads the file as a stranger would and compares: the footer is the one we meant, and every byte passes its check.
fn verify(path: &Path, written: &Written) -> Result<()> {
    let problems = inspect::verify(path)?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(Error::corrupt(path, problem.section, problem.expected, problem.found));
    }
    let file = crate::mmap::MappedFile::open(path)?;
    let (trailer, footer) = format::read_footer(path, file.bytes())?;
    file.check()?;
    if trailer != written.trailer || !same(&footer, &written.footer) {
        return Err(Error::corrupt(path, "footer", "the footer that was written", "another one"));
    }
    Ok(())
}

/// Equal to the byte. (NaN in statistics is not equal to itself as a number.)
fn same(a: &Footer, b: &Footer) -> bool {
    matches!((a.encode(), b.encode()), (Ok(a), Ok(b)) if a == b)
}

fn time_range(segment: &ConsumingSegment, columns: &[ColumnFooter]) -> Option<(i64, i64)> {
    let index = segment.schema().index_of(segment.schema().time_column?)?;
    match &columns.get(index)?.stats {
        ColumnStats { min: Some(Scalar::Int(min)), max: Some(Scalar::Int(max)), .. } => Some((*min, *max)),
        _ => None,
    }
}

/// A file being written, front to back.
pub(crate) struct Output<'a> {
    path: &'a Path,
    out: BufWriter<File>,
    position: u64,
}

impl<'a> Output<'a> {
    pub(crate) fn create(path: &'a Path) -> Result<Self> {
        let file = File::create(path).map_err(|error| Error::io("create", path, &error))?;
        Ok(Self { path, out: BufWriter::with_capacity(1024 * 1024, file), position: 0 })
    }

    /// Bytes written.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Everything that was written is on disk when this returns.
    pub(crate) fn sync(self) -> Result<()> {
        let Self { path, out, .. } = self;
        let file = out.into_inner().map_err(|error| Error::io("write", path, error.error()))?;
        file.sync_all().map_err(|error| Error::io("sync", path, &error))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|error| Error::io("write", self.path, &error))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn pad(&mut self) -> Result<()> {
        const ZEROS: [u8; format::ALIGNMENT as usize] = [0; format::ALIGNMENT as usize];
        let missing = format::align(self.position) - self.position;
        self.write(&ZEROS[..missing as usize])
    }

    pub(crate) fn section(&mut self, bytes: &[u8]) -> Result<Section> {
        self.pad()?;
        let section = Section { offset: self.position, length: bytes.len() as u64, crc: crc32c::crc32c(bytes) };
        self.write(bytes)?;
        Ok(section)
    }
}

/// A place where a test can make the disk fail, or stop the process.
pub(crate) fn fail_io(point: &'static str, action: &'static str, path: &Path) -> Result<()> {
    fail::fail_point!(point, |message| {
        let error = std::io::Error::other(message.unwrap_or_else(|| format!("failpoint {point}")));
        Err(Error::io(action, path, &error))
    });
    let _ = (point, action, path);
    Ok(())
}
