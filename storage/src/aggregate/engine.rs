//! Window by window: the group of each row, then what each aggregate learns of it.
//!
//! ```text
//! segment ─► blocks (a window's selected rows, one block a column)
//!              ├─ key columns ─► grouper ─► group of each row ─► rows of each group
//!              └─ inputs: a column under a filter ─► rows that have a value ─► counts, sums, extremes
//! ```
//!
//! An input is shared by all aggregates of one column and filter: `avg(x)`, `sum(x)` and `count(x)` read `x` once.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions},
    datatypes::{DataType as ArrowType, Decimal128Type, SchemaRef},
};

use super::{
    Bounds,
    block::{self, Block, Shape, Values, compact},
    computed::Recipe,
    groups::Grouper,
    keys::Key,
    moments::Part,
    not_merged,
    request::{AggregateRequest, Function},
    states::{Counts, Groups, Operation, State, Subject},
};
use crate::{
    Error, Result,
    bitpack::Bitmask,
    predicate::Predicate,
    prune::widen,
    scalar::Scalar,
    schema::{Column, DataType},
    segment::ColumnStats,
};

/// Digits that every integer of 64 bits can have.
const DIGITS_OF_64_BITS: u8 = 18;

/// A column that an aggregation reads, and whether it needs more than which rows are null.
#[derive(Clone, Debug)]
pub(crate) struct Needed {
    pub(crate) column: Column,
    pub(crate) has_values: bool,
    /// Of a column that no segment has.
    pub(crate) recipe: Option<Arc<Recipe>>,
}

/// What a request comes down to.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) request: Arc<AggregateRequest>,
    schema: SchemaRef,
    pub(crate) needed: Vec<Needed>,
    /// The FILTER clauses.
    pub(crate) filters: Vec<Predicate>,
    /// Index in `needed`.
    keys: Vec<usize>,
    inputs: Vec<InputLayout>,
    outputs: Vec<Output>,
    /// Of the keys over all segments, when groups are those of all segments.
    bounds: Option<Vec<Bounds>>,
}

#[derive(Clone, Debug)]
struct InputLayout {
    /// Index in `needed`; `None`: whole rows.
    column: Option<usize>,
    /// Index in `filters`.
    filter: Option<usize>,
    operations: Vec<Operation>,
}

/// Where an aggregate's column comes from.
#[derive(Clone, Copy, Debug)]
enum Output {
    Rows,
    Count { input: usize },
    State { input: usize, operation: usize, part: Part },
}

impl Layout {
    pub(crate) fn new(request: &Arc<AggregateRequest>) -> Result<Self> {
        let mut layout = Self {
            schema: request.output_schema()?,
            request: Arc::clone(request),
            needed: Vec::new(),
            filters: Vec::new(),
            keys: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            bounds: None,
        };
        for key in &request.keys {
            let column = layout.need(request.column(key.column)?, true)?;
            layout.keys.push(column);
        }
        for aggregate in &request.aggregates {
            let operation = aggregate.function.operation();
            let column = match aggregate.function.column() {
                None => None,
                Some(id) => Some(layout.need(request.column(id)?, operation.is_some())?),
            };
            let filter = aggregate.filter.as_ref().map(|filter| {
                layout.filters.iter().position(|known| known == filter).unwrap_or_else(|| {
                    layout.filters.push(filter.clone());
                    layout.filters.len() - 1
                })
            });
            if column.is_none() && filter.is_none() {
                layout.outputs.push(Output::Rows);
                continue;
            }
            let known = layout.inputs.iter().position(|input| input.column == column && input.filter == filter);
            let input = known.unwrap_or_else(|| {
                layout.inputs.push(InputLayout { column, filter, operations: Vec::new() });
                layout.inputs.len() - 1
            });
            if let Some(Operation::End(_, value)) = operation {
                layout.need(request.column(value)?, true)?;
            }
            layout.outputs.push(match operation {
                None => Output::Count { input },
                Some(operation) => {
                    let part = if let Function::Squares(_) = aggregate.function { Part::Squares } else { Part::Mean };
                    let operations = &mut layout.inputs[input].operations;
                    let known = operations.iter().position(|known| *known == operation);
                    let operation = known.unwrap_or_else(|| {
                        operations.push(operation);
                        operations.len() - 1
                    });
                    Output::State { input, operation, part }
                }
            });
        }
        Ok(layout)
    }

