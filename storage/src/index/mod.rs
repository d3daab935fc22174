//! Secondary indexes: for one column of one segment, which rows hold a value, or that none does; and groups that are made ahead.
//!
//! An index is *derived data*. It lies in a file of its own beside the segment file, names the segment that it was made from by its
//! checksum, and may be missing, damaged or foreign at any time: then the plain scan answers, and the index is built again. So it needs no
//! commit record, and a crash leaves nothing to repair.
//!
//! | kind | answers | kept as |
//! |---|---|---|
//! | [`inverted`] | `=`, `IN`; with a dictionary also ranges and LIKE | the rows of each dictionary id; without a dictionary those of each bucket of a hash |
//! | [`range`] | `=`, `IN`, `<`, `BETWEEN` … | the rows in the order of their values |
//! | [`bloom`] | that `=`, `IN` find nothing in the segment | a split-block Bloom filter |
//! | [`json`] | what documents hold at a path | the rows of each path with its value |
//! | [`text`] | `@@`: words, their beginnings, what is built of them | the rows of each word |
//! | [`geo`] | places in an area, of two columns | the rows in the order of the cells around their places |
//! | sorted | `=`, `IN`, `<`, `BETWEEN` …, `IS NULL` | nothing: the rows of the segment lie in the order of their values |
//! | [`star`] | groups and aggregates over a few dimensions | rows grouped by sets of these dimensions |
//!
//! What always holds: the rows that an index finds contain all rows that pass (a *superset* where [`Found::exact`] is false; then the test
//! itself is evaluated on them); an index that contradicts itself gives an error, and whoever asked goes on without it.
//!
//! **Consuming segments** have the same indexes in memory, one of each full chunk, made in the background ([`chunk`]); the rows after the last full
//! chunk are few and looked at. What is an order or a summary of sealed rows (sorted, star-trees) comes when they are sealed.

pub(crate) mod attached;
mod bits;
pub(crate) mod bloom;
pub(crate) mod chunk;
pub(crate) mod file;
pub(crate) mod geo;
pub(crate) mod inverted;
pub(crate) mod json;
mod lexicon;
mod ordered;
mod postings;
pub(crate) mod range;
pub(crate) mod source;
pub mod star;
pub(crate) mod text;

use std::{
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use arrow::buffer::Buffer;
use serde::{Deserialize, Serialize};

pub use self::{
    file::{INDEX_ENDING, file_name, parse_file_name},
    json::paths::JsonPaths,
    star::StarTree,
};
use crate::{
    Error, Result,
    bitpack::Bitmask,
    documents::DocumentTest,
    forward::IdTest,
    ids::{ColumnId, IndexId},
    predicate::Predicate,
    schema::{DataType, TableSchema},
    search::TextQuery,
};

/// What an index is made of and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    Inverted,
    Range,
    Bloom {
        /// Share of absent values that the filter takes for present; above 0 and below 1.
        fpp: f64,
    },
    StarTree(Box<StarTree>),
    /// Rows in the order of their values, in segments that are sealed from then on.
    Sorted,
    Json,
    /// Words.
    Text,
    /// Places: latitude and longitude.
    Geo,
    /// As [`Self::Json`], of parts of the documents.
    JsonPaths(Box<JsonPaths>),
}

