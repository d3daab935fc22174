//! Predicates on encoded columns: a leaf of a [`Predicate`] is translated once per segment ([`ColumnReader::prepare`]) and then
//! evaluated on runs of rows ([`ColumnReader::select`]), where the encoding allows it without decoding.
//!
//! | kept as | comparison | IN | LIKE, `@@` |
//! |---|---|---|---|
//! | dictionary | a range of ids, by binary search | a set of ids | a set of ids: evaluated once per distinct value |
//! | integers | a range, on packed residuals where the block has a frame | membership | – |
//! | uuids | equality of both halves | the same | decoded |
//! | all others | decoded | decoded | decoded |
//!
//! Conditions that the layer above evaluates are evaluated for the values of a dictionary that is much shorter than the column, once, else for
//! the rows that are left.
//!
//! Its plain twin is [`evaluate`](crate::evaluate::evaluate) on the decoded rows.

use std::ops::Range;

use arrow::array::{Array, ArrayRef};

use super::{ColumnReader, computed::Computed, reader::Values, uuids};
use crate::{
    Error, Result,
    bitpack::{Bitmask, IdSet},
    dictionary::Dictionary,
    evaluate::evaluate_leaf,
    ids::ColumnId,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    schema::{Column, DataType},
};

/// A leaf of a predicate in the terms of one column of one segment.
#[derive(Debug)]
pub struct ColumnTest {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// No row passes.
    Nothing,
    /// Every row passes.
    Everything,
    /// The rows that are null pass, or those that are not.
    Null { pass: bool },
    /// Rows whose dictionary id lies inside `low..=high`, or outside.
    Ids { low: u32, high: u32, inside: bool },
    /// Rows whose dictionary id is in the set.
    IdSet(IdSet),
    /// Rows whose integer lies inside `low..=high`, or outside.
    Integers { low: i64, high: i64, inside: bool },
    /// Rows whose integer is among the sorted values, or is not.
    IntegersAmong { values: Vec<i64>, inside: bool },
    /// Rows whose UUID is one of these, or is not.
    UuidsAmong { values: Vec<u128>, inside: bool },
    /// Decode and evaluate.
    Decoded(Box<Decoded>),
    /// Decode and evaluate the rows that are left, until it pays to evaluate the dictionary.
    Computed(Box<Computed>),
}

/// A leaf as it is evaluated on Arrow arrays.
#[derive(Debug)]
pub(super) struct Decoded {
    leaf: Predicate,
    column: Column,
}

/// A test in terms of dictionary ids.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IdTest<'a> {
    /// From the first to the second.
    Inside(u32, u32),
    /// All others.
    Outside(u32, u32),
    Among(&'a IdSet),
}

/// Where fewer than one in this many rows are left, only these are decoded.
const SPARSE: usize = 8;

/// As many values are evaluated at once, whatever they are worth.
const VALUES_AT_ONCE: u32 = 1024;

/// Nanoseconds for a condition of the layer above.
const CONDITION_COST: f64 = 100.0;

/// Nanoseconds for the words of a text.
const SEARCH_COST: f64 = 300.0;

impl ColumnTest {
    /// The ids that pass, of a column by dictionary.
    pub(crate) fn ids(&self) -> Option<IdTest<'_>> {
        Some(match &self.kind {
            Kind::Ids { low, high, inside: true } => IdTest::Inside(*low, *high),
            Kind::Ids { low, high, inside: false } => IdTest::Outside(*low, *high),
            Kind::IdSet(set) => IdTest::Among(set),
            _ => return None,
        })
    }

    /// The test that passes what both pass, if they are two ranges of one column.
    pub(crate) fn both(&self, other: &Self) -> Option<Self> {
        let kind = match (&self.kind, &other.kind) {
            (Kind::Ids { low: a, high: b, inside: true }, Kind::Ids { low: c, high: d, inside: true }) => {
                let (low, high) = (*a.max(c), *b.min(d));
                if low > high { Kind::Nothing } else { Kind::Ids { low, high, inside: true } }
            }
            (Kind::Integers { low: a, high: b, inside: true }, Kind::Integers { low: c, high: d, inside: true }) => {
                let (low, high) = (*a.max(c), *b.min(d));
                if low > high { Kind::Nothing } else { Kind::Integers { low, high, inside: true } }
            }
            _ => return None,
        };
        Some(Self { kind })
    }

    /// No row of the segment passes: it need not be read.
    pub fn selects_nothing(&self) -> bool {
        matches!(self.kind, Kind::Nothing)
    }

    /// Every row of the segment passes: the leaf need not be evaluated.
    pub fn selects_everything(&self) -> bool {
        matches!(self.kind, Kind::Everything)
    }

    /// Whether the test may fail for rows that other conditions leave out.
    pub(crate) fn may_fail(&self) -> bool {
        matches!(self.kind, Kind::Computed(_))
    }
}

