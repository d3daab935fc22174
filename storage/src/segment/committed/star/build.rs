//! From the rows of a segment to the rollups of its star-tree.
//!
//! ```text
//! dimension by dimension: the id of each row's value ─► one key of 128 bits a row
//! keys ─► the document of each row: documents over all dimensions, sorted
//! sizes of all sets of dimensions ─► which rollups ─► each one's documents, of those of a larger one
//! state by state: of the rows for the documents over all dimensions, of documents for the others ─► encoded ─► a segment for each rollup
//! ```
//!
//! Memory: 20 bytes a row for keys and documents, and one state at a time.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array},
    compute::{SortOptions, sort_to_indices, take},
    datatypes::Int64Type,
};

use super::{
    super::{
        CommittedSegment,
        aggregate::{fill, source_of},
    },
    image,
};
use crate::{
    Error, Result,
    aggregate::{
        Function, GroupKey, STEP_ROWS,
        block::{Block, Shape, Values, compact},
        engine::{Needed, picked_values, shape_of},
        keys::Key,
        moments::Part,
        states::{Groups, Operation, State, Subject},
        table::Table,
    },
    bitpack::{Bitmask, width_of},
    forward::{EncodeOptions, EncodedColumn, encode_column},
    ids::{ColumnId, SchemaVersion},
    index::star::{ROWS, StarTree, dimension_id, document_column, format, kept_type, plan, state_id},
    schema::{Column, Compression, DataType, TableSchema},
};

/// Ids up to this are looked up in a table of all.
const DIRECT_MAX: u64 = 1 << 22;
const KEY_BITS: u32 = u128::BITS;

/// The sections of the index file. Where the rows have no such documents (a sum or a time outside of its type, too many values) the tree has no
/// rollups, and nobody asks it.
pub(crate) fn sections(segment: &CommittedSegment, tree: &StarTree) -> Result<Vec<Vec<u8>>> {
    match Building::new(segment, tree)?.map(|building| building.sections()) {
        None | Some(Err(Error::OutOfRange(_))) => Ok(vec![format::head(&[])]),
        Some(sections) => sections,
    }
}

struct Building<'a> {
    segment: &'a CommittedSegment,
    tree: &'a StarTree,
    dimensions: Vec<Dimension>,
    /// The documents over all dimensions, then the rollups made of them.
    levels: Vec<Level>,
}

/// Values of a dimension in the segment.
struct Dimension {
    /// Ascending; null is last.
    values: ArrayRef,
    /// Where the id lies in a key.
    shift: u32,
    bits: u32,
}

/// Documents over a set of dimensions.
struct Level {
    set: u32,
    is_kept: bool,
    /// The level that they are made of; the rows for the first.
    from: Option<usize>,
    /// Of each document, ascending.
    keys: Vec<u128>,
    /// The document of each row, or of each document of `from`.
    places: Vec<u32>,
}

impl Dimension {
    fn mask(&self) -> u128 {
        ((1u128 << self.bits) - 1) << self.shift
    }

    fn id(&self, key: u128) -> u32 {
        ((key & self.mask()) >> self.shift) as u32
    }
}

