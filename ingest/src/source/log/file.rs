//! The files of a log: their names, their headers, and what a crash may have left in the last one.
//!
//! A file is named after its first offset, twenty digits and `.log`. Only the last one grows. What a crash leaves behind the last sync may be
//! torn anywhere, since the disk may have written later pages before earlier ones; each frame says how much of the file was surely on disk when it was
//! written. So a broken frame is *damage* when a later frame was written after the broken place had been synced, and else a torn tail.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use tidemill_storage::{Error, Result};

use super::frame::{BODY_BYTES_MAX, HEADER_BYTES, Header, MAGIC};

pub(super) const FILE_HEADER_BYTES: u64 = 24;
const FILE_MAGIC: [u8; 8] = *b"TMLOG\0\0\x01";

/// A file whose frames are sound and on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    /// Offset of its first row.
    pub(super) first: u64,
    /// Offset after its last row.
    pub(super) end: u64,
    /// Bytes that hold sound frames.
    pub(super) bytes: u64,
}

pub(super) fn name(first: u64) -> String {
    format!("{first:020}.log")
}

/// The files of a log, oldest first, after the last one was cut behind its last sound frame. An empty directory has none.
pub(super) fn recover(directory: &Path) -> Result<Vec<LogFile>> {
    let fail = |action| move |error: io::Error| Error::io(action, directory, &error);
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail("listing log directory"))? {
        let entry = entry.map_err(fail("listing log directory"))?;
        let name = entry.file_name();
        let Some(first) = name.to_str().and_then(|name| name.strip_suffix(".log")) else { continue };
        if let (20, Ok(first)) = (first.len(), first.parse::<u64>()) {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    let mut files: Vec<LogFile> = Vec::with_capacity(firsts.len());
    for (index, first) in firsts.iter().enumerate() {
        let path = directory.join(name(*first));
        if let Some(previous) = files.last()
            && previous.end != *first
        {
            return Err(Error::corrupt(path, "first offset of a log file", previous.end, first));
        }
        files.push(recover_file(path, *first, index + 1 == firsts.len())?);
    }
    Ok(files)
}

/// Takes all rows from offset `end` on away. `end` is where a frame begins, or the end of the log.
pub(super) fn cut(directory: &Path, end: u64) -> Result<()> {
    let mut files = recover(directory)?;
    let found = files.last().map_or(0, |file| file.end);
    if found < end {
        return Err(Error::corrupt(directory, "end of a log", end, found));
    }
    let fail = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| Error::io(action, path, &error)
    };
    // Of files that begin where the log is to end one may stay, empty.
    while files.len() > 1 && files[files.len() - 1].first >= end {
        let Some(file) = files.pop() else { break };
        std::fs::remove_file(&file.path).map_err(fail("deleting log file", &file.path))?;
    }
    sync_directory(directory)?;
    let Some(last) = files.pop().filter(|last| last.end > end) else { return Ok(()) };
    if last.first > end {
        return Err(Error::corrupt(last.path, "first offset of a log file", format!("at most {end}"), last.first));
    }
    let file =
        OpenOptions::new().read(true).write(true).open(&last.path).map_err(fail("opening log file", &last.path))?;
    let (mut position, mut offset) = (FILE_HEADER_BYTES, last.first);
    while offset < end {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, position).map_err(fail("reading log file", &last.path))?;
        let header = Header::from_bytes(&bytes).filter(|header| header.first_offset == offset);
        let header = header.ok_or_else(|| {
            Error::corrupt(&last.path, format!("log frame at byte {position}"), "a frame", "damaged bytes")
        })?;
        position += header.frame_bytes();
        offset = header.end_offset();
    }
    if offset != end {
        return Err(Error::corrupt(&last.path, "frames of a log", format!("one that ends at {end}"), offset));
    }
    file.set_len(position).map_err(fail("cutting log file", &last.path))?;
    file.sync_all().map_err(fail("syncing log file", &last.path))
}

