//! The rows that have certain values in certain columns, for many values at once: what a join of a stream with the table asks.
//!
//! Rows of whole primary keys are found by the key map ([`super::lookup`]), all others, and keys that the map cannot tell of, by a scan with the values as
//! its condition, which indexes make quick. The plain twin is that scan alone.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_empty_array},
    compute::{and, concat, filter, kernels::cmp::eq, prep_null_mask_filter, take},
    row::{RowConverter, SortField},
};

use super::Table;
use crate::{
    Error, Result,
    evaluate::{plain_floats, scalar_of},
    ids::ColumnId,
    predicate::{Condition, Predicate},
    scan::{ScanHints, ScanRequest},
    schema::{Column, TableSchema},
};

/// Rows, each with the place of the values that it has.
#[derive(Debug)]
pub struct Partners {
    /// Ascending.
    pub keys: Vec<u32>,
    /// Of each column that was asked for.
    pub columns: Vec<ArrayRef>,
}

/// Rows per batch of the scan.
const BATCH_ROWS: usize = 8192;
/// So many values are told to the segments, whose indexes find them; of more each value of a column is looked for among them.
const LISTED_MAX: usize = 64;

/// Whether a value is among many.
#[derive(Debug)]
struct Among {
    converter: RowConverter,
    values: HashSet<Box<[u8]>>,
}

impl Among {
    fn of(values: &ArrayRef) -> Result<Self> {
        let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])?;
        let rows = converter.convert_columns(std::slice::from_ref(values))?;
        let values = rows.iter().map(|row| Box::from(row.data())).collect();
        Ok(Self { converter, values })
    }
}

impl fmt::Display for Among {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "among {} values", self.values.len())
    }
}

impl Condition for Among {
    fn holds(&self, values: &ArrayRef) -> Result<BooleanArray> {
        let rows = self.converter.convert_columns(&[plain_floats(values)])?;
        let is_there =
            |(at, row): (usize, arrow::row::Row<'_>)| values.is_valid(at) && self.values.contains(row.data());
        Ok(rows.iter().enumerate().map(is_there).map(Some).collect())
    }
}

impl Table {
    /// The rows that a reader sees now whose columns `by` have one of `keys`, which are as many values of each of these columns, in its type, no combination of them twice. NULL is
    /// no value that a row has. Columns are named by their ids, and given in the types of the present schema; `Invalid` for one that is not of it.
    pub fn partners(&self, by: &[ColumnId], keys: &[ArrayRef], columns: &[ColumnId]) -> Result<Partners> {
        let schema = self.schema();
        let column_of = |id: &ColumnId| {
            schema.column(*id).ok_or_else(|| Error::Invalid(format!("the table has no column with id {id}")))
        };
        let by_columns = by.iter().map(column_of).collect::<Result<Vec<&Column>>>()?;
        let asked = columns.iter().map(column_of).collect::<Result<Vec<&Column>>>()?;
        let count = keys.first().map_or(0, |values| values.len());
        let fits = |(column, values): (&&Column, &ArrayRef)| {
            column.data_type.arrow() == *values.data_type() && values.len() == count
        };
        if by.is_empty() || by.len() != keys.len() || !by_columns.iter().zip(keys).all(fits) {
            return Err(Error::Invalid("the values are not of the columns that they are looked for in".into()));
        }
        let keys: Vec<ArrayRef> = keys.iter().map(plain_floats).collect();
        let mut pieces: Vec<(UInt32Array, Vec<ArrayRef>)> = Vec::new();
        let mut rest: Vec<u32> =
            (0..count as u32).filter(|row| keys.iter().all(|values| values.is_valid(*row as usize))).collect();
        let of_key = self.key().map(|spec| spec.columns.clone()).unwrap_or_default();
        let places: Option<Vec<usize>> = of_key.iter().map(|id| by.iter().position(|by| by == id)).collect();
        if let Some(places) = places.filter(|places| !places.is_empty() && !rest.is_empty()) {
            let wanted = UInt32Array::from(rest);
            let of_key: Vec<ArrayRef> =
                places.iter().map(|place| take(&keys[*place], &wanted, None)).collect::<Result<_, _>>()?;
            // What is asked beside the key is looked at in the row that was found.
            let all: Vec<ColumnId> = by.iter().chain(columns).copied().collect();
            let found = self.look_up_all(&of_key, &all)?;
            let at = |places: &[u32]| take(&wanted, &UInt32Array::from(places.to_vec()), None);
            let numbers = at(&found.keys)?;
            let mut mask = BooleanArray::from(vec![true; numbers.len()]);
            for (values, keys) in found.columns.iter().zip(&keys) {
                let same = eq(&plain_floats(values), &take(keys, &numbers, None)?)?;
                let same = if same.null_count() > 0 { prep_null_mask_filter(&same) } else { same };
                mask = and(&mask, &same)?;
            }
            let numbers = filter(&numbers, &mask)?;
            let values = found.columns[by.len()..].iter().map(|values| filter(values, &mask));
            pieces.push((UInt32Array::from(numbers.to_data()), values.collect::<Result<_, _>>()?));
            rest = UInt32Array::from(at(&found.unknown)?.to_data()).values().to_vec();
        }
        if !rest.is_empty() {
            self.scan_partners(&schema, by, &keys, &rest, columns, &mut pieces)?;
        }
        let numbers: Vec<u32> = pieces.iter().flat_map(|(numbers, _)| numbers.values().iter().copied()).collect();
        let mut order: Vec<u32> = (0..numbers.len() as u32).collect();
        order.sort_by_key(|place| numbers[*place as usize]);
        let keys = order.iter().map(|place| numbers[*place as usize]).collect();
        let order = UInt32Array::from(order);
        let column = |(at, column): (usize, &&Column)| {
            let pieces: Vec<&dyn Array> = pieces.iter().map(|(_, values)| values[at].as_ref()).collect();
            match pieces.is_empty() {
                true => Ok(new_empty_array(&column.data_type.arrow())),
                false => Ok(take(&concat(&pieces)?, &order, None)?),
            }
        };
        Ok(Partners { keys, columns: asked.iter().enumerate().map(column).collect::<Result<_>>()? })
    }