    /// For groups of all segments, whose keys lie inside `bounds`.
    pub(crate) fn merged(request: &Arc<AggregateRequest>, bounds: &[Bounds]) -> Result<Self> {
        Ok(Self { bounds: Some(bounds.to_vec()), ..Self::new(request)? })
    }

    /// The shape that every segment is to give a needed column in; `None`: each its own.
    pub(crate) fn shape(&self, index: usize) -> Option<Shape> {
        let bounds = self.bounds.as_ref()?;
        if let Some(key) = self.keys.iter().position(|needed| *needed == index) {
            return Some(Shape::Integers(Some(bounds[key])));
        }
        let Needed { column, has_values, .. } = &self.needed[index];
        Some(match column.data_type {
            DataType::Numeric { precision, .. } if *has_values && precision <= DIGITS_OF_64_BITS => {
                let largest = 10i64.pow(precision.into()) - 1;
                Shape::Integers(Some((-largest, largest)))
            }
            _ => shape_of_any(&column.data_type, *has_values),
        })
    }

    /// The index in `needed` of the column that an operation's answer is made of.
    fn subject(&self, input: &InputLayout, operation: Operation) -> Option<usize> {
        match operation {
            Operation::End(_, value) => self.needed.iter().position(|needed| needed.column.id == value),
            _ => input.column,
        }
    }

    /// The index of a column in `needed`.
    fn need(&mut self, column: &Column, has_values: bool) -> Result<usize> {
        Ok(match self.needed.iter().position(|known| known.column.id == column.id) {
            Some(index) => {
                self.needed[index].has_values |= has_values;
                index
            }
            None => {
                let computed = self.request.computed.iter().find(|computed| computed.column.id == column.id);
                let recipe = computed.map(|computed| Recipe::new(computed, &self.request)).transpose()?.map(Arc::new);
                self.needed.push(Needed { column: column.clone(), has_values, recipe });
                self.needed.len() - 1
            }
        })
    }
}

/// The groups of the rows read so far.
#[derive(Debug)]
pub(crate) struct Engine {
    layout: Arc<Layout>,
    shapes: Vec<Shape>,
    /// One for each needed column: the segment fills them before each [`Engine::update`].
    pub(crate) blocks: Vec<Block>,
    grouper: Grouper,
    expected_rows: usize,
    rows: Counts,
    inputs: Vec<Input>,
    groups: Vec<u32>,
    scratch: Scratch,
}

#[derive(Debug)]
struct Input {
    tally: Tally,
    /// Each with the block of what it is about.
    states: Vec<(State, usize)>,
    /// The numbers that ids stand for, where they are summed.
    numbers: Option<Values>,
}

/// Rows of each group that have a value, or those that have none: what is rarer.
#[derive(Debug)]
enum Tally {
    Present(Counts),
    Missing(Counts),
}

#[derive(Debug)]
struct Scratch {
    groups: Vec<u32>,
    values: Values,
    numbers: Values,
}

