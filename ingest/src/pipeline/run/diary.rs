//! Arrivals since a picture, in a file beside it: a checkpoint of a large state that changed little.
//!
//! ```text
//! c…07.state          the picture of checkpoint 7
//! c…08.diary          frame of 8 │ frame of 9 │ frame of 10      checkpoint 9 is the picture and the first two frames
//!
//! frame   length u64 · length uncompressed u64 · crc-32c of the compressed bytes u32 · zstd( arrival* )
//! ```
//!
//! A file has one writer for its life: after a start, or when a frame could not be written, the next checkpoint begins a file of its own with a copy of what it goes on from. So
//! no byte that a checkpoint names is ever written over.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use tidemill_storage::Error as StorageError;

use super::super::{
    machine::{Arrival, arrivals},
    tables::Answers,
};
use crate::{Error, Result, runtime::ahead};

const ZSTD_LEVEL: i32 = 1;
const HEAD: usize = 20;
/// Uncompressed; a larger length is damage.
const FRAME_BYTES_MAX: u64 = 16 << 30;

/// What of a diary belongs to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diary {
    pub file: String,
    /// Those before it are in a picture that was made since; nothing that is kept has such. What goes on from it is written into another file.
    #[serde(skip)]
    pub from: u64,
    /// Up to here.
    pub bytes: u64,
    /// What they are, uncompressed.
    #[serde(default)]
    pub plain: u64,
}

/// Who writes a file, as long as nothing went wrong.
#[derive(Debug, Default)]
pub(super) struct Writer {
    open: Option<(String, File, u64)>,
}

impl Writer {
    /// Adds arrivals to what is there, durable at return.
    pub(super) fn add(
        &mut self,
        directory: &Path,
        name: &str,
        known: Option<&Diary>,
        arrivals: &[(Arrival, Answers)],
    ) -> Result<Diary> {
        let (frame, plain) = frame(arrivals)?;
        let plain = plain + known.map_or(0, |known| known.plain);
        let failed = |path: &Path, error: &io::Error| Error::from(StorageError::io("writing arrivals", path, error));
        // After an error nobody knows what stands at the end.
        let mut at = match (self.open.take(), known) {
            (Some((file, open, bytes)), Some(known))
                if known.file == file && known.bytes == bytes && known.from == 0 =>
            {
                (file, open, bytes)
            }
            _ => {
                let path = directory.join(name);
                let begun = begin(directory, &path, known).map_err(|error| failed(&path, &error))?;
                (name.to_owned(), begun, known.map_or(0, |known| known.bytes - known.from))
            }
        };
        let path = directory.join(&at.0);
        fail::fail_point!("checkpoint::state", |_| Err(Error::Unavailable("failpoint checkpoint::state".into())));
        at.1.write_all(&frame).and_then(|()| at.1.sync_data()).map_err(|error| failed(&path, &error))?;
        at.2 += frame.len() as u64;
        let diary = Diary { file: at.0.clone(), from: 0, bytes: at.2, plain };
        self.open = Some(at);
        Ok(diary)
    }
}

/// A new file with what a checkpoint has, its name durable.
fn begin(directory: &Path, path: &Path, known: Option<&Diary>) -> io::Result<File> {
    let mut file = File::create(path)?;
    if let Some(known) = known {
        let wanted = known.bytes - known.from;
        let mut before = File::open(directory.join(&known.file))?;
        before.seek(SeekFrom::Start(known.from))?;
        let copied = io::copy(&mut before.take(wanted), &mut file)?;
        if copied != wanted {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file of arrivals before it is too short"));
        }
    }
    File::open(directory)?.sync_all()?;
    drop(file);
    OpenOptions::new().append(true).open(path)
}

/// The frame, and how long it is uncompressed.
fn frame(arrivals: &[(Arrival, Answers)]) -> Result<(Vec<u8>, u64)> {
    let mut body = Vec::new();
    for (arrival, answers) in arrivals {
        arrivals::encode(arrival, answers, &mut body)?;
    }
    let compressed = zstd::bulk::compress(&body, ZSTD_LEVEL).map_err(|error| Error::Commit(error.to_string()))?;
    let mut frame = Vec::with_capacity(HEAD + compressed.len());
    frame.extend_from_slice(&(compressed.len() as u64).to_le_bytes());
    frame.extend_from_slice(&(body.len() as u64).to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&compressed).to_le_bytes());
    frame.extend(compressed);
    Ok((frame, body.len() as u64))
}

