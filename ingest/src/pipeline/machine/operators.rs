//! The operators of a machine, and what of a row can be computed before any of them sees it.
//!
//! Preparing is where rows may fail: nothing has been touched then, so a row that cannot be computed is left out alone.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array, UInt64Array},
    compute::{cast, filter_record_batch, is_not_null, prep_null_mask_filter, take},
    datatypes::{DataType as ArrowType, TimeUnit, TimestampMicrosecondType},
};
use datafusion::common::DataFusionError;

use super::{
    dedup::{DedupRows, Deduping},
    flow::{Flowing, Part, Taken},
    joining::{JoinRows, Joining},
    process::{ProcessRows, Processing},
    ranked::{RankRows, Ranked},
    sessions::Sessions,
    spill::Store,
    updating::Updating,
    versions::Versions,
    windowed::{Prepared, Windowed},
};
use crate::pipeline::{
    expression::{Expression, Uncomputed},
    late::Late,
    plan::{Aggregate, Kind, Side, Step, steps, windows::Window},
    tables::Asking,
};

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

/// An operator with what it holds.
pub(super) enum Running {
    Windowed(Windowed),
    Sessions(Sessions),
    Updating(Updating),
    Joining(Box<Joining>),
    Versions(Box<Versions>),
    Ranked(Box<Ranked>),
    Deduping(Deduping),
    Processing(Processing),
}

/// Rows, ready for where they go.
pub(super) enum Piece {
    /// For the output.
    Rows(RecordBatch),
    Aggregate(Box<Prepared>),
    Join(Box<JoinRows>),
    Dedup(Box<DedupRows>),
    Rank(Box<RankRows>),
    Process(Box<ProcessRows>),
}

/// A row that cannot be computed, by its place, and why.
pub(super) type Fault = (u32, String);

impl Piece {
    /// By what rows go to lanes.
    pub(super) fn keys(&self) -> &[ArrayRef] {
        match self {
            Self::Aggregate(rows) => &rows.keys,
            Self::Join(rows) => &rows.keys,
            Self::Dedup(rows) => &rows.keys,
            Self::Rank(rows) => &rows.keys,
            Self::Process(rows) => &rows.keys,
            Self::Rows(_) => &[],
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Aggregate(rows) => rows.before.len(),
            Self::Join(rows) => rows.before.len(),
            Self::Dedup(rows) => rows.before.len(),
            Self::Rank(rows) => rows.before.len(),
            Self::Process(rows) => rows.before.len(),
            Self::Rows(rows) => rows.num_rows(),
        }
    }

    /// Some of the rows, for an operator in lanes.
    pub(super) fn take(&self, rows: &UInt32Array) -> Result<Self> {
        match self {
            Self::Aggregate(all) => all.take(rows).map(Box::new).map(Self::Aggregate),
            Self::Join(all) => all.take(rows).map(Box::new).map(Self::Join),
            Self::Rank(all) => all.take(rows).map(Box::new).map(Self::Rank),
            _ => Err(DataFusionError::Internal("rows for an operator that has one lane".into())),
        }
    }
}

impl Running {
    pub(super) fn new(kind: &Kind, late: Late, store: &Arc<dyn Store>) -> Result<Self> {
        Ok(match kind {
            Kind::Join(join) => Self::Joining(Box::new(Joining::new(Arc::clone(join), store)?)),
            Kind::AsOf(as_of) => Self::Versions(Box::new(Versions::new(Arc::clone(as_of), Arc::clone(store))?)),
            Kind::Ranking(ranking) => Self::Ranked(Box::new(Ranked::new(Arc::clone(ranking), Arc::clone(store))?)),
            Kind::Dedup(dedup) => Self::Deduping(Deduping::new(Arc::clone(dedup), late, Arc::clone(store))?),
            Kind::Process(process) => Self::Processing(Processing::new(Arc::clone(process), Arc::clone(store))?),
            Kind::Aggregate(aggregate) => match &aggregate.timing {
                None => Self::Updating(Updating::new(Arc::clone(aggregate), Arc::clone(store))?),
                Some(timing) if matches!(timing.window, Window::Session { .. }) => {
                    Self::Sessions(Sessions::new(Arc::clone(aggregate), timing, Arc::clone(store))?)
                }
                Some(timing) => Self::Windowed(Windowed::new(Arc::clone(aggregate), timing, late, Arc::clone(store))?),
            },
        })
    }