impl Engine {
    /// `shapes`: of each needed column; `rows`: about how many come.
    pub(crate) fn new(layout: Arc<Layout>, shapes: Vec<Shape>, rows: usize) -> Result<Self> {
        let keys = layout
            .keys
            .iter()
            .zip(&layout.request.keys)
            .map(|(index, key)| {
                Ok((*index, Key::new(&layout.needed[*index].column.data_type, key.bin, &shapes[*index])?))
            })
            .collect::<Result<Vec<_>>>()?;
        let grouper = if layout.bounds.is_some() { Grouper::dense(keys)? } else { Grouper::new(keys, rows) };
        let groups = grouper.groups();
        let blocks: Vec<Block> = shapes.iter().map(Block::new).collect();
        let inputs = layout
            .inputs
            .iter()
            .map(|input| {
                let of_numbers = input.operations.iter().any(|operation| operation.is_of_numbers());
                let (numbers, dictionary) = match input.column.map(|index| &shapes[index]) {
                    Some(Shape::Ids(values)) => (of_numbers.then(|| numbers_of(values)).transpose()?, Some(values)),
                    _ => (None, None),
                };
                let bounds = match input.column.map(|index| &shapes[index]) {
                    Some(Shape::Integers(bounds)) => *bounds,
                    _ => None,
                };
                let data_type = input.column.map_or(&DataType::BigInt, |index| &layout.needed[index].column.data_type);
                let states = input
                    .operations
                    .iter()
                    .map(|operation| {
                        let subject = layout.subject(input, *operation).ok_or_else(no_column)?;
                        let values = match &numbers {
                            Some(numbers) if operation.is_of_numbers() => numbers,
                            _ => &blocks[subject].values,
                        };
                        let state = State::new(*operation, &Subject { values, data_type, dictionary, bounds }, groups)?;
                        Ok((state, subject))
                    })
                    .collect::<Result<Vec<_>>>()?;
                let tally = match input.filter {
                    None => Tally::Missing(Counts::new(groups)),
                    Some(_) => Tally::Present(Counts::new(groups)),
                };
                Ok(Input { tally, states, numbers })
            })
            .collect::<Result<Vec<_>>>()?;
        let scratch = Scratch { groups: Vec::new(), values: Values::None, numbers: Values::None };
        Ok(Self {
            expected_rows: rows,
            rows: Counts::new(groups),
            groups: Vec::new(),
            layout,
            shapes,
            blocks,
            grouper,
            inputs,
            scratch,
        })
    }

    /// The groups of all segments.
    pub(crate) fn of_all_segments(layout: Arc<Layout>) -> Result<Self> {
        let shapes = (0..layout.needed.len()).map(|index| layout.shape(index));
        let shapes = shapes.collect::<Option<Vec<_>>>().ok_or_else(not_merged)?;
        Self::new(layout, shapes, 0)
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Places of groups.
    pub(crate) fn groups(&self) -> usize {
        self.grouper.groups()
    }

    /// Takes what another engine has found, which has the same places.
    pub(crate) fn merge(&mut self, other: Self) -> Result<()> {
        let is_same = |(a, b): (&Input, &Input)| a.states.len() == b.states.len();
        if self.groups() != other.groups() || !self.inputs.iter().zip(&other.inputs).all(is_same) {
            return Err(not_merged());
        }
        self.rows.merge(other.rows);
        for (input, other) in self.inputs.iter_mut().zip(other.inputs) {
            match (&mut input.tally, other.tally) {
                (Tally::Present(counts), Tally::Present(others)) | (Tally::Missing(counts), Tally::Missing(others)) => {
                    counts.merge(others);
                }
                _ => return Err(not_merged()),
            }
            for ((state, _), (other, _)) in input.states.iter_mut().zip(other.states) {
                state.merge(other)?;
            }
        }
        Ok(())
    }

    /// Whether all that is asked for is how many rows there are, and sums of integers: rows between others are cheaply left out of them
    /// ([`Self::update_among`]).
    pub(crate) fn is_sums_alone(&self) -> bool {
        self.layout.keys.is_empty() && self.inputs.iter().all(Input::is_sums_alone)
    }

    /// Takes `rows` rows, whose values are in the blocks. `filters`: for each FILTER clause the rows that pass.
    pub(crate) fn update(&mut self, rows: usize, filters: &[Bitmask]) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        self.grouper.number(&mut self.blocks, &mut self.groups)?;
        let count = self.grouper.groups();
        self.rows.grow(count);
        let groups = if self.layout.keys.is_empty() { Groups::Same(0, rows) } else { Groups::of(&self.groups) };
        self.rows.add(groups);
        for (input, layout) in self.inputs.iter_mut().zip(&self.layout.inputs) {
            let filter = layout.filter.map(|index| &filters[index]);
            let window = Window { rows, groups, blocks: &self.blocks, block: layout.column, filter, among: None };
            input.update(count, &window, &mut self.scratch)?;
        }
        Ok(())
    }

    /// Takes those rows of the blocks that `among` holds. There are no keys.
    pub(crate) fn update_among(&mut self, among: &Bitmask, filters: &[Bitmask]) -> Result<()> {
        let (selected, groups) = (among.count(), Groups::Same(0, among.len()));
        if selected == 0 {
            return Ok(());
        }
        self.rows.add(Groups::Same(0, selected));
        for (input, layout) in self.inputs.iter_mut().zip(&self.layout.inputs) {
            let filter = layout.filter.map(|index| &filters[index]);
            let (blocks, rows) = (&self.blocks[..], among.len());
            let window = Window { rows, groups, blocks, block: layout.column, filter, among: Some(among) };
            input.update(1, &window, &mut self.scratch)?;
        }
        Ok(())
    }

