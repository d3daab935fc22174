//! An index where its segment's file is: opened, verified when first asked.

use std::{
    ops::{Range, RangeInclusive},
    path::Path,
    sync::{Arc, OnceLock},
};

use super::{
    Found, Index, IndexKind, IndexSpec,
    file::{IndexFile, Owner},
    geo::Inside,
    star::StarIndex,
};
use crate::{
    Error, Result,
    bitpack::Bitmask,
    forward::{ColumnReader, ColumnTest},
    ids::{ColumnId, IndexId},
    predicate::Predicate,
    schema::DataType,
    segment::committed::star::{self, renewed::Renewed},
};

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
    /// Of a star-tree, what it says of the rows that are left.
    pub(crate) renewed: Renewed,
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
            renewed: Renewed::default(),
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
            let index = Index::open(&self.kind, &self.file.sections()?, self.rows)?;
            self.file.check()?;
            Ok(index)
        };
        self.opened.get_or_init(open).as_ref().map_err(|error: &Error| error.clone().at(self.file.path(), "index"))
    }

    /// The rows that may pass a leaf; `None` when the index has nothing to say.
    pub(crate) fn find(&self, leaf: &Predicate, test: &ColumnTest, column: &ColumnReader) -> Result<Option<Found>> {
        self.checked(self.index()?.find(leaf, test.ids(), column.data_type()))
    }

    /// Whether it knows of places in these columns.
    pub(crate) fn knows_places(&self, lat: ColumnId, lng: ColumnId) -> bool {
        self.kind == IndexKind::Geo && self.columns == [lat, lng]
    }

    /// The rows in the cells, which ascend.
    pub(crate) fn find_places(&self, cells: &[RangeInclusive<u64>]) -> Result<Inside> {
        self.checked(self.index()?.find_places(cells))
    }

    /// Those of `rows`, bit 0 for row `base`.
    pub(crate) fn places(&self, inside: &Inside, rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        self.checked(self.index()?.places(inside, rows, base))
    }

    /// Adds the rows found that lie in `rows` to `out`, whose bit 0 is row `base`.
    pub(crate) fn add(&self, found: &Found, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Result<()> {
        let added = self.index()?.add(found, rows, base, out);
        self.checked(added)
    }

    /// Whether no row of the segment passes a leaf on the column, which has this type.
    pub(crate) fn excludes(&self, leaf: &Predicate, data_type: &DataType) -> Result<bool> {
        self.checked(Ok(self.index()?.excludes(leaf, data_type)))
    }

    /// Nothing that was read from a file that is gone is believed.
    fn checked<T>(&self, result: Result<T>) -> Result<T> {
        self.file.check()?;
        result.map_err(|error| error.at(self.file.path(), "index"))
    }
}