    pub(super) fn take(&mut self, piece: Piece) -> Result<Taken> {
        match (self, piece) {
            (Self::Windowed(windowed), Piece::Aggregate(rows)) => windowed.update(&rows),
            (Self::Sessions(sessions), Piece::Aggregate(rows)) => sessions.update(&rows),
            (Self::Updating(updating), Piece::Aggregate(rows)) => updating.update(&rows).map(|()| Taken::default()),
            (Self::Joining(joining), Piece::Join(rows)) => joining.update(&rows),
            (Self::Versions(versions), Piece::Join(rows)) => versions.update(&rows),
            (Self::Ranked(ranked), Piece::Rank(rows)) => ranked.update(&rows),
            (Self::Deduping(deduping), Piece::Dedup(rows)) => deduping.update(&rows),
            (Self::Processing(processing), Piece::Process(rows)) => processing.update(&rows),
            _ => Err(DataFusionError::Internal("rows were prepared for another operator".into())),
        }
    }

    /// What comes of the watermark. `delay`: how far the operator's times are behind it.
    pub(super) fn advance(&mut self, watermark: i64, delay: i64) -> Result<Taken> {
        let delayed = watermark.saturating_sub(delay);
        match self {
            Self::Windowed(windowed) => windowed.advance(delayed).map(Taken::of),
            Self::Sessions(sessions) => sessions.advance(delayed).map(Taken::of),
            Self::Updating(_) => Ok(Taken::default()),
            Self::Joining(joining) => joining.advance(watermark),
            Self::Versions(versions) => versions.advance(delayed),
            Self::Ranked(ranked) => ranked.advance(delayed),
            Self::Deduping(deduping) => deduping.advance(delayed),
            Self::Processing(processing) => processing.advance(delayed),
        }
    }

    /// What is given when the runner says that it is time.
    pub(super) fn give(&mut self) -> Result<Taken> {
        match self {
            Self::Updating(updating) => updating.give().map(Taken::of),
            _ => Ok(Taken::default()),
        }
    }

    /// Whether there is something that waits for that.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Updating(updating) if updating.is_waiting())
    }

    /// What may go to files: where it is, and its bytes, the coldest first.
    pub(super) fn spillable(&self) -> Vec<(i64, usize)> {
        match self {
            Self::Windowed(windowed) => windowed.spillable(),
            Self::Updating(updating) => vec![(0, updating.spillable())],
            Self::Deduping(deduping) => vec![(0, deduping.spillable())],
            Self::Processing(processing) => vec![(0, processing.spillable())],
            Self::Versions(versions) => vec![(0, versions.spillable())],
            Self::Sessions(sessions) => vec![(0, sessions.spillable())],
            Self::Joining(joining) => vec![(0, joining.spillable())],
            Self::Ranked(ranked) => vec![(0, ranked.spillable())],
        }
    }

    pub(super) fn spill(&mut self, at: &[i64]) -> Result<()> {
        match self {
            Self::Windowed(windowed) => windowed.spill(at),
            Self::Updating(updating) => updating.spill(),
            Self::Deduping(deduping) => deduping.spill(),
            Self::Processing(processing) => processing.spill(),
            Self::Versions(versions) => versions.spill(),
            Self::Sessions(sessions) => sessions.spill(),
            Self::Joining(joining) => joining.spill(),
            Self::Ranked(ranked) => ranked.spill(),
        }
    }

    /// Bytes in files.
    pub(super) fn spilled(&self) -> u64 {
        match self {
            Self::Windowed(windowed) => windowed.spilled(),
            Self::Updating(updating) => updating.spilled(),
            Self::Deduping(deduping) => deduping.spilled(),
            Self::Processing(processing) => processing.spilled(),
            Self::Versions(versions) => versions.spilled(),
            Self::Sessions(sessions) => sessions.spilled(),
            Self::Joining(joining) => joining.spilled(),
            Self::Ranked(ranked) => ranked.spilled(),
        }
    }

    pub(super) fn dump(&mut self) -> Result<Vec<Part>> {
        match self {
            Self::Windowed(windowed) => windowed.dump(),
            Self::Sessions(sessions) => sessions.dump(),
            Self::Updating(updating) => updating.dump(),
            Self::Joining(joining) => joining.dump(),
            Self::Versions(versions) => versions.dump(),
            Self::Ranked(ranked) => ranked.dump(),
            Self::Deduping(deduping) => deduping.dump(),
            Self::Processing(processing) => processing.dump(),
        }
    }

    /// Begins as one that has seen the watermark.
    pub(super) fn begin(&mut self, watermark: i64, delay: i64) {
        if let Self::Windowed(windowed) = self {
            windowed.begin(watermark.saturating_sub(delay));
        }
    }

    /// Takes a part of a picture.
    pub(super) fn restore(&mut self, part: Part) -> Result<()> {
        match self {
            Self::Windowed(windowed) => windowed.restore(part),
            Self::Sessions(sessions) => sessions.restore(part),
            Self::Updating(updating) => updating.restore(part),
            Self::Joining(joining) => joining.restore(part),
            Self::Versions(versions) => versions.restore(part),
            Self::Ranked(ranked) => ranked.restore(part),
            Self::Deduping(deduping) => deduping.restore(part),
            Self::Processing(processing) => processing.restore(part),
        }
    }

    /// Bytes, and groups or rows.
    pub(super) fn size(&self) -> (usize, usize) {
        match self {
            Self::Windowed(windowed) => (windowed.bytes(), windowed.open_groups()),
            Self::Sessions(sessions) => sessions.size(),
            Self::Updating(updating) => updating.size(),
            Self::Joining(joining) => joining.size(),
            Self::Versions(versions) => versions.size(),
            Self::Ranked(ranked) => ranked.size(),
            Self::Deduping(deduping) => deduping.size(),
            Self::Processing(processing) => processing.size(),
        }
    }
}

