//! Moves partial aggregation into the segments.
//!
//! ```text
//! AggregateExec (final)                      AggregateExec (final)
//!   RepartitionExec                            RepartitionExec
//!     AggregateExec (partial)        ─►          SegmentAggregateExec
//!       SegmentScanExec
//! ```
//!
//! Where nearly every row is a group of its own and the keys lie close together, it takes the place of the final aggregate as well ([`merged`]).
//! Else what comes out of [`SegmentAggregateExec`] has exactly the columns of the partial aggregate that it replaces. An aggregate in one
//! step (`Single`) becomes a final one above it. Whatever is not understood to the last detail stays as it was: DISTINCT of other aggregates than count,
//! aggregates ordered by more than one column, grouping sets, keys that are expressions over several columns, conditions that segments do not evaluate; and groups so many that
//! there is nothing to gain ([`estimate`]). Arguments of aggregates may be expressions: segments compute them for the rows that are left. Keys that
//! are expressions over one column are computed of its groups.

mod estimate;
mod expressions;
mod merged;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    config::ConfigOptions,
    error::DataFusionError,
    physical_expr::{Partitioning, PhysicalExpr, expressions::Column},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode},
        coop::CooperativeExec,
        projection::{ProjectionExec, ProjectionExpr},
        repartition::RepartitionExec,
    },
};
use tidemill_storage::aggregate::{AggregateRequest, ResultCache};

use self::expressions::Key;
use crate::{
    SqlError,
    exec::{aggregate::SegmentAggregateExec, scan::SegmentScanExec, states::State},
    functions::session::SessionFacts,
};

/// Its setting.
pub(crate) const SETTING: &str = "rt.aggregate_in_segment";
/// Whether answers that are kept are taken.
pub(crate) const RESULTS_SETTING: &str = "rt.use_result_cache";

#[derive(Debug)]
pub(crate) struct SegmentAggregates;

impl PhysicalOptimizerRule for SegmentAggregates {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let is_on =
            config.extensions.get::<SessionFacts>().is_none_or(|facts| facts.shared.settings.lock().is_on(SETTING));
        if !is_on {
            return Ok(plan);
        }
        let plan = merged::merged(plan, false, config)?;
        let replaced = plan.transform_up(|node| {
            let Some(aggregate) = node.downcast_ref::<AggregateExec>() else { return Ok(Transformed::no(node)) };
            Ok(match replacement(aggregate, config)? {
                Some(replacement) => Transformed::yes(replacement),
                None => Transformed::no(node),
            })
        })?;
        Ok(replaced.data)
    }

    fn name(&self) -> &'static str {
        "segment_aggregates"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn replacement(
    aggregate: &AggregateExec,
    config: &ConfigOptions,
) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
    match aggregate.mode() {
        AggregateMode::Partial => in_segments(aggregate, config),
        AggregateMode::Single => {
            let partial = partial_of(aggregate)?;
            let Some(input) = in_segments(&partial, config)? else { return Ok(None) };
            if input.properties().partitioning.partition_count() != 1 {
                return Ok(None);
            }
            let whole = AggregateExec::try_new(
                AggregateMode::Final,
                aggregate.group_expr().as_final(),
                aggregate.aggr_expr().to_vec(),
                aggregate.filter_expr().to_vec(),
                input,
                aggregate.input_schema(),
            )?;
            Ok((whole.schema() == aggregate.schema()).then(|| Arc::new(whole) as Arc<dyn ExecutionPlan>))
        }
        _ => Ok(None),
    }
}

/// The partial aggregate of one in one step.
fn partial_of(whole: &AggregateExec) -> Result<AggregateExec, DataFusionError> {
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        whole.group_expr().clone(),
        whole.aggr_expr().to_vec(),
        whole.filter_expr().to_vec(),
        Arc::clone(whole.input()),
        whole.input_schema(),
    )?;
    Ok(partial.with_limit_options(whole.limit_options()))
}

/// A partial aggregate in the terms of segments.
struct Partial<'a> {
    scan: &'a SegmentScanExec,
    request: AggregateRequest,
    /// The plan's keys.
    keys: Vec<Key>,
    states: Vec<State>,
    /// State columns of each aggregate.
    widths: Vec<usize>,
}

/// What gives the partial aggregate from segments.
fn in_segments(
    partial: &AggregateExec,
    config: &ConfigOptions,
) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let Some(Partial { scan, request, keys, states, .. }) = understood(partial, config)? else { return Ok(None) };
    if !estimate::pays(scan.plan(), &request) {
        return Ok(None);
    }
    if keys.iter().all(|key| key.of.is_none()) {
        let exec = SegmentAggregateExec::try_new(scan, request, states, partial.schema())?;
        return Ok(exec.map(|exec| Arc::new(exec) as Arc<dyn ExecutionPlan>));
    }
    let mut computed = keys.iter().filter(|key| key.of.is_some()).map(|key| &request.keys[key.index]);
    if !computed.all(|key| estimate::has_few_values(scan.plan(), key)) {
        return Ok(None);
    }
    by_values_of_keys(partial, scan, request, &keys, states)
}

