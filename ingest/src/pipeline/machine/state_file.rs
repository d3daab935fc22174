//! The file that a picture of a machine is kept in. Its bytes are described in `ingest/README.md`.

use std::{
    fs::{self, File},
    io::{self, Cursor, Write},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::{Field, Schema},
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use serde::{Deserialize, Serialize};
use tidemill_storage::Error as StorageError;

use super::{Part, Picture, Progress};
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"TMSTATE2";
/// Of the version before, which knew panes of one aggregate only. It is read, and never written.
const MAGIC_1: &[u8; 8] = b"TMSTATE1";
const ZSTD_LEVEL: i32 = 1;
/// Of the body, uncompressed; a larger length is damage.
const BODY_BYTES_MAX: u64 = 64 << 30;

/// What stands before the arrays.
#[derive(Serialize, Deserialize)]
struct Head {
    progress: Progress,
    parts: Vec<PartHead>,
}

#[derive(Serialize, Deserialize)]
struct PartHead {
    operator: usize,
    kind: String,
    at: i64,
    rows: usize,
    /// Lengths of the lists of columns.
    columns: Vec<usize>,
}

/// The head of the version before.
#[derive(Deserialize)]
struct Head1 {
    progress: Progress,
    panes: Vec<PaneHead1>,
}

#[derive(Deserialize)]
struct PaneHead1 {
    start: i64,
    groups: usize,
    keys: usize,
    /// Arrays of each accumulator.
    states: Vec<usize>,
}

impl From<Head1> for Head {
    fn from(head: Head1) -> Self {
        let part = |pane: PaneHead1| PartHead {
            operator: 0,
            kind: "pane".into(),
            at: pane.start,
            rows: pane.groups,
            columns: [vec![pane.keys], pane.states].concat(),
        };
        Self { progress: head.progress, parts: head.panes.into_iter().map(part).collect() }
    }
}

/// A file that was written, as the checkpoint names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    pub file: String,
    pub bytes: u64,
    pub checksum: u32,
}

/// Writes a picture, durable at return.
pub(crate) fn write(directory: &Path, name: &str, picture: &Picture) -> Result<StateFile> {
    let bytes = encode(picture)?;
    let path = directory.join(name);
    let temporary = directory.join(format!("{name}.tmp"));
    let failed = |action: &'static str| {
        let path = path.clone();
        move |error: io::Error| StorageError::io(action, path, &error)
    };
    fail::fail_point!("checkpoint::state", |_| Err(Error::Unavailable("failpoint checkpoint::state".into())));
    let mut file = File::create(&temporary).map_err(failed("creating state file"))?;
    file.write_all(&bytes).map_err(failed("writing state file"))?;
    file.sync_all().map_err(failed("syncing state file"))?;
    fs::rename(&temporary, &path).map_err(failed("naming state file"))?;
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed("syncing the directory of state file"))?;
    Ok(StateFile { file: name.to_owned(), bytes: bytes.len() as u64, checksum: crc32c::crc32c(&bytes) })
}

/// Reads a picture back. `Storage`, with the file's name, for one that is missing or damaged.
pub(crate) fn read(directory: &Path, known: &StateFile) -> Result<Picture> {
    let path = directory.join(&known.file);
    let bytes = fs::read(&path).map_err(|error| StorageError::io("reading state file", &path, &error))?;
    if bytes.len() as u64 != known.bytes || crc32c::crc32c(&bytes) != known.checksum {
        return Err(StorageError::corrupt(
            &path,
            "state of a pipeline",
            format!("{} bytes of checksum {:08x}", known.bytes, known.checksum),
            format!("{} bytes of checksum {:08x}", bytes.len(), crc32c::crc32c(&bytes)),
        )
        .into());
    }
    decode(&bytes).map_err(|found| StorageError::corrupt(&path, "state of a pipeline", "a picture of it", found).into())
}

