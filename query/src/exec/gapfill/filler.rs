//! Deciding which rows there are: groups come in sorted by key and bucket, and go out with a row for each bucket.
//!
//! ```text
//! in       city  bucket  avg        out      city  bucket  avg   locf
//!          oslo  10:00   4          ⇒        oslo  10:00   4     4
//!          oslo  12:00   6                   oslo  11:00   NULL  4       made: no row was there
//!                                            oslo  12:00   6     6
//! ```
//!
//! A row is made when the next row of its group is known, or that there is none. So one batch of the input is held, and of what came before it only the keys of the group
//! and the last values.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Date32Array, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_null_array,
    },
    compute::{cast, interleave, take},
    datatypes::{DataType, Date32Type, SchemaRef, TimestampMicrosecondType},
    row::{OwnedRow, RowConverter, Rows, SortField},
};
use datafusion::error::DataFusionError;

use super::values::{self, Number};
use crate::{
    SqlError,
    functions::datetime::bucket::{Begin, Buckets},
};

pub(super) const DAY_US: i64 = 86_400_000_000;

type Result<T, E = DataFusionError> = std::result::Result<T, E>;

/// What is filled with what.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// Place of the bucket's beginning in the input and the output.
    pub(super) bucket: usize,
    pub(super) keys: Vec<usize>,
    pub(super) by: Vec<usize>,
    /// How many of the input's columns are passed on.
    pub(super) columns: usize,
    pub(super) fills: Vec<FillSpec>,
    pub(super) buckets: Buckets,
    /// The first bucket lies around it.
    pub(super) start: i64,
    /// All buckets begin before it.
    pub(super) finish: i64,
}

#[derive(Clone, Debug)]
pub(super) enum FillSpec {
    Locf { source: usize, before: Option<usize>, nulls_are_missing: bool },
    Interpolate { source: usize },
}

/// Where the value of a row is.
#[derive(Clone, Debug)]
enum Place {
    Nowhere,
    /// In the batch at hand.
    Row(usize),
    /// In the batch at hand, in the column of values before the first.
    Before(usize),
    /// It came before the batch at hand.
    Held(ArrayRef),
}

impl Place {
    fn indices(&self) -> (usize, usize) {
        match self {
            Self::Nowhere => (0, 0),
            Self::Held(_) => (1, 0),
            Self::Row(row) => (2, *row),
            Self::Before(row) => (3, *row),
        }
    }

    /// Kept when the batch goes.
    fn hold(&mut self, column: &ArrayRef, before: Option<&ArrayRef>) -> Result<()> {
        let (array, row) = match (&self, before) {
            (Self::Row(row), _) => (column, *row),
            (Self::Before(row), Some(before)) => (before, *row),
            _ => return Ok(()),
        };
        let row = u32::try_from(row).map_err(|_| SqlError::internal("a batch of too many rows"))?;
        *self = Self::Held(cast(&take(array, &UInt32Array::from(vec![row]), None)?, column.data_type())?);
        Ok(())
    }

    fn held(&self) -> Option<&ArrayRef> {
        if let Self::Held(array) = self { Some(array) } else { None }
    }
}

/// A column to fill, in the group at hand.
#[derive(Clone, Debug)]
enum Last {
    Locf(Place),
    Interpolate(Option<Number>),
}

#[derive(Debug)]
struct Group {
    by: Option<OwnedRow>,
    keys: Vec<Place>,
    /// The next bucket that must be; none after the last.
    next: Option<Begin>,
    /// Where the bucket of the last row began.
    at: Option<i64>,
    lasts: Vec<Last>,
}

#[derive(Debug)]
struct Batch {
    batch: RecordBatch,
    /// None where all rows are one group.
    by: Option<Rows>,
    /// Where buckets begin, in microseconds.
    begins: Vec<Option<i64>>,
    /// The next row.
    row: usize,
}

/// The rows of one batch of the output.
#[derive(Debug, Default)]
struct Out {
    begins: Vec<Option<i64>>,
    /// Of columns that are neither bucket nor key.
    rows: Vec<(usize, usize)>,
    keys: Vec<(usize, usize)>,
    fills: Vec<Column>,
}

