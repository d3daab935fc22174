//! The container of one index of one segment; the bytes are described in `storage/README.md`, "Index files".
//!
//! ```text
//! [header 64][section][pad]…[section][pad][footer][trailer 32]      as in a segment file; the footer names segment and index
//! ```

use std::{
    fs::{self, File},
    ops::Range,
    path::Path,
    sync::Arc,
};

use arrow::buffer::Buffer;

use super::{IndexKind, IndexSpec, star::format::write_definition};
use crate::{
    Error, Result,
    ids::{ColumnId, IndexId, SegmentId},
    mmap::MappedFile,
    segment::{
        builder::{Output, fail_io},
        format::{
            ALIGNMENT, HEADER_BYTES, Section, TRAILER_BYTES, align,
            bytes::{Reader, Writer},
            escape, hex,
        },
    },
};

/// How the names of index files end.
pub const INDEX_ENDING: &str = ".index";
const MAGIC: [u8; 8] = *b"TIDEMIDX";
const END_MAGIC: [u8; 8] = *b"XDIMEDIT";
/// A file of another version is built again, so that only the newest is read.
const VERSION: u32 = 1;
const SECTIONS_MAX: usize = 64;

/// Name of the file of index `id` of the segment whose file is `segment_file`.
pub fn file_name(segment_file: &str, id: IndexId) -> String {
    let stem = segment_file.rsplit_once('.').map_or(segment_file, |(stem, _)| stem);
    format!("{stem}.{id}{INDEX_ENDING}")
}

/// The stem of the segment's file and the index, of the name of an index file (also of an unfinished one).
pub fn parse_file_name(name: &str) -> Option<(&str, IndexId)> {
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let (stem, id) = name.strip_suffix(INDEX_ENDING)?.rsplit_once('.')?;
    Some((stem, IndexId(id.parse().ok()?)))
}

/// The segment that an index belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) id: SegmentId,
    /// Of the segment's file.
    pub(crate) checksum: u32,
    pub(crate) rows: u32,
}

/// What the footer says before the sections.
fn write_identity(w: &mut Writer, owner: &Owner, spec: &IndexSpec, column: ColumnId) {
    w.u64(owner.id.0);
    w.u32(owner.checksum);
    w.u32(owner.rows);
    w.u32(spec.id.0);
    w.u32(column.0);
    w.u8(spec.kind.byte());
    match &spec.kind {
        IndexKind::Inverted | IndexKind::Range | IndexKind::Sorted | IndexKind::Json | IndexKind::Text => {}
        IndexKind::Geo => w.u32(spec.columns.get(1).map_or(u32::MAX, |column| column.0)),
        IndexKind::Bloom { fpp } => w.u64(fpp.to_bits()),
        IndexKind::JsonPaths(paths) => {
            w.u8(paths.max_levels.unwrap_or(0));
            for list in [&paths.paths, &paths.exclude] {
                w.u16(list.len() as u16);
                for path in list {
                    w.u16(path.len() as u16);
                    for key in path {
                        w.u16(key.len() as u16);
                        w.out.extend_from_slice(key.as_bytes());
                    }
                }
            }
        }
        IndexKind::StarTree(tree) => write_definition(w, tree),
    }
}

/// Writes the file `name` in `dir`, by way of a temporary one, and syncs both. Returns its length.
pub(crate) fn write(
    dir: &Path,
    name: &str,
    owner: &Owner,
    spec: &IndexSpec,
    column: ColumnId,
    sections: &[Vec<u8>],
) -> Result<u64> {
    let (temporary, path) = (dir.join(format!("{name}.tmp")), dir.join(name));
    fail_io("index::create", "create", &temporary)?;
    let mut out = Output::create(&temporary)?;
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out.write(&header)?;
    fail_io("index::write", "write", &temporary)?;
    let sections = sections.iter().map(|bytes| out.section(bytes)).collect::<Result<Vec<_>>>()?;
    out.pad()?;
    let mut footer = Writer::default();
    write_identity(&mut footer, owner, spec, column);
    footer.u16(sections.len() as u16);
    for section in &sections {
        footer.u64(section.offset);
        footer.u64(section.length);
        footer.u32(section.crc);
    }
    let footer = footer.out;
    let bytes = out.position() + footer.len() as u64 + TRAILER_BYTES as u64;
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..8].copy_from_slice(&bytes.to_le_bytes());
    trailer[8..12].copy_from_slice(&(footer.len() as u32).to_le_bytes());
    trailer[12..16].copy_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
    trailer[16..20].copy_from_slice(&VERSION.to_le_bytes());
    trailer[24..].copy_from_slice(&END_MAGIC);
    out.write(&footer)?;
    out.write(&trailer)?;
    fail_io("index::sync_file", "sync", &temporary)?;
    out.sync()?;
    fail_io("index::rename", "rename", &temporary)?;
    fs::rename(&temporary, &path).map_err(|error| Error::io("rename", &temporary, &error))?;
    fail_io("index::sync_dir", "sync the directory", dir)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| Error::io("sync the directory", dir, &error))?;
    Ok(bytes)
}