/// Groups by `upper(city)` are made of groups by `city`: of each it is computed once. Groups that come twice are one in the final aggregate.
fn by_values_of_keys(
    partial: &AggregateExec,
    scan: &SegmentScanExec,
    request: AggregateRequest,
    keys: &[Key],
    states: Vec<State>,
) -> Result<Option<Arc<dyn ExecutionPlan>>, DataFusionError> {
    let wanted = partial.schema();
    let given = request.output_schema().map_err(SqlError::from)?;
    let stored = given.fields().iter().take(request.keys.len()).cloned();
    let (stored_keys, plan_keys) = (request.keys.len(), keys.len());
    let schema: SchemaRef =
        Arc::new(Schema::new(stored.chain(wanted.fields().iter().skip(plan_keys).cloned()).collect::<Vec<_>>()));
    let Some(exec) = SegmentAggregateExec::try_new(scan, request, states, Arc::clone(&schema))? else {
        return Ok(None);
    };
    let column = |index: usize| Arc::new(Column::new(schema.field(index).name(), index)) as Arc<dyn PhysicalExpr>;
    let mut columns = Vec::with_capacity(wanted.fields().len());
    for (index, field) in wanted.fields().iter().enumerate() {
        let expr = match keys.get(index) {
            None => column(stored_keys + index - plan_keys),
            Some(Key { index, of: None }) => column(*index),
            Some(Key { index, of: Some(expr) }) => {
                let stored = column(*index);
                let placed = Arc::clone(expr).transform_up(|node| {
                    Ok(match node.downcast_ref::<Column>() {
                        Some(_) => Transformed::yes(Arc::clone(&stored)),
                        None => Transformed::no(node),
                    })
                })?;
                placed.data
            }
        };
        if expr.data_type(&schema)? != *field.data_type() {
            return Ok(None);
        }
        columns.push(ProjectionExpr::new(expr, field.name().clone()));
    }
    Ok(Some(Arc::new(ProjectionExec::try_new(columns, Arc::new(exec))?)))
}

fn understood<'a>(partial: &'a AggregateExec, config: &ConfigOptions) -> Result<Option<Partial<'a>>, DataFusionError> {
    let groups = partial.group_expr();
    if groups.has_grouping_set() || groups.groups().len() > 1 {
        return Ok(None);
    }
    let mut projections: Vec<&ProjectionExec> = Vec::new();
    let mut input = partial.input();
    let scan = loop {
        if let Some(scan) = input.downcast_ref::<SegmentScanExec>() {
            break scan;
        }
        input = if let Some(projection) = input.downcast_ref::<ProjectionExec>() {
            projections.push(projection);
            projection.input()
        } else if let Some(cooperative) = input.downcast_ref::<CooperativeExec>() {
            cooperative.input()
        } else if let Some(repartition) = input.downcast_ref::<RepartitionExec>()
            && matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_))
        {
            repartition.input()
        } else {
            return Ok(None);
        };
    };
    let source = scan.request();
    if source.limit.is_some() {
        return Ok(None);
    }
    let mut reading = expressions::Reading { source, projections: &projections, config, computed: Vec::new() };
    let mut stored = Vec::new();
    let keys = groups.expr().iter().map(|(expr, _)| reading.key(expr, &mut stored));
    let Some(keys) = keys.collect::<Option<Vec<_>>>() else { return Ok(None) };
    let mut aggregates = Vec::new();
    let (mut states, mut widths) = (Vec::new(), Vec::new());
    for (call, filter) in partial.aggr_expr().iter().zip(partial.filter_expr()) {
        let Some(found) = reading.aggregate(call, filter.as_ref(), &mut aggregates)? else { return Ok(None) };
        widths.push(found.len());
        states.extend(found);
    }
    let request = AggregateRequest {
        schema: Arc::clone(&source.schema),
        keys: stored,
        aggregates,
        computed: reading.computed.into_iter().map(|(_, computed)| computed).collect(),
        predicate: source.predicate.clone(),
        indexes: source.hints.indexes,
        results: results(config),
        star_tree: crate::table::star_trees(config),
    };
    // LIMIT over DISTINCT stops early, which reading all groups does not.
    let stops_early = partial.limit_options().is_some_and(|limit| limit.descending().is_none());
    let stays = stops_early && !estimate::is_known(scan.plan(), &request);
    Ok((!stays).then_some(Partial { scan, request, keys, states, widths }))
}

fn results(config: &ConfigOptions) -> Option<Arc<ResultCache>> {
    let shared = &config.extensions.get::<SessionFacts>()?.shared;
    let engine = shared.engine.upgrade()?;
    (engine.config().result_cache_bytes > 0 && shared.settings.lock().is_on(RESULTS_SETTING))
        .then(|| Arc::clone(engine.results()))
}