fn encode(picture: &Picture) -> Result<Vec<u8>> {
    let head = Head {
        progress: picture.progress.clone(),
        parts: picture
            .parts
            .iter()
            .map(|part| PartHead {
                operator: part.operator,
                kind: part.kind.clone(),
                at: part.at,
                rows: part.rows,
                columns: part.columns.iter().map(Vec::len).collect(),
            })
            .collect(),
    };
    pack(MAGIC, &serde_json::to_vec(&head).map_err(|error| Error::Commit(error.to_string()))?, picture)
}

fn pack(magic: &[u8; 8], head: &[u8], picture: &Picture) -> Result<Vec<u8>> {
    let mut body = (head.len() as u64).to_le_bytes().to_vec();
    body.extend(head);
    for part in &picture.parts {
        let arrays: Vec<&ArrayRef> = part.columns.iter().flatten().collect();
        let fields =
            arrays.iter().enumerate().map(|(at, array)| Field::new(format!("a{at}"), array.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(part.rows));
        let columns = arrays.into_iter().map(Arc::clone).collect();
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
        let mut stream = Vec::new();
        let mut writer = StreamWriter::try_new(&mut stream, &schema)?;
        writer.write(&batch)?;
        writer.finish()?;
        drop(writer);
        body.extend((stream.len() as u64).to_le_bytes());
        body.extend(stream);
    }
    let mut bytes = magic.to_vec();
    bytes.extend((body.len() as u64).to_le_bytes());
    let packed = zstd::bulk::compress(&body, ZSTD_LEVEL);
    bytes.extend(packed.map_err(|error| StorageError::io("compressing state file", "", &error))?);
    Ok(bytes)
}

/// As the version before wrote it, for tests of reading it.
#[cfg(test)]
pub(super) fn encode_first(picture: &Picture) -> Result<Vec<u8>> {
    let panes = picture.parts.iter().map(|part| {
        let lengths: Vec<usize> = part.columns.iter().map(Vec::len).collect();
        serde_json::json!({"start": part.at, "groups": part.rows, "keys": lengths[0], "states": lengths[1..]})
    });
    let head = serde_json::json!({"progress": picture.progress, "panes": panes.collect::<Vec<_>>()});
    pack(MAGIC_1, head.to_string().as_bytes(), picture)
}

fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let is_first_version = bytes.starts_with(MAGIC_1);
    let rest = bytes.strip_prefix(if is_first_version { MAGIC_1 } else { MAGIC });
    let rest = rest.ok_or_else(|| match bytes.starts_with(&MAGIC[..7]) {
        true => "the state of a later version of the server",
        false => "another beginning",
    })?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or("a file that was cut off")?;
    let length = u64::from_le_bytes(*length);
    if length > BODY_BYTES_MAX {
        return Err(format!("a body of {length} bytes"));
    }
    let body = zstd::bulk::decompress(rest, length as usize).map_err(|error| error.to_string())?;
    let mut rest = body.as_slice();
    let mut part = || -> Result<&[u8], String> {
        let (length, after) = rest.split_first_chunk::<8>().ok_or("a body that was cut off")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (part, after) = after.split_at_checked(length).ok_or("a body that was cut off")?;
        rest = after;
        Ok(part)
    };
    let head = part()?;
    let head: Head = match is_first_version {
        true => serde_json::from_slice::<Head1>(head).map(Into::into),
        false => serde_json::from_slice(head),
    }
    .map_err(|error| error.to_string())?;
    let mut parts = Vec::with_capacity(head.parts.len());
    for PartHead { operator, kind, at, rows, columns } in head.parts {
        let mut reader = StreamReader::try_new(Cursor::new(part()?), None).map_err(|error| error.to_string())?;
        let batch = reader.next().ok_or("a part without a batch")?.map_err(|error| error.to_string())?;
        if batch.num_rows() != rows || batch.num_columns() != columns.iter().sum::<usize>() {
            return Err(format!("a part of {} rows in {} columns", batch.num_rows(), batch.num_columns()));
        }
        let mut arrays = batch.columns().iter().map(Arc::clone);
        let columns = columns.iter().map(|count| arrays.by_ref().take(*count).collect()).collect();
        parts.push(Part { operator, kind, at, rows, columns });
    }
    Ok(Picture { progress: head.progress, parts })
}
