//! A segment file told to a person, and checked byte by byte.

use std::{ops::Range, path::Path};

use super::{
    ColumnStats,
    format::{self, Footer, Section},
};
use crate::{
    Error, Result,
    forward::ColumnReader,
    ids::{OffsetRange, PartitionId, SegmentId, TableId},
    mmap::MappedFile,
    schema::{Column, TableSchema},
};

/// What a segment file says of itself.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub version: u32,
    pub bytes: u64,
    /// CRC-32C of the footer, as the commit record has it.
    pub checksum: u32,
    pub table: TableId,
    pub partition: PartitionId,
    pub id: SegmentId,
    pub rows: u32,
    pub created_at_us: i64,
    pub schema: TableSchema,
    /// Smallest and largest value of the time column, in its own unit (days or microseconds).
    pub time_range: Option<(i64, i64)>,
    pub offsets: Vec<OffsetRange>,
    /// In the order of the schema.
    pub columns: Vec<ColumnInspection>,
}

#[derive(Clone, Debug)]
pub struct ColumnInspection {
    pub column: Column,
    /// How the values are kept, in words; `damaged` when the column cannot be opened ([`verify`] tells why).
    pub encoding: String,
    /// The encoding's byte on disk.
    pub encoding_byte: u8,
    pub stats: ColumnStats,
    /// Bytes of all sections, without padding.
    pub bytes: u64,
    pub sections: Vec<SectionInspection>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionInspection {
    pub offset: u64,
    pub length: u64,
    /// CRC-32C of its bytes, as the footer has it.
    pub crc: u32,
}

/// Something wrong with a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The part of the file: "header", "column status, section 1", "padding", "footer".
    pub section: String,
    /// Byte position in the file: of the wrong byte where that is known, else where the part starts.
    pub position: u64,
    pub expected: String,
    pub found: String,
}

/// Reads header, footer and trailer. Fails where they are damaged; does not check the sections.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let file = MappedFile::open(path)?;
    let (trailer, footer) = format::read_footer(path, file.bytes())?;
    let columns = footer
        .schema
        .columns
        .iter()
        .zip(&footer.columns)
        .map(|(column, data)| {
            let sections: Vec<_> = data
                .sections
                .iter()
                .map(|s| SectionInspection { offset: s.offset, length: s.length, crc: s.crc })
                .collect();
            let opened = buffers(&file, &data.sections)
                .and_then(|buffers| ColumnReader::open(&column.data_type, data.encoding, footer.rows, buffers));
            ColumnInspection {
                column: column.clone(),
                encoding: opened.map_or_else(|_| "damaged".to_owned(), |reader| reader.encoding_name()),
                encoding_byte: data.encoding,
                stats: data.stats.clone(),
                bytes: sections.iter().map(|section| section.length).sum(),
                sections,
            }
        })
        .collect();
    file.check()?;
    Ok(Inspection {
        version: trailer.version,
        bytes: trailer.file_bytes,
        checksum: trailer.footer_crc,
        table: footer.table,
        partition: footer.partition,
        id: footer.id,
        rows: footer.rows,
        created_at_us: footer.created_at_us,
        time_range: footer.time_range,
        offsets: footer.offsets,
        schema: footer.schema,
        columns,
    })
}

/// Reads the whole file, decodes every column, and lists what is wrong; empty means that every byte is as it was written. `Err` only where
/// the file cannot be read at all.
pub fn verify(path: &Path) -> Result<Vec<Problem>> {
    let file = match MappedFile::open(path) {
        Err(error @ Error::Corrupt { .. }) => return Ok(vec![problem(error, 0)]),
        other => other?,
    };
    let problems = match format::read_footer(path, file.bytes()) {
        // Without a footer nobody knows where the sections are.
        Err(error) => {
            vec![problem(error, format::start_of_damage(path, file.bytes()) as u64)]
        }
        Ok((trailer, footer)) => {
            let footer_start = trailer.file_bytes - format::TRAILER_BYTES as u64 - u64::from(trailer.footer_bytes);
            verify_sections(&file, &footer, footer_start)
        }
    };
    file.check()?;
    Ok(problems)
}

fn verify_sections(file: &std::sync::Arc<MappedFile>, footer: &Footer, footer_start: u64) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut end = format::HEADER_BYTES as u64;
    for (column, data) in footer.schema.columns.iter().zip(&footer.columns) {
        let mut sound = true;
        for (index, section) in data.sections.iter().enumerate() {
            verify_padding(file, end..section.offset, &mut problems);
            end = section.end();
            if let Err(error) = check_section(file, section, &format!("column {}, section {index}", column.name)) {
                problems.push(problem(error, section.offset));
                sound = false;
            }
        }
        let position = data.sections.first().map_or(footer_start, |section| section.offset);
        if sound && let Err(error) = decode_all(file, footer, column, &data.sections, data.encoding) {
            problems.push(problem(error.at(file.path(), &format!("column {}", column.name)), position));
        }
    }
    verify_padding(file, end..footer_start, &mut problems);
    problems
}

fn verify_padding(file: &MappedFile, range: Range<u64>, problems: &mut Vec<Problem>) {
    let bytes = file.bytes().get(range.start as usize..range.end as usize).unwrap_or_default();
    if let Some(at) = bytes.iter().position(|byte| *byte != 0) {
        problems.push(Problem {
            section: "padding".into(),
            position: range.start + at as u64,
            expected: "0".into(),
            found: bytes[at].to_string(),
        });
    }
}

/// Decodes every row, to see that bytes with a right checksum also mean something.
fn decode_all(
    file: &std::sync::Arc<MappedFile>,
    footer: &Footer,
    column: &Column,
    sections: &[Section],
    encoding: u8,
) -> Result<()> {
    const ROWS: u32 = 64 * 1024;
    let reader = ColumnReader::open(&column.data_type, encoding, footer.rows, buffers(file, sections)?)?;
    let mut start = 0;
    while start < footer.rows {
        let end = footer.rows.min(start.saturating_add(ROWS));
        reader.decode(start..end)?;
        start = end;
    }
    Ok(())
}

/// The sections of a column as buffers of the map.
pub(super) fn buffers(file: &std::sync::Arc<MappedFile>, sections: &[Section]) -> Result<Vec<arrow::buffer::Buffer>> {
    sections
        .iter()
        .map(|section| {
            file.buffer(section.offset as usize..section.end() as usize).ok_or_else(|| {
                Error::corrupt(file.path(), "section", format!("an end before {}", file.length()), section.end())
            })
        })
        .collect()
}

/// Compares a section's bytes with the checksum that the footer has.
pub(crate) fn check_section(file: &MappedFile, section: &Section, what: &str) -> Result<()> {
    let bytes = file
        .bytes()
        .get(section.offset as usize..section.end() as usize)
        .ok_or_else(|| Error::corrupt(file.path(), what, format!("an end before {}", file.length()), section.end()))?;
    let found = crc32c::crc32c(bytes);
    if found == section.crc {
        return Ok(());
    }
    let what = format!("{what} (bytes {} to {}), CRC-32C", section.offset, section.end());
    Err(Error::corrupt(file.path(), what, format::hex(section.crc), format::hex(found)))
}

fn problem(error: Error, position: u64) -> Problem {
    match error {
        Error::Corrupt { what, expected, found, .. } => Problem { section: what, position, expected, found },
        other => Problem {
            section: "file".into(),
            position,
            expected: "a readable segment".into(),
            found: other.to_string(),
        },
    }
}
