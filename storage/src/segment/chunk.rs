//! A run of rows of a consuming segment, with its statistics and its true size in memory.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch},
    compute::{max, max_boolean, min, min_boolean},
    datatypes::{
        Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    },
};

use super::{ColumnStats, compact::compact};
use crate::{
    Result,
    index::{IndexSpec, chunk::ChunkIndex},
    scalar::{Scalar, compare_floats},
    schema::{DataType, TableSchema},
    stats::{set_byte_bounds, set_text_bounds},
};

#[derive(Debug)]
pub(crate) struct Chunk {
    batch: RecordBatch,
    /// By index in the schema.
    stats: Box<[ColumnStats]>,
    bytes: u64,
    /// Those that were made so far.
    indexes: ArcSwap<Vec<Arc<ChunkIndex>>>,
}

impl Chunk {
    /// The rows of `batch`, without anything else that its buffers hold.
    pub(super) fn new(schema: &TableSchema, batch: &RecordBatch) -> Result<Self> {
        let batch = compacted(batch)?;
        let stats = schema
            .columns
            .iter()
            .zip(batch.columns())
            .map(|(column, array)| array_stats(&column.data_type, array))
            .collect();
        Ok(Self { bytes: memory(&batch), batch, stats, indexes: ArcSwap::default() })
    }

    /// `batch` has the rows of `parts`.
    pub(super) fn merged(batch: &RecordBatch, parts: &[Arc<Self>]) -> Result<Self> {
        let batch = compacted(batch)?;
        let stats = (0..batch.num_columns())
            .map(|index| {
                let mut parts = parts.iter().map(|part| &part.stats[index]);
                let first = parts.next().cloned().unwrap_or_default();
                parts.fold(first, |all, part| all.merged(part))
            })
            .collect();
        Ok(Self { bytes: memory(&batch), batch, stats, indexes: ArcSwap::default() })
    }

    pub(crate) fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    pub(super) fn stats(&self) -> &[ColumnStats] {
        &self.stats
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn indexes(&self) -> Arc<Vec<Arc<ChunkIndex>>> {
        self.indexes.load_full()
    }

    /// Makes the first index of `specs` that the chunk lacks and can have, and forgets those that are none of them. `None` when it lacks none, else by how many
    /// bytes its indexes grew. Errors: as building has them; then the index is there and knows nothing. Called by one thread at a time.
    pub(super) fn build_next(&self, specs: &[IndexSpec], schema: &TableSchema) -> Option<(Result<()>, i64)> {
        let known = self.indexes.load_full();
        let bytes = |indexes: &[Arc<ChunkIndex>]| indexes.iter().map(|index| index.bytes() as i64).sum::<i64>();
        let wanted = |index: &&Arc<ChunkIndex>| specs.iter().any(|spec| spec.id == index.id);
        let mut next: Vec<_> = known.iter().filter(wanted).cloned().collect();
        let lacking = specs
            .iter()
            .find(|spec| ChunkIndex::is_for(spec, schema) && !known.iter().any(|index| index.id == spec.id));
        let Some(spec) = lacking else {
            if next.len() == known.len() {
                return None;
            }
            let grown = bytes(&next) - bytes(&known);
            self.indexes.store(Arc::new(next));
            return Some((Ok(()), grown));
        };
        // Should building panic, it is not tried again.
        next.push(Arc::new(ChunkIndex::empty(spec)));
        self.indexes.store(Arc::new(next.clone()));
        let built = ChunkIndex::build(spec, schema, &self.batch).map(|index| {
            next.pop();
            next.push(Arc::new(index));
        });
        let grown = bytes(&next) - bytes(&known);
        self.indexes.store(Arc::new(next));
        Some((built, grown))
    }

    /// 0 for 1 to 7 rows, 1 for 8 to 63, …
    pub(super) fn level(&self) -> u32 {
        self.batch.num_rows().max(1).ilog2() / 3
    }
}

fn compacted(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(compact).collect::<Result<_>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn memory(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|column| column.get_array_memory_size() as u64).sum()
}

fn array_stats(data_type: &DataType, array: &ArrayRef) -> ColumnStats {
    let mut stats = ColumnStats { exact: true, nulls: array.null_count() as u64, ..ColumnStats::default() };
    let bounds = match data_type {
        DataType::Boolean => {
            let array = array.as_boolean();
            min_boolean(array).zip(max_boolean(array)).map(|(a, b)| (Scalar::Boolean(a), Scalar::Boolean(b)))
        }
        DataType::SmallInt => ints::<Int16Type>(array),
        DataType::Int => ints::<Int32Type>(array),
        DataType::BigInt => ints::<Int64Type>(array),
        DataType::Date => ints::<Date32Type>(array),
        DataType::Timestamp | DataType::TimestampTz => ints::<TimestampMicrosecondType>(array),
        DataType::Real => floats(array.as_primitive::<Float32Type>().iter().flatten().map(f64::from)),
        DataType::Double => floats(array.as_primitive::<Float64Type>().iter().flatten()),
        DataType::Numeric { .. } => {
            let array = array.as_primitive::<Decimal128Type>();
            min(array).zip(max(array)).map(|(a, b)| (Scalar::Decimal(a), Scalar::Decimal(b)))
        }
        DataType::Text | DataType::Uuid => {
            set_text_bounds(&mut stats, array.as_string_view());
            return stats;
        }
        DataType::Bytea => {
            set_byte_bounds(&mut stats, array.as_binary_view());
            return stats;
        }
        DataType::Jsonb | DataType::Array(_) => None,
    };
    (stats.min, stats.max) = bounds.unzip();
    stats
}

fn ints<T: ArrowPrimitiveType<Native: Into<i64> + PartialOrd>>(array: &ArrayRef) -> Option<(Scalar, Scalar)> {
    let array = array.as_primitive::<T>();
    min(array).zip(max(array)).map(|(a, b)| (Scalar::Int(a.into()), Scalar::Int(b.into())))
}

/// In Postgres' order: NaN above everything.
fn floats(values: impl Iterator<Item = f64>) -> Option<(Scalar, Scalar)> {
    let (min, max) = values.fold(None, |bounds, value| {
        let (min, max) = bounds.unwrap_or((value, value));
        Some((
            if compare_floats(value, min).is_lt() { value } else { min },
            if compare_floats(value, max).is_gt() { value } else { max },
        ))
    })?;
    Some((Scalar::Float(min), Scalar::Float(max)))
}
