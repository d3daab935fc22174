//! Sketches of groups as DataFusion aggregates them.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{Accumulator, EmitTo, GroupsAccumulator},
    scalar::ScalarValue,
};

use tidemill_storage::sketch::{Sketch, memory_bytes};

use crate::SqlError;

/// Takes the place of a row, and what puts the row's value into a sketch.
pub(super) type Each<'a, S> = &'a mut dyn FnMut(usize, &dyn Fn(&mut S));

/// From arguments to sketches, and from sketches to the answer.
pub(super) trait Kind: fmt::Debug + Send + Sync + 'static {
    type Sketch: Sketch;

    /// Gives `each` every row that is not null.
    fn rows(&self, values: &ArrayRef, each: Each<'_, Self::Sketch>) -> Result<(), DataFusionError>;

    fn answers(&self, sketches: &[Self::Sketch]) -> ArrayRef;
}

pub(super) fn state_field(name: &str) -> FieldRef {
    Arc::new(Field::new(format!("{name}[sketch]"), DataType::BinaryView, true))
}

#[derive(Debug)]
pub(super) struct Groups<K: Kind> {
    kind: K,
    sketches: Vec<K::Sketch>,
}

impl<K: Kind> Groups<K> {
    pub(super) fn new(kind: K) -> Self {
        Self { kind, sketches: Vec::new() }
    }

    fn grow(&mut self, groups: usize) {
        if self.sketches.len() < groups {
            self.sketches.resize_with(groups, K::Sketch::default);
        }
    }

    fn update(
        &mut self,
        values: &[ArrayRef],
        group_of: impl Fn(usize) -> usize,
        filter: Option<&BooleanArray>,
    ) -> Result<(), DataFusionError> {
        let sketches = &mut self.sketches;
        self.kind.rows(first(values)?, &mut |row, insert| {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                insert(&mut sketches[group_of(row)]);
            }
        })
    }

    fn merge(&mut self, states: &[ArrayRef], group_of: impl Fn(usize) -> usize) -> Result<(), DataFusionError> {
        let states = first(states)?;
        let states = states
            .as_binary_view_opt()
            .ok_or_else(|| SqlError::internal(format!("a sketch of type {}", states.data_type())))?;
        for (row, state) in states.iter().enumerate() {
            if let Some(state) = state {
                let sketch = &mut self.sketches[group_of(row)];
                sketch.merge_bytes(state).map_err(|error| DataFusionError::External(Box::new(error)))?;
            }
        }
        Ok(())
    }

    fn emitted(&mut self, emit_to: EmitTo) -> Vec<K::Sketch> {
        emit_to.take_needed(&mut self.sketches)
    }
}

fn first(arrays: &[ArrayRef]) -> Result<&ArrayRef, DataFusionError> {
    arrays.first().ok_or_else(|| SqlError::internal("an aggregate of nothing").into())
}

fn states<S: Sketch>(sketches: &[S]) -> ArrayRef {
    Arc::new(BinaryViewArray::from_iter_values(sketches.iter().map(S::to_bytes)))
}

impl<K: Kind> GroupsAccumulator for Groups<K> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<(), DataFusionError> {
        self.grow(total_num_groups);
        self.update(values, |row| group_indices[row], opt_filter)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef, DataFusionError> {
        let sketches = self.emitted(emit_to);
        Ok(self.kind.answers(&sketches))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>, DataFusionError> {
        Ok(vec![states(&self.emitted(emit_to))])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<(), DataFusionError> {
        self.grow(total_num_groups);
        self.merge(values, |row| group_indices[row])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        let values = first(values)?;
        let mut found = vec![None; values.len()];
        self.kind.rows(values, &mut |row, insert| {
            if opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                let mut sketch = K::Sketch::default();
                insert(&mut sketch);
                found[row] = Some(sketch.to_bytes());
            }
        })?;
        Ok(vec![Arc::new(found.into_iter().collect::<BinaryViewArray>())])
    }

    fn size(&self) -> usize {
        size_of_val(self) + memory_bytes(&self.sketches)
    }
}

/// All rows are of one group.
#[derive(Debug)]
pub(super) struct Whole<K: Kind>(Groups<K>);

impl<K: Kind> Whole<K> {
    pub(super) fn new(kind: K) -> Self {
        let mut groups = Groups::new(kind);
        groups.grow(1);
        Self(groups)
    }
}

impl<K: Kind> Accumulator for Whole<K> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.0.update(values, |_| 0, None)
    }

    fn evaluate(&mut self) -> Result<ScalarValue, DataFusionError> {
        ScalarValue::try_from_array(&self.0.kind.answers(&self.0.sketches), 0)
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>, DataFusionError> {
        Ok(vec![ScalarValue::try_from_array(&states(&self.0.sketches), 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<(), DataFusionError> {
        self.0.merge(states, |_| 0)
    }
}
