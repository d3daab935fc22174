//! Final groups from places for all that there could be, without a hash table.
//!
//! ```text
//! AggregateExec (final)
//!   RepartitionExec (by the keys)      ─►      SegmentAggregateExec, merged over segments
//!     AggregateExec (partial)
//!       SegmentScanExec
//! ```

use std::sync::Arc;

use datafusion::{
    config::ConfigOptions,
    error::DataFusionError,
    physical_expr::{Distribution, Partitioning},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties,
        aggregates::{AggregateExec, AggregateMode},
        coalesce_partitions::CoalescePartitionsExec,
        repartition::RepartitionExec,
        replace_children_if_necessary,
        sorts::sort_preserving_merge::SortPreservingMergeExec,
        union::InterleaveExec,
    },
};
use tidemill_storage::{
    aggregate::{MergedGroups, bounds},
    index::IndexKind,
};

use super::{Partial, estimate, partial_of, understood};
use crate::{
    SqlError,
    exec::{aggregate::SegmentAggregateExec, merging::Merging},
};

/// Bytes of the places of all lanes.
const BYTES_MAX: u64 = 256 << 20;
/// Fewer groups of a segment are few for the final aggregate.
const GROUPS_MIN: u64 = 64 * 1024;
/// Rows of a group in a segment from which on grouping there spares the work above.
const ROWS_PER_GROUP_MAX: u64 = 16;
/// Places for each row, at most; where a condition leaves some of the rows, rows for each place at least.
const PLACES_PER_ROW_MAX: u64 = 2;
const ROWS_PER_PLACE_MIN: u64 = 8;

/// The plan with such groups wherever there may be. `is_spread`: what is above relies on which rows lie in which partition.
pub(super) fn merged(
    node: Arc<dyn ExecutionPlan>,
    is_spread: bool,
    config: &ConfigOptions,
) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>()
        && let Some(found) = replacement(aggregate, config)?
    {
        let partitioning = node.output_partitioning();
        return Ok(match partitioning {
            Partitioning::Hash(_, partitions) if is_spread && *partitions > 1 => {
                Arc::new(RepartitionExec::try_new(found, partitioning.clone())?)
            }
            _ => found,
        });
    }
    let gathers = node.downcast_ref::<RepartitionExec>().is_some()
        || node.downcast_ref::<CoalescePartitionsExec>().is_some()
        || node.downcast_ref::<SortPreservingMergeExec>().is_some();
    let interleaves = node.downcast_ref::<InterleaveExec>().is_some();
    let required = node.input_distribution_requirements();
    let children = node.children().into_iter().enumerate().map(|(index, child)| {
        let by_keys = !matches!(
            required.child_distribution(index),
            None | Some(Distribution::UnspecifiedDistribution | Distribution::SinglePartition)
        );
        let is_spread = !gathers && (is_spread || interleaves || by_keys);
        merged(Arc::clone(child), is_spread, config)
    });
    let children = children.collect::<Result<Vec<_>, _>>()?;
    replace_children_if_necessary(node, children)
}

fn replacement(
    aggregate: &AggregateExec,
    config: &ConfigOptions,
) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
    if aggregate.limit_options().is_some() || aggregate.group_expr().expr().is_empty() {
        return Ok(None);
    }
    match aggregate.mode() {
        AggregateMode::Single => in_places(aggregate, &partial_of(aggregate)?, config),
        AggregateMode::Final | AggregateMode::FinalPartitioned => {
            let mut input = aggregate.input();
            loop {
                if let Some(partial) = input.downcast_ref::<AggregateExec>() {
                    let is_partial = *partial.mode() == AggregateMode::Partial && partial.limit_options().is_none();
                    return if is_partial { in_places(aggregate, partial, config) } else { Ok(None) };
                }
                input = if let Some(repartition) = input.downcast_ref::<RepartitionExec>() {
                    repartition.input()
                } else if let Some(coalesce) = input.downcast_ref::<CoalescePartitionsExec>() {
                    coalesce.input()
                } else {
                    return Ok(None);
                };
            }
        }
        _ => Ok(None),
    }
}

fn in_places(
    last: &AggregateExec,
    partial: &AggregateExec,
    config: &ConfigOptions,
) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let Some(Partial { scan, request, keys, states, widths }) = understood(partial, config)? else { return Ok(None) };
    if keys.iter().any(|key| key.of.is_some()) {
        return Ok(None);
    }
    let plan = scan.plan();
    if request.star_tree && plan.indexes.iter().any(|index| matches!(index.kind, IndexKind::StarTree(_))) {
        return Ok(None);
    }
    let (rows, groups) = estimate::groups(plan, &request);
    if groups < GROUPS_MIN || groups.saturating_mul(ROWS_PER_GROUP_MAX) < rows {
        return Ok(None);
    }
    let Some(bounds) = bounds(&plan.units, &request).map_err(SqlError::from)? else { return Ok(None) };
    let Some(places) = MergedGroups::places(&request, &bounds) else { return Ok(None) };
    let is_dense = match &request.predicate {
        None => places <= rows.saturating_mul(PLACES_PER_ROW_MAX),
        Some(_) => places.saturating_mul(ROWS_PER_PLACE_MIN) <= rows,
    };
    let partitions = last.properties().partitioning.partition_count();
    let bytes = places.saturating_mul(MergedGroups::bytes_per_place(&request)).saturating_mul(partitions as u64);
    let has_accumulators = last.aggr_expr().iter().all(|aggregate| aggregate.groups_accumulator_supported());
    if !is_dense || bytes > BYTES_MAX || !has_accumulators {
        return Ok(None);
    }
    let finals = last.aggr_expr().iter().cloned().zip(widths).collect();
    let merging = Merging { bounds, finals, schema: last.schema() };
    let exec = SegmentAggregateExec::try_new(scan, request, states, partial.schema())?;
    Ok(exec.map(|exec| Arc::new(exec.merged(merging, partitions)) as Arc<dyn ExecutionPlan>))
}