impl IndexKind {
    /// As USING names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inverted => "inverted",
            Self::Range => "range",
            Self::Bloom { .. } => "bloom",
            Self::StarTree(_) => "star_tree",
            Self::Sorted => "sorted",
            Self::Json | Self::JsonPaths(_) => "json",
            Self::Text => "text",
            Self::Geo => "geo",
        }
    }

    /// Whether a column of the type can have such an index.
    pub fn takes(&self, data_type: &DataType) -> bool {
        use DataType::{Array, Boolean, Bytea, Double, Jsonb, Numeric, Real, Text, Uuid};
        match self {
            Self::Inverted | Self::Bloom { .. } => !matches!(data_type, Boolean | Jsonb | Array(_)),
            Self::Range => !matches!(data_type, Boolean | Jsonb | Array(_) | Text | Bytea | Uuid),
            // As a dimension.
            Self::StarTree(_) => !matches!(data_type, Jsonb | Array(_) | Bytea | Real | Double),
            Self::Sorted => !matches!(data_type, Jsonb | Array(_)),
            Self::Json | Self::JsonPaths(_) => *data_type == Jsonb,
            Self::Text => *data_type == Text,
            Self::Geo => matches!(data_type, Real | Double | Numeric { .. }),
        }
    }

    /// Whether it knows of documents.
    pub fn is_json(&self) -> bool {
        matches!(self, Self::Json | Self::JsonPaths(_))
    }

    /// The parts of documents that it knows, where it does not know all.
    pub(crate) fn paths(&self) -> Option<&JsonPaths> {
        if let Self::JsonPaths(paths) = self { Some(paths) } else { None }
    }

    /// Whether it may leave out documents that do not pass the test.
    pub fn knows_of(&self, test: &DocumentTest) -> bool {
        match self {
            Self::Json => true,
            Self::JsonPaths(paths) => paths.covered(test).is_some(),
            _ => false,
        }
    }

    /// Whether such an index is a file beside each segment.
    pub fn has_files(&self) -> bool {
        !matches!(self, Self::Sorted)
    }

    /// The byte on disk.
    pub(crate) fn byte(&self) -> u8 {
        match self {
            Self::Inverted => 1,
            Self::Range => 2,
            Self::Bloom { .. } => 3,
            Self::StarTree(_) => 4,
            Self::Sorted => 5,
            Self::Json => 6,
            Self::Text => 7,
            Self::Geo => 8,
            Self::JsonPaths(_) => 9,
        }
    }
}

/// An index of a table, as its segments are to have it.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexSpec {
    pub id: IndexId,
    /// For EXPLAIN.
    pub name: String,
    pub kind: IndexKind,
    /// One; of a star-tree all that it is made of, its first dimension first; of a sorted index those that rows are ordered by; of places latitude and longitude.
    pub columns: Vec<ColumnId>,
}

impl IndexSpec {
    /// The column that is indexed; of a star-tree the first dimension, of a sorted index the first column.
    pub fn column(&self) -> Option<ColumnId> {
        self.columns.first().copied()
    }

    /// Where its columns lie in the schema that rows were written under, when these rows can have it beside them: the first, and the second
    /// of an index of places.
    pub(crate) fn places_in(&self, schema: &TableSchema) -> Option<(usize, Option<usize>)> {
        let place = |at: usize| {
            let index = schema.index_of(*self.columns.get(at)?)?;
            self.kind.takes(&schema.columns[index].data_type).then_some(index)
        };
        match &self.kind {
            IndexKind::Sorted => None,
            IndexKind::StarTree(tree) => {
                tree.fits(schema).then(|| schema.index_of(self.column()?)).flatten().zip(Some(None))
            }
            IndexKind::Geo => Some((place(0)?, Some(place(1)?))),
            _ => Some((place(0)?, None)),
        }
    }
}

/// Rows that an index knows of: a recipe, from which [`Index::add`] makes the rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) parts: Vec<Part>,
    /// Rows of the whole segment, counted as often as they are in the parts.
    pub(crate) rows: u64,
    /// Of these rows those that are bits, not listed one by one, and the bitmaps that they are in.
    pub(crate) as_bits: u64,
    pub(crate) bitmaps: u64,
    /// Every one of the rows passes the test that was asked for.
    pub(crate) exact: bool,
}

impl Found {
    /// The rows of both, of one index; `None` where that is not known.
    pub(crate) fn both(&self, other: &Self) -> Option<Self> {
        let ([Part::Places(these)], [Part::Places(those)]) = (self.parts.as_slice(), other.parts.as_slice()) else {
            return None;
        };
        let start = these.start.max(those.start);
        let places = start..these.end.min(those.end).max(start);
        let rows = places.len() as u64;
        Some(Self { parts: vec![Part::Places(places)], rows, exact: self.exact && other.exact, ..Self::default() })
    }
}