    /// Rows of memory that grow with the groups.
    pub(crate) fn memory_bytes(&self) -> usize {
        let inputs: usize = self
            .inputs
            .iter()
            .map(|input| {
                let (Tally::Present(counts) | Tally::Missing(counts)) = &input.tally;
                counts.memory_bytes() + input.states.iter().map(|(state, _)| state.memory_bytes()).sum::<usize>()
            })
            .sum();
        self.grouper.memory_bytes() + self.rows.memory_bytes() + inputs
    }

    /// The groups and their states; afterwards there are none.
    pub(crate) fn take(&mut self) -> Result<RecordBatch> {
        let batch = self.groups_of(0..self.groups())?;
        *self = Self::new(Arc::clone(&self.layout), std::mem::take(&mut self.shapes), self.expected_rows)?;
        Ok(batch)
    }

    /// Those at some places.
    pub(crate) fn groups_of(&mut self, places: Range<usize>) -> Result<RecordBatch> {
        let rows = self.rows.settle();
        let every = self.layout.keys.is_empty();
        let places = places.start as u32..places.end.min(rows.len()) as u32;
        let groups: Vec<u32> = places.filter(|group| every || rows[*group as usize] > 0).collect();
        let row_counts: Vec<u64> = groups.iter().map(|group| rows[*group as usize]).collect();
        let mut columns = self.grouper.values(&groups)?;
        let counts: Vec<Vec<u64>> = self
            .inputs
            .iter_mut()
            .map(|input| match &mut input.tally {
                Tally::Present(counts) => {
                    let counts = counts.settle();
                    groups.iter().map(|group| counts[*group as usize]).collect()
                }
                Tally::Missing(counts) => {
                    let counts = counts.settle();
                    groups.iter().zip(&row_counts).map(|(group, rows)| rows - counts[*group as usize]).collect()
                }
            })
            .collect();
        let count_column =
            |counts: &[u64]| Arc::new(counts.iter().map(|count| *count as i64).collect::<Int64Array>()) as ArrayRef;
        for output in &self.layout.outputs {
            columns.push(match output {
                Output::Rows => count_column(&row_counts),
                Output::Count { input } => count_column(&counts[*input]),
                Output::State { input, operation, part } => {
                    let layout = &self.layout.inputs[*input];
                    let subject = self.layout.subject(layout, layout.operations[*operation]);
                    let index = subject.ok_or_else(no_column)?;
                    let dictionary = match &self.shapes[index] {
                        Shape::Ids(values) => Some(values),
                        _ => None,
                    };
                    let data_type = &self.layout.needed[index].column.data_type;
                    let counts = &counts[*input];
                    let (state, _) = &mut self.inputs[*input].states[*operation];
                    state.column(data_type, dictionary, &groups, *part, |at| counts[at] > 0)?
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.layout.schema), columns, &options)?)
    }

    /// How groups are found.
    pub(crate) fn way(&self) -> &'static str {
        self.grouper.name()
    }

    pub(crate) fn shapes(&self) -> &[Shape] {
        &self.shapes
    }
}

/// The rows of a window, as one input sees them.
struct Window<'a> {
    rows: usize,
    groups: Groups<'a>,
    blocks: &'a [Block],
    /// The input's column among them.
    block: Option<usize>,
    filter: Option<&'a Bitmask>,
    /// The rows that there are (`None`: all).
    among: Option<&'a Bitmask>,
}

impl Input {
    /// Whether its states are sums of integers that come as they are.
    fn is_sums_alone(&self) -> bool {
        self.numbers.is_none() && self.states.iter().all(|(state, _)| matches!(state, State::IntegerSums(_)))
    }

