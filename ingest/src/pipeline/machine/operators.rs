//! The operators of a machine, and what of a row can be computed before any of them sees it.
//!
//! Preparing is where rows may fail: nothing has been touched then, so a row that cannot be computed is left out alone.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray},
    compute::{cast, filter_record_batch, is_not_null, prep_null_mask_filter},
    datatypes::{DataType as ArrowType, TimeUnit, TimestampMicrosecondType},
};
use datafusion::common::DataFusionError;

use super::{
    dedup::{DedupRows, Deduping},
    flow::{Flowing, Part, Taken},
    joining::{JoinRows, Joining},
    sessions::Sessions,
    updating::Updating,
    windowed::{Prepared, Windowed},
};
use crate::pipeline::{
    expression::Expression,
    late::Late,
    plan::{Aggregate, Kind, Step, steps, windows::Window},
};

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

/// An operator with what it holds.
pub(super) enum Running {
    Windowed(Windowed),
    Sessions(Sessions),
    Updating(Updating),
    Joining(Box<Joining>),
    Deduping(Deduping),
}

/// Rows, ready for where they go.
pub(super) enum Piece {
    /// For the output.
    Rows(RecordBatch),
    Aggregate(Box<Prepared>),
    Join(Box<JoinRows>),
    Dedup(Box<DedupRows>),
}

/// A row that cannot be computed, by its place, and why.
pub(super) type Fault = (u32, String);

impl Running {
    pub(super) fn new(kind: &Kind, late: Late) -> Result<Self> {
        Ok(match kind {
            Kind::Join(join) => Self::Joining(Box::new(Joining::new(Arc::clone(join))?)),
            Kind::Dedup(dedup) => Self::Deduping(Deduping::new(Arc::clone(dedup), late)?),
            Kind::Aggregate(aggregate) => match &aggregate.timing {
                None => Self::Updating(Updating::new(Arc::clone(aggregate))?),
                Some(timing) if matches!(timing.window, Window::Session { .. }) => {
                    Self::Sessions(Sessions::new(Arc::clone(aggregate), timing)?)
                }
                Some(timing) => Self::Windowed(Windowed::new(Arc::clone(aggregate), timing, late)?),
            },
        })
    }

    pub(super) fn take(&mut self, piece: Piece) -> Result<Taken> {
        match (self, piece) {
            (Self::Windowed(windowed), Piece::Aggregate(rows)) => windowed.update(&rows),
            (Self::Sessions(sessions), Piece::Aggregate(rows)) => sessions.update(&rows),
            (Self::Updating(updating), Piece::Aggregate(rows)) => updating.update(&rows).map(|()| Taken::default()),
            (Self::Joining(joining), Piece::Join(rows)) => joining.update(&rows),
            (Self::Deduping(deduping), Piece::Dedup(rows)) => deduping.update(&rows),
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
            Self::Deduping(deduping) => deduping.advance(delayed),
        }
    }

    /// What is given when the runner says that it is time.
    pub(super) fn give(&mut self) -> Result<Taken> {
        match self {
            Self::Updating(updating) => Ok(Taken::of(updating.give()?.into_iter().collect())),
            _ => Ok(Taken::default()),
        }
    }

    /// Whether there is something that waits for that.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Updating(updating) if updating.is_waiting())
    }

    pub(super) fn dump(&mut self) -> Result<Vec<Part>> {
        match self {
            Self::Windowed(windowed) => windowed.dump(),
            Self::Sessions(sessions) => sessions.dump(),
            Self::Updating(updating) => updating.dump(),
            Self::Joining(joining) => joining.dump(),
            Self::Deduping(deduping) => deduping.dump(),
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
            Self::Deduping(deduping) => deduping.restore(part),
        }
    }

    /// Bytes, and groups or rows.
    pub(super) fn size(&self) -> (usize, usize) {
        match self {
            Self::Windowed(windowed) => (windowed.bytes(), windowed.open_groups()),
            Self::Sessions(sessions) => sessions.size(),
            Self::Updating(updating) => updating.size(),
            Self::Joining(joining) => joining.size(),
            Self::Deduping(deduping) => deduping.size(),
        }
    }
}