/// Gives the arrivals of a checkpoint in their order, or none of those of a frame that is damaged, and an error that names the file. A thread reads frames ahead.
pub(super) fn read(
    directory: &Path,
    diary: &Diary,
    mut each: impl FnMut(Arrival, Answers) -> Result<()>,
) -> Result<()> {
    let read = |give: &mut dyn FnMut(Result<Vec<(Arrival, Answers)>>) -> bool| {
        let all = each_frame(directory, diary, |body, damaged| {
            let (mut rest, mut arrivals) = (body, Vec::new());
            while !rest.is_empty() {
                arrivals.push(arrivals::decode(&mut rest).map_err(damaged)?);
            }
            match give(Ok(arrivals)) {
                true => Ok(()),
                false => Err(Error::Unavailable("nobody reads on".into())),
            }
        });
        if let Err(error) = all {
            // Nobody hears of it who has gone.
            give(Err(error));
        }
    };
    ahead(read, |frames| {
        for frame in frames {
            frame?.into_iter().try_for_each(|(arrival, answers)| each(arrival, answers))?;
        }
        Ok(())
    })
}

/// Gives the bytes of each frame, compressed, and how one tells what is wrong with them.
fn each_frame_packed(
    directory: &Path,
    diary: &Diary,
    mut each: impl FnMut(&[u8], u64, &dyn Fn(String) -> Error) -> Result<()>,
) -> Result<()> {
    let path = directory.join(&diary.file);
    let damaged = |found: String| {
        let wanted = format!("{} bytes of whole frames", diary.bytes);
        Error::from(StorageError::corrupt(&path, "arrivals of a pipeline", wanted, found))
    };
    let unread = |error: &io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("the end of the file".into()),
        _ => StorageError::io("reading arrivals", &path, error).into(),
    };
    let mut file = File::open(&path).map_err(|error| unread(&error))?;
    let mut left = diary.bytes;
    while left > 0 {
        let mut head = [0; HEAD];
        file.read_exact(&mut head).map_err(|error| unread(&error))?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
        let (length, plain) = (number(0), number(8));
        let checksum = u32::from_le_bytes(std::array::from_fn(|byte| head[16 + byte]));
        left = match left.checked_sub(HEAD as u64).and_then(|left| left.checked_sub(length)) {
            Some(left) if plain <= FRAME_BYTES_MAX => left,
            _ => return Err(damaged(format!("a frame of {length} bytes"))),
        };
        let mut compressed = vec![0; length as usize];
        file.read_exact(&mut compressed).map_err(|error| unread(&error))?;
        if crc32c::crc32c(&compressed) != checksum {
            return Err(damaged("a frame of another checksum".into()));
        }
        // What the head says of it stands in the frame as well.
        if zstd::zstd_safe::get_frame_content_size(&compressed).ok().flatten() != Some(plain) {
            return Err(damaged(format!("a frame that is not of {plain} bytes, uncompressed")));
        }
        each(&compressed, plain, &damaged)?;
    }
    Ok(())
}

/// The same, uncompressed.
fn each_frame(
    directory: &Path,
    diary: &Diary,
    mut each: impl FnMut(&[u8], &dyn Fn(String) -> Error) -> Result<()>,
) -> Result<()> {
    each_frame_packed(directory, diary, |compressed, plain, damaged| {
        let body = zstd::bulk::decompress(compressed, plain as usize).map_err(|error| damaged(error.to_string()))?;
        if body.len() as u64 != plain {
            return Err(damaged(format!("a frame of {} bytes, uncompressed", body.len())));
        }
        each(&body, damaged)
    })
}