    /// The same for some of the keys, by a scan.
    fn scan_partners(
        &self,
        schema: &Arc<TableSchema>,
        by: &[ColumnId],
        keys: &[ArrayRef],
        wanted: &[u32],
        columns: &[ColumnId],
        pieces: &mut Vec<(UInt32Array, Vec<ArrayRef>)>,
    ) -> Result<()> {
        let of_column = |(column, values): (&ColumnId, &ArrayRef)| -> Result<Predicate> {
            if wanted.len() <= LISTED_MAX {
                let mut values: Vec<_> = wanted.iter().filter_map(|row| scalar_of(values, *row as usize)).collect();
                values.dedup();
                return Ok(Predicate::In { column: *column, values, negated: false });
            }
            let condition = Arc::new(Among::of(&take(values, &UInt32Array::from(wanted.to_vec()), None)?)?);
            Ok(Predicate::Holds { column: *column, condition })
        };
        let predicate = by.iter().zip(keys).map(of_column).collect::<Result<Vec<_>>>()?;
        let request = Arc::new(ScanRequest {
            schema: Arc::clone(schema),
            projection: by.iter().chain(columns).copied().collect(),
            predicate: Some(Predicate::And(predicate)),
            limit: None,
            batch_rows: BATCH_ROWS,
            hints: ScanHints::default(),
        });
        let fields = keys.iter().map(|values| SortField::new(values.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let packed = converter.convert_columns(keys)?;
        let numbers: HashMap<&[u8], u32> = wanted.iter().map(|row| (packed.row(*row as usize).data(), *row)).collect();
        for unit in self.snapshot().plan(&request).units {
            for batch in unit.scan(&request, &Arc::default())? {
                let batch: RecordBatch = batch?;
                let values: Vec<ArrayRef> = batch.columns()[..by.len()].iter().map(plain_floats).collect();
                let rows = converter.convert_columns(&values)?;
                // Each column has one of its values; only together they are a key.
                let of_row =
                    (0u32..).zip(rows.iter()).filter_map(|(place, row)| Some((place, *numbers.get(row.data())?)));
                let (places, of_key): (Vec<u32>, Vec<u32>) = of_row.unzip();
                let places = UInt32Array::from(places);
                let values = batch.columns()[by.len()..].iter().map(|values| take(values, &places, None));
                pieces.push((of_key.into(), values.collect::<Result<_, _>>()?));
            }
        }
        Ok(())
    }
}