/// A mapped index file of the right segment and index; its sections are not verified yet.
#[derive(Debug)]
pub(crate) struct IndexFile {
    file: Arc<MappedFile>,
    sections: Vec<Section>,
}

impl IndexFile {
    /// Errors: `Io`; `Corrupt` for damaged bytes and for a file of another segment, index, kind or version.
    pub(crate) fn open(path: &Path, owner: &Owner, spec: &IndexSpec, column: ColumnId) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let bytes = file.bytes();
        let short = || Error::corrupt(path, "file length", HEADER_BYTES + TRAILER_BYTES, bytes.len());
        let (before, trailer) = bytes.split_last_chunk::<TRAILER_BYTES>().ok_or_else(short)?;
        let header = before.get(..HEADER_BYTES).ok_or_else(short)?;
        if header[..8] != MAGIC || trailer[24..] != END_MAGIC {
            let found = format!("{} and {}", escape(&header[..8]), escape(&trailer[24..]));
            return Err(Error::corrupt(path, "magic", "those of an index", found));
        }
        let word =
            |bytes: &[u8], at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        for version in [word(header, 8), word(trailer, 16)] {
            if version != VERSION {
                return Err(Error::corrupt(path, "version", VERSION, version));
            }
        }
        let length = u64::from(word(trailer, 0)) | u64::from(word(trailer, 4)) << 32;
        if length != bytes.len() as u64 {
            return Err(Error::corrupt(path, "file length", length, bytes.len()));
        }
        let start = before.len().checked_sub(word(trailer, 8) as usize).filter(|start| *start >= HEADER_BYTES);
        let start = start.ok_or_else(|| Error::corrupt(path, "footer length", before.len(), word(trailer, 8)))?;
        let (footer, crc) = (&before[start..], word(trailer, 12));
        let found = crc32c::crc32c(footer);
        if found != crc {
            return Err(Error::corrupt(path, "footer, CRC-32C", hex(crc), hex(found)));
        }
        let mut identity = Writer::default();
        write_identity(&mut identity, owner, spec, column);
        let Some(rest) = footer.strip_prefix(identity.out.as_slice()) else {
            return Err(Error::corrupt(
                path,
                "footer",
                format!("index {} of segment {}", spec.id, owner.id),
                "another",
            ));
        };
        let sections = read_sections(path, rest, start as u64)?;
        file.check()?;
        Ok(Self { file, sections })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.file.length() as u64
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// `Ok` when everything read from the file so far was really in it.
    pub(crate) fn check(&self) -> Result<()> {
        self.file.check()
    }

    pub(crate) fn map(&self) -> &Arc<MappedFile> {
        &self.file
    }

    /// Where a section lies in the file. Its bytes are not verified.
    pub(crate) fn place(&self, index: usize) -> Result<Range<usize>> {
        let section = self.sections.get(index).ok_or_else(|| {
            Error::corrupt(self.path(), "sections", format!("at least {}", index + 1), self.sections.len())
        })?;
        Ok(section.offset as usize..section.end() as usize)
    }

    /// One section, verified.
    pub(crate) fn section(&self, index: usize) -> Result<Buffer> {
        let range = self.place(index)?;
        crate::segment::inspect::check_section(&self.file, &self.sections[index], &format!("section {index}"))?;
        self.check()?;
        self.file
            .buffer(range.clone())
            .ok_or_else(|| Error::corrupt(self.path(), "section", format!("an end before {}", self.bytes()), range.end))
    }

    /// The sections, verified.
    pub(crate) fn sections(&self) -> Result<Vec<Buffer>> {
        (0..self.sections.len()).map(|index| self.section(index)).collect()
    }
}

fn read_sections(path: &Path, bytes: &[u8], footer: u64) -> Result<Vec<Section>> {
    let mut r = Reader::new(path, bytes, footer);
    let count = usize::from(r.u16("section count")?);
    if count > SECTIONS_MAX {
        return Err(r.corrupt("section count", format!("at most {SECTIONS_MAX}"), count));
    }
    let (mut sections, mut next) = (Vec::with_capacity(count), HEADER_BYTES as u64);
    for index in 0..count {
        let field = format!("section {index}");
        let section = Section { offset: r.u64(&field)?, length: r.u64(&field)?, crc: r.u32(&field)? };
        if section.offset != align(next) || !section.offset.is_multiple_of(ALIGNMENT) || section.end() > footer {
            return Err(r.corrupt(
                &field,
                format!("offset {} and an end before {footer}", align(next)),
                section.offset,
            ));
        }
        next = section.end();
        sections.push(section);
    }
    if r.remaining() > 0 {
        return Err(r.corrupt("end", "no more bytes", r.remaining()));
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_segment_and_index() {
        let name = file_name("s00000000000000000012.seg", IndexId(16_400));
        assert_eq!(name, "s00000000000000000012.16400.index");
        assert_eq!(parse_file_name(&name), Some(("s00000000000000000012", IndexId(16_400))));
        assert_eq!(parse_file_name(&format!("{name}.tmp")), Some(("s00000000000000000012", IndexId(16_400))));
        for other in ["s1.seg", "s1.index", "notes.txt", "s1.x.index"] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }
}