impl ColumnReader {
    /// Translates a leaf (not AND, not OR) whose column is this one and whose values are of this column's type.
    pub fn prepare(&self, leaf: &Predicate) -> Result<ColumnTest> {
        self.prepare_in(leaf, u32::MAX)
    }

    /// As [`Self::prepare`], of a leaf that an index answers: of a dictionary of more than `values_max` values only those of rows that are left are read.
    pub(crate) fn prepare_in(&self, leaf: &Predicate, values_max: u32) -> Result<ColumnTest> {
        let id = leaf_column(leaf)?;
        let no_values = self.null_count() == u64::from(self.rows());
        let kind = match (leaf, self.values()) {
            (Predicate::IsNull { negated, .. }, _) if no_values => {
                if *negated {
                    Kind::Nothing
                } else {
                    Kind::Everything
                }
            }
            (Predicate::IsNull { negated: true, .. }, _) => self.not_null(),
            (Predicate::IsNull { .. }, _) if self.null_count() == 0 => Kind::Nothing,
            (Predicate::IsNull { .. }, _) => Kind::Null { pass: true },
            _ if no_values => Kind::Nothing,
            (Predicate::Holds { .. }, values) => self.prepare_condition(*self.decoded(id, leaf), values)?,
            (_, Values::Dictionary(dictionary)) if dictionary.len() <= values_max => {
                self.prepare_ids(dictionary, id, leaf)?
            }
            (Predicate::Compare { op, value, .. }, Values::Integers(_)) => self.prepare_range(*op, value)?,
            (Predicate::In { values, negated, .. }, Values::Integers(_)) => {
                let values = values.iter().map(|value| self.integer(value)).collect::<Result<Vec<_>>>()?;
                // What does not fit is no value of the column.
                let mut values: Vec<i64> = values.iter().filter_map(|value| i64::try_from(*value).ok()).collect();
                values.sort_unstable();
                match (values.as_slice(), negated) {
                    ([], true) => self.not_null(),
                    ([], false) => Kind::Nothing,
                    ([one], _) => Kind::Integers { low: *one, high: *one, inside: !negated },
                    _ => Kind::IntegersAmong { values, inside: !negated },
                }
            }
            (Predicate::Compare { op: op @ (CompareOp::Eq | CompareOp::NotEq), value, .. }, Values::Uuids(_)) => {
                self.prepare_uuids(std::slice::from_ref(value), *op == CompareOp::Eq)?
            }
            (Predicate::In { values, negated, .. }, Values::Uuids(_)) => self.prepare_uuids(values, !negated)?,
            _ => Kind::Decoded(self.decoded(id, leaf)),
        };
        Ok(ColumnTest { kind })
    }

