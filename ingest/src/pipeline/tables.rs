//! Tables as pipelines look into them, and what they said.
//!
//! A table has another content at another time, and a machine is to give the same rows when it is fed again. So what a table said belongs to the arrival that it was asked for:
//! the runner keeps both, and a machine that is fed an arrival again is told the answers instead of asking.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array},
    compute::{filter_record_batch, take, take_record_batch},
    datatypes::UInt32Type,
    row::{RowConverter, SortField},
};

use super::{expression::Uncomputed, plan::LookUp};
use crate::{Error, Result};

/// A table with rows of now. Columns are places in the schema that the plan was made with.
pub trait TableRows: Send + Sync + fmt::Debug {
    /// Rows that are equal to a key in the columns `by`, as one snapshot of each partition has them. `keys`: of each of these columns as many values, in its type; a NULL equals
    /// nothing. The answer: first which key (u32, ascending), then `columns`. Errors are those of the table, never of a key.
    fn rows_of(&self, by: &[usize], keys: &[ArrayRef], columns: &[usize]) -> Result<RecordBatch>;
}

/// What tables said for one arrival, in the order in which they were asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(pub(crate) Vec<RecordBatch>);

impl Answers {
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(RecordBatch::get_array_memory_size).sum()
    }
}

/// Asks tables, or tells again what they said.
#[derive(Debug)]
pub(crate) struct Asking {
    tables: Arc<[Arc<dyn TableRows>]>,
    told: VecDeque<RecordBatch>,
    answers: Answers,
    /// A table could not be asked: no row is to blame.
    failed: Option<Error>,
}

impl Asking {
    pub(crate) fn new(tables: Arc<[Arc<dyn TableRows>]>) -> Self {
        Self { tables, told: VecDeque::new(), answers: Answers::default(), failed: None }
    }

    /// What was said the last time is said again.
    pub(crate) fn tell(&mut self, answers: Answers) {
        self.told = answers.0.into();
    }

    /// What was said since the last time.
    pub(crate) fn take(&mut self) -> Answers {
        std::mem::take(&mut self.answers)
    }