/// How far the times of an operator's side are behind the watermark at most.
pub(super) fn delay_of(kind: &Kind, side: usize) -> i64 {
    match kind {
        Kind::Aggregate(aggregate) => aggregate.timing.as_ref().map_or(0, |timing| timing.delay_us),
        Kind::Join(join) => join.sides[side].delay_us,
        Kind::AsOf(as_of) => as_of.sides[side].delay_us,
        Kind::Ranking(ranking) => ranking.delay_us,
        Kind::Dedup(dedup) => dedup.delay_us,
        // It stands behind a source.
        Kind::Process(_) => 0,
    }
}

/// Brings rows through steps to a side of an operator, or to the output.
pub(super) fn prepare(
    operator: Option<(&Kind, usize)>,
    steps: &[Step],
    flowing: Flowing,
    asking: &mut Asking,
) -> Result<(Piece, Vec<Fault>), Uncomputed> {
    let Flowing { rows, mut before, mut places } = flowing;
    let stepped = steps::run(steps, rows, asking)?;
    let mut rows = stepped.rows;
    let mut faults: Vec<Fault> =
        stepped.refused.into_iter().map(|(row, reason)| (places[row as usize], reason)).collect();
    if let Some(kept) = stepped.places {
        (before, places) = Flowing::pick(&before, &places, kept.values().iter().map(|row| *row as usize));
    }
    let Some((kind, side)) = operator else { return Ok((Piece::Rows(rows), faults)) };
    let time = match kind {
        Kind::Aggregate(aggregate) => aggregate.timing.as_ref().map(|timing| &timing.time),
        Kind::Join(join) => Some(&join.sides[side].time),
        Kind::AsOf(as_of) => Some(&as_of.sides[side].time),
        Kind::Ranking(ranking) => Some(&ranking.time),
        Kind::Dedup(dedup) => Some(&dedup.time),
        Kind::Process(process) => Some(&process.time),
    };
    let mut times = TimestampMicrosecondArray::from(Vec::<i64>::new());
    if let Some(time) = time {
        times = times_of(time, &rows)?;
        if times.null_count() > 0 {
            let without = (0..times.len()).filter(|row| times.is_null(*row));
            faults.extend(
                without.map(|row| (places[row], "the event time is null, so that the row is nowhere in time".into())),
            );
            let mask = is_not_null(&times).map_err(|error| error.to_string())?;
            (before, places) = Flowing::pick(&before, &places, mask.values().set_indices());
            rows = filter_record_batch(&rows, &mask).map_err(|error| error.to_string())?;
            times = times_of(time, &rows)?;
        }
    }
    let delay = delay_of(kind, side);
    if delay != 0 {
        before.iter_mut().for_each(|before| *before = before.saturating_sub(delay));
    }
    let piece = match kind {
        Kind::Aggregate(aggregate) => {
            let (keys, arguments, filters) = inputs(aggregate, &rows)?;
            let prepared = Prepared { times, keys, arguments, filters, before, places };
            Piece::Aggregate(Box::new(in_sets(aggregate, prepared)?))
        }
        Kind::Join(join) => joined(&join.sides[side], side, rows, times, before, places)?,
        Kind::AsOf(as_of) => joined(&as_of.sides[side], side, rows, times, before, places)?,
        Kind::Ranking(ranking) => {
            let keys = all(&ranking.keys, &rows)?;
            let order =
                ranking.order.iter().map(|(expression, _)| expression.compute(&rows)).collect::<Result<_, _>>()?;
            let kept = ranking.kept.iter();
            let kept = kept.map(|at| as_type(rows.column(*at), ranking.schema.field(*at).data_type()));
            let kept = kept.collect::<Result<_, String>>()?;
            Piece::Rank(Box::new(RankRows { times, keys, order, kept, before, places }))
        }
        Kind::Dedup(dedup) => {
            let (keys, select) = (all(&dedup.keys, &rows)?, all(&dedup.select, &rows)?);
            Piece::Dedup(Box::new(DedupRows { times, keys, select, before, places }))
        }
        Kind::Process(process) => {
            let keys = all(&process.keys, &rows)?;
            let columns = rows.columns().iter().zip(process.input.fields());
            let columns = columns.map(|(column, field)| as_type(column, field.data_type()));
            let columns = columns.collect::<Result<_, String>>()?;
            Piece::Process(Box::new(ProcessRows { times, keys, columns, before, places }))
        }
    };
    Ok((piece, faults))
}