/// Some rows of an index.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Those of the keys from the first to the last of the range.
    Keys(Range<u32>),
    /// Those at these places in the order of their values.
    Places(Range<u32>),
    /// Those whose words answer the question, or do not.
    Words { query: Arc<TextQuery>, negated: bool },
    /// Those whose documents may pass.
    Documents(Arc<DocumentTest>),
}

/// An index of one segment, opened and verified.
#[derive(Debug)]
pub(crate) enum Index {
    Inverted(inverted::Inverted),
    Range(range::RangeIndex),
    Bloom(bloom::Bloom),
    Json(json::JsonIndex),
    Text(text::TextIndex),
    Geo(geo::GeoIndex),
    StarTree(star::StarIndex),
}

impl Index {
    /// Of sections as [`source::sections`] makes them, from so many rows.
    pub(crate) fn open(kind: &IndexKind, sections: &[Buffer], rows: u32) -> Result<Self> {
        Ok(match kind {
            IndexKind::Inverted => Self::Inverted(inverted::Inverted::open(sections, rows)?),
            IndexKind::Range => Self::Range(range::RangeIndex::open(sections, rows)?),
            IndexKind::Json | IndexKind::JsonPaths(_) => {
                Self::Json(json::JsonIndex::open(sections, rows, kind.paths())?)
            }
            IndexKind::Geo => Self::Geo(geo::GeoIndex::open(sections, rows)?),
            IndexKind::Text => Self::Text(text::TextIndex::open(sections, rows)?),
            IndexKind::Bloom { .. } => Self::Bloom(bloom::Bloom::open(sections)?),
            IndexKind::StarTree(_) | IndexKind::Sorted => {
                return Err(Error::Invalid(format!("an index of kind {} has no such sections", kind.name())));
            }
        })
    }

    /// The rows that may pass a leaf, on a column of the type, which is about these ids if it has a dictionary; `None` when the index has
    /// nothing to say.
    pub(crate) fn find(
        &self,
        leaf: &Predicate,
        ids: Option<IdTest<'_>>,
        data_type: &DataType,
    ) -> Result<Option<Found>> {
        match self {
            Self::Inverted(index) => index.find(leaf, ids, data_type),
            Self::Range(index) => index.find(leaf, ids, data_type),
            Self::Text(index) => index.find(leaf),
            Self::Json(index) => index.find(leaf),
            Self::Bloom(_) | Self::StarTree(_) | Self::Geo(_) => Ok(None),
        }
    }

    /// Whether no row passes a leaf on the column, which has this type.
    pub(crate) fn excludes(&self, leaf: &Predicate, data_type: &DataType) -> bool {
        matches!(self, Self::Bloom(index) if index.excludes(leaf, data_type))
    }

    /// The rows in the cells, which ascend.
    pub(crate) fn find_places(&self, cells: &[RangeInclusive<u64>]) -> Result<geo::Inside> {
        match self {
            Self::Geo(index) => index.find(cells),
            _ => Err(Error::Invalid("an index that knows nothing of places".into())),
        }
    }

    /// Those of `rows`, bit 0 for row `base`.
    pub(crate) fn places(&self, inside: &geo::Inside, rows: &Range<u32>, base: u32) -> Result<Bitmask> {
        match self {
            Self::Geo(index) => index.list(inside, rows, base),
            _ => Err(Error::Invalid("an index that knows nothing of places".into())),
        }
    }

    /// Adds those rows of `found` that lie in `rows` to `out`, whose bit 0 is row `base`.
    pub(crate) fn add(&self, found: &Found, rows: &Range<u32>, base: u32, out: &mut Bitmask) -> Result<()> {
        for part in &found.parts {
            match (self, part) {
                (Self::Inverted(index), Part::Keys(keys)) => index.postings().add(keys.clone(), rows, base, out)?,
                (Self::Range(index), part) => index.add(part, rows, base, out)?,
                (Self::Text(index), Part::Words { query, negated }) => index.add(query, *negated, rows, base, out)?,
                (Self::Json(index), Part::Documents(test)) => out.or(&index.list(test, rows, base)?),
                _ => return Err(Error::Invalid("rows that another index found".into())),
            }
        }
        Ok(())
    }
}