/// Makes an empty file that survives a power loss.
pub(super) fn create(directory: &Path, first: u64) -> Result<(LogFile, File)> {
    let path = directory.join(name(first));
    let fail = |action| {
        let path = path.clone();
        move |error: io::Error| Error::io(action, path, &error)
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(fail("creating log file"))?;
    file.write_all_at(&file_header(first), 0).map_err(fail("writing log file"))?;
    file.sync_all().map_err(fail("syncing log file"))?;
    sync_directory(directory)?;
    Ok((LogFile { path, first, end: first, bytes: FILE_HEADER_BYTES }, file))
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::io("syncing log directory", directory, &error))
}

fn file_header(first: u64) -> [u8; FILE_HEADER_BYTES as usize] {
    let mut bytes = [0; FILE_HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(&FILE_MAGIC);
    bytes[8..16].copy_from_slice(&first.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..16]);
    bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn recover_file(path: PathBuf, first: u64, last: bool) -> Result<LogFile> {
    let fail = |action| {
        let path = path.clone();
        move |error: io::Error| Error::io(action, path, &error)
    };
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail("opening log file"))?;
    let length = file.metadata().map_err(fail("reading log file"))?.len();
    let mut header = Vec::new();
    (&mut file).take(FILE_HEADER_BYTES).read_to_end(&mut header).map_err(fail("reading log file"))?;
    if header != file_header(first) {
        // A crash may come between creating the file and syncing its header; then no frame follows.
        if last && length <= FILE_HEADER_BYTES {
            let directory = path.parent().unwrap_or(Path::new("."));
            return Ok(create(directory, first)?.0);
        }
        let found = format!("{} bytes that begin with {:02x?}", length, &header[..header.len().min(8)]);
        return Err(Error::corrupt(
            path,
            "header of a log file",
            format!("a log that begins at offset {first}"),
            found,
        ));
    }
    let mut log = LogFile { path: path.clone(), first, end: first, bytes: FILE_HEADER_BYTES };
    let mut reader = io::BufReader::with_capacity(1 << 20, file);
    let mut body = Vec::new();
    while log.bytes < length {
        match read_frame(&mut reader, &mut body).map_err(fail("reading log file"))? {
            Some(header) if header.first_offset == log.end => {
                log.end = header.end_offset();
                log.bytes += header.frame_bytes();
            }
            _ => {
                let mut file = reader.into_inner();
                if !last || synced_behind(&mut file, log.bytes).map_err(fail("reading log file"))? {
                    return Err(Error::corrupt(
                        path,
                        format!("log frame at byte {}", log.bytes),
                        format!("a sound frame of offset {}", log.end),
                        "damaged bytes",
                    ));
                }
                tracing::warn!(path = ?log.path, at = log.bytes, cut = length - log.bytes, "cut the torn end of a log");
                file.set_len(log.bytes).map_err(fail("cutting log file"))?;
                file.sync_all().map_err(fail("syncing log file"))?;
                return Ok(log);
            }
        }
    }
    Ok(log)
}

/// The next frame's header, its body in `body`; `None` when there is no sound frame.
fn read_frame(reader: &mut impl Read, body: &mut Vec<u8>) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER_BYTES];
    if !read_whole(reader, &mut bytes)? {
        return Ok(None);
    }
    let Some(header) = Header::from_bytes(&bytes) else { return Ok(None) };
    if header.body_bytes as usize > BODY_BYTES_MAX {
        return Ok(None);
    }
    body.resize(header.body_bytes as usize, 0);
    if !read_whole(reader, body)? || crc32c::crc32c(body) != header.body_checksum {
        return Ok(None);
    }
    Ok(Some(header))
}

fn read_whole(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether any later frame was written when the byte at `position` was on disk already.
fn synced_behind(file: &mut File, position: u64) -> io::Result<bool> {
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(position))?;
    file.read_to_end(&mut rest)?;
    let mut at = 1;
    while let Some(found) = rest.get(at..).and_then(|rest| rest.windows(MAGIC.len()).position(|bytes| bytes == MAGIC)) {
        at += found;
        if Header::from_bytes(&rest[at..]).is_some_and(|header| header.durable_to > position) {
            return Ok(true);
        }
        at += 1;
    }
    Ok(false)
}