    /// Takes out of `mask` (one bit per row of `rows`) the rows that do not pass.
    pub fn select(&self, rows: Range<u32>, test: &ColumnTest, mask: &mut Bitmask) -> Result<()> {
        let range = self.check(rows.clone())?;
        if mask.len() != rows.len() {
            return Err(Error::Invalid(format!("a mask of {} rows for {} rows", mask.len(), rows.len())));
        }
        let foreign = || Err(Error::Invalid("a test prepared for another column".into()));
        match (&test.kind, self.values()) {
            (Kind::Everything, _) => return Ok(()),
            (Kind::Nothing, _) => {
                mask.clear();
                return Ok(());
            }
            (Kind::Null { pass: true }, _) => {
                match self.validity(rows)? {
                    None => mask.clear(),
                    Some(valid) => mask.and_not(&Bitmask::from_boolean_buffer(valid.inner())),
                }
                return Ok(());
            }
            // Null rows are taken out below, as for every other test.
            (Kind::Null { pass: false }, _) => {}
            (Kind::Ids { low, high, inside }, Values::Dictionary(dictionary)) => {
                dictionary.ids().select_range(range, *low, *high, *inside, mask)?;
            }
            (Kind::IdSet(set), Values::Dictionary(dictionary)) => dictionary.ids().select_set(range, set, mask)?,
            (Kind::Integers { low, high, inside }, Values::Integers(values)) => {
                values.select_range(range, *low, *high, *inside, mask)?;
            }
            (Kind::IntegersAmong { values: among, inside }, Values::Integers(values)) => {
                values.select(range, |value| among.binary_search(&value).is_ok() == *inside, mask)?;
            }
            (Kind::UuidsAmong { values: among, inside }, Values::Uuids(values)) => {
                let mut found = Bitmask::none(mask.len());
                for number in among {
                    let mut one = mask.clone();
                    values.select(range.clone(), *number, &mut one)?;
                    found.or(&one);
                }
                if *inside { mask.and(&found) } else { mask.and_not(&found) }
            }
            (Kind::Decoded(decoded), _) => match mask.count() {
                0 => {}
                few if few * SPARSE < mask.len() => {
                    let passed = decoded.select(&self.decode_selected(rows.clone(), mask)?)?;
                    mask.keep(&passed);
                }
                _ => mask.and(&decoded.select(&self.decode(rows.clone())?)?),
            },
            (Kind::Computed(computed), values) => {
                let left = mask.count();
                let ids = match values {
                    Values::Dictionary(dictionary) => computed.ids(left, dictionary)?.map(|ids| (ids, dictionary)),
                    _ => None,
                };
                match ids {
                    _ if left == 0 => {}
                    Some((ids, dictionary)) => dictionary.ids().select_set(range, ids, mask)?,
                    None => {
                        let passed = computed.decoded.select(&self.decode_selected(rows.clone(), mask)?)?;
                        mask.keep(&passed);
                    }
                }
            }
            _ => return foreign(),
        }
        if let Some(valid) = self.validity(rows)? {
            mask.and(&Bitmask::from_boolean_buffer(valid.inner()));
        }
        Ok(())
    }

    /// What [`Self::select`] costs for a row, in nanoseconds of the machine that `storage/benches/index.rs` was run on.
    pub(crate) fn select_cost(&self, test: &ColumnTest) -> f64 {
        match (&test.kind, self.values()) {
            (Kind::Nothing | Kind::Everything | Kind::Null { .. }, _) => 0.02,
            (Kind::Decoded(decoded), _) if matches!(decoded.leaf, Predicate::Matches { .. }) => SEARCH_COST,
            (Kind::Computed(_), _) => CONDITION_COST,
            (_, Values::Dictionary(dictionary)) => dictionary.ids().select_cost(),
            (Kind::Integers { .. }, Values::Integers(values)) if values.codec().is_none() => 0.3,
            (_, Values::Integers(_)) => 1.5,
            (_, Values::Uuids(_)) => 1.5,
            (_, Values::Blocks(_) | Values::Strings(_)) => 8.0,
            _ => 2.0,
        }
    }

    /// The test that each row which is not null passes.
    fn not_null(&self) -> Kind {
        if self.null_count() == 0 { Kind::Everything } else { Kind::Null { pass: false } }
    }

    fn prepare_condition(&self, leaf: Decoded, values: &Values) -> Result<Kind> {
        let Values::Dictionary(dictionary) = values else {
            return Ok(Kind::Computed(Box::new(Computed::by_row(leaf))));
        };
        if dictionary.len() > VALUES_AT_ONCE {
            return Ok(Kind::Computed(Box::new(Computed::by_value(leaf, dictionary, self.rows()))));
        }
        Ok(match leaf.select(dictionary.values()?) {
            Ok(passed) => self.among(dictionary.len(), &passed),
            Err(_) => Kind::Computed(Box::new(Computed::by_row(leaf))),
        })
    }

    fn prepare_ids(&self, dictionary: &Dictionary, id: ColumnId, leaf: &Predicate) -> Result<Kind> {
        let count = dictionary.len();
        let range = |low, high, inside| self.range(count, low, high, inside);
        let passed = match leaf {
            Predicate::Compare { op, value, .. } => {
                let Range { start, end } = dictionary.equal_range(value)?;
                return Ok(match op {
                    CompareOp::Eq => range(start, end, true),
                    CompareOp::NotEq => range(start, end, false),
                    CompareOp::Less => range(0, start, true),
                    CompareOp::LessEq => range(0, end, true),
                    CompareOp::Greater => range(end, count, true),
                    CompareOp::GreaterEq => range(start, count, true),
                });
            }
            Predicate::In { values, negated, .. } => {
                let mut passed = if *negated { Bitmask::all(count as usize) } else { Bitmask::none(count as usize) };
                for value in values {
                    let Range { start, end } = dictionary.equal_range(value)?;
                    let equal = start as usize..end as usize;
                    if *negated { passed.clear_in(equal) } else { equal.for_each(|id| passed.set(id)) }
                }
                passed
            }
            _ => self.decoded(id, leaf).select(dictionary.values()?)?,
        };
        Ok(self.among(count, &passed))
    }

