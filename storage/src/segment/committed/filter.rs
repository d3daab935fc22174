//! A request's predicate, translated for one segment: leaves that the statistics settle are gone, the others work on encoded columns
//! where they can.
//!
//! A leaf selects only rows whose column is not null (`IS NULL` excepted), so AND and OR are intersection and union of row sets and nothing
//! here knows a third truth value.

use std::ops::Range;

use arrow::array::{Array, ArrayRef};

use super::{
    CommittedSegment,
    lookup::{Candidates, Lookup},
};
use crate::{
    Error, Result,
    bitpack::Bitmask,
    evaluate::{default_array, evaluate_leaf, widened},
    forward::ColumnTest,
    predicate::Predicate,
    prune::{Run, Verdict, judge},
    schema::{Column, DataType, TableSchema},
};

/// A dictionary of more values is not searched for words where an index knows them.
const VALUES_READ_MAX: u32 = 256;

#[derive(Debug)]
pub(super) enum Filter {
    Nothing,
    Everything,
    And(Vec<Filter>),
    Or(Vec<Filter>),
    /// On the encoded column at this index.
    Encoded {
        index: usize,
        test: ColumnTest,
        /// What an index knows of the rows that pass.
        lookup: Option<Lookup>,
    },
    /// Rows that indexes found.
    Rows(Candidates),
    /// On a column that was widened since it was written.
    Widened {
        index: usize,
        column: Column,
        leaf: Predicate,
    },
    /// A condition that fails for every row.
    Fails(Error),
}

impl Filter {
    /// With `ask`, the indexes of the segment are asked about each leaf.
    pub(super) fn new(
        predicate: &Predicate,
        current: &TableSchema,
        segment: &CommittedSegment,
        ask: bool,
    ) -> Result<Self> {
        let run = Run {
            rows: u64::from(segment.rows),
            written: &segment.schema,
            stats: |index: usize| segment.stats.get(index),
        };
        match predicate {
            Predicate::And(children) => {
                let mut parts = Vec::new();
                for child in children {
                    match Self::new(child, current, segment, ask)? {
                        Self::Nothing => return Ok(Self::Nothing),
                        Self::Everything => {}
                        Self::And(inner) => parts.extend(inner),
                        part => {
                            let together = parts
                                .iter()
                                .enumerate()
                                .find_map(|(at, known)| Some((at, part.fused(known, child, segment).transpose()?)));
                            match together {
                                Some((at, fused)) => match fused? {
                                    Self::Nothing => return Ok(Self::Nothing),
                                    fused => parts[at] = fused,
                                },
                                None => parts.push(part),
                            }
                        }
                    }
                }
                // The cheap ones first: they leave fewer rows, or none, to the others.
                parts.sort_by_key(|part| part.cost(segment));
                Ok(if parts.is_empty() { Self::Everything } else { Self::And(parts) })
            }
            Predicate::Or(children) => {
                let mut parts = Vec::new();
                for child in children {
                    match Self::new(child, current, segment, ask)? {
                        Self::Everything => return Ok(Self::Everything),
                        Self::Nothing => {}
                        Self::Or(inner) => parts.extend(inner),
                        part => parts.push(part),
                    }
                }
                parts.sort_by_key(|part| part.cost(segment));
                Ok(if parts.is_empty() { Self::Nothing } else { Self::Or(parts) })
            }
            leaf => match judge(leaf, current, &run, None) {
                Verdict::Never => Ok(Self::Nothing),
                Verdict::Always => Ok(Self::Everything),
                Verdict::Maybe => Self::leaf(leaf, current, segment, ask),
            },
        }
    }

    fn leaf(leaf: &Predicate, current: &TableSchema, segment: &CommittedSegment, ask: bool) -> Result<Self> {
        let column = leaf.column().and_then(|id| current.column(id));
        let column = column.ok_or_else(|| Error::Invalid(format!("the table has no column of {leaf:?}")))?;
        let id = column.id;
        let Some(index) = segment.schema.index_of(id) else {
            // Younger than the segment: all rows have the default, so one row speaks for all.
            let one = default_array(column, 1)?;
            let selected = match evaluate_leaf(leaf, column, &one) {
                Err(error) if leaf.may_fail() => return Ok(Self::Fails(error)),
                selected => selected?,
            };
            return Ok(if selected.is_valid(0) && selected.value(0) { Self::Everything } else { Self::Nothing });
        };
        let written = &segment.schema.columns[index].data_type;
        let in_its_type = matches!(leaf, Predicate::Holds { .. });
        if !written.compares_as(&column.data_type) || in_its_type && *written != column.data_type {
            return Ok(Self::Widened { index, column: column.clone(), leaf: leaf.clone() });
        }
        let failed = |error| segment.failed(segment.named(error, index));
        if ask && matches!(leaf, Predicate::Matches { .. }) && segment.knows_words(id) {
            let test = segment.reader(index)?.prepare_in(leaf, VALUES_READ_MAX).map_err(failed)?;
            if let Some(lookup) = segment.lookup(leaf, index, &test)? {
                return Ok(Self::Encoded { index, test, lookup: Some(lookup) });
            }
        }
        let test = segment.reader(index)?.prepare(leaf).map_err(failed)?;
        Ok(if test.selects_nothing() {
            Self::Nothing
        } else if test.selects_everything() {
            Self::Everything
        } else {
            let lookup = if ask { segment.lookup(leaf, index, &test)? } else { None };
            Self::Encoded { index, test, lookup }
        })
    }

