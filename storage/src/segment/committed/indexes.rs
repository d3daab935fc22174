//! The indexes beside a segment file: which there are, how they come and go.
//!
//! Readers take the list once, by one pointer; who changes it makes the next one. A query that holds an index goes on with it although
//! it is taken off the list or its file is deleted.

use std::{fs, ops::Range, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{CommittedSegment, lookup::Lookup, star};
use crate::{
    Error, Result,
    bitpack::Bitmask,
    forward::ColumnTest,
    ids::{ColumnId, IndexId},
    index::{
        IndexKind, IndexSpec,
        attached::AttachedIndex,
        file::{Owner, file_name, write},
        source::{Source, sections},
    },
    predicate::Predicate,
    scan::PlaceTest,
    schema::TableSchema,
};

#[derive(Debug, Default)]
pub(super) struct Indexes {
    list: ArcSwap<Vec<Arc<AttachedIndex>>>,
    /// Held while a new list is made from the present one.
    edit: Mutex<()>,
}

impl Indexes {
    pub(super) fn list(&self) -> Arc<Vec<Arc<AttachedIndex>>> {
        self.list.load_full()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<AttachedIndex>>)) {
        let _edit = self.edit.lock();
        let mut next = self.list.load().as_ref().clone();
        change(&mut next);
        self.list.store(Arc::new(next));
    }
}

impl CommittedSegment {
    /// Whether the segment is to have a file of the index: it has the column, in a type that such an index takes.
    pub fn wants_index(&self, spec: &IndexSpec) -> bool {
        spec.places_in(&self.schema).is_some()
    }

    /// Bytes of the index's file; `None` when it is not there.
    pub fn index_bytes(&self, id: IndexId) -> Option<u64> {
        self.indexes.list.load().iter().find(|index| index.id == id).map(|index| index.bytes())
    }

    /// Takes an index whose file is there. False when there is no such file. Errors: the file is damaged, or another index's: build it anew.
    pub fn attach_index(&self, spec: &IndexSpec) -> Result<bool> {
        let Some((place, _)) = spec.places_in(&self.schema) else { return Ok(false) };
        let column = self.schema.columns[place].id;
        match AttachedIndex::open(&self.index_path(spec.id)?, &self.owner(), spec, column) {
            Ok(index) => {
                self.put(index);
                Ok(true)
            }
            Err(Error::Io { kind: std::io::ErrorKind::NotFound, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Builds the index, writes its file, reads it back and takes it. Blocks on processor and disk. Returns the bytes of the file.
    pub fn build_index(&self, spec: &IndexSpec) -> Result<u64> {
        let Some((place, second)) = spec.places_in(&self.schema) else {
            return Err(Error::Invalid(format!("segment {} cannot have index \"{}\"", self.id, spec.name)));
        };
        let column = self.schema.columns[place].id;
        let source_at = |index: usize| Ok::<_, Error>(Source::encoded(self.rows, self.reader(index)?));
        let path = self.index_path(spec.id)?;
        let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(Error::Invalid(format!("{} is no path of a file", path.display())));
        };
        let built = match &spec.kind {
            IndexKind::StarTree(tree) => star::sections(self, tree),
            _ => sections(&source_at(place)?, second.map(source_at).transpose()?.as_ref(), spec),
        };
        built
            .and_then(|sections| write(dir, name, &self.owner(), spec, column, &sections))
            .map_err(|error| self.failed_build(error, place))?;
        // What was built from bytes that went away is no index.
        self.file.check()?;
        let index = AttachedIndex::open(&path, &self.owner(), spec, column)?;
        index.verify()?;
        let bytes = index.bytes();
        self.put(index);
        Ok(bytes)
    }

    /// Only damage of the segment itself quarantines it.
    fn failed_build(&self, error: Error, column: usize) -> Error {
        match &error {
            Error::Corrupt { path, .. } if path.as_os_str().is_empty() => self.failed(self.named(error, column)),
            _ => error,
        }
    }

    /// Takes the index off the list and deletes its file. Readers keep what they hold.
    pub fn drop_index(&self, id: IndexId) -> Result<()> {
        self.indexes.change(|list| list.retain(|index| index.id != id));
        remove(&self.index_path(id)?)
    }

    fn put(&self, index: Arc<AttachedIndex>) {
        self.indexes.change(|list| {
            list.retain(|known| known.id != index.id);
            list.push(index);
        });
    }

    fn index_path(&self, id: IndexId) -> Result<std::path::PathBuf> {
        let path = self.file.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::Invalid(format!("{} has no name", path.display())))?;
        Ok(path.with_file_name(file_name(name, id)))
    }

    fn owner(&self) -> Owner {
        Owner { id: self.id, checksum: self.checksum, rows: self.rows }
    }

    /// An index that contradicts itself is no longer asked; it will be built again.
    pub(super) fn lose_index(&self, id: IndexId, error: &Error) {
        tracing::warn!(segment = self.id.0, index = id.0, %error, "an index is damaged; it is built again");
        self.indexes.change(|list| list.retain(|index| index.id != id));
    }

    /// Whether an index knows the words of a column.
    pub(super) fn knows_words(&self, column: ColumnId) -> bool {
        self.indexes.list.load().iter().any(|index| index.kind == IndexKind::Text && index.column == column)
    }

    /// What the best index knows of the rows that pass `leaf`, which is `test` on the column at `index`.
    pub(super) fn lookup(&self, leaf: &Predicate, index: usize, test: &ColumnTest) -> Result<Option<Lookup>> {
        if let Some(runs) = self.runs(leaf, index, test)? {
            return Ok(Some(Lookup::Runs(runs)));
        }
        let list = self.indexes.list.load();
        let column = self.schema.columns[index].id;
        // Rows of it, and whether they are exactly those that pass.
        let mut best_found: Option<(u64, bool)> = None;
        let mut best: Option<Lookup> = None;
        for index_of in list.iter().filter(|known| known.column == column) {
            match index_of.find(leaf, test, self.reader(index)?) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    let better = best_found.is_none_or(|(rows, exact)| (!exact && found.exact) || found.rows < rows);
                    if better {
                        best_found = Some((found.rows, found.exact));
                        best = Some(Lookup::Index { index: Arc::clone(index_of), found });
                    }
                }
                Err(error) => self.lose_index(index_of.id, &error),
            }
        }
        Ok(best)
    }

