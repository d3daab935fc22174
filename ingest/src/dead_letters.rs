//! Dead letters: messages and rows that could not become rows of a table, kept with the reason.
//!
//! A file is written at a commit, under the commit's segment id, and never changed:
//!
//! ```text
//! magic "TMDEAD01"                                                     8 bytes
//! block*   length u32 · length uncompressed u32 · crc-32c u32          12 bytes, of the compressed bytes
//!          zstd( letter* )                                             about 1 MiB uncompressed, or one long letter
//! end      0 u32 · letters in all u64 · crc-32c of these 12 bytes u32  16 bytes
//! letter   source, column, reason, raw: each u32 length and its bytes (column: length 0xffff_ffff when there is none)
//!          source id u64 · partition u32 · offset u64 · timestamp ms i64 · length of the message u64 · at µs i64
//! ```
//!
//! All numbers are little-endian. A file without its end was cut off; every other change of a byte fails a checksum. A crash while
//! writing leaves a temporary file, or a file that no commit names; both may be deleted.

mod file;
mod mention;

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tidemill_storage::{
    Error as StorageError,
    ids::{SegmentId, SourceId, StreamId},
};

pub(crate) use self::file::DeadLetterFile;
use crate::{Error, Result, commit::DeadLetterRecord, message::Reject};

const MAGIC: &[u8; 8] = b"TMDEAD01";
/// Uncompressed bytes after which a block ends.
const BLOCK_BYTES: usize = 1 << 20;
/// A block of one letter: its raw bytes, its reason, and room for names.
const BLOCK_BYTES_MAX: usize = RAW_BYTES_MAX + REASON_BYTES_MAX + BLOCK_BYTES + (1 << 20);
/// A reason quotes the beginning of a value only, so a longer one is cut.
const REASON_BYTES_MAX: usize = 64 << 10;
const NO_COLUMN: u32 = u32::MAX;
const ZSTD_LEVEL: i32 = 3;

/// Raw bytes that a dead letter keeps; of a longer message the rest is cut and the true length noted.
pub const RAW_BYTES_MAX: usize = 16 << 20;

/// What a source does with a message that cannot become a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnError {
    /// Kept in `rt.dlq`.
    #[default]
    Dlq,
    /// Counted and dropped.
    Skip,
    /// The table's ingestion stops there, until the cause is gone.
    Stop,
}

impl OnError {
    /// `dlq`, `skip` or `stop`.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "dlq" => Self::Dlq,
            "skip" => Self::Skip,
            "stop" => Self::Stop,
            _ => {
                return Err(Error::Definition {
                    message: format!("option 'on_error' has the value '{text}'"),
                    hint: Some("it takes dlq, skip or stop".into()),
                });
            }
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Dlq => "dlq",
            Self::Skip => "skip",
            Self::Stop => "stop",
        }
    }
}

/// One dead letter, as `rt.dlq` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Name of the source.
    pub source: String,
    pub stream: StreamId,
    pub reject: Reject,
    /// Length of the message; above `reject.raw.len()` when it was cut.
    pub raw_length: u64,
    /// When it was put aside: microseconds since 1970.
    pub at_us: i64,
}

/// The dead letters of one table partition that are not yet committed. Bounded: when [`DeadLetterBuffer::is_full`], commit.
#[derive(Debug, Default)]
pub struct DeadLetterBuffer {
    letters: Vec<DeadLetter>,
    bytes: usize,
    bytes_max: usize,
}

impl DeadLetterBuffer {
    pub fn new(bytes_max: usize) -> Self {
        Self { letters: Vec::new(), bytes: 0, bytes_max }
    }

