//! The value of the row of a group that is first, or last, by another column.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryViewArray, StringViewArray, UInt32Array, new_null_array},
    compute::take,
    datatypes::DataType as ArrowType,
};

use super::{
    block::{Block, Values},
    states::{Groups, each, misfit},
    values::{array_of_floats, array_of_integers, array_of_wide},
};
use crate::{Error, Result, bitpack::Bitmask, schema::DataType};

/// Of rows of one rank the first counts as first, the last as last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    First,
    Last,
}

/// No row of the window so far.
const NOBODY: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Ends {
    end: End,
    /// Of the row that each group keeps; means nothing where no row came.
    ranks: Vec<i64>,
    has_row: Vec<bool>,
    values: Kept,
    /// Whether its value is not null.
    valid: Vec<bool>,
    window: Window,
}

/// What is found in one window, before values are looked at: most rows that come first in some order are replaced soon.
#[derive(Debug, Default)]
struct Window {
    rows: Vec<u32>,
    /// The row that each group keeps, by place in the block, and the groups that have one.
    kept: Vec<u32>,
    touched: Vec<u32>,
}

/// One value of each group, in the form that they come in.
#[derive(Debug)]
enum Kept {
    Ids(Vec<u32>),
    Integers(Vec<i64>),
    Wide(Vec<i128>),
    Floats(Vec<f64>),
    Bytes(Vec<Box<[u8]>>),
}

impl Ends {
    /// For values of the form that `values` have.
    pub(crate) fn new(end: End, values: &Values) -> Self {
        let values = match values {
            Values::Ids(_) => Kept::Ids(Vec::new()),
            Values::Integers(_) => Kept::Integers(Vec::new()),
            Values::Wide(_) => Kept::Wide(Vec::new()),
            Values::Floats(_) => Kept::Floats(Vec::new()),
            // Texts, or nothing but nulls.
            Values::Texts(_) | Values::None => Kept::Bytes(Vec::new()),
        };
        let window = Window::default();
        Self { end, ranks: Vec::new(), has_row: Vec::new(), values, valid: Vec::new(), window }
    }

