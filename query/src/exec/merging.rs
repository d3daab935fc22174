//! Groups of all segments at once: in place of a partial aggregate, what distributes its groups, and the final one.
//!
//! Each lane reads its units into places for every group that there could be ([`MergedGroups`]). The lane that is last to be done adds up what
//! the others have found and gives the answer; they give nothing.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::SchemaRef,
};
use datafusion::{error::DataFusionError, logical_expr::EmitTo, physical_expr::aggregate::AggregateFunctionExpr};
use parking_lot::Mutex;
use tidemill_storage::aggregate::{AggregateRequest, Bounds, MergedGroups};

use super::states::State;

/// Places that are looked through for one batch.
const PLACES: usize = 64 * 1024;

/// What makes final answers of groups.
#[derive(Debug)]
pub(crate) struct Merging {
    pub(crate) bounds: Vec<Bounds>,
    /// The aggregates with the number of state columns that each takes.
    pub(crate) finals: Vec<(Arc<AggregateFunctionExpr>, usize)>,
    /// Of the answer: keys, then aggregates.
    pub(crate) schema: SchemaRef,
}

/// Where lanes of one execution meet.
#[derive(Debug, Default)]
pub(super) struct Meeting(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    lanes: usize,
    groups: Option<MergedGroups>,
}

impl Meeting {
    /// A lane has read all there is for it. The last of `lanes` gets the groups of all.
    pub(super) fn arrive(
        &self,
        lanes: usize,
        groups: Option<MergedGroups>,
    ) -> Result<Option<MergedGroups>, tidemill_storage::Error> {
        let mut met = self.0.lock();
        met.lanes += 1;
        if let Some(groups) = groups {
            match &mut met.groups {
                Some(all) => all.add(groups)?,
                none => *none = Some(groups),
            }
        }
        Ok(if met.lanes == lanes { met.groups.take() } else { None })
    }
}

impl Merging {
    pub(super) fn begin(&self, request: &Arc<AggregateRequest>) -> Result<MergedGroups, tidemill_storage::Error> {
        MergedGroups::new(request, &self.bounds)
    }

    /// The next groups, in the columns of the final aggregate; `None` when all are given.
    pub(super) fn next(
        &self,
        groups: &mut MergedGroups,
        keys: usize,
        states: &[State],
    ) -> Result<Option<RecordBatch>, DataFusionError> {
        let failed = |error: tidemill_storage::Error| DataFusionError::External(Box::new(error));
        let Some(found) = groups.take(PLACES).map_err(failed)? else { return Ok(None) };
        let (keys, given) = found.columns().split_at(keys);
        let states = states.iter().map(|state| state.column(given)).collect::<Result<Vec<_>, _>>()?;
        let mut states = states.as_slice();
        let mut columns: Vec<ArrayRef> = keys.to_vec();
        let numbers: Vec<usize> = (0..found.num_rows()).collect();
        for (aggregate, width) in &self.finals {
            let (own, rest) = states.split_at(*width);
            states = rest;
            let mut accumulator = aggregate.create_groups_accumulator()?;
            accumulator.merge_batch(own, &numbers, numbers.len())?;
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(found.num_rows()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?))
    }
}
