//! Groups as the bytes of a stretch: an Arrow IPC stream of one batch, compressed. Described in `ingest/README.md`.

use std::{io::Cursor, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, RecordBatch},
    datatypes::{DataType as ArrowType, Field, Schema},
    ipc::{reader::StreamReader, writer::StreamWriter},
};

use super::super::groups::Dump;
use crate::{Error, Result, pipeline::plan::Aggregate};

const ZSTD_LEVEL: i32 = 1;

/// The bytes, and how many they are uncompressed.
pub(super) fn encode(dump: &Dump) -> Result<(Vec<u8>, u64)> {
    let arrays: Vec<ArrayRef> = dump.keys.iter().chain(dump.states.iter().flatten()).map(own).collect();
    let fields = arrays.iter().enumerate();
    let fields = fields.map(|(at, array)| Field::new(format!("a{at}"), array.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    let mut stream = Vec::new();
    let mut writer = StreamWriter::try_new(&mut stream, &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    drop(writer);
    let packed = zstd::bulk::compress(&stream, ZSTD_LEVEL).map_err(|error| Error::Commit(error.to_string()))?;
    Ok((packed, stream.len() as u64))
}

/// The array with texts of its own: views of some rows share the texts of all, which would be written with each stretch.
fn own(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        ArrowType::Utf8View => Arc::new(array.as_string_view().gc()),
        ArrowType::BinaryView => Arc::new(array.as_binary_view().gc()),
        ArrowType::List(field) => {
            let list = array.as_list::<i32>();
            let values = own(list.values());
            let own = ListArray::try_new(Arc::clone(field), list.offsets().clone(), values, list.nulls().cloned());
            own.map_or_else(|_| Arc::clone(array), |own| Arc::new(own) as _)
        }
        _ => Arc::clone(array),
    }
}

/// The error says what was found.
pub(super) fn decode(bytes: &[u8], plain: u64, rows: u64, aggregate: &Aggregate) -> Result<Dump, String> {
    let stream = zstd::bulk::decompress(bytes, plain as usize).map_err(|error| error.to_string())?;
    let mut reader = StreamReader::try_new(Cursor::new(stream), None).map_err(|error| error.to_string())?;
    let batch = reader.next().ok_or("a stretch without a batch")?.map_err(|error| error.to_string())?;
    if batch.num_rows() as u64 != rows {
        return Err(format!("{} groups", batch.num_rows()));
    }
    let mut arrays = batch.columns().iter().map(Arc::clone);
    let keys = arrays.by_ref().take(aggregate.key_schema.fields().len()).collect();
    let mut columns = vec![keys];
    for call in &aggregate.calls {
        let length = call.function.state_fields().map_err(|error| error.to_string())?.len();
        columns.push(arrays.by_ref().take(length).collect());
    }
    if arrays.next().is_some() {
        return Err("more columns than the query has".into());
    }
    aggregate.dump_of(batch.num_rows(), columns).map_err(|error| error.to_string())
}