    /// Keeps the reject. Always succeeds, so the bound is passed by at most what one batch brings.
    pub fn push(&mut self, source: &str, stream: StreamId, mut reject: Reject, at_us: i64) {
        let raw_length = reject.raw.len() as u64;
        // A copy of its own: a slice would keep the whole batch of messages alive.
        reject.raw = Bytes::copy_from_slice(&reject.raw[..reject.raw.len().min(RAW_BYTES_MAX)]);
        if reject.reason.len() > REASON_BYTES_MAX {
            reject.reason.truncate(reject.reason.floor_char_boundary(REASON_BYTES_MAX));
        }
        self.bytes += reject.raw.len() + reject.reason.len() + std::mem::size_of::<DeadLetter>();
        self.letters.push(DeadLetter { source: source.to_owned(), stream, reject, raw_length, at_us });
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when the partition must commit before it takes more.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    pub fn letters(&self) -> &[DeadLetter] {
        &self.letters
    }

    /// All letters; the buffer is empty afterwards.
    pub fn take(&mut self) -> Vec<DeadLetter> {
        self.bytes = 0;
        std::mem::take(&mut self.letters)
    }
}

/// Name of the file of dead letters of the commit of segment `id`, at the `attempt`-th try (0 first).
fn file_name(id: SegmentId, attempt: u32) -> String {
    match attempt {
        0 => format!("d{:020}.dead", id.0),
        attempt => format!("d{:020}-{attempt}.dead", id.0),
    }
}

/// Writes `letters` into `directory`, durable when it returns: temporary name, fsync, new name, fsync of the directory. Never
/// overwrites: a segment id may be used again after a commit that held dead letters alone, so a taken name gets a number.
pub fn write(directory: &Path, id: SegmentId, letters: &[DeadLetter]) -> Result<DeadLetterRecord> {
    let bytes = encode(letters).map_err(|error| StorageError::io("compress", directory, &error))?;
    let temporary = directory.join(format!("d{:020}.dead.tmp", id.0));
    let mut file = File::create(&temporary).map_err(|error| StorageError::io("create", &temporary, &error))?;
    file.write_all(&bytes).map_err(|error| StorageError::io("write", &temporary, &error))?;
    file.sync_all().map_err(|error| StorageError::io("sync", &temporary, &error))?;
    let mut attempt = 0;
    let name = loop {
        let name = file_name(id, attempt);
        let path = directory.join(&name);
        // A hard link fails where a rename would replace.
        match fs::hard_link(&temporary, &path) {
            Ok(()) => break name,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
            Err(error) => return Err(StorageError::io("name", path, &error).into()),
        }
    };
    fs::remove_file(&temporary).map_err(|error| StorageError::io("remove", &temporary, &error))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| StorageError::io("sync", directory, &error))?;
    Ok(DeadLetterRecord {
        file: name,
        bytes: bytes.len() as u64,
        checksum: crc32c::crc32c(&bytes),
        rows: letters.len() as u64,
    })
}

fn encode(letters: &[DeadLetter]) -> io::Result<Vec<u8>> {
    let mut out = MAGIC.to_vec();
    let mut block = Vec::new();
    for letter in letters {
        encode_letter(letter, &mut block);
        if block.len() >= BLOCK_BYTES {
            end_block(&mut block, &mut out)?;
        }
    }
    if !block.is_empty() {
        end_block(&mut block, &mut out)?;
    }
    let mut end = [0; 12];
    end[4..].copy_from_slice(&(letters.len() as u64).to_le_bytes());
    out.extend_from_slice(&end);
    out.extend_from_slice(&crc32c::crc32c(&end).to_le_bytes());
    Ok(out)
}

fn end_block(block: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
    let compressed = zstd::bulk::compress(block, ZSTD_LEVEL)?;
    for number in [compressed.len() as u32, block.len() as u32, crc32c::crc32c(&compressed)] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&compressed);
    block.clear();
    Ok(())
}

