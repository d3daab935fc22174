//! Rows by position: where the values of a column never decrease, those that pass a test are a few runs of rows, whose ends binary search
//! finds.
//!
//! ```text
//! rows:    0 … 411 | 412 … 9,877 | 9,878 … 999,000 | 999,001 …      of a segment that was sorted when it was sealed, or came so
//! values:  Bergen  | Berlin      | Bern …          | NULL           nulls last
//! ```
//!
//! Statistics tell whether a segment is sorted by a column, whatever the reason; so no file is needed, and where a segment is not sorted
//! the plain scan answers. With a dictionary the search is among ids. Without, a test that holds from some row on is evaluated on
//! single rows, by the column's own code: each encoding has its own order for nothing.

#![expect(clippy::single_range_in_vec_init, reason = "a list of runs may have one")]

use std::ops::Range;

use super::CommittedSegment;
use crate::{
    Result,
    bitpack::Bitmask,
    forward::{ColumnReader, ColumnTest, IdTest},
    ids::ColumnId,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    segment::inspect::buffers,
};

/// Runs of a set that are searched for.
const RUNS_MAX: usize = 64;

impl CommittedSegment {
    /// Whether the values of the column never decrease from row to row, nulls behind them. False where the segment has no such column.
    pub fn is_sorted_by(&self, column: ColumnId) -> bool {
        let Some(index) = self.schema.index_of(column) else { return false };
        let stats = &self.stats[index];
        if stats.nulls == u64::from(self.rows) {
            return true;
        }
        if !stats.sorted || stats.nulls == 0 {
            return stats.sorted;
        }
        let data = &self.columns[index];
        if let Some(opened) = data.reader.get() {
            return opened.as_ref().is_ok_and(ColumnReader::nulls_are_last);
        }
        // Telling must not read all the data: where nulls lie needs no checksum.
        let reader = buffers(&self.file, &data.sections).and_then(|buffers| {
            ColumnReader::open(&self.schema.columns[index].data_type, data.encoding, self.rows, buffers)
        });
        reader.is_ok_and(|reader| reader.nulls_are_last())
    }

    /// The rows that pass `leaf`, which is `test` on the column at `index`; `None` when the column is not sorted or this is no test of order.
    pub(super) fn runs(&self, leaf: &Predicate, index: usize, test: &ColumnTest) -> Result<Option<Vec<Range<u32>>>> {
        if !self.stats[index].sorted {
            return Ok(None);
        }
        let column = self.reader(index)?;
        if !column.nulls_are_last() {
            return Ok(None);
        }
        let search = Search { column, values: self.rows - column.null_count().min(u64::from(self.rows)) as u32 };
        search.runs(leaf, test).map_err(|error| self.failed(self.named(error, index)))
    }
}

struct Search<'a> {
    column: &'a ColumnReader,
    /// Rows that are not null: the first ones.
    values: u32,
}

impl Search<'_> {
    fn runs(&self, leaf: &Predicate, test: &ColumnTest) -> Result<Option<Vec<Range<u32>>>> {
        let all = self.values;
        if let Predicate::IsNull { negated, .. } = leaf {
            let run = if *negated { 0..all } else { all..self.column.rows() };
            return Ok(Some(vec![run]));
        }
        let mut runs = match test.ids() {
            Some(ids) => match self.by_ids(&ids)? {
                Some(runs) => runs,
                None => return Ok(None),
            },
            None => match leaf {
                Predicate::Compare { column, op, value } => self.compared(*column, *op, value)?,
                Predicate::In { column, values, negated: false } if values.len() <= RUNS_MAX => {
                    let mut runs = Vec::with_capacity(values.len());
                    for value in values {
                        runs.extend(self.compared(*column, CompareOp::Eq, value)?);
                    }
                    runs
                }
                _ => return Ok(None),
            },
        };
        runs.retain(|run| !run.is_empty());
        Ok(Some(runs))
    }

    fn by_ids(&self, ids: &IdTest<'_>) -> Result<Option<Vec<Range<u32>>>> {
        let all = self.values;
        Ok(Some(match ids {
            IdTest::Inside(low, high) => {
                let start = self.first_id(0, *low)?;
                vec![start..self.first_id(start, high.saturating_add(1))?]
            }
            IdTest::Outside(low, high) => {
                let start = self.first_id(0, *low)?;
                vec![0..start, self.first_id(start, high.saturating_add(1))?..all]
            }
            IdTest::Among(set) => {
                let keys: Vec<Range<u32>> = set.runs().take(RUNS_MAX + 1).collect();
                if keys.len() > RUNS_MAX {
                    return Ok(None);
                }
                let (mut runs, mut from) = (Vec::with_capacity(keys.len()), 0);
                for keys in keys {
                    let start = self.first_id(from, keys.start)?;
                    from = self.first_id(start, keys.end)?;
                    runs.push(start..from);
                }
                runs
            }
        }))
    }

    /// The first row at or above `from` whose id is at or above `id`.
    fn first_id(&self, from: u32, id: u32) -> Result<u32> {
        let mut found = Vec::with_capacity(1);
        self.first(from, |row| {
            self.column.ids(row..row + 1, &mut found)?;
            Ok(found.first().is_some_and(|found| *found >= id))
        })
    }

    fn compared(&self, column: ColumnId, op: CompareOp, value: &Scalar) -> Result<Vec<Range<u32>>> {
        let all = self.values;
        let bound = |from: u32, op: CompareOp| -> Result<u32> {
            let test = self.column.prepare(&Predicate::Compare { column, op, value: value.clone() })?;
            if test.selects_nothing() {
                return Ok(all);
            }
            self.first(from, |row| {
                let mut mask = Bitmask::all(1);
                self.column.select(row..row + 1, &test, &mut mask)?;
                Ok(mask.is_all())
            })
        };
        let reaches = |from| bound(from, CompareOp::GreaterEq);
        let passes = |from| bound(from, CompareOp::Greater);
        Ok(match op {
            CompareOp::Eq => {
                let start = reaches(0)?;
                vec![start..passes(start)?]
            }
            CompareOp::NotEq => {
                let start = reaches(0)?;
                vec![0..start, passes(start)?..all]
            }
            CompareOp::Less => vec![0..reaches(0)?],
            CompareOp::LessEq => vec![0..passes(0)?],
            CompareOp::Greater => vec![passes(0)?..all],
            CompareOp::GreaterEq => vec![reaches(0)?..all],
        })
    }

    /// The first row at or above `from` of which `holds` is true, which is then true of all that follow. Near ones are found soon.
    fn first(&self, from: u32, mut holds: impl FnMut(u32) -> Result<bool>) -> Result<u32> {
        let (mut low, mut high, mut step) = (from, self.values, 1u32);
        if from > 0 {
            // Where one bound is known, the other is often beside it.
            while low < high {
                let probe = from.saturating_add(step - 1).min(high - 1);
                if holds(probe)? {
                    high = probe;
                    break;
                }
                low = probe + 1;
                step = step.saturating_mul(2);
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(middle)? { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }
}
