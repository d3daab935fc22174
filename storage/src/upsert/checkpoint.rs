//! The file that a key map is kept in over restarts: what the keys of some committed segments alone make of them. The bytes are described in
//! `storage/README.md`, "Key map files".
//!
//! ```text
//! [header 64][entries of shard 0]…[entries of shard 255][validity, undecided rows of each segment][footer][trailer 32]
//! ```
//!
//! It is derived from segments and stands in no log: a file that is damaged, of another table, key or version is refused as a whole, and the map is
//! made again. Every byte of it is covered by a checksum or has one value only.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::map::{Location, SHARDS};
use crate::{
    Error, Result,
    ids::SegmentId,
    row_set::RowSet,
    segment::{
        builder::{Output, fail_io},
        format::{HEADER_BYTES, Section, TRAILER_BYTES, bytes::Reader, bytes::Writer, escape, hex},
    },
    upsert::Validity,
};

/// Its name in the directory of a partition.
pub const KEY_MAP_FILE: &str = "keys.map";
const MAGIC: [u8; 8] = *b"TIDEMKEY";
const END_MAGIC: [u8; 8] = *b"YEKMEDIT";
/// Of the file, and of the hashes in it: a file of another version is not read.
const VERSION: u32 = 1;
const ENTRY_BYTES: usize = 16;
/// Bytes that the footer has for each section and for each segment.
const SECTION_BYTES: usize = 20;
const SEGMENT_BYTES: usize = 16;

/// A segment whose rows a file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Covered {
    pub(super) id: SegmentId,
    pub(super) rows: u32,
    /// Of the segment's file.
    pub(super) checksum: u32,
}

/// What a file says of one of them.
#[derive(Debug, Default)]
pub(super) struct OfSegment {
    /// Without those of its rows that are undecided.
    pub(super) validity: Validity,
    /// Rows that may have lost against rows that the file is not about.
    pub(super) undecided: RowSet,
}

/// What the file is about, so that it is taken for no other.
pub(super) fn write_identity(w: &mut Writer, table: u64, partition: u32, key: &str) -> Result<()> {
    w.u64(table);
    w.u32(partition);
    w.bytes(key.as_bytes())
}

pub(super) fn put_entry(out: &mut Vec<u8>, fingerprint: u64, segment: u32, row: u32) {
    out.extend_from_slice(&fingerprint.to_le_bytes());
    out.extend_from_slice(&segment.to_le_bytes());
    out.extend_from_slice(&row.to_le_bytes());
}

/// A file that is being written.
pub(crate) struct Unfinished<'a> {
    directory: &'a Path,
    path: PathBuf,
    out: Output<'a>,
    sections: Vec<Section>,
}

pub(crate) fn temporary(directory: &Path) -> PathBuf {
    directory.join(format!("{KEY_MAP_FILE}.tmp"))
}

impl<'a> Unfinished<'a> {
    pub(crate) fn create(directory: &'a Path, temporary: &'a Path) -> Result<Self> {
        fail_io("key_map::create", "create", temporary)?;
        let mut out = Output::create(temporary)?;
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out.write(&header)?;
        Ok(Self { directory, path: temporary.to_owned(), out, sections: Vec::new() })
    }

    pub(crate) fn section(&mut self, bytes: &[u8]) -> Result<()> {
        fail_io("key_map::write", "write", &self.path)?;
        let section = Section { offset: self.out.position(), length: bytes.len() as u64, crc: crc32c::crc32c(bytes) };
        self.out.write(bytes)?;
        self.sections.push(section);
        Ok(())
    }

