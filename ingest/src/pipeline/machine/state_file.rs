//! The file that a picture of a machine is kept in. Its bytes are described in `ingest/README.md`.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::{Field, Schema},
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use serde::{Deserialize, Serialize};
use tidemill_storage::Error as StorageError;

use super::{
    Part, Picture, Progress,
    flow::InFile,
    keyed::{Table, TableHead},
    spill::{Run, RunHead, Share},
};
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"TMSTATE2";
/// Of the version before, which knew panes of one aggregate only. It is read, and never written.
const MAGIC_1: &[u8; 8] = b"TMSTATE1";
const ZSTD_LEVEL: i32 = 1;
/// Of what is written and read at a time.
const WRITE_BYTES: usize = 256 << 10;
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<RunHead>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<TableHead>,
    /// Which keys of the file count; of one that is not said, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share: Option<Share>,
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
            run: None,
            table: None,
            share: None,
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
    let path = directory.join(name);
    let temporary = directory.join(format!("{name}.tmp"));
    let failed = |action: &'static str| {
        let path = path.clone();
        move |error: io::Error| StorageError::io(action, path, &error)
    };
    fail::fail_point!("checkpoint::state", |_| Err(Error::Unavailable("failpoint checkpoint::state".into())));
    let file = File::create(&temporary).map_err(failed("creating state file"))?;
    let mut out = Checked { inner: BufWriter::with_capacity(WRITE_BYTES, file), bytes: 0, checksum: 0 };
    encode(picture, &mut out)?;
    out.flush().map_err(failed("writing state file"))?;
    let Checked { inner, bytes, checksum } = out;
    inner.get_ref().sync_all().map_err(failed("syncing state file"))?;
    fs::rename(&temporary, &path).map_err(failed("naming state file"))?;
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed("syncing the directory of state file"))?;
    Ok(StateFile { file: name.to_owned(), bytes, checksum })
}

/// Bytes on their way, counted and summed up.
struct Checked<W> {
    inner: W,
    bytes: u64,
    checksum: u32,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Whether the file is as it was written.
pub(crate) fn check(directory: &Path, known: &StateFile) -> Result<()> {
    let path = directory.join(&known.file);
    let unread = |error: io::Error| StorageError::io("reading state file", &path, &error);
    let mut found = Checked { inner: io::sink(), bytes: 0, checksum: 0 };
    let mut file = BufReader::with_capacity(WRITE_BYTES, File::open(&path).map_err(unread)?);
    io::copy(&mut file, &mut found).map_err(unread)?;
    if (found.bytes, found.checksum) != (known.bytes, known.checksum) {
        return Err(StorageError::corrupt(
            &path,
            "state of a pipeline",
            format!("{} bytes of checksum {:08x}", known.bytes, known.checksum),
            format!("{} bytes of checksum {:08x}", found.bytes, found.checksum),
        )
        .into());
    }
    Ok(())
}

/// A file that is read part by part.
pub(crate) struct Reading {
    path: PathBuf,
    body: Body,
    heads: std::vec::IntoIter<PartHead>,
}

type Body = BufReader<io::Take<zstd::stream::Decoder<'static, BufReader<File>>>>;

/// Begins to read a picture back. `Storage`, with the file's name, for one that is missing or damaged.
pub(crate) fn open(directory: &Path, known: &StateFile) -> Result<(Progress, Reading)> {
    check(directory, known)?;
    let path = directory.join(&known.file);
    let file = File::open(&path).map_err(|error| StorageError::io("reading state file", &path, &error))?;
    let (head, body) = begin(BufReader::with_capacity(WRITE_BYTES, file)).map_err(|found| no_picture(&path, found))?;
    Ok((head.progress, Reading { path, body, heads: head.parts.into_iter() }))
}

/// All of it.
#[cfg(test)]
pub(crate) fn read(directory: &Path, known: &StateFile) -> Result<Picture> {
    let (progress, parts) = open(directory, known)?;
    Ok(Picture { progress, parts: parts.collect::<Result<_>>()? })
}

fn no_picture(path: &Path, found: String) -> Error {
    StorageError::corrupt(path, "state of a pipeline", "a picture of it", found).into()
}

impl Iterator for Reading {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.heads.next()?;
        Some(next_part(&mut self.body, head).map_err(|found| no_picture(&self.path, found)))
    }
}

fn encode(picture: &Picture, out: &mut impl Write) -> Result<()> {
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
                run: match &part.in_file {
                    Some(InFile::Run(run)) => Some(run.head().clone()),
                    _ => None,
                },
                table: match &part.in_file {
                    Some(InFile::Table(table)) => Some(table.head().clone()),
                    _ => None,
                },
                share: part.in_file.as_ref().map(InFile::share).filter(|share| *share != Share::ALL),
            })
            .collect(),
    };
    pack(MAGIC, &serde_json::to_vec(&head).map_err(|error| Error::Commit(error.to_string()))?, picture, out)
}