/// With GROUPING SETS each row once for each set, without the keys that the set does not have.
fn in_sets(aggregate: &Aggregate, rows: Prepared) -> Result<Prepared, String> {
    let (sets, count) = (&aggregate.sets, rows.before.len() as u32);
    if sets.is_empty() {
        return Ok(rows);
    }
    let text = |error: DataFusionError| error.to_string();
    let repeated: UInt32Array =
        (0..count).flat_map(|row| std::iter::repeat_n(row, sets.len())).collect::<Vec<_>>().into();
    let mut all = rows.take(&repeated).map_err(text)?;
    for (at, key) in all.keys.iter_mut().enumerate() {
        let of_set: UInt32Array =
            (0..count).flat_map(|row| sets.iter().map(move |set| set.has[at].then_some(row))).collect();
        *key = take(&rows.keys[at], &of_set, None).map_err(|error| error.to_string())?;
    }
    let numbers: UInt64Array = (0..count).flat_map(|_| sets.iter().map(|set| set.number)).collect::<Vec<_>>().into();
    let number = aggregate.key_schema.field(all.keys.len()).data_type();
    all.keys.push(cast(&numbers, number).map_err(|error| error.to_string())?);
    Ok(all)
}

/// For a side of a join.
fn joined(
    of: &Side,
    side: usize,
    rows: RecordBatch,
    times: TimestampMicrosecondArray,
    before: Vec<i64>,
    places: Vec<u32>,
) -> Result<Piece, Uncomputed> {
    let keys = all(&of.keys, &rows)?;
    let columns = rows.columns().iter().zip(of.schema.fields());
    // Of lanes that are united each has types of its own.
    let columns = columns.map(|(column, field)| as_type(column, field.data_type())).collect::<Result<_, String>>()?;
    let rows = RecordBatch::try_new(Arc::clone(&of.schema), columns).map_err(|error| error.to_string())?;
    Ok(Piece::Join(Box::new(JoinRows { side, rows, times, keys, before, places })))
}

fn as_type(column: &ArrayRef, data_type: &ArrowType) -> Result<ArrayRef, String> {
    match column.data_type() == data_type {
        true => Ok(Arc::clone(column)),
        false => cast(column, data_type).map_err(|error| error.to_string()),
    }
}

fn times_of(time: &Expression, rows: &RecordBatch) -> Result<TimestampMicrosecondArray, Uncomputed> {
    let times = time.compute(rows)?;
    // Zones are names for the same moments.
    let plain = ArrowType::Timestamp(TimeUnit::Microsecond, None);
    let times = cast(&times, &plain).map_err(|error| error.to_string())?;
    let times = times.as_primitive_opt::<TimestampMicrosecondType>().cloned();
    times.ok_or_else(|| "the event time is no timestamp of microseconds".into())
}

fn all(expressions: &[Expression], rows: &RecordBatch) -> Result<Vec<ArrayRef>, Uncomputed> {
    expressions.iter().map(|expression| expression.compute(rows)).collect()
}

type Inputs = (Vec<ArrayRef>, Vec<Vec<ArrayRef>>, Vec<Option<arrow::array::BooleanArray>>);

/// Keys, and the arguments and filters of each aggregate.
fn inputs(aggregate: &Aggregate, rows: &RecordBatch) -> Result<Inputs, Uncomputed> {
    let keys = all(&aggregate.keys, rows)?;
    let arguments = aggregate.calls.iter().map(|call| all(&call.arguments, rows)).collect::<Result<_, _>>()?;
    let filters = aggregate.calls.iter().map(|call| match &call.filter {
        None => Ok(None),
        Some(filter) => {
            let mask = filter.compute(rows)?;
            let mask = mask.as_boolean_opt().ok_or("the condition of FILTER is not boolean")?;
            Ok(Some(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() }))
        }
    });
    Ok((keys, arguments, filters.collect::<Result<_, Uncomputed>>()?))
}