    /// Rows whose id lies in `low..high`, or outside.
    fn range(&self, count: u32, low: u32, high: u32, inside: bool) -> Kind {
        match (low, high) {
            (low, high) if low >= high => {
                if inside {
                    Kind::Nothing
                } else {
                    self.not_null()
                }
            }
            (0, high) if high == count => {
                if inside {
                    self.not_null()
                } else {
                    Kind::Nothing
                }
            }
            (low, high) => Kind::Ids { low, high: high - 1, inside },
        }
    }

    /// Rows whose id is one of these.
    fn among(&self, count: u32, passed: &Bitmask) -> Kind {
        // A set without gaps is a range.
        let (first, set) = (passed.iter().next().unwrap_or(0), passed.count());
        if passed.count_in(first..(first + set).min(passed.len())) == set {
            self.range(count, first as u32, (first + set) as u32, true)
        } else {
            Kind::IdSet(IdSet::of(passed.len(), passed.iter().map(|id| id as u32)))
        }
    }

    fn prepare_range(&self, op: CompareOp, value: &Scalar) -> Result<Kind> {
        let value = self.integer(value)?;
        let (low, high, inside) = match op {
            CompareOp::Eq => (value, value, true),
            CompareOp::NotEq => (value, value, false),
            CompareOp::Less => (i128::MIN, value.saturating_sub(1), true),
            CompareOp::LessEq => (i128::MIN, value, true),
            CompareOp::Greater => (value.saturating_add(1), i128::MAX, true),
            CompareOp::GreaterEq => (value, i128::MAX, true),
        };
        let (min, max) = (i128::from(i64::MIN), i128::from(i64::MAX));
        Ok(if low > max || high < min {
            if inside { Kind::Nothing } else { self.not_null() }
        } else {
            Kind::Integers { low: low.max(min) as i64, high: high.min(max) as i64, inside }
        })
    }

    fn prepare_uuids(&self, values: &[Scalar], inside: bool) -> Result<Kind> {
        let mut numbers = Vec::with_capacity(values.len());
        for value in values {
            let Scalar::Text(text) = value else { return Err(self.misfit(value)) };
            // A text that is no canonical UUID equals none.
            numbers.extend(uuids::parse(text.as_bytes()));
        }
        Ok(match (numbers.is_empty(), inside) {
            (true, true) => Kind::Nothing,
            (true, false) => self.not_null(),
            (false, _) => Kind::UuidsAmong { values: numbers, inside },
        })
    }

    fn integer(&self, value: &Scalar) -> Result<i128> {
        match (value, self.data_type()) {
            (Scalar::Decimal(value), DataType::Numeric { .. }) => Ok(*value),
            (Scalar::Int(_), DataType::Numeric { .. }) => Err(self.misfit(value)),
            (Scalar::Int(value), _) => Ok(i128::from(*value)),
            _ => Err(self.misfit(value)),
        }
    }

    fn misfit(&self, value: &Scalar) -> Error {
        Error::Invalid(format!("{value:?} is not a value of type {}", self.data_type()))
    }

    /// The leaf, to be evaluated on decoded values.
    fn decoded(&self, id: ColumnId, leaf: &Predicate) -> Box<Decoded> {
        let column = Column::new(id, "", self.data_type().clone());
        Box::new(Decoded { leaf: leaf.clone(), column })
    }
}

impl Decoded {
    /// The rows of `array` that pass.
    pub(super) fn select(&self, array: &ArrayRef) -> Result<Bitmask> {
        let passed = evaluate_leaf(&self.leaf, &self.column, array)?;
        Ok(Bitmask::from_boolean_buffer(&match passed.nulls() {
            None => passed.values().clone(),
            Some(known) => passed.values() & known.inner(),
        }))
    }
}

fn leaf_column(leaf: &Predicate) -> Result<ColumnId> {
    leaf.column().ok_or_else(|| Error::Invalid("AND and OR are not tests of one column".into()))
}