fn encode_letter(letter: &DeadLetter, out: &mut Vec<u8>) {
    let DeadLetter { source, stream, reject, raw_length, at_us } = letter;
    let mut text = |bytes: Option<&[u8]>| {
        out.extend_from_slice(&bytes.map_or(NO_COLUMN, |bytes| bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes.unwrap_or_default());
    };
    text(Some(source.as_bytes()));
    text(reject.column.as_deref().map(str::as_bytes));
    text(Some(reject.reason.as_bytes()));
    text(Some(&reject.raw));
    out.extend_from_slice(&stream.source.0.to_le_bytes());
    out.extend_from_slice(&stream.partition.to_le_bytes());
    out.extend_from_slice(&reject.offset.to_le_bytes());
    out.extend_from_slice(&reject.timestamp_ms.to_le_bytes());
    out.extend_from_slice(&raw_length.to_le_bytes());
    out.extend_from_slice(&at_us.to_le_bytes());
}

/// Reads a file of dead letters, one block in memory at a time. Ends after the first error.
#[derive(Debug)]
pub struct DeadLetterReader {
    path: PathBuf,
    file: BufReader<File>,
    /// Letters of the block at hand.
    block: Bytes,
    /// Letters read so far.
    count: u64,
    is_done: bool,
}

impl DeadLetterReader {
    /// Errors name the file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| StorageError::io("open", path, &error))?;
        let mut reader =
            Self { path: path.to_owned(), file: BufReader::new(file), block: Bytes::new(), count: 0, is_done: false };
        let magic: [u8; 8] = reader.read("the beginning")?;
        if &magic != MAGIC {
            return Err(reader.corrupt("the beginning", "TMDEAD01", String::from_utf8_lossy(&magic)));
        }
        Ok(reader)
    }

    fn corrupt(&self, what: &str, expected: impl ToString, found: impl ToString) -> Error {
        StorageError::corrupt(&self.path, what, expected, found).into()
    }

    fn read<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<()> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.corrupt(what, format!("{} bytes", bytes.len()), "the end of the file"),
            _ => StorageError::io("read", &self.path, &error).into(),
        })
    }

    /// The next letter; `None` after the last one.
    fn read_letter(&mut self) -> Result<Option<DeadLetter>> {
        if self.block.is_empty() && !self.read_block()? {
            return Ok(None);
        }
        let mut rest = self.block.clone();
        let letter =
            decode_letter(&mut rest).ok_or_else(|| self.corrupt("a letter", "whole fields", "a block that ends"))?;
        self.block = rest;
        self.count += 1;
        Ok(Some(letter))
    }

    /// False at the end, which is checked.
    fn read_block(&mut self) -> Result<bool> {
        let length = u32::from_le_bytes(self.read("a block")?) as usize;
        if length == 0 {
            let count = u64::from_le_bytes(self.read("the end")?);
            let checksum = u32::from_le_bytes(self.read("the end")?);
            let mut end = [0; 12];
            end[4..].copy_from_slice(&count.to_le_bytes());
            if crc32c::crc32c(&end) != checksum {
                return Err(self.corrupt("the end", crc32c::crc32c(&end), checksum));
            }
            if count != self.count {
                return Err(self.corrupt("the number of letters", count, self.count));
            }
            let more = self.file.read(&mut [0]).map_err(|error| StorageError::io("read", &self.path, &error))?;
            if more != 0 {
                return Err(self.corrupt("the end", "nothing after it", "more bytes"));
            }
            return Ok(false);
        }
        let plain_length = u32::from_le_bytes(self.read("a block")?) as usize;
        let checksum = u32::from_le_bytes(self.read("a block")?);
        // What the lengths say is not believed beyond what a writer makes.
        if plain_length > BLOCK_BYTES_MAX || length > zstd::zstd_safe::compress_bound(BLOCK_BYTES_MAX) {
            return Err(self.corrupt(
                "a block's length",
                format!("at most {BLOCK_BYTES_MAX}"),
                plain_length.max(length),
            ));
        }
        let mut compressed = vec![0; length];
        self.fill(&mut compressed, "a block")?;
        let found = crc32c::crc32c(&compressed);
        if found != checksum {
            return Err(self.corrupt("a block's checksum", checksum, found));
        }
        let block = zstd::bulk::decompress(&compressed, plain_length)
            .map_err(|error| self.corrupt("a block", "zstd", error))?;
        if block.len() != plain_length || block.is_empty() {
            return Err(self.corrupt("a block's length", plain_length, block.len()));
        }
        self.block = Bytes::from(block);
        Ok(true)
    }
}

impl Iterator for DeadLetterReader {
    type Item = Result<DeadLetter>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let letter = self.read_letter().transpose();
        self.is_done = !matches!(letter, Some(Ok(_)));
        letter
    }
}

