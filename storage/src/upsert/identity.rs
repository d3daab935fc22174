//! What tells a row of a table with a key: its key and its rank, as bytes that compare as the values do (Arrow's row format), and the fingerprint of
//! its key, made of the hashes of its values (`hash`).

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array},
    buffer::BooleanBuffer,
    compute::SortOptions,
    row::{RowConverter, Rows, SortField},
};

use super::{Keep, KeySpec, ages, provenance};
use crate::{Error, Result, evaluate::plain_floats, hash, ids::ColumnId, schema::TableSchema};

/// Reads identities of rows of one table.
#[derive(Debug)]
pub struct Reader {
    /// The columns that it reads: the key's, then those of the rank, then the one that deletes, then the one that tells how old a row is.
    columns: Vec<ColumnId>,
    key_columns: usize,
    rank_columns: usize,
    deletes: bool,
    /// Whether times matter.
    ages: bool,
    keys: RowConverter,
    ranks: RowConverter,
}

/// Of some rows.
#[derive(Debug)]
pub struct Identities {
    keys: Rows,
    fingerprints: Vec<u64>,
    ranks: Rows,
    /// Rows that delete their key.
    deletes: Option<BooleanBuffer>,
    /// Microseconds since 1970, where keys are not known for ever.
    times: Option<Int64Array>,
}

impl Reader {
    /// `written` is a schema that the table's segments have.
    pub fn new(spec: &KeySpec, written: &TableSchema) -> Result<Self> {
        let ranks: Vec<ColumnId> = spec.version.into_iter().chain(provenance::ids()).collect();
        // NULL loses against every version.
        let options = SortOptions { descending: false, nulls_first: spec.keep == Keep::Last };
        let converter = |ids: &[ColumnId]| -> Result<RowConverter> {
            let field = |id: &ColumnId| match written.column(*id) {
                Some(column) => Ok(SortField::new_with_options(column.data_type.arrow(), options)),
                None => Err(Error::Invalid(format!("the rows have no column with id {id}"))),
            };
            Ok(RowConverter::new(ids.iter().map(field).collect::<Result<_>>()?)?)
        };
        Ok(Self {
            keys: converter(&spec.columns)?,
            ranks: converter(&ranks)?,
            key_columns: spec.columns.len(),
            rank_columns: ranks.len(),
            deletes: spec.delete.is_some(),
            ages: spec.ages.is_some(),
            columns: (spec.columns.iter().copied().chain(ranks).chain(spec.delete))
                .chain(spec.ages.map(|ages| ages.column))
                .collect(),
        })
    }

    /// The columns that identities are made of, in the order in which [`Self::read`] takes them.
    pub fn columns(&self) -> &[ColumnId] {
        &self.columns
    }

    pub fn read(&self, arrays: &[ArrayRef]) -> Result<Identities> {
        let plain: Vec<ArrayRef> = arrays.iter().map(plain_floats).collect();
        let (keys, rest) = plain.split_at(self.key_columns);
        let (ranks, rest) = rest.split_at(self.rank_columns);
        let (delete, times) = rest.split_at(usize::from(self.deletes));
        Ok(Identities {
            fingerprints: fingerprints(keys)?,
            keys: self.keys.convert_columns(keys)?,
            ranks: self.ranks.convert_columns(ranks)?,
            deletes: delete.first().map(true_rows),
            times: times.first().map(ages::micros).transpose()?,
        })
    }

    /// The columns that [`Self::read_keys`] takes: what is to be known of a row whose key no other has.
    pub(super) fn columns_without_rank(&self) -> Vec<ColumnId> {
        let (keys, rest) = self.columns.split_at(self.key_columns);
        let rest = &rest[self.rank_columns..];
        keys.iter().chain(&rest[..rest.len() - usize::from(self.ages)]).copied().collect()
    }

    /// The fingerprints of rows, and which of them delete their keys.
    pub(super) fn read_keys(&self, arrays: &[ArrayRef]) -> Result<(Vec<u64>, Option<BooleanBuffer>)> {
        let (keys, delete) = arrays.split_at(self.key_columns);
        let plain: Vec<ArrayRef> = keys.iter().map(plain_floats).collect();
        Ok((fingerprints(&plain)?, delete.first().map(true_rows)))
    }
}

fn true_rows(column: &ArrayRef) -> BooleanBuffer {
    match column.as_boolean() {
        column if column.null_count() == 0 => column.values().clone(),
        column => column.values() & column.nulls().map_or(column.values(), |nulls| nulls.inner()),
    }
}

/// That of one key, of whose columns `arrays` have one value each.
pub(crate) fn fingerprint(arrays: &[ArrayRef]) -> Result<u64> {
    fingerprints(arrays)?.first().copied().ok_or_else(|| Error::Invalid("a key without a value".into()))
}

/// A hash of each key, of whose columns `arrays` are: of one column that of its value, of several that of their hashes, one after the other.
pub(crate) fn fingerprints(arrays: &[ArrayRef]) -> Result<Vec<u64>> {
    let mut hashes = Vec::with_capacity(arrays.len());
    for array in arrays {
        let mut of_column = Vec::with_capacity(array.len());
        hash::of_array(array, |value| of_column.push(value.unwrap_or(0)))?;
        hashes.push(of_column);
    }
    if hashes.len() == 1 {
        return Ok(hashes.swap_remove(0));
    }
    let rows = hashes.first().map_or(0, Vec::len);
    let mut of_row = vec![0; hashes.len()];
    let joined = |row: usize| {
        of_row.iter_mut().zip(&hashes).for_each(|(hash, of_column)| *hash = of_column[row]);
        fingerprint_of_hashes(&of_row)
    };
    Ok((0..rows).map(joined).collect())
}

/// That of the key whose values have these hashes.
pub(crate) fn fingerprint_of_hashes(hashes: &[u64]) -> u64 {
    if let [one] = hashes {
        return *one;
    }
    // Keys have few columns: their hashes need no memory of their own.
    let (mut few, mut many) = ([0; 8 * 8], Vec::new());
    let bytes = match few.get_mut(..8 * hashes.len()) {
        Some(few) => few,
        None => {
            many.resize(8 * hashes.len(), 0);
            many.as_mut_slice()
        }
    };
    for (place, hash) in bytes.chunks_exact_mut(8).zip(hashes) {
        place.copy_from_slice(&hash.to_le_bytes());
    }
    hash::of_bytes(bytes)
}

impl Identities {
    pub(super) fn rows(&self) -> usize {
        self.keys.num_rows()
    }

    pub fn fingerprint(&self, row: usize) -> u64 {
        self.fingerprints[row]
    }

    pub fn key(&self, row: usize) -> &[u8] {
        self.keys.row(row).data()
    }

    pub fn rank(&self, row: usize) -> &[u8] {
        self.ranks.row(row).data()
    }

    /// `None`: it has none, or keys are known for ever.
    pub(super) fn time(&self, row: usize) -> Option<i64> {
        self.times.as_ref().filter(|times| times.is_valid(row)).map(|times| times.value(row))
    }

    pub fn deletes(&self, row: usize) -> bool {
        self.deletes.as_ref().is_some_and(|deletes| deletes.value(row))
    }
}