    /// Syncs the file and gives it its name. Returns its length.
    pub(super) fn finish(mut self, identity: Writer, segments: &[(Covered, OfSegment)]) -> Result<u64> {
        for (_, of_segment) in segments {
            self.section(&of_segment.validity.to_bytes())?;
            let rows = if of_segment.undecided.is_empty() { Vec::new() } else { of_segment.undecided.to_bytes() };
            self.section(&rows)?;
        }
        let mut footer = identity;
        footer.u32(segments.len() as u32);
        for (covered, _) in segments {
            footer.u64(covered.id.0);
            footer.u32(covered.rows);
            footer.u32(covered.checksum);
        }
        footer.u32(self.sections.len() as u32);
        for section in &self.sections {
            footer.u64(section.offset);
            footer.u64(section.length);
            footer.u32(section.crc);
        }
        let footer = footer.out;
        let bytes = self.out.position() + footer.len() as u64 + TRAILER_BYTES as u64;
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&bytes.to_le_bytes());
        trailer[8..12].copy_from_slice(&(footer.len() as u32).to_le_bytes());
        trailer[12..16].copy_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
        trailer[16..20].copy_from_slice(&VERSION.to_le_bytes());
        trailer[24..].copy_from_slice(&END_MAGIC);
        self.out.write(&footer)?;
        self.out.write(&trailer)?;
        fail_io("key_map::sync_file", "sync", &self.path)?;
        self.out.sync()?;
        fail_io("key_map::rename", "rename", &self.path)?;
        let path = self.directory.join(KEY_MAP_FILE);
        fs::rename(&self.path, &path).map_err(|error| Error::io("rename", &self.path, &error))?;
        fail_io("key_map::sync_dir", "sync the directory", self.directory)?;
        let synced = File::open(self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| Error::io("sync the directory", self.directory, &error))?;
        Ok(bytes)
    }
}

/// A file of the right table and key; its sections are verified as they are read.
#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    file: File,
    sections: Vec<Section>,
    pub(super) segments: Vec<Covered>,
}