/// Whether all of it is there, as it was written.
pub(super) fn check(directory: &Path, diary: &Diary) -> Result<()> {
    each_frame_packed(directory, diary, |_, _, _| Ok(()))
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use arrow::array::{Int64Array, RecordBatch, StringViewArray};
    use tidemill_storage::ids::{SourceId, StreamId};

    use super::*;
    use crate::message::{Reject, SourceBatch};

    fn rows(from: u64, count: u64) -> (Arrival, Answers) {
        let numbers: Int64Array = (from..from + count).map(|n| (n % 3 > 0).then_some(n as i64)).collect();
        let texts: StringViewArray =
            (from..from + count).map(|n| Some(format!("a text that is not short {n}"))).collect();
        let rows = RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("t", Arc::new(texts) as _)]).unwrap();
        let reject = Reject {
            offset: from,
            timestamp_ms: 5,
            column: Some("n".into()),
            reason: "no".into(),
            raw: Default::default(),
        };
        let batch = SourceBatch {
            stream: StreamId { source: SourceId(4), partition: 2 },
            rows: rows.clone(),
            row_offsets: (from..from + count).collect(),
            from,
            to: from + count + 1,
            newest_timestamp_ms: 77,
            rejects: vec![reject],
            origin: None,
        };
        (
            Arrival::Rows { source: 1, batch: Box::new(batch), landmark: None },
            Answers(vec![rows.slice(0, count.min(1) as usize), rows]),
        )
    }

    fn all(directory: &Path, diary: &Diary) -> Result<Vec<String>> {
        let mut found = Vec::new();
        read(directory, diary, |arrival, answers| {
            found.push(format!("{arrival:?} {answers:?}"));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn arrivals_come_back_as_they_were_and_as_many_as_a_checkpoint_had() {
        let directory = tempfile::tempdir().unwrap();
        let stream = StreamId { source: SourceId(4), partition: 2 };
        let small = [
            Arrival::Begin { stream, offset: 7 },
            Arrival::Known { source: SourceId(4) },
            Arrival::Flow { stream, flow: crate::pipeline::machine::Flow::Idle },
            Arrival::Skip { stream, to: 9 },
            Arrival::Give,
        ];
        let first: Vec<_> =
            small.into_iter().map(|arrival| (arrival, Answers::default())).chain([rows(0, 10)]).collect();
        let second = [rows(10, 0), rows(10, 2000)];
        let mut writer = Writer::default();
        let one = writer.add(directory.path(), "a", None, &first).unwrap();
        let two = writer.add(directory.path(), "b", Some(&one), &second).unwrap();
        assert_eq!((one.file.as_str(), two.file.as_str()), ("a", "a"));
        let text = |(arrival, answers): &(Arrival, Answers)| format!("{arrival:?} {answers:?}");
        let texts = |all: &[(Arrival, Answers)]| all.iter().map(text).collect::<Vec<_>>();
        assert_eq!(all(directory.path(), &one).unwrap(), texts(&first));
        assert_eq!(all(directory.path(), &two).unwrap(), [texts(&first), texts(&second)].concat());
        // What is in a picture by now is left out.
        let since = Diary { from: one.bytes, ..two.clone() };
        let three = writer.add(directory.path(), "d", Some(&since), &first[..1]).unwrap();
        assert_eq!((three.file.as_str(), three.from), ("d", 0));
        assert_eq!(all(directory.path(), &three).unwrap(), [texts(&second), texts(&first[..1])].concat());
        let nothing = Diary { from: three.bytes, ..three.clone() };
        let four = writer.add(directory.path(), "e", Some(&nothing), &second).unwrap();
        assert_eq!(all(directory.path(), &four).unwrap(), texts(&second));
        // Another writer goes on from the first, beside the file that is there.
        let other = Writer::default().add(directory.path(), "c", Some(&one), &second[1..]).unwrap();
        assert_eq!(other.file, "c");
        assert_eq!(all(directory.path(), &other).unwrap(), [texts(&first), texts(&second[1..])].concat());
        assert_eq!(all(directory.path(), &two).unwrap().len(), 8);
    }

    #[test]
    fn every_damaged_byte_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let diary = Writer::default().add(directory.path(), "a", None, &[rows(0, 3)]).unwrap();
        let sound = fs::read(directory.path().join("a")).unwrap();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            fs::write(directory.path().join("a"), &bytes).unwrap();
            check(directory.path(), &diary).expect_err(&format!("byte {at}"));
        }
        fs::write(directory.path().join("a"), &sound[..sound.len() - 1]).unwrap();
        let error = check(directory.path(), &diary).unwrap_err().to_string();
        assert!(error.contains("/a") && error.contains("end of the file"), "{error}");
        // What came after the checkpoint does not matter.
        fs::write(directory.path().join("a"), [&sound[..], b"more"].concat()).unwrap();
        check(directory.path(), &diary).unwrap();
    }
}
