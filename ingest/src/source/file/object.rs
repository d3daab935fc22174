//! Files as objects of a store: read in ranges, never as a whole.

use std::{
    fmt,
    io::{self, Read},
    ops::Range,
    path::Path,
    sync::Arc,
};

use bytes::{Buf, Bytes};
use futures::executor::block_on;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem, path::Path as ObjectPath};
use parquet::{
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

use super::{unfit, unreadable};
use crate::Result;

/// Bytes that a stream asks for at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// One object, of the length that it had when it was opened.
#[derive(Clone)]
pub(super) struct Object {
    store: Arc<dyn ObjectStore>,
    location: ObjectPath,
    bytes: u64,
}

impl Object {
    /// Looks the object up. Blocks.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let absolute = std::path::absolute(path).map_err(|error| unreadable("opening file", path, &error))?;
        let location = ObjectPath::from_absolute_path(absolute).map_err(|error| unfit(path, error, None))?;
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new());
        let found = block_on(store.head(&location)).map_err(|error| unreadable("opening file", path, &error))?;
        Ok(Self { store, location, bytes: found.size })
    }

    /// All of it, from the start on.
    pub(super) fn stream(&self) -> Stream {
        Stream { object: self.clone(), at: 0, chunk: Bytes::new() }
    }

    fn range(&self, range: Range<u64>) -> io::Result<Bytes> {
        Ok(block_on(self.store.get_range(&self.location, range))?)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({})", self.location)
    }
}

/// Reads an object from front to back, some of it in memory.
#[derive(Debug)]
pub(super) struct Stream {
    object: Object,
    /// Where the next chunk begins.
    at: u64,
    chunk: Bytes,
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() && self.at < self.object.bytes {
            let end = (self.at + CHUNK_BYTES).min(self.object.bytes);
            self.chunk = self.object.range(self.at..end)?;
            self.at = end;
        }
        let taken = into.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut into[..taken]);
        Ok(taken)
    }
}

impl Length for Object {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Object {
    type T = Stream;

    fn get_read(&self, start: u64) -> Result<Stream, ParquetError> {
        Ok(Stream { object: self.clone(), at: start, chunk: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64).filter(|end| *end <= self.bytes);
        let end =
            end.ok_or_else(|| ParquetError::EOF(format!("{length} bytes at {start} are beyond the file's end")))?;
        Ok(self.range(start..end)?)
    }
}

/// How the bytes of text files are packed, by the end of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// The packing, and the name without the ending that says so.
    pub(super) fn of(name: &str) -> (Self, &str) {
        for (ending, packing) in [(".gz", Self::Gzip), (".zst", Self::Zstd), (".zstd", Self::Zstd)] {
            if let Some(name) = name.strip_suffix(ending) {
                return (packing, name);
            }
        }
        (Self::Plain, name)
    }
}

/// The text of a file, unpacked.
pub(super) fn text(path: &Path) -> Result<Box<dyn Read + Send>> {
    let stream = Object::open(path)?.stream();
    let (packing, _) = Packing::of(path.to_str().unwrap_or_default());
    Ok(match packing {
        Packing::Plain => Box::new(stream),
        // Tools append to packed files by adding another member: all are read.
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(stream)),
        Packing::Zstd => {
            let decoder = zstd::stream::read::Decoder::new(stream);
            Box::new(decoder.map_err(|error| unreadable("unpacking file", path, &error))?)
        }
    })
}
