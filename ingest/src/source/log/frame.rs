//! Frames: what one append becomes on disk. The bytes are described in `ingest/README.md`.
//!
//! A frame holds whole rows of one append in Arrow's IPC stream form, with the ids of the columns, so that it can be read under any later
//! schema of the table. Views are written as plain strings: a view array may hold on to buffers far larger than its rows.

use std::{collections::HashMap, io::Cursor, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    compute::{CastOptions, cast_with_options, concat_batches},
    datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema},
    ipc::{
        MetadataVersion,
        reader::StreamReader,
        writer::{IpcWriteOptions, StreamWriter},
    },
};
use tidemill_storage::{Error, Result, evaluate::default_array, ids::ColumnId, schema::TableSchema};

pub(super) const HEADER_BYTES: usize = 40;
/// Most bytes of one append.
pub(super) const BODY_BYTES_MAX: usize = 256 << 20;
pub(super) const MAGIC: [u8; 4] = *b"TMF1";
/// Key of the Arrow field metadata that holds a column's id.
const COLUMN_KEY: &str = "tidemill.column";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) body_bytes: u32,
    pub(super) body_checksum: u32,
    pub(super) rows: u32,
    pub(super) first_offset: u64,
    /// Length of the file that was known to be on disk when the frame was written.
    pub(super) durable_to: u64,
    pub(super) schema_version: u32,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_checksum.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.rows.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.durable_to.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.schema_version.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` when these are not the bytes of a header.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        (bytes[..4] == MAGIC && u32_at(36) == crc32c::crc32c(&bytes[..36])).then(|| Self {
            body_bytes: u32_at(4),
            body_checksum: u32_at(8),
            rows: u32_at(12),
            first_offset: u64_at(16),
            durable_to: u64_at(24),
            schema_version: u32_at(32),
        })
    }

    pub(super) fn end_offset(&self) -> u64 {
        self.first_offset + u64::from(self.rows)
    }

    pub(super) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }
}

/// A frame whose place in the log is not known yet: room for the header, then the body.
#[derive(Debug)]
pub(super) struct Draft {
    bytes: Vec<u8>,
    body_checksum: u32,
    pub(super) rows: u32,
    schema_version: u32,
}

impl Draft {
    /// Checks that the batches have the schema's columns, and writes them down.
    pub(super) fn encode(schema: &TableSchema, batches: &[RecordBatch]) -> Result<Self> {
        let wanted = schema.arrow();
        let stored = Arc::new(ArrowSchema::new(
            schema
                .columns
                .iter()
                .map(|column| {
                    let field = column.data_type.field(&column.name, true);
                    let mut metadata = field.metadata().clone();
                    metadata.insert(COLUMN_KEY.into(), column.id.to_string());
                    Field::new(field.name(), plain(field.data_type()), true).with_metadata(metadata)
                })
                .collect::<Vec<_>>(),
        ));
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
        let mut bytes = vec![0; HEADER_BYTES];
        let mut rows = 0usize;
        {
            let mut writer = StreamWriter::try_new_with_options(&mut bytes, &stored, options)?;
            for batch in batches {
                let given = batch.schema();
                if given.fields().len() != wanted.fields().len()
                    || given.fields().iter().zip(wanted.fields()).any(|(a, b)| a.data_type() != b.data_type())
                {
                    return Err(Error::Invalid(format!(
                        "rows of {given:?} do not have the table's columns {wanted:?}"
                    )));
                }
                let columns = batch
                    .columns()
                    .iter()
                    .zip(stored.fields())
                    .map(|(array, field)| exact_cast(array, field.data_type()))
                    .collect::<Result<Vec<_>>>()?;
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                writer.write(&RecordBatch::try_new_with_options(Arc::clone(&stored), columns, &options)?)?;
                rows += batch.num_rows();
            }
            writer.finish()?;
        }
        let body = bytes.len() - HEADER_BYTES;
        let rows = u32::try_from(rows).ok().filter(|_| body <= BODY_BYTES_MAX).ok_or_else(|| {
            Error::Invalid(format!(
                "{rows} rows of {body} bytes are too many for one append; the limit is {BODY_BYTES_MAX} bytes"
            ))
        })?;
        let body_checksum = crc32c::crc32c(&bytes[HEADER_BYTES..]);
        Ok(Self { bytes, body_checksum, rows, schema_version: schema.version.0 })
    }

    /// Length of the frame.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The frame's bytes at its place.
    pub(super) fn place(&mut self, first_offset: u64, durable_to: u64) -> &[u8] {
        let header = Header {
            body_bytes: (self.bytes.len() - HEADER_BYTES) as u32,
            body_checksum: self.body_checksum,
            rows: self.rows,
            first_offset,
            durable_to,
            schema_version: self.schema_version,
        };
        self.bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        &self.bytes
    }
}

/// The rows of a frame's body, as they were written.
pub(super) fn decode(path: &Path, header: &Header, body: &[u8]) -> Result<RecordBatch> {
    let damaged = |found: String| {
        Error::corrupt(path, format!("log frame at offset {}", header.first_offset), "an Arrow IPC stream", found)
    };
    let reader = StreamReader::try_new(Cursor::new(body), None).map_err(|error| damaged(error.to_string()))?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| damaged(error.to_string()))?;
    let rows = concat_batches(&schema, &batches).map_err(|error| damaged(error.to_string()))?;
    if rows.num_rows() != header.rows as usize {
        return Err(damaged(format!("{} rows instead of {}", rows.num_rows(), header.rows)));
    }
    Ok(rows)
}

/// Rows that were written under any earlier schema of the table, as rows of `schema`: columns are found by id, widened where their
/// type grew, and have their default where they are younger than the rows.
pub(super) fn conform(rows: &RecordBatch, schema: &TableSchema) -> Result<RecordBatch> {
    let written = rows.schema();
    let index_of = |id: ColumnId| {
        let id = id.to_string();
        written.fields().iter().position(|field| field.metadata().get(COLUMN_KEY) == Some(&id))
    };
    let target = schema.arrow();
    let columns = schema
        .columns
        .iter()
        .zip(target.fields())
        .map(|(column, field)| match index_of(column.id) {
            Some(index) => exact_cast(rows.column(index), field.data_type()),
            None => default_array(column, rows.num_rows()),
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(target, columns, &options)?)
}

/// The type without views.
fn plain(data_type: &ArrowType) -> ArrowType {
    match data_type {
        ArrowType::Utf8View => ArrowType::Utf8,
        ArrowType::BinaryView => ArrowType::Binary,
        ArrowType::List(item) => {
            let metadata: HashMap<String, String> = item.metadata().clone();
            let item = Field::new(item.name(), plain(item.data_type()), item.is_nullable()).with_metadata(metadata);
            ArrowType::List(Arc::new(item))
        }
        other => other.clone(),
    }
}

fn exact_cast(array: &ArrayRef, wanted: &ArrowType) -> Result<ArrayRef> {
    if array.data_type() == wanted {
        return Ok(Arc::clone(array));
    }
    Ok(cast_with_options(array, wanted, &CastOptions { safe: false, ..CastOptions::default() })?)
}