    pub(crate) fn grow(&mut self, groups: usize) {
        self.ranks.resize(groups, 0);
        self.has_row.resize(groups, false);
        self.valid.resize(groups, false);
        self.window.kept.resize(groups, NOBODY);
        match &mut self.values {
            Kept::Ids(values) => values.resize(groups, 0),
            Kept::Integers(values) => values.resize(groups, 0),
            Kept::Wide(values) => values.resize(groups, 0),
            Kept::Floats(values) => values.resize(groups, 0.0),
            Kept::Bytes(values) => values.resize(groups, Box::default()),
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let values = match &self.values {
            Kept::Ids(values) => values.capacity() * size_of::<u32>(),
            Kept::Integers(values) => values.capacity() * size_of::<i64>(),
            Kept::Wide(values) => values.capacity() * size_of::<i128>(),
            Kept::Floats(values) => values.capacity() * size_of::<f64>(),
            Kept::Bytes(values) => values.iter().map(|value| value.len() + size_of::<Box<[u8]>>()).sum(),
        };
        let of_group = size_of::<i64>() + 2 * size_of::<bool>() + size_of::<u32>();
        values + self.ranks.capacity() * of_group
    }

    /// Takes rows of a window: their ranks, and `values` of all of its rows, of which they are those in `rows` (`None`: all).
    pub(crate) fn add(
        &mut self,
        groups: Groups<'_>,
        ranks: &Values,
        rows: Option<&Bitmask>,
        values: &Block,
    ) -> Result<()> {
        match ranks {
            Values::Integers(ranks) => self.find(groups, ranks.len(), |at| ranks[at]),
            // Ids ascend with their values.
            Values::Ids(ranks) => self.find(groups, ranks.len(), |at| ranks[at].into()),
            _ => return Err(misfit()),
        }
        if self.window.touched.is_empty() {
            return Ok(());
        }
        if let Some(rows) = rows {
            self.window.rows.clear();
            self.window.rows.extend(rows.iter().map(|row| row as u32));
        }
        for group in self.window.touched.drain(..) {
            let group = group as usize;
            let at = std::mem::replace(&mut self.window.kept[group], NOBODY) as usize;
            let row = if rows.is_some() { self.window.rows[at] as usize } else { at };
            let valid = values.valid.as_ref().is_none_or(|valid| valid.get(row));
            self.valid[group] = valid;
            if valid {
                self.values.keep(group, &values.values, row)?;
            }
        }
        Ok(())
    }

    /// Which row each group keeps now, by place among those that came.
    fn find(&mut self, groups: Groups<'_>, rows: usize, rank: impl Fn(usize) -> i64) {
        match self.end {
            End::First => self.find_by(groups, rows, rank, |new, old| new < old),
            End::Last => self.find_by(groups, rows, rank, |new, old| new >= old),
        }
    }

    fn find_by(
        &mut self,
        groups: Groups<'_>,
        rows: usize,
        rank: impl Fn(usize) -> i64,
        replaces: impl Fn(i64, i64) -> bool,
    ) {
        let Self { ranks, has_row, window: Window { kept, touched, .. }, .. } = self;
        each(groups, rows, |group, row| {
            let rank = rank(row);
            if has_row[group] && !replaces(rank, ranks[group]) {
                return;
            }
            if kept[group] == NOBODY {
                touched.push(group as u32);
            }
            (kept[group], ranks[group], has_row[group]) = (row as u32, rank, true);
        });
    }

    /// The values of these groups; null where no row came.
    pub(crate) fn column(
        &self,
        data_type: &DataType,
        dictionary: Option<&ArrayRef>,
        groups: &[u32],
    ) -> Result<ArrayRef> {
        fn of<T: Copy>(all: &[T], groups: &[u32]) -> Vec<T> {
            groups.iter().map(|group| all[*group as usize]).collect()
        }
        let is_valid = |at: usize| self.valid[groups[at] as usize];
        Ok(match &self.values {
            Kept::Ids(ids) => {
                let ids = groups.iter().enumerate().map(|(at, group)| is_valid(at).then(|| ids[*group as usize]));
                let values = dictionary.ok_or_else(|| Error::Invalid("ids without their dictionary".into()))?;
                take(values, &ids.collect::<UInt32Array>(), None)?
            }
            Kept::Integers(values) => array_of_integers(data_type, &of(values, groups), is_valid)?,
            Kept::Wide(values) => array_of_wide(data_type, &of(values, groups), is_valid)?,
            Kept::Floats(values) => array_of_floats(data_type, &of(values, groups), is_valid)?,
            Kept::Bytes(values) => {
                let values =
                    groups.iter().enumerate().map(|(at, group)| is_valid(at).then(|| &*values[*group as usize]));
                let arrow = data_type.arrow();
                match arrow {
                    ArrowType::BinaryView => Arc::new(values.collect::<BinaryViewArray>()),
                    ArrowType::Utf8View => {
                        let texts = values.map(|value| value.map(std::str::from_utf8).transpose());
                        let texts = texts.collect::<std::result::Result<StringViewArray, _>>();
                        Arc::new(texts.map_err(|error| Error::Invalid(format!("a text that is none: {error}")))?)
                    }
                    // Of a column of nothing but nulls.
                    other => new_null_array(&other, groups.len()),
                }
            }
        })
    }
}

impl Kept {
    fn keep(&mut self, group: usize, values: &Values, row: usize) -> Result<()> {
        match (self, values) {
            (Self::Ids(kept), Values::Ids(values)) => kept[group] = values[row],
            (Self::Integers(kept), Values::Integers(values)) => kept[group] = values[row],
            (Self::Wide(kept), Values::Wide(values)) => kept[group] = values[row],
            (Self::Floats(kept), Values::Floats(values)) => kept[group] = values[row],
            (Self::Bytes(kept), Values::Texts(values)) => {
                kept[group] = match values.data_type() {
                    ArrowType::Utf8View => values.as_string_view().value(row).as_bytes().into(),
                    ArrowType::BinaryView => values.as_binary_view().value(row).into(),
                    _ => return Err(misfit()),
                };
            }
            _ => return Err(misfit()),
        }
        Ok(())
    }
}