#[derive(Debug)]
enum Column {
    Locf(Vec<(usize, usize)>),
    Interpolate(Vec<Option<Number>>),
}

#[derive(Debug)]
pub(super) struct Filler {
    spec: Spec,
    input: SchemaRef,
    output: SchemaRef,
    converter: Option<RowConverter>,
    batch: Option<Batch>,
    group: Option<Group>,
    /// Whether there was a group.
    has_begun: bool,
    rows_max: usize,
}

impl Filler {
    pub(super) fn new(spec: Spec, input: SchemaRef, output: SchemaRef, rows_max: usize) -> Result<Self> {
        let fields = spec.by.iter().map(|index| SortField::new(input.field(*index).data_type().clone()));
        let converter = if spec.by.is_empty() { None } else { Some(RowConverter::new(fields.collect())?) };
        Ok(Self {
            spec,
            input,
            output,
            converter,
            batch: None,
            group: None,
            has_begun: false,
            rows_max: rows_max.max(1),
        })
    }

    /// Gives it the next rows; those that it had are all used.
    pub(super) fn take(&mut self, batch: RecordBatch) -> Result<()> {
        let by = match &mut self.converter {
            Some(converter) => {
                let columns: Vec<ArrayRef> =
                    self.spec.by.iter().map(|index| Arc::clone(batch.column(*index))).collect();
                Some(converter.convert_columns(&columns)?)
            }
            None => None,
        };
        let column = batch.column(self.spec.bucket);
        let begins = match column.data_type() {
            DataType::Date32 => {
                column.as_primitive::<Date32Type>().iter().map(|day| day.map(|day| i64::from(day) * DAY_US)).collect()
            }
            _ => column.as_primitive::<TimestampMicrosecondType>().iter().collect(),
        };
        self.batch = Some(Batch { batch, by, begins, row: 0 });
        Ok(())
    }

    /// Rows of the output, up to as many as a batch has; none if it needs more of the input, or at the end of it if that was all.
    pub(super) fn fill(&mut self, has_ended: bool) -> Result<Option<RecordBatch>> {
        let mut out = Out { fills: self.spec.fills.iter().map(Column::of).collect(), ..Out::default() };
        // What is held now is at one place for all rows of this batch.
        let held = self.group.as_ref().map(|group| group.held()).unwrap_or_default();
        while out.begins.len() < self.rows_max {
            let row = self.batch.as_ref().filter(|batch| batch.row < batch.begins.len()).map(|batch| batch.row);
            match (row, &self.group) {
                (None, _) if !has_ended => break,
                (None, Some(group)) => match group.next {
                    Some(next) => self.make(next, None, &mut out)?,
                    None => self.group = None,
                },
                (None, None) => {
                    if self.has_begun || !self.spec.by.is_empty() {
                        break;
                    }
                    // Without other keys there is one group, even of no rows.
                    self.begin(None)?;
                }
                (Some(row), Some(group)) if self.is_of(group, row) => {
                    let begins = self.batch.as_ref().and_then(|batch| batch.begins[row]);
                    match (group.next, begins) {
                        (Some(next), Some(at)) if next.at < at => self.make(next, Some(row), &mut out)?,
                        // Times that are null come last.
                        (Some(next), None) => self.make(next, None, &mut out)?,
                        _ => self.pass(row, begins, &mut out)?,
                    }
                }
                (Some(row), Some(group)) => match group.next {
                    Some(next) => self.make(next, None, &mut out)?,
                    None => self.begin(Some(row))?,
                },
                (Some(row), None) => self.begin(Some(row))?,
            }
        }
        let made = if out.begins.is_empty() { None } else { Some(self.assembled(out, held)?) };
        if self.batch.as_ref().is_some_and(|batch| batch.row >= batch.begins.len()) {
            self.release()?;
        }
        Ok(made)
    }

    fn is_of(&self, group: &Group, row: usize) -> bool {
        let by = self.batch.as_ref().and_then(|batch| batch.by.as_ref());
        match (&group.by, by) {
            (Some(group), Some(by)) => group.row() == by.row(row),
            _ => true,
        }
    }

