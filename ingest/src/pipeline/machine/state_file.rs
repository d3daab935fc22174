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

use super::{Picture, Progress, groups::Dump, windowed::PaneDump};
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"TMSTATE1";
const ZSTD_LEVEL: i32 = 1;
/// Of the body, uncompressed; a larger length is damage.
const BODY_BYTES_MAX: u64 = 64 << 30;

/// What stands before the arrays.
#[derive(Serialize, Deserialize)]
struct Head {
    progress: Progress,
    panes: Vec<PaneHead>,
}

#[derive(Serialize, Deserialize)]
struct PaneHead {
    start: i64,
    groups: usize,
    keys: usize,
    /// Arrays of each accumulator.
    states: Vec<usize>,
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
        panes: picture
            .panes
            .iter()
            .map(|pane| PaneHead {
                start: pane.start,
                groups: pane.dump.groups,
                keys: pane.dump.keys.len(),
                states: pane.dump.states.iter().map(Vec::len).collect(),
            })
            .collect(),
    };
    let head = serde_json::to_vec(&head).map_err(|error| Error::Commit(error.to_string()))?;
    let mut body = (head.len() as u64).to_le_bytes().to_vec();
    body.extend(head);
    for pane in &picture.panes {
        let arrays: Vec<&ArrayRef> = pane.dump.keys.iter().chain(pane.dump.states.iter().flatten()).collect();
        let fields =
            arrays.iter().enumerate().map(|(at, array)| Field::new(format!("a{at}"), array.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(pane.dump.groups));
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
    let mut bytes = MAGIC.to_vec();
    bytes.extend((body.len() as u64).to_le_bytes());
    let packed = zstd::bulk::compress(&body, ZSTD_LEVEL);
    bytes.extend(packed.map_err(|error| StorageError::io("compressing state file", "", &error))?);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("another beginning")?;
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
    let head: Head = serde_json::from_slice(part()?).map_err(|error| error.to_string())?;
    let mut panes = Vec::with_capacity(head.panes.len());
    for pane in head.panes {
        let mut reader = StreamReader::try_new(Cursor::new(part()?), None).map_err(|error| error.to_string())?;
        let batch = reader.next().ok_or("a pane without a batch")?.map_err(|error| error.to_string())?;
        let wanted = pane.keys + pane.states.iter().sum::<usize>();
        if batch.num_rows() != pane.groups || batch.num_columns() != wanted {
            return Err(format!("a pane of {} groups in {} arrays", batch.num_rows(), batch.num_columns()));
        }
        let mut arrays = batch.columns().iter().map(Arc::clone);
        let keys = arrays.by_ref().take(pane.keys).collect();
        let states = pane.states.iter().map(|count| arrays.by_ref().take(*count).collect()).collect();
        panes.push(PaneDump { start: pane.start, dump: Dump { groups: pane.groups, keys, states } });
    }
    Ok(Picture { progress: head.progress, panes })
}
