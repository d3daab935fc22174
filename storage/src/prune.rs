//! What statistics alone say about a predicate, for a run of rows: a segment, or a chunk of a consuming one.
//!
//! | verdict | means | used to |
//! |---|---|---|
//! | `Never` | no row of the run satisfies it | leave the run out |
//! | `Always` | every row does | skip evaluating it |
//! | `Maybe` | the rows must be looked at | |
//!
//! Bounds may be wider than the values (long texts are cut), never narrower; so only what holds for every run inside the bounds is
//! concluded, and equality of the bounds says something only where they are exact. Statistics are in the type that the rows were written
//! in and are widened first. Everything is compared in the order of [`Scalar::compare`], as rows are.

use std::{borrow::Cow, cmp::Ordering};

use crate::{
    ids::ColumnId,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    schema::{DataType, TableSchema},
    segment::ColumnStats,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Never,
    Maybe,
    Always,
}

impl Verdict {
    fn of(never: bool, always: bool) -> Self {
        if never {
            Self::Never
        } else if always {
            Self::Always
        } else {
            Self::Maybe
        }
    }
}

/// Rows, the schema they were written under, and their statistics.
pub(crate) struct Run<'a, F: Fn(usize) -> Option<&'a ColumnStats>> {
    pub(crate) rows: u64,
    pub(crate) written: &'a TableSchema,
    /// By index in the written schema.
    pub(crate) stats: F,
}

/// The verdict on a whole predicate. With `only`, leaves on other columns count as unknown.
pub(crate) fn judge<'a, F: Fn(usize) -> Option<&'a ColumnStats>>(
    predicate: &Predicate,
    current: &TableSchema,
    run: &Run<'a, F>,
    only: Option<ColumnId>,
) -> Verdict {
    match predicate {
        Predicate::And(children) => {
            let mut all = Verdict::Always;
            for child in children {
                match judge(child, current, run, only) {
                    Verdict::Never => return Verdict::Never,
                    Verdict::Maybe => all = Verdict::Maybe,
                    Verdict::Always => {}
                }
            }
            all
        }
        Predicate::Or(children) => {
            let mut any = Verdict::Never;
            for child in children {
                match judge(child, current, run, only) {
                    Verdict::Always => return Verdict::Always,
                    Verdict::Maybe => any = Verdict::Maybe,
                    Verdict::Never => {}
                }
            }
            any
        }
        part => match part.column() {
            Some(column) if only.is_none_or(|only| only == column) => leaf(part, column, current, run),
            _ => Verdict::Maybe,
        },
    }
}

/// What is left of a predicate for the rows of the run: parts that all of them satisfy, and alternatives that none does, are gone. `None`:
/// every row satisfies it.
pub(crate) fn settled<'a, F: Fn(usize) -> Option<&'a ColumnStats>>(
    predicate: &Predicate,
    current: &TableSchema,
    run: &Run<'a, F>,
) -> Option<Predicate> {
    match predicate {
        Predicate::And(children) => {
            let mut left: Vec<_> = children.iter().filter_map(|child| settled(child, current, run)).collect();
            match left.len() {
                0 => None,
                1 => left.pop(),
                _ => Some(Predicate::And(left)),
            }
        }
        Predicate::Or(children) => {
            let mut left = Vec::with_capacity(children.len());
            for child in children {
                if judge(child, current, run, None) != Verdict::Never {
                    left.push(settled(child, current, run)?);
                }
            }
            if left.len() == 1 { left.pop() } else { Some(Predicate::Or(left)) }
        }
        leaf => (judge(leaf, current, run, None) != Verdict::Always).then(|| leaf.clone()),
    }
}

fn leaf<'a, F: Fn(usize) -> Option<&'a ColumnStats>>(
    predicate: &Predicate,
    id: ColumnId,
    current: &TableSchema,
    run: &Run<'a, F>,
) -> Verdict {
    if run.rows == 0 {
        return Verdict::Never;
    }
    let Some(column) = current.column(id) else { return Verdict::Maybe };
    match run.written.index_of(id) {
        // Every row has the default.
        None => {
            let stats = ColumnStats {
                min: column.default.clone(),
                max: column.default.clone(),
                exact: true,
                nulls: if column.default.is_none() { run.rows } else { 0 },
                ..ColumnStats::default()
            };
            by_stats(predicate, &column.data_type, &column.data_type, run.rows, &stats)
        }
        Some(index) => match (run.stats)(index) {
            None => Verdict::Maybe,
            Some(stats) => {
                by_stats(predicate, &run.written.columns[index].data_type, &column.data_type, run.rows, stats)
            }
        },
    }
}