    /// The next bucket after `begin`, if it begins early enough.
    fn bucket_after(&self, begin: Begin) -> Option<Begin> {
        self.spec.buckets.after(begin).filter(|next| next.at < self.spec.finish)
    }

    fn begin(&mut self, row: Option<usize>) -> Result<()> {
        let first = self.spec.buckets.of(self.spec.start)?;
        let by = self.batch.as_ref().and_then(|batch| Some(batch.by.as_ref()?.row(row?).owned()));
        let place = row.map_or(Place::Nowhere, Place::Row);
        let lasts = self.spec.fills.iter().map(|fill| match fill {
            FillSpec::Locf { before: Some(_), .. } => Last::Locf(row.map_or(Place::Nowhere, Place::Before)),
            FillSpec::Locf { .. } => Last::Locf(Place::Nowhere),
            FillSpec::Interpolate { .. } => Last::Interpolate(None),
        });
        self.group = Some(Group {
            by,
            keys: vec![place; self.spec.keys.len()],
            next: Some(first).filter(|first| first.at < self.spec.finish),
            at: None,
            lasts: lasts.collect(),
        });
        self.has_begun = true;
        Ok(())
    }

    /// A row for a bucket that is not there; `following` is the next one of its group.
    fn make(&mut self, bucket: Begin, following: Option<usize>, out: &mut Out) -> Result<()> {
        let next = self.bucket_after(bucket);
        let Some(group) = &mut self.group else { return Err(SqlError::internal("a bucket of no group").into()) };
        group.next = next;
        out.begins.push(Some(bucket.at));
        out.rows.push((0, 0));
        out.keys.push(group.keys.first().map_or((0, 0), Place::indices));
        for ((fill, last), column) in self.spec.fills.iter().zip(&group.lasts).zip(&mut out.fills) {
            match (fill, last, column) {
                (FillSpec::Locf { .. }, Last::Locf(place), Column::Locf(places)) => places.push(place.indices()),
                (FillSpec::Interpolate { source }, Last::Interpolate(last), Column::Interpolate(numbers)) => {
                    let following = match (&self.batch, following) {
                        (Some(batch), Some(row)) => Number::read(batch.batch.column(*source).as_ref(), row)?
                            .and_then(|number| Some((batch.begins[row]?, number))),
                        _ => None,
                    };
                    let number = match (group.at.zip(*last), following) {
                        (Some(before), Some(after)) => Number::between(before, after, bucket.at),
                        _ => None,
                    };
                    numbers.push(number);
                }
                _ => return Err(SqlError::internal("a column is filled in another way").into()),
            }
        }
        Ok(())
    }

    /// A row that is there.
    fn pass(&mut self, row: usize, begins: Option<i64>, out: &mut Out) -> Result<()> {
        let next = self.group.as_ref().and_then(|group| group.next);
        let next = match (next, begins) {
            (Some(next), Some(at)) if next.at == at => self.bucket_after(next),
            _ => next,
        };
        let (Some(group), Some(batch)) = (&mut self.group, &mut self.batch) else {
            return Err(SqlError::internal("a row of no group").into());
        };
        batch.row += 1;
        group.next = next;
        group.at = begins;
        out.begins.push(begins);
        out.rows.push((2, row));
        out.keys.push((2, row));
        for ((fill, last), column) in self.spec.fills.iter().zip(&mut group.lasts).zip(&mut out.fills) {
            match (fill, last, column) {
                (FillSpec::Locf { source, nulls_are_missing, .. }, Last::Locf(place), Column::Locf(places)) => {
                    // A row without a time follows nothing.
                    let is_missing = *nulls_are_missing && begins.is_some() && batch.batch.column(*source).is_null(row);
                    if !is_missing {
                        *place = Place::Row(row);
                    }
                    places.push(place.indices());
                }
                (FillSpec::Interpolate { source }, Last::Interpolate(last), Column::Interpolate(numbers)) => {
                    *last = Number::read(batch.batch.column(*source).as_ref(), row)?;
                    numbers.push(*last);
                }
                _ => return Err(SqlError::internal("a column is filled in another way").into()),
            }
        }
        Ok(())
    }