    /// Two ranges of one column as one, `self` being that of `leaf`: of `low <= x AND x <= high` each half may select most rows, and listing these
    /// or comparing twice is what an index, or a scan, would be slow by. `None`: they are something else.
    fn fused(&self, known: &Self, leaf: &Predicate, segment: &CommittedSegment) -> Result<Option<Self>> {
        let (
            Self::Encoded { index, test, lookup },
            Self::Encoded { index: known_index, test: known_test, lookup: known_lookup },
        ) = (self, known)
        else {
            return Ok(None);
        };
        let Some(both) = test.both(known_test).filter(|_| index == known_index) else { return Ok(None) };
        if both.selects_nothing() {
            return Ok(Some(Self::Nothing));
        }
        let lookup = match (lookup, known_lookup) {
            (Some(a), Some(b)) if both.ids().is_none() || a.is_by_value() || b.is_by_value() => a.both(b),
            // By ids the leaf itself is not looked at.
            (Some(_), Some(_)) => segment.lookup(leaf, *index, &both)?,
            _ => None,
        };
        Ok(Some(Self::Encoded { index: *index, test: both, lookup }))
    }

    /// A rough order of cost.
    fn cost(&self, segment: &CommittedSegment) -> u32 {
        match self {
            Self::Nothing | Self::Everything | Self::Rows(_) => 0,
            // Last: it may fail for what the others leave out.
            Self::Encoded { test, .. } if test.may_fail() => 1000,
            Self::Widened { leaf, .. } if leaf.may_fail() => 1000,
            Self::Fails(_) => 1000,
            Self::Encoded { index, .. } => match segment.schema.columns[*index].data_type {
                DataType::Text | DataType::Bytea | DataType::Uuid | DataType::Jsonb | DataType::Array(_) => 3,
                DataType::Numeric { .. } => 2,
                _ => 1,
            },
            Self::Widened { .. } => 4,
            Self::And(parts) | Self::Or(parts) => parts.iter().map(|part| part.cost(segment)).sum(),
        }
    }

    /// Takes the rows out of `mask` (one bit per row of `rows`) that are not selected. `read` is told of each column that is read.
    pub(super) fn apply(
        &self,
        segment: &CommittedSegment,
        rows: &Range<u32>,
        mask: &mut Bitmask,
        read: &mut impl FnMut(usize),
    ) -> Result<()> {
        match self {
            Self::Nothing => mask.clear(),
            Self::Everything => {}
            Self::Fails(error) if !mask.is_none() => return Err(error.clone()),
            Self::Fails(_) => {}
            Self::And(parts) => {
                for part in parts {
                    if mask.is_none() {
                        break;
                    }
                    part.apply(segment, rows, mask, read)?;
                }
            }
            Self::Or(parts) => {
                let mut found = Bitmask::none(mask.len());
                let mut left = mask.clone();
                for part in parts {
                    let mut passed = left.clone();
                    part.apply(segment, rows, &mut passed, read)?;
                    found.or(&passed);
                    left.and_not(&passed);
                    if left.is_none() {
                        break;
                    }
                }
                *mask = found;
            }
            Self::Rows(candidates) => candidates.apply(rows, mask),
            Self::Encoded { index, test, .. } => {
                read(*index);
                let named = |error| segment.named(error, *index);
                segment.reader(*index)?.select(rows.clone(), test, mask).map_err(named)?;
            }
            Self::Widened { index, column, leaf } => {
                read(*index);
                let named = |error| segment.named(error, *index);
                let reader = segment.reader(*index)?;
                if leaf.may_fail() && !mask.is_all() {
                    let array = reader.decode_selected(rows.clone(), mask).map_err(named)?;
                    mask.keep(&selected(leaf, column, array)?);
                } else {
                    let array = reader.decode(rows.clone()).map_err(named)?;
                    mask.and(&selected(leaf, column, array)?);
                }
            }
        }
        Ok(())
    }
}

fn selected(leaf: &Predicate, column: &Column, array: ArrayRef) -> Result<Bitmask> {
    let selected = evaluate_leaf(leaf, column, &widened(array, column)?)?;
    let bits = match selected.nulls() {
        None => selected.values().clone(),
        Some(valid) => selected.values() & valid.inner(),
    };
    Ok(Bitmask::from_boolean_buffer(&bits))
}