    /// The rows of `rows` that may lie in an area, bit 0 for row `base`; `None` when no index knows, or listing them is not worth it.
    pub(super) fn places(
        &self,
        test: &PlaceTest,
        rows: &Range<u32>,
        base: u32,
        worth: impl Fn(u64) -> bool,
    ) -> Option<Bitmask> {
        let list = self.indexes.list.load();
        let index = list.iter().find(|known| known.knows_places(test.lat, test.lng))?;
        let found = match index.find_places(&test.cells) {
            Ok(inside) if worth(inside.rows()) => index.places(&inside, rows, base),
            Ok(_) => return None,
            Err(error) => Err(error),
        };
        found.inspect_err(|error| self.lose_index(index.id, error)).ok()
    }

    /// Whether Bloom filters rule out that any row passes. Reads nothing but them.
    pub(crate) fn excludes(&self, predicate: &Predicate, current: &TableSchema) -> bool {
        let list = self.indexes.list.load();
        !list.is_empty() && self.excludes_by(&list, predicate, current)
    }

    fn excludes_by(&self, list: &[Arc<AttachedIndex>], predicate: &Predicate, current: &TableSchema) -> bool {
        match predicate {
            Predicate::And(children) => children.iter().any(|child| self.excludes_by(list, child, current)),
            Predicate::Or(children) => {
                !children.is_empty() && children.iter().all(|child| self.excludes_by(list, child, current))
            }
            Predicate::Compare { column, .. } | Predicate::In { column, .. } => {
                let (Some(now), Some(written)) = (current.column(*column), self.schema.column(*column)) else {
                    return false;
                };
                if !written.data_type.compares_as(&now.data_type) {
                    return false;
                }
                let mut of_column = list.iter().filter(|index| index.column == *column);
                of_column.any(|index| {
                    index.excludes(predicate, &written.data_type).unwrap_or_else(|error| {
                        self.lose_index(index.id, &error);
                        false
                    })
                })
            }
            _ => false,
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("delete", path, &error)),
        _ => Ok(()),
    }
}
