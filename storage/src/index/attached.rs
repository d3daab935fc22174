//! An index where its segment is: built from the segment's column, opened, verified when first asked.

use std::{
    ops::{Range, RangeInclusive},
    path::Path,
    sync::{Arc, OnceLock},
};

use arrow::array::ArrayRef;

use super::{
    Found, Index, IndexKind, IndexSpec, bloom,
    file::{IndexFile, Owner},
    geo, inverted, json, range,
    star::StarIndex,
    text,
};
use crate::{
    Error, Result,
    bitpack::Bitmask,
    documents::DocumentTest,
    forward::{ColumnReader, ColumnTest},
    ids::{ColumnId, IndexId},
    predicate::Predicate,
    schema::DataType,
    segment::committed::star,
};

/// Rows that are decoded at a time.
const STEP: u32 = 64 * 1024;

/// The column that an index is built from.
pub(crate) struct Source<'a> {
    pub(crate) rows: u32,
    pub(crate) column: &'a ColumnReader,
}

impl Source<'_> {
    /// Calls `each` with the values of all rows, some at a time.
    pub(super) fn each_array(&self, mut each: impl FnMut(&ArrayRef) -> Result<()>) -> Result<()> {
        for rows in self.steps() {
            each(&self.column.decode(rows)?)?;
        }
        Ok(())
    }

    /// The dictionary id of each row; of a null one past the last.
    pub(super) fn ids(&self) -> Result<Vec<u32>> {
        let mut all = Vec::with_capacity(self.rows as usize);
        let mut some = Vec::new();
        for rows in self.steps() {
            self.column.ids(rows, &mut some)?;
            all.extend_from_slice(&some);
        }
        Ok(all)
    }

    pub(super) fn dictionary_len(&self) -> Result<u32> {
        let values = self.column.dictionary()?.ok_or_else(|| Error::Invalid("a column without a dictionary".into()))?;
        Ok(values.len() as u32)
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = Range<u32>> + use<> {
        let rows = self.rows;
        (0..rows).step_by(STEP as usize).map(move |start| start..rows.min(start.saturating_add(STEP)))
    }
}

/// Builds the index of a column: the sections of its file.
pub(crate) fn sections(source: &Source<'_>, spec: &IndexSpec) -> Result<Vec<Vec<u8>>> {
    match &spec.kind {
        IndexKind::Inverted => inverted::build(source),
        IndexKind::Range => range::build(source),
        IndexKind::Bloom { fpp } => bloom::build(source, *fpp),
        IndexKind::Json | IndexKind::JsonPaths(_) => json::build(source, spec.kind.paths()),
        IndexKind::Text => text::build(source),
        IndexKind::StarTree(_) | IndexKind::Sorted | IndexKind::Geo => {
            Err(Error::Invalid(format!("an index of kind {} is not made of one column", spec.kind.name())))
        }
    }
}

/// Builds the index of places in two columns.
pub(crate) fn places(lat: &Source<'_>, lng: &Source<'_>) -> Result<Vec<Vec<u8>>> {
    geo::build(lat, lng)
}

/// An index of a segment, ready to be asked.
#[derive(Debug)]
pub(crate) struct AttachedIndex {
    pub(crate) id: IndexId,
    pub(crate) kind: IndexKind,
    /// The first of them.
    pub(crate) column: ColumnId,
    columns: Vec<ColumnId>,
    file: IndexFile,
    rows: u32,
    /// Opened and verified at the first question.
    opened: OnceLock<Result<Index>>,
}

