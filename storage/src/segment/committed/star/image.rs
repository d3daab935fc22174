//! A segment file inside of another file.

use std::{ops::Range, sync::Arc};

use super::super::{CommittedSegment, Watcher};
use crate::{
    Error, Result,
    forward::EncodedColumn,
    ids::SegmentId,
    mmap::MappedFile,
    schema::TableSchema,
    segment::format::{self, ColumnFooter, Footer, Section, Trailer, align},
};

/// The bytes of a segment of these columns.
pub(super) fn write(schema: TableSchema, rows: u32, encoded: Vec<EncodedColumn>) -> Result<Vec<u8>> {
    let mut out = format::header().to_vec();
    let pad = |out: &mut Vec<u8>| out.resize(align(out.len() as u64) as usize, 0);
    let mut columns = Vec::with_capacity(encoded.len());
    for column in encoded {
        if column.rows != rows {
            return Err(Error::Invalid(format!("a column of {} documents beside {rows}", column.rows)));
        }
        let mut sections = Vec::with_capacity(column.sections.len());
        for bytes in &column.sections {
            pad(&mut out);
            let section = Section { offset: out.len() as u64, length: bytes.len() as u64, crc: crc32c::crc32c(bytes) };
            sections.push(section);
            out.extend_from_slice(bytes);
        }
        columns.push(ColumnFooter { encoding: column.encoding as u8, stats: column.stats, sections });
    }
    pad(&mut out);
    let footer = Footer {
        table: Default::default(),
        partition: Default::default(),
        id: SegmentId::default(),
        created_at_us: 0,
        rows,
        time_range: None,
        offsets: Vec::new(),
        schema,
        columns,
    }
    .encode()?;
    let trailer = Trailer {
        file_bytes: (out.len() + footer.len() + format::TRAILER_BYTES) as u64,
        footer_bytes: footer.len() as u32,
        footer_crc: crc32c::crc32c(&footer),
        version: format::VERSION,
    };
    out.extend_from_slice(&footer);
    out.extend_from_slice(&trailer.encode());
    Ok(out)
}

/// Opens the segment that lies at `place` of the file, which begins at a multiple of 64.
pub(super) fn open(file: &Arc<MappedFile>, place: Range<usize>) -> Result<CommittedSegment> {
    let short = || Error::corrupt(file.path(), "rollup", format!("an end before {}", file.length()), place.end);
    let bytes = file.bytes().get(place.clone()).ok_or_else(short)?;
    let (trailer, mut footer) = format::read_footer(file.path(), bytes)?;
    file.check()?;
    for section in footer.columns.iter_mut().flat_map(|column| &mut column.sections) {
        section.offset += place.start as u64;
    }
    let segment = CommittedSegment::new(Arc::clone(file), footer, trailer.footer_crc);
    Ok(CommittedSegment { watcher: Some(Arc::new(Silent)), ..segment })
}

/// A rollup that is damaged is no damaged segment: who asked it asks the rows, and tells.
#[derive(Debug)]
struct Silent;

impl Watcher for Silent {
    fn quarantined(&self, _: SegmentId, _: &Error) {}
}