impl Checkpoint {
    /// `None` when there is none. Errors: `Io`; `Corrupt` for damaged bytes and for a file of another table, key or version.
    pub(super) fn open(directory: &Path, identity: &Writer) -> Result<Option<Self>> {
        let path = directory.join(KEY_MAP_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path, &error)),
        };
        let length = file.metadata().map_err(|error| Error::io("read the length of", &path, &error))?.len();
        let short = || Error::corrupt(&path, "file length", HEADER_BYTES + TRAILER_BYTES, length);
        let end =
            length.checked_sub(TRAILER_BYTES as u64).filter(|end| *end >= HEADER_BYTES as u64).ok_or_else(short)?;
        let (mut header, mut trailer) = ([0; HEADER_BYTES], [0; TRAILER_BYTES]);
        read_at(&file, &path, &mut header, 0)?;
        read_at(&file, &path, &mut trailer, end)?;
        let word =
            |bytes: &[u8], at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if header[..8] != MAGIC || trailer[24..] != END_MAGIC {
            let found = format!("{} and {}", escape(&header[..8]), escape(&trailer[24..]));
            return Err(Error::corrupt(&path, "magic", "those of a key map", found));
        }
        for version in [word(&header, 8), word(&trailer, 16)] {
            if version != VERSION {
                return Err(Error::corrupt(&path, "version", VERSION, version));
            }
        }
        if header[12..].iter().chain(&trailer[20..24]).any(|byte| *byte != 0) {
            return Err(Error::corrupt(&path, "header and trailer", "zeros where nothing is", "others"));
        }
        let written = u64::from(word(&trailer, 0)) | u64::from(word(&trailer, 4)) << 32;
        if written != length {
            return Err(Error::corrupt(&path, "file length", written, length));
        }
        let start = end.checked_sub(word(&trailer, 8).into()).filter(|start| *start >= HEADER_BYTES as u64);
        let start = start.ok_or_else(|| Error::corrupt(&path, "footer length", end, word(&trailer, 8)))?;
        let mut footer = vec![0; (end - start) as usize];
        read_at(&file, &path, &mut footer, start)?;
        let (found, crc) = (crc32c::crc32c(&footer), word(&trailer, 12));
        if found != crc {
            return Err(Error::corrupt(&path, "footer, CRC-32C", hex(crc), hex(found)));
        }
        let Some(rest) = footer.strip_prefix(identity.out.as_slice()) else {
            return Err(Error::corrupt(&path, "footer", "this partition and its key", "another"));
        };
        let mut fields = Reader::new(&path, rest, start + identity.out.len() as u64);
        let mut segments = Vec::new();
        for _ in 0..fields.count(SEGMENT_BYTES, "segments")? {
            let id = SegmentId(fields.u64("segment, id")?);
            segments.push(Covered {
                id,
                rows: fields.u32("segment, rows")?,
                checksum: fields.u32("segment, checksum")?,
            });
        }
        let mut sections = Vec::new();
        let mut position = HEADER_BYTES as u64;
        for _ in 0..fields.count(SECTION_BYTES, "sections")? {
            let offset = fields.u64("section, offset")?;
            let section =
                Section { offset, length: fields.u64("section, length")?, crc: fields.u32("section, CRC-32C")? };
            if section.offset != position {
                return Err(fields.corrupt("section, offset", position, section.offset));
            }
            position = position
                .checked_add(section.length)
                .filter(|end| *end <= start)
                .ok_or_else(|| fields.corrupt("section, length", format!("at most {start}"), section.length))?;
            sections.push(section);
        }
        if position != start || sections.len() != SHARDS + 2 * segments.len() || fields.remaining() > 0 {
            return Err(fields.corrupt("sections", format!("{SHARDS} and two a segment"), sections.len()));
        }
        Ok(Some(Self { path, file, sections, segments }))
    }

    pub(super) fn corrupt(&self, what: &str, expected: impl ToString, found: impl ToString) -> Error {
        Error::corrupt(&self.path, what, expected, found)
    }

    fn read(&self, index: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let section = &self.sections[index];
        bytes.resize(section.length as usize, 0);
        read_at(&self.file, &self.path, bytes, section.offset)?;
        let found = crc32c::crc32c(bytes);
        if found != section.crc {
            let what = format!("section {index} at byte {}, CRC-32C", section.offset);
            return Err(Error::corrupt(&self.path, what, hex(section.crc), hex(found)));
        }
        Ok(())
    }

    /// Puts the entries of a shard into `entries`; the segments of their locations are places in `segments`. `bytes` is room to work in.
    pub(super) fn shard(&self, shard: usize, bytes: &mut Vec<u8>, entries: &mut Vec<(u64, Location)>) -> Result<()> {
        self.read(shard, bytes)?;
        let (all, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(self.corrupt("entries", format!("{ENTRY_BYTES} bytes each"), bytes.len()));
        }
        entries.clear();
        for entry in all {
            let (fingerprint, location) = entry.split_at(8);
            let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
            let location = Location { segment: word(&location[..4]) as u32, row: word(&location[4..]) as u32 };
            if self.segments.get(location.segment as usize).is_none_or(|segment| location.row >= segment.rows) {
                return Err(self.corrupt("entries", "rows of the segments", format!("{location:?}")));
            }
            entries.push((word(fingerprint), location));
        }
        Ok(())
    }

    /// What the file says of the segment that is at this place.
    pub(super) fn of_segment(&self, at: usize, bytes: &mut Vec<u8>) -> Result<OfSegment> {
        let rows = self.segments[at].rows;
        self.read(SHARDS + 2 * at, bytes)?;
        let validity = Validity::from_bytes(bytes, rows).ok_or_else(|| {
            self.corrupt("validity", format!("that of {rows} rows"), format!("{} bytes", bytes.len()))
        })?;
        self.read(SHARDS + 2 * at + 1, bytes)?;
        let undecided = if bytes.is_empty() { RowSet::default() } else { RowSet::from_bytes(bytes)? };
        if undecided.last().is_some_and(|last| last >= rows) {
            return Err(self.corrupt("undecided rows", format!("those of {rows}"), "others"));
        }
        Ok(OfSegment { validity, undecided })
    }
}

fn read_at(file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(bytes, offset).map_err(|error| Error::io("read", path, &error))
}