fn by_stats(predicate: &Predicate, written: &DataType, current: &DataType, rows: u64, stats: &ColumnStats) -> Verdict {
    if let Predicate::IsNull { negated, .. } = predicate {
        let (all, none) = (stats.nulls >= rows, stats.nulls == 0);
        return if *negated { Verdict::of(all, none) } else { Verdict::of(none, all) };
    }
    // The other leaves are never true of a null.
    if stats.nulls >= rows {
        return Verdict::Never;
    }
    let (Some(min), Some(max)) = (&stats.min, &stats.max) else { return Verdict::Maybe };
    let (Some(min), Some(max)) = (widen(min, written, current), widen(max, written, current)) else {
        return Verdict::Maybe;
    };
    let bounds = Bounds { min: &min, max: &max, exact: stats.exact };
    let verdict = match predicate {
        Predicate::Compare { op, value, .. } => bounds.compare(*op, &as_stored(value, current)),
        Predicate::In { values, negated: false, .. } => {
            let mut any = Verdict::Never;
            for value in values {
                match bounds.compare(CompareOp::Eq, &as_stored(value, current)) {
                    Verdict::Always => return always_unless_null(Verdict::Always, stats),
                    Verdict::Maybe => any = Verdict::Maybe,
                    Verdict::Never => {}
                }
            }
            any
        }
        Predicate::In { values, negated: true, .. } => {
            let mut all = Verdict::Always;
            for value in values {
                match bounds.compare(CompareOp::NotEq, &as_stored(value, current)) {
                    Verdict::Never => return Verdict::Never,
                    Verdict::Maybe => all = Verdict::Maybe,
                    Verdict::Always => {}
                }
            }
            all
        }
        Predicate::Like { pattern, negated: false, case_insensitive: false, .. } => bounds.like(pattern),
        _ => Verdict::Maybe,
    };
    always_unless_null(verdict, stats)
}

fn always_unless_null(verdict: Verdict, stats: &ColumnStats) -> Verdict {
    if verdict == Verdict::Always && stats.nulls > 0 { Verdict::Maybe } else { verdict }
}

struct Bounds<'a> {
    min: &'a Scalar,
    max: &'a Scalar,
    exact: bool,
}

impl Bounds<'_> {
    /// Of the non-null values.
    fn compare(&self, op: CompareOp, value: &Scalar) -> Verdict {
        let (Some(min), Some(max)) = (self.min.compare(value), self.max.compare(value)) else { return Verdict::Maybe };
        let outside = min.is_gt() || max.is_lt();
        let constant = self.exact && min == Ordering::Equal && max == Ordering::Equal;
        match op {
            CompareOp::Eq => Verdict::of(outside, constant),
            CompareOp::NotEq => Verdict::of(constant, outside),
            CompareOp::Less => Verdict::of(min.is_ge(), max.is_lt()),
            CompareOp::LessEq => Verdict::of(min.is_gt(), max.is_le()),
            CompareOp::Greater => Verdict::of(max.is_le(), min.is_gt()),
            CompareOp::GreaterEq => Verdict::of(max.is_lt(), min.is_ge()),
        }
    }

    fn like(&self, pattern: &str) -> Verdict {
        let (Scalar::Text(min), Scalar::Text(max)) = (self.min, self.max) else { return Verdict::Maybe };
        let prefix = literal_prefix(pattern);
        let (min, max, prefix) = (min.as_bytes(), max.as_bytes(), prefix.as_bytes());
        let head = &min[..min.len().min(prefix.len())];
        Verdict::of(head > prefix || max < prefix, false)
    }
}

/// What every text that matches the pattern begins with.
fn literal_prefix(pattern: &str) -> String {
    let mut prefix = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' | '_' => break,
            // What a lone backslash at the end means is left to the evaluator.
            '\\' => match chars.next() {
                Some(escaped) => prefix.push(escaped),
                None => break,
            },
            c => prefix.push(c),
        }
    }
    prefix
}

/// The value as a column of the type holds it: REAL keeps 32 bits.
fn as_stored<'a>(value: &'a Scalar, data_type: &DataType) -> Cow<'a, Scalar> {
    match (value, data_type) {
        (Scalar::Float(v), DataType::Real) => Cow::Owned(Scalar::Float(f64::from(*v as f32))),
        _ => Cow::Borrowed(value),
    }
}

/// A value of type `from` as one of type `to`, which is as wide or wider; `None` where nothing can be said.
pub(crate) fn widen<'a>(value: &'a Scalar, from: &DataType, to: &DataType) -> Option<Cow<'a, Scalar>> {
    use DataType::{BigInt, Date, Double, Int, Numeric, Real, SmallInt, Text, Timestamp, Uuid};
    if from == to {
        return Some(Cow::Borrowed(value));
    }
    let wide = match (value, from, to) {
        (_, SmallInt, Int | BigInt) | (_, Int, BigInt) | (_, Real, Double) | (_, Uuid, Text) => {
            return Some(Cow::Borrowed(value));
        }
        (Scalar::Int(v), SmallInt | Int, Double) => Scalar::Float(*v as f64),
        (Scalar::Int(v), SmallInt | Int | BigInt, Numeric { scale, .. }) => {
            Scalar::Decimal(i128::from(*v).checked_mul(power_of_ten(*scale)?)?)
        }
        (Scalar::Decimal(v), Numeric { scale: s1, .. }, Numeric { scale: s2, .. }) => {
            Scalar::Decimal(v.checked_mul(power_of_ten(s2.checked_sub(*s1)?)?)?)
        }
        (Scalar::Int(v), Date, Timestamp) => Scalar::Int(v.checked_mul(86_400_000_000)?),
        _ => return None,
    };
    Some(Cow::Owned(wide))
}

fn power_of_ten(exponent: i8) -> Option<i128> {
    10i128.checked_pow(u32::try_from(exponent).ok()?)
}

#[cfg(test)]
mod tests;