/// How far the times of an operator's side are behind the watermark at most.
pub(super) fn delay_of(kind: &Kind, side: usize) -> i64 {
    match kind {
        Kind::Aggregate(aggregate) => aggregate.timing.as_ref().map_or(0, |timing| timing.delay_us),
        Kind::Join(join) => join.sides[side].delay_us,
        Kind::Dedup(dedup) => dedup.delay_us,
    }
}

/// Brings rows through steps to a side of an operator, or to the output.
pub(super) fn prepare(
    operator: Option<(&Kind, usize)>,
    steps: &[Step],
    flowing: Flowing,
) -> Result<(Piece, Vec<Fault>), String> {
    let Flowing { rows, mut before, mut places } = flowing;
    let stepped = steps::run(steps, rows)?;
    let mut rows = stepped.rows;
    if let Some(kept) = stepped.places {
        (before, places) = Flowing::pick(&before, &places, kept.values().iter().map(|row| *row as usize));
    }
    let Some((kind, side)) = operator else { return Ok((Piece::Rows(rows), Vec::new())) };
    let time = match kind {
        Kind::Aggregate(aggregate) => aggregate.timing.as_ref().map(|timing| &timing.time),
        Kind::Join(join) => Some(&join.sides[side].time),
        Kind::Dedup(dedup) => Some(&dedup.time),
    };
    let mut faults = Vec::new();
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
            Piece::Aggregate(Box::new(Prepared { times, keys, arguments, filters, before, places }))
        }
        Kind::Join(join) => {
            let keys = all(&join.sides[side].keys, &rows)?;
            let columns = rows.columns().iter().zip(join.sides[side].schema.fields());
            // Of lanes that are united each has types of its own.
            let columns =
                columns.map(|(column, field)| as_type(column, field.data_type())).collect::<Result<_, _>>()?;
            let rows = RecordBatch::try_new(Arc::clone(&join.sides[side].schema), columns);
            let rows = rows.map_err(|error| error.to_string())?;
            Piece::Join(Box::new(JoinRows { side, rows, times, keys, before, places }))
        }
        Kind::Dedup(dedup) => {
            let (keys, select) = (all(&dedup.keys, &rows)?, all(&dedup.select, &rows)?);
            Piece::Dedup(Box::new(DedupRows { times, keys, select, before, places }))
        }
    };
    Ok((piece, faults))
}

fn as_type(column: &ArrayRef, data_type: &ArrowType) -> Result<ArrayRef, String> {
    match column.data_type() == data_type {
        true => Ok(Arc::clone(column)),
        false => cast(column, data_type).map_err(|error| error.to_string()),
    }
}

fn times_of(time: &Expression, rows: &RecordBatch) -> Result<TimestampMicrosecondArray, String> {
    let times = time.evaluate(rows)?;
    // Zones are names for the same moments.
    let plain = ArrowType::Timestamp(TimeUnit::Microsecond, None);
    let times = cast(&times, &plain).map_err(|error| error.to_string())?;
    let times = times.as_primitive_opt::<TimestampMicrosecondType>().cloned();
    times.ok_or_else(|| "the event time is no timestamp of microseconds".to_owned())
}

fn all(expressions: &[Expression], rows: &RecordBatch) -> Result<Vec<ArrayRef>, String> {
    expressions.iter().map(|expression| expression.evaluate(rows)).collect()
}

type Inputs = (Vec<ArrayRef>, Vec<Vec<ArrayRef>>, Vec<Option<arrow::array::BooleanArray>>);

/// Keys, and the arguments and filters of each aggregate.
fn inputs(aggregate: &Aggregate, rows: &RecordBatch) -> Result<Inputs, String> {
    let keys = all(&aggregate.keys, rows)?;
    let arguments = aggregate.calls.iter().map(|call| all(&call.arguments, rows)).collect::<Result<_, _>>()?;
    let filters = aggregate.calls.iter().map(|call| match &call.filter {
        None => Ok(None),
        Some(filter) => {
            let mask = filter.evaluate(rows)?;
            let mask = mask.as_boolean_opt().ok_or("the condition of FILTER is not boolean")?;
            Ok(Some(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() }))
        }
    });
    Ok((keys, arguments, filters.collect::<Result<_, String>>()?))
}