    fn update(&mut self, count: usize, window: &Window<'_>, scratch: &mut Scratch) -> Result<()> {
        let &Window { rows, groups, blocks, filter, among, .. } = window;
        let block = window.block.map(|index| &blocks[index]);
        let (Tally::Present(counts) | Tally::Missing(counts)) = &mut self.tally;
        counts.grow(count);
        self.states.iter_mut().for_each(|(state, _)| state.grow(count));
        let valid = block.and_then(|block| block.valid.as_ref());
        let mut masks = [valid, filter, among].into_iter().flatten();
        let all;
        let present = match (masks.next(), masks.next()) {
            (Some(one), Some(other)) => {
                let mut both = one.clone();
                both.and(other);
                masks.for_each(|third| both.and(third));
                all = both;
                Some(&all)
            }
            (one, _) => one,
        };
        let Some(present) = present else {
            if let Tally::Present(counts) = &mut self.tally {
                counts.add(groups);
            }
            return match block {
                Some(block) => self.learn(groups, &block.values, None, blocks, &mut scratch.numbers),
                None => Ok(()),
            };
        };
        if present.len() != rows {
            return Err(Error::Invalid(format!("a mask of {} rows for {rows} rows", present.len())));
        }
        if let Tally::Missing(counts) = &mut self.tally {
            if let Some(valid) = valid {
                let mut missing = among.cloned().unwrap_or_else(|| Bitmask::all(rows));
                missing.and_not(valid);
                counts.add(picked_groups(groups, &missing, &mut scratch.groups));
            }
            if self.states.is_empty() {
                return Ok(());
            }
        }
        let is_sums_alone = self.is_sums_alone();
        let groups = picked_groups(groups, present, &mut scratch.groups);
        if let Tally::Present(counts) = &mut self.tally {
            counts.add(groups);
        }
        if let (true, Groups::Same(group, _), Some(Values::Integers(values))) =
            (is_sums_alone, groups, block.map(|block| &block.values))
        {
            for (state, _) in &mut self.states {
                if let State::IntegerSums(sums) = state {
                    sums.add_among(group, values, present);
                }
            }
            return Ok(());
        }
        match block {
            Some(block) if !self.states.is_empty() => {
                picked_values(&block.values, present, &mut scratch.values)?;
                self.learn(groups, &scratch.values, Some(present), blocks, &mut scratch.numbers)
            }
            _ => Ok(()),
        }
    }

    /// `values`: the input's at the rows in `rows` (`None`: all), whose groups are `groups`.
    fn learn(
        &mut self,
        groups: Groups<'_>,
        values: &Values,
        rows: Option<&Bitmask>,
        blocks: &[Block],
        scratch: &mut Values,
    ) -> Result<()> {
        if let (Some(numbers), Values::Ids(ids)) = (&self.numbers, values) {
            look_up(numbers, ids, scratch);
        }
        for (state, subject) in &mut self.states {
            match state {
                State::Ends(ends) => ends.add(groups, values, rows, &blocks[*subject])?,
                state if state.is_of_numbers() && self.numbers.is_some() => state.add(groups, scratch)?,
                state => state.add(groups, values)?,
            }
        }
        Ok(())
    }
}

fn no_column() -> Error {
    Error::Invalid("an aggregate without a column".into())
}

fn picked_groups<'s>(groups: Groups<'_>, rows: &Bitmask, out: &'s mut Vec<u32>) -> Groups<'s> {
    match groups {
        Groups::Same(group, _) => Groups::Same(group, rows.count()),
        Groups::Each(groups) => {
            compact(groups, rows, out);
            Groups::Each(out)
        }
    }
}

/// Puts what `fill` makes into `out`, in the memory that is there where it has the form.
macro_rules! refill {
    ($out:expr, $form:ident, $fill:expr) => {{
        let mut inner = match std::mem::replace($out, Values::None) {
            Values::$form(inner) => inner,
            _ => Vec::new(),
        };
        $fill(&mut inner);
        *$out = Values::$form(inner);
    }};
}

/// The values at the rows whose bit is set, one behind the other.
pub(crate) fn picked_values(values: &Values, rows: &Bitmask, out: &mut Values) -> Result<()> {
    match values {
        Values::None => *out = Values::None,
        Values::Ids(values) => refill!(out, Ids, |inner| compact(values, rows, inner)),
        Values::Integers(values) => refill!(out, Integers, |inner| compact(values, rows, inner)),
        Values::Wide(values) => refill!(out, Wide, |inner| compact(values, rows, inner)),
        Values::Floats(values) => refill!(out, Floats, |inner| compact(values, rows, inner)),
        Values::Texts(values) => {
            let rows = BooleanArray::new(rows.to_boolean_buffer(), None);
            *out = Values::Texts(arrow::compute::filter(values, &rows)?);
        }
    }
    Ok(())
}

