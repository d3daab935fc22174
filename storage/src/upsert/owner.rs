//! Which partition of a table has the rows of a key: always the same one of as many, so that its one writer decides who wins.

use arrow::array::{ArrayRef, RecordBatch};

use super::{KeySpec, identity::fingerprints};
use crate::{Error, Result, evaluate::plain_floats, schema::TableSchema};

/// Spreads fingerprints anew: their highest bits say where a key is in the map of its partition.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl KeySpec {
    /// The partition of each row. `rows` has the columns of `schema`, in order.
    pub fn owners(&self, schema: &TableSchema, rows: &RecordBatch, partitions: u32) -> Result<Vec<u32>> {
        let column = |id| schema.index_of(id).and_then(|at| rows.columns().get(at)).map(plain_floats);
        let missing = || Error::Invalid("the rows lack a column of their key".into());
        let columns: Option<Vec<ArrayRef>> = self.columns.iter().map(|id| column(*id)).collect();
        let fingerprints = fingerprints(&columns.ok_or_else(missing)?)?;
        Ok(fingerprints.into_iter().map(|fingerprint| owner(fingerprint, partitions)).collect())
    }
}

/// The partition of a key of the fingerprint.
pub(crate) fn owner(fingerprint: u64, partitions: u32) -> u32 {
    let spread = fingerprint.wrapping_mul(SPREAD) >> 32;
    ((spread * u64::from(partitions)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringViewArray};

    use super::*;
    use crate::{
        ids::{ColumnId, SchemaVersion},
        schema::{Column, DataType},
        upsert::Keep,
    };

    /// Partitions on disk depend on it.
    #[test]
    fn keys_stay_with_their_partition() {
        let column = |id, data_type| Column::new(ColumnId(id), format!("c{id}"), data_type);
        let columns = vec![column(0, DataType::BigInt), column(1, DataType::Text), column(2, DataType::Double)];
        let schema = TableSchema { version: SchemaVersion(1), columns, time_column: None };
        let rows = RecordBatch::try_new(
            schema.arrow(),
            vec![
                Arc::new((0..8).map(|n| Some(n / 2)).collect::<Int64Array>()),
                Arc::new((0..8).map(|n| Some(format!("text {}", n % 3))).collect::<StringViewArray>()),
                Arc::new((0..8).map(|n| Some(if n % 2 == 0 { 0.0 } else { -0.0 })).collect::<Float64Array>()),
            ],
        )
        .unwrap();
        let owners = |columns: &[u32]| {
            let columns = columns.iter().map(|id| ColumnId(*id)).collect();
            let spec = KeySpec {
                columns,
                version: None,
                delete: None,
                keep: Keep::Last,
                keeps_losers: true,
                late: None,
                merges: false,
                ages: None,
            };
            spec.owners(&schema, &rows, 4).unwrap()
        };
        assert_eq!(owners(&[0]), OF_NUMBERS);
        assert_eq!(owners(&[1, 0]), OF_TEXTS_AND_NUMBERS);
        assert!(owners(&[2]).windows(2).all(|pair| pair[0] == pair[1]), "two zeros are one");
    }

    /// As xxHash64 and the page on disk formats give them.
    const OF_NUMBERS: [u32; 8] = [1, 1, 0, 0, 2, 2, 3, 3];
    const OF_TEXTS_AND_NUMBERS: [u32; 8] = [2, 2, 1, 1, 2, 1, 2, 3];
}