/// Takes a letter off the front; `None` when the bytes are not one.
fn decode_letter(rest: &mut Bytes) -> Option<DeadLetter> {
    fn take<const N: usize>(rest: &mut Bytes) -> Option<[u8; N]> {
        let bytes = *rest.first_chunk::<N>()?;
        *rest = rest.slice(N..);
        Some(bytes)
    }
    fn bytes(rest: &mut Bytes) -> Option<Option<Bytes>> {
        let length = u32::from_le_bytes(take(rest)?);
        if length == NO_COLUMN {
            return Some(None);
        }
        (rest.len() >= length as usize).then(|| Some(rest.split_to(length as usize)))
    }
    fn text(rest: &mut Bytes) -> Option<Option<String>> {
        match bytes(rest)? {
            None => Some(None),
            Some(bytes) => Some(Some(String::from_utf8(bytes.to_vec()).ok()?)),
        }
    }
    let source = text(rest)??;
    let column = text(rest)?;
    let reason = text(rest)??;
    // A copy of its own, so that one letter does not keep its whole block.
    let raw = Bytes::copy_from_slice(&bytes(rest)??);
    let stream =
        StreamId { source: SourceId(u64::from_le_bytes(take(rest)?)), partition: u32::from_le_bytes(take(rest)?) };
    let offset = u64::from_le_bytes(take(rest)?);
    let timestamp_ms = i64::from_le_bytes(take(rest)?);
    let raw_length = u64::from_le_bytes(take(rest)?);
    let at_us = i64::from_le_bytes(take(rest)?);
    Some(DeadLetter { source, stream, reject: Reject { offset, timestamp_ms, column, reason, raw }, raw_length, at_us })
}

/// The number that a file was written under.
pub(crate) fn number_of(file: &str) -> Option<u64> {
    file.get(1..21)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letter(offset: u64, column: Option<&str>, raw: &[u8]) -> DeadLetter {
        let mut buffer = DeadLetterBuffer::new(1);
        let reject = Reject {
            offset,
            timestamp_ms: -1,
            column: column.map(str::to_owned),
            reason: format!("reason {offset} ü"),
            raw: Bytes::copy_from_slice(raw),
        };
        buffer.push("orders", StreamId { source: SourceId(7), partition: 3 }, reject, 99);
        assert!(buffer.is_full());
        buffer.take().remove(0)
    }

    fn read(path: &Path) -> Result<Vec<DeadLetter>> {
        DeadLetterReader::open(path)?.collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut letters: Vec<_> =
            (0..500).map(|n| letter(n, (n % 2 == 0).then_some("c"), &vec![n as u8; n as usize * 20])).collect();
        letters.push(letter(500, Some(""), &vec![1; RAW_BYTES_MAX + 5]));
        let record = write(directory.path(), SegmentId(4), &letters).unwrap();
        let path = directory.path().join(&record.file);
        let bytes = fs::read(&path).unwrap();
        assert_eq!((record.rows, record.bytes, record.checksum), (501, bytes.len() as u64, crc32c::crc32c(&bytes)));
        let found = read(&path).unwrap();
        assert_eq!(found, letters);
        assert_eq!((found[500].raw_length, found[500].reject.raw.len()), (RAW_BYTES_MAX as u64 + 5, RAW_BYTES_MAX));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let first = write(directory.path(), SegmentId(4), &[letter(1, None, b"a")]).unwrap();
        let second = write(directory.path(), SegmentId(4), &[letter(2, None, b"b")]).unwrap();
        assert_ne!(first.file, second.file);
        assert_eq!(read(&directory.path().join(first.file)).unwrap()[0].reject.offset, 1);
        assert_eq!(read(&directory.path().join(second.file)).unwrap()[0].reject.offset, 2);
    }

    #[test]
    fn every_changed_or_missing_byte_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let record =
            write(directory.path(), SegmentId(4), &[letter(1, None, b"abc"), letter(2, Some("c"), b"")]).unwrap();
        let path = directory.path().join(&record.file);
        let sound = fs::read(&path).unwrap();
        let damaged = directory.path().join("damaged");
        let assert_refused = |bytes: &[u8], what: String| {
            fs::write(&damaged, bytes).unwrap();
            let error = read(&damaged).expect_err(&what).to_string();
            assert!(error.contains("damaged"), "{error}");
        };
        for at in 0..sound.len() {
            assert_refused(&sound[..at], format!("cut at {at}"));
            for bit in [1, 0x80] {
                let mut bytes = sound.clone();
                bytes[at] ^= bit;
                assert_refused(&bytes, format!("byte {at} changed"));
            }
        }
        assert_refused(&[&sound[..], b"x"].concat(), "a byte too many".into());
        assert!(read(&directory.path().join("absent")).unwrap_err().to_string().contains("absent"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_letters_or_an_error(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("x");
            fs::write(&path, [&MAGIC[..], &tail].concat()).unwrap();
            prop_assert!(read(&path).is_err());
            let _ = decode_letter(&mut Bytes::from(tail));
        }
    }
}
