//! Groups: keys, each with a number, and the accumulators of all of them.

use std::{mem, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, UInt32Array},
    buffer::Buffer,
    compute::take,
    datatypes::DataType as ArrowType,
};
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

/// The accumulators of all aggregates, for groups that have numbers.
pub(crate) struct Accumulators(Vec<Box<dyn GroupsAccumulator>>);

/// Groups that take rows.
pub(crate) struct Groups {
    /// `None` without keys: all rows are of one group.
    keys: Option<Box<dyn GroupValues>>,
    accumulators: Accumulators,
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

/// What rows give to their groups.
pub(crate) struct Rows<'a> {
    pub(crate) count: usize,
    pub(crate) keys: &'a [ArrayRef],
    pub(crate) arguments: &'a [Vec<ArrayRef>],
    pub(crate) filters: &'a [Option<BooleanArray>],
}

impl Dump {
    pub(crate) fn bytes(&self) -> usize {
        let of = |arrays: &[ArrayRef]| arrays.iter().map(bytes_of).sum::<usize>();
        of(&self.keys) + self.states.iter().map(|state| of(state)).sum::<usize>()
    }

    /// Groups that follow one another.
    pub(crate) fn slice(&self, from: usize, groups: usize) -> Self {
        let cut = |arrays: &Vec<ArrayRef>| arrays.iter().map(|array| array.slice(from, groups)).collect();
        Self { groups, keys: cut(&self.keys), states: self.states.iter().map(cut).collect() }
    }

    /// Some of the groups.
    pub(crate) fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let pick = |arrays: &Vec<ArrayRef>| {
            arrays.iter().map(|array| Ok(take(array, rows, None)?)).collect::<Result<Vec<_>>>()
        };
        let states = self.states.iter().map(pick).collect::<Result<_>>()?;
        Ok(Self { groups: rows.len(), keys: pick(&self.keys)?, states })
    }
}

/// What an array has of its buffers: those that came out of a file share one, which would count for each of them.
fn bytes_of(array: &ArrayRef) -> usize {
    let data = array.to_data();
    let texts = match data.data_type() {
        ArrowType::Utf8View | ArrowType::BinaryView => data.buffers().iter().skip(1).map(Buffer::len).sum::<usize>(),
        _ => 0,
    };
    data.get_slice_memory_size().map_or_else(|_| array.get_array_memory_size(), |bytes| bytes + texts)
}

impl Accumulators {
    pub(crate) fn new(aggregate: &Aggregate) -> Result<Self> {
        Ok(Self(aggregate.calls.iter().map(|call| call.accumulator()).collect::<Result<_>>()?))
    }

    /// `groups`: the number of each row's group; there are `count`. A group that is new is among those of the rows: DataFusion takes it for one that has a value.
    pub(crate) fn update(
        &mut self,
        arguments: &[Vec<ArrayRef>],
        filters: &[Option<BooleanArray>],
        groups: &[usize],
        count: usize,
    ) -> Result<()> {
        for (accumulator, (arguments, filter)) in self.0.iter_mut().zip(arguments.iter().zip(filters)) {
            accumulator.update_batch(arguments, groups, filter.as_ref(), count)?;
        }
        Ok(())
    }

    pub(crate) fn merge(&mut self, states: &[Vec<ArrayRef>], groups: &[usize], count: usize) -> Result<()> {
        for (accumulator, state) in self.0.iter_mut().zip(states) {
            accumulator.merge_batch(state, groups, count)?;
        }
        Ok(())
    }

    /// The results of all groups, which are gone from here.
    pub(crate) fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.0.iter_mut().map(|accumulator| accumulator.evaluate(EmitTo::All)).collect()
    }

    /// The states of all groups, which are gone from here.
    pub(crate) fn take(&mut self) -> Result<Vec<Vec<ArrayRef>>> {
        self.0.iter_mut().map(|accumulator| accumulator.state(EmitTo::All)).collect()
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|accumulator| accumulator.size()).sum()
    }
}

impl Groups {
    pub(crate) fn new(aggregate: &Aggregate) -> Result<Self> {
        let keys = match aggregate.key_schema.fields().is_empty() {
            true => None,
            false => Some(new_group_values(Arc::clone(&aggregate.key_schema), &GroupOrdering::None)?),
        };
        Ok(Self { keys, accumulators: Accumulators::new(aggregate)?, ids: Vec::new() })
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
        self.accumulators.update(rows.arguments, rows.filters, &self.ids, count)
    }

    /// Adds groups that were elsewhere.
    pub(crate) fn merge(&mut self, dump: &Dump) -> Result<()> {
        self.number(&dump.keys, dump.groups)?;
        let count = self.count();
        self.accumulators.merge(&dump.states, &self.ids, count)
    }

    /// Keys, and the results of the aggregates.
    pub(crate) fn finish(mut self) -> Result<(usize, Vec<ArrayRef>, Vec<ArrayRef>)> {
        let groups = self.count();
        let keys = self.keys.as_mut().map_or_else(|| Ok(Vec::new()), |keys| keys.emit(EmitTo::All))?;
        Ok((groups, keys, self.accumulators.finish()?))
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
        // Those of several columns give their values away, and keep in mind where they were.
        if let Some(keys) = &mut self.keys {
            keys.clear_shrink(0);
        }
        Ok(Dump { groups, keys, states: self.accumulators.take()? })
    }

    pub(crate) fn bytes(&self) -> usize {
        let keys = self.keys.as_ref().map_or(0, |keys| keys.size());
        keys + self.accumulators.bytes() + self.ids.capacity() * mem::size_of::<usize>()
    }

    pub(crate) fn groups(&self) -> usize {
        self.count()
    }
}