/// The numbers of ids, all of which have one.
fn look_up(numbers: &Values, ids: &[u32], out: &mut Values) {
    fn all<T: Copy>(numbers: &[T], ids: &[u32], out: &mut Vec<T>) {
        out.clear();
        out.extend(ids.iter().map(|id| numbers[*id as usize]));
    }
    match numbers {
        Values::Integers(numbers) => refill!(out, Integers, |inner| all(numbers, ids, inner)),
        Values::Wide(numbers) => refill!(out, Wide, |inner| all(numbers, ids, inner)),
        Values::Floats(numbers) => refill!(out, Floats, |inner| all(numbers, ids, inner)),
        _ => *out = Values::None,
    }
}

/// A dictionary's values as numbers that can be summed.
fn numbers_of(values: &ArrayRef) -> Result<Values> {
    Ok(match values.data_type() {
        ArrowType::Float32 | ArrowType::Float64 => {
            let mut out = Vec::new();
            block::floats(values, &mut out)?;
            Values::Floats(out)
        }
        ArrowType::Decimal128(..) => {
            let mut block = Block::new(&Shape::Wide);
            block.fill(values, &Shape::Wide)?;
            block.values
        }
        _ => {
            let mut out = Vec::new();
            block::integers(values, &mut out)?;
            Values::Integers(out)
        }
    })
}

/// Smallest and largest of the integers that stand for a column's values, in the type `current`; `None` when all of `rows` are null.
pub(crate) fn bounds_in(
    stats: &ColumnStats,
    rows: u64,
    written: &DataType,
    current: &DataType,
) -> Option<(i128, i128)> {
    if stats.nulls >= rows {
        return None;
    }
    let integer = |bound: &Option<Scalar>| match widen(bound.as_ref()?, written, current)?.as_ref() {
        Scalar::Int(value) => Some(i128::from(*value)),
        Scalar::Decimal(value) => Some(*value),
        _ => None,
    };
    // What is not known may be anything.
    let everything = match current {
        DataType::Numeric { .. } => (i128::MIN, i128::MAX),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    Some(integer(&stats.min).zip(integer(&stats.max)).unwrap_or(everything))
}

/// The same of an array of one value.
pub(crate) fn bounds_of(one: &ArrayRef) -> Option<(i128, i128)> {
    if one.is_null(0) {
        return None;
    }
    if let ArrowType::Decimal128(..) = one.data_type() {
        let value = one.as_primitive::<Decimal128Type>().value(0);
        return Some((value, value));
    }
    let mut integers = Vec::new();
    // Other types have none, and nobody asks.
    let value = block::integers(one, &mut integers).ok().and_then(|()| integers.first().copied()).unwrap_or(0);
    Some((value.into(), value.into()))
}

/// The form of values that may be any of their type.
pub(crate) fn shape_of_any(data_type: &DataType, has_values: bool) -> Shape {
    let bounds = match data_type {
        DataType::Numeric { .. } => (i128::MIN, i128::MAX),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    shape_of(data_type, has_values, Some(bounds))
}

/// The form in which an Arrow array of the type gives its values; `bounds` are those of its integers (`None`: all are null).
pub(crate) fn shape_of(data_type: &DataType, has_values: bool, bounds: Option<(i128, i128)>) -> Shape {
    use DataType::{
        BigInt, Boolean, Bytea, Date, Double, Int, Numeric, Real, SmallInt, Text, Timestamp, TimestampTz, Uuid,
    };
    let narrow = |(min, max)| Some((i64::try_from(min).ok()?, i64::try_from(max).ok()?));
    match data_type {
        _ if !has_values => Shape::Validity,
        Boolean => Shape::Integers(Some((0, 1))),
        SmallInt | Int | BigInt | Date | Timestamp | TimestampTz | Numeric { .. } => match bounds.map(narrow) {
            None => Shape::Integers(None),
            Some(Some(bounds)) => Shape::Integers(Some(bounds)),
            Some(None) => Shape::Wide,
        },
        Real | Double => Shape::Floats,
        Text | Uuid | Bytea => Shape::Texts,
        _ => Shape::Validity,
    }
}
