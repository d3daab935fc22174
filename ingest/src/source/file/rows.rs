//! Rows of Parquet files and Avro container files.

use std::{
    io::BufReader,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::SchemaRef,
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use arrow_avro::reader::ReaderBuilder;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::{
    cast::{Cast, Misfit},
    object::Object,
    unfit,
};
use crate::{Result, decode::SourceColumn, message::Reject};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8192;
/// Most bytes of a rejected row's text.
const RAW_BYTES_MAX: usize = 64 << 10;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

pub(super) struct RowFile {
    path: PathBuf,
    batches: Batches,
    cast: Cast,
    /// Decoded and not yet handed over.
    rest: Option<RecordBatch>,
}

/// Rows, their offsets, rejects, and the offset after all of them.
pub(super) type RowRead = (RecordBatch, Vec<u64>, Vec<Reject>, u64);

impl RowFile {
    pub(super) fn parquet(path: &Path, columns: &[SourceColumn], offset: u64) -> Result<Self> {
        let builder = parquet_builder(path)?;
        let cast = Cast::new(builder.schema(), columns).map_err(|misfit| misfit_error(path, misfit))?;
        let names = cast.file_columns();
        let wanted =
            builder.schema().fields().iter().enumerate().filter(|(_, field)| names.contains(&field.name().as_str()));
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.map(|(index, _)| index));
        let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
        let reader = builder
            .with_offset(usize::try_from(offset).unwrap_or(usize::MAX))
            .build()
            .map_err(|error| unfit(path, error, None))?;
        Ok(Self { path: path.to_owned(), batches: Box::new(reader), cast, rest: None })
    }

    pub(super) fn avro(path: &Path, columns: &[SourceColumn], offset: u64) -> Result<Self> {
        let reader = ReaderBuilder::new()
            .with_batch_size(BATCH_ROWS)
            .build(BufReader::with_capacity(1 << 18, Object::open(path)?.stream()))
            .map_err(|error| unfit(path, error, Some("is it an Avro container file?")))?;
        let cast = Cast::new(&reader.schema(), columns).map_err(|misfit| misfit_error(path, misfit))?;
        let mut opened = Self { path: path.to_owned(), batches: Box::new(reader), cast, rest: None };
        let mut left = offset;
        while left > 0 {
            let Some(batch) = opened.next_batch()? else {
                let reason = format!("it has {} rows, but {offset} is the next to read", offset - left);
                return Err(unfit(path, reason, Some("it became shorter since it was read")));
            };
            let skipped = batch.num_rows().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= skipped as u64;
            opened.rest = Some(batch.slice(skipped, batch.num_rows() - skipped)).filter(|rest| rest.num_rows() > 0);
        }
        Ok(opened)
    }

    /// At most `max_rows` rows of the source's columns from offset `from` on, where this file stands; none at its end.
    pub(super) fn read(&mut self, from: u64, max_rows: usize) -> Result<RowRead> {
        let Some(batch) = self.next_batch()? else {
            return Ok((RecordBatch::new_empty(Arc::clone(self.cast.schema())), Vec::new(), Vec::new(), from));
        };
        let most = batch.slice(0, batch.num_rows().min(max_rows));
        let (rows, kept, faults, now) = self.cast.apply(&most).map_err(|error| unfit(&self.path, error, None))?;
        if now < batch.num_rows() {
            self.rest = Some(batch.slice(now, batch.num_rows() - now));
        }
        let row_offsets = kept.into_iter().map(|row| from + row as u64).collect();
        let rejects = faults
            .into_iter()
            .map(|fault| Reject {
                offset: from + fault.row as u64,
                timestamp_ms: -1,
                column: Some(fault.column),
                reason: fault.reason,
                raw: text_of(&batch, fault.row).into(),
            })
            .collect();
        Ok((rows, row_offsets, rejects, from + now as u64))
    }

    pub(super) fn count(mut self) -> Result<u64> {
        let mut rows = 0;
        while let Some(batch) = self.next_batch()? {
            rows += batch.num_rows() as u64;
        }
        Ok(rows)
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        loop {
            match self.batches.next() {
                None => return Ok(None),
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => return Ok(Some(batch)),
                Some(Err(error)) => return Err(unfit(&self.path, error, Some("the file is damaged"))),
            }
        }
    }
}

pub(super) fn parquet_rows(path: &Path) -> Result<u64> {
    let rows = parquet_builder(path)?.metadata().file_metadata().num_rows();
    Ok(u64::try_from(rows).unwrap_or(0))
}

fn parquet_builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<Object>> {
    ParquetRecordBatchReaderBuilder::try_new(Object::open(path)?)
        .map_err(|error| unfit(path, error, Some("is it a Parquet file?")))
}

fn misfit_error(path: &Path, misfit: Misfit) -> crate::Error {
    unfit(path, misfit.reason, Some(misfit.hint))
}

/// The row for a person: column names and values, as far as they were read.
fn text_of(batch: &RecordBatch, row: usize) -> String {
    let schema: SchemaRef = batch.schema();
    let options = FormatOptions::default().with_null("NULL");
    let mut text = String::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let value = ArrayFormatter::try_new(column.as_ref(), &options).map(|format| format.value(row).to_string());
        let separator = if text.is_empty() { "" } else { ", " };
        text.push_str(&format!("{separator}{}: {}", field.name(), value.unwrap_or_else(|error| error.to_string())));
        if text.len() > RAW_BYTES_MAX {
            text.truncate(text.floor_char_boundary(RAW_BYTES_MAX));
            break;
        }
    }
    text
}