impl<'a> Building<'a> {
    /// `None`: the dimensions have too many values, or times that cannot be rounded.
    fn new(segment: &'a CommittedSegment, tree: &'a StarTree) -> Result<Option<Self>> {
        let rows = segment.rows as usize;
        let mut packed = vec![0u128; rows];
        let mut dimensions: Vec<Dimension> = Vec::with_capacity(tree.dimensions.len());
        let mut used = 0;
        for key in &tree.dimensions {
            let (ids, values) = match ids_of(segment, key) {
                Ok(Some(found)) => found,
                Ok(None) | Err(Error::OutOfRange(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            let bits = u32::from(width_of(values.len().saturating_sub(1) as u64));
            used += bits;
            if used > KEY_BITS {
                return Ok(None);
            }
            packed
                .iter_mut()
                .zip(&ids)
                .for_each(|(key, id)| *key = key.checked_shl(bits).unwrap_or(0) | u128::from(*id));
            dimensions.push(Dimension { values, shift: 0, bits });
        }
        let mut shift = 0;
        for dimension in dimensions.iter_mut().rev() {
            // A dimension of one value has no bits, wherever they would be.
            dimension.shift = shift.min(KEY_BITS - 1);
            shift += dimension.bits;
        }
        let (keys, places) = numbered(packed.iter().copied());
        let all = (1u32 << dimensions.len()) - 1;
        let base = Level { set: all, is_kept: false, from: None, keys, places };
        let mut building = Self { segment, tree, dimensions, levels: vec![base] };
        building.choose();
        Ok(Some(building))
    }

    /// Decides which rollups there are, and makes their documents.
    fn choose(&mut self) {
        let base = &self.levels[0];
        let distinct: Vec<u64> = self.dimensions.iter().map(|dimension| dimension.values.len() as u64).collect();
        let sizes = plan::sizes(&distinct, base.keys.len(), |document, ids| {
            let key = base.keys[document];
            ids.iter_mut().zip(&self.dimensions).for_each(|(id, dimension)| *id = dimension.id(key));
        });
        let leaf = u64::from(self.tree.max_leaf_records);
        for set in plan::choose(&sizes, u64::from(self.segment.rows), leaf) {
            if set == self.levels[0].set {
                self.levels[0].is_kept = true;
                continue;
            }
            // Larger sets come first; the first level has all dimensions.
            let with_all = self.levels.iter().enumerate().filter(|(_, level)| level.set & set == set);
            let from = with_all.min_by_key(|(_, level)| level.keys.len()).map_or(0, |(at, _)| at);
            let of_set = self.dimensions.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
            let mask = of_set.fold(0, |mask, (_, dimension)| mask | dimension.mask());
            let (keys, places) = numbered(self.levels[from].keys.iter().map(|key| key & mask));
            self.levels.push(Level { set, is_kept: true, from: Some(from), keys, places });
        }
    }

    fn sections(&self) -> Result<Vec<Vec<u8>>> {
        let kept: Vec<usize> = (0..self.levels.len()).filter(|level| self.levels[*level].is_kept).collect();
        let mut documents: Vec<Documents> = kept.iter().map(|_| Documents::default()).collect();
        for (level, documents) in kept.iter().zip(&mut documents) {
            self.dimensions_of(&self.levels[*level], documents)?;
        }
        let rows = self.each_level(|level, before| self.rows(level, before))?;
        for (level, documents) in kept.iter().zip(&mut documents) {
            documents.push(document_column(ROWS, DataType::BigInt, false), &rows[*level])?;
        }
        for (index, function) in self.tree.states().iter().enumerate() {
            let column = self.column(*function)?;
            let data_type = kept_type(function, &column.data_type)
                .ok_or_else(|| Error::Invalid(format!("{function:?} of a column of type {}", column.data_type)))?;
            let is_count = matches!(function, Function::Count(_));
            if is_count && !self.segment.has_nulls(column.id) {
                continue;
            }
            let states = self.each_level(|level, before| match before {
                None => self.states_of_rows(level, function, column),
                Some(before) if is_count => sums(level, before),
                Some(before) => states_of_documents(level, function, &data_type, before),
            })?;
            for (level, documents) in kept.iter().zip(&mut documents) {
                documents.push(document_column(state_id(index), data_type.clone(), !is_count), &states[*level])?;
            }
        }
        let sets: Vec<u32> = kept.iter().map(|level| self.levels[*level].set).collect();
        let mut sections = vec![format::head(&sets)];
        for (level, documents) in kept.iter().zip(documents) {
            sections.push(documents.image(self.levels[*level].keys.len())?);
        }
        Ok(sections)
    }

    /// What `of` makes for each level, of what it made for the level before.
    fn each_level(&self, of: impl Fn(&Level, Option<&ArrayRef>) -> Result<ArrayRef>) -> Result<Vec<ArrayRef>> {
        let mut found: Vec<ArrayRef> = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            let made = of(level, level.from.map(|from| &found[from]))?;
            found.push(made);
        }
        Ok(found)
    }

    fn dimensions_of(&self, level: &Level, documents: &mut Documents) -> Result<()> {
        for (at, (dimension, key)) in self.dimensions.iter().zip(&self.tree.dimensions).enumerate() {
            if level.set >> at & 1 == 0 {
                continue;
            }
            let ids: UInt32Array = level.keys.iter().map(|key| Some(dimension.id(*key))).collect();
            let values = take(&dimension.values, &ids, None)?;
            let index = self.segment.schema.index_of(key.column);
            let index = index.ok_or_else(|| Error::Invalid(format!("no column with id {}", key.column)))?;
            let data_type = self.segment.schema.columns[index].data_type.clone();
            documents.push(document_column(dimension_id(at), data_type, true), &values)?;
        }
        Ok(())
    }

    fn column(&self, function: Function) -> Result<&Column> {
        let column = function.column().and_then(|id| self.segment.schema.column(id));
        column.ok_or_else(|| Error::Invalid(format!("{function:?} of a column that the segment does not have")))
    }

    /// The rows of each document.
    fn rows(&self, level: &Level, before: Option<&ArrayRef>) -> Result<ArrayRef> {
        if let Some(before) = before {
            return sums(level, before);
        }
        let mut rows = vec![0i64; level.keys.len()];
        level.places.iter().for_each(|place| rows[*place as usize] += 1);
        Ok(Arc::new(Int64Array::from(rows)))
    }

    fn states_of_rows(&self, level: &Level, function: &Function, column: &Column) -> Result<ArrayRef> {
        let index = self.segment.schema.index_of(column.id).unwrap_or_default();
        let reader = self.segment.reader(index)?;
        let named = |error| self.segment.named(error, index);
        let has_values = !matches!(function, Function::Count(_));
        let bounds = self.segment.bounds(index, &column.data_type);
        let shape = shape_of(&column.data_type, has_values, bounds);
        let mut states = States::new(function.operation(), &column.data_type, level.keys.len(), shape);
        for rows in steps(self.segment.rows) {
            let places = &level.places[rows.start as usize..rows.end as usize];
            match has_values {
                true => states.add(places, &reader.decode(rows).map_err(named)?)?,
                false => {
                    let valid = reader.validity(rows).map_err(named)?;
                    states.count(places, valid.map(|valid| Bitmask::from_boolean_buffer(valid.inner())).as_ref());
                }
            }
        }
        states.finish()
    }
}

/// The columns of a rollup, as far as they are made.
#[derive(Default)]
pub(super) struct Documents {
    columns: Vec<Column>,
    encoded: Vec<EncodedColumn>,
}

impl Documents {
    pub(super) fn push(&mut self, column: Column, values: &ArrayRef) -> Result<()> {
        // Read a few at a time, here and there: nothing that is decompressed in pieces.
        let options = EncodeOptions { compression: Compression::None, ..EncodeOptions::default() };
        self.encoded.push(encode_column(&column.data_type, std::slice::from_ref(values), &options)?);
        self.columns.push(column);
        Ok(())
    }

    /// The bytes of the rollup, which has so many documents.
    pub(super) fn image(self, documents: usize) -> Result<Vec<u8>> {
        let schema = TableSchema { version: SchemaVersion(1), columns: self.columns, time_column: None };
        image::write(schema, documents as u32, self.encoded)
    }
}

/// One state of each document, while it is found.
struct States {
    operation: Option<Operation>,
    data_type: DataType,
    shape: Shape,
    block: Block,
    /// Of each document, values that are not null.
    counts: Vec<u64>,
    state: Option<State>,
    places: Vec<u32>,
    values: Values,
}

impl States {
    /// Of values of a type.
    fn new(operation: Option<Operation>, data_type: &DataType, documents: usize, shape: Shape) -> Self {
        Self {
            operation,
            data_type: data_type.clone(),
            block: Block::new(&shape),
            shape,
            counts: vec![0; documents],
            state: None,
            places: Vec::new(),
            values: Values::None,
        }
    }

    fn count(&mut self, places: &[u32], valid: Option<&Bitmask>) {
        match valid {
            None => places.iter().for_each(|place| self.counts[*place as usize] += 1),
            Some(valid) => valid.iter().for_each(|at| self.counts[places[at] as usize] += 1),
        }
    }

    /// Takes values, and the document of each.
    fn add(&mut self, places: &[u32], values: &ArrayRef) -> Result<()> {
        self.block.fill(values, &self.shape)?;
        let valid = self.block.valid.take();
        self.count(places, valid.as_ref());
        let Some(operation) = self.operation else { return Ok(()) };
        let state = match &mut self.state {
            Some(state) => state,
            none => none.insert(State::new(operation, &subject(&self.block, &self.data_type), self.counts.len())?),
        };
        match &valid {
            None => state.add(Groups::Each(places), &self.block.values),
            Some(valid) => {
                compact(places, valid, &mut self.places);
                picked_values(&self.block.values, valid, &mut self.values)?;
                state.add(Groups::Each(&self.places), &self.values)
            }
        }
    }

    fn finish(self) -> Result<ArrayRef> {
        let documents: Vec<u32> = (0..self.counts.len() as u32).collect();
        let Some(operation) = self.operation else {
            return Ok(Arc::new(self.counts.iter().map(|count| *count as i64).collect::<Int64Array>()));
        };
        let mut state = match self.state {
            Some(state) => state,
            None => State::new(operation, &subject(&self.block, &self.data_type), documents.len())?,
        };
        state.column(&self.data_type, None, &documents, Part::Mean, |at| self.counts[at] > 0)
    }
}

fn subject<'a>(block: &'a Block, data_type: &'a DataType) -> Subject<'a> {
    Subject { values: &block.values, data_type, dictionary: None, bounds: None }
}

/// Counts of documents, of those of the level below.
fn sums(level: &Level, before: &ArrayRef) -> Result<ArrayRef> {
    let mut sums = vec![0i64; level.keys.len()];
    let before = before.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::Invalid("counts that are none".into()))?;
    level.places.iter().zip(before.values()).for_each(|(place, count)| sums[*place as usize] += count);
    Ok(Arc::new(Int64Array::from(sums)))
}

fn states_of_documents(
    level: &Level,
    function: &Function,
    data_type: &DataType,
    before: &ArrayRef,
) -> Result<ArrayRef> {
    let shape = match data_type {
        // As wide as sums may be.
        DataType::Numeric { .. } => Shape::Wide,
        other => shape_of(other, true, Some((i64::MIN.into(), i64::MAX.into()))),
    };
    let operation = function.over_states(ROWS).and_then(|over| over.operation());
    let mut states = States::new(operation, data_type, level.keys.len(), shape);
    states.add(&level.places, before)?;
    states.finish()
}

/// The distinct keys, ascending, and the place of each one among them.
fn numbered(keys: impl Iterator<Item = u128>) -> (Vec<u128>, Vec<u32>) {
    let mut table = Table::<u128>::default();
    let mut numbers: Vec<u32> = Vec::with_capacity(keys.size_hint().0);
    let mut last = None;
    for key in keys {
        // Rows next to each other are often alike.
        let number = match last {
            Some((same, number)) if same == key => number,
            _ => table.number(key),
        };
        last = Some((key, number));
        numbers.push(number);
    }
    let found = table.keys();
    let mut order: Vec<u32> = (0..found.len() as u32).collect();
    order.sort_unstable_by_key(|number| found[*number as usize]);
    let mut places = vec![0u32; found.len()];
    order.iter().enumerate().for_each(|(place, number)| places[*number as usize] = place as u32);
    numbers.iter_mut().for_each(|number| *number = places[*number as usize]);
    (order.iter().map(|number| found[*number as usize]).collect(), numbers)
}

/// For each row the place of its value among the values of a dimension, which are ascending and null last. `None`: they have no ids of 64 bits.
fn ids_of(segment: &CommittedSegment, key: &GroupKey) -> Result<Option<(Vec<u32>, ArrayRef)>> {
    let index = segment.schema.index_of(key.column);
    let index = index.ok_or_else(|| Error::Invalid(format!("no column with id {}", key.column)))?;
    let column = segment.schema.columns[index].clone();
    let data_type = column.data_type.clone();
    let (source, shape) = source_of(segment, &Needed { column, has_values: true, recipe: None })?;
    let is_ordered = !matches!(shape, Shape::Texts | Shape::Wide);
    let (mut ids_of, mut block) = (Key::new(&data_type, key.bin, &shape)?, Block::new(&shape));
    if ids_of.bits() > u64::BITS {
        return Ok(None);
    }
    let is_narrow = ids_of.bits() <= u32::BITS;
    let (mut narrow, mut wide) = (Vec::new(), Vec::new());
    let mut raw: Vec<u64> = Vec::with_capacity(segment.rows as usize);
    for window in steps(segment.rows) {
        fill(segment, &source, &window, None, window.len(), &mut block, &shape, &mut |_| {})?;
        if is_narrow {
            ids_of.narrow(&mut block, &mut narrow)?;
            raw.extend(narrow.iter().map(|id| u64::from(*id)));
        } else {
            ids_of.wide(&mut block, &mut wide)?;
            raw.extend(wide.iter().map(|id| *id as u64));
        }
    }
    let largest = raw.iter().copied().max().unwrap_or(0);
    let distinct: Vec<u64> = if largest < DIRECT_MAX {
        let mut seen = Bitmask::none(largest as usize + 1);
        raw.iter().for_each(|id| seen.set(*id as usize));
        seen.iter().map(|id| id as u64).collect()
    } else {
        let mut sorted = raw.clone();
        sorted.sort_unstable();
        sorted.dedup();
        sorted
    };
    let mut values = ids_of.values(&distinct.iter().map(|id| u128::from(*id)).collect::<Vec<_>>())?;
    // Texts and decimals that were numbered as they came.
    let places: Vec<u32> = if is_ordered {
        (0..distinct.len() as u32).collect()
    } else {
        let order = sort_to_indices(&values, Some(SortOptions { descending: false, nulls_first: false }), None)?;
        values = take(&values, &order, None)?;
        let mut places = vec![0; order.len()];
        order.values().iter().enumerate().for_each(|(place, at)| places[*at as usize] = place as u32);
        places
    };
    let ids = if largest < DIRECT_MAX {
        let mut table = vec![0u32; largest as usize + 1];
        distinct.iter().zip(&places).for_each(|(id, place)| table[*id as usize] = *place);
        raw.iter().map(|id| table[*id as usize]).collect()
    } else {
        raw.iter().map(|id| places[distinct.partition_point(|known| known < id)]).collect()
    };
    Ok(Some((ids, values)))
}

/// All rows, some at a time.
fn steps(rows: u32) -> impl Iterator<Item = Range<u32>> {
    (0..rows).step_by(STEP_ROWS).map(move |start| start..rows.min(start.saturating_add(STEP_ROWS as u32)))
}

impl CommittedSegment {
    /// Whether the column has nulls among its rows.
    pub(super) fn has_nulls(&self, column: ColumnId) -> bool {
        self.schema.index_of(column).is_none_or(|index| self.stats[index].nulls > 0)
    }
}