    fn assembled(&self, out: Out, held: Held) -> Result<RecordBatch> {
        let is_filled = |index: usize| index == self.spec.bucket;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.output.fields().len());
        for index in 0..self.spec.columns {
            let field = self.input.field(index);
            if is_filled(index) {
                columns.push(begins_column(&out.begins, field.data_type())?);
                continue;
            }
            let null = new_null_array(field.data_type(), 1);
            let key = self.spec.keys.iter().position(|key| *key == index);
            let (places, earlier) = match key {
                Some(key) => (&out.keys, held.keys.get(key).and_then(Option::as_ref)),
                None => (&out.rows, None),
            };
            let row = self.batch.as_ref().map_or(&null, |batch| batch.batch.column(index));
            let arrays: [&dyn Array; 3] = [&null, earlier.unwrap_or(&null), row];
            columns.push(interleave(&arrays, places)?);
        }
        for (index, (fill, column)) in self.spec.fills.iter().zip(&out.fills).enumerate() {
            let data_type = self.output.field(self.spec.columns + index).data_type();
            match (fill, column) {
                (FillSpec::Locf { source, before, .. }, Column::Locf(places)) => {
                    let null = new_null_array(data_type, 1);
                    let earlier = held.lasts.get(index).and_then(Option::as_ref).unwrap_or(&null);
                    let row = self.batch.as_ref().map_or(&null, |batch| batch.batch.column(*source));
                    let first = match (before, &self.batch) {
                        (Some(before), Some(batch)) => cast(batch.batch.column(*before), data_type)?,
                        _ => Arc::clone(&null),
                    };
                    columns.push(interleave(&[&null as &dyn Array, earlier, row, &first], places)?);
                }
                (_, Column::Interpolate(numbers)) => columns.push(values::column(numbers, data_type)?),
                _ => return Err(SqlError::internal("a column is filled in another way").into()),
            }
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.output), columns)?)
    }

    /// Lets the batch go and holds what is still needed of it.
    fn release(&mut self) -> Result<()> {
        let (Some(batch), Some(group)) = (self.batch.take(), &mut self.group) else { return Ok(()) };
        for (place, index) in group.keys.iter_mut().zip(&self.spec.keys) {
            place.hold(batch.batch.column(*index), None)?;
        }
        for (last, fill) in group.lasts.iter_mut().zip(&self.spec.fills) {
            if let (Last::Locf(place), FillSpec::Locf { source, before, .. }) = (last, fill) {
                let before = before.map(|before| batch.batch.column(before));
                place.hold(batch.batch.column(*source), before)?;
            }
        }
        Ok(())
    }
}

/// What a group held when a batch of the output was begun.
#[derive(Debug, Default)]
struct Held {
    keys: Vec<Option<ArrayRef>>,
    lasts: Vec<Option<ArrayRef>>,
}

impl Group {
    fn held(&self) -> Held {
        let lasts = self.lasts.iter().map(|last| match last {
            Last::Locf(place) => place.held().cloned(),
            Last::Interpolate(_) => None,
        });
        Held { keys: self.keys.iter().map(|place| place.held().cloned()).collect(), lasts: lasts.collect() }
    }
}

impl Column {
    fn of(fill: &FillSpec) -> Self {
        match fill {
            FillSpec::Locf { .. } => Self::Locf(Vec::new()),
            FillSpec::Interpolate { .. } => Self::Interpolate(Vec::new()),
        }
    }
}

fn begins_column(begins: &[Option<i64>], data_type: &DataType) -> Result<ArrayRef> {
    if *data_type == DataType::Date32 {
        let days = begins.iter().map(|at| at.map(|at| i32::try_from(at.div_euclid(DAY_US))).transpose());
        let days = days.collect::<Result<Date32Array, _>>().map_err(|_| SqlError::new("22008", "date out of range"))?;
        return Ok(Arc::new(days));
    }
    let zone = if let DataType::Timestamp(_, zone) = data_type { zone.clone() } else { None };
    Ok(Arc::new(begins.iter().copied().collect::<TimestampMicrosecondArray>().with_timezone_opt(zone)))
}
