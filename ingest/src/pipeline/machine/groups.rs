//! The groups of one pane: keys, each with a number, and the accumulators of all of them.

use std::{mem, sync::Arc};

use arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::{
    common::DataFusionError,
    logical_expr::{EmitTo, GroupsAccumulator},
    physical_plan::aggregates::{
        group_values::{GroupValues, new_group_values},
        order::GroupOrdering,
    },
};

use crate::pipeline::plan::Aggregate;

type Result<T> = std::result::Result<T, DataFusionError>;

/// Groups that take rows.
pub(crate) struct Groups {
    /// `None` without keys: all rows are of one group.
    keys: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// Of the rows at hand.
    ids: Vec<usize>,
}

/// Groups at rest: the values of their keys, and the state of each accumulator. All arrays are as long as there are groups.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dump {
    pub(crate) groups: usize,
    pub(crate) keys: Vec<ArrayRef>,
    pub(crate) states: Vec<Vec<ArrayRef>>,
}

/// The rows of a batch that one pane takes.
pub(crate) struct Rows<'a> {
    pub(crate) count: usize,
    pub(crate) keys: &'a [ArrayRef],
    pub(crate) arguments: &'a [Vec<ArrayRef>],
    pub(crate) filters: &'a [Option<BooleanArray>],
}

impl Dump {
    pub(crate) fn bytes(&self) -> usize {
        let of = |arrays: &[ArrayRef]| arrays.iter().map(|array| array.get_array_memory_size()).sum::<usize>();
        of(&self.keys) + self.states.iter().map(|state| of(state)).sum::<usize>()
    }
}

impl Groups {
    pub(crate) fn new(aggregate: &Aggregate) -> Result<Self> {
        let keys = match aggregate.keys.is_empty() {
            true => None,
            false => Some(new_group_values(Arc::clone(&aggregate.key_schema), &GroupOrdering::None)?),
        };
        let accumulators = aggregate.calls.iter().map(|call| call.accumulator()).collect::<Result<_>>()?;
        Ok(Self { keys, accumulators, ids: Vec::new() })
    }

    pub(crate) fn of(aggregate: &Aggregate, dump: &Dump) -> Result<Self> {
        let mut groups = Self::new(aggregate)?;
        groups.merge(dump)?;
        Ok(groups)
    }

    fn count(&self) -> usize {
        self.keys.as_ref().map_or(1, |keys| keys.len())
    }

    fn number(&mut self, keys: &[ArrayRef], rows: usize) -> Result<()> {
        match &mut self.keys {
            Some(values) => values.intern(keys, &mut self.ids),
            None => {
                self.ids.clear();
                self.ids.resize(rows, 0);
                Ok(())
            }
        }
    }

    pub(crate) fn update(&mut self, rows: &Rows<'_>) -> Result<()> {
        self.number(rows.keys, rows.count)?;
        let count = self.count();
        let inputs = rows.arguments.iter().zip(rows.filters);
        for (accumulator, (arguments, filter)) in self.accumulators.iter_mut().zip(inputs) {
            accumulator.update_batch(arguments, &self.ids, filter.as_ref(), count)?;
        }
        Ok(())
    }

    /// Adds groups that were elsewhere.
    pub(crate) fn merge(&mut self, dump: &Dump) -> Result<()> {
        self.number(&dump.keys, dump.groups)?;
        let count = self.count();
        for (accumulator, state) in self.accumulators.iter_mut().zip(&dump.states) {
            accumulator.merge_batch(state, &self.ids, count)?;
        }
        Ok(())
    }

    /// Keys, and the results of the aggregates.
    pub(crate) fn finish(mut self) -> Result<(usize, Vec<ArrayRef>, Vec<ArrayRef>)> {
        let groups = self.count();
        let keys = self.keys.as_mut().map_or_else(|| Ok(Vec::new()), |keys| keys.emit(EmitTo::All))?;
        let results = self.accumulators.iter_mut().map(|accumulator| accumulator.evaluate(EmitTo::All));
        Ok((groups, keys, results.collect::<Result<_>>()?))
    }

    /// A picture of the groups, which go on. DataFusion's accumulators give their state away, so it is put in again.
    pub(crate) fn dump(&mut self) -> Result<Dump> {
        let dump = self.take()?;
        self.merge(&dump)?;
        Ok(dump)
    }

    /// All groups, which are gone from here.
    pub(crate) fn take(&mut self) -> Result<Dump> {
        let groups = self.count();
        let keys = self.keys.as_mut().map_or_else(|| Ok(Vec::new()), |keys| keys.emit(EmitTo::All))?;
        let states = self.accumulators.iter_mut().map(|accumulator| accumulator.state(EmitTo::All));
        Ok(Dump { groups, keys, states: states.collect::<Result<_>>()? })
    }

    pub(crate) fn bytes(&self) -> usize {
        let keys = self.keys.as_ref().map_or(0, |keys| keys.size());
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>();
        keys + accumulators + self.ids.capacity() * mem::size_of::<usize>()
    }

    pub(crate) fn groups(&self) -> usize {
        self.count()
    }
}