impl AttachedIndex {
    pub(crate) fn open(path: &Path, owner: &Owner, spec: &IndexSpec, column: ColumnId) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            id: spec.id,
            kind: spec.kind.clone(),
            column,
            columns: spec.columns.clone(),
            file: IndexFile::open(path, owner, spec, column)?,
            rows: owner.rows,
            opened: OnceLock::new(),
        }))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    /// Reads and verifies every section.
    pub(crate) fn verify(&self) -> Result<()> {
        match self.index()? {
            Index::StarTree(opened) => self.checked(opened.verify()),
            _ => Ok(()),
        }
    }

    pub(crate) fn is_star_tree(&self) -> bool {
        matches!(self.kind, IndexKind::StarTree(_))
    }

    /// The star-tree, if it is one.
    pub(crate) fn star_tree(&self) -> Result<Option<&StarIndex>> {
        match self.index()? {
            Index::StarTree(opened) => Ok(Some(opened)),
            _ => Ok(None),
        }
    }

    fn index(&self) -> Result<&Index> {
        let open = || {
            if let IndexKind::StarTree(tree) = &self.kind {
                return Ok(Index::StarTree(star::open(&self.file, tree)?));
            }
            let sections = self.file.sections()?;
            let index = match self.kind {
                IndexKind::Inverted => Index::Inverted(inverted::Inverted::open(&sections, self.rows)?),
                IndexKind::Range => Index::Range(range::RangeIndex::open(&sections, self.rows)?),
                IndexKind::Json | IndexKind::JsonPaths(_) => {
                    Index::Json(json::JsonIndex::open(&sections, self.rows, self.kind.paths())?)
                }
                IndexKind::Geo => Index::Geo(geo::GeoIndex::open(&sections, self.rows)?),
                IndexKind::Text => Index::Text(text::TextIndex::open(&sections, self.rows)?),
                _ => Index::Bloom(bloom::Bloom::open(&sections)?),
            };
            self.file.check()?;
            Ok(index)
        };
        self.opened.get_or_init(open).as_ref().map_err(|error: &Error| error.clone().at(self.file.path(), "index"))
    }

    /// The rows that may pass a leaf; `None` when the index has nothing to say.
    pub(crate) fn find(&self, leaf: &Predicate, test: &ColumnTest, column: &ColumnReader) -> Result<Option<Found>> {
        let found = match self.index()? {
            Index::Inverted(index) => index.find(leaf, test, column),
            Index::Range(index) => index.find(leaf, test, column),
            Index::Text(index) => index.find(leaf),
            Index::Bloom(_) | Index::StarTree(_) | Index::Json(_) | Index::Geo(_) => Ok(None),
        };
        self.checked(found)
    }

    /// How many rows may pass a test of documents, at most; `None` when the index knows nothing of documents.
    pub(crate) fn count_documents(&self, test: &DocumentTest) -> Result<Option<u64>> {
        let count = match self.index()? {
            Index::Json(index) => index.count(test),
            _ => Ok(None),
        };
        self.checked(count)
    }

    /// The rows of `rows` that may pass a test of documents, bit 0 for row `base`; of an index that counted them.
    pub(crate) fn documents(&self, test: &DocumentTest, rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        let found = match self.index()? {
            Index::Json(index) => index.list(test, rows, base),
            _ => Err(Error::Invalid("an index that knows nothing of documents".into())),
        };
        self.checked(found)
    }

    /// Whether it knows of places in these columns.
    pub(crate) fn knows_places(&self, lat: ColumnId, lng: ColumnId) -> bool {
        self.kind == IndexKind::Geo && self.columns == [lat, lng]
    }

    /// How many rows lie in the cells.
    pub(crate) fn count_places(&self, cells: &[RangeInclusive<u64>]) -> Result<u64> {
        let count = match self.index()? {
            Index::Geo(index) => index.count(cells),
            _ => Err(Error::Invalid("an index that knows nothing of places".into())),
        };
        self.checked(count)
    }

    /// The rows of `rows` that lie in the cells, bit 0 for row `base`.
    pub(crate) fn places(&self, cells: &[RangeInclusive<u64>], rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        let found = match self.index()? {
            Index::Geo(index) => index.list(cells, rows, base),
            _ => Err(Error::Invalid("an index that knows nothing of places".into())),
        };
        self.checked(found)
    }

    /// Adds the rows found that lie in `rows` to `out`, whose bit 0 is row `base`.
    pub(crate) fn add(&self, found: &Found, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Result<()> {
        let added = self.index()?.add(found, rows, base, out);
        self.checked(added)
    }

    /// Whether no row of the segment passes a leaf on the column, which has this type.
    pub(crate) fn excludes(&self, leaf: &Predicate, data_type: &DataType) -> Result<bool> {
        let excluded = match self.index()? {
            Index::Bloom(index) => index.excludes(leaf, data_type),
            _ => false,
        };
        self.checked(Ok(excluded))
    }

    /// Nothing that was read from a file that is gone is believed.
    fn checked<T>(&self, result: Result<T>) -> Result<T> {
        self.file.check()?;
        result.map_err(|error| error.at(self.file.path(), "index"))
    }
}
