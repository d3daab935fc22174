//! A star-tree's documents made anew for the rows that are valid.
//!
//! Rows only stop being valid. So what was lost up to some moment is taken off every document once, and a request reads the rows that were lost
//! since: as many as come in a moment, not all that were ever lost.
//!
//! ```text
//! documents of all rows (the index file)  ─ less the rows lost by 12:00 ─►  documents of 12:00  ─ less those lost by 12:05 ─►  documents of 12:05
//!                                                                                                      a request of 12:06: less those lost since 12:05
//! ```
//!
//! They are made of answers of [`less`], one for each rollup, when a request had to read many lost rows. They lie in a file without a name, which the
//! kernel may take out of memory, and are gone after a restart. A view that is older than they are asks the documents of all rows.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwapOption;
use arrow::{
    array::RecordBatch,
    compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch},
};

use super::{super::CommittedSegment, build::Documents, image, less};
use crate::{
    Error, Result,
    aggregate::{Aggregate, AggregateRequest, Function},
    index::star::{ROWS, Rollup, StarIndex, StarTree, dimension_id, document_column, kept_type, state_id},
    mmap::MappedFile,
    scan::ScanMetrics,
    segment::format::align,
    upsert::Validity,
};

/// Fewer lost rows are read each time.
const LOST_MIN: u32 = 256;

/// Documents of the rows that were valid at some moment.
#[derive(Debug)]
pub(crate) struct OfValid {
    validity: Validity,
    pub(super) index: StarIndex,
}

/// The newest of them, of one index.
#[derive(Debug, Default)]
pub(crate) struct Renewed {
    newest: ArcSwapOption<OfValid>,
    is_wanted: AtomicBool,
}

impl Renewed {
    /// Those for a view with this validity, and the rows that it lost since.
    pub(super) fn of(&self, validity: &Validity) -> Option<(Arc<OfValid>, Validity)> {
        let newest = self.newest.load_full()?;
        let lost = validity.beyond(&newest.validity)?;
        Some((newest, lost))
    }

    /// A request reads so many lost rows.
    pub(super) fn want(&self, lost: u32) {
        if lost >= LOST_MIN {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn forget(&self, error: &Error) {
        tracing::warn!(%error, "renewed documents of a star-tree are damaged; they are made again");
        self.newest.store(None);
    }
}

impl CommittedSegment {
    /// Whether requests read many rows that a star-tree counts but are not valid.
    pub fn wants_renewal(&self) -> bool {
        self.indexes.list().iter().any(|index| index.renewed.is_wanted.load(Ordering::Relaxed))
    }

    /// Makes the star-trees anew that were asked for it, for the rows that are valid now: how many. Blocks on processor and disk.
    pub(in super::super) fn renew(self: &Arc<Self>, validity: &Validity) -> Result<usize> {
        let mut renewed = 0;
        for index in self.indexes.list().iter().filter(|index| index.renewed.is_wanted.load(Ordering::Relaxed)) {
            let made = index.star_tree().and_then(|tree| match tree {
                Some(tree) => self.renewed(tree, validity),
                None => Ok(None),
            });
            // Last, since making them asked for it, too; after an error as well: the next question asks again, not the next look.
            index.renewed.is_wanted.store(false, Ordering::Relaxed);
            if let Some(made) = made? {
                index.renewed.newest.store(Some(Arc::new(made)));
                renewed += 1;
            }
        }
        Ok(renewed)
    }

    /// `None` when documents cannot answer for the valid rows.
    fn renewed(self: &Arc<Self>, of_all: &StarIndex, validity: &Validity) -> Result<Option<OfValid>> {
        let mut tree = of_all.tree.clone();
        tree.aggregates.retain(|function| less::can_be_taken_back(*function, &self.schema));
        let mut bytes = Vec::new();
        let mut places = Vec::with_capacity(of_all.rollups.len());
        for rollup in &of_all.rollups {
            let Some(image) = self.rollup(&tree, rollup.dimensions, validity)? else { return Ok(None) };
            bytes.resize(align(bytes.len() as u64) as usize, 0);
            places.push(bytes.len()..bytes.len() + image.len());
            bytes.extend_from_slice(&image);
        }
        let directory = self.file.path().parent();
        let directory = directory.ok_or_else(|| Error::Invalid("a segment file in no directory".into()))?;
        if places.is_empty() {
            return Ok(None);
        }
        let file = MappedFile::unnamed(directory, &bytes)?;
        let open = |(rollup, place): (&Rollup, _)| {
            let documents = Arc::new(image::open(&file, place)?);
            Ok(Rollup { dimensions: rollup.dimensions, documents })
        };
        let rollups = of_all.rollups.iter().zip(places).map(open).collect::<Result<_>>()?;
        Ok(Some(OfValid { validity: validity.clone(), index: StarIndex { tree, rollups } }))
    }

    /// The documents over some dimensions.
    fn rollup(self: &Arc<Self>, tree: &StarTree, dimensions: u32, validity: &Validity) -> Result<Option<Vec<u8>>> {
        let of_rollup = tree.dimensions.iter().enumerate().filter(|(at, _)| dimensions >> at & 1 == 1);
        let (places, keys): (Vec<usize>, Vec<_>) = of_rollup.map(|(at, key)| (at, key.clone())).unzip();
        let states = tree.states().into_iter().enumerate();
        // Where no value is null the count of rows says it.
        let states: Vec<(usize, Function)> = states
            .filter(|(_, function)| !matches!(function, Function::Count(column) if !self.has_nulls(*column)))
            .collect();
        let functions = [Function::Rows].into_iter().chain(states.iter().map(|(_, function)| *function));
        let aggregates = functions.map(|function| Aggregate { function, filter: None }).collect();
        let request = Arc::new(AggregateRequest::of_all(&self.schema, keys, aggregates));
        let metrics = Arc::new(ScanMetrics::default());
        let Some(mut run) = less::begin(self, &(0..self.rows), validity, &request, &metrics)? else { return Ok(None) };
        while run.step()? {}
        let groups = sorted(&run.take()?, places.len())?;
        let mut documents = Documents::default();
        for (column, (place, key)) in groups.columns().iter().zip(places.iter().zip(&request.keys)) {
            let data_type = request.column(key.column)?.data_type.clone();
            documents.push(document_column(dimension_id(*place), data_type, true), column)?;
        }
        let mut columns = groups.columns()[places.len()..].iter();
        let mut next = || columns.next().ok_or_else(|| Error::Invalid("an answer of fewer columns".into()));
        documents.push(document_column(ROWS, crate::schema::DataType::BigInt, false), next()?)?;
        for (at, function) in states {
            let column = function.column().map(|id| request.column(id)).transpose()?;
            let data_type = column.and_then(|column| kept_type(&function, &column.data_type));
            let data_type = data_type.ok_or_else(|| Error::Invalid(format!("{function:?} is no state")))?;
            let is_count = matches!(function, Function::Count(_));
            documents.push(document_column(state_id(at), data_type, !is_count), next()?)?;
        }
        documents.image(groups.num_rows()).map(Some)
    }
}

/// By the first columns, null last, as documents are.
fn sorted(groups: &RecordBatch, keys: usize) -> Result<RecordBatch> {
    if keys == 0 {
        return Ok(groups.clone());
    }
    let options = Some(SortOptions { descending: false, nulls_first: false });
    let columns: Vec<_> =
        groups.columns()[..keys].iter().map(|values| SortColumn { values: Arc::clone(values), options }).collect();
    Ok(take_record_batch(groups, &lexsort_to_indices(&columns, None)?)?)
}