/// A large picture is in memory once: how long a part is in the file is found out by writing it to nowhere first.
fn pack(magic: &[u8; 8], head: &[u8], picture: &Picture, out: &mut impl Write) -> Result<()> {
    let mut lengths = Vec::with_capacity(picture.parts.len());
    for part in &picture.parts {
        let mut nowhere = Checked { inner: io::sink(), bytes: 0, checksum: 0 };
        stream(part, &mut nowhere)?;
        lengths.push(nowhere.bytes);
    }
    let body = 8 + head.len() as u64 + lengths.iter().map(|length| 8 + length).sum::<u64>();
    let failed = |error: io::Error| StorageError::io("writing state file", "", &error);
    out.write_all(magic).and_then(|()| out.write_all(&body.to_le_bytes())).map_err(failed)?;
    let mut packed = zstd::stream::Encoder::new(out, ZSTD_LEVEL).map_err(failed)?;
    packed.write_all(&(head.len() as u64).to_le_bytes()).and_then(|()| packed.write_all(head)).map_err(failed)?;
    for (part, length) in picture.parts.iter().zip(lengths) {
        packed.write_all(&length.to_le_bytes()).map_err(failed)?;
        stream(part, &mut packed)?;
    }
    packed.finish().map_err(failed)?;
    Ok(())
}

fn stream(part: &Part, out: &mut impl Write) -> Result<()> {
    let arrays: Vec<&ArrayRef> = part.columns.iter().flatten().collect();
    let fields =
        arrays.iter().enumerate().map(|(at, array)| Field::new(format!("a{at}"), array.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(part.rows));
    let columns = arrays.into_iter().map(Arc::clone).collect();
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
    let mut writer = StreamWriter::try_new(out, &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    Ok(())
}

/// As the version before wrote it, for tests of reading it.
#[cfg(test)]
pub(super) fn encode_first(picture: &Picture) -> Result<Vec<u8>> {
    let panes = picture.parts.iter().map(|part| {
        let lengths: Vec<usize> = part.columns.iter().map(Vec::len).collect();
        serde_json::json!({"start": part.at, "groups": part.rows, "keys": lengths[0], "states": lengths[1..]})
    });
    let head = serde_json::json!({"progress": picture.progress, "panes": panes.collect::<Vec<_>>()});
    let mut bytes = Vec::new();
    pack(MAGIC_1, head.to_string().as_bytes(), picture, &mut bytes)?;
    Ok(bytes)
}

/// What stands before the parts.
fn begin(mut file: BufReader<File>) -> Result<(Head, Body), String> {
    let text = |error: io::Error| error.to_string();
    let (mut magic, mut length) = ([0; 8], [0; 8]);
    file.read_exact(&mut magic).and_then(|()| file.read_exact(&mut length)).map_err(text)?;
    let is_first_version = &magic == MAGIC_1;
    if !is_first_version && &magic != MAGIC {
        return Err(match magic[..7] == MAGIC[..7] {
            true => "the state of a later version of the server".into(),
            false => "another beginning".into(),
        });
    }
    let length = u64::from_le_bytes(length);
    if length > BODY_BYTES_MAX {
        return Err(format!("a body of {length} bytes"));
    }
    let mut body =
        BufReader::with_capacity(WRITE_BYTES, zstd::stream::Decoder::with_buffer(file).map_err(text)?.take(length));
    let mut head = Vec::new();
    part_of(&mut body)?.read_to_end(&mut head).map_err(text)?;
    let head: Head = match is_first_version {
        true => serde_json::from_slice::<Head1>(&head).map(Into::into),
        false => serde_json::from_slice(&head),
    }
    .map_err(|error| error.to_string())?;
    Ok((head, body))
}

fn next_part(body: &mut Body, head: PartHead) -> Result<Part, String> {
    let PartHead { operator, kind, at, rows, columns, run, table, share } = head;
    let mut part = part_of(body)?;
    let mut reader = StreamReader::try_new(&mut part, None).map_err(|error| error.to_string())?;
    let batch = reader.next().ok_or("a part without a batch")?.map_err(|error| error.to_string())?;
    if batch.num_rows() != rows || batch.num_columns() != columns.iter().sum::<usize>() {
        return Err(format!("a part of {} rows in {} columns", batch.num_rows(), batch.num_columns()));
    }
    let mut arrays = batch.columns().iter().map(Arc::clone);
    let columns = columns.iter().map(|count| arrays.by_ref().take(*count).collect()).collect();
    let in_file = match (run, table) {
        (None, None) => None,
        (Some(run), None) => Some(InFile::Run(Run::of(run)?)),
        (None, Some(table)) => Some(InFile::Table(Table::of(table)?)),
        _ => return Err("a part in two files".into()),
    };
    let in_file = in_file.map(|file| file.with_share(share.unwrap_or(Share::ALL)));
    io::copy(&mut part, &mut io::sink()).map_err(|error| error.to_string())?;
    Ok(Part { operator, kind, at, rows, columns, in_file })
}

/// The next part of a body, which says first how long it is.
fn part_of<R: Read>(body: &mut R) -> Result<io::Take<&mut R>, String> {
    let mut length = [0; 8];
    body.read_exact(&mut length).map_err(|_| "a body that was cut off")?;
    Ok(body.take(u64::from_le_bytes(length)))
}