    /// Why a table could not be asked.
    pub(crate) fn failure(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Whether nothing more is to be asked or computed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Why a row cannot be computed. What no row is to blame for is told by [`Asking::failure`], as of a table that cannot be asked.
    pub(crate) fn blame(&mut self, uncomputed: Uncomputed) -> String {
        match uncomputed {
            Uncomputed::Row(reason) => reason,
            Uncomputed::Nobody(reason) => {
                self.failed.get_or_insert(Error::Unavailable(reason.clone()));
                reason
            }
        }
    }

    /// What is at `table` says of keys; see [`TableRows::rows_of`]. An error makes no row a bad one: [`Asking::failure`] has it.
    pub(crate) fn ask(
        &mut self,
        table: usize,
        by: &[usize],
        keys: &[ArrayRef],
        columns: &[usize],
    ) -> Result<RecordBatch, String> {
        let failed = || "a table could not be asked".to_owned();
        if self.failed.is_some() {
            return Err(failed());
        }
        let answer = match (self.told.pop_front(), self.tables.get(table)) {
            (Some(told), _) => Ok(told),
            (None, Some(table)) => table.rows_of(by, keys, columns),
            (None, None) => Err(Error::Unavailable("the table is not there".into())),
        };
        match answer {
            Ok(answer) => {
                self.answers.0.push(answer.clone());
                Ok(answer)
            }
            Err(error) => {
                self.failed = Some(error);
                Err(failed())
            }
        }
    }
}

impl LookUp {
    /// The rows with those of the table that belong to them, and which of the rows each was.
    pub(crate) fn run(
        &self,
        rows: &RecordBatch,
        asking: &mut Asking,
    ) -> Result<(RecordBatch, UInt32Array), Uncomputed> {
        let text = |error: arrow::error::ArrowError| error.to_string();
        let values: Vec<ArrayRef> = self.keys.iter().map(|(value, _)| value.compute(rows)).collect::<Result<_, _>>()?;
        let by: Vec<usize> = self.keys.iter().map(|(_, column)| *column).collect();
        // Each key is asked for once.
        let fields = values.iter().map(|values| SortField::new(values.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(text)?;
        let packed = converter.convert_columns(&values).map_err(text)?;
        let mut numbers: HashMap<&[u8], u32> = HashMap::new();
        let mut firsts: Vec<u32> = Vec::new();
        let mut key_of: Vec<Option<u32>> = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            if values.iter().any(|values| values.is_null(row)) {
                key_of.push(None);
                continue;
            }
            let number = *numbers.entry(packed.row(row).data()).or_insert_with(|| {
                firsts.push(row as u32);
                (firsts.len() - 1) as u32
            });
            key_of.push(Some(number));
        }
        let firsts = UInt32Array::from(firsts);
        let distinct: Vec<ArrayRef> =
            values.iter().map(|values| take(values, &firsts, None)).collect::<Result<_, _>>().map_err(text)?;
        let answer = match firsts.is_empty() {
            true => None,
            false => Some(asking.ask(self.table, &by, &distinct, &self.kept)?),
        };
        // Pairs: the row, and the answer's row.
        let (mut lefts, mut rights): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        if let Some(answer) = &answer {
            let of_key = answer.column(0).as_primitive_opt::<UInt32Type>().ok_or("an answer without keys")?;
            let mut begins = vec![0u32; firsts.len() + 1];
            for key in of_key.values() {
                *begins.get_mut(*key as usize + 1).ok_or("an answer to no key")? += 1;
            }
            (1..begins.len()).for_each(|at| begins[at] += begins[at - 1]);
            for (row, key) in (0u32..).zip(&key_of) {
                let Some(key) = *key else { continue };
                for right in begins[key as usize]..begins[key as usize + 1] {
                    lefts.push(row);
                    rights.push(right);
                }
            }
        }
        let (mut lefts, mut rights) = (UInt32Array::from(lefts), UInt32Array::from(rights));
        let pairs = self.paired(rows, answer.as_ref(), &lefts, &rights)?;
        if let Some(residual) = &self.residual {
            let mask = super::plan::steps::mask(residual, &pairs)?;
            let keep = |places: &UInt32Array| -> Result<UInt32Array, String> {
                Ok(arrow::compute::filter(places, &mask).map_err(text)?.as_primitive::<UInt32Type>().clone())
            };
            let kept = filter_record_batch(&pairs, &mask).map_err(text)?;
            (lefts, rights) = (keep(&lefts)?, keep(&rights)?);
            return Ok(self.finish(rows, kept, answer.as_ref(), lefts, rights)?);
        }
        Ok(self.finish(rows, pairs, answer.as_ref(), lefts, rights)?)
    }

    /// Takes of the pairs of each row the latest, and puts in rows without any.
    fn finish(
        &self,
        rows: &RecordBatch,
        pairs: RecordBatch,
        answer: Option<&RecordBatch>,
        lefts: UInt32Array,
        rights: UInt32Array,
    ) -> Result<(RecordBatch, UInt32Array), String> {
        let text = |error: arrow::error::ArrowError| error.to_string();
        let mut chosen: Vec<u32> = (0..lefts.len() as u32).collect();
        if let (Some(latest), Some(answer)) = (self.latest, answer) {
            let ranks = self.ranks(answer, latest)?;
            let mut best: Vec<Option<u32>> = vec![None; rows.num_rows()];
            for pair in 0..lefts.len() {
                let (left, right) = (lefts.value(pair) as usize, rights.value(pair) as usize);
                let is_better = |known: u32| ranks.row(right) > ranks.row(rights.value(known as usize) as usize);
                if best[left].is_none_or(is_better) {
                    best[left] = Some(pair as u32);
                }
            }
            chosen = best.into_iter().flatten().collect();
        }
        if !self.is_outer {
            if chosen.len() == lefts.len() {
                return Ok((pairs, lefts));
            }
            let chosen = UInt32Array::from(chosen);
            let pairs = take_record_batch(&pairs, &chosen).map_err(text)?;
            let lefts = take(&lefts, &chosen, None).map_err(text)?;
            return Ok((pairs, lefts.as_primitive::<UInt32Type>().clone()));
        }
        // Rows in their order, those without a partner among them.
        let (mut all, mut partners): (Vec<u32>, Vec<Option<u32>>) = (Vec::new(), Vec::new());
        let mut next = chosen.into_iter().peekable();
        for row in 0..rows.num_rows() as u32 {
            let before = all.len();
            while let Some(pair) = next.next_if(|pair| lefts.value(*pair as usize) == row) {
                all.push(row);
                partners.push(Some(rights.value(pair as usize)));
            }
            if all.len() == before {
                all.push(row);
                partners.push(None);
            }
        }
        let (all, partners) = (UInt32Array::from(all), UInt32Array::from(partners));
        let joined = self.paired(rows, answer, &all, &partners)?;
        Ok((joined, all))
    }

    /// What orders the rows of an answer: the column of time, then all of them, so that there is one latest.
    fn ranks(&self, answer: &RecordBatch, latest: usize) -> Result<arrow::row::Rows, String> {
        let at = self.kept.iter().position(|kept| *kept == latest).ok_or("the time of the table was not asked for")?;
        let first = answer.column(at + 1);
        let others = answer.columns().iter().skip(1);
        let columns: Vec<ArrayRef> = std::iter::once(first).chain(others).map(Arc::clone).collect();
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(|error| error.to_string())?;
        converter.convert_columns(&columns).map_err(|error| error.to_string())
    }

    /// Rows of both sides beside each other; columns that nobody asks for are NULL.
    fn paired(
        &self,
        rows: &RecordBatch,
        answer: Option<&RecordBatch>,
        lefts: &UInt32Array,
        rights: &UInt32Array,
    ) -> Result<RecordBatch, String> {
        let text = |error: arrow::error::ArrowError| error.to_string();
        let mut columns: Vec<ArrayRef> =
            rows.columns().iter().map(|column| take(column, lefts, None)).collect::<Result<_, _>>().map_err(text)?;
        let of_table = self.output.fields().iter().skip(rows.num_columns()).enumerate();
        for (at, field) in of_table {
            let asked = self.kept.iter().position(|kept| *kept == at).zip(answer);
            let column = match asked {
                Some((place, answer)) => {
                    let column = take(answer.column(place + 1), rights, None).map_err(text)?;
                    match column.data_type() == field.data_type() {
                        true => column,
                        false => arrow::compute::cast(&column, field.data_type()).map_err(text)?,
                    }
                }
                None => new_null_array(field.data_type(), lefts.len()),
            };
            columns.push(column);
        }
        // Of lanes that are united each has types of its own.
        for (column, field) in columns.iter_mut().zip(self.output.fields()) {
            if column.data_type() != field.data_type() {
                *column = arrow::compute::cast(column, field.data_type()).map_err(text)?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(lefts.len()));
        RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options).map_err(text)
    }
}
